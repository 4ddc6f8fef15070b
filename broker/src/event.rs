use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use ciphermq_journal::Position;

use crate::dedupe::IdHash;
use crate::exchange::Route;
use crate::queue::{Queue, Tried};
use crate::{Error, Message, QueueOptions, QueueSettings, Reason, Timestamp};

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
    /// See [`Topology`]. The verdict goes back to whoever asked; it is not part of the record.
    Topology(Topology, Arc<Verdict>),
}

/// A change of exchanges, queues and bindings.
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
    Purge {
        name: Arc<str>,
    },
}

/// What became of a change of the topology. Checked when it is asked for, but decided when it is committed: whatever
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
    pub(crate) event: Event,
}

impl Event {
    /// What is recorded of an attempt that was used up: if it was the last, the message moves. In a dead-letter queue it
    /// never is.
    pub(crate) fn tried(queue: &Arc<Queue>, tried: Tried) -> Option<Event> {
        let to = queue.settings().dead_letter.clone().filter(|_| tried.worn_out)?;
        Some(Event::Move { queue: Arc::clone(queue), position: tried.order, to, reason: Reason::Attempts })
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
            Topology::Purge { name } => write!(f, "Queue {name} purged"),
        }
    }
}
