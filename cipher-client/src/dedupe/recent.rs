//! Records in memory: a ring in order of arrival, and two tables of 4-byte
//! places in it.

use hashbrown::HashTable;

use super::record::{Record, Trait};

/// At most `max` records; a new one pushes out the oldest.
pub(super) struct Recent {
    ring: Vec<Record>,
    /// Place of the oldest record.
    head: usize,
    len: usize,
    max: usize,
    by_id: HashTable<u32>,
    by_uniqueness: HashTable<u32>,
}

impl Recent {
    pub(super) fn new(max: usize) -> Self {
        Self { ring: Vec::new(), head: 0, len: 0, max, by_id: HashTable::new(), by_uniqueness: HashTable::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether a record that is the same by one of `traits` is here for which
    /// `is_live` holds; it is given the record and how many are older.
    pub(super) fn contains(&self, record: &Record, traits: &[Trait], is_live: impl Fn(&Record, usize) -> bool) -> bool {
        traits.iter().any(|by| {
            let by = *by;
            let is_it = |at: &u32| {
                let known = &self.ring[*at as usize];
                known.is_same(record, by) && is_live(known, self.older_than(*at))
            };
            self.table(by).find(record.table_hash(by), is_it).is_some()
        })
    }

    /// Adds a record.
    pub(super) fn insert(&mut self, record: Record) {
        let at = self.push(Some(record));
        let ring = &self.ring;
        for (table, by) in [(&mut self.by_id, Trait::Id), (&mut self.by_uniqueness, Trait::Uniqueness)] {
            table.insert_unique(record.table_hash(by), at, |at| ring[*at as usize].table_hash(by));
        }
    }

    /// Takes a place as a record does that cannot be read.
    pub(super) fn insert_unreadable(&mut self) {
        self.push(None);
    }

    /// All records with their places, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Record)> + Clone {
        let (new, old) = self.ring.split_at(self.head);
        old.iter().chain(new).take(self.len).enumerate().filter(|(_, record)| **record != UNREADABLE)
    }

    /// Drops the oldest records as far as they are past the window.
    pub(super) fn drop_expired(&mut self, window_secs: u32, now: u32) {
        while self.len > 0 && self.ring[self.head].is_expired(window_secs, now) {
            self.drop_oldest();
        }
    }

    pub(super) fn clear(&mut self) {
        self.ring.clear();
        self.by_id.clear();
        self.by_uniqueness.clear();
        (self.head, self.len) = (0, 0);
    }

    fn push(&mut self, record: Option<Record>) -> u32 {
        if self.len == self.max {
            self.drop_oldest();
        }
        let at = (self.head + self.len) % self.max;
        let record = record.unwrap_or(UNREADABLE);
        // Grows with use up to `max`, and never holds a gap: places are given
        // in order and the ring turns only when it is full.
        match self.ring.get_mut(at) {
            Some(slot) => *slot = record,
            None => self.ring.push(record),
        }
        self.len += 1;
        u32::try_from(at).expect("entries are limited below 2^32")
    }

    fn drop_oldest(&mut self) {
        let oldest = self.ring[self.head];
        let place = u32::try_from(self.head).expect("entries are limited below 2^32");
        for (table, by) in [(&mut self.by_id, Trait::Id), (&mut self.by_uniqueness, Trait::Uniqueness)] {
            if let Ok(entry) = table.find_entry(oldest.table_hash(by), |at| *at == place) {
                entry.remove();
            }
        }
        self.head = (self.head + 1) % self.max;
        self.len -= 1;
    }

    fn older_than(&self, at: u32) -> usize {
        (at as usize + self.max - self.head) % self.max
    }

    fn table(&self, by: Trait) -> &HashTable<u32> {
        match by {
            Trait::Id => &self.by_id,
            Trait::Uniqueness => &self.by_uniqueness,
        }
    }
}

/// Holds the place of a record that is damaged on disk; in no table.
const UNREADABLE: Record = Record { id: [0; 12], uniqueness: [0; 11], seen: 0 };

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::dedupe::MessageKey;
    use crate::dedupe::record::Salt;

    const WINDOW: u32 = 50;

    fn record(n: u32, seen: u32) -> Record {
        Salt([0; 16]).record(&MessageKey::new(&format!("id-{n}"), &[n as u8; 32]), seen)
    }

    /// Random arrivals against a plain list that does the same by looking
    /// through all of it.
    #[test]
    fn it_remembers_what_a_list_remembers() {
        for seed in 0..20u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = |below: u32| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 33) as u32 % below
            };
            let max = 1 + next(40) as usize;
            let mut recent = Recent::new(max);
            let mut list = VecDeque::new();
            let mut now = 1000;
            for _ in 0..2000 {
                now += next(4);
                let new = record(next(100), now);
                let known = list.iter().any(|old: &Record| {
                    (old.id == new.id || old.uniqueness == new.uniqueness) && !old.is_expired(WINDOW, now)
                });
                assert_eq!(
                    recent.contains(&new, &Trait::BOTH, |old, _| !old.is_expired(WINDOW, now)),
                    known,
                    "seed {seed}"
                );
                if known {
                    continue;
                }
                recent.drop_expired(WINDOW, now);
                recent.insert(new);
                list.retain(|old| !old.is_expired(WINDOW, now));
                if list.len() == max {
                    list.pop_front();
                }
                list.push_back(new);
                assert!(recent.iter().map(|(_, record)| record).eq(&list), "seed {seed}");
                assert_eq!(recent.len(), list.len(), "seed {seed}");
                assert!(recent.ring.len() <= max && recent.by_id.len() <= max);
            }
        }
    }

    #[test]
    fn an_unreadable_record_takes_a_place_and_is_never_found() {
        let mut recent = Recent::new(3);
        recent.insert(record(1, 0));
        recent.insert_unreadable();
        recent.insert(record(2, 0));
        assert!(!recent.contains(&UNREADABLE, &Trait::BOTH, |_, _| true));
        assert!(recent.contains(&record(2, 0), &Trait::BOTH, |_, older| older == 2));
        assert_eq!(recent.iter().collect::<Vec<_>>(), [(0, &record(1, 0)), (2, &record(2, 0))]);
        recent.insert(record(3, 0));
        recent.insert(record(4, 0));
        assert!(recent.contains(&record(4, 0), &Trait::BOTH, |_, older| older == 2));
    }
}
