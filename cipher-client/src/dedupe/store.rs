//! A window on disk: the ring of records, and what finds them in it.
//!
//! A look asks the records of the running segment in memory, then the filter;
//! for each segment it names, one read of the places and one of each record
//! they name. The ring has the last word.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;

use super::filter::{Filter, Tag};
use super::places::{Found, Places};
use super::recent::Recent;
use super::record::{Record, Salt, Trait};
use super::ring::{Ends, Ring};
use super::shape::Shape;
use super::{Durability, Recovery};
use crate::error::{Error, Result};

pub(super) struct Store {
    ring: Ring,
    shape: Shape,
    /// Number of the next message.
    head: u64,
    /// Number of the first message of the running segment.
    first: u64,
    /// The running segment.
    recent: Recent,
    filter: Filter,
    places: Places,
    places_path: PathBuf,
    /// Number of the oldest message that counts.
    tail: u64,
    /// When the messages from `tail` on were seen, as far as they were read.
    tail_seen: VecDeque<Option<u32>>,
}

impl Store {
    /// Reads the ring once to find its head and once to find its records
    /// again later.
    pub(super) fn load(ring: Ring, places: (File, PathBuf), recovery: &mut Recovery) -> Result<Self> {
        let (shape, ends) = (ring.shape, ring.ends()?);
        recovery.cut_bytes += ring.cut(ends)?;
        let (file, places_path) = places;
        let places = Places::begin(file, shape).map_err(|fault| Error::io("cannot be begun", &places_path, fault))?;
        let mut store = Self {
            head: ends.head,
            first: ends.head - ends.head % shape.segment,
            recent: Recent::new(shape.segment as usize),
            filter: Filter::new(2 * (shape.slots() + 2 * shape.segment)),
            places,
            places_path,
            tail: ends.oldest.max(ends.head.saturating_sub(shape.entries)),
            tail_seen: VecDeque::new(),
            ring,
            shape,
        };
        store.load_records(ends, recovery)?;
        Ok(store)
    }

    /// Whether the message is among the last `entries` and within the window
    /// as seen from `wanted`.
    pub(super) fn contains(&self, wanted: &Record, traits: &[Trait], window_secs: u32) -> Result<bool> {
        let is_live = |known: &Record, older: usize| {
            self.shape.holds(self.head, self.first + older as u64) && !known.is_expired(window_secs, wanted.seen)
        };
        if self.recent.contains(wanted, traits, is_live) {
            return Ok(true);
        }
        for by in traits {
            if self.is_in_segments(wanted, *by, window_secs)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds a record. After an error it is not there.
    pub(super) fn insert(&mut self, record: &Record, window_secs: u32, durability: Durability) -> Result<()> {
        if self.recent.len() as u64 == self.shape.segment {
            self.begin_segment()?;
        }
        let sync = || if durability == Durability::Synced { self.ring.sync() } else { Ok(()) };
        if let Err(error) = self.ring.write(self.head, record).and_then(|()| sync()) {
            // What was refused is not to be known after a restart.
            self.ring.erase(self.head);
            return Err(error);
        }
        self.recent.insert(*record);
        let segment = self.segment();
        Trait::BOTH.into_iter().for_each(|by| self.filter.insert(record.table_hash(by), tag(segment), segment));
        self.filter.sweep(self.filter.buckets().div_ceil(self.shape.segment as usize));
        self.head += 1;
        self.forget(window_secs, record.seen);
        Ok(())
    }

    /// Moves the tail over what is past the window, by a bounded number of
    /// messages; says whether there may be more.
    pub(super) fn forget(&mut self, window_secs: u32, now: u32) -> bool {
        let oldest = self.head.saturating_sub(self.shape.entries);
        for _ in 0..FORGET_MAX {
            if self.tail == self.head {
                return false;
            }
            if self.tail_seen.is_empty() {
                self.read_tail();
            }
            let seen = self.tail_seen.front().copied().flatten();
            if self.tail >= oldest && seen.is_some_and(|seen| now.saturating_sub(seen) < window_secs) {
                return false;
            }
            self.tail_seen.pop_front();
            self.tail += 1;
        }
        true
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.ring.sync()
    }

    /// Lets another process have the files.
    pub(super) fn unlock(&self) {
        self.places.unlock();
    }

    pub(super) fn len(&self) -> usize {
        (self.head - self.tail) as usize
    }

    pub(super) fn salt(&self) -> Salt {
        self.ring.salt
    }

    /// The running segment is full: notes where its records are, and begins
    /// the next. Taken up again if it fails.
    fn begin_segment(&mut self) -> Result<()> {
        let full = self.segment();
        let index = full % self.shape.segments;
        let write = self.places.write(index, self.recent.iter(), |_| ());
        write.map_err(|fault| Error::io("cannot be written", &self.places_path, fault))?;
        // All its slots are overwritten.
        let gone = full - self.shape.segments;
        self.filter.remove(tag(gone), gone);
        self.recent.clear();
        self.first = self.head;
        Ok(())
    }

    /// Number of the running segment.
    fn segment(&self) -> u64 {
        self.first / self.shape.segment
    }

    fn is_in_segments(&self, wanted: &Record, by: Trait, window_secs: u32) -> Result<bool> {
        let candidates = self.filter.candidates(wanted.table_hash(by));
        if candidates.is_crowded {
            for age in 1..=self.shape.segments {
                if self.is_in_segment(self.segment() - age, wanted, by, window_secs)? {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        for tag in candidates.tags {
            if let Some(segment) = self.tagged(tag)
                && self.is_in_segment(segment, wanted, by, window_secs)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The full segment with this tag, if it is not gone.
    fn tagged(&self, tag: Tag) -> Option<u64> {
        let bare = u64::from(tag.checked_sub(1)?);
        let age = (self.segment() % TAGS + TAGS - bare) % TAGS;
        (1..=self.shape.segments).contains(&age).then(|| self.segment() - age)
    }

    fn is_in_segment(&self, segment: u64, wanted: &Record, by: Trait, window_secs: u32) -> Result<bool> {
        let index = segment % self.shape.segments;
        let is_past = |newest: u32| wanted.seen.saturating_sub(newest) >= window_secs;
        if self.places.newest(index).is_none_or(is_past) {
            return Ok(false);
        }
        let (start, span) = (index * self.shape.segment, self.places.span());
        let runs = match self.places.find(index, by, wanted.table_hash(by)) {
            Found::Runs(runs) => runs.into_iter().map(|run| (start + run * span, span)).collect(),
            Found::Damaged => {
                tracing::warn!(path = %self.places_path.display(), "damaged, looking through all records of a segment");
                vec![(start, self.shape.segment)]
            }
        };
        for (slot, slots) in runs {
            let records = (slot..).zip(self.ring.read(slot, slots)?);
            let mut live = records.filter_map(|(slot, found)| {
                let (known, lap) = found?;
                let seq = self.shape.seq(self.head, slot, lap);
                (self.shape.holds(self.head, seq) && !known.is_expired(window_secs, wanted.seen)).then_some(known)
            });
            if live.any(|known| known.is_same(wanted, by)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Segment by segment, in the order of the slots.
    fn load_records(&mut self, ends: Ends, recovery: &mut Recovery) -> Result<()> {
        let Ends { head, oldest, .. } = ends;
        let segment = self.shape.segment;
        let mut full: Vec<(usize, Record)> = Vec::new();
        let mut start = oldest;
        while start < self.first {
            full.clear();
            let number = start / segment;
            let end = (number + 1) * segment;
            self.ring.for_each(start..end, |seq, record| {
                full.extend(record.map(|record| ((seq % segment) as usize, record)));
                count(record, seq - oldest < ends.torn, recovery);
                Ok(())
            })?;
            let (filter, records) = (&mut self.filter, full.iter().map(|(place, record)| (*place, record)));
            let noted = |hash| filter.insert(hash, tag(number), number);
            let write = self.places.write(number % self.shape.segments, records, noted);
            write.map_err(|fault| Error::io("cannot be written", &self.places_path, fault))?;
            start = end;
        }
        let (recent, filter, number) = (&mut self.recent, &mut self.filter, self.first / segment);
        self.ring.for_each(self.first..head, |_, record| {
            match record {
                Some(record) => {
                    Trait::BOTH.into_iter().for_each(|by| filter.insert(record.table_hash(by), tag(number), number));
                    recent.insert(record);
                }
                None => recent.insert_unreadable(),
            }
            count(record, false, recovery);
            Ok(())
        })
    }

    fn read_tail(&mut self) {
        let end = self.head.min(self.tail + FORGET_MAX);
        let seen = &mut self.tail_seen;
        let read = self.ring.for_each(self.tail..end, |_, record| {
            seen.push_back(record.map(|record| record.seen));
            Ok(())
        });
        if read.is_err() {
            // Only the count of messages depends on it.
            seen.clear();
            seen.extend((self.tail..end).map(|_| None));
        }
    }
}

/// Messages forgotten with one that is noted, at most.
const FORGET_MAX: u64 = 64;
/// Tags there are for segments.
const TAGS: u64 = 255;

fn tag(segment: u64) -> Tag {
    (segment % TAGS) as Tag + 1
}

/// Counts a slot for the report; a torn one is counted by its bytes.
fn count(record: Option<Record>, is_torn: bool, recovery: &mut Recovery) {
    match record {
        Some(_) => recovery.records += 1,
        None if is_torn => {}
        None => recovery.damaged += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedupe::{MessageKey, open};

    const WINDOW: u32 = 1000;

    fn record(store: &Store, n: u8) -> Record {
        store.salt().record(&MessageKey::new(&format!("id-{n}"), &[n; 32]), 1)
    }

    fn insert(store: &mut Store, n: u8) -> Result<()> {
        store.insert(&record(store, n), WINDOW, Durability::Synced)
    }

    fn known(store: &Store) -> Vec<u8> {
        (0..=u8::MAX).filter(|n| store.contains(&record(store, *n), &Trait::BOTH, WINDOW).unwrap()).collect()
    }

    /// A disk that fails and later works again, at each step of a note.
    #[test]
    fn a_note_that_fails_is_not_known_and_can_be_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        let (mut store, _) = open::open(&path, Shape::of(100)).unwrap();
        let segment = store.shape.segment as u8;
        (0..segment).for_each(|n| insert(&mut store, n).unwrap());

        let index = File::open(dir.path().join("seen.index")).unwrap();
        let working = std::mem::replace(store.places.file(), index);
        for _ in 0..2 {
            assert!(insert(&mut store, segment).is_err(), "the next segment needs the index of this one");
            assert_eq!(known(&store), (0..segment).collect::<Vec<_>>());
        }
        *store.places.file() = working;

        let read_only = File::open(&path).unwrap();
        let working = std::mem::replace(store.ring.file(), read_only);
        for _ in 0..2 {
            assert!(insert(&mut store, segment).is_err());
            assert_eq!(known(&store), (0..segment).collect::<Vec<_>>());
        }
        *store.ring.file() = working;

        insert(&mut store, segment).unwrap();
        drop(store);
        let (store, recovery) = open::open(&path, Shape::of(100)).unwrap();
        assert_eq!(known(&store), (0..=segment).collect::<Vec<_>>());
        assert_eq!(recovery, Recovery { records: u64::from(segment) + 1, ..Recovery::default() });
    }

    #[test]
    fn a_look_that_fails_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        let (mut store, _) = open::open(&path, Shape::of(100)).unwrap();
        (0..100).for_each(|n| insert(&mut store, n).unwrap());
        *store.ring.file() = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        assert!(store.contains(&record(&store, 3), &Trait::BOTH, WINDOW).is_err());
        assert!(store.contains(&record(&store, 99), &Trait::BOTH, WINDOW).unwrap(), "in memory");
    }
}
