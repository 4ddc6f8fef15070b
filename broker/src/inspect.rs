//! A log's records in words, for tools that look at one.

use std::fmt;

use ciphermq_journal::{Position, Undecodable};
use hashbrown::HashMap;

use crate::Timestamp;
use crate::codec::{self, Fact};
use crate::directory::Entry;
use crate::event::Change;
use crate::message::Parts;
use crate::model::{ExchangeId, QueueId};
use crate::options::in_words;

/// Puts records into words. Show it all records of a log, in order: it learns the names behind the numbers as it goes.
#[derive(Debug, Default)]
pub struct Inspector {
    queues: HashMap<QueueId, Box<str>>,
    exchanges: HashMap<ExchangeId, Box<str>>,
}

/// A record in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// When it was submitted.
    pub at: Timestamp,
    /// What it is: one stable word.
    pub kind: &'static str,
    /// The exchange it is about.
    pub exchange: Option<String>,
    /// The routing key it is about.
    pub key: Option<String>,
    /// The queues it is about, each as a name, or as `#` and a number if the name is not known.
    pub queues: Vec<String>,
    /// The id of the message in it.
    pub id: Option<String>,
    /// The message it is about: the position of the record that brought it into its queue.
    pub order: Option<Position>,
    /// Bytes of the envelope in it.
    pub envelope_bytes: Option<u64>,
    /// The rest, in words.
    pub detail: String,
}

impl Inspector {
    /// One that knows no names yet.
    pub fn new() -> Inspector {
        Inspector::default()
    }

    /// A record in words.
    ///
    /// # Errors
    /// [`Undecodable`] says what is wrong with it.
    pub fn read(&mut self, position: Position, payload: &[u8]) -> Result<Described, Undecodable> {
        let logged = codec::decode(payload)?;
        let about = |kind| Described::new(logged.at, kind);
        Ok(match logged.fact {
            Fact::Publish { queues, message } => Described {
                queues: queues.iter().map(|queue| self.queue(queue)).collect(),
                order: Some(position),
                ..about("publish").with_message(message)
            },
            Fact::Settle { queue, order, seen } => Described {
                exchange: Some(self.exchange(seen.exchange)),
                detail: format!("attempts {}", seen.attempts),
                ..self.at(about("settle"), queue, order)
            },
            Fact::Move { from, order, to, origin, message } => Described {
                queues: vec![self.queue(from), self.queue(to)],
                order: Some(order),
                detail: format!(
                    "{}, published at {}",
                    message.reason.map_or("moved", |reason| reason.as_str()),
                    origin.0
                ),
                ..about("move").with_message(message)
            },
            Fact::Discard { queue, order } => {
                Described { detail: "its body was damaged".to_owned(), ..self.at(about("discard"), queue, order) }
            }
            Fact::Attempts { queue, order, attempts } => {
                Described { detail: format!("attempts {attempts}"), ..self.at(about("attempts"), queue, order) }
            }
            Fact::Relocate { order, origin, copies, message } => Described {
                queues: copies.iter().map(|(queue, _)| self.queue(queue)).collect(),
                order: Some(order),
                detail: format!("published at {}", origin.0),
                ..about("relocate").with_message(message)
            },
            Fact::Ids(ids) => Described { detail: format!("{} known ids", ids.len()), ..about("ids") },
            Fact::Counters(counters) => Described {
                detail: format!("last queue #{}, last exchange #{}", counters.last_queue.0, counters.last_exchange.0),
                ..about("counters")
            },
            Fact::Change(change) => self.change(&change, about("topology")),
        })
    }

    fn change(&mut self, change: &Change, about: Described) -> Described {
        match change {
            Change::DeclareQueue { id, name, settings } => {
                self.queues.insert(*id, Box::from(&**name));
                let detail = format!(
                    "queue #{} declared: lease={} max_attempts={} dead_letter={} max_messages={} max_bytes={} durability={}",
                    id.0,
                    settings.lease_ms,
                    settings.max_attempts,
                    settings.dead_letter.as_deref().unwrap_or("none"),
                    settings.max_messages,
                    settings.max_bytes,
                    in_words(settings.durability),
                );
                Described { queues: vec![name.to_string()], detail, ..about }
            }
            Change::DeclareExchange { id, name } => {
                self.exchanges.insert(*id, Box::from(&**name));
                Described { exchange: Some(name.to_string()), detail: format!("exchange #{} declared", id.0), ..about }
            }
            Change::Bind { exchange, bindings } => {
                let key = match bindings.as_slice() {
                    [(_, key)] => Some(key.to_string()),
                    _ => None,
                };
                let queues = bindings.iter().map(|(queue, _)| self.queue(*queue)).collect();
                let detail = format!("{} bound", bindings.len());
                Described { exchange: Some(self.exchange(*exchange)), key, queues, detail, ..about }
            }
            Change::Unbind { exchange, queue, key } => Described {
                exchange: Some(self.exchange(*exchange)),
                key: Some(key.to_string()),
                queues: vec![self.queue(*queue)],
                detail: "unbound".to_owned(),
                ..about
            },
            Change::DeleteQueue { id } => {
                Described { queues: vec![self.queue(*id)], detail: "queue deleted".to_owned(), ..about }
            }
            Change::DeleteExchange { id } => {
                Described { exchange: Some(self.exchange(*id)), detail: "exchange deleted".to_owned(), ..about }
            }
            Change::Purge { id, stay } => {
                Described { queues: vec![self.queue(*id)], detail: format!("purged, {} stay", stay.len()), ..about }
            }
            Change::Key { entry: Entry::Announced(announcement), .. } => Described {
                kind: "announce",
                detail: format!(
                    "client {} seq {} identity {} successor {} of {} bytes",
                    announcement.client,
                    announcement.seq,
                    Hex(&announcement.identity),
                    announcement.successor.map_or("none".to_owned(), |successor| Hex(&successor).to_string()),
                    announcement.bytes.len()
                ),
                ..about
            },
            Change::Key { entry: Entry::Unsigned(key), .. } => Described {
                kind: "register",
                detail: format!("unsigned key of client {} of {} bytes", key.client, key.key.len()),
                ..about
            },
        }
    }

    fn at(&self, about: Described, queue: QueueId, order: Position) -> Described {
        Described { queues: vec![self.queue(queue)], order: Some(order), ..about }
    }

    fn queue(&self, id: QueueId) -> String {
        self.queues.get(&id).map_or_else(|| format!("#{}", id.0), |name| name.to_string())
    }

    fn exchange(&self, id: ExchangeId) -> String {
        self.exchanges.get(&id).map_or_else(|| format!("#{}", id.0), |name| name.to_string())
    }
}

/// Bytes as people compare them.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Described {
    fn new(at: Timestamp, kind: &'static str) -> Described {
        Described {
            at,
            kind,
            exchange: None,
            key: None,
            queues: Vec::new(),
            id: None,
            order: None,
            envelope_bytes: None,
            detail: String::new(),
        }
    }

    fn with_message(self, message: Parts<'_>) -> Described {
        Described {
            exchange: Some(message.exchange().to_owned()),
            key: Some(message.key().to_owned()),
            id: Some(message.id().to_owned()),
            envelope_bytes: Some(message.envelope().len() as u64),
            ..self
        }
    }
}
