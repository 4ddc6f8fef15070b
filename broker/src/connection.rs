use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ciphermq_journal::Doorbell;

use crate::event::Event;
use crate::outbox::Outbox;
use crate::queue::Queue;
use crate::{ConnectionId, Timestamp};

/// The part of a connection that others can reach.
#[derive(Debug)]
pub(crate) struct Connection {
    id: ConnectionId,
    bell: Arc<Doorbell>,
    outbox: Arc<Outbox>,
    /// Queues in which this connection may hold leases or a subscription.
    queues: Mutex<Vec<Arc<Queue>>>,
    taken_over: AtomicBool,
}

impl Connection {
    pub(crate) fn new(id: ConnectionId, bell: Arc<Doorbell>) -> Connection {
        let outbox = Arc::new(Outbox::new(Arc::clone(&bell)));
        Connection { id, bell, outbox, queues: Mutex::new(Vec::new()), taken_over: AtomicBool::new(false) }
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
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if !queues.iter().any(|used| used.id() == queue.id()) {
            queues.push(Arc::clone(queue));
        }
    }

    /// Ends subscriptions and returns leases; what wore out by that is to be moved. Harmless when repeated.
    pub(crate) fn detach(&self, now: Timestamp) -> Vec<Event> {
        let queues = std::mem::take(&mut *self.queues.lock().unwrap_or_else(PoisonError::into_inner));
        let detach = |queue: &Arc<Queue>| Event::worn_out(queue, queue.detach(self.id, now)?);
        // Collected first: a dead letter must not arrive in a queue this connection still has to leave.
        queues.iter().filter_map(detach).collect()
    }

    /// A newer connection of the same session takes its place: detached, and told to close.
    pub(crate) fn hand_over(&self, now: Timestamp) -> Vec<Event> {
        self.taken_over.store(true, Ordering::Release);
        let moves = self.detach(now);
        self.bell.ring();
        moves
    }

    pub(crate) fn is_taken_over(&self) -> bool {
        self.taken_over.load(Ordering::Acquire)
    }
}
