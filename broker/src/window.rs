use hashbrown::HashTable;

use crate::dedupe::IdHash;
use crate::ring::Ring;

/// Records in the order they came, found by hash, dropped from the front: a ring, and 4 bytes a record to find it.
///
/// Several records may have one hash (the same id on two exchanges).
#[derive(Debug)]
pub(crate) struct Window<R> {
    ring: Ring<R>,
    /// Serial numbers, modulo 2^32: the ring never holds that many. In parts, by hash: a table moves all it has when it
    /// grows, and nobody is answered while ten million are moved.
    tables: Box<[HashTable<u32>]>,
    first: u32,
}

/// A record found by the hash of a message id.
pub(crate) trait Keyed {
    fn hash(&self) -> IdHash;
}

/// Parts of the table.
const TABLES: usize = 256;

impl<R: Keyed> Window<R> {
    pub(crate) fn new() -> Window<R> {
        Window { ring: Ring::new(), tables: (0..TABLES).map(|_| HashTable::new()).collect(), first: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// The oldest record.
    pub(crate) fn front(&self) -> Option<&R> {
        self.ring.front()
    }

    /// The youngest record.
    pub(crate) fn back(&self) -> Option<&R> {
        self.ring.back()
    }

    pub(crate) fn push(&mut self, record: R) {
        let serial = self.first.wrapping_add(self.ring.len() as u32);
        let hash = record.hash();
        self.ring.push_back(record);
        let (ring, first) = (&self.ring, self.first);
        let rehash = |serial: &u32| ring[serial.wrapping_sub(first) as usize].hash().short();
        self.tables[part(hash)].insert_unique(hash.short(), serial, rehash);
    }

    pub(crate) fn pop(&mut self) -> Option<R> {
        let record = self.ring.pop_front()?;
        let (hash, first) = (record.hash(), self.first);
        if let Ok(entry) = self.tables[part(hash)].find_entry(hash.short(), |serial| *serial == first) {
            entry.remove();
        }
        self.first = first.wrapping_add(1);
        Some(record)
    }

    pub(crate) fn find(&self, hash: IdHash) -> impl Iterator<Item = &R> {
        let at = |serial: &u32| &self.ring[serial.wrapping_sub(self.first) as usize];
        self.tables[part(hash)].iter_hash(hash.short()).map(at).filter(move |record| record.hash() == hash)
    }

    pub(crate) fn find_mut(&mut self, hash: IdHash, matches: impl Fn(&R) -> bool) -> Option<&mut R> {
        let (ring, first) = (&self.ring, self.first);
        let index = |serial: &u32| serial.wrapping_sub(first) as usize;
        let found = |serial: &u32| ring[index(serial)].hash() == hash && matches(&ring[index(serial)]);
        let index = index(self.tables[part(hash)].find(hash.short(), found)?);
        self.ring.get_mut(index)
    }

    /// Records from the first on for which `is_before` is false; it must be true for all in front of that one.
    pub(crate) fn behind(&self, is_before: impl FnMut(&R) -> bool) -> impl Iterator<Item = (usize, &R)> {
        let start = self.ring.partition_point(is_before);
        self.ring.iter_from(start).enumerate().map(move |(index, record)| (start + index, record))
    }

    /// The records, in the order they came.
    pub(crate) fn into_records(self) -> impl Iterator<Item = R> {
        self.ring.into_iter()
    }
}

/// Which part of the table a hash belongs to: by bits a table itself does not look at.
fn part(hash: IdHash) -> usize {
    (hash.short() >> 40) as usize % TABLES
}
