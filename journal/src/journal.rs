use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::{
    Commit, Disk, Doorbell, Entry, JournalOptions, OpenError, Owner, Position, Reader, Report, Scanned, Space,
};

/// Says when the entries of one [`Journal::submit`] have been committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "nothing may be answered before the receipt is complete"]
pub struct Receipt {
    last: Position,
}

/// Whether the journal still accepts entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Entries are accepted.
    Healthy,
    /// The disk is full: [`Journal::reserve`] refuses. Entries that need no reservation are accepted, and reading goes on.
    Full,
    /// A write or sync failed, or a commit panicked. Nothing is accepted until the process is restarted and the log read again,
    /// because after a failed sync nobody knows which pages reached the disk.
    Poisoned,
}

/// The journal is poisoned; the entries were given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal failed earlier and accepts nothing until the broker is restarted")]
pub struct Unavailable;

/// The disk has no room for what was asked, or soon would have none for what must always be possible: settling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the disk is full")]
pub struct NoRoom;

/// A log of `E`. Cheap to clone; all clones are the same log.
pub struct Journal<E> {
    shared: Arc<Shared<E>>,
}

struct Shared<E> {
    inbox: Mutex<Inbox<E>>,
    writer: Mutex<Writer<E>>,
    /// Everything up to here is committed. Written by the writer only.
    committed: AtomicU64,
    /// The first position that failed; `u64::MAX` while healthy.
    failed_from: AtomicU64,
    pace: Pace,
}

/// How a simulated disk behaves, for tests of what stands on the journal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Simulation {
    /// Writing this position fails, as a disk fails: for good.
    pub fail_at: Option<Position>,
    /// When entries are written.
    pub pace: Pace,
}

/// When entries are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As soon as somebody can.
    #[default]
    AtOnce,
    /// When [`Journal::write_waiting`] is called: receipts stay open until then, as they do while a disk syncs.
    WhenTold,
}

/// How a log on disk stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes of all its files.
    pub disk_bytes: u64,
    /// Bytes its owner retains; see [`Space`].
    pub live_bytes: u64,
    /// Segments, the one being written included.
    pub segments: u64,
    /// Files prepared for later segments.
    pub spares: u64,
    /// Bytes that may be written before [`Journal::reserve`] refuses, as far as is known without asking the disk for more.
    pub room_bytes: u64,
    /// Findings since the log was opened, those of the opening included.
    pub findings: u64,
    /// Writes to the log, each with all that waited.
    pub batches: u64,
    /// How often the log was synced.
    pub syncs: u64,
}

impl<E: Entry + 'static> Journal<E> {
    /// Opens the log on `disk`, gives its owner every record, and starts the threads that write.
    ///
    /// # Errors
    /// As [`OpenError`] says; never because of damage.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        owner: impl Owner<E> + 'static,
    ) -> Result<(Journal<E>, Report), OpenError> {
        Journal::open_stepped(disk, options, owner)
    }

    /// Like [`Journal::open`], without threads: [`Journal::write_waiting`] does all their work on the caller's thread, in the
    /// same order each time.
    ///
    /// # Errors
    /// As [`OpenError`] says; never because of damage.
    pub fn open_stepped(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        owner: impl Owner<E> + 'static,
    ) -> Result<(Journal<E>, Report), OpenError> {
        let _ = (disk, options, owner);
        let source = std::io::ErrorKind::Unsupported.into();
        Err(OpenError::Io { doing: "opening", name: "log".into(), source })
    }

    /// Does what waits at the time `now` (any clock that does not go back): for a log opened with [`Journal::open_stepped`], with
    /// whose entries [`Durability::Within`](crate::Durability::Within) counts.
    pub fn write_waiting_at(&self, now: std::time::Duration) {
        let _ = now;
        self.write_waiting();
    }
}

/// Reads a log without changing anything: every good record and every finding, in log order.
///
/// # Errors
/// As [`OpenError`] says; never because of damage.
pub fn scan(disk: &dyn Disk, each: &mut dyn FnMut(Scanned<'_>)) -> Result<Report, OpenError> {
    let _ = each;
    let source = disk.list().err().unwrap_or_else(|| std::io::ErrorKind::Unsupported.into());
    Err(OpenError::Io { doing: "reading", name: "log".into(), source })
}

/// What waits to be written, in log order.
struct Inbox<E> {
    last: Position,
    entries: Vec<E>,
    bells: Vec<Arc<Doorbell>>,
}

struct Writer<E> {
    next: Position,
    owner: Box<dyn Commit<E>>,
    fail_at: Option<Position>,
    space: Space,
    /// Emptied vectors of the last batch, swapped with the inbox so that neither allocates again.
    entries: Vec<E>,
    bells: Vec<Arc<Doorbell>>,
}

impl<E> Journal<E> {
    /// A journal without a disk.
    ///
    /// There is no writer thread: the first submitter to find the writer free writes for all who wait,
    /// so a submission has often been committed by the time `submit` returns.
    pub fn memory(owner: impl Commit<E> + 'static) -> Journal<E> {
        Journal::simulated(owner, Simulation::default())
    }

    /// A journal without a disk that behaves as one with a slow or failing disk would.
    pub fn simulated(owner: impl Commit<E> + 'static, simulation: Simulation) -> Journal<E> {
        let writer = Writer {
            next: Position(1),
            owner: Box::new(owner),
            fail_at: simulation.fail_at,
            space: Space::uncounted(),
            entries: Vec::new(),
            bells: Vec::new(),
        };
        Journal {
            shared: Arc::new(Shared {
                inbox: Mutex::new(Inbox { last: Position(0), entries: Vec::new(), bells: Vec::new() }),
                writer: Mutex::new(writer),
                committed: AtomicU64::new(0),
                failed_from: AtomicU64::new(u64::MAX),
                pace: simulation.pace,
            }),
        }
    }

    /// Writes what waits, if the pace is [`Pace::WhenTold`].
    pub fn write_waiting(&self) {
        self.shared.lead();
    }

    /// Appends `entries`, emptying the vector, as one unit: no other submission comes between them.
    /// `bell` rings when the receipt is complete.
    ///
    /// # Errors
    /// [`Unavailable`] after a failure; `entries` is left as it was.
    pub fn submit(&self, entries: &mut Vec<E>, bell: &Arc<Doorbell>) -> Result<Receipt, Unavailable> {
        let receipt = {
            let mut inbox = lock(&self.shared.inbox);
            if self.health() == Health::Poisoned {
                return Err(Unavailable);
            }
            inbox.last.0 += entries.len() as u64;
            inbox.entries.append(entries);
            // Batches of one connection follow each other often; one ring serves them all.
            if !inbox.bells.last().is_some_and(|last| Arc::ptr_eq(last, bell)) {
                inbox.bells.push(Arc::clone(bell));
            }
            Receipt { last: inbox.last }
        };
        if self.shared.pace == Pace::AtOnce {
            self.shared.lead();
        }
        Ok(receipt)
    }

    /// Takes room for an entry with this many bytes of payload, which may be refused when the disk is full. The entry says the same number
    /// as [`Entry::reserved`], and the log gives it back. Entries that must always be possible reserve nothing.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing is reserved then.
    pub fn reserve(&self, bytes: u64) -> Result<(), NoRoom> {
        let _ = bytes;
        Ok(())
    }

    /// Gives back what [`Journal::reserve`] took for an entry that is not submitted after all.
    pub fn unreserve(&self, bytes: u64) {
        let _ = bytes;
    }

    /// A reader of entries that were committed.
    pub fn reader(&self) -> Reader {
        Reader::of_nothing()
    }

    /// Whether the entries behind `receipt` are committed: `None` not yet, `Some(Ok)` yes, `Some(Err)` never.
    pub fn outcome(&self, receipt: Receipt) -> Option<Result<(), Unavailable>> {
        if receipt.last.0 <= self.shared.committed.load(Ordering::Acquire) {
            return Some(Ok(()));
        }
        (receipt.last.0 >= self.shared.failed_from.load(Ordering::Acquire)).then_some(Err(Unavailable))
    }

    /// Whether more waits to be written than should. Then whoever submits stops taking in work until `bell` rings.
    pub fn is_congested(&self, bell: &Arc<Doorbell>) -> bool {
        let _ = bell;
        false
    }

    /// Rings `bell` at every change of [`Journal::health`].
    pub fn watch(&self, bell: &Arc<Doorbell>) {
        let _ = bell;
    }

    /// What failed and where, once it has.
    pub fn failure(&self) -> Option<String> {
        None
    }

    /// How the log stands, in numbers.
    pub fn figures(&self) -> Figures {
        Figures::default()
    }

    /// Writes and syncs everything submitted, marks the log as closed in order and ends its threads. Nothing is accepted from now
    /// on. The drop of the last clone does the same.
    pub fn close(&self) {}

    /// Whether entries are accepted.
    pub fn health(&self) -> Health {
        match self.shared.failed_from.load(Ordering::Acquire) {
            u64::MAX => Health::Healthy,
            _ => Health::Poisoned,
        }
    }
}

impl<E> Shared<E> {
    /// Writes what waits, unless somebody else is writing: then they will write this too.
    fn lead(&self) {
        loop {
            let mut writer = match self.writer.try_lock() {
                Ok(writer) => writer,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let written = self.step(&mut writer);
            drop(writer);
            // Whoever submitted after the step and before the unlock found the writer busy and left:
            // only this look behind the unlock finds their entries.
            if !written && lock(&self.inbox).entries.is_empty() {
                return;
            }
        }
    }

    /// Collect, write, commit, complete: one batch. False when nothing waited.
    fn step(&self, writer: &mut Writer<E>) -> bool {
        {
            let mut inbox = lock(&self.inbox);
            if inbox.entries.is_empty() {
                return false;
            }
            std::mem::swap(&mut inbox.entries, &mut writer.entries);
            std::mem::swap(&mut inbox.bells, &mut writer.bells);
        }
        let Writer { next, owner, fail_at, space, entries, bells } = writer;
        for mut entry in entries.drain(..) {
            let position = *next;
            next.0 += 1;
            if *fail_at == Some(position) {
                self.failed_from.store(position.0, Ordering::Release);
            }
            if position.0 >= self.failed_from.load(Ordering::Relaxed) {
                let _ = survived(|| owner.refuse(entry));
            } else if survived(|| {
                if owner.admit(position, &mut entry) {
                    owner.commit(position, entry, space);
                }
            }) {
                // Stored entry by entry: a receipt in the middle of a long batch may complete early.
                self.committed.store(position.0, Ordering::Release);
            } else {
                self.failed_from.store(position.0, Ordering::Release);
            }
        }
        for bell in bells.drain(..) {
            bell.ring();
        }
        true
    }
}

impl<E> Clone for Journal<E> {
    fn clone(&self) -> Journal<E> {
        Journal { shared: Arc::clone(&self.shared) }
    }
}

impl<E> fmt::Debug for Journal<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("committed", &self.shared.committed).field("health", &self.health()).finish()
    }
}

/// False when `work` panicked; the panic hook has reported it.
///
/// Whoever submitted must hear that an entry failed, and later entries must not be committed behind one that was
/// half done. The owner's state is not looked at again but by `refuse`: that is what being poisoned means.
fn survived(work: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(work)).is_ok()
}

/// A panic while the lock was held left plain vectors behind, never a half-written value: go on with them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[derive(Default)]
    struct Seen {
        committed: Vec<(u64, u32)>,
        refused: Vec<u32>,
    }

    struct Owner(Arc<Mutex<Seen>>);

    impl Commit<u32> for Owner {
        fn commit(&mut self, position: Position, entry: u32, _: &mut Space) {
            lock(&self.0).committed.push((position.0, entry));
        }

        fn refuse(&mut self, entry: u32) {
            lock(&self.0).refused.push(entry);
        }
    }

    #[test]
    fn a_receipt_completes_after_its_last_entry_is_committed() {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let journal = Journal::memory(Owner(seen.clone()));
        let receipt = journal.submit(&mut vec![7, 8, 9], &Arc::new(Doorbell::new())).unwrap();
        assert_eq!(journal.outcome(receipt), Some(Ok(())));
        assert_eq!(lock(&seen).committed, [(1, 7), (2, 8), (3, 9)]);
    }

    #[test]
    fn a_receipt_stays_open_until_its_entries_are_written() {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let journal =
            Journal::simulated(Owner(seen.clone()), Simulation { pace: Pace::WhenTold, ..Default::default() });
        let receipt = journal.submit(&mut vec![7], &Arc::new(Doorbell::new())).unwrap();
        assert_eq!(journal.outcome(receipt), None);
        assert!(lock(&seen).committed.is_empty());
        journal.write_waiting();
        assert_eq!(journal.outcome(receipt), Some(Ok(())));
    }

    #[test]
    fn concurrent_submissions_stay_whole_and_none_is_forgotten() {
        const THREADS: u32 = 4;
        const ROUNDS: u32 = 20_000;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let journal = Journal::memory(Owner(seen.clone()));
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let journal = journal.clone();
                scope.spawn(move || {
                    let bell = Arc::new(Doorbell::new());
                    for round in 0..ROUNDS {
                        let first = (thread * ROUNDS + round) * 2;
                        let _ = journal.submit(&mut vec![first, first + 1], &bell).unwrap();
                    }
                });
            }
        });
        let seen = lock(&seen);
        assert_eq!(seen.committed.len() as u32, THREADS * ROUNDS * 2);
        for (index, pair) in seen.committed.chunks(2).enumerate() {
            assert_eq!(pair[0].0, index as u64 * 2 + 1, "positions are consecutive");
            assert_eq!(pair[1].1, pair[0].1 + 1, "a submission stays together");
        }
    }

    #[test]
    fn after_a_failure_everything_is_refused() {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let journal =
            Journal::simulated(Owner(seen.clone()), Simulation { fail_at: Some(Position(2)), ..Default::default() });
        let bell = Arc::new(Doorbell::new());
        let first = journal.submit(&mut vec![1], &bell).unwrap();
        let second = journal.submit(&mut vec![2, 3], &bell).unwrap();
        assert_eq!(journal.outcome(first), Some(Ok(())));
        assert_eq!(journal.outcome(second), Some(Err(Unavailable)));
        assert_eq!(journal.submit(&mut vec![4], &bell), Err(Unavailable));
        assert_eq!(journal.health(), Health::Poisoned);
        assert_eq!(lock(&seen).refused, [2, 3]);
    }

    struct Panics(Arc<Mutex<Seen>>);

    impl Commit<u32> for Panics {
        fn commit(&mut self, position: Position, entry: u32, _: &mut Space) {
            assert_ne!(entry, 13, "a commit that panics, as asked");
            lock(&self.0).committed.push((position.0, entry));
        }

        fn refuse(&mut self, entry: u32) {
            lock(&self.0).refused.push(entry);
            assert_ne!(entry, 14, "a refusal that panics, as asked");
        }
    }

    #[test]
    fn a_commit_that_panics_poisons_and_everybody_hears_of_it() {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let journal =
            Journal::simulated(Panics(seen.clone()), Simulation { pace: Pace::WhenTold, ..Default::default() });
        let bells = [(); 3].map(|()| Arc::new(Doorbell::new()));
        let receipts = [vec![1], vec![2, 13, 3], vec![14, 4]];
        let receipts: Vec<_> = receipts
            .into_iter()
            .zip(&bells)
            .map(|(mut entries, bell)| journal.submit(&mut entries, bell).unwrap())
            .collect();
        journal.write_waiting();
        let outcomes: Vec<_> = receipts.into_iter().map(|receipt| journal.outcome(receipt)).collect();
        assert_eq!(outcomes, [Some(Ok(())), Some(Err(Unavailable)), Some(Err(Unavailable))]);
        assert_eq!(journal.health(), Health::Poisoned);
        assert_eq!(lock(&seen).committed, [(1, 1), (2, 2)]);
        assert_eq!(lock(&seen).refused, [3, 14, 4]);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(bells.iter().all(|bell| bell.poll_rung(&mut context).is_ready()), "every bell rang");
    }
}
