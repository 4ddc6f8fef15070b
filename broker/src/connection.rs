use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ciphermq_journal::Doorbell;

use crate::model::QueueId;
use crate::outbox::Outbox;
use crate::queue::{Queue, Tried};
use crate::{ConnectionId, Timestamp};

/// The part of a connection that others can reach.
#[derive(Debug)]
pub(crate) struct Connection {
    id: ConnectionId,
    bell: Arc<Doorbell>,
    outbox: Arc<Outbox>,
    queues: Mutex<Used>,
    taken_over: AtomicBool,
}

/// Queues in which a connection may hold leases or a subscription. Deleted ones are dropped each time the number of
/// queues has doubled: a connection that makes, uses and deletes queues for ever stays small.
#[derive(Debug)]
struct Used {
    queues: BTreeMap<QueueId, Arc<Queue>>,
    prune_at: usize,
}

/// Below this many queues pruning is not worth a pass.
const PRUNE_MIN: usize = 64;

impl Connection {
    pub(crate) fn new(id: ConnectionId, bell: Arc<Doorbell>) -> Connection {
        let outbox = Arc::new(Outbox::new(Arc::clone(&bell)));
        Connection { id, bell, outbox, queues: Mutex::new(Used::new()), taken_over: AtomicBool::new(false) }
    }

    pub(crate) fn id(&self) -> ConnectionId {
        self.id
    }

    pub(crate) fn bell(&self) -> &Arc<Doorbell> {
        &self.bell
    }

    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// It is about to hold leases or a subscription in `queue`.
    pub(crate) fn may_use(&self, queue: &Arc<Queue>) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).insert(queue);
    }

    /// Ends subscriptions and returns leases; tells what has used up an attempt by that. Harmless when repeated.
    pub(crate) fn detach(&self, now: Timestamp) -> Vec<(Arc<Queue>, Tried)> {
        let queues = std::mem::take(&mut self.queues.lock().unwrap_or_else(PoisonError::into_inner).queues);
        let detach = |queue: &Arc<Queue>| {
            let queue = Arc::clone(queue);
            queue.detach(self.id, now).into_iter().map(move |tried| (Arc::clone(&queue), tried))
        };
        // Collected first: a dead letter must not arrive in a queue this connection still has to leave.
        queues.values().flat_map(detach).collect()
    }

    /// A newer connection of the same session takes its place: detached, and told to close.
    pub(crate) fn hand_over(&self, now: Timestamp) -> Vec<(Arc<Queue>, Tried)> {
        self.taken_over.store(true, Ordering::Release);
        let tried = self.detach(now);
        self.bell.ring();
        tried
    }

    pub(crate) fn is_taken_over(&self) -> bool {
        self.taken_over.load(Ordering::Acquire)
    }
}

impl Used {
    fn new() -> Used {
        Used { queues: BTreeMap::new(), prune_at: PRUNE_MIN }
    }

    fn insert(&mut self, queue: &Arc<Queue>) {
        if self.queues.len() >= self.prune_at {
            self.queues.retain(|_, used| !used.is_closed());
            self.prune_at = (self.queues.len() * 2).max(PRUNE_MIN);
        }
        self.queues.entry(queue.id()).or_insert_with(|| Arc::clone(queue));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::stats::Stats;
    use crate::timers::Timers;
    use crate::{BrokerOptions, QueueSettings};

    #[test]
    fn a_connection_that_uses_and_deletes_queues_for_ever_stays_small() {
        let mut used = Used::new();
        let timers = Arc::new(Timers::new(Arc::new(Doorbell::new())));
        let settings = QueueSettings::dead_letter_queue(&BrokerOptions::default());
        let queue = |id| {
            let (timers, stats) = (Arc::clone(&timers), Arc::new(Stats::default()));
            let budget = Arc::new(Budget::unlimited());
            Arc::new(Queue::new(QueueId(id), Arc::from("q"), settings.clone(), timers, stats, budget))
        };
        let kept = queue(0);
        used.insert(&kept);
        for id in 1..10_000 {
            let queue = queue(id);
            used.insert(&queue);
            queue.close(false).unwrap();
            assert!(used.queues.len() <= PRUNE_MIN + 1, "after {id}");
        }
        assert!(used.queues.contains_key(&kept.id()));
        assert!(!queue(0).is_closed() && queue(0).reserve(1));
        kept.close(true).unwrap();
        assert!(!kept.reserve(1), "a closed queue has no room");
        assert_eq!((kept.messages(), kept.bytes()), (0, 0));
    }
}
