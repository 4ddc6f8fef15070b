use std::sync::Arc;

use ciphermq_journal::Doorbell;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::budget::Budget;
use crate::directory::{Announcement, UnsignedKey};
use crate::exchange::Route;
use crate::queue::Queue;
use crate::stats::Stats;
use crate::timers::Timers;
use crate::{BrokerOptions, QueueOptions, Reason};

fn queue(id: u32) -> Arc<Queue> {
    let timers = Arc::new(Timers::new(Arc::new(Doorbell::new())));
    let settings = QueueSettings::dead_letter_queue(&BrokerOptions::default());
    let (stats, budget) = (Arc::new(Stats::default()), Arc::new(Budget::unlimited()));
    Arc::new(Queue::new(QueueId(id), Arc::from("q"), settings, timers, stats, budget))
}

fn queues(count: usize) -> impl Strategy<Value = Vec<Arc<Queue>>> {
    vec(any::<u32>().prop_map(queue), 0..count)
}

fn name() -> impl Strategy<Value = Arc<str>> {
    "[a-zü.#]{0,60}".prop_map(Arc::from)
}

fn hash() -> impl Strategy<Value = IdHash> {
    any::<[u8; 16]>().prop_map(IdHash::from_bytes)
}

fn position() -> impl Strategy<Value = Position> {
    any::<u64>().prop_map(Position)
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![Just(Durability::Written), any::<u32>().prop_map(Durability::Within), Just(Durability::Synced)]
}

fn message() -> impl Strategy<Value = Message> {
    let dead = option::of((name(), prop_oneof![Just(Reason::Rejected), Just(Reason::Attempts), Just(Reason::TooLong)]));
    let parts = (any::<u32>(), name(), name(), name(), ".{0,300}", any::<u64>(), position(), dead);
    parts.prop_map(|(exchange, exchange_name, key, id, envelope, published, origin, dead)| {
        let exchange = (ExchangeId(exchange), &*exchange_name);
        let message = Message::new(&mut String::new(), exchange, &key, &id, &envelope, Timestamp(published));
        let message = message.with_origin(origin, 1);
        dead.map_or(message.clone(), |(from, reason)| message.dead(&from, reason))
    })
}

fn known_id() -> impl Strategy<Value = KnownId> {
    let parts = (hash(), any::<u32>(), any::<u32>(), position(), any::<u64>());
    parts.prop_map(|(hash, exchange, place, origin, published)| KnownId {
        hash,
        exchange: ExchangeId(exchange),
        place,
        origin,
        published: Timestamp(published),
    })
}

fn settings() -> impl Strategy<Value = QueueSettings> {
    let parts = (any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>(), durability(), option::of(name()));
    parts.prop_map(|(lease_ms, max_attempts, max_messages, max_bytes, durability, dead_letter)| QueueSettings {
        lease_ms,
        max_attempts,
        max_messages,
        max_bytes,
        durability,
        dead_letter,
    })
}

fn key_entry() -> impl Strategy<Value = Key> {
    let bytes = || vec(any::<u8>(), 1..300).prop_map(Arc::from);
    let signed = (name(), any::<u64>(), any::<[u8; 32]>(), option::of(any::<[u8; 32]>()), bytes());
    prop_oneof![
        signed.prop_map(|(client, seq, identity, successor, bytes)| Key::Announced(Announcement {
            client,
            seq,
            identity,
            successor,
            bytes
        })),
        (name(), bytes()).prop_map(|(client, key)| Key::Unsigned(UnsignedKey { client, key })),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let id = || any::<u32>();
    prop_oneof![
        (id(), name(), settings()).prop_map(|(id, name, settings)| Change::DeclareQueue {
            id: QueueId(id),
            name,
            settings
        }),
        (id(), name()).prop_map(|(id, name)| Change::DeclareExchange { id: ExchangeId(id), name }),
        (id(), vec((id(), name()), 0..9)).prop_map(|(exchange, bindings)| Change::Bind {
            exchange: ExchangeId(exchange),
            bindings: bindings.into_iter().map(|(queue, key)| (QueueId(queue), Box::from(&*key))).collect(),
        }),
        (id(), id(), name()).prop_map(|(exchange, queue, key)| Change::Unbind {
            exchange: ExchangeId(exchange),
            queue: QueueId(queue),
            key: Box::from(&*key)
        }),
        id().prop_map(|id| Change::DeleteQueue { id: QueueId(id) }),
        id().prop_map(|id| Change::DeleteExchange { id: ExchangeId(id) }),
        (id(), vec(position(), 0..40)).prop_map(|(id, mut stay)| {
            stay.sort_unstable();
            Change::Purge { id: QueueId(id), stay }
        }),
        (key_entry(), any::<u64>()).prop_map(|(entry, at)| Change::Key { entry, at: Timestamp(at) }),
    ]
}

/// Every record that is ever written.
fn record() -> impl Strategy<Value = Record> {
    let settled = (hash(), any::<u32>(), any::<u64>(), option::of(any::<u64>()), any::<u32>()).prop_map(
        |(hash, exchange, published, delivered, attempts)| Settled {
            hash,
            exchange: ExchangeId(exchange),
            published: Timestamp(published),
            delivered: delivered.map(Timestamp),
            attempts,
        },
    );
    let one = || any::<u32>().prop_map(queue);
    let event = prop_oneof![
        (message(), hash(), queues(6)).prop_map(|(message, hash, queues)| Event::Publish {
            route: Arc::new(Route::new(message.exchange_id(), queues)),
            message,
            hash,
        }),
        (one(), position(), settled, any::<bool>()).prop_map(|(queue, order, seen, loose)| Event::Settle {
            queue,
            order,
            seen,
            loose: loose.then(|| Box::new(order)),
        }),
        (one(), position(), one(), message()).prop_map(|(queue, order, target, message)| Event::Move {
            queue,
            order,
            to: Arc::from("q"),
            target: Some(target),
            message: Box::new(message)
        }),
        (one(), position()).prop_map(|(queue, order)| Event::Discard { queue, order }),
        (one(), position(), any::<u32>()).prop_map(|(queue, order, attempts)| Event::Attempts {
            queue,
            order,
            attempts
        }),
        (position(), message(), vec((one(), any::<u32>()), 0..6))
            .prop_map(|(order, message, copies)| { Event::Relocate { order, message: Box::new(message), copies } }),
        vec(known_id(), 0..40).prop_map(Event::Ids),
        (any::<u128>(), any::<u32>(), any::<u32>()).prop_map(|(hash_key, queue, exchange)| {
            Event::Counters(Counters { hash_key, last_queue: QueueId(queue), last_exchange: ExchangeId(exchange) })
        }),
        change().prop_map(|change| Event::Change(Box::new(change), Arc::default())),
    ];
    (any::<u64>(), event).prop_map(|(at, event)| Record::new(Timestamp(at), event))
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = vec![0xAA];
    record.encode(&mut bytes);
    bytes.remove(0);
    bytes
}

fn items<T: Item>(list: List<'_, T>) -> Vec<T> {
    list.iter().collect()
}

fn ids(queues: &[Arc<Queue>]) -> Vec<QueueId> {
    queues.iter().map(|queue| queue.id()).collect()
}

/// What was read is what was written.
fn assert_same(record: &Record, read: Logged<'_>) {
    assert_eq!(read.at, record.at);
    match (&record.event, read.fact) {
        (Event::Publish { message, route, .. }, Fact::Publish { queues, message: read }) => {
            assert_eq!((items(queues), read), (ids(&route.queues), message.parts()));
        }
        (Event::Settle { queue, order, seen, .. }, Fact::Settle { queue: read, order: at, seen: saw }) => {
            assert_eq!((read, at, saw), (queue.id(), *order, *seen));
        }
        (
            Event::Move { queue, order, target: Some(target), message: sent, .. },
            Fact::Move { from, order: at, to, origin, message },
        ) => {
            assert_eq!((from, at, to), (queue.id(), *order, target.id()));
            assert_eq!((origin, message), (sent.origin(), sent.parts()));
        }
        (Event::Discard { queue, order }, Fact::Discard { queue: read, order: at }) => {
            assert_eq!((read, at), (queue.id(), *order));
        }
        (Event::Attempts { queue, order, attempts }, Fact::Attempts { queue: read, order: at, attempts: used }) => {
            assert_eq!((read, at, used), (queue.id(), *order, *attempts));
        }
        (
            Event::Relocate { order, message, copies },
            Fact::Relocate { order: at, origin, copies: read, message: body },
        ) => {
            let copies: Vec<_> = copies.iter().map(|(queue, attempts)| (queue.id(), *attempts)).collect();
            assert_eq!((at, origin, items(read), body), (*order, message.origin(), copies, message.parts()));
        }
        (Event::Ids(ids), Fact::Ids(read)) => assert_eq!(items(read), *ids),
        (Event::Counters(counters), Fact::Counters(read)) => assert_eq!(read, *counters),
        (Event::Change(change, _), Fact::Change(read)) => assert_eq!(read, **change),
        (written, read) => panic!("{written:?} was read as {read:?}"),
    }
}

proptest! {
    #[test]
    fn every_record_is_read_as_it_was_written_and_as_long_as_it_said(record in record()) {
        let bytes = encoded(&record);
        prop_assert_eq!(record.encoded_len(), bytes.len());
        assert_same(&record, decode(&bytes).expect("what was written"));
    }

    #[test]
    fn a_record_cut_short_or_followed_by_anything_is_refused(record in record(), cut in any::<prop::sample::Index>()) {
        let mut bytes = encoded(&record);
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn an_altered_record_never_panics(record in record(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = encoded(&record);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = decode(&bytes);
        let _ = super::message(&bytes, Position(7));
    }

    #[test]
    fn any_bytes_never_panic(kind in 0u8..32, bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let bytes = [&[kind], bytes.as_slice()].concat();
        let _ = decode(&bytes);
    }

    #[test]
    fn the_message_of_a_record_comes_back_whole(message in message(), queues in queues(5)) {
        let order = Position(77);
        let copies = queues.iter().map(|queue| (Arc::clone(queue), 1)).collect();
        let publish = Event::Publish {
            message: message.clone(),
            hash: IdHash::from_bytes([0; 16]),
            route: Arc::new(Route::new(message.exchange_id(), queues)),
        };
        let relocate = Event::Relocate { order, message: Box::new(message.clone()), copies };
        for (event, origin) in [(publish, order), (relocate, message.origin())] {
            let bytes = encoded(&Record::new(Timestamp(1), event));
            let read = super::message(&bytes, order).expect("there is one");
            prop_assert_eq!((read.parts(), read.origin()), (message.parts(), origin));
        }
    }
}

fn announced() -> Key {
    let (client, bytes) = (Arc::from("c-1"), Arc::from(&b"signed"[..]));
    Key::Announced(Announcement { client, seq: 0x0102, identity: [7; 32], successor: Some([8; 32]), bytes })
}

fn unsigned() -> Key {
    Key::Unsigned(UnsignedKey { client: Arc::from("c-1"), key: Arc::from(&b"key"[..]) })
}

/// The log takes room for a record before it is decided how long it is.
#[test]
fn a_change_that_is_decided_is_no_longer_than_the_change_that_was_asked_for() {
    let name: Arc<str> = Arc::from("a-name");
    let (id, exchange) = (QueueId(1), ExchangeId(1));
    let settings = QueueSettings::decide(&name, &QueueOptions::default(), &BrokerOptions::default());
    let [a, b, key] = [(); 3].map(|()| Arc::clone(&name));
    let pairs = [
        (
            Topology::DeclareQueue {
                name: Arc::clone(&name),
                options: QueueOptions::default(),
                settings: settings.clone(),
            },
            Change::DeclareQueue { id, name: Arc::clone(&name), settings },
        ),
        (
            Topology::DeclareExchange { name: Arc::clone(&name) },
            Change::DeclareExchange { id: exchange, name: Arc::clone(&name) },
        ),
        (
            Topology::Bind { exchange: Arc::clone(&a), queue: Arc::clone(&b), key: Arc::clone(&key) },
            Change::Bind { exchange, bindings: vec![(id, Box::from(&*key))] },
        ),
        (Topology::Unbind { exchange: a, queue: b, key: Arc::clone(&key) }, {
            Change::Unbind { exchange, queue: id, key: Box::from(&*key) }
        }),
        (Topology::DeleteQueue { name: Arc::clone(&name), force: true }, Change::DeleteQueue { id }),
        (Topology::DeleteExchange { name: Arc::clone(&name) }, Change::DeleteExchange { id: exchange }),
        (Topology::Purge { name, stay_max: 3 }, Change::Purge { id, stay: vec![Position(1); 3] }),
        (Topology::Key(announced()), Change::Key { entry: announced(), at: Timestamp(u64::MAX) }),
        (Topology::Key(unsigned()), Change::Key { entry: unsigned(), at: Timestamp(u64::MAX) }),
    ];
    for (asked, decided) in pairs {
        let room = Record::new(Timestamp(0), Event::Ask(Box::new(asked), Arc::default())).encoded_len();
        let record = Record::new(Timestamp(0), Event::Change(Box::new(decided), Arc::default()));
        assert!(record.encoded_len() <= room, "{record:?}");
    }
}

#[test]
fn what_is_frequent_is_small() {
    assert_eq!(size_of::<Record>(), 96);
}

/// The bytes on disk are a contract with every later version.
#[test]
fn the_layout_is_the_documented_one() {
    let mut scratch = String::new();
    let message = Message::new(&mut scratch, (ExchangeId(2), "ex"), "k", "id", "{}", Timestamp(5));
    let route = Arc::new(Route::new(ExchangeId(2), vec![queue(3)]));
    let publish = Event::Publish { message, hash: IdHash::from_bytes([0; 16]), route };
    let bytes = encoded(&Record::new(Timestamp(0x0102), publish));
    let expected: &[&[u8]] = &[
        &[1],
        &[2, 1, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 3, 0, 0, 0],
        &[2, 0, 0, 0],
        &[5, 0, 0, 0, 0, 0, 0, 0],
        &[2, 1, 2, 0],
        &[0],
        &[7, 0, 0, 0],
        b"exkid{}",
    ];
    assert_eq!(bytes, expected.concat());
}

#[test]
fn the_layout_of_keys_is_the_documented_one() {
    let change = |entry| Change::Key { entry, at: Timestamp(0x0304) };
    let bytes = |entry| encoded(&Record::new(Timestamp(1), Event::Change(Box::new(change(entry)), Arc::default())));
    let head = |kind: u8| [&[kind, 1, 0, 0, 0, 0, 0, 0, 0, 3][..], b"c-1", &[4, 3, 0, 0, 0, 0, 0, 0]].concat();
    let expected: &[&[u8]] =
        &[&head(23), &[2, 1, 0, 0, 0, 0, 0, 0], &[7; 32], &[1], &[8; 32], &[6, 0, 0, 0], b"signed"];
    assert_eq!(bytes(announced()), expected.concat());
    assert_eq!(bytes(unsigned()), [&head(24)[..], &[3, 0, 0, 0], b"key"].concat());
}

#[test]
fn a_key_that_is_empty_or_longer_than_any_door_takes_is_no_record() {
    for (len, is_good) in [(0, false), (1, true), (limits::KEY_BYTES_MAX, true), (limits::KEY_BYTES_MAX + 1, false)] {
        let entry = Key::Unsigned(UnsignedKey { client: Arc::from("c"), key: Arc::from(vec![1; len]) });
        let change = Event::Change(Box::new(Change::Key { entry, at: Timestamp(1) }), Arc::default());
        assert_eq!(decode(&encoded(&Record::new(Timestamp(1), change))).is_ok(), is_good, "{len} bytes");
    }
}
