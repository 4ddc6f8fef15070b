//! An owner for unit tests: it keeps what it is told, and retains every record until it is told to let go.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::log::lock;
use crate::{
    Commit, Disk, Doorbell, Durability, Entry, Journal, JournalOptions, MemoryDisk, Owner, Position, Receipt, Report,
    Space, Unavailable, Undecodable,
};

/// An entry with a text. One that begins with `no` is not admitted; `let go` releases everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note {
    pub(crate) text: String,
    pub(crate) durability: Durability,
    pub(crate) continues: bool,
    pub(crate) alone: bool,
    pub(crate) vital: bool,
    pub(crate) reserved: bool,
}

pub(crate) fn note(text: impl Into<String>) -> Note {
    Note { text: text.into(), ..Note::default() }
}

impl Entry for Note {
    fn encoded_len(&self) -> usize {
        self.text.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text.as_bytes());
    }

    fn continues(&self) -> bool {
        self.continues
    }

    fn stands_alone(&self) -> bool {
        self.alone
    }

    fn is_vital(&self) -> bool {
        self.vital
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn reserved(&self) -> u64 {
        u64::from(self.reserved)
    }
}

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) committed: Vec<(Position, String)>,
    pub(crate) recovered: Vec<(Position, String)>,
    pub(crate) refused: Vec<String>,
    /// What is retained, and where.
    pub(crate) live: BTreeMap<Position, String>,
    /// How much had been committed when each entry was admitted.
    pub(crate) admitted_after: Vec<usize>,
    /// What it retains of each entry beside its text.
    pub(crate) overhead: u64,
    /// What opens each segment, if anything: it begins with `#`, and means nothing.
    pub(crate) checkpoint: Option<String>,
    /// How often it was asked for that.
    pub(crate) checkpoints: usize,
}

#[derive(Clone, Default)]
pub(crate) struct Keeper(Arc<Mutex<Seen>>);

impl Keeper {
    pub(crate) fn look(&self) -> MutexGuard<'_, Seen> {
        lock(&self.0)
    }

    fn apply(&mut self, position: Position, text: &str, space: &mut Space) {
        let mut seen = self.look();
        // A text that is carried replaces itself.
        let told: Vec<Position> =
            seen.live.iter().filter(|(_, live)| *live == text || text == "let go").map(|(at, _)| *at).collect();
        let overhead = seen.overhead;
        for at in told {
            let text = seen.live.remove(&at).expect("it was found there");
            space.release(at, text.len() as u64 + overhead);
        }
        if text != "let go" && !text.starts_with('#') {
            space.retain(position, text.len() as u64 + overhead);
            seen.live.insert(position, text.to_owned());
        }
    }
}

impl Commit<Note> for Keeper {
    fn admit(&mut self, _: Position, note: &mut Note) -> bool {
        let mut seen = self.look();
        let committed = seen.committed.len();
        seen.admitted_after.push(committed);
        !note.text.starts_with("no")
    }

    fn commit(&mut self, position: Position, note: Note, space: &mut Space) {
        self.apply(position, &note.text, space);
        self.look().committed.push((position, note.text));
    }

    fn refuse(&mut self, note: Note) {
        self.look().refused.push(note.text);
    }
}

impl Owner<Note> for Keeper {
    fn recover(&mut self, position: Position, payload: &[u8], space: &mut Space) -> Result<(), Undecodable> {
        let text = std::str::from_utf8(payload).map_err(|_| Undecodable("no text"))?;
        self.apply(position, text, space);
        self.look().recovered.push((position, text.to_owned()));
        Ok(())
    }

    fn checkpoint(&mut self, out: &mut Vec<Note>) {
        let mut seen = self.look();
        seen.checkpoints += 1;
        out.extend(seen.checkpoint.clone().map(note));
    }

    fn carry(&mut self, position: Position, payload: &[u8], out: &mut Vec<Note>) {
        if self.look().live.contains_key(&position) {
            out.push(note(String::from_utf8_lossy(payload)));
        }
    }

    fn carry_rest(&mut self, _: Range<Position>, _: &mut Vec<Note>) {}
}

pub(crate) const SEGMENT: u64 = 4 * 4096;

pub(crate) fn options() -> JournalOptions {
    JournalOptions {
        segment_bytes_min: SEGMENT,
        segment_bytes_max: SEGMENT,
        salt_seed: Some(3),
        ..JournalOptions::default()
    }
}

pub(crate) struct Opened {
    pub(crate) journal: Journal<Note>,
    pub(crate) keeper: Keeper,
    pub(crate) report: Report,
    pub(crate) bell: Arc<Doorbell>,
}

pub(crate) fn open(disk: &MemoryDisk) -> Opened {
    open_with(disk, Keeper::default())
}

pub(crate) fn open_with(disk: &MemoryDisk, keeper: Keeper) -> Opened {
    open_as(disk, options(), keeper)
}

pub(crate) fn open_as(disk: &MemoryDisk, options: JournalOptions, keeper: Keeper) -> Opened {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let (journal, report) = Journal::open_stepped(disk, options, keeper.clone()).unwrap();
    Opened { journal, keeper, report, bell: Arc::default() }
}

impl Opened {
    pub(crate) fn submit(&self, notes: impl IntoIterator<Item = Note>) -> Receipt {
        self.journal.submit(&mut notes.into_iter().collect(), &self.bell).unwrap()
    }

    /// What becomes of them when they are written at once.
    pub(crate) fn write(&self, notes: impl IntoIterator<Item = Note>) -> Option<Result<(), Unavailable>> {
        let receipt = self.submit(notes);
        self.journal.write_waiting();
        self.journal.outcome(receipt)
    }

    /// The texts committed so far.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.keeper.look().committed.iter().map(|(_, text)| text.clone()).collect()
    }

    /// Where this text is.
    pub(crate) fn at(&self, text: &str) -> Position {
        *self.keeper.look().live.iter().find(|(_, live)| *live == text).expect("it lives").0
    }
}

/// The texts a log gives back when it is opened.
pub(crate) fn recovered(disk: &MemoryDisk) -> Vec<String> {
    open(disk).keeper.look().recovered.iter().map(|(_, text)| text.clone()).collect()
}
