//! Publishing with retries: the same message under the same id, never another.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cipher_client::crypto::Sealed;
use cipher_client::{Client, Confirm, ErrorKind};
use pyo3::prelude::*;
use tokio::time::{Instant, timeout_at};

use crate::connection::Inner;
use crate::error::Failure;
use crate::process::Owned;
use crate::wait::Mode;

/// Where messages go.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) exchange: Arc<str>,
    pub(crate) key: Arc<str>,
}

/// How long to try.
#[derive(Clone, Copy)]
pub(crate) struct Tries {
    pub(crate) timeout: Duration,
    pub(crate) attempts: u32,
}

/// Publishes one message; its id once the broker has it.
pub(crate) async fn publish(inner: Arc<Inner>, route: Route, sealed: Sealed, tries: Tries) -> Result<String, Failure> {
    let client = inner.client().await?;
    let _pending = Pending::count(&inner.pending, 1);
    match publish_again(client, &route, &sealed, tries, None).await {
        Ok(()) => Ok(sealed.message_id),
        Err(failure) => Err(failure.of(&sealed.message_id)),
    }
}

/// Gives all messages their place on the connection, in order. The broker's
/// word on them comes by [`Batch::wait`].
pub(crate) async fn start_batch(
    inner: Arc<Inner>,
    route: Route,
    messages: Vec<Sealed>,
    tries: Tries,
    mode: Mode,
) -> Result<Batch, Failure> {
    let client = inner.client().await?;
    let pending = Pending::count(&inner.pending, messages.len());
    let mut placed = Vec::with_capacity(messages.len());
    for sealed in messages {
        let first = match place(client, &route, &sealed, Instant::now() + tries.timeout).await {
            Ok(confirm) => First::Underway(confirm),
            Err(failure) if failure.is_unanswered() => First::Unanswered,
            Err(failure) => First::Failed(failure),
        };
        placed.push((sealed, first));
    }
    let started = Started { inner: Arc::clone(&inner), route, placed, tries, _pending: pending };
    Ok(Batch { started: Owned::new(Mutex::new(Some(started))), mode })
}

/// Messages on their way.
#[pyclass(frozen, module = "ciphermq._native")]
pub(crate) struct Batch {
    started: Owned<Mutex<Option<Started>>>,
    mode: Mode,
}

struct Started {
    inner: Arc<Inner>,
    route: Route,
    placed: Vec<(Sealed, First)>,
    tries: Tries,
    _pending: Pending,
}

/// What came of the first try.
enum First {
    Underway(Confirm),
    Unanswered,
    Failed(Failure),
}

#[pymethods]
impl Batch {
    /// Waits for the broker's word on all of them; their ids.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let started = self.started.get()?.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.mode.run(py, async move {
            match started {
                Some(started) => started.confirm().await,
                None => Ok(Vec::new()),
            }
        })
    }
}

impl Started {
    /// Every message gets its chance; the first failure is told at the end.
    async fn confirm(self) -> Result<Vec<String>, Failure> {
        let client = self.inner.client().await?;
        let mut confirmed = Vec::with_capacity(self.placed.len());
        let mut first_failure = None;
        for (sealed, first) in self.placed {
            let outcome = match first {
                First::Failed(failure) => Err(failure),
                First::Unanswered => publish_again(client, &self.route, &sealed, self.tries, None).await,
                First::Underway(confirm) => {
                    publish_again(client, &self.route, &sealed, self.tries, Some(confirm)).await
                }
            };
            match outcome {
                Ok(()) => confirmed.push(sealed.message_id),
                Err(failure) => first_failure = first_failure.or(Some(failure.of(&sealed.message_id))),
            }
        }
        match first_failure {
            None => Ok(confirmed),
            Some(failure) => Err(failure.with_confirmed(confirmed)),
        }
    }
}

/// Tries until there is an answer; `first` is a try under way.
async fn publish_again(
    client: &Client,
    route: &Route,
    sealed: &Sealed,
    tries: Tries,
    mut first: Option<Confirm>,
) -> Result<(), Failure> {
    let mut unanswered = Failure::from(ErrorKind::Timeout);
    for attempt in 1..=tries.attempts {
        let deadline = Instant::now() + tries.timeout;
        // The client has a deadline of its own, which may be shorter.
        while Instant::now() < deadline {
            let outcome = match first.take() {
                Some(confirm) => confirmed_by(deadline, confirm).await,
                None => match place(client, route, sealed, deadline).await {
                    Ok(confirm) => confirmed_by(deadline, confirm).await,
                    Err(failure) => Err(failure),
                },
            };
            match outcome {
                Err(failure) if failure.is_unanswered() => unanswered = worse(unanswered, failure),
                outcome => return outcome,
            }
        }
        if attempt < tries.attempts {
            tracing::info!(message_id = sealed.message_id, attempt, "no answer in time, publishing again");
        }
    }
    Err(unanswered)
}

async fn place(client: &Client, route: &Route, sealed: &Sealed, deadline: Instant) -> Result<Confirm, Failure> {
    let publish = client.publish_raw(&route.exchange, &route.key, &sealed.envelope, &sealed.message_id);
    by(deadline, ErrorKind::Timeout, publish).await
}

async fn confirmed_by(deadline: Instant, confirm: Confirm) -> Result<(), Failure> {
    by(deadline, ErrorKind::OutcomeUnknown, confirm).await.map(drop)
}

async fn by<T>(
    deadline: Instant,
    late: ErrorKind,
    work: impl Future<Output = cipher_client::Result<T>>,
) -> Result<T, Failure> {
    match timeout_at(deadline, work).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(late.into()),
    }
}

/// "It may have happened" of one try holds for all of them.
fn worse(one: Failure, other: Failure) -> Failure {
    match one.kind() {
        ErrorKind::OutcomeUnknown => one,
        _ => other,
    }
}

/// Counts messages without confirmation, as long as it lives.
struct Pending {
    count: Arc<AtomicUsize>,
    own: usize,
}

impl Pending {
    fn count(count: &Arc<AtomicUsize>, own: usize) -> Self {
        count.fetch_add(own, Ordering::Relaxed);
        Self { count: Arc::clone(count), own }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.count.fetch_sub(self.own, Ordering::Relaxed);
    }
}
