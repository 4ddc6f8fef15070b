use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ciphermq_journal::{Doorbell, Position};

use crate::model::LeaseId;
use crate::queue::{Body, LeaseRef, Paid, Queue};
use crate::{Message, limits};

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
    pub(crate) body: Body,
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
/// delivery was taken out of here. Where bodies can be read back, those behind the first and beyond [`limits::OUTBOX_BYTES_MAX`]
/// wait in the log.
#[derive(Debug)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    bell: Arc<Doorbell>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Waiting>,
    /// Of the bodies in memory.
    bytes: u64,
}

impl Offer {
    pub(crate) fn which(&self) -> LeaseRef {
        LeaseRef { order: self.order, lease: self.lease }
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
        Outbox { inner: Mutex::default(), bell }
    }

    /// `is_readable`: whether the body could be read back.
    pub(crate) fn offer(&self, mut offer: Offer, is_readable: bool) {
        {
            let mut inner = self.lock();
            if is_readable && let Body::Resident(message) = &offer.body {
                let bytes = inner.bytes + message.bytes();
                if inner.bytes == 0 || bytes <= limits::OUTBOX_BYTES_MAX {
                    inner.bytes = bytes;
                } else {
                    offer.body = Body::Stored(message.stored_at(offer.order));
                }
            }
            inner.waiting.push_back(Waiting::Offer(offer));
        }
        self.bell.ring();
    }

    pub(crate) fn cancel(&self, queue: &Arc<Queue>) {
        self.lock().waiting.push_back(Waiting::Cancelled(Arc::clone(queue)));
        self.bell.ring();
    }

    /// Exchanges what waits for the (empty) `emptied`: the connection works on its own deque, without the lock.
    pub(crate) fn swap(&self, emptied: &mut VecDeque<Waiting>) {
        let mut inner = self.lock();
        inner.bytes = 0;
        std::mem::swap(&mut inner.waiting, emptied);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
