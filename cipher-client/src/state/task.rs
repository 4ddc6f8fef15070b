//! What the connection task does with the state.

use std::collections::VecDeque;
use std::task::Context;

use tokio::time::Instant;

use super::{Effects, Ended, State, line_too_long};
use crate::fault::Fault;
use crate::request::{AfterLoss, Answer, Pending, Request};
use crate::{Error, ErrorKind};

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
