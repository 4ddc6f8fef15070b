//! What a client knows, without a socket or a clock: lines and times in,
//! lines and outcomes out. [`crate::connection`] does the waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ciphermq_protocol::{Code, Push, Reply, ServerLine};
use tokio::time::Instant;

use crate::fault::Fault;
use crate::incoming::Incoming;
use crate::line::QueueName;
use crate::request::{AfterLoss, Answer, Cost, Pending, Request};
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

// What handles of the client do.
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
        if epoch != self.epoch || !self.connected {
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
}

// What the connection task does.
impl State {
    /// Remembers whom to wake when there is something to do.
    pub(crate) fn rest(&mut self, cx: &Context<'_>) {
        self.driver = Some(cx.waker().clone());
    }

    pub(crate) fn has_output(&self) -> bool {
        self.written < self.pending.len()
    }

    pub(crate) fn is_waiting_for_answers(&self) -> bool {
        self.written > 0
    }

    /// Appends lines that are due to `out`, until it holds `bytes_max`.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, bytes_max: usize) {
        while out.len() < bytes_max {
            let Some(pending) = self.pending.get_mut(self.written) else { return };
            out.extend_from_slice(&pending.line);
            pending.was_written = true;
            self.written += 1;
        }
    }

    /// Asks the broker for a sign of life.
    pub(crate) fn ping(&mut self, deadline: Instant) {
        let pending = Pending::new(Request::Ping, crate::line::ping(), None, deadline);
        self.pending.push_back(pending);
    }

    pub(crate) fn connected(&mut self, line_bytes_max: usize, deadline: Instant, fx: &mut Effects) {
        self.epoch += 1;
        self.connected = true;
        self.line_bytes_max = line_bytes_max;
        self.refuse_too_long(fx);
        for (queue, serial, prefetch) in self.subscriptions.live().into_iter().rev() {
            let line = crate::line::consume(&queue, prefetch);
            let request = Request::Consume { queue, serial, again: true };
            self.pending.push_front(Pending::new(request, line, None, deadline));
        }
    }

    /// The connection is gone: decides about everything it was asked.
    pub(crate) fn disconnected(&mut self, cause: &Fault, fx: &mut Effects) {
        self.connected = false;
        let written = std::mem::take(&mut self.written);
        let refused = std::mem::take(&mut self.again).into_iter().map(|pending| (false, pending));
        let under_way = std::mem::take(&mut self.pending);
        let under_way = under_way.into_iter().enumerate().map(|(at, pending)| (at < written, pending));
        for (was_written, pending) in refused.chain(under_way) {
            if pending.expired {
                self.finish(pending, Ok(Answer::Done), fx);
                continue;
            }
            match self.after_loss(&pending.request, was_written) {
                AfterLoss::Resend => self.pending.push_back(pending.restarted()),
                AfterLoss::Done => self.finish(pending, Ok(Answer::Done), fx),
                AfterLoss::LeaseLost => {
                    let lost = Error::with_source(ErrorKind::LeaseLost, cause.to_string());
                    self.finish(pending, Err(lost), fx);
                }
                AfterLoss::Unknown => {
                    let unknown = Error::with_source(ErrorKind::OutcomeUnknown, cause.to_string());
                    self.finish(pending, Err(unknown), fx);
                }
            }
        }
        for subscription in self.subscriptions.iter_mut() {
            subscription.forget_leases();
        }
    }

    fn after_loss(&mut self, request: &Request, was_written: bool) -> AfterLoss {
        match request {
            // Its `cancel` may have been dropped just now.
            Request::Consume { queue, serial, .. }
                if self.subscriptions.of_consumer(queue.as_str(), *serial).is_none() =>
            {
                AfterLoss::Done
            }
            request => request.after_loss(was_written),
        }
    }

    /// Tells those whose deadline has passed.
    pub(crate) fn expire(&mut self, now: Instant, fx: &mut Effects) {
        let is_due = |pending: &Pending| !pending.expired && pending.deadline <= now;
        // Off the line: their answers are still to come, and are matched by order.
        for at in 0..self.written {
            if is_due(&self.pending[at]) {
                let pending = &mut self.pending[at];
                pending.expired = true;
                if let Some(slot) = pending.slot.take() {
                    let error = pending.timeout();
                    fx.wakers.extend(self.slots.finish(slot, Err(error)).ok().flatten());
                }
            }
        }
        let unwritten = self.pending.split_off(self.written);
        let refused = std::mem::take(&mut self.again);
        for (pending, again) in
            unwritten.into_iter().map(|one| (one, false)).chain(refused.into_iter().map(|one| (one, true)))
        {
            match (is_due(&pending), again) {
                (true, _) => {
                    let error = pending.timeout();
                    self.finish(pending, Err(error), fx);
                }
                (false, false) => self.pending.push_back(pending),
                (false, true) => self.again.push_back(pending),
            }
        }
    }

    /// The earliest deadline that came up since this was asked before.
    pub(crate) fn new_deadline(&mut self) -> Option<Instant> {
        self.new_deadline.take()
    }

    /// When [`State::expire`] or a close has something to do next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let pending = self.again.iter().chain(&self.pending);
        let waiting = pending.filter(|pending| pending.slot.is_some()).map(|pending| pending.deadline);
        waiting.chain(self.closing).min()
    }

    /// Whether there is nothing left to wait for after `close`.
    pub(crate) fn is_finished(&self, now: Instant) -> bool {
        self.closing.is_some_and(|until| until <= now || self.pending.is_empty() && self.again.is_empty())
    }

    /// There is no connection and will be none: everything still open fails.
    pub(crate) fn end(&mut self, ended: Ended, fx: &mut Effects) {
        self.connected = false;
        self.written = 0;
        let open = std::mem::take(&mut self.again).into_iter().chain(std::mem::take(&mut self.pending));
        for pending in open.collect::<Vec<_>>() {
            let error = match pending.was_written && pending.request.after_loss(true) != AfterLoss::LeaseLost {
                true => Error::with_source(ErrorKind::OutcomeUnknown, ended.error()),
                false => ended.error(),
            };
            self.finish(pending, Err(error), fx);
        }
        match &ended {
            Ended::ByOwner => {
                for mut subscription in self.subscriptions.drain().collect::<Vec<_>>() {
                    fx.wakers.extend(subscription.take_waker());
                }
            }
            Ended::GaveUp(_) => {
                for subscription in self.subscriptions.iter_mut() {
                    fx.wakers.extend(subscription.end(ended.error()));
                }
            }
        }
        self.ended = Some(ended);
    }

    /// One line from the broker.
    pub(crate) fn receive(&mut self, line: &[u8], now: Instant, fx: &mut Effects) -> Result<(), Fault> {
        match ServerLine::parse(line) {
            Ok(ServerLine::Push(push)) => self.pushed(push, now, fx),
            Ok(ServerLine::Reply(reply)) => self.answered(&reply, fx),
            Err(_) => self.garbage("a line that is none of a broker's", fx),
        }
    }

    fn pushed(&mut self, push: Push<'_>, now: Instant, fx: &mut Effects) -> Result<(), Fault> {
        match push {
            Push::Message(wire) => match self.subscriptions.get_mut(wire.queue) {
                Some(subscription) => {
                    let delivery = Incoming::new(&wire, subscription.queue.clone(), self.epoch);
                    fx.wakers.extend(subscription.put(delivery));
                }
                // On its way while the consumer was cancelled.
                None => {
                    let Ok(queue) = QueueName::parse(wire.queue) else {
                        return Err(Fault::Protocol("a delivery from a queue without a legal name"));
                    };
                    let delivery = Incoming::new(&wire, queue, self.epoch);
                    self.release(&delivery, now, fx);
                }
            },
            Push::Cancelled { queue, .. } => {
                if let Some(subscription) = self.subscriptions.get_mut(queue) {
                    let text = format!("queue '{queue}' was deleted");
                    let kind = ErrorKind::Refused { code: Code::NotFound, text };
                    fx.wakers.extend(subscription.end(Error::new(kind)));
                }
            }
            Push::Closing { code, text } => {
                return Err(Fault::Closing { code, text: text.to_owned() });
            }
            // Of a newer broker, which may only say what an older client can miss.
            _ => {}
        }
        Ok(())
    }

    fn answered(&mut self, reply: &Reply<'_>, fx: &mut Effects) -> Result<(), Fault> {
        if self.written == 0 {
            return Err(Fault::Protocol("a reply without a request"));
        }
        let Some(front) = self.pending.front_mut() else {
            return Err(Fault::Protocol("a reply without a request"));
        };
        match crate::answer::read(&mut front.request, reply, self.epoch) {
            crate::answer::Read::More => Ok(()),
            crate::answer::Read::Whole(outcome) => {
                self.settle_front(outcome, fx);
                Ok(())
            }
            crate::answer::Read::Stopping if front.request.is_repeatable() && !front.expired => {
                self.written -= 1;
                self.again.extend(self.pending.pop_front());
                Ok(())
            }
            crate::answer::Read::Stopping => {
                let kind = ErrorKind::Refused { code: Code::ShuttingDown, text: "the broker is stopping".to_owned() };
                self.settle_front(Err(Error::new(kind)), fx);
                Ok(())
            }
            crate::answer::Read::Stranger => self.garbage("a reply to another request", fx),
        }
    }

    /// The request at the front has its outcome.
    fn settle_front(&mut self, outcome: Result<Answer>, fx: &mut Effects) {
        let Some(pending) = self.pending.pop_front() else { return };
        self.written -= 1;
        if let Request::Consume { queue, serial, again } = &pending.request
            && let Some(subscription) = self.subscriptions.of_consumer(queue.as_str(), *serial)
        {
            match &outcome {
                Ok(_) => subscription.live = true,
                Err(error) if *again => {
                    let error = Error::new(error.kind().clone());
                    fx.wakers.extend(subscription.end(error));
                }
                Err(_) if !subscription.live => drop(self.subscriptions.remove(queue.as_str())),
                Err(_) => {}
            }
        }
        self.finish(pending, outcome, fx);
    }

    /// The broker does not speak our language: this connection is of no use.
    /// The one whose answer it should have been is told, except a publisher,
    /// who has the resend.
    fn garbage(&mut self, what: &'static str, fx: &mut Effects) -> Result<(), Fault> {
        let front = self.pending.front().filter(|_| self.written > 0);
        if front.is_some_and(|front| !front.request.is_publish()) {
            self.settle_front(Err(Error::new(ErrorKind::Protocol { what })), fx);
        }
        Err(Fault::Protocol(what))
    }

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

    fn refuse_too_long(&mut self, fx: &mut Effects) {
        let max = self.line_bytes_max;
        let (fitting, too_long): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|one| one.line.len() <= max);
        self.pending = fitting;
        for pending in too_long {
            let error = line_too_long(pending.line.len(), max);
            self.finish(pending, Err(error), fx);
        }
    }
}

fn line_too_long(bytes: usize, max: usize) -> Error {
    Error::new(ErrorKind::TooLarge { what: "the request line", bytes, max })
}
