use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use ciphermq_journal::{Doorbell, Position};

use crate::Message;
use crate::model::LeaseId;
use crate::queue::{LeaseRef, Queue};

/// One message leased to one connection.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub(crate) queue: Arc<Queue>,
    pub(crate) position: Position,
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
        LeaseRef { position: self.position, lease: self.lease }
    }
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

/// Notices waiting for one connection. Bounded by the credit of its subscriptions.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<VecDeque<Notice>>,
    bell: Arc<Doorbell>,
}

impl Outbox {
    pub(crate) fn new(bell: Arc<Doorbell>) -> Outbox {
        Outbox { waiting: Mutex::new(VecDeque::new()), bell }
    }

    pub(crate) fn push(&self, notice: Notice) {
        self.lock().push_back(notice);
        self.bell.ring();
    }

    /// Exchanges what waits for the (empty) `emptied`: the connection works on its own deque, without the lock.
    pub(crate) fn swap(&self, emptied: &mut VecDeque<Notice>) {
        std::mem::swap(&mut *self.lock(), emptied);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Notice>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
