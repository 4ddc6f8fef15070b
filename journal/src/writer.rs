use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::append::{Appender, Collected, entry_len, member_flags};
use crate::frame::CARRIED;
use crate::front::{Front, Waiting};
use crate::jobs::Jobs;
use crate::log::Log;
use crate::recovery::Sealed;
use crate::retention::{Emptying, Limits, Whom};
use crate::segment::{Failure, Spare};
use crate::{Disk, Durability, Entry, JournalOptions, Owner, Position, Space};

/// How long the writer of a full disk waits before it asks for room again.
pub(crate) const ROOM_RETRY: Duration = Duration::from_secs(1);

/// For how many entries it keeps memory.
const ENTRIES_KEPT: usize = 16 << 10;

/// How long it sleeps when nothing is due.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// Writes the log. All that happens to it happens in [`Writer::step`].
pub(crate) struct Writer<E, O> {
    pub(crate) front: Arc<Front<E>>,
    pub(crate) log: Arc<Log>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: JournalOptions,
    pub(crate) owner: O,
    pub(crate) space: Space,
    pub(crate) appender: Appender,
    /// Segments that are not written any more, oldest first.
    pub(crate) sealed: VecDeque<Sealed>,
    pub(crate) spares: Vec<Spare>,
    pub(crate) jobs: Jobs,
    pub(crate) emptying: Option<Emptying>,
    pub(crate) limits: Limits,
    /// Entries that were submitted.
    fresh: VecDeque<E>,
    /// Entries that are written anew, in front of all others.
    pub(crate) carried: VecDeque<E>,
    /// Collected, in the order of their positions; committed when they are durable.
    pending: VecDeque<Pending<E>>,
    /// Who is to be told, and when.
    waiting: Waiting<E>,
    /// The last submission taken from `fresh`, and the last that is done with.
    taken: u64,
    done: u64,
    /// The strictest durability of what is collected.
    durability: Durability,
    /// When what was written must be on disk.
    sync_due: Option<Duration>,
    pub(crate) now: Duration,
}

struct Pending<E> {
    position: Position,
    entry: E,
    /// `None`: written anew, nobody waits for it.
    submission: Option<u64>,
}

/// Where entries come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Fresh,
    Carried,
}

/// Entries that a crash keeps all, or none of.
struct Group {
    count: usize,
    bytes: u64,
    is_alone: bool,
    is_refusable: bool,
}

/// What the writer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// More waits.
    Again,
    /// Nothing waits. Somebody wakes it, or this much time passes.
    Sleep(Duration),
    /// The log is closed, or has failed.
    End,
}

/// Everything a writer begins with.
pub(crate) struct Beginning<E, O> {
    pub(crate) front: Arc<Front<E>>,
    pub(crate) log: Arc<Log>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: JournalOptions,
    pub(crate) owner: O,
    pub(crate) space: Space,
    pub(crate) appender: Appender,
    pub(crate) sealed: VecDeque<Sealed>,
    pub(crate) spares: Vec<Spare>,
    pub(crate) jobs: Jobs,
    pub(crate) limits: Limits,
}

impl<E: Entry, O: Owner<E>> Writer<E, O> {
    pub(crate) fn new(beginning: Beginning<E, O>) -> Writer<E, O> {
        let Beginning { front, log, disk, options, owner, space, appender, sealed, spares, jobs, limits } = beginning;
        let mut writer = Writer {
            front,
            log,
            disk,
            options,
            owner,
            space,
            appender,
            sealed,
            spares,
            jobs,
            emptying: None,
            limits,
            fresh: VecDeque::new(),
            carried: VecDeque::new(),
            pending: VecDeque::new(),
            waiting: Waiting { entries: Vec::new(), bells: Vec::new(), last: 0 },
            taken: 0,
            done: 0,
            durability: Durability::Written,
            sync_due: None,
            now: Duration::ZERO,
        };
        writer.show_figures();
        writer
    }

    /// Does what there is to do at the time `now`: one round.
    pub(crate) fn step(&mut self, now: Duration) -> Next {
        if self.log.has_failed() {
            return Next::End;
        }
        self.now = now;
        let what = match catch_unwind(AssertUnwindSafe(|| self.round())) {
            Ok(Ok(next)) => return next,
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => "the owner of the log panicked".to_owned(),
        };
        self.fail(what);
        Next::End
    }

    fn round(&mut self) -> Result<Next, Failure> {
        if self.sync_due.is_some_and(|due| due <= self.now) {
            self.sync()?;
        }
        let mut is_busy = self.take_done_jobs()?;
        is_busy |= self.keep_house()?;
        if !self.write_all(Source::Carried)? {
            return self.wait_for_room();
        }
        is_busy |= self.take_waiting();
        if !self.write_all(Source::Fresh)? {
            return self.wait_for_room();
        }
        is_busy |= self.ask_for_spare();
        if is_busy {
            return Ok(Next::Again);
        }
        if self.front.is_closed() && self.front.is_empty() {
            self.appender.seal()?;
            return Ok(Next::End);
        }
        Ok(Next::Sleep(self.idle_time()))
    }

    /// The next entry may not be refused and has no room: all wait, unless the log is being closed.
    fn wait_for_room(&mut self) -> Result<Next, Failure> {
        if !self.front.is_closed() {
            return Ok(Next::Sleep(self.idle_time().min(ROOM_RETRY)));
        }
        loop {
            self.refuse_group(self.fresh.len());
            self.finish_batch()?;
            if !self.take_waiting() {
                break;
            }
        }
        self.appender.seal()?;
        Ok(Next::End)
    }

    fn idle_time(&self) -> Duration {
        let sync = self.sync_due.map_or(SLEEP_MAX, |due| due.saturating_sub(self.now));
        if self.limits.is_refused { sync.min(ROOM_RETRY) } else { sync }
    }

    /// Moves what was submitted behind what is left of earlier rounds.
    fn take_waiting(&mut self) -> bool {
        if !self.fresh.is_empty() || !self.front.take(&mut self.waiting) {
            return false;
        }
        // No entry is moved, and both vectors keep their memory, unless a flood had made them large.
        let emptied = std::mem::replace(&mut self.fresh, VecDeque::from(std::mem::take(&mut self.waiting.entries)));
        self.waiting.entries = Vec::from(emptied);
        self.waiting.entries.shrink_to(ENTRIES_KEPT);
        self.pending.shrink_to(ENTRIES_KEPT);
        true
    }

    /// Writes all entries of a source. False if the disk is full and they must wait.
    pub(crate) fn write_all(&mut self, source: Source) -> Result<bool, Failure> {
        while let Some(Group { count, bytes, is_alone, is_refusable }) = self.next_group(source) {
            if is_refusable && !self.can_spare(bytes, Whom::LetIn) {
                self.refuse_group(count);
                continue;
            }
            if is_alone {
                self.finish_batch()?;
            }
            if bytes > self.appender.left() {
                self.finish_batch()?;
                if !self.turn(bytes)? {
                    if is_refusable {
                        self.refuse_group(count);
                        continue;
                    }
                    return Ok(false);
                }
            }
            self.collect_group(source, count);
            if is_alone || self.appender.collected() >= self.options.batch_bytes_max {
                self.finish_batch()?;
            }
        }
        self.finish_batch()?;
        Ok(true)
    }

    /// The entries that come next and are written together.
    fn next_group(&self, source: Source) -> Option<Group> {
        let queue = self.queue(source);
        let first = queue.front()?;
        let is_fresh = source == Source::Fresh;
        let mut group = Group {
            count: 1,
            bytes: entry_len(first),
            is_alone: is_fresh && first.stands_alone(),
            is_refusable: is_fresh && first.reserved() > 0,
        };
        let mut last = first;
        while last.continues() {
            let Some(next) = queue.get(group.count) else { break };
            group.count += 1;
            group.bytes += entry_len(next);
            group.is_refusable |= is_fresh && next.reserved() > 0;
            last = next;
        }
        Some(group)
    }

    /// The disk was found full after these entries were let in.
    fn refuse_group(&mut self, count: usize) {
        for entry in self.fresh.drain(..count) {
            self.taken += 1;
            self.front.refuse(self.taken);
            self.owner.refuse(entry);
        }
    }

    fn queue(&self, source: Source) -> &VecDeque<E> {
        match source {
            Source::Fresh => &self.fresh,
            Source::Carried => &self.carried,
        }
    }

    fn collect_group(&mut self, source: Source, count: usize) {
        let mut previous: Option<Collected> = None;
        for _ in 0..count {
            let next = match source {
                Source::Fresh => self.fresh.pop_front(),
                Source::Carried => self.carried.pop_front(),
            };
            let Some(mut entry) = next else { return };
            let position = self.appender.next_position();
            if source == Source::Fresh {
                self.taken += 1;
                if !self.owner.admit(position, &mut entry) {
                    continue;
                }
            }
            let flags = if source == Source::Carried { CARRIED } else { 0 };
            let collected = self.appender.collect(&entry, member_flags(flags, previous.is_none()));
            if let Some(previous) = previous.replace(collected) {
                self.appender.link(previous);
            }
            self.durability = self.durability.strictest(durability(&entry, source));
            let submission = (source == Source::Fresh).then_some(self.taken);
            self.pending.push_back(Pending { position, entry, submission });
        }
    }

    /// Writes what was collected, makes it as durable as it asks for, commits it, and tells everybody once.
    pub(crate) fn finish_batch(&mut self) -> Result<(), Failure> {
        if !self.pending.is_empty() {
            let bytes = self.appender.collected() as u64;
            self.appender.write()?;
            self.log.batches.fetch_add(1, Ordering::Relaxed);
            match std::mem::replace(&mut self.durability, Durability::Written) {
                Durability::Synced => self.sync()?,
                Durability::Within(ms) => {
                    let due = self.now + Duration::from_millis(ms.into());
                    self.sync_due = Some(self.sync_due.map_or(due, |earlier| earlier.min(due)));
                }
                Durability::Written => {}
            }
            let is_carried = self.pending.front().is_some_and(|first| first.submission.is_none());
            self.limits.earn(if is_carried { -(bytes as i64) } else { bytes as i64 });
            self.limits.earn(self.space.take_released() as i64);
            self.commit();
            if is_carried {
                // What is released where it was before is still of use: it has earned nothing.
                self.space.take_released();
            }
        }
        self.done = self.taken;
        self.complete();
        Ok(())
    }

    fn commit(&mut self) {
        while let Some(Pending { position, entry, submission }) = self.pending.pop_front() {
            self.owner.commit(position, entry, &mut self.space);
            // Kept up to date entry by entry: the next commit may panic.
            self.done = submission.unwrap_or(self.done);
        }
    }

    /// Publishes how far the log is committed, and rings whoever waits for that.
    fn complete(&mut self) {
        if self.front.committed() < self.done {
            self.front.commit(self.done);
            self.show_figures();
        }
        let done = self.done;
        let bells = &mut self.waiting.bells;
        let complete = bells.iter().take_while(|(last, _)| *last <= done).count();
        bells.drain(..complete).for_each(|(_, bell)| bell.ring());
    }

    pub(crate) fn sync(&mut self) -> Result<(), Failure> {
        self.appender.sync()?;
        self.sync_due = None;
        self.log.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Nothing is written from now on. What was not committed never will be, and everybody hears of it.
    fn fail(&mut self, what: String) {
        self.log.fail(what);
        self.front.commit(self.done);
        self.front.fail(self.done + 1);
        let pending =
            self.pending.drain(..).filter(|pending| pending.submission.is_some()).map(|pending| pending.entry);
        let fresh = self.fresh.drain(..);
        for entry in pending.chain(fresh) {
            refuse(&mut self.owner, entry);
        }
        self.waiting.bells.drain(..).for_each(|(_, bell)| bell.ring());
        while self.front.take(&mut self.waiting) {
            self.waiting.entries.drain(..).for_each(|entry| refuse(&mut self.owner, entry));
            self.waiting.bells.drain(..).for_each(|(_, bell)| bell.ring());
        }
        self.carried.clear();
        self.log.ring_watchers();
    }
}

fn refuse<E>(owner: &mut impl Owner<E>, entry: E) {
    // A panic in here has been reported by the panic hook; the others must still hear.
    let _ = catch_unwind(AssertUnwindSafe(|| owner.refuse(entry)));
}

/// What is carried on must be on disk before the segment it was in is dropped.
fn durability(entry: &impl Entry, source: Source) -> Durability {
    match source {
        Source::Fresh => entry.durability(),
        Source::Carried => Durability::Synced,
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Note, SEGMENT, note, open, recovered};
    use crate::{CallKind, Crash, Durability, Health, MemoryDisk, Times, Unavailable, Unsynced};
    use std::io::ErrorKind;
    use std::time::Duration;

    fn calls(disk: &MemoryDisk, kind: CallKind) -> usize {
        disk.calls().iter().filter(|call| call.kind == kind).count()
    }

    fn written(text: &str) -> Note {
        Note { durability: Durability::Written, ..note(text) }
    }

    const LOST: Crash = Crash::PowerLoss(Unsynced::Lost);

    #[test]
    fn all_that_waits_is_one_write_and_one_sync() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        log.write([note("first")]);
        let before = (calls(&disk, CallKind::Write), calls(&disk, CallKind::Sync));
        let one = log.submit([note("one"), note("two")]);
        let two = log.submit([note("three")]);
        assert_eq!(log.journal.outcome(two), None);
        log.journal.write_waiting();
        assert_eq!([one, two].map(|receipt| log.journal.outcome(receipt)), [Some(Ok(())); 2]);
        let after = (calls(&disk, CallKind::Write), calls(&disk, CallKind::Sync));
        assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1));
        assert_eq!(recovered(&disk.crash(LOST)), ["first", "one", "two", "three"]);
    }

    #[test]
    fn what_is_only_written_survives_the_process_and_not_the_machine() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        log.write([note("synced")]);
        let receipt = log.write([written("written")]);
        assert_eq!(receipt, Some(Ok(())));
        assert_eq!(recovered(&disk.crash(Crash::Kill)), ["synced", "written"]);
        assert_eq!(recovered(&disk.crash(LOST)), ["synced"]);
        log.journal.close();
        assert_eq!(recovered(&disk.crash(LOST)), ["synced", "written"], "an orderly end syncs");
    }

    #[test]
    fn the_earliest_deadline_syncs_all_that_was_written() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        let at = |ms| log.journal.write_waiting_at(Duration::from_millis(ms));
        let within = |text: &str, ms| Note { durability: Durability::Within(ms), ..note(text) };
        at(1000);
        let _ = log.submit([within("a", 500), written("b")]);
        at(1000);
        let _ = log.submit([within("c", 100)]);
        at(1200);
        let _ = log.submit([within("d", 5000)]);
        at(1299);
        assert_eq!(recovered(&disk.crash(LOST)), [""; 0]);
        at(1300);
        assert_eq!(recovered(&disk.crash(LOST)), ["a", "b", "c", "d"]);
    }

    #[test]
    fn an_entry_that_stands_alone_is_committed_between_all_others() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        log.write([note("1"), note("2"), Note { alone: true, ..note("3") }, note("4"), note("5")]);
        assert_eq!(log.keeper.look().admitted_after, [0, 0, 2, 3, 3]);
    }

    #[test]
    fn what_is_not_admitted_is_not_written_and_completes_with_the_others() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        let member = |text: &str| Note { continues: true, ..note(text) };
        let group = [member("no 1"), member("2"), member("no 3"), member("4"), note("no 5")];
        let receipt = log.write(group);
        assert_eq!(receipt, Some(Ok(())));
        let nothing = log.write([note("no"), note("no")]);
        assert_eq!(nothing, Some(Ok(())));
        assert_eq!(log.texts(), ["2", "4"]);
        assert_eq!(recovered(&disk.crash(LOST)), ["2", "4"], "what is left of the group is a group");
    }

    #[test]
    fn a_group_is_never_split_and_may_be_longer_than_a_segment() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        let long = "x".repeat(3000);
        let group: Vec<Note> = (0..20).map(|at| Note { continues: at < 19, ..note(format!("{at}{long}")) }).collect();
        log.write([note("before")]);
        let receipt = log.write(group);
        assert_eq!(receipt, Some(Ok(())));
        assert_eq!(recovered(&disk.crash(LOST)).len(), 21);
        assert!(disk.files().iter().any(|(_, bytes)| bytes.len() as u64 > 3 * SEGMENT), "one of its own length");
    }

    #[test]
    fn after_an_error_nothing_is_accepted_and_everybody_hears() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        log.write([note("good")]);
        let receipt = log.submit([note("bad"), note("no")]);
        disk.fail_at(disk.calls().len() as u64 + 1, ErrorKind::Other, Times::Once);
        log.journal.write_waiting();
        assert_eq!(log.journal.health(), Health::Poisoned);
        assert!(log.journal.failure().unwrap().starts_with("sync 0000000000001000.log: "));
        assert_eq!(log.journal.outcome(receipt), Some(Err(Unavailable)));
        assert_eq!(log.keeper.look().refused, ["bad"]);
        assert_eq!(log.journal.submit(&mut vec![note("late")], &log.bell), Err(Unavailable));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(log.bell.poll_rung(&mut context).is_ready());
    }
}
