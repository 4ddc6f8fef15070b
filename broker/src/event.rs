use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use ciphermq_journal::Position;

use crate::dedupe::{IdHash, KnownId};
use crate::directory::Entry;
use crate::exchange::Route;
use crate::model::{ExchangeId, QueueId};
use crate::queue::Queue;
use crate::{Error, Message, QueueOptions, QueueSettings, Timestamp};

/// What is journaled: every fact that changes a queue or the topology.
///
/// A publish or a settlement is 72 bytes: what is rare and larger is boxed. Events refer to live queues; the log has their numbers (see [`crate::codec`]). Routing happened at publish, so that replay
/// needs no old bindings. *Order* is the position of the record that brought a message into its queue, and names it there.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message for every queue of a route.
    Publish { message: Message, hash: IdHash, route: Arc<Route> },
    /// A publish that was known when it was asked for. Never written: its answer only waits for what it repeats.
    Duplicate,
    /// A message is done with. `loose`, by its origin: by somebody who held no lease on it, so others may move or remove it at the
    /// same time.
    Settle { queue: Arc<Queue>, order: Position, seen: Settled, loose: Option<Box<Position>> },
    /// A message goes to a dead-letter queue, or out of one. One event: never two copies, never none. `target` is the queue `to`
    /// when the record is admitted.
    Move { queue: Arc<Queue>, order: Position, to: Arc<str>, target: Option<Arc<Queue>>, message: Box<Message> },
    /// A message whose body cannot be read any more leaves.
    Discard { queue: Arc<Queue>, order: Position },
    /// A message has used up attempts. Nobody waits for it.
    Attempts { queue: Arc<Queue>, order: Position, attempts: u32 },
    /// The record of a message is written anew for these queues, each with the attempts used up there.
    Relocate { order: Position, message: Box<Message>, copies: Vec<(Arc<Queue>, u32)> },
    /// Message ids that are known, ascending by origin.
    Ids(Vec<KnownId>),
    /// What a reader of the log must know first.
    Counters(Counters),
    /// A change of the topology that was asked for. The verdict goes back to whoever asked; it is not part of the record.
    Ask(Box<Topology>, Arc<Verdict>),
    /// What was decided of it: this is written.
    Change(Box<Change>, Arc<Verdict>),
}

/// What a consumer who is done with a message saw of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) hash: IdHash,
    pub(crate) exchange: ExchangeId,
    pub(crate) published: Timestamp,
    pub(crate) delivered: Option<Timestamp>,
    pub(crate) attempts: u32,
}

/// Numbers given so far, and the key ids are hashed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) hash_key: u128,
    pub(crate) last_queue: QueueId,
    pub(crate) last_exchange: ExchangeId,
}

/// A change of exchanges, queues, bindings and keys, as asked for.
#[derive(Debug)]
pub(crate) enum Topology {
    /// `options` is what was asked for: if the queue is there when it happens, they are compared.
    DeclareQueue {
        name: Arc<str>,
        options: QueueOptions,
        settings: QueueSettings,
    },
    DeclareExchange {
        name: Arc<str>,
    },
    Bind {
        exchange: Arc<str>,
        queue: Arc<str>,
        key: Arc<str>,
    },
    Unbind {
        exchange: Arc<str>,
        queue: Arc<str>,
        key: Arc<str>,
    },
    DeleteQueue {
        name: Arc<str>,
        force: bool,
    },
    DeleteExchange {
        name: Arc<str>,
    },
    /// `stay_max`: as many leased messages at most may be left when it happens; the record has room for them.
    Purge {
        name: Arc<str>,
        stay_max: usize,
    },
    /// An announcement of a key, or an unsigned key.
    Key(Entry),
}

/// A change of exchanges, queues, bindings and keys, as decided: replay repeats it and decides nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    DeclareQueue {
        id: QueueId,
        name: Arc<str>,
        settings: QueueSettings,
    },
    DeclareExchange {
        id: ExchangeId,
        name: Arc<str>,
    },
    Bind {
        exchange: ExchangeId,
        bindings: Vec<(QueueId, Box<str>)>,
    },
    Unbind {
        exchange: ExchangeId,
        queue: QueueId,
        key: Box<str>,
    },
    DeleteQueue {
        id: QueueId,
    },
    DeleteExchange {
        id: ExchangeId,
    },
    /// Everything goes but these, which are ascending.
    Purge {
        id: QueueId,
        stay: Vec<Position>,
    },
    /// An entry of the directory of keys, and when it was taken. Not told again by checkpoints: it is written anew when its segment
    /// is dropped, like a message.
    Key {
        entry: Entry,
        at: Timestamp,
    },
}

/// What became of a change of the topology. Checked when it is asked for, but decided when its turn in the log comes: whatever
/// was committed in between counts.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    refused: OnceLock<Error>,
    purged: AtomicU64,
}

/// An event and when it was submitted: replay sees the same times as live operation.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) at: Timestamp,
    /// A crash keeps this and the next record, or neither.
    pub(crate) continues: bool,
    /// Bytes of the log reserved for it at the door; a full disk may refuse it. 0 if it must always be possible.
    pub(crate) reserved: u32,
    pub(crate) event: Event,
}

impl Record {
    pub(crate) fn new(at: Timestamp, event: Event) -> Record {
        Record { at, continues: false, reserved: 0, event }
    }
}

impl Topology {
    /// Whether something is gone afterwards.
    pub(crate) fn is_removal(&self) -> bool {
        match self {
            Topology::DeclareQueue { .. }
            | Topology::DeclareExchange { .. }
            | Topology::Bind { .. }
            | Topology::Key(_) => false,
            Topology::Unbind { .. }
            | Topology::DeleteQueue { .. }
            | Topology::DeleteExchange { .. }
            | Topology::Purge { .. } => true,
        }
    }
}

impl Verdict {
    pub(crate) fn refuse(&self, error: Error) {
        // A record is committed once; a second verdict would have nobody to read it.
        let _ = self.refused.set(error);
    }

    pub(crate) fn refused(&self) -> Option<&Error> {
        self.refused.get()
    }

    pub(crate) fn set_purged(&self, messages: u64) {
        self.purged.store(messages, Ordering::Release);
    }

    pub(crate) fn purged(&self) -> u64 {
        self.purged.load(Ordering::Acquire)
    }
}

impl fmt::Display for Topology {
    /// One line for the log, in the words of the original.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Topology::DeclareQueue { name, .. } => write!(f, "Queue {name} declared"),
            Topology::DeclareExchange { name } => write!(f, "Exchange {name} declared"),
            Topology::Bind { exchange, queue, key } => {
                write!(f, "Queue {queue} bound to exchange {exchange} with key {key}")
            }
            Topology::Unbind { exchange, queue, key } => {
                write!(f, "Queue {queue} unbound from exchange {exchange} with key {key}")
            }
            Topology::DeleteQueue { name, .. } => write!(f, "Queue {name} deleted"),
            Topology::DeleteExchange { name } => write!(f, "Exchange {name} deleted"),
            Topology::Purge { name, .. } => write!(f, "Queue {name} purged"),
            Topology::Key(entry) => write!(f, "{entry}"),
        }
    }
}
