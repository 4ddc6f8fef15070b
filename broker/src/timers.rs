use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use ciphermq_journal::Doorbell;

use crate::Timestamp;
use crate::model::QueueId;

/// When which queue must look at its own timers: at most one entry a queue that matters.
///
/// Queues keep their deadlines themselves; only a deadline earlier than the one announced comes here, which is
/// rare because leases of a queue are of one length.
#[derive(Debug)]
pub(crate) struct Timers {
    wakeups: Mutex<BTreeSet<(Timestamp, QueueId)>>,
    bell: Arc<Doorbell>,
}

impl Timers {
    pub(crate) fn new(bell: Arc<Doorbell>) -> Timers {
        Timers { wakeups: Mutex::new(BTreeSet::new()), bell }
    }

    /// `queue` must be looked at when `at` has come, instead of at `before`.
    pub(crate) fn announce(&self, queue: QueueId, before: Option<Timestamp>, at: Timestamp) {
        let first = {
            let mut wakeups = self.lock();
            if let Some(before) = before {
                wakeups.remove(&(before, queue));
            }
            wakeups.insert((at, queue));
            wakeups.first() == Some(&(at, queue))
        };
        if first {
            self.bell.ring();
        }
    }

    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.lock().first().map(|(at, _)| *at)
    }

    /// Takes the queues whose time has come, in the order they were declared: what happens at one time must not
    /// depend on which queue announced itself first.
    pub(crate) fn take_due(&self, now: Timestamp) -> BTreeSet<QueueId> {
        let mut wakeups = self.lock();
        let mut due = BTreeSet::new();
        while let Some(&(at, queue)) = wakeups.first().filter(|(at, _)| *at <= now) {
            wakeups.remove(&(at, queue));
            due.insert(queue);
        }
        due
    }

    /// Rings when an earlier wake-up than all others was announced.
    pub(crate) fn bell(&self) -> &Arc<Doorbell> {
        &self.bell
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<(Timestamp, QueueId)>> {
        self.wakeups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
