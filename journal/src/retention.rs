use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::frame::BLOCK;
use crate::frames::Frame;
use crate::jobs::Job;
use crate::load::Loaded;
use crate::recovery::{Sealed, aside_name};
use crate::report::FindingKind;
use crate::segment::{Failure, Spare, spare_name};
use crate::writer::{ROOM_RETRY, Writer};
use crate::{Entry, Owner, Position};

/// How many prepared files there are, as far as the bound on the log's bytes allows. What is left of a segment and one of these is what a
/// full disk keeps for settles and moves: enough to write every message of a segment anew, and then to drop it.
pub(crate) const SPARES_MAX: usize = 2;

/// How many bytes the log may have on disk, and how much it may write to keep to it.
pub(crate) struct Limits {
    /// Bytes of all files of the log that can be used.
    pub(crate) disk_bytes: u64,
    /// Bytes of files that are kept and cannot be read.
    pub(crate) lost_bytes: u64,
    /// The length of the spare that is being made.
    pub(crate) creating: Option<u64>,
    /// The number of the last spare that got a name.
    pub(crate) spare_number: u64,
    /// The disk gave no spare the last time it was asked.
    pub(crate) is_refused: bool,
    /// Where the entries of the segment being written begin, behind its header and checkpoint.
    pub(crate) head: u64,
    /// When it is asked again.
    pub(crate) retry_at: Duration,
    /// When a segment may be emptied again, after what was damaged in it could not be kept aside.
    empty_at: Duration,
    /// How many bytes may be written anew: as many as were written for the first time or are of no use any more. So the log never
    /// turns round and round over entries that all live.
    budget: i64,
    /// Bytes a second in the last segment.
    rate: u64,
    turned_at: Duration,
}

/// The oldest segment, while what lives in it is written anew.
pub(crate) enum Emptying {
    /// A part of it is to be read: that behind this frame.
    Part(Option<Frame>),
    /// That is being read.
    Loading,
    /// The next of its records to carry on.
    Records { loaded: Loaded, next: usize },
    /// What needs no reading back.
    Rest,
    /// Its file is being renamed or removed.
    Retiring { len: u64 },
}

const EMPTY_RETRY: Duration = Duration::from_secs(10);

/// Whose entries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// Who asks for room.
    Waiting,
    /// Who was given it.
    LetIn,
}

impl Limits {
    pub(crate) fn new(disk_bytes: u64, lost_bytes: u64, spare_number: u64) -> Limits {
        Limits {
            disk_bytes,
            lost_bytes,
            creating: None,
            spare_number,
            is_refused: false,
            head: BLOCK,
            retry_at: Duration::ZERO,
            empty_at: Duration::ZERO,
            // What a crash left may all be written anew once.
            budget: disk_bytes as i64,
            rate: 0,
            turned_at: Duration::ZERO,
        }
    }

    /// So many bytes were written for the first time, or of no use any more; or, if negative, written anew.
    pub(crate) fn earn(&mut self, bytes: i64) {
        self.budget = self.budget.saturating_add(bytes).min(2 * self.disk_bytes as i64);
    }

    /// What waits to be tried again is tried now.
    pub(crate) fn time_passed(&mut self, now: Duration) {
        self.retry_at = self.retry_at.min(now);
        self.empty_at = self.empty_at.min(now);
    }

    /// A segment with so many bytes is full.
    pub(crate) fn turned(&mut self, bytes: u64, now: Duration) {
        let ms = now.saturating_sub(self.turned_at).as_millis() as u64;
        self.rate = bytes.saturating_mul(1000).checked_div(ms).unwrap_or(0);
        self.turned_at = now;
    }
}

impl<E: Entry, O: Owner<E>> Writer<E, O> {
    /// How long the next segment shall be: half of what lives, which is about a quarter of the log, so that dropping one gives back a
    /// good part of it; or what is written in a second, so that turns stay rare. Not so long for the latter alone that a log in which little lives
    /// needs more than two of the largest.
    pub(crate) fn wanted_len(&self) -> u64 {
        let whole_blocks = |bytes: u64| bytes.max(2 * BLOCK).next_multiple_of(BLOCK);
        let min = whole_blocks(self.options.segment_bytes_min);
        let max = self.len_max();
        let by_life = (self.space.live() / 2).min(max).next_power_of_two();
        let by_rate = self.limits.rate.min(max / 4).next_power_of_two();
        whole_blocks(by_life.max(by_rate).clamp(min.min(max), max))
    }

    fn len_max(&self) -> u64 {
        let max = self.options.segment_bytes_max.max(self.options.segment_bytes_min);
        // A few of them must fit in whatever the log may use.
        let share = self.options.disk_bytes_max.map_or(max, |all| (all / 8).max(self.options.segment_bytes_min));
        max.min(share).max(2 * BLOCK).next_multiple_of(BLOCK)
    }

    /// Whether the log has more bytes than it should, or would have with the spare it needs.
    fn is_crowded(&self) -> bool {
        let needs_spare = self.spares.is_empty() && self.limits.creating.is_none();
        self.is_crowded_with(if needs_spare { self.wanted_len() } else { 0 })
    }

    /// Whether it would have more with so many: more than twice what lives, and two segments.
    pub(crate) fn is_crowded_with(&self, bytes: u64) -> bool {
        let bytes = bytes + self.limits.creating.unwrap_or(0);
        self.limits.disk_bytes + bytes > 2 * self.space.live() + 2 * self.len_max()
    }

    /// Empties the oldest segment if that is due: a step of it. What it writes anew goes in front of all that waits. True if there is
    /// more to do at once.
    pub(crate) fn keep_house(&mut self) -> Result<bool, Failure> {
        let released = self.space.take_released();
        self.limits.earn(released as i64);
        match self.emptying.take() {
            None => Ok(self.begin_to_empty() || self.turn_early()?),
            Some(Emptying::Part(mark)) => {
                self.load_part(mark);
                Ok(true)
            }
            Some(Emptying::Records { loaded, next }) => {
                self.carry(loaded, next);
                Ok(true)
            }
            Some(Emptying::Rest) => self.carry_rest(),
            waiting => {
                self.emptying = waiting;
                Ok(false)
            }
        }
    }

    /// Begins with the oldest segment if that is due. All that was written must be committed.
    pub(crate) fn begin_to_empty(&mut self) -> bool {
        let Some(Sealed { segment, before, is_read: true }) = self.sealed.front() else { return false };
        let live = self.space.live_in(segment.base());
        let has_room = !self.limits.is_refused || self.has_room_to_empty(live, before.end);
        let is_due = has_room && self.is_crowded() || self.log.room.is_full() && self.is_worth_it(live, before.end);
        if live as i64 > self.limits.budget || !is_due || self.now < self.limits.empty_at {
            return false;
        }
        self.emptying = Some(if live == 0 { Emptying::Rest } else { Emptying::Part(None) });
        true
    }

    fn load_part(&mut self, mark: Option<Frame>) {
        let Some(Sealed { segment, before, .. }) = self.sealed.front() else { return };
        // A write is not much longer than a batch: one is nearly always whole in twice as much.
        let part_bytes = 2 * self.options.carry_bytes_per_step as u64;
        self.emptying = Some(Emptying::Loading);
        self.jobs.start(Job::Load { segment: Arc::clone(segment), before: *before, mark, part_bytes });
    }

    /// Ends the segment being written, if the disk is full and a good part of it is dead: only then can it be emptied, and perhaps
    /// nobody will ever fill it.
    fn turn_early(&mut self) -> Result<bool, Failure> {
        let segment = self.appender.segment();
        let (base, len) = (segment.base(), segment.len);
        let live = self.space.live_in(base);
        let dead = self.appender.offset().saturating_sub(self.limits.head + live);
        let is_due = self.log.room.is_full()
            && dead >= len / 8
            && live as i64 <= self.limits.budget
            && self.spares.iter().any(|spare| spare.len >= 2 * BLOCK + live + live / 8);
        Ok(is_due && self.turn(0)?)
    }

    /// Whether a full disk gains by emptying the oldest segment, of which so many bytes live.
    fn is_worth_it(&self, live: u64, end: u64) -> bool {
        let dead = self.sealed.iter().map(|sealed| sealed.before.end).sum::<u64>().saturating_sub(self.space.live());
        let gains = live <= end / 2 || dead >= 2 * end;
        gains && self.has_room_to_empty(live, end)
    }

    /// Beside what lives the ids of small messages are written anew: a sixth of the segment.
    fn has_room_to_empty(&self, live: u64, end: u64) -> bool {
        live == 0 || live + end / 4 <= self.room_bytes()
    }

    /// What was to be written anew has no room: another time.
    pub(crate) fn stop_emptying(&mut self) {
        self.emptying = None;
        self.limits.empty_at = self.now + ROOM_RETRY;
    }

    /// How much can be written before the disk must give more.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.appender.left() + self.spares.iter().map(|spare| spare.len).sum::<u64>()
    }

    /// Whether enough is left for what may not be refused, if so many bytes are written of what may. Always, while the disk gives
    /// spares. Otherwise as much is kept as it takes to write every message of a segment anew (they grow a little by that), and then to drop
    /// the segment. What waits at the door is refused a little before what was let in already.
    pub(crate) fn can_spare(&self, bytes: u64, to: Whom) -> bool {
        let len = self.appender.segment().len;
        let kept = match to {
            Whom::Waiting => len + len / 2,
            Whom::LetIn => len + len * 3 / 8,
        };
        !self.limits.is_refused || self.room_bytes() >= bytes + kept
    }

    /// A part of the oldest segment was read.
    pub(crate) fn carry_loaded(&mut self, loaded: Loaded) {
        self.emptying = None;
        let Some(Sealed { segment, is_read, .. }) = self.sealed.front_mut() else { return };
        if loaded.failed.is_some() {
            *is_read = false;
            return;
        }
        for find in loaded.judged.finds.iter().filter(|find| find.kind == FindingKind::Damaged) {
            let bytes = loaded.stretch(find.offset, find.len);
            match self.disk.keep_aside(&aside_name(segment.base(), find.offset), bytes) {
                Ok(true) => {
                    self.log.findings.fetch_add(1, Ordering::Relaxed);
                }
                // A finding of the opening.
                Ok(false) => {}
                // What was damaged is not thrown away before it is kept elsewhere.
                Err(_) => {
                    self.limits.empty_at = self.now + EMPTY_RETRY;
                    return;
                }
            }
        }
        self.emptying = Some(Emptying::Records { loaded, next: 0 });
    }

    fn carry(&mut self, loaded: Loaded, mut next: usize) {
        let Some(base) = self.sealed.front().map(|sealed| sealed.segment.base()) else { return };
        let mut out = Vec::new();
        let mut read = 0;
        while read < self.options.carry_bytes_per_step && self.space.live_in(base) > 0 {
            let Some(record) = loaded.judged.records.get(next) else { break };
            self.owner.carry(Position(base + record.offset), loaded.payload(record), &mut out);
            read += record.len as usize + 1;
            next += 1;
        }
        self.carried.extend(out);
        self.emptying = Some(match loaded.more {
            _ if self.space.live_in(base) == 0 => Emptying::Rest,
            _ if next < loaded.judged.records.len() => Emptying::Records { loaded, next },
            Some(mark) => Emptying::Part(Some(mark)),
            None => Emptying::Rest,
        });
    }

    fn carry_rest(&mut self) -> Result<bool, Failure> {
        let Some(Sealed { segment, .. }) = self.sealed.front() else { return Ok(false) };
        let range = Position(segment.base())..Position(segment.next_base());
        let mut out = Vec::new();
        self.owner.carry_rest(range, &mut out);
        if out.is_empty() {
            self.retire()?;
        } else {
            self.emptying = Some(Emptying::Rest);
            self.carried.extend(out);
        }
        Ok(true)
    }

    /// Drops the oldest segment. All that was written anew from it is committed.
    fn retire(&mut self) -> Result<(), Failure> {
        // What was settled or moved may be written only; the message it was done to must not go from the disk before that is on it.
        if self.appender.is_unsynced() {
            self.sync()?;
        }
        let Some(Sealed { segment, .. }) = self.sealed.pop_front() else { return Ok(()) };
        self.log.segments.remove(segment.base());
        self.space.end(segment.base());
        let len = segment.len;
        let is_fit = len == self.wanted_len() || self.limits.is_refused;
        let coming = usize::from(self.limits.creating.is_some());
        let is_wanted = match self.spares.len() + coming {
            0 => true,
            spares if spares < SPARES_MAX => !self.is_crowded_with(0),
            _ => false,
        };
        let spare = (is_fit && is_wanted).then(|| {
            self.limits.spare_number += 1;
            spare_name(self.limits.spare_number)
        });
        self.emptying = Some(Emptying::Retiring { len });
        self.jobs.start(Job::Retire { segment, spare });
        Ok(())
    }

    pub(crate) fn is_retired(&mut self, spare: Option<Spare>) {
        if let Some(Emptying::Retiring { len }) = self.emptying.take()
            && spare.is_none()
        {
            self.limits.disk_bytes -= len;
        }
        self.spares.extend(spare);
    }

    /// Shows how the log stands to everybody.
    pub(crate) fn show_figures(&mut self) {
        let log = &self.log;
        log.disk_bytes.store(self.limits.disk_bytes + self.limits.lost_bytes, Ordering::Relaxed);
        log.live_bytes.store(self.space.live(), Ordering::Relaxed);
        log.spares.store(self.spares.len() as u64, Ordering::Relaxed);
        log.room_bytes.store(self.room_bytes(), Ordering::Relaxed);
        if log.room.set_full(!self.can_spare(0, Whom::Waiting)) {
            log.ring_watchers();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Keeper, Note, Opened, SEGMENT, note, open, open_as, open_with, options, recovered};
    use crate::{Crash, Health, JournalOptions, MemoryDisk, ReadError, Times, Unavailable};
    use std::collections::BTreeSet;
    use std::time::Duration;

    #[test]
    fn one_entry_that_stays_is_carried_along_and_the_rest_is_dropped() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        let filler = |at: usize| note(format!("{at}").repeat(500));
        log.write([note("stays")]);
        let first = log.at("stays");
        for round in 0..200 {
            log.write((0..4).map(|at| filler(round * 4 + at)));
            // Everything goes but what is told again.
            log.write([note("let go"), note("stays")]);
        }
        let figures = log.journal.figures();
        assert!(figures.disk_bytes <= 2 * figures.live_bytes + 2 * SEGMENT, "{figures:?}");
        assert_eq!(log.journal.reader().read(first), Err(ReadError::Gone(first)));
        assert!(recovered(&disk.crash(Crash::Kill)).contains(&"stays".to_owned()));
    }

    #[test]
    fn a_segment_read_in_parts_of_any_length_loses_nothing() {
        for part in [1, 700, 4096, 5000, 9000, 1 << 20] {
            let disk = MemoryDisk::new();
            let options = JournalOptions { carry_bytes_per_step: part, ..options() };
            let log = open_as(&disk, options, Keeper::default());
            // Every third lives for ever: in groups, in writes of one and of many, long and short, vital and not.
            for round in 0..60 {
                let lives = |at: usize| note(format!("{round}-{at} lives ").repeat(1 + (round * at) % 30));
                let member = |at| Note { continues: true, ..lives(at) };
                log.write((0..round % 3).map(lives).chain([note("x".repeat(round % 7 * 300)), member(3), lives(4)]));
                log.write([Note { vital: true, ..lives(5) }]);
                (0..6).for_each(|_| assert_eq!(log.write([note("y".repeat(1500))]), Some(Ok(()))));
            }
            let live = |log: &Opened| log.keeper.look().live.values().cloned().collect::<BTreeSet<_>>();
            let figures = log.journal.figures();
            assert!(figures.segments < 30, "{part}: segments were dropped: {figures:?}");
            let lives = live(&log);
            assert!(lives.iter().filter(|text| text.contains("lives")).count() >= 60 * 3 + 60, "{part}");
            assert_eq!(live(&open(&disk.crash(Crash::Kill))), lives, "{part}");
        }
    }

    #[test]
    fn what_is_written_anew_pays_for_nothing() {
        let disk = MemoryDisk::new();
        // A third of each segment is for entries, and all of them live: the log has more bytes than it should, and nothing to gain.
        let keeper = Keeper::default();
        keeper.look().checkpoint = Some("#".repeat(7000));
        keeper.look().overhead = 40;
        let log = open_with(&disk, keeper);
        // A log that turns for ever ends with an error here.
        disk.fail_at(20_000, std::io::ErrorKind::Other, Times::EverAfter);
        for number in 0..100 {
            log.write((0..20).map(|at| note(format!("{number}-{at}"))));
        }
        assert_eq!(log.journal.failure(), None);
        assert_eq!(log.keeper.look().live.len(), 2000);
        let figures = log.journal.figures();
        assert!(figures.disk_bytes > 2 * figures.live_bytes + 2 * SEGMENT, "it was tempted: {figures:?}");
    }

    #[test]
    fn a_carried_entry_can_be_read_where_it_was_carried_to() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        log.write([note("stays")]);
        let first = log.at("stays");
        let long = "x".repeat(1500);
        // Each of these replaces the one before.
        for _ in 0..60 {
            log.write([note(&*long)]);
        }
        let now = log.at("stays");
        assert!(now > first);
        assert_eq!(log.journal.reader().read(now), Ok(&b"stays"[..]));
    }

    #[test]
    fn a_full_disk_refuses_at_the_door_and_ends_when_there_is_room() {
        let disk = MemoryDisk::new();
        disk.set_capacity(Some(4 * SEGMENT));
        let log = open(&disk);
        let mut count = 0;
        while log.journal.reserve(1000).is_ok() {
            log.write([crate::testing::Note { reserved: true, ..note(format!("{count}:").repeat(300)) }]);
            count += 1;
        }
        assert!(count > 10, "{count}");
        assert_eq!(log.journal.health(), Health::Full);
        let receipt = log.write([note("let go")]);
        assert_eq!(receipt, Some(Ok(())), "what needs no room is taken");
        assert_eq!(log.journal.health(), Health::Healthy);
        assert_eq!(log.journal.reserve(1000), Ok(()));
    }

    #[test]
    fn a_full_log_asks_the_disk_again_though_it_has_two_spares() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        // Nothing is gained by dropping the first segment. The second has its own length, and as much is to be kept free; the spares
        // are short.
        log.write([note("a".repeat(11_000))]);
        log.write([note("x".repeat(100_000))]);
        log.journal.write_waiting();
        assert_eq!(log.journal.figures().spares, 2);
        disk.set_capacity(Some(disk.used()));
        let refused = log.write([Note { reserved: true, ..note("y".repeat(60_000)) }]);
        assert_eq!((refused, log.journal.health()), (Some(Err(Unavailable)), Health::Full));
        disk.set_capacity(None);
        log.journal.write_waiting_at(Duration::from_secs(5));
        assert_eq!(log.journal.health(), Health::Healthy, "{:?}", log.journal.figures());
    }
}
