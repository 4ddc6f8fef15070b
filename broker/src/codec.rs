//! What a record looks like in the log.
//!
//! All numbers are little-endian. A record is one byte for its kind, eight for when it was submitted (milliseconds since 1970),
//! and what the kind needs; nothing may follow. `name` is a length byte and so many bytes of UTF-8, `[x]` a count (u32) and so
//! many `x`, `?x` a presence byte (0 or 1) and perhaps an `x`.
//!
//! ```text
//!  kind  name              contents behind kind u8 and time u64
//!  ----  ----------------  ----------------------------------------------------------------------------------
//!     1  publish           [queue u32], message
//!     2  settle            queue u32, order u64, id hash 16 bytes, exchange u32, published u64, ?delivered u64, attempts u32
//!     3  move              from queue u32, order u64, to queue u32, origin u64, message
//!     4  discard           queue u32, order u64
//!     5  attempts          queue u32, order u64, attempts u32
//!     6  relocate          order u64, origin u64, [queue u32, attempts u32], message
//!     7  ids               [id hash 16 bytes, exchange u32, queue u32, origin u64, published u64]
//!     8  counters          key of the id hash 16 bytes, last queue u32, last exchange u32
//!    16  declare queue     queue u32, name, settings
//!    17  declare exchange  exchange u32, name
//!    18  bind              exchange u32, [queue u32, key name]
//!    19  unbind            exchange u32, queue u32, key name
//!    20  delete queue      queue u32
//!    21  delete exchange   exchange u32
//!    22  purge             queue u32, [order u64] of the messages that stay, ascending
//!    23  announce key      client name, taken u64, seq u64, identity 32 bytes, ?successor 32 bytes, bytes
//!    24  register key      client name, taken u64, bytes
//!
//!  message   exchange u32, published u64, lengths of exchange, key, id, from: 4 × u8, reason u8, length u32, text
//!            text = exchange · key · id · from · envelope; `from` is the queue a dead letter was taken from
//!            reason: 0 no dead letter, 1 rejected, 2 attempts, 3 too long
//!  bytes     length u32, 1 to 4,096, and so many bytes: an announcement with its signature, or an unsigned key
//!  settings  lease u64, max attempts u32, max messages u64, max bytes u64, durability, ?dead-letter queue name
//!  durability  0 none | 1 interval | 2 sync, then the interval in milliseconds u32 (0 unless 1)
//! ```
//!
//! Queues and exchanges are numbers; a number is never given twice, so a record about one that is gone is about nothing. *Order*
//! is the position of the record that brought the message into its queue (publish or move): it names the message there and orders
//! the queue. *Origin* is the position of the publish. Both outlive the record they point to. `queue` of an id says where its
//! copies are, if they are in one place; 2^32 − 1 means that nobody knows.

mod keys;
mod read;
mod write;

use ciphermq_journal::{Durability, Entry, Position, Undecodable};

use crate::dedupe::{IdHash, KnownId};
use crate::directory::Entry as Key;
use crate::event::{Change, Counters, Event, Record, Settled, Topology};
use crate::message::{Message, Parts};
use crate::model::{ExchangeId, QueueId};
use crate::{QueueSettings, Timestamp, limits};
use read::Input;
use write::{Length, Sink};

/// A record as it was read: what [`Record`] is to live queues, this is to numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Logged<'a> {
    pub(crate) at: Timestamp,
    pub(crate) fact: Fact<'a>,
}

/// See the [table](self).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fact<'a> {
    Publish { queues: List<'a, QueueId>, message: Parts<'a> },
    Settle { queue: QueueId, order: Position, seen: Settled },
    Move { from: QueueId, order: Position, to: QueueId, origin: Position, message: Parts<'a> },
    Discard { queue: QueueId, order: Position },
    Attempts { queue: QueueId, order: Position, attempts: u32 },
    Relocate { order: Position, origin: Position, copies: List<'a, (QueueId, u32)>, message: Parts<'a> },
    Ids(List<'a, KnownId>),
    Counters(Counters),
    Change(Change),
}

/// Items of a fixed size, read when they are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct List<'a, T> {
    bytes: &'a [u8],
    item: std::marker::PhantomData<T>,
}

/// Something a [`List`] may hold: any bytes of its length are one.
pub(crate) trait Item: Sized {
    const BYTES: usize;

    fn read(bytes: &[u8]) -> Self;
}

/// Reads a record.
///
/// # Errors
/// [`Undecodable`] says what is wrong with it.
pub(crate) fn decode(payload: &[u8]) -> Result<Logged<'_>, Undecodable> {
    let mut input = Input(payload);
    let kind = input.u8()?;
    let at = input.time()?;
    let fact = fact(kind, &mut input)?;
    input.end()?;
    Ok(Logged { at, fact })
}

/// The message in a record that is the `order` of a queue, or was written anew for it.
///
/// # Errors
/// [`Undecodable`], also if the record holds no message.
pub(crate) fn message(payload: &[u8], order: Position) -> Result<Message, Undecodable> {
    let (parts, origin, copies) = match decode(payload)?.fact {
        Fact::Publish { queues, message } => (message, order, queues.len()),
        Fact::Move { origin, message, .. } => (message, origin, 1),
        Fact::Relocate { order: of, origin, copies, message } if of == order => (message, origin, copies.len()),
        _ => return Err(Undecodable("a record without the message that was looked for")),
    };
    Ok(Message::from_parts(parts).with_origin(origin, copies))
}

impl Entry for Record {
    fn encoded_len(&self) -> usize {
        let mut length = Length(0);
        write(self, &mut length);
        length.0
    }

    fn encode(&self, out: &mut Vec<u8>) {
        write(self, out);
    }

    fn continues(&self) -> bool {
        self.continues
    }

    fn reserved(&self) -> u64 {
        self.reserved.into()
    }

    fn stands_alone(&self) -> bool {
        matches!(self.event, Event::Ask(..) | Event::Change(..))
    }

    fn is_vital(&self) -> bool {
        matches!(self.event, Event::Ask(..) | Event::Change(..) | Event::Counters(_))
    }

    fn durability(&self) -> Durability {
        match &self.event {
            Event::Publish { route, .. } => route.durability,
            Event::Settle { queue, .. } | Event::Move { queue, target: None, .. } => queue.settings().durability,
            Event::Move { queue, target: Some(to), .. } => {
                queue.settings().durability.strictest(to.settings().durability)
            }
            Event::Duplicate | Event::Attempts { .. } | Event::Discard { .. } => Durability::Written,
            Event::Relocate { .. } | Event::Ids(_) | Event::Counters(_) | Event::Ask(..) | Event::Change(..) => {
                Durability::Synced
            }
        }
    }
}

fn write(record: &Record, out: &mut impl Sink) {
    let (kind, at) = (kind(&record.event), record.at.0);
    out.u8(kind);
    out.u64(at);
    match &record.event {
        Event::Publish { message, route, .. } => {
            out.count(route.queues.len());
            route.queues.iter().for_each(|queue| out.u32(queue.id().0));
            out.message(message.parts());
        }
        Event::Settle { queue, order, seen, .. } => {
            out.u32(queue.id().0);
            out.position(*order);
            out.put(&seen.hash.to_bytes());
            out.u32(seen.exchange.0);
            out.u64(seen.published.0);
            out.u8(seen.delivered.is_some().into());
            seen.delivered.iter().for_each(|at| out.u64(at.0));
            out.u32(seen.attempts);
        }
        Event::Move { queue, order, target, message, .. } => {
            out.u32(queue.id().0);
            out.position(*order);
            out.u32(target.as_ref().map_or(NO_QUEUE, |queue| queue.id()).0);
            out.position(message.origin());
            out.message(message.parts());
        }
        Event::Discard { queue, order } => {
            out.u32(queue.id().0);
            out.position(*order);
        }
        Event::Attempts { queue, order, attempts } => {
            out.u32(queue.id().0);
            out.position(*order);
            out.u32(*attempts);
        }
        Event::Relocate { order, message, copies } => {
            out.position(*order);
            out.position(message.origin());
            out.count(copies.len());
            for (queue, attempts) in copies {
                out.u32(queue.id().0);
                out.u32(*attempts);
            }
            out.message(message.parts());
        }
        Event::Ids(ids) => {
            out.count(ids.len());
            ids.iter().for_each(|id| write_id(id, out));
        }
        Event::Counters(counters) => {
            out.put(&counters.hash_key.to_le_bytes());
            out.u32(counters.last_queue.0);
            out.u32(counters.last_exchange.0);
        }
        Event::Change(change, _) => write_change(change, out),
        Event::Ask(topology, _) => write_longest(topology, out),
        Event::Duplicate => {}
    }
}

fn kind(event: &Event) -> u8 {
    match event {
        Event::Publish { .. } => 1,
        Event::Settle { .. } => 2,
        Event::Move { .. } => 3,
        Event::Discard { .. } => 4,
        Event::Attempts { .. } => 5,
        Event::Relocate { .. } => 6,
        Event::Ids(_) => 7,
        Event::Counters(_) => 8,
        Event::Change(change, _) => match &**change {
            Change::DeclareQueue { .. } => 16,
            Change::DeclareExchange { .. } => 17,
            Change::Bind { .. } => 18,
            Change::Unbind { .. } => 19,
            Change::DeleteQueue { .. } => 20,
            Change::DeleteExchange { .. } => 21,
            Change::Purge { .. } => 22,
            Change::Key { entry: Key::Announced(_), .. } => 23,
            Change::Key { entry: Key::Unsigned(_), .. } => 24,
        },
        // Decided before they are written, or never written.
        Event::Ask(..) | Event::Duplicate => 0,
    }
}

fn write_id(id: &KnownId, out: &mut impl Sink) {
    out.put(&id.hash.to_bytes());
    out.u32(id.exchange.0);
    out.u32(id.place);
    out.position(id.origin);
    out.u64(id.published.0);
}

fn write_change(change: &Change, out: &mut impl Sink) {
    match change {
        Change::DeclareQueue { id, name, settings } => {
            out.u32(id.0);
            out.name(name);
            write_settings(settings, out);
        }
        Change::DeclareExchange { id, name } => {
            out.u32(id.0);
            out.name(name);
        }
        Change::Bind { exchange, bindings } => {
            out.u32(exchange.0);
            out.count(bindings.len());
            for (queue, key) in bindings {
                out.u32(queue.0);
                out.name(key);
            }
        }
        Change::Unbind { exchange, queue, key } => {
            out.u32(exchange.0);
            out.u32(queue.0);
            out.name(key);
        }
        Change::DeleteQueue { id } => out.u32(id.0),
        Change::DeleteExchange { id } => out.u32(id.0),
        Change::Purge { id, stay } => {
            out.u32(id.0);
            out.count(stay.len());
            stay.iter().for_each(|order| out.position(*order));
        }
        Change::Key { entry, at } => keys::write(entry, *at, out),
    }
}

fn write_settings(settings: &QueueSettings, out: &mut impl Sink) {
    out.u64(settings.lease_ms);
    out.u32(settings.max_attempts);
    out.u64(settings.max_messages);
    out.u64(settings.max_bytes);
    out.durability(settings.durability);
    out.u8(settings.dead_letter.is_some().into());
    settings.dead_letter.iter().for_each(|name| out.name(name));
}

/// A change nobody has decided yet: as long as the longest thing that can become of it.
fn write_longest(asked: &Topology, out: &mut impl Sink) {
    match asked {
        Topology::DeclareQueue { name, settings, .. } => {
            out.u32(0);
            out.name(name);
            write_settings(settings, out);
        }
        Topology::DeclareExchange { name } => {
            out.u32(0);
            out.name(name);
        }
        Topology::Bind { key, .. } | Topology::Unbind { key, .. } => {
            out.u32(0);
            out.count(1);
            out.u32(0);
            out.name(key);
        }
        Topology::DeleteQueue { .. } | Topology::DeleteExchange { .. } => out.u32(0),
        Topology::Purge { stay_max, .. } => {
            out.u32(0);
            out.count(*stay_max);
            (0..*stay_max).for_each(|_| out.u64(0));
        }
        Topology::Key(entry) => keys::write(entry, Timestamp(0), out),
    }
}

fn fact<'a>(kind: u8, input: &mut Input<'a>) -> Result<Fact<'a>, Undecodable> {
    let queue = |input: &mut Input<'_>| input.u32().map(QueueId);
    let exchange = |input: &mut Input<'_>| input.u32().map(ExchangeId);
    Ok(match kind {
        1 => Fact::Publish { queues: list(input, limits::QUEUES_PER_MESSAGE_MAX)?, message: input.message()? },
        2 => Fact::Settle { queue: queue(input)?, order: input.position()?, seen: settled(input)? },
        3 => Fact::Move {
            from: queue(input)?,
            order: input.position()?,
            to: queue(input)?,
            origin: input.position()?,
            message: input.message()?,
        },
        4 => Fact::Discard { queue: queue(input)?, order: input.position()? },
        5 => Fact::Attempts { queue: queue(input)?, order: input.position()?, attempts: input.u32()? },
        6 => Fact::Relocate {
            order: input.position()?,
            origin: input.position()?,
            copies: list(input, limits::QUEUES_PER_MESSAGE_MAX)?,
            message: input.message()?,
        },
        7 => Fact::Ids(list(input, limits::IDS_PER_RECORD_MAX)?),
        8 => Fact::Counters(Counters {
            hash_key: input.u128()?,
            last_queue: queue(input)?,
            last_exchange: exchange(input)?,
        }),
        16 => {
            let (id, name) = (queue(input)?, input.name()?.into());
            Fact::Change(Change::DeclareQueue { id, name, settings: settings(input)? })
        }
        17 => Fact::Change(Change::DeclareExchange { id: exchange(input)?, name: input.name()?.into() }),
        18 => Fact::Change(Change::Bind { exchange: exchange(input)?, bindings: bindings(input)? }),
        19 => {
            Fact::Change(Change::Unbind { exchange: exchange(input)?, queue: queue(input)?, key: input.name()?.into() })
        }
        20 => Fact::Change(Change::DeleteQueue { id: queue(input)? }),
        21 => Fact::Change(Change::DeleteExchange { id: exchange(input)? }),
        22 => {
            let (id, stay) = (queue(input)?, list::<Position>(input, limits::PURGE_STAY_MAX)?);
            let stay: Vec<Position> = stay.iter().collect();
            if !stay.is_sorted() {
                return Err(Undecodable("the messages that stay are not in order"));
            }
            Fact::Change(Change::Purge { id, stay })
        }
        23 => Fact::Change(keys::announced(input)?),
        24 => Fact::Change(keys::unsigned(input)?),
        _ => return Err(Undecodable("an unknown kind of record")),
    })
}

fn list<'a, T: Item>(input: &mut Input<'a>, max: usize) -> Result<List<'a, T>, Undecodable> {
    let list = List { bytes: input.items(T::BYTES)?, item: std::marker::PhantomData };
    if list.len() > max { Err(Undecodable("a list is too long")) } else { Ok(list) }
}

fn settled(input: &mut Input<'_>) -> Result<Settled, Undecodable> {
    Ok(Settled {
        hash: IdHash::from_bytes(input.u128()?.to_le_bytes()),
        exchange: ExchangeId(input.u32()?),
        published: input.time()?,
        delivered: input.option(Input::time)?,
        attempts: input.u32()?,
    })
}

fn settings(input: &mut Input<'_>) -> Result<QueueSettings, Undecodable> {
    Ok(QueueSettings {
        lease_ms: input.u64()?,
        max_attempts: input.u32()?,
        max_messages: input.u64()?,
        max_bytes: input.u64()?,
        durability: input.durability()?,
        dead_letter: input.option(Input::name)?.map(Into::into),
    })
}

fn bindings(input: &mut Input<'_>) -> Result<Vec<(QueueId, Box<str>)>, Undecodable> {
    let count = input.u32()? as usize;
    if count > limits::BINDINGS_PER_RECORD_MAX {
        return Err(Undecodable("a list is too long"));
    }
    (0..count).map(|_| Ok((QueueId(input.u32()?), input.name()?.into()))).collect()
}

impl<T: Item> List<'_, T> {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / T::BYTES
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = T> {
        self.bytes.chunks_exact(T::BYTES).map(T::read)
    }
}

impl Item for QueueId {
    const BYTES: usize = 4;

    fn read(bytes: &[u8]) -> QueueId {
        QueueId(u32_at(bytes, 0))
    }
}

impl Item for Position {
    const BYTES: usize = 8;

    fn read(bytes: &[u8]) -> Position {
        Position(u64_at(bytes, 0))
    }
}

/// A queue, and the attempts used up in it.
impl Item for (QueueId, u32) {
    const BYTES: usize = 8;

    fn read(bytes: &[u8]) -> (QueueId, u32) {
        (QueueId(u32_at(bytes, 0)), u32_at(bytes, 4))
    }
}

impl Item for KnownId {
    const BYTES: usize = 40;

    fn read(bytes: &[u8]) -> KnownId {
        KnownId {
            hash: IdHash::from_bytes(array_at(bytes, 0)),
            exchange: ExchangeId(u32_at(bytes, 16)),
            place: u32_at(bytes, 20),
            origin: Position(u64_at(bytes, 24)),
            published: Timestamp(u64_at(bytes, 32)),
        }
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, offset))
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    *bytes[offset..].first_chunk().expect("an item has the bytes its type says: `List` cuts them so")
}

/// Stands for a queue nobody has looked up: such a move is not written.
const NO_QUEUE: QueueId = QueueId(0);

#[cfg(test)]
mod tests;
