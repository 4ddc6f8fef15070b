use std::fmt;
use std::hash::{Hash, Hasher};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::Xxh3;

use self::image::Image;
use super::{Disk, DiskFile};

mod image;

/// A simulated disk that knows, of every byte and every name, whether it would outlive a power failure.
///
/// It does the same in every run. Every call to it or one of its files has a number, from 0; at a chosen one the process can be
/// stopped ([`MemoryDisk::stop_at`]) or an error returned ([`MemoryDisk::fail_at`]). [`MemoryDisk::crash`] is the
/// disk another process finds afterwards.
///
/// Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    image: Image,
    calls: Vec<Call>,
    stop: Option<(u64, Stop)>,
    /// The write the process was stopped before.
    interrupted: Option<Interrupted>,
    failure: Option<Failure>,
    capacity: Option<u64>,
}

struct Interrupted {
    inode: u64,
    offset: u64,
    bytes: Vec<u8>,
}

struct Failure {
    at: u64,
    kind: ErrorKind,
    times: Times,
}

/// A call that was made, see [`MemoryDisk::calls`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which.
    pub kind: CallKind,
    /// Bytes it was about, 0 for most.
    pub len: u64,
}

/// The calls there are.
#[allow(missing_docs, reason = "named as the functions are")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    List,
    Open,
    Create,
    Rename,
    Remove,
    SyncNames,
    KeepAside,
    Len,
    Read,
    Write,
    Sync,
}

impl CallKind {
    /// Whether the disk is another one after such a call.
    pub fn changes_disk(self) -> bool {
        !matches!(self, CallKind::List | CallKind::Open | CallKind::Len | CallKind::Read)
    }
}

/// How a process stops at a call: nothing it does afterwards has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The call is not done.
    Before,
    /// The call is done, but nobody hears of it.
    After,
    /// Of a write, creation or copy aside, the first so many bytes are done (a copy aside has a name only with all of
    /// them); any other call is not done.
    Torn(u64),
}

/// How often a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// The call of that number.
    Once,
    /// And all that are of its kind and follow. A full disk, for example, refuses to write, not to read.
    EverAfter,
    /// And all that follow, of any kind.
    Everything,
}

/// How what ran on a disk came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process was killed: what it did is there.
    Kill,
    /// The machine went off.
    PowerLoss(Unsynced),
}

/// What becomes of what was not synced.
///
/// Changes of names happen in their order: of those that were not synced, the first so many are there. Writes happen in any order,
/// whole, in part or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// Nothing of it is there.
    Lost,
    /// All of it is there.
    Kept,
    /// The names are there, the writes are not.
    Names,
    /// The writes are there, the names are not.
    Writes,
    /// Anything may be there; this number decides.
    Random(u64),
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// The disk as another process finds it after the end of this one. Its calls are counted anew, and it works.
    #[must_use]
    pub fn crash(&self, crash: Crash) -> MemoryDisk {
        MemoryDisk::of(self.state().image.clone(), crash)
    }

    /// The same, if the write that the process was stopped before ([`Stop::Before`]) had got so far. `None` if it was stopped
    /// before another call, or that write is shorter.
    #[must_use]
    pub fn crash_torn(&self, bytes: usize, crash: Crash) -> Option<MemoryDisk> {
        let state = self.state();
        let write = state.interrupted.as_ref()?;
        let mut image = state.image.clone();
        image.write(write.inode, write.offset, write.bytes.get(..bytes)?);
        Some(MemoryDisk::of(image, crash))
    }

    /// A number that disks share if a process, or another one after a crash, would find the same on them (or by a rare chance).
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Xxh3::new();
        self.state().image.hash(&mut hasher);
        hasher.finish()
    }

    /// The calls made so far; the number of the next is their count.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Stops the process at call `call`: that and all later ones fail.
    pub fn stop_at(&self, call: u64, stop: Stop) {
        self.state().stop = Some((call, stop));
    }

    /// Whether the process was stopped, as [`MemoryDisk::stop_at`] said.
    pub fn is_stopped(&self) -> bool {
        self.state().is_stopped()
    }

    /// Makes call `call` fail with an error of this kind. Half of a write that fails is done. After a sync that failed, what it
    /// should have synced is not synced by a later one either.
    pub fn fail_at(&self, call: u64, kind: ErrorKind, times: Times) {
        self.state().failure = Some(Failure { at: call, kind, times });
    }

    /// Ends what [`MemoryDisk::fail_at`] began.
    pub fn work_again(&self) {
        self.state().failure = None;
    }

    /// Lets the files have so many bytes in all (those kept aside included); the bytes of a removed file count while
    /// somebody has it open. Writing what a file has already needs no space.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// How many bytes the files have, counted as [`MemoryDisk::set_capacity`] does.
    pub fn used(&self) -> u64 {
        self.state().image.used()
    }

    /// The files, by name, with all their bytes. Not a call of the process.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        self.state().image.files()
    }

    /// What was kept aside. Not a call of the process.
    pub fn aside(&self) -> Vec<(String, Vec<u8>)> {
        self.state().image.aside()
    }

    /// Puts a file there, synced, in place of any of that name. Not a call of the process.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.state().image.put(name, bytes);
    }

    /// Turns one bit of a file over, on the disk as in memory; false if the file is not that long.
    pub fn flip(&self, name: &str, bit: u64) -> bool {
        self.state().image.flip(name, bit)
    }

    /// Cuts a file off, or lengthens it with zeros, behind the back of whoever wrote it: as if its length had not been synced.
    pub fn set_len(&self, name: &str, len: u64) {
        self.state().image.set_len(name, len);
    }

    /// Makes [`DiskFile::len`] say `len` of a file whatever it has.
    pub fn report_len(&self, name: &str, len: u64) {
        self.state().image.report_len(name, len);
    }

    fn of(mut image: Image, crash: Crash) -> MemoryDisk {
        image.crash(crash);
        MemoryDisk { state: Arc::new(Mutex::new(State { image, ..State::default() })) }
    }

    /// A panic of a test while the lock was held leaves plain maps behind: go on with them.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to become of a call.
enum Fate {
    Done,
    /// Done up to so many bytes (none: not at all), then this error.
    Broken(Option<u64>, io::Error),
    /// Done, then the process is gone.
    Unheard,
}

impl State {
    fn call(&mut self, kind: CallKind, len: u64) -> Fate {
        let number = self.calls.len() as u64;
        self.calls.push(Call { kind, len });
        match self.stop {
            Some((at, stop)) if at == number => return stop.fate(len),
            Some((at, _)) if at < number => return Fate::Broken(None, gone()),
            _ => {}
        }
        match &self.failure {
            Some(failure) if failure.hits(number, kind, &self.calls) => {
                let half = matches!(kind, CallKind::Write).then_some(len / 2);
                Fate::Broken(half, failure.kind.into())
            }
            _ => Fate::Done,
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|(at, _)| self.calls.len() as u64 > at)
    }

    /// Whether so many bytes more have room.
    fn room(&self, bytes: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if bytes > 0 && self.image.used() + bytes > capacity => Err(ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Failure {
    fn hits(&self, number: u64, kind: CallKind, calls: &[Call]) -> bool {
        match self.times {
            _ if number < self.at => false,
            Times::Once => number == self.at,
            Times::EverAfter => usize::try_from(self.at).is_ok_and(|at| calls[at].kind == kind),
            Times::Everything => true,
        }
    }
}

impl Stop {
    fn fate(self, len: u64) -> Fate {
        match self {
            Stop::Before => Fate::Broken(None, gone()),
            Stop::After => Fate::Unheard,
            Stop::Torn(bytes) => Fate::Broken(Some(bytes.min(len)), gone()),
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the process was stopped here")
}

impl MemoryDisk {
    /// A call that is done whole or not at all.
    fn whole<T>(&self, kind: CallKind, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        match state.call(kind, 0) {
            Fate::Done => work(&mut state),
            Fate::Broken(_, error) => Err(error),
            Fate::Unheard => work(&mut state).and(Err(gone())),
        }
    }

    fn file(&self, inode: u64) -> Arc<dyn DiskFile> {
        Arc::new(MemoryFile { disk: self.clone(), inode })
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.whole(CallKind::List, |state| Ok(state.image.names()))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.whole(CallKind::Open, |state| state.image.open(name))?;
        Ok(self.file(inode))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let fate = state.call(CallKind::Create, len);
        if let Fate::Broken(None, error) = fate {
            return Err(error);
        }
        state.room(len)?;
        let inode = match fate {
            Fate::Broken(Some(torn), error) => {
                // Not removed: whoever would have done it is gone.
                state.image.create(name, torn, false)?;
                return Err(error);
            }
            Fate::Unheard => {
                state.image.create(name, len, true)?;
                return Err(gone());
            }
            _ => state.image.create(name, len, true)?,
        };
        state.image.hold(inode);
        drop(state);
        Ok(self.file(inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.whole(CallKind::Rename, |state| state.image.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.whole(CallKind::Remove, |state| state.image.remove(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.whole(CallKind::SyncNames, |state| {
            state.image.sync_names();
            Ok(())
        })
    }

    fn keep_aside(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        self.whole(CallKind::KeepAside, |state| {
            if state.image.is_aside(name) {
                return Ok(false);
            }
            state.room(bytes.len() as u64)?;
            state.image.keep_aside(name, bytes);
            Ok(true)
        })
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    inode: u64,
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.whole(CallKind::Len, |state| Ok(state.image.len(self.inode)))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.disk.whole(CallKind::Read, |state| Ok(state.image.read(self.inode, offset, into)))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.stop == Some((state.calls.len() as u64, Stop::Before)) {
            state.interrupted = Some(Interrupted { inode: self.inode, offset, bytes: bytes.to_vec() });
        }
        let fate = state.call(CallKind::Write, bytes.len() as u64);
        let growth = (offset + bytes.len() as u64).saturating_sub(state.image.real_len(self.inode));
        state.room(growth)?;
        let done = match fate {
            Fate::Done | Fate::Unheard => bytes,
            Fate::Broken(torn, _) => &bytes[..torn.and_then(|torn| usize::try_from(torn).ok()).unwrap_or(0)],
        };
        state.image.write(self.inode, offset, done);
        match fate {
            Fate::Done => Ok(()),
            Fate::Broken(_, error) => Err(error),
            Fate::Unheard => Err(gone()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        match state.call(CallKind::Sync, 0) {
            Fate::Done => {
                state.image.sync(self.inode);
                Ok(())
            }
            Fate::Unheard => {
                state.image.sync(self.inode);
                Err(gone())
            }
            Fate::Broken(_, error) => {
                // The system goes on when a process is gone.
                if !state.is_stopped() {
                    state.image.give_up_on(self.inode);
                }
                Err(error)
            }
        }
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        self.disk.state().image.let_go(self.inode);
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("MemoryDisk").field("image", &state.image).field("calls", &state.calls.len()).finish()
    }
}

#[cfg(test)]
mod tests;
