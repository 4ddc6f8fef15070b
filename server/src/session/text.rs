use std::sync::Arc;

use ciphermq_broker::{Delivery, Error, Link, Notice, Reason, Returned, Settle, Timestamp};
use ciphermq_journal::{Health, Receipt, Unavailable};
use ciphermq_protocol::text::legacy::{LegacyError, LegacyReply};
use ciphermq_protocol::{self as protocol, Code, Decoder, Dialect, Push, Reply};
use tracing::{debug, warn};

use super::keys::Registration;
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
    /// Who the client says it is.
    pub(super) client: Option<Box<str>>,
    pub(super) replies: Replies,
    pub(super) tally: Tally,
    /// A request that must wait until everything before it has been answered.
    deferred: Option<Vec<u8>>,
    /// A change that must be committed before the next request is read.
    change: Option<Change>,
    phase: Phase,
    /// Why the server ends the connection, until it has been said.
    closing: Option<(Code, &'static str)>,
    warned_of_length: bool,
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
    pub(super) returned: Returned,
    pub(super) then: Then,
}

/// What follows a committed change.
pub(super) enum Then {
    /// Answer this.
    Reply(Reply<'static>),
    /// Answer with the number of messages purged.
    Purged,
    /// Answer that the unsigned key is stored.
    Registered(Registration),
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
            client: None,
            replies: Replies::default(),
            tally: Tally::default(),
            deferred: None,
            change: None,
            phase: Phase::Open,
            closing: None,
            warned_of_length: false,
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

    /// Whether it would take requests: false while too many wait for their reply, one must be done alone, or more waits for
    /// the disk than should.
    pub(crate) fn wants_requests(&self) -> bool {
        self.phase == Phase::Open
            && self.change.is_none()
            && (self.deferred.is_none() || self.is_settled())
            && self.replies.len() < protocol::limits::PENDING_REPLIES_MAX
            && self.replies.bytes() < OUTPUT_BYTES_MAX
            // The link's bell rings when the journal has caught up.
            && !self.link.is_congested()
    }

    /// Appends to `out` what may be sent now: replies whose turn has come, then deliveries. `unsent` is how much of
    /// `out` waits for the socket already; together with that, deliveries stay within [`OUTPUT_BYTES_MAX`] and a line.
    pub(crate) fn transmit(&mut self, out: &mut Vec<u8>, unsent: usize, now: Timestamp) -> Transmitted {
        let before = out.len();
        self.release_replies(out);
        self.say_closing(out);
        let replied = out.len() > before;
        match self.mode {
            Mode::Modern => return self.push_modern(out, before, unsent),
            Mode::Legacy(_) => self.push_legacy(out, replied, unsent, now),
        }
        Transmitted::All
    }

    /// When to call `transmit` again though nothing happened, provided that everything before has been sent by then.
    pub(crate) fn poll_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        match &self.mode {
            Mode::Legacy(pace) if self.phase == Phase::Open && self.replies.is_empty() => pace.poll_timeout(now),
            _ => None,
        }
    }

    /// No further request is read; what was read is still answered.
    pub(crate) fn end(&mut self) {
        self.phase = Phase::Ending;
        self.deferred = None;
    }

    /// No further request is read, and when everything is answered the client is told why, if it understands that.
    pub(crate) fn end_because(&mut self, code: Code, text: &'static str) {
        if self.phase == Phase::Open {
            self.end();
            self.closing = Some((code, text));
        }
    }

    /// Everything has been said and the connection can be closed.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_all_answered() && self.closing.is_none()
    }

    fn is_all_answered(&self) -> bool {
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
        let Some(Change { returned, then, .. }) = self.change.take() else { return };
        match (outcome, returned.refused(), then) {
            (Err(Unavailable), _, Then::Registered(how)) => self.break_key(how),
            (Err(Unavailable), _, _) => self.reply_broken_promise(),
            (Ok(()), Some(error), then) => self.refuse_change(error, &then),
            (Ok(()), None, Then::Reply(reply)) => self.reply(&reply),
            (Ok(()), None, Then::Purged) => self.reply(&Reply::Purged(returned.purged())),
            (Ok(()), None, Then::Registered(_)) => self.reply(&Reply::KeyRegistered),
            (Ok(()), None, Then::Again(line)) => self.request(&line, now),
        }
    }

    pub(super) fn reply(&mut self, reply: &Reply<'_>) {
        self.replies.push(Kind::Final, self.link.collected(), |out| reply.encode(out));
    }

    pub(super) fn promise(&mut self, reply: &Reply<'_>) {
        self.replies.push(Kind::Promise, self.link.collected(), |out| reply.encode(out));
    }

    fn reply_broken_promise(&mut self) {
        let (dialect, health) = (self.dialect(), self.link.health());
        self.replies.push(Kind::Final, self.link.collected(), |out| broken_promise(dialect, health, out));
    }

    fn line_too_long(&mut self) {
        let max = self.context.limits.max_line;
        match self.mode {
            Mode::Legacy(_) => {
                let reply = LegacyReply::Error(LegacyError::LineTooLong);
                self.replies.push(Kind::Final, self.link.collected(), |out| reply.encode(out));
            }
            Mode::Modern => self.replies.push(Kind::Final, self.link.collected(), |out| {
                Reply::encode_error(out, Code::LineTooLong, &format_args!("a line has at most {max} bytes"));
            }),
        }
        self.end();
    }

    fn release_replies(&mut self, out: &mut Vec<u8>) {
        let (dialect, link) = (self.dialect(), &self.link);
        self.replies.release(out, |receipt| link.outcome(receipt), |out| broken_promise(dialect, link.health(), out));
    }

    fn say_closing(&mut self, out: &mut Vec<u8>) {
        if self.is_all_answered()
            && let Some((code, text)) = self.closing.take()
            && let Mode::Modern = self.mode
        {
            Push::Closing { code, text }.encode(out);
        }
    }

    fn push_modern(&mut self, out: &mut Vec<u8>, before: usize, unsent: usize) -> Transmitted {
        // Nothing may follow the last reply of a connection that ends.
        while self.phase == Phase::Open {
            if unsent + (out.len() - before) >= OUTPUT_BYTES_MAX {
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

    /// Pushes at most one delivery, and none in the company of a reply.
    fn push_legacy(&mut self, out: &mut Vec<u8>, replied: bool, unsent: usize, now: Timestamp) {
        let is_open = self.phase == Phase::Open;
        let TextSession { mode: Mode::Legacy(pace), link, replies, warned_of_length, .. } = self else { return };
        if replied {
            pace.replied(now);
        }
        pace.refill(link, now);
        if replied || unsent > 0 || !replies.is_empty() || !is_open {
            return;
        }
        while let Some(delivery) = pace.take_due(now) {
            let (id, envelope) = (delivery.message().id(), delivery.message().envelope());
            let bytes = LegacyReply::message_bytes(id, envelope);
            if bytes > protocol::limits::LEGACY_PUSH_BYTES_MAX && bury(link, &delivery, now) {
                replies.close_group(link.submit());
                pace.refill(link, now);
                continue;
            }
            if bytes > ORIGINAL_READ_BYTES && !std::mem::replace(warned_of_length, true) {
                warn!(queue = delivery.queue(), "deliveries of {bytes} bytes cannot be read by the 0.2.0 receiver");
            }
            LegacyReply::Message { id, envelope }.encode(out);
            return pace.pushed(delivery);
        }
    }
}

/// Moves a delivery no original can read to the dead-letter queue. False where there is none to move it to.
fn bury(link: &mut Link, delivery: &Delivery, now: Timestamp) -> bool {
    let (id, queue) = (delivery.message().id(), delivery.queue());
    let buried = link.settle(id, Some(queue), Settle::Reject(Reason::TooLong), now).is_ok();
    debug!(id, queue, buried, "delivery line too long for legacy mode");
    buried
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

/// What was taken was refused after all: the journal has failed, or the disk was found full with it on its way.
fn broken_promise(dialect: Dialect, health: Health, out: &mut Vec<u8>) {
    match (dialect, health) {
        (Dialect::Legacy, Health::Poisoned) => LegacyReply::Error(LegacyError::StorageFailure).encode(out),
        (Dialect::Modern, Health::Poisoned) => Reply::encode_error(out, Code::Storage, &Unavailable),
        (Dialect::Legacy, _) => LegacyReply::Error(LegacyError::DiskFull).encode(out),
        (Dialect::Modern, _) => Reply::encode_error(out, Code::DiskFull, &Error::DiskFull),
    }
}

/// Output waiting for a connection beyond which nothing more is produced for it: 1 MiB, and one line over it.
pub(crate) const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// What the 0.2.0 receiver reads at once.
const ORIGINAL_READ_BYTES: usize = 1024;
