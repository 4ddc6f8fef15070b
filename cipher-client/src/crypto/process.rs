//! State that belongs to one process and must not follow a `fork`.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

/// When and where an operation runs. Tests make their own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) pid: Pid,
}

impl Moment {
    pub(super) fn current() -> Self {
        Self { now: Instant::now(), pid: Pid::Current }
    }
}

/// A process. Which one the current is costs a call of the system: it is asked
/// for where it is needed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pid {
    Current,
    #[cfg(test)]
    Of(u32),
}

impl Pid {
    fn get(self) -> u32 {
        match self {
            Self::Current => std::process::id(),
            #[cfg(test)]
            Self::Of(pid) => pid,
        }
    }

    /// As if a child asked.
    #[cfg(test)]
    pub(super) fn child() -> Self {
        Self::Of(std::process::id() + 1)
    }
}

/// A value under a lock, with rules for the child of a fork: there it is either
/// started afresh ([`with`](Self::with)) or gone on with as it is
/// ([`share`](Self::share)), always in the same one of the two ways.
///
/// A fork copies a lock in whatever state it is in, but only the thread that
/// forked: if another one held it, it stays locked in the child for ever. So a
/// process that has not yet taken the value over only *tries* the lock.
pub(crate) struct PerProcess<T> {
    owner: AtomicU32,
    value: Mutex<T>,
}

impl<T> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerProcess").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl<T> PerProcess<T> {
    pub(crate) fn new(pid: Pid, value: T) -> Self {
        Self { owner: AtomicU32::new(pid.get()), value: Mutex::new(value) }
    }

    /// Of no process yet; for what is there from the start.
    pub(crate) const fn unowned(value: T) -> Self {
        Self { owner: AtomicU32::new(0), value: Mutex::new(value) }
    }

    /// Runs `work` on the value, after `reset` if this process is new to it.
    /// `None`: the lock came locked out of the fork, do without the value.
    pub(crate) fn with<R>(&self, pid: Pid, reset: impl FnOnce(&mut T), work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let pid = pid.get();
        let mut value = self.lock(pid)?;
        if self.owner.swap(pid, Ordering::AcqRel) != pid {
            reset(&mut value);
        }
        Some(work(&mut value))
    }

    /// Runs `work` on a value that a child may go on with, without asking which
    /// process this is as long as the lock is free. `None` as in [`with`](Self::with).
    pub(crate) fn share<R>(&self, pid: Pid, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut value = match self.value.try_lock() {
            Ok(value) => value,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => self.wait(pid.get())?,
        };
        Some(work(&mut value))
    }

    /// As a thread holds it that a fork leaves behind.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, which was not free: held by a thread of this process, or by one
    /// that was left behind in the parent.
    fn wait(&self, pid: u32) -> Option<MutexGuard<'_, T>> {
        let is_known_free = |_: &usize| {
            std::thread::yield_now();
            matches!(self.value.try_lock(), Ok(_) | Err(TryLockError::Poisoned(_)))
        };
        if self.owner.load(Ordering::Acquire) != pid {
            (0..TRIES).find(is_known_free)?;
            // Whoever holds it from now on is a thread of this process.
            self.owner.store(pid, Ordering::Release);
        }
        self.lock(pid)
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

/// How often a child tries a lock that came to it in use, before it does without
/// the value: longer than what is done under one takes.
pub(crate) const TRIES: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_process_starts_afresh_once() {
        let cell = PerProcess::new(Pid::Of(1), 10);
        let add = |pid| cell.with(Pid::Of(pid), |n| *n = 0, |n| std::mem::replace(n, *n + 1));
        assert_eq!(add(1), Some(10));
        assert_eq!(add(1), Some(11));
        assert_eq!(add(2), Some(0));
        assert_eq!(add(2), Some(1));
    }

    #[test]
    fn a_lock_held_across_the_fork_does_not_hang_the_child() {
        let cell = PerProcess::new(Pid::Of(1), 10);
        let held = cell.value.lock().unwrap();
        assert_eq!(cell.with(Pid::Of(2), |_| (), |n| *n), None);
        assert_eq!(cell.share(Pid::Of(2), |n| *n), None);
        drop(held);
        assert_eq!(cell.with(Pid::Of(2), |n| *n = 0, |n| *n), Some(0));
    }

    #[test]
    fn a_child_goes_on_with_a_value_that_is_shared() {
        let cell = PerProcess::new(Pid::Of(1), 10);
        for (pid, expected) in [(1, 10), (2, 11), (1, 12)] {
            assert_eq!(cell.share(Pid::Of(pid), |n| std::mem::replace(n, *n + 1)), Some(expected));
        }
    }

    /// Threads of one child wait for each other, although the lock came to it
    /// from a parent.
    #[test]
    fn threads_of_a_child_wait_for_each_other() {
        let cell = PerProcess::new(Pid::Of(1), 0);
        let served = || (0..10_000).filter(|_| cell.share(Pid::Of(2), |n| *n += 1).is_some()).count();
        let all: usize = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(served));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(cell.share(Pid::Of(2), |n| *n), Some(all));
        assert!(all > 0);
    }
}
