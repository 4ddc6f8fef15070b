//! One store for all windows that a process opens on one file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Recovery;
use super::open::{self, refused};
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
    path: PathBuf,
    /// The file is shared with a child of `fork`, which must not write to it, and
    /// does not learn what the parent writes.
    process: u32,
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
            let done = self.0.with(Pid::Current, Vec::clear, &mut work);
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
        let (path, process) = (path.to_owned(), std::process::id());
        Ok(Arc::new(Self { store: Mutex::new(store), recovery, path, process }))
    }

    /// Refused in a child without a look at the lock, which may have come locked
    /// out of the fork.
    fn lock(&self, process: u32) -> Result<MutexGuard<'_, Store>> {
        if self.process != process {
            return Err(refused(&self.path, FORKED));
        }
        // A panic of another holder leaves what is behind it whole: a store counts
        // a note when all steps of it are done.
        Ok(self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Opened {
    /// Closing the files would not do: a process forked meanwhile has them open too.
    fn drop(&mut self) {
        if self.process == std::process::id() {
            self.store.get_mut().unwrap_or_else(PoisonError::into_inner).unlock();
        }
    }
}

const FORKED: &str = "was opened before a fork: only the parent may go on with it";

impl SharedStore {
    pub(super) fn open(path: &Path, shape: Shape) -> Result<Self> {
        let path = open::canonical(path)?;
        Ok(Self { opened: Some(OPEN.open(&path, shape)?) })
    }

    pub(super) fn lock(&self) -> Result<MutexGuard<'_, Store>> {
        self.opened().lock(std::process::id())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// Both would write into the same slots; and the child would not know what
    /// the parent notes from then on. The lock may be held for good.
    #[test]
    fn the_child_of_a_fork_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let shared = SharedStore::open(&dir.path().join("seen"), Shape::of(100)).unwrap();
        let parent = shared.lock().unwrap();
        let child = shared.opened().lock(std::process::id() ^ 1);
        assert!(matches!(child.err().unwrap().kind(), ErrorKind::File { reason: FORKED, .. }));
        drop(parent);
        assert!(shared.lock().is_ok());
    }

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
