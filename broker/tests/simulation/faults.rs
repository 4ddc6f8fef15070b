//! What goes wrong, and when: the process stops in a call to the disk or between two, power fails, calls fail, the disk is full, a
//! bit turns over.

use std::io::ErrorKind;

use ciphermq_broker::{Error, Publish};
use ciphermq_journal::{Crash, Durability, Health, MemoryDisk, Stop, Times, Unsynced};
use rand::RngExt;

use crate::disk::is_segment;
use crate::history::{History, Running};
use crate::model::{DEFAULT_EXCHANGE, DEFAULT_KEY, Entry};

/// What is about to happen, or does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The process stops at a call; given up when it did not happen until that operation.
    Armed {
        until: u64,
    },
    /// A call fails, or many; until that operation.
    Failing {
        until: u64,
    },
    /// The disk is full until that operation.
    Full {
        until: u64,
    },
}

/// How the last broker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Never began.
    NoneYet,
    Closed,
    /// Killed when everything collected was answered: nothing may differ.
    KilledAtRest,
    Crashed,
    /// As at rest, and then this happened to the disk.
    Flipped,
}

/// One in so many operations brings a fault.
const FAULT_EVERY: u32 = 30;
/// A fault that has not struck after so many operations never will.
const ARMED_FOR: u64 = 80;
/// Looks at a log that has room again, a second apart, until it must have noticed.
const LOOKS_FOR_ROOM: usize = 4;
const REFUSED_WITH_ROOM_MAX: u32 = 20;

impl History {
    /// At the end of an operation after which everything works.
    pub(crate) fn apply_fault(&mut self) {
        match self.fault {
            Fault::None => {
                if self.chance(FAULT_EVERY) {
                    self.choose_fault();
                }
            }
            Fault::Armed { until } | Fault::Failing { until } if self.operations >= until => self.disarm(),
            Fault::Full { until } if self.operations >= until => self.make_room(),
            Fault::Armed { .. } | Fault::Failing { .. } | Fault::Full { .. } => {}
        }
    }

    fn choose_fault(&mut self) {
        let at = self.disk.calls() + self.random.random_range(0..60);
        let until = self.operations + ARMED_FOR;
        if self.may_fill && self.chance(2) {
            return self.fill_disk();
        }
        match self.random.random_range(0..100) {
            0..40 => {
                let stop = self.any_stop();
                self.say(format!("-- the process is going to stop {stop:?} call {at}"));
                self.disk.disk.stop_at(at, stop);
                self.fault = Fault::Armed { until };
            }
            40..60 => self.crash(),
            60..68 => self.close(),
            68..80 => {
                let times = [Times::Once, Times::EverAfter, Times::Everything][self.random.random_range(0..3)];
                self.say(format!("-- call {at} is going to fail, {times:?}"));
                self.disk.disk.fail_at(at, ErrorKind::Other, times);
                self.fault = Fault::Failing { until };
            }
            // Two could hit both copies of one thing.
            90.. if self.coverage.bits_flipped == 0 => self.flip_and_reopen(),
            _ => self.crash(),
        }
    }

    fn fill_disk(&mut self) {
        // Of what was submitted together a full disk may refuse a part, and the account could not tell which.
        let is_mixed = |entries: &[Entry]| {
            entries.len() > 1 && entries.iter().any(|entry| matches!(entry, Entry::Move { .. } | Entry::Change(_)))
        };
        let pending = self.pending.iter().any(|submission| is_mixed(&submission.entries));
        if pending || self.running().clients.iter().any(|client| is_mixed(&client.collected)) {
            for client in 0..self.running().clients.len() {
                self.submit(client);
            }
            self.write_journal();
        }
        let room = self.random.random_range(0..2) * self.journal.segment_bytes_min;
        self.say(format!("-- the disk has room for {room} bytes"));
        self.disk.disk.set_capacity(Some(self.disk.disk.used() + room));
        self.fault = Fault::Full { until: self.operations + self.random.random_range(20..80) };
        self.refused_with_room = None;
    }

    pub(crate) fn disarm(&mut self) {
        self.disk.disk.stop_at(u64::MAX, Stop::Before);
        self.disk.disk.work_again();
        self.fault = Fault::None;
    }

    /// Space returns: publishes are taken in again, by themselves.
    pub(crate) fn make_room(&mut self) {
        self.room_returns();
        self.hear();
    }

    /// Whether something may be refused for want of room: also a few things more when there is room again, until the log has noticed.
    pub(crate) fn may_be_full(&self) -> bool {
        matches!(self.fault, Fault::Full { .. }) || self.refused_with_room.is_some()
    }

    /// Somebody was.
    pub(crate) fn refused_for_room(&mut self) {
        if let Some(refused) = &mut self.refused_with_room {
            *refused += 1;
            assert!(*refused < REFUSED_WITH_ROOM_MAX, "the disk has room, and {refused} in a row were refused");
        }
    }

    /// The log has room again, and notices.
    pub(crate) fn room_returns(&mut self) {
        self.say("-- the disk has room again".into());
        self.coverage.disk_full += u64::from(self.disk.full() > 0);
        self.disk.disk.set_capacity(None);
        for _ in 0..LOOKS_FOR_ROOM {
            self.now += 1_001;
            self.running().broker.write_journal();
        }
        (self.fault, self.refused_with_room) = (Fault::None, Some(0));
        let health = self.running().broker.health();
        assert_eq!(health, Health::Healthy, "a disk that was full has room again");
    }

    fn any_stop(&mut self) -> Stop {
        match self.random.random_range(0..4) {
            0 => Stop::Before,
            1 => Stop::After,
            _ => Stop::Torn(self.random.random_range(0..9_000)),
        }
    }

    /// Without a sync in front of each answer only the end of the process is promised to be harmless.
    pub(crate) fn any_crash(&mut self) -> Crash {
        if self.options.durability != Durability::Synced {
            return Crash::Kill;
        }
        match self.random.random_range(0..8) {
            0..3 => Crash::Kill,
            3 => Crash::PowerLoss(Unsynced::Lost),
            4 => [Unsynced::Kept, Unsynced::Names, Unsynced::Writes].map(Crash::PowerLoss)
                [self.random.random_range(0..3)],
            _ => Crash::PowerLoss(Unsynced::Random(self.random.random())),
        }
    }

    /// The end of a process that stopped, or of a broker whose journal failed, or of one that works.
    pub(crate) fn crash(&mut self) {
        let crash = self.any_crash();
        let was_stopped = self.disk.disk.is_stopped();
        self.say(format!("-- {crash:?}, stopped: {was_stopped}"));
        let is_at_rest = self.is_at_rest() && crash == Crash::Kill && !self.is_broken() && self.fault == Fault::None;
        self.coverage.stops_in_a_call += u64::from(was_stopped);
        match crash {
            Crash::Kill => self.coverage.kills += 1,
            Crash::PowerLoss(_) => self.coverage.power_losses += 1,
        }
        let image = self.image_after(crash);
        self.end_process();
        self.reopen_after(image, if is_at_rest { End::KilledAtRest } else { End::Crashed });
    }

    /// The disk the next process finds; a write the process was stopped before may have got some of its way.
    fn image_after(&mut self, crash: Crash) -> MemoryDisk {
        if self.chance(2) {
            let bytes = self.random.random_range(1..6_000);
            if let Some(torn) = self.disk.disk.crash_torn(bytes, crash) {
                self.coverage.torn_writes += 1;
                return torn;
            }
        }
        self.disk.disk.crash(crash)
    }

    /// Whether everything anybody did is answered.
    pub(crate) fn is_at_rest(&self) -> bool {
        let nothing_collected = |running: &Running| running.clients.iter().all(|client| client.collected.is_empty());
        self.pending.is_empty() && self.running.as_ref().is_some_and(nothing_collected)
    }

    /// The process is gone; what its parts do while they are dropped has no effect any more.
    fn end_process(&mut self) {
        self.coverage_of_the_disk();
        self.disk.disk.stop_at(0, Stop::Before);
        self.running = None;
    }

    fn coverage_of_the_disk(&mut self) {
        let reads = self.running.as_ref().map_or(0, |running| running.reads);
        self.coverage.bodies_read_back += self.disk.reads().saturating_sub(reads);
        self.coverage.segments_begun += self.disk.begun();
        self.coverage.segments_dropped += self.disk.dropped();
    }

    /// Ends the broker in order, with or without its connections before it.
    pub(crate) fn close(&mut self) {
        self.say("-- closed in order".into());
        let clients_first = self.chance(2);
        if clients_first {
            while !self.running().clients.is_empty() {
                self.end_client(0);
            }
        }
        self.running().broker.close();
        if self.is_broken() {
            return self.crash();
        }
        self.hear();
        assert!(self.pending.is_empty(), "closed with submissions unanswered");
        let is_at_rest = self.is_at_rest();
        self.coverage.closed_in_order += 1;
        let image = self.disk.disk.crash(Crash::PowerLoss(Unsynced::Lost));
        self.end_process();
        self.reopen_after(image, if is_at_rest { End::Closed } else { End::Crashed });
    }

    /// A bit of a store at rest turns over.
    fn flip_and_reopen(&mut self) {
        for client in 0..self.running().clients.len() {
            self.submit(client);
        }
        self.write_journal();
        if self.is_broken() {
            return self.crash();
        }
        // All of it on the disk: a bit of what is not there yet could turn back.
        let image = self.disk.disk.crash(Crash::PowerLoss(Unsynced::Kept));
        let files: Vec<_> = image.files().into_iter().filter(|(name, _)| is_segment(name)).collect();
        let Some((name, bytes)) = self.pick(&files) else { return };
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64 + 1;
        let bit = self.random.random_range(0..used * 8);
        self.say(format!("-- bit {bit} of {name} turns over"));
        assert!(image.flip(&name, bit), "{name} has {} bytes", bytes.len());
        self.coverage.bits_flipped += 1;
        self.end_process();
        self.reopen_after(image, End::Flipped);
    }

    /// The process was stopped or the journal has failed, and people go on trying.
    pub(crate) fn look_while_broken(&mut self) {
        if self.disk.disk.is_stopped() {
            return;
        }
        if self.running().broker.health() != Health::Poisoned {
            self.coverage.reads_failed += 1;
            return;
        }
        let why = self.running().broker.journal_failure();
        assert!(matches!(self.fault, Fault::Failing { .. }), "the journal failed, and nobody let it: {why:?}");
        self.coverage.poisoned += 1;
        self.say("-- the journal has failed".into());
        assert!(self.running().broker.journal_failure().is_some(), "a journal that failed says why");
        let at = self.at();
        let client = self.any_client();
        let envelope = "{}";
        let publish = Publish { exchange: DEFAULT_EXCHANGE, key: DEFAULT_KEY, id: "late", envelope };
        let link = &mut self.client(client).link;
        match link.publish(publish, at) {
            Ok(()) => assert!(matches!(link.submit(), Some(Err(_))), "a failed journal took a submission in"),
            Err(error) => {
                let is_full = matches!(error, Error::QueueFull(_) | Error::DiskFull);
                assert!(is_full, "a publish to a failed journal: {error}");
            }
        }
        // Reading goes on: only what was committed or is undecided, and byte for byte.
        let queues: Vec<_> = self.model.queues.keys().copied().collect();
        for queue in queues {
            let Ok(Some(delivery)) = self.client(client).link.fetch(queue, None, at) else { continue };
            let send = self.recognise(delivery.message());
            let moved_or_sent = |entry: &Entry| match entry {
                Entry::Publish { send: undecided } => *undecided == send,
                Entry::Move { .. } => true,
                _ => false,
            };
            let mut undecided = self.pending.iter().flat_map(|submission| &submission.entries);
            let mut known = self.model.queues[queue].copies.values();
            let is_right = known.any(|copy| copy.send == send) || undecided.any(moved_or_sent);
            assert!(is_right, "a failed journal's broker gave n{send} from {queue}");
        }
    }
}
