use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::front::Front;
use crate::log::{Log, lock};
use crate::memory::MemoryWriter;
use crate::writer::{Next, Writer};
use crate::{Commit, Doorbell, Entry, Owner, Position, Reader};

/// Says when the entries of one [`Journal::submit`] have been committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "nothing may be answered before the receipt is complete"]
pub struct Receipt {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Receipt {
    /// The receipt of some of the entries, counted in the order they were submitted; `None` if there are none of that number.
    ///
    /// The parts of a submission are committed together or in order, but a full disk may refuse one and not the others.
    pub fn part(self, entries: Range<usize>) -> Option<Receipt> {
        let first = self.first + entries.start as u64;
        let end = (self.first + entries.end as u64).min(self.last + 1);
        (first < end).then(|| Receipt { first, last: end - 1 })
    }
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

/// The entries were not written and never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal failed earlier and accepts nothing until the broker is restarted")]
pub struct Unavailable;

/// The disk has no room for what was asked, or soon would have none for what must always be possible: settling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the disk is full")]
pub struct NoRoom;

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
    /// Bytes its owner retains; see [`Space`](crate::Space).
    pub live_bytes: u64,
    /// Segments that can be read, the one being written included.
    pub segments: u64,
    /// Files prepared for later segments.
    pub spares: u64,
    /// Bytes that can be written before the disk must give more.
    pub room_bytes: u64,
    /// Findings since the log was opened, those of the opening included.
    pub findings: u64,
    /// Writes to the log, each with all that waited.
    pub batches: u64,
    /// How often the log was synced.
    pub syncs: u64,
}

/// A log of `E`. Cheap to clone; all clones are the same log.
pub struct Journal<E> {
    shared: Arc<Shared<E>>,
}

struct Shared<E> {
    front: Arc<Front<E>>,
    back: Back<E>,
}

enum Back<E> {
    Memory(MemoryWriter<E>),
    Disk(DiskLog<E>),
}

/// What stands behind the front of a log on disk.
pub(crate) struct DiskLog<E> {
    log: Arc<Log>,
    inbox_bytes_max: u64,
    measure: fn(&[E]) -> u64,
    hands: Hands,
}

/// Who writes.
enum Hands {
    Thread(Mutex<Option<JoinHandle<()>>>),
    Caller(Mutex<Box<dyn Step>>),
}

/// A writer that somebody else drives.
trait Step: Send {
    fn step_at(&mut self, now: Option<Duration>) -> Next;
}

impl<E: Entry, O: Owner<E>> Step for Writer<E, O> {
    fn step_at(&mut self, now: Option<Duration>) -> Next {
        let now = now.unwrap_or_else(|| {
            // Without a clock, being told again is as good as time passing: the disk is asked once more.
            self.limits.time_passed(self.now);
            self.now
        });
        loop {
            let next = self.step(now);
            if next != Next::Again {
                return next;
            }
        }
    }
}

impl<E: Entry + 'static> DiskLog<E> {
    pub(crate) fn on_thread(log: Arc<Log>, inbox_bytes_max: u64, thread: JoinHandle<()>) -> DiskLog<E> {
        let hands = Hands::Thread(Mutex::new(Some(thread)));
        DiskLog { log, inbox_bytes_max, measure, hands }
    }

    pub(crate) fn stepped<O: Owner<E> + 'static>(
        log: Arc<Log>,
        inbox_bytes_max: u64,
        writer: Writer<E, O>,
    ) -> DiskLog<E> {
        DiskLog { log, inbox_bytes_max, measure, hands: Hands::Caller(Mutex::new(Box::new(writer))) }
    }
}

/// How many bytes these entries are.
fn measure<E: Entry>(entries: &[E]) -> u64 {
    entries.iter().map(|entry| entry.encoded_len() as u64).sum()
}

impl<E> Journal<E> {
    /// A journal without a disk.
    pub fn memory(owner: impl Commit<E> + 'static) -> Journal<E> {
        Journal::simulated(owner, Simulation::default())
    }

    /// A journal without a disk that behaves as one with a slow or failing disk would.
    pub fn simulated(owner: impl Commit<E> + 'static, simulation: Simulation) -> Journal<E> {
        let back = Back::Memory(MemoryWriter::new(owner, simulation));
        Journal { shared: Arc::new(Shared { front: Arc::new(Front::new()), back }) }
    }

    pub(crate) fn on_disk(front: Arc<Front<E>>, log: DiskLog<E>) -> Journal<E> {
        Journal { shared: Arc::new(Shared { front, back: Back::Disk(log) }) }
    }

    /// Does what waits, if nobody else does: the pace is [`Pace::WhenTold`], or the log was opened with
    /// [`Journal::open_stepped`].
    pub fn write_waiting(&self) {
        self.shared.write(None);
    }

    /// Like [`Journal::write_waiting`], at the time `now` of any clock that does not go back: entries may be
    /// [`Durability::Within`](crate::Durability::Within) some time.
    pub fn write_waiting_at(&self, now: Duration) {
        self.shared.write(Some(now));
    }

    /// Appends `entries`, emptying the vector, as one unit: no other submission comes between them.
    /// `bell` rings when the receipt is complete.
    ///
    /// # Errors
    /// [`Unavailable`] after a failure, after [`Journal::close`], or if the entries have more bytes than any log takes at
    /// once (1 GiB); `entries` is left as it was.
    pub fn submit(&self, entries: &mut Vec<E>, bell: &Arc<Doorbell>) -> Result<Receipt, Unavailable> {
        let Shared { front, back } = &*self.shared;
        match back {
            Back::Memory(writer) => {
                let receipt = front.submit(entries, 0, bell)?;
                if writer.pace == Pace::AtOnce {
                    writer.lead(front);
                }
                Ok(receipt)
            }
            Back::Disk(disk) => {
                let bytes = (disk.measure)(entries);
                if bytes > crate::frame::PAYLOAD_BYTES_MAX {
                    return Err(Unavailable);
                }
                front.submit(entries, bytes, bell)
            }
        }
    }

    /// Asks for room for an entry with this many bytes of payload, which may be refused when the disk is full. The entry says the same number
    /// as [`Entry::reserved`]. Entries that must always be possible reserve nothing. In the rare case that the disk is found full between this and
    /// the writing, the entry goes to [`Commit::refuse`] and its receipt fails, though the journal goes on: so does that of the whole submission,
    /// and [`Receipt::part`] tells which entries it was.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing is reserved then.
    pub fn reserve(&self, bytes: u64) -> Result<(), NoRoom> {
        let _ = bytes;
        self.disk().map_or(Ok(()), |disk| disk.log.room.reserve())
    }

    /// Gives back what [`Journal::reserve`] took for an entry that is not submitted after all.
    pub fn unreserve(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Whether more waits to be written than should. Then whoever submits stops taking in work until `bell` rings.
    pub fn is_congested(&self, bell: &Arc<Doorbell>) -> bool {
        self.disk().is_some_and(|disk| self.shared.front.is_congested(disk.inbox_bytes_max, bell))
    }

    /// A reader of entries that were committed.
    pub fn reader(&self) -> Reader {
        self.disk().map_or_else(Reader::of_nothing, |disk| Reader::new(Arc::clone(&disk.log)))
    }

    /// Whether the entries behind `receipt` are committed: `None` not yet, `Some(Ok)` yes, `Some(Err)` never.
    pub fn outcome(&self, receipt: Receipt) -> Option<Result<(), Unavailable>> {
        self.shared.front.outcome(receipt)
    }

    /// Whether entries are accepted.
    pub fn health(&self) -> Health {
        if self.shared.front.has_failed() {
            return Health::Poisoned;
        }
        match self.disk() {
            Some(disk) if disk.log.room.is_full() => Health::Full,
            _ => Health::Healthy,
        }
    }

    /// Rings `bell` at every change of [`Journal::health`], as long as the journal lives.
    pub fn watch(&self, bell: &Arc<Doorbell>) {
        if let Some(disk) = self.disk() {
            disk.log.watch(bell);
        }
    }

    /// What failed and where, once it has.
    pub fn failure(&self) -> Option<String> {
        self.disk()?.log.failure()
    }

    /// How the log stands, in numbers.
    pub fn figures(&self) -> Figures {
        self.disk().map_or_else(Figures::default, |disk| disk.log.figures())
    }

    /// Writes and syncs everything submitted, marks the log as closed in order and ends its threads. Nothing is accepted from now
    /// on. The drop of the last clone does the same.
    pub fn close(&self) {
        self.shared.close();
    }

    fn disk(&self) -> Option<&DiskLog<E>> {
        match &self.shared.back {
            Back::Memory(_) => None,
            Back::Disk(disk) => Some(disk),
        }
    }
}

impl<E> Shared<E> {
    fn write(&self, now: Option<Duration>) {
        match &self.back {
            Back::Memory(writer) => writer.lead(&self.front),
            Back::Disk(DiskLog { hands: Hands::Caller(writer), .. }) => {
                lock(writer).step_at(now);
            }
            Back::Disk(DiskLog { hands: Hands::Thread(_), .. }) => {}
        }
    }

    fn close(&self) {
        self.front.close();
        self.write(None);
        if let Back::Disk(DiskLog { hands: Hands::Thread(thread), .. }) = &self.back {
            let thread = lock(thread).take();
            // An owner that holds a clone of its own log may drop the last one on the writer's thread, which cannot wait for itself.
            if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id()) {
                // A panic outside a step would be our bug; the panic hook has reported it.
                let _ = thread.join();
            }
        }
    }
}

impl<E> Drop for Shared<E> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<E> Clone for Journal<E> {
    fn clone(&self) -> Journal<E> {
        Journal { shared: Arc::clone(&self.shared) }
    }
}

impl<E> fmt::Debug for Journal<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let committed = self.shared.front.committed();
        f.debug_struct("Journal").field("committed", &committed).field("health", &self.health()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    use crate::Space;

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
