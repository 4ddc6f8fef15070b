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
        self.write_carried()?;
        is_busy |= self.take_waiting();
        let was_emptying = self.emptying.is_some();
        let is_blocked = !self.write_all(Source::Fresh)?;
        is_busy |= self.emptying.is_some() != was_emptying;
        is_busy |= self.ask_for_spare();
        if is_busy {
            return Ok(Next::Again);
        }
        if !self.front.is_closed() {
            return Ok(Next::Sleep(self.idle_time(is_blocked)));
        }
        if is_blocked {
            // The end of the log does not wait for room.
            self.refuse_group(self.fresh.len());
            self.finish_batch()?;
            return Ok(Next::Again);
        }
        if self.front.is_empty() {
            self.appender.seal()?;
            return Ok(Next::End);
        }
        Ok(Next::Again)
    }

    /// On a full disk what was submitted must not take the room that dropping a segment needs, which gives back much more. It waits
    /// for that, which begins now if it can, and only as long as it goes on: see `stop_emptying`. The end of the log waits for nothing.
    fn waits_for_emptying(&mut self) -> bool {
        let is_tight = self.limits.is_refused && self.room_bytes() < self.appender.segment().len / 2;
        is_tight && !self.front.is_closed() && (self.emptying.is_some() || self.begin_to_empty())
    }

    /// On a full disk a write is so short that what is kept for dropping a segment is looked after in between.
    fn batch_bytes_max(&self) -> usize {
        let max = self.options.batch_bytes_max;
        if self.limits.is_refused { max.min(self.appender.segment().len as usize / 16) } else { max }
    }

    fn idle_time(&self, is_blocked: bool) -> Duration {
        let sync = self.sync_due.map_or(SLEEP_MAX, |due| due.saturating_sub(self.now));
        if is_blocked || self.limits.is_refused { sync.min(ROOM_RETRY) } else { sync }
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

    /// Writes what is carried on. What has no room is given back: nothing that was submitted waits for it.
    fn write_carried(&mut self) -> Result<(), Failure> {
        if !self.write_all(Source::Carried)? {
            for entry in self.carried.drain(..) {
                self.owner.refuse(entry);
            }
            self.stop_emptying();
        }
        Ok(())
    }

    /// Writes all entries of a source. False if the next of them must wait for room.
    fn write_all(&mut self, source: Source) -> Result<bool, Failure> {
        while let Some(group) = self.next_group(source) {
            if source == Source::Fresh && self.pending.is_empty() && self.waits_for_emptying() {
                // What was refused or not admitted is done with.
                self.finish_batch()?;
                return Ok(false);
            }
            let Group { count, is_alone, is_refusable, .. } = group;
            if !self.has_room(&group)? {
                if !is_refusable && !is_alone {
                    return Ok(false);
                }
                self.refuse_group(count);
                continue;
            }
            if is_alone {
                self.finish_batch()?;
            }
            self.collect_group(source, count);
            if is_alone || self.appender.collected() >= self.batch_bytes_max() {
                self.finish_batch()?;
            }
        }
        self.finish_batch()?;
        Ok(true)
    }

    /// Whether the group can be written here, or in a next segment: then it is begun.
    fn has_room(&mut self, group: &Group) -> Result<bool, Failure> {
        if group.is_refusable && !self.can_spare(group.bytes, Whom::LetIn) {
            return Ok(false);
        }
        if group.bytes <= self.appender.left() {
            return Ok(true);
        }
        self.finish_batch()?;
        self.turn(group.bytes)
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

/// What is carried on must be on disk before the segment it was in is dropped: write by write, so that the drop, which sees to it once
/// more, does not wait for all of it at once.
fn durability(entry: &impl Entry, source: Source) -> Durability {
    match source {
        Source::Fresh => entry.durability(),
        Source::Carried => Durability::Synced,
    }
}

#[cfg(test)]
mod tests;
