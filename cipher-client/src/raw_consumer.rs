//! Receiving: the deliveries of one queue, as they come.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ciphermq_protocol::limits::PREFETCH_MAX;
use futures_core::Stream;

use crate::delivery::RawDelivery;
use crate::line::{self, QueueName};
use crate::request::Request;
use crate::shared::{Handle, Reply};
use crate::subscription::Subscription;
use crate::{Error, ErrorKind, Result};

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

    /// The credit that was asked for last.
    pub(crate) fn prefetch(&self) -> u32 {
        self.with_own(|own| own.prefetch).unwrap_or_default()
    }

    /// Asks for another credit, without waiting for the answer.
    pub(crate) fn ask_later(&self, prefetch: u32) {
        self.with_own(|own| own.set_prefetch(prefetch));
        let shared = &self.handle.shared;
        let request = Request::Consume { queue: self.queue.clone(), serial: self.serial, again: true };
        let (line, deadline) = (line::consume(&self.queue, prefetch), shared.deadline());
        // A client that was closed needs no credit.
        let slot = shared.with(|state, fx| state.submit(request, line, deadline, fx));
        drop(slot.map(|slot| Reply::new(shared.clone(), slot)));
    }

    fn cancel(&self) -> Option<Reply> {
        let shared = &self.handle.shared;
        let deadline = shared.deadline();
        let slot = shared.with(|state, fx| state.cancel(&self.queue, self.serial, deadline, fx))?;
        Some(Reply::new(shared.clone(), slot))
    }

    pub(crate) fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RawDelivery>>> {
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
