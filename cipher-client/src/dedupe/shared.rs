//! One store for all windows that a process opens on one file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Recovery;
use super::open;
use super::shape::Shape;
use super::store::Store;
use crate::crypto::process::{PerProcess, Pid, TRIES};
use crate::error::Result;

/// A window's part in a store.
pub(super) struct SharedStore {
    /// `None` only while it is dropped.
    opened: Option<Arc<Opened>>,
}

struct Opened {
    store: Mutex<Store>,
    recovery: Recovery,
}

/// The stores a process has open, by the path of their ring. The lock is held
/// while one is opened, which may take seconds, or closed, so that it is never met
/// half way.
struct Registry(PerProcess<Vec<(PathBuf, Weak<Opened>)>>);

static OPEN: Registry = Registry(PerProcess::unowned(Vec::new()));

impl Registry {
    /// `None` in a process that was forked while another thread had the lock, and
    /// has it locked for ever.
    fn with<R>(&self, mut work: impl FnMut(&mut Vec<(PathBuf, Weak<Opened>)>) -> R) -> Option<R> {
        (0..TRIES).find_map(|_| {
            let done = self.0.with(Pid::Current, |_| (), &mut work);
            if done.is_none() {
                std::thread::yield_now();
            }
            done
        })
    }

    /// Without a list each opening is by itself: a second one of a file is refused
    /// by the lock of the file.
    fn open(&self, path: &Path, shape: Shape) -> Result<Arc<Opened>> {
        self.with(|all| {
            let known = all.iter().find(|(known, _)| *known == path).and_then(|(_, opened)| opened.upgrade());
            if let Some(opened) = known {
                return Ok(opened);
            }
            let opened = Opened::new(path, shape)?;
            all.push((path.to_owned(), Arc::downgrade(&opened)));
            Ok(opened)
        })
        .unwrap_or_else(|| Opened::new(path, shape))
    }

    fn close(&self, opened: Option<Arc<Opened>>) {
        let mut opened = opened;
        self.with(|all| {
            drop(opened.take());
            all.retain(|(_, opened)| opened.strong_count() > 0);
        });
    }
}

impl Opened {
    fn new(path: &Path, shape: Shape) -> Result<Arc<Self>> {
        let (store, recovery) = open::open(path, shape)?;
        Ok(Arc::new(Self { store: Mutex::new(store), recovery }))
    }
}

impl SharedStore {
    pub(super) fn open(path: &Path, shape: Shape) -> Result<Self> {
        let path = open::canonical(path)?;
        Ok(Self { opened: Some(OPEN.open(&path, shape)?) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Store> {
        lock(&self.opened().store)
    }

    pub(super) fn recovery(&self) -> Recovery {
        self.opened().recovery
    }

    fn opened(&self) -> &Opened {
        self.opened.as_ref().expect("taken by drop only")
    }
}

impl Drop for SharedStore {
    fn drop(&mut self) {
        OPEN.close(self.opened.take());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of another holder leaves what is behind it whole: a store counts
    // a note when all steps of it are done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fork copies a lock as it is, and not the thread that has it.
    #[test]
    fn a_fork_in_the_middle_of_an_opening_does_not_keep_the_child_from_another() {
        let dir = tempfile::tempdir().unwrap();
        let parent = Pid::Of(std::process::id() + 1);
        let registry = Registry(PerProcess::new(parent, Vec::new()));
        let open = |name: &str| registry.open(&dir.path().join(name), Shape::of(100));
        let _opening = registry.0.hold();
        let one = open("one").unwrap();
        assert!(open("one").is_err(), "the lock of the file keeps two apart");
        let two = open("two").unwrap();
        registry.close(Some(one));
        registry.close(Some(two));
        drop(open("one").unwrap());
    }

    #[test]
    fn two_windows_on_one_file_are_one_and_the_last_to_go_closes_it() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry(PerProcess::unowned(Vec::new()));
        let open = || registry.open(&dir.path().join("one"), Shape::of(100)).unwrap();
        let (first, second) = (open(), open());
        assert!(Arc::ptr_eq(&first, &second));
        registry.close(Some(first));
        assert!(Arc::ptr_eq(&open(), &second), "it is still open");
        registry.close(Some(second));
        assert_eq!(registry.with(|all| all.len()), Some(0));
        drop(open());
    }
}
