//! `Subscription`: messages of one queue, opened, each once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use cipher_client::crypto::{Opened, Opener, SpooledText};
use cipher_client::{Error, ErrorKind, RawConsumer, RawDelivery};
use pyo3::prelude::*;
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::{Instant, sleep_until, timeout};

use crate::collecting::{Collecting, Sorted};
use crate::connection::Inner;
use crate::error::Failure;
use crate::leases::{Dedupe, Lease, Seen, Verdict};
use crate::message::{Head, Received};
use crate::opening::open_all;
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
        self.mode.run(py, async move { inbox.subscribe(&mut *inbox.state.lock().await).await })
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
            let item = inbox.filled(timeout, process).await?.and_then(|mut state| state.opened.pop_front());
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
                let mut state = match inbox.filled(wait, process).await {
                    Ok(Some(state)) if !state.opened.is_empty() => state,
                    // What has come is handed over; the next call meets the fault again.
                    Err(failure) if messages.is_empty() => return Err(failure),
                    _ => break,
                };
                state.take(max, &mode, &mut messages)?;
                if state.is_failure_next() {
                    break;
                }
                wait = Some(Seconds(Duration::ZERO));
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
        self.mode.run(py, async move { inbox.close().await })
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
    collecting: Mutex<Collecting>,
    duplicates: AtomicU64,
    rejected: AtomicU64,
    /// Tells who waits for a message, and has the state, to let go of it.
    stop: Notify,
    /// How many want that.
    stopping: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    consumer: Option<RawConsumer>,
    /// Come, and not yet tried. At most [`OPENED_MAX`].
    came: VecDeque<RawDelivery>,
    /// Come and tried; what follows from that has yet to be done. Kept here, so that
    /// a caller who stops waiting meanwhile loses none. At most [`OPENED_MAX`].
    tried: VecDeque<(RawDelivery, Result<Opened, Error>)>,
    /// At most [`OPENED_MAX`].
    opened: VecDeque<Item>,
}

/// A message that is to be handed over, or that did not become one.
enum Item {
    Whole(Box<Whole>),
    /// It did not open.
    Failed(Error, Head, Arc<Lease>),
    Incomplete(Error, String),
}

/// An opened message.
struct Whole {
    head: Head,
    opened: Opened,
    spooled: Option<SpooledText>,
    lease: Arc<Lease>,
}

impl Item {
    fn into_message(self, mode: &Mode) -> Result<Received, Failure> {
        let mode = mode.clone();
        match self {
            Self::Whole(whole) => {
                let Whole { head, opened, spooled, lease } = *whole;
                Ok(Received { head, opened: Some(opened), spooled, lease, mode })
            }
            Self::Failed(error, head, lease) => {
                let message = Received { head, opened: None, spooled: None, lease, mode };
                Err(Failure::from(error).with_message(message))
            }
            Self::Incomplete(error, id) => Err(Failure::from(error).of(&id)),
        }
    }
}

impl State {
    /// Adds messages until there are `max`. One that did not open is left for
    /// the next call if it is not the first.
    fn take(&mut self, max: usize, mode: &Mode, messages: &mut Vec<Received>) -> Result<(), Failure> {
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
        self.opened.front().is_some_and(|item| !matches!(item, Item::Whole(_)))
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
        collecting: Collecting,
    ) -> Self {
        Self {
            connection,
            queue,
            prefetch,
            opener,
            dedupe,
            reject_undecryptable,
            collecting: Mutex::new(collecting),
            duplicates: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            stop: Notify::new(),
            stopping: AtomicUsize::new(0),
            state: Mutex::default(),
        }
    }

    /// Subscribes, if that was not done.
    async fn subscribe(&self, state: &mut State) -> Result<(), Failure> {
        let client = self.connection.client().await?;
        if state.consumer.is_none() {
            state.consumer = Some(client.consume_raw(&self.queue, self.prefetch).await?);
        }
        Ok(())
    }

    /// With a message to hand over, unless the time is over or the subscription ended.
    async fn filled(
        &self,
        wait: Option<Seconds>,
        process: &'static Process,
    ) -> Result<Option<MutexGuard<'_, State>>, Failure> {
        // Not part of the caller's time, which is about messages. Somebody else
        // who has the state has subscribed.
        if let Ok(mut state) = self.state.try_lock() {
            self.subscribe(&mut state).await?;
        }
        let fill = async {
            let mut state = self.state.lock().await;
            self.subscribe(&mut state).await?;
            self.fill(&mut state, process).await?;
            Ok(Some(state))
        };
        match wait {
            None => fill.await,
            Some(Seconds(wait)) => timeout(wait, fill).await.unwrap_or(Ok(None)),
        }
    }

    /// Ends the subscription; messages that were not handed over go back.
    async fn close(&self) -> Result<(), Failure> {
        let stopping = Stopping::tell(self);
        let mut state = self.state.lock().await;
        drop(stopping);
        state.came.clear();
        state.tried.clear();
        state.opened.clear();
        match state.consumer.take() {
            Some(consumer) => Ok(consumer.close().await?),
            None => Ok(()),
        }
    }

    /// Waits for one message and takes what else has come. Leaves nothing when
    /// the subscription was ended meanwhile.
    async fn fill(&self, state: &mut State, process: &'static Process) -> Result<(), Failure> {
        loop {
            self.try_all(state, process).await;
            self.give_up(state).await;
            if !state.opened.is_empty() {
                return Ok(());
            }
            let Some(consumer) = &mut state.consumer else { return Ok(()) };
            let expiry = self.collecting.lock().await.prepare_wait(consumer).await;
            // In this order: who stops counts first and tells then.
            let told = self.stop.notified();
            if self.stopping.load(Ordering::SeqCst) > 0 {
                return Ok(());
            }
            let mut next = tokio::select! {
                biased;
                next = consumer.next() => Some(next),
                () = told => return Ok(()),
                () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => continue,
            };
            let mut ended = None;
            while let Some(delivery) = next {
                match delivery {
                    Some(Ok(delivery)) => state.came.push_back(delivery),
                    // The queue is gone, or the client was closed; another call finds out.
                    end => {
                        ended = Some(end.and_then(Result::err));
                        break;
                    }
                }
                next = match state.came.len() {
                    OPENED_MAX.. => None,
                    _ => ready_now(consumer).await,
                };
            }
            if let Some(error) = ended {
                self.try_all(state, process).await;
                return state.end(error);
            }
        }
    }

    /// Opens what has come, and does what follows from that.
    async fn try_all(&self, state: &mut State, process: &'static Process) {
        loop {
            while let Some((delivery, opened)) = state.tried.pop_front() {
                state.opened.extend(self.sort(delivery, opened, process).await);
            }
            if state.came.is_empty() {
                return;
            }
            let opened = open_all(&self.opener, state.came.make_contiguous(), process);
            let tried = state.came.drain(..opened.len()).zip(opened);
            state.tried.extend(tried);
        }
    }

    /// Messages whose parts did not all come in time.
    async fn give_up(&self, state: &mut State) {
        while let Some((error, id)) = self.collecting.lock().await.give_up(self.reject_undecryptable).await {
            tracing::warn!(message_id = id, queue = self.queue, %error, "parts did not come");
            match self.reject_undecryptable {
                true => drop(self.rejected.fetch_add(1, Ordering::Relaxed)),
                false => state.opened.push_back(Item::Incomplete(error, id)),
            }
        }
    }

    /// Puts a part to the others; the message if it was the last one missing.
    async fn collect(
        &self,
        head: Head,
        opened: Opened,
        envelope: String,
        lease: Arc<Lease>,
        process: &'static Process,
    ) -> Option<Item> {
        match self.collecting.lock().await.add(opened, lease, &self.opener).await {
            Sorted::Kept => None,
            Sorted::Whole(opened, spooled, parts) => {
                let mark = match &self.dedupe {
                    None => None,
                    Some(dedupe) => match dedupe.look_at_whole(&opened) {
                        Ok(Some(mark)) => Some(mark),
                        Err(error) => {
                            let head = head.of_whole(&opened.message_id);
                            return Some(Item::Failed(error, head, Lease::whole(parts, None)));
                        }
                        Ok(None) => {
                            self.duplicates.fetch_add(1, Ordering::Relaxed);
                            drop(Lease::whole(parts, None).settle(Verdict::AckLater).await);
                            return None;
                        }
                    },
                };
                let head = head.of_whole(&opened.message_id);
                let lease = Lease::whole(parts, mark);
                Some(Item::Whole(Box::new(Whole { head, opened: *opened, spooled, lease })))
            }
            Sorted::Refused(error, lease) => {
                let delivery = lease.into_delivery(envelope).await?;
                if self.reject_undecryptable {
                    self.put_away(delivery, &error).await;
                    return None;
                }
                Some(Item::Failed(error, head, Lease::unopened(delivery, process)))
            }
        }
    }

    /// What becomes of a message; `None` when it is none of the caller's business.
    async fn sort(
        &self,
        mut delivery: RawDelivery,
        opened: Result<Opened, Error>,
        process: &'static Process,
    ) -> Option<Item> {
        let head = Head::of(&delivery);
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) if self.reject_undecryptable => {
                self.put_away(delivery, &error).await;
                return None;
            }
            Err(error) => return Some(Item::Failed(error, head, Lease::unopened(delivery, process))),
        };
        // A part may wait for the others: its lease is made longer, its envelope let go.
        let envelope = match &opened.part {
            Some(_) => {
                self.collecting.lock().await.hold(&delivery);
                Some(delivery.take_envelope())
            }
            None => None,
        };
        let lease = match &self.dedupe {
            None => Lease::opened(delivery, None),
            Some(dedupe) => match dedupe.look(delivery, &opened).await {
                Seen::New(delivery, mark) => Lease::opened(delivery, Some(mark)),
                Seen::InHand => return None,
                Seen::Unknown(delivery, error) => {
                    return Some(Item::Failed(error, head, Lease::unopened(delivery, process)));
                }
                Seen::Before(delivery) => {
                    self.duplicates.fetch_add(1, Ordering::Relaxed);
                    // A lease that is lost already needs no settling.
                    drop(delivery.ack_later());
                    return None;
                }
            },
        };
        match envelope {
            Some(envelope) => self.collect(head, opened, envelope, lease, process).await,
            None => Some(Item::Whole(Box::new(Whole { head, opened, spooled: None, lease }))),
        }
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

/// Somebody wants the state, as long as this lives.
struct Stopping<'a>(&'a Inbox);

impl<'a> Stopping<'a> {
    fn tell(inbox: &'a Inbox) -> Self {
        inbox.stopping.fetch_add(1, Ordering::SeqCst);
        inbox.stop.notify_waiters();
        Self(inbox)
    }
}

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.stopping.fetch_sub(1, Ordering::SeqCst);
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
