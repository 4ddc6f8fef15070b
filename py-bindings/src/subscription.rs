//! `Subscription`: messages of one queue, opened, each once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use cipher_client::crypto::{Opened, Opener};
use cipher_client::{Error, ErrorKind, RawConsumer, RawDelivery};
use pyo3::prelude::*;
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::timeout;

use crate::connection::Inner;
use crate::error::Failure;
use crate::leases::{Dedupe, Lease, Seen};
use crate::message::{Head, Received};
use crate::process::{Owned, Process};
use crate::seconds::Seconds;
use crate::wait::Mode;

/// Messages opened at one go while they are there: the interpreter is left and
/// entered once for all of them.
const OPENED_MAX: usize = 64;

/// How long a message stays away that was not tried because too many others
/// failed to open.
const THROTTLED_DELAY: Duration = Duration::from_secs(5);

/// The messages of one queue.
#[pyclass(frozen, module = "ciphermq._native")]
pub(crate) struct Subscription {
    inbox: Owned<Arc<Inbox>>,
    mode: Mode,
}

impl Subscription {
    pub(crate) fn new(inbox: Inbox, mode: Mode) -> Self {
        Self { inbox: Owned::new(Arc::new(inbox)), mode }
    }
}

#[pymethods]
impl Subscription {
    /// Subscribes, if that was not done.
    fn start<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let inbox = self.inbox()?;
        self.mode.run(py, async move { inbox.subscribed().await.map(drop) })
    }

    /// The next message, if one is here and opened already.
    fn poll(&self, py: Python<'_>) -> PyResult<Option<Received>> {
        let Ok(mut state) = self.inbox.get()?.state.try_lock() else { return Ok(None) };
        let Some(item) = state.opened.pop_front() else { return Ok(None) };
        drop(state);
        item.into_message(&self.mode).map(Some).map_err(|failure| failure.into_exception(py))
    }

    /// The next message; `None` when the time is over.
    fn receive<'py>(&self, py: Python<'py>, timeout: Option<Seconds>) -> PyResult<Bound<'py, PyAny>> {
        let (inbox, mode, process) = (self.inbox()?, self.mode.clone(), Process::current(py)?);
        self.mode.run(py, async move {
            let mut state = inbox.filled(timeout, process).await?;
            let item = state.opened.pop_front();
            drop(state);
            item.map(|item| item.into_message(&mode)).transpose()
        })
    }

    /// Up to `max` messages: waits for the first, takes what else is there.
    fn fetch<'py>(&self, py: Python<'py>, max: usize, wait: Option<Seconds>) -> PyResult<Bound<'py, PyAny>> {
        let (inbox, mode, process) = (self.inbox()?, self.mode.clone(), Process::current(py)?);
        self.mode.run(py, async move {
            let mut messages = Vec::new();
            let mut wait = wait;
            while messages.len() < max {
                let mut state = inbox.filled(wait, process).await?;
                if state.opened.is_empty() {
                    break;
                }
                state.take(max - messages.len(), &mode, &mut messages)?;
                wait = Some(Seconds(Duration::ZERO));
                if state.is_failure_next() {
                    break;
                }
            }
            Ok(messages)
        })
    }

    /// Messages that had been acknowledged before, and were so again.
    #[getter]
    fn duplicates(&self) -> PyResult<u64> {
        Ok(self.inbox.get()?.duplicates.load(Ordering::Relaxed))
    }

    /// Messages moved to the dead-letter queue because they did not open.
    #[getter]
    fn rejected(&self) -> PyResult<u64> {
        Ok(self.inbox.get()?.rejected.load(Ordering::Relaxed))
    }

    /// Ends the subscription; messages that were not handed over go back.
    fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let inbox = self.inbox()?;
        self.mode.run(py, async move {
            // Whoever waits for a message holds the state until told.
            inbox.stop.notify_waiters();
            let mut state = inbox.state.lock().await;
            state.opened.clear();
            match state.consumer.take() {
                Some(consumer) => Ok(consumer.close().await?),
                None => Ok(()),
            }
        })
    }
}

impl Subscription {
    fn inbox(&self) -> PyResult<Arc<Inbox>> {
        self.inbox.get().map(Arc::clone)
    }
}

/// What the calls on one subscription share.
pub(crate) struct Inbox {
    connection: Arc<Inner>,
    queue: String,
    prefetch: u32,
    opener: Arc<Opener>,
    dedupe: Option<Arc<Dedupe>>,
    reject_undecryptable: bool,
    duplicates: AtomicU64,
    rejected: AtomicU64,
    /// Tells those who wait that the subscription ends.
    stop: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    consumer: Option<RawConsumer>,
    /// At most [`OPENED_MAX`].
    opened: VecDeque<Item>,
}

/// A message that is to be handed over.
struct Item {
    head: Head,
    opened: Result<Vec<u8>, Error>,
    lease: Arc<Lease>,
}

impl Item {
    fn into_message(self, mode: &Mode) -> Result<Received, Failure> {
        let Self { head, opened, lease } = self;
        let mode = mode.clone();
        match opened {
            Ok(plaintext) => Ok(Received { head, plaintext: Some(plaintext), lease, mode }),
            Err(error) => Err(Failure::from(error).with_message(Received { head, plaintext: None, lease, mode })),
        }
    }
}

impl State {
    /// Moves up to `max` messages over. One that did not open is left for the
    /// next call if it is not the first.
    fn take(&mut self, max: usize, mode: &Mode, messages: &mut Vec<Received>) -> Result<(), Failure> {
        let max = max + messages.len();
        while messages.len() < max {
            if self.is_failure_next() && !messages.is_empty() {
                break;
            }
            let Some(item) = self.opened.pop_front() else { break };
            messages.push(item.into_message(mode)?);
        }
        Ok(())
    }

    /// No more will come. What has come is handed over before that is told.
    fn end(&mut self, error: Option<Error>) -> Result<(), Failure> {
        self.consumer = None;
        match self.opened.is_empty() {
            true => Err(error.unwrap_or_else(|| ErrorKind::Closed.into()).into()),
            false => Ok(()),
        }
    }

    fn is_failure_next(&self) -> bool {
        self.opened.front().is_some_and(|item| item.opened.is_err())
    }
}

impl Inbox {
    pub(crate) fn new(
        connection: Arc<Inner>,
        queue: String,
        prefetch: u32,
        opener: Arc<Opener>,
        dedupe: Option<Arc<Dedupe>>,
        reject_undecryptable: bool,
    ) -> Self {
        Self {
            connection,
            queue,
            prefetch,
            opener,
            dedupe,
            reject_undecryptable,
            duplicates: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            stop: Notify::new(),
            state: Mutex::default(),
        }
    }

    async fn subscribed(&self) -> Result<MutexGuard<'_, State>, Failure> {
        let client = self.connection.client().await?;
        let mut state = self.state.lock().await;
        if state.consumer.is_none() {
            state.consumer = Some(client.consume_raw(&self.queue, self.prefetch).await?);
        }
        Ok(state)
    }

    /// With at least one message to hand over, unless the time is over.
    async fn filled(&self, wait: Option<Seconds>, process: &'static Process) -> Result<MutexGuard<'_, State>, Failure> {
        // Not part of the caller's time: that is about messages.
        drop(self.subscribed().await?);
        let fill = async {
            let mut state = self.subscribed().await?;
            self.fill(&mut state, process).await.map(|()| state)
        };
        match wait {
            None => fill.await,
            Some(Seconds(wait)) => match timeout(wait, fill).await {
                Ok(filled) => filled,
                Err(_) => self.subscribed().await,
            },
        }
    }

    /// Waits for one message and takes what else has come. Leaves nothing when
    /// the subscription was ended meanwhile.
    async fn fill(&self, state: &mut State, process: &'static Process) -> Result<(), Failure> {
        while state.opened.is_empty() {
            let Some(consumer) = &mut state.consumer else { return Ok(()) };
            let mut next = tokio::select! {
                biased;
                next = consumer.next() => Some(next),
                () = self.stop.notified() => return Ok(()),
            };
            while let Some(delivery) = next {
                match delivery {
                    Some(Ok(delivery)) => state.opened.extend(self.open(delivery, process).await),
                    // The queue is gone, or the client was closed; another call finds out.
                    ended => return state.end(ended.and_then(Result::err)),
                }
                next = match state.opened.len() {
                    OPENED_MAX.. => None,
                    _ => ready_now(consumer).await,
                };
            }
        }
        Ok(())
    }

    /// Opens one message; `None` when it is none of the caller's business.
    async fn open(&self, delivery: RawDelivery, process: &'static Process) -> Option<Item> {
        let head = Head::of(&delivery);
        let Opened { plaintext, uniqueness, .. } = match self.open_envelope(&delivery) {
            Ok(opened) => opened,
            Err(error) if self.reject_undecryptable => {
                self.put_away(delivery, &error).await;
                return None;
            }
            Err(error) => return Some(Item { head, opened: Err(error), lease: Lease::unopened(delivery, process) }),
        };
        let lease = match &self.dedupe {
            None => Lease::opened(delivery, None),
            Some(dedupe) => match dedupe.look(delivery, uniqueness).await {
                Seen::New(delivery, mark) => Lease::opened(delivery, Some(mark)),
                Seen::InHand => return None,
                Seen::Before(delivery) => {
                    self.duplicates.fetch_add(1, Ordering::Relaxed);
                    // A lease that is lost already needs no settling.
                    drop(delivery.ack_later());
                    return None;
                }
            },
        };
        Some(Item { head, opened: Ok(plaintext), lease })
    }

    fn open_envelope(&self, delivery: &RawDelivery) -> Result<Opened, Error> {
        let opened = self.opener.open(delivery.envelope())?;
        if opened.message_id != delivery.message_id() {
            return Err(ErrorKind::Malformed { part: "message_id", fault: "not the one it was delivered as" }.into());
        }
        Ok(opened)
    }

    async fn put_away(&self, delivery: RawDelivery, error: &Error) {
        tracing::warn!(message_id = delivery.message_id(), queue = self.queue, %error, "message not opened");
        let settled = match error.kind() {
            // It says nothing about this message.
            ErrorKind::Throttled => delivery.nack(Some(THROTTLED_DELAY)).await,
            _ => delivery.reject().await,
        };
        match settled {
            Ok(()) => drop(self.rejected.fetch_add(1, Ordering::Relaxed)),
            Err(error) => tracing::warn!(queue = self.queue, %error, "message not put away; its lease will run out"),
        }
    }
}

/// What the consumer says without waiting; `None` when it would wait.
async fn ready_now(consumer: &mut RawConsumer) -> Option<Option<Result<RawDelivery, Error>>> {
    let mut next = pin!(consumer.next());
    poll_fn(|cx| match next.as_mut().poll(cx) {
        Poll::Ready(item) => Poll::Ready(Some(item)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
