//! A journal over a simulated disk, with a toy as its owner, driven by hand.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ciphermq_journal::{
    Disk, Doorbell, Entry, Journal, JournalOptions, MemoryDisk, OpenError, Position, Receipt, Report,
};

use crate::history::{History, Unit};
use crate::script::Step;
use crate::toy::{Fact, Shared, What};

/// A header and two blocks: segments end every few dozen records.
pub const SEGMENT_BYTES: u64 = 3 * 4096;

pub struct Store {
    pub journal: Journal<Fact>,
    pub toy: Shared,
    pub report: Report,
    bell: Arc<Doorbell>,
    now: Cell<Duration>,
}

/// Why the journal took no submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    NoRoom,
    Unavailable,
}

pub fn options() -> JournalOptions {
    JournalOptions {
        segment_bytes_min: SEGMENT_BYTES,
        segment_bytes_max: SEGMENT_BYTES,
        salt_seed: Some(1),
        ..JournalOptions::default()
    }
}

impl Store {
    pub fn open(disk: &MemoryDisk) -> Result<Store, OpenError> {
        Store::open_on(Arc::new(disk.clone()), options())
    }

    pub fn open_on(disk: Arc<dyn Disk>, options: JournalOptions) -> Result<Store, OpenError> {
        let toy = Shared::default();
        let (journal, report) = Journal::open_stepped(disk, options, toy.clone())?;
        Ok(Store { journal, toy, report, bell: Arc::default(), now: Cell::default() })
    }

    /// Reserves and submits.
    pub fn submit(&self, mut facts: Vec<Fact>) -> Result<Receipt, Refused> {
        let reserved: Vec<u64> = facts.iter().map(Fact::reserved).filter(|bytes| *bytes > 0).collect();
        for (at, bytes) in reserved.iter().enumerate() {
            if self.journal.reserve(*bytes).is_err() {
                reserved[..at].iter().for_each(|bytes| self.journal.unreserve(*bytes));
                return Err(Refused::NoRoom);
            }
        }
        self.journal.submit(&mut facts, &self.bell).map_err(|_| {
            reserved.iter().for_each(|bytes| self.journal.unreserve(*bytes));
            Refused::Unavailable
        })
    }

    /// Does the steps up to the first that is refused or fails; true if all were done.
    pub fn play(&self, steps: &[Step], history: &mut History) -> bool {
        for step in steps {
            match step {
                Step::Submit(facts) => match self.submit(facts.clone()) {
                    Ok(receipt) => {
                        history.units.push(Unit { facts: facts.clone(), receipt: Some(receipt), acknowledged: false });
                    }
                    Err(_) => return false,
                },
                Step::Work => {
                    self.journal.write_waiting_at(self.now.get());
                    if !self.note_outcomes(history) {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// False if something failed.
    fn note_outcomes(&self, history: &mut History) -> bool {
        let open = history.units.iter().rposition(|unit| unit.acknowledged).map_or(0, |last| last + 1);
        for unit in &mut history.units[open..] {
            match unit.receipt.and_then(|receipt| self.journal.outcome(receipt)) {
                Some(Ok(())) => unit.acknowledged = true,
                Some(Err(_)) => return false,
                None => return true,
            }
        }
        true
    }

    /// Lets time pass until there is nothing to do any more.
    pub fn settle_down(&self) {
        for _ in 0..SETTLE_STEPS {
            self.now.set(self.now.get() + Duration::from_secs(2));
            self.journal.write_waiting_at(self.now.get());
        }
    }

    pub fn has_room(&self) -> bool {
        let room = self.journal.reserve(600).is_ok();
        if room {
            self.journal.unreserve(600);
        }
        room
    }

    /// What only a crash has done is never taken for damage.
    pub fn has_lost_nothing(&self) -> Result<(), String> {
        match self.report.findings.iter().find(|finding| finding.kind.is_loss()) {
            Some(finding) => Err(format!("nothing is damaged, and it found: {finding}")),
            None => Ok(()),
        }
    }

    /// Reads every message back from where it is.
    pub fn read_all(&self) -> Result<(), String> {
        let mut reader = self.journal.reader();
        for (id, message) in &self.toy.look().messages {
            let payload = reader.read(Position(message.location)).map_err(|error| format!("message {id}: {error}"))?;
            let read = match Fact::reads(payload) {
                Ok(What::Publish { id, len, .. } | What::Relocate { id, len, .. }) => Some((id, len)),
                _ => None,
            };
            if read != Some((*id, message.len)) {
                return Err(format!("instead of message {id}: {read:?}"));
            }
        }
        Ok(())
    }
}

const SETTLE_STEPS: usize = 20;

/// Does `work` for each number below `count`; each of the two threads has something to keep.
pub fn on_two_threads<T: Default>(count: usize, work: impl Fn(usize, &mut T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut kept = T::default();
                while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < count) {
                    work(at, &mut kept);
                }
            });
        }
    });
}

/// Of the workload: `CIPHERMQ_SEED`, or always the same.
pub fn seed() -> u64 {
    let seed = std::env::var("CIPHERMQ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("CIPHERMQ_SEED={seed}");
    seed
}
