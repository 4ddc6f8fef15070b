//! State that belongs to one process and must not follow a `fork`.
//!
//! A fork copies the memory and the one thread that forks. What another thread
//! was in the middle of stays so in the child for ever, and whoever waits for it
//! there waits for ever: for a lock, and for the value of a `OnceLock` or a
//! `LazyLock` that is being made.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
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
/// The lock may have come locked out of the fork. So a process that has not yet
/// taken the value over only *tries* the lock.
pub(crate) struct PerProcess<T> {
    owner: AtomicU32,
    /// The process that has tried for long once, and in vain.
    gave_up: AtomicU32,
    value: Mutex<T>,
}

impl<T> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerProcess").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl<T> PerProcess<T> {
    pub(crate) fn new(pid: Pid, value: T) -> Self {
        Self { owner: AtomicU32::new(pid.get()), gave_up: AtomicU32::new(NOBODY), value: Mutex::new(value) }
    }

    /// Of the process that comes first.
    pub(crate) const fn unowned(value: T) -> Self {
        Self { owner: AtomicU32::new(NOBODY), gave_up: AtomicU32::new(NOBODY), value: Mutex::new(value) }
    }

    /// Runs `work` on the value, after `reset` if this process is new to it.
    /// `None`: the lock came locked out of the fork, do without the value.
    pub(crate) fn with<R>(&self, pid: Pid, reset: impl FnOnce(&mut T), work: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.lock(pid, reset).map(|mut value| work(&mut value))
    }

    /// The value itself, under the same conditions.
    pub(crate) fn lock(&self, pid: Pid, reset: impl FnOnce(&mut T)) -> Option<MutexGuard<'_, T>> {
        let pid = pid.get();
        // Before the lock is taken: a fork while it is held finds an owner.
        let _ = self.owner.compare_exchange(NOBODY, pid, Ordering::AcqRel, Ordering::Acquire);
        let mut value = self.guard(pid)?;
        if self.owner.swap(pid, Ordering::AcqRel) != pid {
            reset(&mut value);
        }
        Some(value)
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
        let is_known_free = |_| {
            std::thread::yield_now();
            matches!(self.value.try_lock(), Ok(_) | Err(TryLockError::Poisoned(_)))
        };
        if self.owner.load(Ordering::Acquire) != pid {
            if !(0..self.tries(pid)).any(is_known_free) {
                self.gave_up.store(pid, Ordering::Release);
                return None;
            }
            // Whoever holds it from now on is a thread of this process.
            self.owner.store(pid, Ordering::Release);
        }
        self.guard(pid)
    }

    /// Once is enough: where many threads want to run, each try takes milliseconds,
    /// and every message would pay for all of them.
    fn tries(&self, pid: u32) -> usize {
        if self.gave_up.load(Ordering::Acquire) == pid { 1 } else { TRIES }
    }

    fn guard(&self, pid: u32) -> Option<MutexGuard<'_, T>> {
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
/// No process has this number.
const NOBODY: u32 = 0;

/// A value that whoever comes first puts in, and that nobody waits for.
///
/// A thread that comes while it is being put in does without. So does the child
/// of a fork at that moment, for good.
#[derive(Debug)]
pub(crate) struct Once<T> {
    is_taken: AtomicBool,
    /// Only one thread ever sets it.
    value: OnceLock<T>,
}

impl<T> Once<T> {
    pub(crate) const fn new() -> Self {
        Self { is_taken: AtomicBool::new(false), value: OnceLock::new() }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// Whether the value is there, or about to be.
    pub(crate) fn is_taken(&self) -> bool {
        self.is_taken.load(Ordering::Acquire)
    }

    /// The value, which is made if nobody did before.
    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> T) -> Option<&T> {
        if let Some(value) = self.value.get() {
            return Some(value);
        }
        if self.is_taken.swap(true, Ordering::AcqRel) {
            return self.value.get();
        }
        Some(self.value.get_or_init(make))
    }
}

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

    #[test]
    fn a_child_tries_a_lost_lock_for_long_only_once() {
        let cell = PerProcess::new(Pid::Of(1), 10);
        let held = cell.value.lock().unwrap();
        assert_eq!(cell.tries(2), TRIES);
        for _ in 0..3 {
            assert_eq!(cell.share(Pid::Of(2), |n| *n), None);
            assert_eq!((cell.tries(2), cell.tries(3)), (1, TRIES));
        }
        drop(held);
        assert_eq!(cell.share(Pid::Of(2), |n| *n), Some(10), "it was not lost after all");
    }

    /// The first process is no child, even if two of its threads come at once.
    #[test]
    fn what_nobody_owned_is_waited_for_by_the_first_process() {
        let cell = PerProcess::unowned(10);
        let held = cell.lock(Pid::Of(1), |_| panic!("nothing to start afresh")).unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| cell.with(Pid::Of(1), |_| panic!("nothing to start afresh"), |n| *n));
            assert_eq!(cell.with(Pid::Of(2), |_| (), |n| *n), None, "a child of a fork while it was held");
            drop(held);
            assert_eq!(other.join().unwrap(), Some(10));
        });
    }

    /// A second `OnceLock::set` would wait here for ever, as in the child of a fork.
    #[test]
    fn a_value_that_is_being_put_in_is_not_waited_for() {
        let once = Once::new();
        assert!(once.get().is_none() && !once.is_taken());
        let made = once.get_or_make(|| {
            assert!(once.is_taken() && once.get().is_none());
            assert_eq!(once.get_or_make(|| unreachable!("one at a time")), None);
            7
        });
        assert_eq!((made, once.get()), (Some(&7), Some(&7)));
        assert_eq!(once.get_or_make(|| 8), Some(&7));
    }
}
