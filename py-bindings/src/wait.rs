//! Runs a future: to its end at once, or behind an asyncio future.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::bridge::Bridge;
use crate::error::Failure;
use crate::logging;
use crate::process::Process;

/// How soon a signal is noticed while waiting.
const SIGNAL_POLL: Duration = Duration::from_millis(50);

/// Which of the two worlds an object belongs to.
#[derive(Clone)]
pub(crate) enum Mode {
    Blocking,
    Asyncio(Arc<Bridge>),
}

impl Mode {
    pub(crate) fn new(asyncio: bool) -> Self {
        if asyncio { Self::Asyncio(Arc::new(Bridge::new())) } else { Self::Blocking }
    }

    /// The value of the future, or an awaitable that becomes it.
    pub(crate) fn run<'py, F, T>(&self, py: Python<'py>, future: F) -> PyResult<Bound<'py, PyAny>>
    where
        F: Future<Output = Result<T, Failure>> + Send + 'static,
        T: for<'a> IntoPyObject<'a> + Send + 'static,
    {
        match self {
            Self::Blocking => {
                let outcome = wait(py, future)?;
                outcome.map_err(|failure| failure.into_exception(py))?.into_bound_py_any(py)
            }
            Self::Asyncio(bridge) => bridge.start(py, future),
        }
    }
}

/// Polls the future on this thread until it is ready, with the interpreter
/// released. A signal handler that raises ends the wait; the future is dropped.
pub(crate) fn wait<F>(py: Python<'_>, future: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    let process = Process::current(py)?;
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        let done = py.detach(|| {
            let _context = process.runtime.enter();
            poll_for(SIGNAL_POLL, future.as_mut(), &waker)
        });
        logging::flush(py);
        match done {
            Some(output) => return Ok(output),
            None => py.check_signals()?,
        }
    }
}

fn poll_for<F: Future>(time: Duration, mut future: Pin<&mut F>, waker: &Waker) -> Option<F::Output> {
    let deadline = Instant::now() + time;
    let mut cx = Context::from_waker(waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}
