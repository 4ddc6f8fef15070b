//! A message in a consumer's hand, and the lease that has to be settled.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use ciphermq_protocol::Command;

use crate::collecting::Held;
use crate::crypto::{Context as SealedFor, Opened, Sender, SpooledText, Suite};
use crate::incoming::{Head, Incoming};
use crate::repeats::Mark;
use crate::shared::{Handle, Reply};
use crate::{Error, ErrorKind, Result};

/// A message leased to this client, its body opened.
///
/// It owns its acknowledgement: [`ack`](Self::ack), [`nack`](Self::nack),
/// [`release`](Self::release) and [`reject`](Self::reject) consume it. One that
/// is dropped without any of them is released: the message goes back to its
/// place in the queue at once and no attempt is used up. (An
/// [`Undecryptable`] is not: see there.)
///
/// One that came in parts is settled with all of them: by a request for each,
/// sent together.
///
/// When the connection it came by is lost, the broker takes the lease back and
/// delivers the message again; settling the old delivery fails with
/// [`ErrorKind::LeaseLost`](crate::ErrorKind::LeaseLost) then.
#[must_use = "dropping a delivery puts the message back into its queue"]
pub struct Delivery<Body = Opened> {
    lease: Lease,
    body: Body,
    /// Set when repeated deliveries are recognised: done with the ack.
    mark: Option<Mark>,
    /// Set for a message that came in parts: all but the first of them.
    rest: Option<Box<Rest>>,
}

/// What a message in parts has beside its first part.
struct Rest {
    /// Its own id; the lease has that of the first part.
    id: String,
    text: Option<SpooledText>,
    parts: Vec<Delivery<()>>,
    /// The mark of the first part, of which the message has the lease.
    _mark: Option<Mark>,
    _held: Option<Held>,
}

/// A message leased to this client, as its publisher sealed it.
pub type RawDelivery = Delivery<String>;

/// A message that does not open with the keys at hand; comes with the error
/// that says so, see [`Error::into_undecryptable`].
///
/// Settle it ([`reject`](Delivery::reject) moves it to the dead-letter queue).
/// Dropping it leaves the lease to run out, so that a message nobody can read
/// comes back slowly, and ends in the dead-letter queue with its attempts.
pub type Undecryptable = Delivery<Unopened>;

/// The envelope of an [`Undecryptable`].
#[derive(Debug)]
pub struct Unopened(pub(crate) String);

impl Delivery<Opened> {
    /// The opened message.
    pub fn plaintext(&self) -> &[u8] {
        &self.body.plaintext
    }

    /// The opened message without a copy; what stays behind is empty, and
    /// still has to be settled.
    pub fn take_plaintext(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.body.plaintext)
    }

    /// The text of a message that came in parts, if they were kept in a directory
    /// ([`ConsumeOptions::spool`](crate::ConsumeOptions::spool));
    /// [`plaintext`](Self::plaintext) is empty then.
    pub fn spooled(&self) -> Option<&SpooledText> {
        self.rest.as_ref()?.text.as_ref()
    }

    /// Who sealed it.
    pub fn sender(&self) -> Sender {
        self.body.sender
    }

    /// How it was protected.
    pub fn suite(&self) -> Suite {
        self.body.suite
    }

    /// Where its sender published it and as what, as the sender has it; `None`
    /// if the sender bound nothing.
    pub fn context(&self) -> Option<&SealedFor> {
        self.body.context.as_ref()
    }

    /// When it was sealed, by its sender's clock.
    pub fn sent_at(&self) -> Option<SystemTime> {
        self.body.sent_at
    }

    /// All that the opening gave.
    pub fn opened(&self) -> &Opened {
        &self.body
    }

    /// All that the opening gave, and the delivery without it, which still has
    /// to be settled: to collect parts
    /// ([`PartCollector`](crate::crypto::PartCollector)).
    pub fn into_parts(self) -> (Opened, Delivery<()>) {
        let (rest, opened) = self.with_body(());
        (opened, rest)
    }
}

impl Delivery<String> {
    /// The envelope, byte for byte as it was published.
    pub fn envelope(&self) -> &str {
        &self.body
    }
}

impl Delivery<Unopened> {
    /// The envelope, byte for byte as it was published.
    pub fn envelope(&self) -> &str {
        &self.body.0
    }
}

impl<Body> Delivery<Body> {
    /// The id its publisher gave it.
    pub fn message_id(&self) -> &str {
        self.rest.as_ref().map_or(self.lease.head.id(), |rest| &rest.id)
    }

    /// In how many messages it came: 1, or as many as it has parts.
    pub fn parts(&self) -> usize {
        self.rest.as_ref().map_or(1, |rest| rest.parts.len() + 1)
    }

    /// Which delivery this is, counting those that used up an attempt: 1 is
    /// the first.
    pub fn attempt(&self) -> u32 {
        self.lease.head.attempt
    }

    /// The exchange it was published to, as the broker says. What its sender says
    /// is in the opened message.
    pub fn exchange(&self) -> &str {
        self.lease.head.exchange()
    }

    /// The key it was published with, as the broker says.
    pub fn routing_key(&self) -> &str {
        self.lease.head.routing_key()
    }

    /// The queue it came from.
    pub fn queue(&self) -> &str {
        self.lease.head.queue.as_str()
    }

    /// When the broker took it, in milliseconds since 1970-01-01 UTC.
    pub fn published_ms(&self) -> u64 {
        self.lease.head.published_ms
    }

    /// In a dead-letter queue: the queue it was in, and why it left
    /// (`rejected`, `attempts`, `too-long`).
    pub fn dead_letter(&self) -> Option<(&str, &str)> {
        self.lease.head.dead_letter()
    }

    /// Done with the message: it is never delivered again.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) when it will be delivered
    /// again; [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) when no
    /// answer came in time.
    pub async fn ack(self) -> Result<()> {
        self.ack_later()?.await
    }

    /// Like [`ack`](Self::ack), without waiting: the acknowledgement is on its
    /// way when this returns, and [`Settled`] tells when the broker has it. A
    /// `Settled` that is dropped takes nothing back.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) when that is known already.
    pub fn ack_later(mut self) -> Result<Settled> {
        match self.mark.take() {
            Some(mark) => mark.done()?,
            // Some parts acknowledged and some not would never be whole again.
            None if !self.is_held() => return Err(Error::new(ErrorKind::LeaseLost)),
            None => {}
        }
        self.settle(Verdict::Ack)
    }

    /// Back into the queue, at once or after `delay`; uses up an attempt.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub async fn nack(mut self, delay: Option<Duration>) -> Result<()> {
        self.mark = None;
        self.settle(Verdict::Nack(delay))?.await
    }

    /// Back into the queue at once; uses up no attempt. For a message that
    /// was not tried.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub async fn release(mut self) -> Result<()> {
        self.mark = None;
        self.settle(Verdict::Release)?.await
    }

    /// Into the dead-letter queue of its queue.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack), and
    /// [`Refused`](crate::ErrorKind::Refused) with `NOT_ALLOWED` for a message
    /// that is in a dead-letter queue already.
    pub async fn reject(mut self) -> Result<()> {
        self.mark = None;
        self.settle(Verdict::Reject)?.await
    }

    /// The lease starts anew from now, as long as its queue gives.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub async fn touch(&self) -> Result<()> {
        let parts = self.rest.iter().flat_map(|rest| &rest.parts);
        let replies: Result<Vec<_>> = parts.map(|part| part.lease.hold(None)).collect();
        for reply in replies? {
            reply.await?;
        }
        self.lease.touch().await
    }

    /// Makes the lease end `after` from now. It is on its way when this returns,
    /// and [`Settled`] tells when the broker has it.
    ///
    /// # Errors
    ///
    /// As [`ack_later`](Self::ack_later).
    pub fn hold(&self, after: Duration) -> Result<Settled> {
        let parts = self.rest.iter().flat_map(|rest| &rest.parts);
        let rest: Result<Vec<_>> = parts.map(|part| part.lease.hold(Some(after))).collect();
        Ok(Settled { reply: self.lease.hold(Some(after))?, rest: rest?, fault: None })
    }

    pub(crate) fn mark(&mut self, mark: Mark) {
        self.mark = Some(mark);
    }

    /// Settles without anybody waiting for the answer.
    pub(crate) fn settle_later(mut self, verdict: Verdict) {
        self.mark = None;
        // A lease that is lost already needs no settling.
        drop(self.settle(verdict));
    }

    fn settle(&mut self, verdict: Verdict) -> Result<Settled> {
        let mut settled = Settled { reply: self.lease.settle(verdict)?, rest: Vec::new(), fault: None };
        for mut part in self.rest.take().into_iter().flat_map(|rest| rest.parts) {
            match part.lease.settle(verdict) {
                Ok(reply) => settled.rest.push(reply),
                Err(fault) => settled.fault = Some(fault),
            }
        }
        Ok(settled)
    }

    /// Whether all leases may be alive.
    fn is_held(&self) -> bool {
        let parts = self.rest.iter().flat_map(|rest| &rest.parts);
        self.lease.is_held() && parts.into_iter().all(|part| part.lease.is_held())
    }

    /// The same lease around another body.
    pub(crate) fn with_body<Other>(self, body: Other) -> (Delivery<Other>, Body) {
        (Delivery { lease: self.lease, body, mark: self.mark, rest: self.rest }, self.body)
    }

    pub(crate) fn epoch(&self) -> Arc<AtomicU64> {
        self.lease.epoch.clone()
    }

    /// Nothing happens when this delivery is dropped: another one has its lease.
    pub(crate) fn disarm(mut self) {
        self.lease.on_drop = OnDrop::Leave;
    }
}

impl Delivery<()> {
    /// A message out of its parts, which are in their order.
    pub(crate) fn of_parts(
        parts: Vec<Self>,
        message: Opened,
        text: Option<SpooledText>,
        held: Held,
    ) -> Option<Delivery> {
        let mut parts = parts.into_iter();
        let mut whole = parts.next()?.with_body(message).0;
        let rest = Rest {
            id: whole.body.message_id.clone(),
            text,
            parts: parts.collect(),
            _mark: whole.mark.take(),
            _held: Some(held),
        };
        whole.rest = Some(Box::new(rest));
        Some(whole)
    }

    /// A part that is of no use to its message, with what was sealed.
    pub(crate) fn into_undecryptable(mut self, envelope: String) -> Undecryptable {
        self.mark = None;
        self.lease.on_drop = OnDrop::Leave;
        self.with_body(Unopened(envelope)).0
    }
}

impl RawDelivery {
    pub(crate) fn new(incoming: Incoming, handle: Arc<Handle>) -> Self {
        let Incoming { head, envelope, epoch } = incoming;
        let epoch = Arc::new(AtomicU64::new(epoch));
        let lease = Lease { head, epoch, handle, on_drop: OnDrop::Release };
        Self { lease, body: envelope, mark: None, rest: None }
    }

    /// One delivery out of those of the parts of message `id`, which is settled
    /// with all of them; `None` without any. For what puts messages together
    /// itself ([`PartCollector`](crate::crypto::PartCollector)).
    pub fn bundle(id: impl Into<String>, parts: Vec<Self>) -> Option<Self> {
        let mut parts = parts.into_iter();
        let mut whole = parts.next()?;
        let parts = parts.map(|part| part.with_body(()).0).collect();
        let rest = Rest { id: id.into(), text: None, parts, _mark: whole.mark.take(), _held: None };
        whole.rest = Some(Box::new(rest));
        Some(whole)
    }

    /// The same with an envelope that was [taken](Self::take_envelope).
    pub fn with_envelope(self, envelope: String) -> Self {
        self.with_body(envelope).0
    }

    /// The envelope without a copy; what stays behind is empty, and still has to
    /// be settled.
    pub fn take_envelope(&mut self) -> String {
        std::mem::take(&mut self.body)
    }

    pub(crate) fn into_undecryptable(mut self) -> Undecryptable {
        self.lease.on_drop = OnDrop::Leave;
        let envelope = std::mem::take(&mut self.body);
        self.with_body(Unopened(envelope)).0
    }
}

impl<Body> fmt::Debug for Delivery<Body> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the body: logs are read by others than messages are.
        f.debug_struct("Delivery")
            .field("message_id", &self.message_id())
            .field("queue", &self.queue())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

/// An answer to come about a settled delivery.
#[derive(Debug)]
pub struct Settled {
    reply: Reply,
    /// Those about the other parts.
    rest: Vec<Reply>,
    fault: Option<Error>,
}

impl Future for Settled {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        while let Some(reply) = self.rest.last_mut() {
            let outcome = ready!(Pin::new(reply).poll(cx));
            self.rest.pop();
            if let Err(fault) = outcome {
                self.fault.get_or_insert(fault);
            }
        }
        let outcome = ready!(Pin::new(&mut self.reply).poll(cx));
        Poll::Ready(self.fault.take().map_or(outcome.map(drop), Err))
    }
}

/// What becomes of a leased message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    Ack,
    Nack(Option<Duration>),
    Release,
    Reject,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnDrop {
    Release,
    Leave,
}

#[derive(Debug)]
struct Lease {
    head: Head,
    /// The connection that holds it. A repeated delivery of the same message
    /// moves it to its own.
    epoch: Arc<AtomicU64>,
    handle: Arc<Handle>,
    on_drop: OnDrop,
}

impl Lease {
    fn settle(&mut self, verdict: Verdict) -> Result<Reply> {
        self.on_drop = OnDrop::Leave;
        self.send(&self.command(verdict))
    }

    fn is_held(&self) -> bool {
        self.handle.shared.lock().holds(self.epoch.load(Ordering::Acquire))
    }

    /// Extends it, without waiting for a place among the calls.
    fn hold(&self, lease: Option<Duration>) -> Result<Reply> {
        let queue = Some(self.head.queue.name());
        let lease_ms = lease.map(crate::line::millis);
        let line = crate::line::encode(&Command::Touch { id: self.head.id(), queue, lease_ms });
        self.handle.shared.hold(self.epoch.load(Ordering::Acquire), line)
    }

    async fn touch(&self) -> Result<()> {
        let queue = Some(self.head.queue.name());
        let line = crate::line::encode(&Command::Touch { id: self.head.id(), queue, lease_ms: None });
        self.handle.shared.touch(self.epoch.load(Ordering::Acquire), line).await
    }

    fn command(&self, verdict: Verdict) -> Command<'_> {
        let (id, queue) = (self.head.id(), Some(self.head.queue.name()));
        match verdict {
            Verdict::Ack => Command::Ack { id, queue },
            Verdict::Nack(delay) => Command::Nack { id, queue, delay_ms: delay.map(crate::line::millis) },
            Verdict::Release => Command::Release { id, queue },
            Verdict::Reject => Command::Reject { id, queue },
        }
    }

    fn send(&self, command: &Command<'_>) -> Result<Reply, Error> {
        let line = crate::line::encode(command);
        self.handle.shared.settle(self.epoch.load(Ordering::Acquire), line)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.on_drop == OnDrop::Release {
            // One that is lost already is back in its queue.
            drop(self.send(&self.command(Verdict::Release)));
        }
    }
}
