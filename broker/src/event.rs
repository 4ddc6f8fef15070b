use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ciphermq_journal::Position;

use crate::dedupe::IdHash;
use crate::exchange::Route;
use crate::queue::Queue;
use crate::{Message, QueueSettings, Reason, Timestamp};

/// What is journaled: every fact that changes a queue or the topology.
///
/// Events refer to live queues; a journal on disk writes their ids. Routing happened at publish, so that replay
/// needs no old bindings.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message for every queue of a route.
    Publish { message: Message, hash: IdHash, route: Arc<Route> },
    /// A message is done with.
    Settle { queue: Arc<Queue>, position: Position },
    /// A message goes to a dead-letter queue, made if it is not there. One event: never two copies, never none.
    Move { queue: Arc<Queue>, position: Position, to: Arc<str>, reason: Reason },
    /// See [`Topology`].
    Topology(Topology),
}

/// A change of exchanges, queues and bindings.
#[derive(Debug)]
pub(crate) enum Topology {
    DeclareQueue {
        name: Arc<str>,
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
    },
    DeleteExchange {
        name: Arc<str>,
    },
    /// `purged` is filled in when it happens; not part of the record.
    Purge {
        name: Arc<str>,
        purged: Arc<AtomicU64>,
    },
}

/// An event and when it was submitted: replay sees the same times as live operation.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) at: Timestamp,
    pub(crate) event: Event,
}

impl Event {
    /// The move of a message whose attempts are used up. `None` in a dead-letter queue, where they never are.
    pub(crate) fn worn_out(queue: &Arc<Queue>, position: Position) -> Option<Event> {
        let to = queue.settings().dead_letter.clone()?;
        Some(Event::Move { queue: Arc::clone(queue), position, to, reason: Reason::Attempts })
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
            Topology::DeleteQueue { name } => write!(f, "Queue {name} deleted"),
            Topology::DeleteExchange { name } => write!(f, "Exchange {name} deleted"),
            Topology::Purge { name, .. } => write!(f, "Queue {name} purged"),
        }
    }
}
