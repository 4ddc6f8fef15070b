//! The records in memory: a ring in order of arrival, and two tables of 4-byte
//! places in it.

use hashbrown::HashTable;

use super::record::{Hash, Record};

/// At most `max` records; a new one pushes out the oldest.
pub(super) struct Index {
    ring: Vec<Record>,
    /// Place of the oldest record.
    head: usize,
    len: usize,
    max: usize,
    by_id: HashTable<u32>,
    by_uniqueness: HashTable<u32>,
}

impl Index {
    pub(super) fn new(max: usize) -> Self {
        Self { ring: Vec::new(), head: 0, len: 0, max, by_id: HashTable::new(), by_uniqueness: HashTable::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether a record of the same id or the same uniqueness is here and
    /// within the window as seen from `record`.
    pub(super) fn contains(&self, record: &Record, window_secs: u32) -> bool {
        let is_live = |at: &u32| !self.ring[*at as usize].is_expired(window_secs, record.seen);
        let same_id = |at: &u32| self.ring[*at as usize].id == record.id && is_live(at);
        let same_sealing = |at: &u32| self.ring[*at as usize].uniqueness == record.uniqueness && is_live(at);
        self.by_id.find(table_hash(&record.id), same_id).is_some()
            || self.by_uniqueness.find(table_hash(&record.uniqueness), same_sealing).is_some()
    }

    /// Adds a record that is not here.
    pub(super) fn insert(&mut self, record: Record) {
        if self.len == self.max {
            self.drop_oldest();
        }
        let at = (self.head + self.len) % self.max;
        // Grows with use up to `max`, and never holds a gap: places are given
        // in order and the ring turns only when it is full.
        match self.ring.get_mut(at) {
            Some(slot) => *slot = record,
            None => self.ring.push(record),
        }
        self.len += 1;
        let ring = &self.ring;
        let place = u32::try_from(at).expect("entries are limited below 2^32");
        self.by_id.insert_unique(table_hash(&record.id), place, |at| table_hash(&ring[*at as usize].id));
        self.by_uniqueness
            .insert_unique(table_hash(&record.uniqueness), place, |at| table_hash(&ring[*at as usize].uniqueness));
    }

    /// Drops the oldest records as far as they are past the window.
    pub(super) fn drop_expired(&mut self, window_secs: u32, now: u32) {
        while self.len > 0 && self.ring[self.head].is_expired(window_secs, now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self.ring[self.head];
        let place = u32::try_from(self.head).expect("entries are limited below 2^32");
        remove(&mut self.by_id, &oldest.id, place);
        remove(&mut self.by_uniqueness, &oldest.uniqueness, place);
        self.head = (self.head + 1) % self.max;
        self.len -= 1;
    }
}

fn remove(table: &mut HashTable<u32>, hash: &Hash, place: u32) {
    if let Ok(entry) = table.find_entry(table_hash(hash), |at| *at == place) {
        entry.remove();
    }
}

/// The hashes are keyed and even already: their first bytes will do.
fn table_hash(hash: &Hash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::dedupe::record::Salt;

    const WINDOW: u32 = 50;

    fn record(n: u32, seen: u32) -> Record {
        Salt([0; 16]).record(&format!("id-{n}"), &[n as u8; 32], seen)
    }

    /// Random arrivals against a plain list that does the same by looking
    /// through all of it.
    #[test]
    fn the_index_remembers_what_a_list_remembers() {
        for seed in 0..20u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = |below: u32| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 33) as u32 % below
            };
            let max = 1 + next(40) as usize;
            let mut index = Index::new(max);
            let mut list = VecDeque::new();
            let mut now = 1000;
            for _ in 0..2000 {
                now += next(4);
                let new = record(next(100), now);
                let known = list.iter().any(|old: &Record| {
                    (old.id == new.id || old.uniqueness == new.uniqueness) && !old.is_expired(WINDOW, now)
                });
                assert_eq!(index.contains(&new, WINDOW), known, "seed {seed}");
                if known {
                    continue;
                }
                index.drop_expired(WINDOW, now);
                index.insert(new);
                list.retain(|old| !old.is_expired(WINDOW, now));
                if list.len() == max {
                    list.pop_front();
                }
                list.push_back(new);
                assert_eq!(index.len(), list.len(), "seed {seed}");
                assert!(index.ring.len() <= max && index.by_id.len() <= max);
            }
        }
    }
}
