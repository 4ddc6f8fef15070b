//! The simulated disk, with eyes: what the log did to its files is what the coverage of a history is counted from.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ciphermq_journal::{Disk, DiskFile, MemoryDisk};

/// A [`MemoryDisk`] that counts.
#[derive(Clone)]
pub(crate) struct WatchedDisk {
    pub(crate) disk: MemoryDisk,
    seen: Arc<Seen>,
}

/// What happened to the files.
#[derive(Default)]
pub(crate) struct Seen {
    calls: AtomicU64,
    reads: AtomicU64,
    reads_failed: AtomicU64,
    begun: AtomicU64,
    dropped: AtomicU64,
    full: AtomicU64,
}

impl WatchedDisk {
    pub(crate) fn new(disk: MemoryDisk) -> WatchedDisk {
        WatchedDisk { disk, seen: Arc::default() }
    }

    /// The number of the next call.
    pub(crate) fn calls(&self) -> u64 {
        self.seen.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn reads(&self) -> u64 {
        self.seen.reads.load(Ordering::Relaxed)
    }

    pub(crate) fn reads_failed(&self) -> u64 {
        self.seen.reads_failed.load(Ordering::Relaxed)
    }

    /// Segments begun.
    pub(crate) fn begun(&self) -> u64 {
        self.seen.begun.load(Ordering::Relaxed)
    }

    /// Segments dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.seen.dropped.load(Ordering::Relaxed)
    }

    /// Calls refused for want of room.
    pub(crate) fn full(&self) -> u64 {
        self.seen.full.load(Ordering::Relaxed)
    }
}

/// No broker of a history needs so many.
const CALLS_MAX: u64 = 50_000;

impl Seen {
    fn call<T>(&self, what: &AtomicU64, result: io::Result<T>) -> io::Result<T> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        if calls > CALLS_MAX {
            return Err(io::Error::other("so many calls: this goes on for ever"));
        }
        what.fetch_add(1, Ordering::Relaxed);
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            self.full.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn file(self: &Arc<Seen>, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(WatchedFile { file, seen: Arc::clone(self) })
    }
}

/// Whether a name is that of a segment in use.
pub(crate) fn is_segment(name: &str) -> bool {
    name.ends_with(".log") && !name.starts_with("spare")
}

impl Disk for WatchedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.seen.call(&AtomicU64::new(0), self.disk.list())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.seen.call(&AtomicU64::new(0), Disk::open(&self.disk, name))?;
        Ok(self.seen.file(file))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.seen.call(&AtomicU64::new(0), self.disk.create(name, len))?;
        Ok(self.seen.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let unmoved = AtomicU64::new(0);
        let what = match (is_segment(from), is_segment(to)) {
            (false, true) => &self.seen.begun,
            (true, false) => &self.seen.dropped,
            _ => &unmoved,
        };
        self.seen.call(what, self.disk.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let spare = AtomicU64::new(0);
        let what = if is_segment(name) { &self.seen.dropped } else { &spare };
        self.seen.call(what, self.disk.remove(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.seen.call(&AtomicU64::new(0), self.disk.sync_names())
    }

    fn keep_aside(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        self.seen.call(&AtomicU64::new(0), self.disk.keep_aside(name, bytes))
    }
}

struct WatchedFile {
    file: Arc<dyn DiskFile>,
    seen: Arc<Seen>,
}

impl DiskFile for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.seen.call(&AtomicU64::new(0), self.file.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let read = self.seen.call(&self.seen.reads, self.file.read_at(offset, into));
        self.seen.reads_failed.fetch_add(u64::from(read.is_err()), Ordering::Relaxed);
        read
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.seen.call(&AtomicU64::new(0), self.file.write_at(offset, bytes))
    }

    fn sync(&self) -> io::Result<()> {
        self.seen.call(&AtomicU64::new(0), self.file.sync())
    }
}
