//! One runtime for each process, and values that stay behind at a `fork`.
//!
//! A `fork` copies the memory and one thread. In the child a runtime of the
//! parent has no threads: what waits for it waits for ever. So the child gets a
//! runtime of its own, and objects made before the fork refuse to work there.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use tokio::runtime::Runtime;

use crate::error;
use crate::logging::{self, LogSink};

/// Threads of the runtime. One can unwrap a session key while the other reads
/// and writes.
const WORKERS: usize = 2;

/// What this process needs to run futures. Never dropped: threads of the
/// runtime may outlive the interpreter's end, and a copy in a child cannot end.
pub(crate) struct Process {
    pid: u32,
    pub(crate) runtime: Runtime,
    pub(crate) gate: Arc<Gate>,
    /// For threads that are not the runtime's.
    pub(crate) sink: LogSink,
}

static CURRENT: Mutex<Option<&'static Process>> = Mutex::new(None);

impl Process {
    /// This process's, made on first use.
    ///
    /// The lock is only ever taken by a thread that holds the interpreter, and
    /// so does a thread that forks: it never comes locked into a child.
    pub(crate) fn current(_: Python<'_>) -> PyResult<&'static Self> {
        let pid = std::process::id();
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        match *current {
            Some(process) if process.pid == pid => Ok(process),
            _ => Ok(current.insert(Box::leak(Box::new(Self::start(pid)?)))),
        }
    }

    fn start(pid: u32) -> PyResult<Self> {
        let gate = Arc::new(Gate::default());
        let sink = logging::start_sink(Arc::clone(&gate))?;
        let of_workers = sink.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("ciphermq")
            .on_thread_start(move || logging::use_sink(&of_workers))
            .enable_all()
            .build()?;
        Ok(Self { pid, runtime, gate, sink })
    }
}

/// Lets threads of Rust into the interpreter, as long as it is there.
///
/// A thread that waits for an interpreter which ends meanwhile is ended by
/// CPython in a way that aborts the program. So the end waits until nobody is inside,
/// and nobody comes in after that.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    left: Condvar,
}

#[derive(Default)]
struct GateState {
    inside: usize,
    is_closed: bool,
}

/// How long the end of the interpreter waits for those inside; they only hand
/// over what is ready.
const LEAVE_WAIT: Duration = Duration::from_secs(2);

impl Gate {
    /// Runs `work` with the interpreter; false if it is too late for that.
    pub(crate) fn enter(&self, work: impl FnOnce(Python<'_>)) -> bool {
        {
            let mut state = self.lock();
            if state.is_closed {
                return false;
            }
            state.inside += 1;
        }
        let _inside = Inside(self);
        Python::try_attach(work).is_some()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let busy = |state: &mut GateState| state.inside > 0;
        drop(self.left.wait_timeout_while(state, LEAVE_WAIT, busy));
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.lock().inside -= 1;
        self.0.left.notify_all();
    }
}

/// Called by `atexit`, before the interpreter ends.
#[pyfunction]
pub(crate) fn close_gate(py: Python<'_>) {
    let current = *CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(process) = current.filter(|process| process.pid == std::process::id()) {
        py.detach(|| process.gate.close());
    }
}

/// A value of the process that made it.
///
/// In a child it is neither used nor dropped: its locks may have come locked
/// out of the fork, and its connection is the parent's.
pub(crate) struct Owned<T> {
    pid: u32,
    /// `None` only while dropping.
    value: Option<T>,
}

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { pid: std::process::id(), value: Some(value) }
    }

    /// The value, or `ForkError` in a child.
    pub(crate) fn get(&self) -> PyResult<&T> {
        match &self.value {
            Some(value) if self.pid == std::process::id() => Ok(value),
            _ => Err(error::forked()),
        }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            std::mem::forget(self.value.take());
        }
    }
}
