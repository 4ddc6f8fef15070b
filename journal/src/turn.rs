use std::io;
use std::sync::Arc;

use crate::append::{Appender, entry_len};
use crate::frame::{BLOCK, CHECKPOINT, SEAL_ROOM};
use crate::header::{Before, SegmentHeader};
use crate::jobs::{Done, Job};
use crate::recovery::Sealed;
use crate::retention::SPARES_MAX;
use crate::segment::{Failure, Segment, Spare, segment_name, spare_name};
use crate::writer::{ROOM_RETRY, Writer};
use crate::{Disk, Entry, Owner};

/// Where a segment stands in the log.
pub(crate) struct Place {
    pub(crate) base: u64,
    pub(crate) before: Before,
    pub(crate) salt_seed: Option<u64>,
}

/// Makes a segment of a spare: header and checkpoint are on disk before it gets its name, so that a file with a segment's name always has them.
pub(crate) fn begin<E: Entry>(
    disk: &dyn Disk,
    spare: Spare,
    place: &Place,
    checkpoint: &[E],
    buffer: Vec<u8>,
) -> Result<Appender, Failure> {
    let salt = salt(place)?;
    let header = SegmentHeader { base: place.base, salt, file_len: spare.len, before: place.before };
    let name = segment_name(place.base);
    let segment = Segment { name, file: spare.file, checks: header.checks(), len: spare.len };
    let mut appender = Appender::begin(Arc::new(segment), &header, buffer);
    for entry in checkpoint {
        appender.collect(entry, CHECKPOINT);
    }
    appender.write()?;
    appender.sync()?;
    let name = &appender.segment().name;
    disk.rename(&spare.name, name).map_err(Failure::new("rename a spare to", name))?;
    disk.sync_names().map_err(Failure::new("sync the name of", name))?;
    Ok(appender)
}

/// The shortest file for these entries.
pub(crate) fn least_len<E: Entry>(checkpoint: &[E], need: u64) -> u64 {
    let frames = checkpoint.iter().map(entry_len).sum::<u64>();
    (BLOCK + frames + need + SEAL_ROOM).next_multiple_of(BLOCK)
}

fn salt(place: &Place) -> Result<u64, Failure> {
    match place.salt_seed {
        Some(seed) => Ok(xxhash_rust::xxh3::xxh3_64_with_seed(&place.base.to_le_bytes(), seed)),
        None => getrandom::u64().map_err(|error| Failure {
            doing: "find a salt for",
            name: segment_name(place.base),
            source: std::io::Error::other(error),
        }),
    }
}

impl<E: Entry, O: Owner<E>> Writer<E, O> {
    /// Goes on in a new segment, in which `need` bytes of frames have room. Everything collected was committed before. False if
    /// there is no room on the disk.
    pub(crate) fn turn(&mut self, need: u64) -> Result<bool, Failure> {
        if !self.may_turn(need) {
            return Ok(false);
        }
        let mut checkpoint = Vec::new();
        self.owner.checkpoint(&mut checkpoint);
        let Some(spare) = self.take_spare(least_len(&checkpoint, need))? else { return Ok(false) };
        // The next segment says that all of this one was synced.
        if self.appender.is_unsynced() {
            self.sync()?;
        }
        let old = Arc::clone(self.appender.segment());
        let before = self.appender.as_before();
        let place = Place { base: old.next_base(), before, salt_seed: self.options.salt_seed };
        self.limits.turned(before.end, self.now);
        self.appender = begin(&*self.disk, spare, &place, &checkpoint, self.appender.take_buffer())?;
        self.limits.head = self.appender.offset();
        self.log.segments.insert(self.appender.segment());
        self.space.begin(place.base);
        self.sealed.push_back(Sealed { segment: old, before, is_read: true });
        self.show_figures();
        Ok(true)
    }

    /// False if the disk had no room a moment ago and nothing has changed since: it is not asked for each entry that waits.
    fn may_turn(&self, need: u64) -> bool {
        let has_changed = !self.limits.is_refused || self.now >= self.limits.retry_at || !self.jobs.is_idle();
        has_changed || self.spares.iter().any(|spare| spare.len >= BLOCK + need + SEAL_ROOM)
    }

    /// A spare of at least this length: one that is there, one that is being made, or one made now.
    fn take_spare(&mut self, least: u64) -> Result<Option<Spare>, Failure> {
        let mut has_tried = false;
        loop {
            if let Some(index) = self.spares.iter().position(|spare| spare.len >= least) {
                return Ok(Some(self.spares.swap_remove(index)));
            }
            if let Some(done) = self.jobs.wait() {
                self.take_done(done)?;
            } else if has_tried {
                return Ok(None);
            } else {
                has_tried = true;
                self.create_spare(self.wanted_len().max(least));
            }
        }
    }

    /// Has the next spare made, so that the next turn need not wait for it.
    pub(crate) fn ask_for_spare(&mut self) -> bool {
        // Once the disk has refused, it is asked until it gives: else nobody would notice that it has room again. What spares there are
        // may be too short for all that is to be kept.
        let is_refused = self.limits.is_refused;
        if self.limits.creating.is_some() || (self.spares.len() >= SPARES_MAX && !is_refused) {
            return false;
        }
        if is_refused && self.now < self.limits.retry_at {
            return false;
        }
        // A segment that is dropped soon makes the better spare: it costs no zeros.
        let is_urgent = self.spares.is_empty() && self.appender.left() < self.appender.segment().len / 2;
        if self.is_crowded_with(self.wanted_len()) && !is_urgent && !is_refused {
            return false;
        }
        self.create_spare(self.wanted_len());
        true
    }

    fn create_spare(&mut self, len: u64) {
        if self.options.disk_bytes_max.is_some_and(|max| self.limits.disk_bytes + len > max) {
            self.is_out_of_room();
            return;
        }
        self.limits.creating = Some(len);
        self.limits.spare_number += 1;
        self.jobs.start(Job::Create { name: spare_name(self.limits.spare_number), len });
    }

    fn is_out_of_room(&mut self) {
        self.limits.is_refused = true;
        self.limits.retry_at = self.now + ROOM_RETRY;
        self.show_figures();
    }

    pub(crate) fn take_done_jobs(&mut self) -> Result<bool, Failure> {
        let mut any = false;
        while let Some(done) = self.jobs.poll() {
            self.take_done(done)?;
            any = true;
        }
        Ok(any)
    }

    fn take_done(&mut self, done: Done) -> Result<(), Failure> {
        match done {
            Done::Created(created) => {
                self.limits.creating = None;
                match created? {
                    Some(spare) => {
                        self.limits.disk_bytes += spare.len;
                        self.spares.push(spare);
                        self.limits.is_refused = false;
                        self.show_figures();
                    }
                    None => self.is_out_of_room(),
                }
            }
            Done::Loaded(loaded) => self.carry_loaded(loaded?),
            Done::Retired(spare) => {
                self.is_retired(spare?);
                self.limits.retry_at = self.now;
                self.show_figures();
            }
            Done::Panicked => {
                let source = io::Error::other("a thread panicked");
                return Err(Failure { doing: "work on", name: "the files of the log".to_owned(), source });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{SEGMENT, note, open, recovered};
    use crate::{CallKind, Crash, MemoryDisk, Stop, Unsynced};

    /// Writes into two segments, for which alone there is room.
    fn turn_once(disk: &MemoryDisk) {
        disk.set_capacity(Some(2 * SEGMENT));
        let log = open(disk);
        for number in 0..5 {
            log.write([note(number.to_string().repeat(3000))]);
        }
    }

    #[test]
    fn a_name_that_a_killed_process_has_given_is_on_disk_before_it_is_relied_on() {
        let whole = MemoryDisk::new();
        turn_once(&whole);
        let named = whole.calls().iter().rposition(|call| call.kind == CallKind::Rename).expect("it turned");
        let stopped = MemoryDisk::new();
        stopped.stop_at(named as u64 + 1, Stop::Before);
        turn_once(&stopped);
        let killed = stopped.crash(Crash::Kill);
        killed.set_capacity(Some(killed.used()));
        let log = open(&killed);
        assert_eq!(log.report.segments, 2);
        assert_eq!(log.write([note("relied on")]), Some(Ok(())));
        assert_eq!(log.journal.figures().segments, 2, "it goes on there, for want of room");
        assert!(recovered(&killed.crash(Crash::PowerLoss(Unsynced::Lost))).contains(&"relied on".to_owned()));
    }
}
