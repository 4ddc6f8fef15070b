//! Receiving: a stream of deliveries, opened, each once.

use std::fmt;
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use ciphermq_protocol::limits::PREFETCH_DEFAULT;
use futures_core::Stream;

use crate::collecting::{Collecting, Sorted};
use crate::crypto::{Context as SealedFor, OpenPolicy, Opener, PartLimits, PrivateKey};
use crate::dedupe::DedupeWindow;
use crate::delivery::{Delivery, RawDelivery, Verdict};
use crate::raw_consumer::RawConsumer;
use crate::repeats::{Repeats, Seen};
use crate::{Error, ErrorKind, Result};

/// How long a message stays away that was not tried because too many others
/// failed to open.
pub(crate) const THROTTLED_DELAY: Duration = Duration::from_secs(5);

/// How a queue is consumed.
#[derive(Clone)]
pub struct ConsumeOptions {
    pub(crate) prefetch: u32,
    pub(crate) dedupe: Option<Arc<Mutex<DedupeWindow>>>,
    pub(crate) on_undecryptable: OnUndecryptable,
    pub(crate) parts: PartLimits,
    pub(crate) spool: Option<PathBuf>,
}

/// What a consumer does with a message that does not open.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUndecryptable {
    /// Gives it to the caller, as an error that carries the message
    /// ([`Error::into_undecryptable`]).
    #[default]
    Yield,
    /// Moves it to the dead-letter queue, and goes on.
    Reject,
}

impl fmt::Debug for ConsumeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumeOptions")
            .field("prefetch", &self.prefetch)
            .field("dedupe", &self.dedupe.is_some())
            .field("on_undecryptable", &self.on_undecryptable)
            .field("parts", &self.parts)
            .field("spool", &self.spool)
            .finish()
    }
}

impl Default for ConsumeOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl ConsumeOptions {
    /// 256 deliveries at a time, repeats not recognised, undecryptable
    /// messages given to the caller.
    pub fn new() -> Self {
        Self {
            prefetch: PREFETCH_DEFAULT,
            dedupe: None,
            on_undecryptable: OnUndecryptable::default(),
            parts: PartLimits::default(),
            spool: None,
        }
    }

    /// How many deliveries may be unsettled at a time (1 to 65535).
    pub fn prefetch(mut self, deliveries: u32) -> Self {
        self.prefetch = deliveries;
        self
    }

    /// Remembers what was acknowledged, so that a message that comes again is
    /// acknowledged and not handed over again: by its sender and id, and by what
    /// is unique to its encryption.
    ///
    /// A message is noted by [`Delivery::ack`], before the broker is told (with
    /// a file that means a short write, and a sync if its durability says so);
    /// one that is given back may come again. One that is still in hand
    /// when it comes again, because its lease ran out or the connection was
    /// lost, stays the delivery in hand, and can be settled as if nothing had
    /// happened.
    pub fn dedupe(mut self, window: Arc<Mutex<DedupeWindow>>) -> Self {
        self.dedupe = Some(window);
        self
    }

    /// How much a message that comes in parts may take, and how long. The parts
    /// of one that stays incomplete for longer go back to the queue, each with
    /// an attempt used up, and [`Incomplete`](ErrorKind::Incomplete) says so.
    ///
    /// Parts that wait for others are held beyond the prefetch, up to 65,535
    /// deliveries altogether, and leased for twice that time.
    pub fn parts(mut self, limits: PartLimits) -> Self {
        self.parts = limits;
        self
    }

    /// Keeps the text of messages that come in parts in files of this directory,
    /// opened: with mode 0600 and without a name, so that nothing is left of
    /// them when the process ends. [`Delivery::spooled`] reads it then. Without
    /// it they are in memory.
    pub fn spool(mut self, dir: impl Into<PathBuf>) -> Self {
        self.spool = Some(dir.into());
        self
    }

    /// What happens to a message that does not open.
    pub fn on_undecryptable(mut self, policy: OnUndecryptable) -> Self {
        self.on_undecryptable = policy;
        self
    }
}

/// The opened messages of one queue. A [`Stream`], with a
/// [`next`](Self::next) of its own; ends as a [`RawConsumer`] does.
///
/// A message that was published in parts comes once all of them are there, in
/// whatever order they came: [`ConsumeOptions::parts`]. Parts that competing
/// consumers of one queue get between them make nobody's message whole, so a
/// queue with such messages has one consumer.
pub struct Consumer {
    raw: RawConsumer,
    opener: Arc<Opener>,
    on_undecryptable: OnUndecryptable,
    repeats: Option<Arc<Repeats>>,
    collecting: Collecting,
    stats: ConsumerStats,
}

/// What a consumer did without its caller.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConsumerStats {
    /// Messages that had been acknowledged before, and were so again.
    pub duplicates: u64,
    /// Messages that came again while they were in hand.
    pub repeated: u64,
    /// Messages moved to the dead-letter queue because they did not open.
    pub rejected: u64,
}

impl Consumer {
    pub(crate) fn new(raw: RawConsumer, opener: Arc<Opener>, options: ConsumeOptions) -> Self {
        Self {
            raw,
            opener,
            on_undecryptable: options.on_undecryptable,
            repeats: options.dedupe.map(|dedupe| Arc::new(Repeats::new(dedupe))),
            collecting: Collecting::new(options.parts, options.spool, options.prefetch),
            stats: ConsumerStats::default(),
        }
    }

    /// The next message; waits for one as long as it takes. `None` when there
    /// will be no more. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Delivery>> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// As [`RawConsumer::set_prefetch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn set_prefetch(&self, prefetch: u32) -> Result<()> {
        self.collecting.set_prefetch(prefetch);
        self.raw.set_prefetch(prefetch).await
    }

    /// Opens with `identity` what is taken from now on: after a change of keys,
    /// say.
    ///
    /// # Errors
    ///
    /// As [`Client::consume`](crate::Client::consume) of its `identity`.
    pub fn set_opener(&mut self, identity: impl IntoOpener) -> Result<()> {
        self.opener = identity.into_opener()?;
        Ok(())
    }

    /// As [`RawConsumer::close`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn close(self) -> Result<()> {
        self.raw.close().await
    }

    /// The queue consumed.
    pub fn queue(&self) -> &str {
        self.raw.queue()
    }

    /// What was done without the caller so far.
    pub fn stats(&self) -> ConsumerStats {
        self.stats
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery>>> {
        loop {
            if let Some(error) = self.give_up() {
                return Poll::Ready(Some(Err(error)));
            }
            let raw = match self.raw.poll_delivery(cx) {
                Poll::Ready(Some(Ok(raw))) => raw,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if self.collecting.is_due(&self.raw, cx) => continue,
                Poll::Pending => return Poll::Pending,
            };
            if let Some(item) = self.receive(raw) {
                return Poll::Ready(Some(item));
            }
        }
    }

    /// Opens one message; `None` when it is none of the caller's business.
    fn receive(&mut self, raw: RawDelivery) -> Option<Result<Delivery>> {
        match open_delivery(raw, &self.opener) {
            Ok((delivery, envelope)) if delivery.opened().part.is_some() => self.collect(delivery, envelope),
            Ok((delivery, _)) => self.once(delivery),
            Err(error) if self.on_undecryptable == OnUndecryptable::Reject => self.put_away(error),
            Err(error) => Some(Err(error)),
        }
    }

    fn once(&mut self, delivery: Delivery) -> Option<Result<Delivery>> {
        let Some(repeats) = &self.repeats else { return Some(Ok(delivery)) };
        match repeats.look(&delivery, delivery.opened().uniqueness) {
            Ok(seen) => self.unless_seen(delivery, seen).map(Ok),
            // It is given back with the drop, and comes again.
            Err(error) => Some(Err(error)),
        }
    }

    /// Notes that the delivery is in hand, if it was not seen before.
    fn unless_seen(&mut self, mut delivery: Delivery, seen: Seen) -> Option<Delivery> {
        match seen {
            Seen::New(mark) => {
                delivery.mark(mark);
                Some(delivery)
            }
            Seen::InHand(epoch) => {
                // The broker has given this connection a lease on what its
                // holder has in hand: that one can be settled again.
                epoch.store(delivery.epoch().load(Ordering::Acquire), Ordering::Release);
                if delivery.opened().part.is_some() {
                    self.collecting.hold(&delivery);
                }
                delivery.disarm();
                self.stats.repeated += 1;
                None
            }
            Seen::Before => {
                delivery.settle_later(Verdict::Ack);
                self.stats.duplicates += 1;
                None
            }
        }
    }

    /// Puts a part to the others; the message if it was the last one missing.
    fn collect(&mut self, mut delivery: Delivery, envelope: String) -> Option<Result<Delivery>> {
        if let Some(repeats) = &self.repeats {
            delivery = match repeats.look_at_part(&delivery) {
                Ok(seen) => self.unless_seen(delivery, seen)?,
                Err(error) => return Some(Err(error)),
            };
        }
        match self.collecting.add(delivery, envelope, &self.opener) {
            Sorted::Kept => None,
            Sorted::Refused(error) if self.on_undecryptable == OnUndecryptable::Reject => self.put_away(error),
            Sorted::Refused(error) => Some(Err(error)),
            Sorted::Whole(mut message) => {
                if let Some(repeats) = &self.repeats {
                    match repeats.look_at_whole(message.opened()) {
                        Ok(Some(mark)) => message.mark(mark),
                        Ok(None) => {
                            message.settle_later(Verdict::Ack);
                            self.stats.duplicates += 1;
                            return None;
                        }
                        Err(error) => return Some(Err(error)),
                    }
                }
                Some(Ok(*message))
            }
        }
    }

    /// What to say of a message whose parts did not all come.
    fn give_up(&mut self) -> Option<Error> {
        let is_rejected = self.on_undecryptable == OnUndecryptable::Reject;
        let error = self.collecting.give_up(is_rejected)?;
        tracing::warn!(%error, queue = self.queue(), rejected = is_rejected, "parts did not come");
        self.stats.rejected += u64::from(is_rejected);
        (!is_rejected).then_some(error)
    }

    fn put_away(&mut self, error: Error) -> Option<Result<Delivery>> {
        let throttled = *error.kind() == ErrorKind::Throttled;
        let undecryptable = match error.into_undecryptable() {
            Ok(undecryptable) => undecryptable,
            Err(error) => return Some(Err(error)),
        };
        tracing::warn!(message_id = undecryptable.message_id(), queue = self.queue(), throttled, "message not opened");
        if throttled {
            undecryptable.settle_later(Verdict::Nack(Some(THROTTLED_DELAY)));
        } else {
            self.stats.rejected += 1;
            undecryptable.settle_later(Verdict::Reject);
        }
        None
    }
}

impl Stream for Consumer {
    type Item = Result<Delivery>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_message(cx)
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("queue", &self.queue()).field("stats", &self.stats).finish_non_exhaustive()
    }
}

/// Opens a delivery; with what was sealed.
pub(crate) fn open_delivery(raw: RawDelivery, opener: &Opener) -> Result<(Delivery, String)> {
    let delivered = SealedFor::new(raw.exchange(), raw.routing_key());
    match opener.open_for(raw.envelope(), &delivered) {
        Ok(opened) if opened.message_id == raw.message_id() => Ok(raw.with_body(opened)),
        Ok(_) => {
            let error = Error::malformed("message_id", "not the one it was delivered as");
            Err(error.with_undecryptable(raw.into_undecryptable()))
        }
        Err(error) => Err(error.with_undecryptable(raw.into_undecryptable())),
    }
}

/// What a [`Consumer`] can open messages with: a private key, or an
/// [`Opener`] with its own policy.
pub trait IntoOpener {
    /// The opener.
    ///
    /// # Errors
    ///
    /// [`Key`](ErrorKind::Key) or [`KeyTooSmall`](ErrorKind::KeyTooSmall).
    fn into_opener(self) -> Result<Arc<Opener>>;
}

impl IntoOpener for &PrivateKey {
    fn into_opener(self) -> Result<Arc<Opener>> {
        Opener::new(self, OpenPolicy::default()).map(Arc::new)
    }
}

impl IntoOpener for PrivateKey {
    fn into_opener(self) -> Result<Arc<Opener>> {
        (&self).into_opener()
    }
}

impl IntoOpener for Opener {
    fn into_opener(self) -> Result<Arc<Opener>> {
        Ok(Arc::new(self))
    }
}

impl IntoOpener for Arc<Opener> {
    fn into_opener(self) -> Result<Arc<Opener>> {
        Ok(self)
    }
}

impl IntoOpener for &Arc<Opener> {
    fn into_opener(self) -> Result<Arc<Opener>> {
        Ok(self.clone())
    }
}
