use std::sync::Arc;

use ciphermq_broker::{Delivery, Link, Notice, Reason, Settle, Timestamp};
use ciphermq_journal::{Receipt, Unavailable};
use ciphermq_protocol::text::legacy::{LegacyError, LegacyReply};
use ciphermq_protocol::{self as protocol, Code, Decoder, Dialect, Push, Reply};
use tracing::{debug, warn};

use super::pace::Pace;
use super::replies::{Kind, Replies};
use crate::connection::ConnectionContext;
use crate::counters::Tally;

/// One connection speaking the text protocol. Pure: it reads from a [`Decoder`], writes to a `Vec`, and is told the
/// time; `connection::drive` moves the bytes.
///
/// After anything happened: `receive`, then `transmit`, then sleep until bytes, the link's bell, or `poll_timeout`.
pub(crate) struct TextSession {
    pub(super) link: Link,
    pub(super) context: Arc<ConnectionContext>,
    pub(super) mode: Mode,
    pub(super) replies: Replies,
    pub(super) tally: Tally,
    /// A request that must wait until everything before it has been answered.
    deferred: Option<Vec<u8>>,
    /// A change that must be committed before the next request is read.
    change: Option<Change>,
    phase: Phase,
}

/// How much of the input `receive` took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Every whole line.
    All,
    /// As much as its bounds allow: call again when replies have left.
    Part,
}

/// How much of what can be said `transmit` has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transmitted {
    /// Everything.
    All,
    /// As much as the bound on output allows: call again when some of it has gone, no bell will ring.
    Part,
}

/// Which dialect the connection speaks.
#[derive(Debug)]
pub(super) enum Mode {
    Legacy(Pace),
    Modern,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// No more requests; replies still leave.
    Ending,
}

/// A topology change on its way through the journal, and what to do when it is through.
pub(super) struct Change {
    pub(super) receipt: Receipt,
    pub(super) then: Then,
}

/// What follows a committed change.
pub(super) enum Then {
    /// Answer this.
    Reply(Reply<'static>),
    /// Answer with the number of messages purged.
    Purged(ciphermq_broker::Returned),
    /// Do this request again: what it needed is there now.
    Again(Vec<u8>),
}

impl TextSession {
    pub(crate) fn new(link: Link, context: Arc<ConnectionContext>) -> TextSession {
        let pace = Pace::new(context.limits.legacy_pause_ms);
        TextSession {
            link,
            context,
            mode: Mode::Legacy(pace),
            replies: Replies::default(),
            tally: Tally::default(),
            deferred: None,
            change: None,
            phase: Phase::Open,
        }
    }

    /// Takes requests out of `input`. Call when bytes came and when the bell rang.
    pub(crate) fn receive(&mut self, input: &mut Decoder, now: Timestamp) -> Received {
        self.finish_change(now);
        let mut received = Received::Part;
        while self.wants_requests() {
            if let Some(line) = self.deferred.take() {
                self.request(&line, now);
                continue;
            }
            match input.next_line() {
                Ok(Some(line)) => self.request(line, now),
                Ok(None) => {
                    received = Received::All;
                    break;
                }
                Err(_) => self.line_too_long(),
            }
        }
        self.submit();
        received
    }

    /// Whether it would take requests: false while too many wait for their reply, or one must be done alone.
    pub(crate) fn wants_requests(&self) -> bool {
        self.phase == Phase::Open
            && self.change.is_none()
            && (self.deferred.is_none() || self.is_settled())
            && self.replies.len() < protocol::limits::PENDING_REPLIES_MAX
    }

    /// Appends to `out` what may be sent now: replies whose turn has come, then deliveries, up to a bound.
    pub(crate) fn transmit(&mut self, out: &mut Vec<u8>, now: Timestamp) -> Transmitted {
        let before = out.len();
        self.release_replies(out);
        if out.len() > before
            && let Mode::Legacy(pace) = &mut self.mode
        {
            pace.replied(now);
        }
        match self.mode {
            Mode::Modern => return self.push_modern(out),
            Mode::Legacy(_) if out.is_empty() && self.replies.is_empty() => self.push_legacy(out, now),
            Mode::Legacy(_) => {}
        }
        Transmitted::All
    }

    /// When to call `transmit` again though nothing happened.
    pub(crate) fn poll_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        match &self.mode {
            Mode::Legacy(pace) => pace.poll_timeout(now),
            Mode::Modern => None,
        }
    }

    /// No further request is read; what was read is still answered.
    pub(crate) fn end(&mut self) {
        self.phase = Phase::Ending;
        self.deferred = None;
    }

    /// Everything has been said and the connection can be closed.
    pub(crate) fn is_finished(&self) -> bool {
        self.phase == Phase::Ending && self.replies.is_empty() && self.change.is_none()
    }

    /// No further request will be read.
    pub(crate) fn is_ending(&self) -> bool {
        self.phase == Phase::Ending
    }

    /// The connection is taken over by a newer one of the same session.
    pub(crate) fn is_taken_over(&self) -> bool {
        self.link.is_taken_over()
    }

    /// Says why the server closes, to clients that understand it.
    pub(crate) fn closing(&self, out: &mut Vec<u8>, code: Code, text: &str) {
        if let Mode::Modern = self.mode {
            Push::Closing { code, text }.encode(out);
        }
    }

    /// Requests since the last call, by command.
    pub(crate) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// The connection is gone: leases return at once.
    pub(crate) fn close(self, now: Timestamp) {
        self.link.end(now);
    }

    pub(super) fn dialect(&self) -> Dialect {
        match self.mode {
            Mode::Legacy(_) => Dialect::Legacy,
            Mode::Modern => Dialect::Modern,
        }
    }

    /// True when the request may be done now: all before it are committed. Otherwise it is kept for later.
    ///
    /// Publishes and settlements go through without this; whatever looks at or changes more than one message waits
    /// until it would see what the client was told.
    pub(super) fn is_turn_of(&mut self, line: &[u8]) -> bool {
        self.submit();
        if self.is_settled() {
            return true;
        }
        self.deferred = Some(line.to_vec());
        false
    }

    fn is_settled(&self) -> bool {
        self.replies.is_settled(|receipt| self.link.outcome(receipt))
    }

    /// Hands what was collected to the journal; the replies since the last time wait for it.
    pub(super) fn submit(&mut self) {
        let submitted = self.link.submit();
        self.replies.close_group(submitted);
    }

    /// Waits for a change before anything else is read.
    pub(super) fn wait_for(&mut self, change: Change, now: Timestamp) {
        self.change = Some(change);
        self.finish_change(now);
    }

    fn finish_change(&mut self, now: Timestamp) {
        let Some(change) = &self.change else { return };
        let Some(outcome) = self.link.outcome(change.receipt) else { return };
        let Some(Change { then, .. }) = self.change.take() else { return };
        match (outcome, then) {
            (Err(Unavailable), _) => self.reply_broken_promise(),
            (Ok(()), Then::Reply(reply)) => self.reply(&reply),
            (Ok(()), Then::Purged(returned)) => self.reply(&Reply::Purged(returned.purged())),
            (Ok(()), Then::Again(line)) => self.request(&line, now),
        }
    }

    pub(super) fn reply(&mut self, reply: &Reply<'_>) {
        self.replies.push(Kind::Final, |out| reply.encode(out));
    }

    pub(super) fn promise(&mut self, reply: &Reply<'_>) {
        self.replies.push(Kind::Promise, |out| reply.encode(out));
    }

    fn reply_broken_promise(&mut self) {
        let dialect = self.dialect();
        self.replies.push(Kind::Final, |out| broken_promise(dialect, out));
    }

    fn line_too_long(&mut self) {
        let max = self.context.limits.max_line;
        match self.mode {
            Mode::Legacy(_) => {
                let reply = LegacyReply::Error(LegacyError::LineTooLong);
                self.replies.push(Kind::Final, |out| reply.encode(out));
            }
            Mode::Modern => self.replies.push(Kind::Final, |out| {
                Reply::encode_error(out, Code::LineTooLong, &format_args!("a line has at most {max} bytes"));
            }),
        }
        self.end();
    }

    fn release_replies(&mut self, out: &mut Vec<u8>) {
        let (dialect, link) = (self.dialect(), &self.link);
        self.replies.release(out, |receipt| link.outcome(receipt), |out| broken_promise(dialect, out));
    }

    fn push_modern(&mut self, out: &mut Vec<u8>) -> Transmitted {
        // Nothing may follow the last reply of a connection that ends.
        while self.phase == Phase::Open {
            if out.len() >= OUTPUT_BYTES_MAX {
                return Transmitted::Part;
            }
            match self.link.next_notice() {
                Some(Notice::Delivery(delivery)) => Push::Message(wire(&delivery)).encode(out),
                Some(Notice::Cancelled { queue }) => Push::Cancelled { queue: &queue, reason: "deleted" }.encode(out),
                None => break,
            }
        }
        Transmitted::All
    }

    fn push_legacy(&mut self, out: &mut Vec<u8>, now: Timestamp) {
        let Mode::Legacy(pace) = &mut self.mode else { return };
        if pace.outstanding.as_ref().is_some_and(|outstanding| !self.link.holds(outstanding)) {
            pace.outstanding = None;
        }
        while pace.next.is_none() {
            match self.link.next_notice() {
                // It may have waited behind another one until its lease was over.
                Some(Notice::Delivery(delivery)) if self.link.holds(&delivery) => pace.next = Some(delivery),
                Some(_) => {}
                None => return,
            }
        }
        if self.phase != Phase::Open || !pace.may_push(now) {
            return;
        }
        let Some(delivery) = pace.next.take().filter(|delivery| self.link.holds(delivery)) else { return };
        let (id, envelope) = (delivery.message().id(), delivery.message().envelope());
        let bytes = LegacyReply::message_bytes(id, envelope);
        if bytes > protocol::limits::LEGACY_PUSH_BYTES_MAX && self.bury(&delivery, now) {
            return;
        }
        let Mode::Legacy(pace) = &mut self.mode else { return };
        if bytes > ORIGINAL_READ_BYTES && !std::mem::replace(&mut pace.warned_of_length, true) {
            warn!(queue = delivery.queue(), bytes, "deliveries above 1024 bytes cannot be read by the 0.2.0 receiver");
        }
        LegacyReply::Message { id, envelope }.encode(out);
        pace.outstanding = Some(delivery);
    }

    /// Moves a delivery no original can read to the dead-letter queue. False where there is none to move it to.
    fn bury(&mut self, delivery: &Delivery, now: Timestamp) -> bool {
        let (id, queue) = (delivery.message().id(), delivery.queue());
        let buried = self.link.settle(id, Some(queue), Settle::Reject(Reason::TooLong), now).is_ok();
        debug!(id, queue, buried, "delivery line too long for legacy mode");
        self.submit();
        buried
    }
}

/// A delivery as the protocol crate writes it.
pub(super) fn wire(delivery: &Delivery) -> protocol::Delivery<'_> {
    let message = delivery.message();
    protocol::Delivery {
        id: message.id(),
        queue: delivery.queue(),
        attempt: delivery.attempt(),
        exchange: message.exchange(),
        key: message.key(),
        published_ms: message.published().0,
        dead_letter: message.dead_letter().map(|dead| protocol::DeadLetter {
            from: dead.from,
            reason: match dead.reason {
                Reason::Rejected => protocol::Reason::Rejected,
                Reason::Attempts => protocol::Reason::Attempts,
                Reason::TooLong => protocol::Reason::TooLong,
            },
        }),
        envelope: message.envelope(),
    }
}

fn broken_promise(dialect: Dialect, out: &mut Vec<u8>) {
    match dialect {
        Dialect::Legacy => LegacyReply::Error(LegacyError::StorageFailure).encode(out),
        Dialect::Modern => Reply::encode_error(out, Code::Storage, &Unavailable),
    }
}

/// Output waiting for a connection beyond which nothing more is produced for it: 1 MiB, and one line over it.
pub(crate) const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// What the 0.2.0 receiver reads at once.
const ORIGINAL_READ_BYTES: usize = 1024;
