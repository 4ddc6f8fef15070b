//! What all handles of a client and its connection task have in common.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use crate::options::ConnectOptions;
use crate::request::{Answer, Cost, Request};
use crate::slots::SlotId;
use crate::state::{Effects, State};
use crate::{Error, ErrorKind, Result};

/// Calls without an answer, publishes and settles apart: what the broker takes
/// of a connection before it stops reading.
const CALLS_MAX: usize = ciphermq_protocol::limits::PENDING_REPLIES_MAX;

/// The lock, the bounds, and nothing that could keep the client alive.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Permits for unconfirmed publishes, their bytes, and other calls.
    publishes: Semaphore,
    bytes: Semaphore,
    calls: Semaphore,
    pub request_timeout: Duration,
    pub window: usize,
    pub bytes_max: usize,
    /// Becomes true when the connection task has ended.
    pub ended: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(options: &ConnectOptions) -> Self {
        Self {
            state: Mutex::new(State::new(options.max_in_flight_bytes)),
            publishes: Semaphore::new(options.window),
            bytes: Semaphore::new(options.max_in_flight_bytes),
            calls: Semaphore::new(CALLS_MAX),
            request_timeout: options.request_timeout,
            window: options.window,
            bytes_max: options.max_in_flight_bytes,
            ended: watch::Sender::new(false),
        }
    }

    /// Runs `work` under the lock, and what follows from it after the lock.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State, &mut Effects) -> T) -> T {
        let mut fx = Effects::default();
        let out = work(&mut self.lock(), &mut fx);
        self.apply(&mut fx);
        out
    }

    /// Wakes and frees; leaves `fx` empty for the next use.
    pub(crate) fn apply(&self, fx: &mut Effects) {
        let freed = std::mem::take(&mut fx.freed);
        for (permits, semaphore) in
            [(freed.publishes, &self.publishes), (freed.bytes, &self.bytes), (freed.calls, &self.calls)]
        {
            if permits > 0 {
                semaphore.add_permits(permits);
            }
        }
        fx.wakers.drain(..).for_each(std::task::Waker::wake);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics; if it did, every caller would.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.request_timeout
    }

    /// Waits until the request may go, and sends it on its way.
    pub(crate) async fn submit(self: &Arc<Self>, request: Request, line: Vec<u8>) -> Result<Reply> {
        let deadline = self.deadline();
        let cost = request.cost(line.len(), self.bytes_max);
        let held = self.acquire(cost, deadline).await?;
        let slot = self.with(|state, fx| state.submit(request, line, deadline, fx))?;
        held.hand_over();
        Ok(Reply { shared: self.clone(), slot: Some(slot) })
    }

    /// A request and its answer.
    pub(crate) async fn call(self: &Arc<Self>, request: Request, line: Vec<u8>) -> Result<Answer> {
        self.submit(request, line).await?.await
    }

    /// Settles a lease of connection `epoch`. Not bounded: there are no more of
    /// these than leases.
    pub(crate) fn settle(self: &Arc<Self>, epoch: u64, line: Vec<u8>) -> Result<Reply> {
        let deadline = self.deadline();
        let slot = self.with(|state, fx| state.settle(epoch, Request::Settle, line, deadline, fx))?;
        Ok(Reply { shared: self.clone(), slot: Some(slot) })
    }

    /// Extends a lease of connection `epoch`, as often as one is given.
    pub(crate) fn hold(self: &Arc<Self>, epoch: u64, line: Vec<u8>) -> Result<Reply> {
        let deadline = self.deadline();
        let slot = self.with(|state, fx| state.settle(epoch, Request::Hold, line, deadline, fx))?;
        Ok(Reply { shared: self.clone(), slot: Some(slot) })
    }

    /// Extends a lease of connection `epoch`.
    pub(crate) async fn touch(self: &Arc<Self>, epoch: u64, line: Vec<u8>) -> Result<()> {
        let deadline = self.deadline();
        let held = self.acquire(Request::Touch.cost(line.len(), self.bytes_max), deadline).await?;
        let slot = self.with(|state, fx| state.settle(epoch, Request::Touch, line, deadline, fx))?;
        held.hand_over();
        Reply { shared: self.clone(), slot: Some(slot) }.await.map(drop)
    }

    async fn acquire(&self, cost: Cost, deadline: Instant) -> Result<Held<'_>> {
        let mut held = Held { shared: self, cost: Cost::default() };
        self.take(&self.publishes, cost.publishes, deadline).await?;
        held.cost.publishes = cost.publishes;
        self.take(&self.bytes, cost.bytes, deadline).await?;
        held.cost.bytes = cost.bytes;
        self.take(&self.calls, cost.calls, deadline).await?;
        held.cost.calls = cost.calls;
        Ok(held)
    }

    async fn take(&self, semaphore: &Semaphore, permits: usize, deadline: Instant) -> Result<()> {
        if permits == 0 {
            return Ok(());
        }
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        if let Ok(permit) = semaphore.try_acquire_many(permits) {
            permit.forget();
            return Ok(());
        }
        match timeout_at(deadline, semaphore.acquire_many(permits)).await {
            Ok(Ok(permit)) => permit.forget(),
            Ok(Err(_)) => return Err(self.lock().ended_error()),
            Err(_) => return Err(Error::new(ErrorKind::Timeout)),
        }
        Ok(())
    }

    /// No permit is given any more: the client has ended.
    pub(crate) fn close_bounds(&self) {
        self.publishes.close();
        self.bytes.close();
        self.calls.close();
    }
}

/// Permits on their way to the pending request that gives them back.
struct Held<'a> {
    shared: &'a Shared,
    cost: Cost,
}

impl Held<'_> {
    fn hand_over(mut self) {
        self.cost = Cost::default();
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.shared.apply(&mut Effects { freed: self.cost, ..Effects::default() });
    }
}

/// An answer to come. Dropping it forgets the answer, not the request.
#[derive(Debug)]
pub(crate) struct Reply {
    shared: Arc<Shared>,
    slot: Option<SlotId>,
}

impl Reply {
    pub(crate) fn new(shared: Arc<Shared>, slot: SlotId) -> Self {
        Self { shared, slot: Some(slot) }
    }
}

impl Future for Reply {
    type Output = Result<Answer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(slot) = self.slot else {
            return Poll::Ready(Err(Error::new(ErrorKind::Closed)));
        };
        let poll = self.shared.lock().poll_answer(slot, cx);
        if poll.is_ready() {
            self.slot = None;
        }
        poll
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let deadline = self.shared.deadline();
            self.shared.with(|state, fx| state.abandon(slot, deadline, fx));
        }
    }
}

/// Held by everything that can still ask something of the broker. When the
/// last one goes, the client closes.
#[derive(Debug)]
pub(crate) struct Handle {
    pub shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let deadline = self.shared.deadline();
        self.shared.with(|state, fx| state.close(deadline, fx));
    }
}
