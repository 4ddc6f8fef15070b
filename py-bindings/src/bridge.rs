//! From a future of the runtime to a future of asyncio.
//!
//! What is done waits in a list until the event loop fetches it. The loop is
//! told once for each time the list stops being empty, so a busy connection
//! does not wake it for every message.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::{IntoPyObjectExt, intern};
use tokio::task::AbortHandle;

use crate::error::Failure;
use crate::logging;
use crate::process::Process;

/// The way back to one event loop: the one that first uses it.
pub(crate) struct Bridge {
    end: PyOnceLock<Arc<End>>,
}

/// The loop and what it has to fetch.
struct End {
    event_loop: Py<PyAny>,
    done: Mutex<Vec<Done>>,
}

struct Done {
    awaitable: Py<PyAny>,
    result: MakeResult,
}

/// Makes the Python value, once the interpreter is held.
type MakeResult = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

impl Bridge {
    pub(crate) fn new() -> Self {
        Self { end: PyOnceLock::new() }
    }

    /// Starts the future on the runtime. Cancelling what is returned drops it.
    pub(crate) fn start<'py, F, T>(&self, py: Python<'py>, future: F) -> PyResult<Bound<'py, PyAny>>
    where
        F: Future<Output = Result<T, Failure>> + Send + 'static,
        T: for<'a> IntoPyObject<'a> + Send + 'static,
    {
        let process = Process::current(py)?;
        if process.gate.is_closed() {
            // Nobody would tell the loop that it is done.
            return Err(PyRuntimeError::new_err("the interpreter is ending; use ciphermq without asyncio in atexit"));
        }
        let end = self.end(py)?.clone();
        let awaitable = end.event_loop.bind(py).call_method0(intern!(py, "create_future"))?;
        let mut future = Box::pin(future);
        if let Some(outcome) = poll_once(py, process, future.as_mut()) {
            settle(&awaitable, outcome_in_python(py, outcome))?;
            return Ok(awaitable);
        }
        let kept = awaitable.clone().unbind();
        let task = process.runtime.spawn(async move {
            let outcome = future.await;
            let result = move |py: Python<'_>| outcome_in_python(py, outcome);
            end.push(process, Done { awaitable: kept, result: Box::new(result) });
        });
        let cancel = CancelTask { task: task.abort_handle() };
        awaitable.call_method1(intern!(py, "add_done_callback"), (cancel,))?;
        Ok(awaitable)
    }

    fn end(&self, py: Python<'_>) -> PyResult<&Arc<End>> {
        static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let running = RUNNING.import(py, "asyncio", "get_running_loop")?.call0()?;
        let end =
            self.end.get_or_init(py, || Arc::new(End { event_loop: running.clone().unbind(), done: Mutex::default() }));
        if end.event_loop.is(&running) {
            return Ok(end);
        }
        Err(PyRuntimeError::new_err("used in another event loop before; make a Sender or Receiver for each loop"))
    }
}

impl End {
    /// Called on a thread of the runtime, which must not wait for the interpreter.
    fn push(self: Arc<Self>, process: &'static Process, done: Done) {
        let mut waiting = self.lock();
        waiting.push(done);
        let is_first = waiting.len() == 1;
        drop(waiting);
        if is_first {
            process.runtime.spawn_blocking(move || process.gate.enter(|py| self.tell(py)));
        }
    }

    fn tell(self: &Arc<Self>, py: Python<'_>) {
        let fetch = FetchResults { end: Arc::clone(self) };
        let told = self.event_loop.bind(py).call_method1(intern!(py, "call_soon_threadsafe"), (fetch,));
        if told.is_err() {
            // The loop is closed: nobody waits any more.
            let abandoned = std::mem::take(&mut *self.lock());
            drop(abandoned);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Done>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Done {
    fn hand_over(self, py: Python<'_>) -> PyResult<()> {
        let awaitable = self.awaitable.bind(py);
        if awaitable.call_method0(intern!(py, "done"))?.is_truthy()? {
            // Cancelled meanwhile. A message goes back to its queue by being dropped.
            return Ok(());
        }
        settle(awaitable, (self.result)(py))
    }
}

/// What is done without waiting, such as an acknowledgement nobody waits for,
/// needs no task and no turn of the loop.
fn poll_once<F>(py: Python<'_>, process: &Process, future: Pin<&mut F>) -> Option<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    let poll = logging::detached(py, || {
        let _context = process.runtime.enter();
        future.poll(&mut Context::from_waker(Waker::noop()))
    });
    match poll {
        Poll::Ready(outcome) => Some(outcome),
        // Polled anew by its task, with a waker.
        Poll::Pending => None,
    }
}

fn outcome_in_python<T>(py: Python<'_>, outcome: Result<T, Failure>) -> PyResult<Py<PyAny>>
where
    T: for<'a> IntoPyObject<'a>,
{
    match outcome {
        Ok(value) => value.into_py_any(py),
        Err(failure) => Err(failure.into_exception(py)),
    }
}

fn settle(awaitable: &Bound<'_, PyAny>, outcome: PyResult<Py<PyAny>>) -> PyResult<()> {
    let py = awaitable.py();
    match outcome {
        Ok(value) => awaitable.call_method1(intern!(py, "set_result"), (value,))?,
        Err(error) => awaitable.call_method1(intern!(py, "set_exception"), (error,))?,
    };
    Ok(())
}

/// Called by the event loop.
#[pyclass(frozen)]
struct FetchResults {
    end: Arc<End>,
}

#[pymethods]
impl FetchResults {
    fn __call__(&self, py: Python<'_>) {
        let done = std::mem::take(&mut *self.end.lock());
        for one in done {
            if let Err(error) = one.hand_over(py) {
                error.write_unraisable(py, None);
            }
        }
    }
}

/// The "done" callback of an asyncio future: one that was cancelled ends its task.
#[pyclass(frozen)]
struct CancelTask {
    task: AbortHandle,
}

#[pymethods]
impl CancelTask {
    fn __call__(&self, _awaitable: &Bound<'_, PyAny>) {
        // Of no effect on a task that has ended by itself.
        self.task.abort();
    }
}
