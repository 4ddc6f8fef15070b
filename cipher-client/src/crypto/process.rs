//! State that belongs to one process and must not follow a `fork`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

/// When and where an operation runs. Tests make their own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) pid: u32,
}

impl Moment {
    pub(super) fn current() -> Self {
        Self { now: Instant::now(), pid: std::process::id() }
    }
}

/// A value under a lock, started afresh in the child of a fork.
///
/// A fork copies a lock in whatever state it is in, but only the thread that
/// forked: if another one held it, it stays locked in the child for ever. So a
/// process that has not yet taken the value over only *tries* the lock.
pub(super) struct PerProcess<T> {
    owner: AtomicU32,
    value: Mutex<T>,
}

impl<T> PerProcess<T> {
    pub(super) fn new(pid: u32, value: T) -> Self {
        Self { owner: AtomicU32::new(pid), value: Mutex::new(value) }
    }

    /// Runs `work` on the value, after `reset` if this process is new to it.
    /// `None`: the lock came locked out of the fork, do without the value.
    pub(super) fn with<R>(&self, pid: u32, reset: impl FnOnce(&mut T), work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut value = self.lock(pid)?;
        if self.owner.swap(pid, Ordering::AcqRel) != pid {
            reset(&mut value);
        }
        Some(work(&mut value))
    }

    fn lock(&self, pid: u32) -> Option<MutexGuard<'_, T>> {
        // A panic cannot leave the value half changed: every change under
        // the lock is complete at its statement.
        if self.owner.load(Ordering::Acquire) == pid {
            return Some(self.value.lock().unwrap_or_else(PoisonError::into_inner));
        }
        match self.value.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_process_starts_afresh_once() {
        let cell = PerProcess::new(1, 10);
        let add = |pid| cell.with(pid, |n| *n = 0, |n| std::mem::replace(n, *n + 1));
        assert_eq!(add(1), Some(10));
        assert_eq!(add(1), Some(11));
        assert_eq!(add(2), Some(0));
        assert_eq!(add(2), Some(1));
    }

    #[test]
    fn a_lock_held_across_the_fork_does_not_hang_the_child() {
        let cell = PerProcess::new(1, 10);
        let held = cell.value.lock().unwrap();
        assert_eq!(cell.with(2, |_| (), |n| *n), None);
        drop(held);
        assert_eq!(cell.with(2, |n| *n = 0, |n| *n), Some(0));
    }
}
