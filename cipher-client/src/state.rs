//! What a client knows, without a socket or a clock: lines and times in,
//! lines and outcomes out. [`crate::connection`] does the waiting.
//!
//! Here is what handles of the client do, in `task` what the connection task
//! does, in `receive` what lines from the broker change.

mod receive;
mod task;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use crate::incoming::Incoming;
use crate::line::QueueName;
use crate::request::{Answer, Cost, Pending, Request};
use crate::slots::{SlotId, Slots};
use crate::subscription::Subscriptions;
use crate::{Error, ErrorKind, Result};

/// What has to be done after the lock is given back.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub wakers: Vec<Waker>,
    pub freed: Cost,
}

/// Why there is no connection any more, and will be none.
#[derive(Debug, Clone)]
pub(crate) enum Ended {
    ByOwner,
    GaveUp(Arc<str>),
}

impl Ended {
    pub(crate) fn error(&self) -> Error {
        match self {
            Self::ByOwner => Error::new(ErrorKind::Closed),
            Self::GaveUp(cause) => Error::with_source(ErrorKind::Connection, cause.as_ref()),
        }
    }
}

#[derive(Debug)]
pub(crate) struct State {
    /// In the order of sending, which is the order of the answers.
    pending: VecDeque<Pending>,
    /// How many of `pending`, from the front, the present connection was given.
    written: usize,
    /// Refused because the broker is stopping: asked again on the next connection.
    again: VecDeque<Pending>,
    slots: Slots,
    subscriptions: Subscriptions,
    /// Counts connections: a lease is alive on the one it came by.
    epoch: u64,
    connected: bool,
    /// No new requests after `close`; until when the old ones have time.
    closing: Option<Instant>,
    ended: Option<Ended>,
    /// The connection task, when it has nothing to do.
    driver: Option<Waker>,
    line_bytes_max: usize,
    bytes_max: usize,
    /// The earliest deadline since [`State::new_deadline`] was asked.
    new_deadline: Option<Instant>,
}

impl State {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            pending: VecDeque::new(),
            written: 0,
            again: VecDeque::new(),
            slots: Slots::default(),
            subscriptions: Subscriptions::default(),
            epoch: 0,
            connected: false,
            closing: None,
            ended: None,
            driver: None,
            line_bytes_max: ciphermq_protocol::limits::LINE_BYTES_DEFAULT,
            bytes_max,
            new_deadline: None,
        }
    }

    /// Takes a request on its way; returns the place of its answer.
    pub(crate) fn submit(
        &mut self,
        request: Request,
        line: Vec<u8>,
        deadline: Instant,
        fx: &mut Effects,
    ) -> Result<SlotId> {
        self.check_open()?;
        if line.len() > self.line_bytes_max {
            return Err(line_too_long(line.len(), self.line_bytes_max));
        }
        let slot = self.slots.open();
        self.push(Pending::new(request, line, Some(slot), deadline), fx);
        Ok(slot)
    }

    /// Settles or touches a lease of connection `epoch`.
    pub(crate) fn settle(
        &mut self,
        epoch: u64,
        request: Request,
        line: Vec<u8>,
        deadline: Instant,
        fx: &mut Effects,
    ) -> Result<SlotId> {
        self.check_open()?;
        if !self.holds(epoch) {
            return Err(Error::new(ErrorKind::LeaseLost));
        }
        self.submit(request, line, deadline, fx)
    }

    pub(crate) fn poll_answer(&mut self, slot: SlotId, cx: &mut Context<'_>) -> Poll<Result<Answer>> {
        self.slots.poll(slot, cx)
    }

    pub(crate) fn abandon(&mut self, slot: SlotId, deadline: Instant, fx: &mut Effects) {
        if let Some(outcome) = self.slots.abandon(slot) {
            self.nobody_wants(outcome, deadline, fx);
        }
    }

    pub(crate) fn poll_delivery(
        &mut self,
        queue: &str,
        serial: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Incoming>>> {
        self.subscriptions.poll_next(queue, serial, cx)
    }

    pub(crate) fn subscriptions(&mut self) -> &mut Subscriptions {
        &mut self.subscriptions
    }

    /// Ends a consumer: no more deliveries, and those in its buffer go back.
    /// Returns the place of the answer, if there is anybody to ask.
    pub(crate) fn cancel(
        &mut self,
        queue: &QueueName,
        serial: u64,
        deadline: Instant,
        fx: &mut Effects,
    ) -> Option<SlotId> {
        self.subscriptions.of_consumer(queue.as_str(), serial)?;
        let mut subscription = self.subscriptions.remove(queue.as_str())?;
        fx.wakers.extend(subscription.take_waker());
        if subscription.live && !self.connected {
            // It ended with the connection, and the next one will not ask for it.
            return None;
        }
        let slot = self.slots.open();
        let line = crate::line::cancel(queue);
        self.push(Pending::new(Request::Cancel, line, Some(slot), deadline), fx);
        for delivery in subscription.take_buffer() {
            self.release(&delivery, deadline, fx);
        }
        Some(slot)
    }

    /// No new requests from here on; what is under way has until `deadline`.
    pub(crate) fn close(&mut self, deadline: Instant, fx: &mut Effects) {
        if self.closing.is_some() || self.ended.is_some() {
            return;
        }
        let consumers: Vec<_> = self.subscriptions.iter_mut().map(|one| (one.queue.clone(), one.serial)).collect();
        for (queue, serial) in consumers {
            if let Some(slot) = self.cancel(&queue, serial, deadline, fx) {
                self.abandon(slot, deadline, fx);
            }
        }
        self.closing = Some(deadline);
        self.new_deadline = Some(self.new_deadline.map_or(deadline, |at| at.min(deadline)));
        fx.wakers.extend(self.driver.take());
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Whether leases of connection `epoch` may be alive.
    pub(crate) fn holds(&self, epoch: u64) -> bool {
        self.connected && epoch == self.epoch
    }

    /// How many connections there have been.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn line_bytes_max(&self) -> usize {
        self.line_bytes_max
    }

    /// What those learn who wait for a permit when there is nobody to use it.
    pub(crate) fn ended_error(&self) -> Error {
        self.ended.as_ref().map_or_else(|| Error::new(ErrorKind::Closed), Ended::error)
    }

    fn check_open(&self) -> Result<()> {
        match (&self.ended, self.closing) {
            (Some(ended), _) => Err(ended.error()),
            (None, Some(_)) => Err(Error::new(ErrorKind::Closed)),
            (None, None) => Ok(()),
        }
    }

    fn push(&mut self, pending: Pending, fx: &mut Effects) {
        // Deadlines come in the order of the requests.
        self.new_deadline.get_or_insert(pending.deadline);
        self.pending.push_back(pending);
        fx.wakers.extend(self.driver.take());
    }

    fn release(&mut self, delivery: &Incoming, deadline: Instant, fx: &mut Effects) {
        if self.connected && delivery.epoch == self.epoch {
            let line = crate::line::release(delivery.head.id(), &delivery.head.queue);
            self.push(Pending::new(Request::Settle, line, None, deadline), fx);
        }
    }

    /// The request is over: frees what it took and tells who waits.
    fn finish(&mut self, pending: Pending, outcome: Result<Answer>, fx: &mut Effects) {
        fx.freed += pending.cost(self.bytes_max);
        let unwanted = match pending.slot {
            Some(slot) => match self.slots.finish(slot, outcome) {
                Ok(waker) => return fx.wakers.extend(waker),
                Err(outcome) => outcome,
            },
            None => outcome,
        };
        self.nobody_wants(unwanted, pending.deadline, fx);
    }

    /// The caller has gone before its answer came: a message it was to fetch
    /// goes back to its queue.
    fn nobody_wants(&mut self, outcome: Result<Answer>, deadline: Instant, fx: &mut Effects) {
        if let Ok(Answer::Fetched(Some(delivery))) = outcome {
            self.release(&delivery, deadline, fx);
        }
    }
}

fn line_too_long(bytes: usize, max: usize) -> Error {
    Error::new(ErrorKind::TooLarge { what: "the request line", bytes, max })
}
