use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::room::Room;
use crate::segment::Segments;
use crate::{Doorbell, Figures};

/// What everybody can see of a log on disk. Written by its writer.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) segments: Segments,
    pub(crate) room: Room,
    pub(crate) disk_bytes: AtomicU64,
    pub(crate) live_bytes: AtomicU64,
    pub(crate) spares: AtomicU64,
    pub(crate) room_bytes: AtomicU64,
    pub(crate) findings: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) syncs: AtomicU64,
    has_failed: AtomicBool,
    failure: Mutex<Option<String>>,
    watchers: Mutex<Vec<Arc<Doorbell>>>,
}

impl Log {
    pub(crate) fn watch(&self, bell: &Arc<Doorbell>) {
        lock(&self.watchers).push(Arc::clone(bell));
    }

    pub(crate) fn ring_watchers(&self) {
        lock(&self.watchers).iter().for_each(|bell| bell.ring());
    }

    pub(crate) fn fail(&self, what: String) {
        lock(&self.failure).get_or_insert(what);
        self.has_failed.store(true, Ordering::Release);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    pub(crate) fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }

    pub(crate) fn figures(&self) -> Figures {
        let figure = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            disk_bytes: figure(&self.disk_bytes),
            live_bytes: figure(&self.live_bytes),
            segments: self.segments.count(),
            spares: figure(&self.spares),
            room_bytes: figure(&self.room_bytes),
            findings: figure(&self.findings),
            batches: figure(&self.batches),
            syncs: figure(&self.syncs),
        }
    }
}

/// A panic while the lock was held left plain values behind, never a half-written one: go on with them.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
