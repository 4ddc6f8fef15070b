//! The consumers of one client, and the deliveries that wait for them.

use crate::line::QueueName;
use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll, Waker};

use crate::incoming::Incoming;
use crate::{Error, Result};

/// One `consume`, across all connections.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub queue: QueueName,
    /// Tells this subscription from a later one of the same queue.
    pub serial: u64,
    pub prefetch: u32,
    /// The broker said yes: to be asked for again after a reconnect.
    pub live: bool,
    /// The highest credit given on this connection: no more leases than this
    /// can be alive at a time.
    pub room: u32,
    buffer: VecDeque<Incoming>,
    waker: Option<Waker>,
    end: Option<Error>,
    /// Deliveries thrown away because their lease had run out in the buffer.
    pub stale: u64,
}

impl Subscription {
    pub(crate) fn new(queue: QueueName, serial: u64, prefetch: u32) -> Self {
        Self {
            queue,
            serial,
            prefetch,
            live: false,
            room: prefetch,
            buffer: VecDeque::new(),
            waker: None,
            end: None,
            stale: 0,
        }
    }

    /// Keeps a delivery for the consumer; returns who waits for it.
    ///
    /// When the buffer is full of what should be alive, the broker must have
    /// taken a lease back: that of the oldest, which it will deliver again.
    pub(crate) fn put(&mut self, delivery: Incoming) -> Option<Waker> {
        if self.buffer.len() >= self.room as usize {
            self.buffer.pop_front();
            self.stale += 1;
        }
        self.buffer.push_back(delivery);
        self.waker.take()
    }

    /// The consumer's last item. It is asked for no more.
    pub(crate) fn end(&mut self, error: Error) -> Option<Waker> {
        self.end = Some(error);
        self.live = false;
        self.waker.take()
    }

    pub(crate) fn set_prefetch(&mut self, prefetch: u32) {
        self.prefetch = prefetch;
        self.room = self.room.max(prefetch);
    }

    /// The connection that held the leases is gone.
    pub(crate) fn forget_leases(&mut self) {
        self.buffer.clear();
        self.room = self.prefetch;
    }

    pub(crate) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }

    pub(crate) fn take_buffer(&mut self) -> VecDeque<Incoming> {
        std::mem::take(&mut self.buffer)
    }

    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }
}

/// All of them, by queue: the broker knows one a queue and connection.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    by_queue: HashMap<QueueName, Subscription>,
    serial: u64,
}

impl Subscriptions {
    /// A place for a new consumer, unless the queue has one.
    pub(crate) fn open(&mut self, queue: &QueueName, prefetch: u32) -> Option<u64> {
        if self.by_queue.contains_key(queue) {
            return None;
        }
        self.serial += 1;
        let subscription = Subscription::new(queue.clone(), self.serial, prefetch);
        self.by_queue.insert(queue.clone(), subscription);
        Some(self.serial)
    }

    pub(crate) fn get_mut(&mut self, queue: &str) -> Option<&mut Subscription> {
        self.by_queue.get_mut(queue)
    }

    /// The subscription only if it is this consumer's.
    pub(crate) fn of_consumer(&mut self, queue: &str, serial: u64) -> Option<&mut Subscription> {
        self.by_queue.get_mut(queue).filter(|subscription| subscription.serial == serial)
    }

    pub(crate) fn remove(&mut self, queue: &str) -> Option<Subscription> {
        self.by_queue.remove(queue)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Subscription> {
        self.by_queue.values_mut()
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Subscription> {
        self.by_queue.drain().map(|(_, subscription)| subscription)
    }

    /// Queues and credits to ask for on a new connection, in the order in
    /// which their consumers came.
    pub(crate) fn live(&self) -> Vec<(QueueName, u64, u32)> {
        let mut live: Vec<_> = self.by_queue.values().filter(|one| one.live).collect();
        live.sort_by_key(|one| one.serial);
        live.into_iter().map(|one| (one.queue.clone(), one.serial, one.prefetch)).collect()
    }

    /// The next item of a consumer; `None` when there will be no more.
    pub(crate) fn poll_next(
        &mut self,
        queue: &str,
        serial: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Incoming>>> {
        let Some(subscription) = self.of_consumer(queue, serial) else {
            return Poll::Ready(None);
        };
        if let Some(delivery) = subscription.buffer.pop_front() {
            return Poll::Ready(Some(Ok(delivery)));
        }
        if let Some(error) = subscription.end.take() {
            self.remove(queue);
            return Poll::Ready(Some(Err(error)));
        }
        subscription.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
