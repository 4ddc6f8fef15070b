//! One runtime for each process, and values that stay behind at a `fork`.
//!
//! A `fork` copies the memory and one thread. In the child a runtime of the
//! parent has no threads: what waits for it waits for ever. So the child gets a
//! runtime of its own, and objects made before the fork refuse to work there.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use tokio::runtime::Runtime;

use crate::error;
use crate::logging;

/// Threads of the runtime. One can unwrap a session key while the other reads
/// and writes.
const WORKERS: usize = 2;

/// What this process needs to run futures. Never dropped: threads of the
/// runtime may outlive the interpreter's end, and a copy in a child cannot end.
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) runtime: Runtime,
}

impl Process {
    /// This process's, made on first use.
    ///
    /// The lock is only ever taken by a thread that holds the interpreter, and
    /// so does a thread that forks: it never comes locked into a child.
    pub(crate) fn current(_: Python<'_>) -> PyResult<&'static Self> {
        static CURRENT: Mutex<Option<&'static Process>> = Mutex::new(None);
        let pid = std::process::id();
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        match *current {
            Some(process) if process.pid == pid => Ok(process),
            _ => Ok(current.insert(Box::leak(Box::new(Self::start(pid)?)))),
        }
    }

    fn start(pid: u32) -> PyResult<Self> {
        let sink = logging::start_sink()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("ciphermq")
            .on_thread_start(move || logging::use_sink(&sink))
            .enable_all()
            .build()?;
        Ok(Self { pid, runtime })
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
