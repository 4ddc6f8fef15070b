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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::model::{ExchangeId, QueueId};
    use crate::timers::Timers;
    use crate::{BrokerOptions, ConnectionId, QueueSettings, Timestamp};

    /// An outbox with the offers of `messages` messages this long in it: which of them have their body at hand.
    fn bodies(messages: u64, envelope_bytes: usize, budget: Budget) -> Vec<bool> {
        let bell = Arc::new(Doorbell::new());
        let timers = Arc::new(Timers::new(Arc::clone(&bell)));
        let settings = QueueSettings::dead_letter_queue(&BrokerOptions::default());
        let queue = Queue::new(QueueId(1), Arc::from("q"), settings, timers, Arc::default(), Arc::new(budget));
        let (queue, outbox) = (Arc::new(queue), Arc::new(Outbox::new(bell)));
        assert!(queue.subscribe(ConnectionId(1), &outbox, u32::MAX, Timestamp(1)));
        let (mut scratch, envelope) = (String::new(), "x".repeat(envelope_bytes));
        for order in 1..=messages {
            let message = Message::new(&mut scratch, (ExchangeId(1), "e"), "k", "id", &envelope, Timestamp(1));
            assert!(queue.push(Position(order), message.with_origin(Position(order), 1), Timestamp(1)));
        }
        let mut waiting = VecDeque::new();
        outbox.swap(&mut waiting);
        let offers = waiting.into_iter().map(|waiting| match waiting {
            Waiting::Offer(offer) => offer,
            Waiting::Cancelled(queue) => panic!("{} was not deleted", queue.name()),
        });
        offers.map(|offer| matches!(offer.body, Body::Resident(_))).collect()
    }

    #[test]
    fn an_outbox_nobody_empties_keeps_few_bodies() {
        let bodies = bodies(10, limits::OUTBOX_BYTES_MAX as usize / 4, Budget::new(0));
        assert_eq!(bodies, [[true; 3].as_slice(), &[false; 7]].concat(), "3 and their names");
    }

    #[test]
    fn a_body_longer_than_that_is_not_read_back_if_it_is_the_first() {
        assert_eq!(bodies(2, 2 * limits::OUTBOX_BYTES_MAX as usize, Budget::new(0)), [true, false]);
    }

    #[test]
    fn where_nothing_can_be_read_back_everything_waits_in_memory() {
        assert_eq!(bodies(3, limits::OUTBOX_BYTES_MAX as usize, Budget::unlimited()), [true; 3]);
    }
}
