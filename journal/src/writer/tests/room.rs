//! The room of a full disk, round by round: as the writer's thread sees it when entries come in while it works.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::front::Front;
use crate::jobs::Jobs;
use crate::open::open_writer;
use crate::recovery::Reading;
use crate::writer::{Next, ROOM_RETRY, Writer};
use crate::{Commit, Disk, Doorbell, Entry, JournalOptions, MemoryDisk, Owner, Position, Space, Undecodable};

const SEGMENT: u64 = 16 * 4096;

/// Payloads as long as the broker's: beside the text of a message, of a settlement, of a record of ids and of each of them.
const PUBLISH_BYTES: usize = 38;
const RELOCATE_BYTES: usize = 58;
const SETTLE_BYTES: usize = 62;
const IDS_BYTES: usize = 13;
const ID_BYTES: usize = 40;
const IDS_PER_RECORD: u32 = 16;

/// What it retains of a record beside a text.
const OVERHEAD_BYTES: usize = 96;

/// Numbered messages, and what becomes of them.
#[derive(Debug)]
enum Fact {
    Publish {
        number: u32,
        text: usize,
    },
    Settle {
        number: u32,
    },
    /// The message written anew.
    Again {
        number: u32,
        text: usize,
    },
    /// The numbers that are to be known, and whether more follow.
    Ids {
        numbers: Range<u32>,
        continues: bool,
    },
}

impl Entry for Fact {
    fn encoded_len(&self) -> usize {
        match self {
            Fact::Publish { text, .. } => PUBLISH_BYTES + text,
            Fact::Again { text, .. } => RELOCATE_BYTES + text,
            Fact::Settle { .. } => SETTLE_BYTES,
            Fact::Ids { numbers, .. } => IDS_BYTES + numbers.len() * ID_BYTES,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.encoded_len();
        let (tag, number) = match self {
            Fact::Publish { number, .. } | Fact::Again { number, .. } => (0, *number),
            Fact::Settle { number } => (1, *number),
            Fact::Ids { numbers, .. } => (2, numbers.start),
        };
        out.push(tag);
        out.extend(number.to_le_bytes());
        out.resize(end, 0);
    }

    fn continues(&self) -> bool {
        matches!(self, Fact::Ids { continues: true, .. })
    }

    fn reserved(&self) -> u64 {
        if let Fact::Publish { .. } = self { self.encoded_len() as u64 } else { 0 }
    }
}

#[derive(Default)]
struct Ledger {
    /// Where each message is that was not settled, and its bytes.
    messages: BTreeMap<u32, (Position, u64)>,
    /// Where each was published.
    published: Vec<Position>,
    /// Records of numbers, by the first in them.
    ids: BTreeMap<u32, (Position, Range<u32>)>,
    /// The first number that is in none.
    untold: u32,
}

impl Commit<Fact> for Ledger {
    fn commit(&mut self, position: Position, fact: Fact, space: &mut Space) {
        if let Fact::Publish { .. } = fact {
            self.published.push(position);
        }
        let share = |bytes: usize| (bytes + OVERHEAD_BYTES) as u64;
        match fact {
            Fact::Publish { number, text } | Fact::Again { number, text } => {
                let bytes = share(text);
                space.retain(position, bytes);
                if let Some((before, bytes)) = self.messages.insert(number, (position, bytes)) {
                    space.release(before, bytes);
                }
            }
            Fact::Settle { number } => {
                let (position, bytes) = self.messages.remove(&number).expect("settled once");
                space.release(position, bytes);
            }
            Fact::Ids { numbers, .. } => {
                let bytes = share(numbers.len() * ID_BYTES);
                space.retain(position, bytes);
                self.untold = self.untold.max(numbers.end);
                if let Some((before, _)) = self.ids.insert(numbers.start, (position, numbers)) {
                    space.release(before, bytes);
                }
            }
        }
    }

    fn refuse(&mut self, _: Fact) {}
}

impl Owner<Fact> for Ledger {
    fn recover(&mut self, _: Position, _: &[u8], _: &mut Space) -> Result<(), Undecodable> {
        Ok(())
    }

    fn checkpoint(&mut self, _: &mut Vec<Fact>) {}

    fn carry(&mut self, position: Position, payload: &[u8], out: &mut Vec<Fact>) {
        let Some(([tag, number @ ..], _)) = payload.split_first_chunk::<5>() else { return };
        let number = u32::from_le_bytes(*number);
        match tag {
            0 => {
                let here = self.messages.get(&number).filter(|(at, _)| *at == position);
                out.extend(here.map(|(_, bytes)| Fact::Again { number, text: *bytes as usize - OVERHEAD_BYTES }));
            }
            2 => {
                let here = self.ids.get(&number).filter(|(at, _)| *at == position);
                out.extend(here.map(|(_, numbers)| Fact::Ids { numbers: numbers.clone(), continues: false }));
            }
            _ => {}
        }
    }

    fn carry_rest(&mut self, segment: Range<Position>, out: &mut Vec<Fact>) {
        let end = self.published.partition_point(|at| *at < segment.end) as u32;
        out.extend((self.untold..end).step_by(IDS_PER_RECORD as usize).map(|start| {
            let next = end.min(start + IDS_PER_RECORD);
            Fact::Ids { numbers: start..next, continues: next < end }
        }));
    }
}

/// A writer driven by hand, and who submits to it.
struct Driven {
    writer: Writer<Fact, Ledger>,
    front: Arc<Front<Fact>>,
    bell: Arc<Doorbell>,
    now: Duration,
    submitted: u64,
}

impl Driven {
    fn open(disk: &MemoryDisk) -> Driven {
        let options = JournalOptions {
            segment_bytes_min: SEGMENT,
            segment_bytes_max: SEGMENT,
            carry_bytes_per_step: SEGMENT as usize / 4,
            salt_seed: Some(3),
            ..JournalOptions::default()
        };
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let front = Arc::new(Front::new());
        let jobs = Jobs::at_once(Arc::clone(&disk));
        let (writer, _) = open_writer(disk, options, Ledger::default(), &front, jobs, Reading::InTurn).unwrap();
        Driven { writer, front, bell: Arc::default(), now: Duration::ZERO, submitted: 0 }
    }

    fn submit(&mut self, facts: impl IntoIterator<Item = Fact>) {
        let mut facts: Vec<Fact> = facts.into_iter().collect();
        self.submitted += facts.len() as u64;
        if !facts.is_empty() {
            let _ = self.front.submit(&mut facts, 0, &self.bell).unwrap();
        }
    }

    /// One round. Time passes only if the writer sleeps.
    fn step(&mut self) -> Next {
        let next = self.writer.step(self.now);
        match next {
            Next::Sleep(at_most) => self.now += at_most.min(ROOM_RETRY),
            Next::Again => {}
            Next::End => panic!("{:?}", self.writer.log.failure()),
        }
        next
    }

    /// Publishes messages of this length until there is no room for more: how many.
    fn fill(&mut self, text: usize) -> u32 {
        let mut number = 0;
        while self.writer.log.room.reserve().is_ok() {
            self.submit([Fact::Publish { number, text }]);
            while self.step() == Next::Again {}
            number += 1;
        }
        number
    }
}

/// A disk of so many segments, full of messages with a text of so many bytes: all of them are settled in order, so many at once.
fn settle_all(segments: u64, text: usize, at_once: u64) {
    let what = format!("{segments} segments, texts of {text} bytes, {at_once} settled at once");
    let disk = MemoryDisk::new();
    disk.set_capacity(Some(segments * SEGMENT));
    let mut log = Driven::open(&disk);
    let messages = log.fill(text);
    assert!(u64::from(messages) * text as u64 > segments / 3 * SEGMENT, "{what}: only {messages} messages");
    let end = log.submitted + u64::from(messages);
    let mut next = 0;
    for _ in 0..STEPS_MAX {
        let until = messages.min(next + (at_once - (log.submitted - log.front.committed())) as u32);
        log.submit((next..until).map(|number| Fact::Settle { number }));
        next = until;
        if log.step() != Next::Again && log.front.committed() == end && log.writer.log.room.reserve().is_ok() {
            return;
        }
    }
    panic!("{what}: {} of {messages} are left: {:?}", log.writer.owner.messages.len(), log.writer.log.figures());
}

const STEPS_MAX: usize = 50_000;

#[test]
fn settlements_leave_a_full_disk_the_room_it_takes_to_drop_a_segment() {
    for text in [110, 150, 200, 250, 1000, 3000] {
        for at_once in [1, 4, 16, 64, 128, 256] {
            settle_all(6, text, at_once);
        }
    }
}

#[test]
fn so_do_more_settlements_at_once_than_there_is_room_for() {
    settle_all(40, 1000, 10_000);
    for text in [110, 150, 200, 250, 1000] {
        for at_once in [512, 1024, 4096] {
            settle_all(6, text, at_once);
        }
    }
}
