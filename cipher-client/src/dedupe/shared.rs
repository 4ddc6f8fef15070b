//! One store for all windows that a process opens on one file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Recovery;
use super::open;
use super::shape::Shape;
use super::store::Store;
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

/// The stores this process has open, by the path of their ring. The lock is held
/// while one is opened or closed, so that it is never met half way.
static OPEN: Mutex<Vec<(PathBuf, Weak<Opened>)>> = Mutex::new(Vec::new());

impl SharedStore {
    pub(super) fn open(path: &Path, shape: Shape) -> Result<Self> {
        let path = open::canonical(path)?;
        let mut all = lock(&OPEN);
        let known = all.iter().find(|(known, _)| *known == path).and_then(|(_, opened)| opened.upgrade());
        if let Some(opened) = known {
            return Ok(Self { opened: Some(opened) });
        }
        let (store, recovery) = open::open(&path, shape)?;
        let opened = Arc::new(Opened { store: Mutex::new(store), recovery });
        all.push((path, Arc::downgrade(&opened)));
        Ok(Self { opened: Some(opened) })
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
        let mut all = lock(&OPEN);
        self.opened = None;
        all.retain(|(_, opened)| opened.strong_count() > 0);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of another holder leaves what is behind it whole: a store counts
    // a note when all steps of it are done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
