//! Receiving: a stream of deliveries, opened, each once.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ciphermq_protocol::limits::{PREFETCH_DEFAULT, PREFETCH_MAX};
use futures_core::Stream;

use crate::crypto::{Context as SealedFor, OpenPolicy, Opener, PrivateKey};
use crate::dedupe::DedupeWindow;
use crate::delivery::{Delivery, RawDelivery, Verdict};
use crate::line::{self, QueueName};
use crate::repeats::{Repeats, Seen};
use crate::request::Request;
use crate::shared::{Handle, Reply};
use crate::subscription::Subscription;
use crate::{Error, ErrorKind, Result};

/// How long a message stays away that was not tried because too many others
/// failed to open.
const THROTTLED_DELAY: Duration = Duration::from_secs(5);

/// How a queue is consumed.
#[derive(Clone)]
pub struct ConsumeOptions {
    pub(crate) prefetch: u32,
    pub(crate) dedupe: Option<Arc<Mutex<DedupeWindow>>>,
    pub(crate) on_undecryptable: OnUndecryptable,
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
        Self { prefetch: PREFETCH_DEFAULT, dedupe: None, on_undecryptable: OnUndecryptable::default() }
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

    /// What happens to a message that does not open.
    pub fn on_undecryptable(mut self, policy: OnUndecryptable) -> Self {
        self.on_undecryptable = policy;
        self
    }
}

/// The deliveries of one queue, as they were published. A [`Stream`], with a
/// [`next`](Self::next) of its own.
///
/// Goes on over lost connections. Ends with an error when the queue is
/// deleted, or is gone after a reconnect; without one when the client is
/// closed. Dropping it cancels the subscription; deliveries not handed over
/// go back to the queue, those in hand can still be settled.
#[derive(Debug)]
pub struct RawConsumer {
    handle: Arc<Handle>,
    queue: QueueName,
    serial: u64,
}

impl RawConsumer {
    pub(crate) async fn start(handle: Arc<Handle>, queue: QueueName, prefetch: u32) -> Result<Self> {
        check_prefetch(prefetch)?;
        let serial = handle.shared.lock().subscriptions().open(&queue, prefetch).ok_or_else(|| {
            let text = format!("this client consumes '{}' already", queue.as_str());
            Error::new(ErrorKind::Refused { code: ciphermq_protocol::Code::NotAllowed, text })
        })?;
        // From here on dropping it, also when this future is dropped, cancels.
        let consumer = Self { handle, queue, serial };
        consumer.ask(prefetch).await?;
        Ok(consumer)
    }

    /// The next delivery; waits for one as long as it takes. `None` when there
    /// will be no more. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<RawDelivery>> {
        poll_fn(|cx| self.poll_delivery(cx)).await
    }

    /// Changes how many deliveries may be unsettled at a time, from now on. A
    /// lower number takes nothing back.
    ///
    /// # Errors
    ///
    /// [`Option`](ErrorKind::Option) outside 1 to 65535.
    pub async fn set_prefetch(&self, prefetch: u32) -> Result<()> {
        check_prefetch(prefetch)?;
        self.with_own(|own| own.set_prefetch(prefetch));
        self.ask(prefetch).await
    }

    /// Cancels the subscription and waits for the broker's word that nothing
    /// more will come.
    ///
    /// # Errors
    ///
    /// [`Timeout`](ErrorKind::Timeout).
    pub async fn close(self) -> Result<()> {
        match self.cancel() {
            Some(reply) => reply.await.map(drop),
            None => Ok(()),
        }
    }

    /// The queue consumed.
    pub fn queue(&self) -> &str {
        self.queue.as_str()
    }

    /// Deliveries that wait here to be taken.
    pub fn buffered(&self) -> usize {
        self.with_own(|own| own.buffered()).unwrap_or_default()
    }

    /// Deliveries thrown away because their lease had run out while they
    /// waited here; the broker delivers them again.
    pub fn stale(&self) -> u64 {
        self.with_own(|own| own.stale).unwrap_or_default()
    }

    fn with_own<T>(&self, work: impl FnOnce(&mut Subscription) -> T) -> Option<T> {
        let mut state = self.handle.shared.lock();
        state.subscriptions().of_consumer(self.queue.as_str(), self.serial).map(work)
    }

    async fn ask(&self, prefetch: u32) -> Result<()> {
        let request = Request::Consume { queue: self.queue.clone(), serial: self.serial, again: false };
        self.handle.shared.call(request, line::consume(&self.queue, prefetch)).await.map(drop)
    }

    fn cancel(&self) -> Option<Reply> {
        let shared = &self.handle.shared;
        let deadline = shared.deadline();
        let slot = shared.with(|state, fx| state.cancel(&self.queue, self.serial, deadline, fx))?;
        Some(Reply::new(shared.clone(), slot))
    }

    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RawDelivery>>> {
        let poll = self.handle.shared.lock().poll_delivery(self.queue.as_str(), self.serial, cx);
        poll.map(|item| item.map(|incoming| incoming.map(|incoming| RawDelivery::new(incoming, self.handle.clone()))))
    }
}

impl Stream for RawConsumer {
    type Item = Result<RawDelivery>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_delivery(cx)
    }
}

impl Drop for RawConsumer {
    fn drop(&mut self) {
        // The answer is of no interest: nothing is delivered to nobody.
        drop(self.cancel());
    }
}

fn check_prefetch(prefetch: u32) -> Result<()> {
    let reason = "is 1 to 65535";
    match (1..=PREFETCH_MAX).contains(&prefetch) {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Option { option: "prefetch", reason })),
    }
}

/// The opened messages of one queue. A [`Stream`], with a
/// [`next`](Self::next) of its own; ends as a [`RawConsumer`] does.
pub struct Consumer {
    raw: RawConsumer,
    opener: Arc<Opener>,
    on_undecryptable: OnUndecryptable,
    repeats: Option<Arc<Repeats>>,
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
            let raw = match ready!(self.raw.poll_delivery(cx)) {
                Some(Ok(raw)) => raw,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            if let Some(item) = self.receive(raw) {
                return Poll::Ready(Some(item));
            }
        }
    }

    /// Opens one message; `None` when it is none of the caller's business.
    fn receive(&mut self, raw: RawDelivery) -> Option<Result<Delivery>> {
        match open_delivery(raw, &self.opener) {
            Ok((delivery, uniqueness)) => self.once(delivery, uniqueness),
            Err(error) if self.on_undecryptable == OnUndecryptable::Reject => self.put_away(error),
            Err(error) => Some(Err(error)),
        }
    }

    fn once(&mut self, mut delivery: Delivery, uniqueness: [u8; 32]) -> Option<Result<Delivery>> {
        let Some(repeats) = &self.repeats else { return Some(Ok(delivery)) };
        match repeats.look(&delivery, uniqueness) {
            Seen::New(mark) => {
                delivery.mark(mark);
                Some(Ok(delivery))
            }
            Seen::InHand(epoch) => {
                // The broker has given this connection a lease on what its
                // holder has in hand: that one can be settled again.
                epoch.store(delivery.epoch().load(Ordering::Acquire), Ordering::Release);
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

/// Opens a delivery; with what no other sealing shares.
pub(crate) fn open_delivery(raw: RawDelivery, opener: &Opener) -> Result<(Delivery, [u8; 32])> {
    let delivered = SealedFor::new(raw.exchange(), raw.routing_key());
    match opener.open_for(raw.envelope(), &delivered) {
        Ok(opened) if opened.message_id == raw.message_id() => {
            let uniqueness = opened.uniqueness;
            Ok((raw.with_body(opened).0, uniqueness))
        }
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
