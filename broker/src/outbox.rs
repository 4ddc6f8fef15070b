use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use ciphermq_journal::{Doorbell, Position};

use crate::Message;
use crate::model::LeaseId;
use crate::queue::{LeaseRef, Paid, Queue};

/// One message leased to one connection.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub(crate) queue: Arc<Queue>,
    pub(crate) order: Position,
    pub(crate) lease: LeaseId,
    pub(crate) message: Message,
    pub(crate) attempt: u32,
}

impl Delivery {
    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The queue it is delivered from.
    pub fn queue(&self) -> &str {
        self.queue.name()
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(crate) fn which(&self) -> LeaseRef {
        LeaseRef { order: self.order, lease: self.lease }
    }
}

/// A lease just given: what becomes a [`Delivery`] when the connection takes it.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) queue: Arc<Queue>,
    pub(crate) order: Position,
    pub(crate) lease: LeaseId,
    pub(crate) attempt: u32,
    pub(crate) paid: Paid,
    /// `None` when it has to be read back.
    pub(crate) message: Option<Message>,
}

/// What the broker tells a connection without being asked.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A message for a subscription.
    Delivery(Delivery),
    /// A consumed queue was deleted.
    Cancelled {
        /// Its name.
        queue: Arc<str>,
    },
}

/// A notice nobody has taken yet: what it says may be over when somebody does.
#[derive(Debug)]
pub(crate) enum Waiting {
    Offer(Offer),
    Cancelled(Arc<Queue>),
}

/// What waits for one connection. Bounded by the credit of its subscriptions: credit returns to a consumer after its
/// delivery was taken out of here.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<VecDeque<Waiting>>,
    bell: Arc<Doorbell>,
}

impl Offer {
    pub(crate) fn which(&self) -> LeaseRef {
        LeaseRef { order: self.order, lease: self.lease }
    }

    pub(crate) fn with(self, message: Message) -> Delivery {
        let Offer { queue, order, lease, attempt, .. } = self;
        Delivery { queue, order, lease, message, attempt }
    }
}

impl Waiting {
    /// The queue it is about.
    pub(crate) fn queue(&self) -> &Arc<Queue> {
        match self {
            Waiting::Offer(Offer { queue, .. }) | Waiting::Cancelled(queue) => queue,
        }
    }
}

impl Outbox {
    pub(crate) fn new(bell: Arc<Doorbell>) -> Outbox {
        Outbox { waiting: Mutex::new(VecDeque::new()), bell }
    }

    pub(crate) fn push(&self, waiting: Waiting) {
        self.lock().push_back(waiting);
        self.bell.ring();
    }

    /// Exchanges what waits for the (empty) `emptied`: the connection works on its own deque, without the lock.
    pub(crate) fn swap(&self, emptied: &mut VecDeque<Waiting>) {
        std::mem::swap(&mut *self.lock(), emptied);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
