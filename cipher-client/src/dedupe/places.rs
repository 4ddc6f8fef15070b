//! Where in a full segment a key is: three bytes a key, on disk.
//!
//! The keys of a segment are divided into cells by their hash; a cell is a run
//! of places in a file, which is as long as it needs to be. Memory has the ends
//! of the cells and a check over each.
//!
//! ```text
//! segment 0: | places by id | places by uniqueness | segment 1: …
//! place:     | bits u8 | record / span, u16 |      little-endian
//! ```
//!
//! The file is derived from the records: begun anew with every start, and
//! never believed without its check.

use std::fs::File;
use std::io;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::filter::scaled;
use super::positioned;
use super::record::{Record, Trait};
use super::shape::Shape;

/// Bytes of a place.
pub(super) const PLACE_LEN: usize = 3;

pub(super) struct Places {
    file: File,
    shape: Shape,
    /// Records that one place stands for.
    span: u64,
    directories: Vec<Option<Directory>>,
}

/// What memory keeps of a full segment.
struct Directory {
    /// When the newest of its records was seen.
    newest: u32,
    by_id: Box<[Cell]>,
    by_uniqueness: Box<[Cell]>,
}

#[derive(Clone, Copy, Default)]
struct Cell {
    /// Places of the trait up to the end of this cell.
    end: u32,
    check: u32,
}

/// What the file says about a key.
pub(super) enum Found {
    /// Numbers of runs of `span` records, one of which may be it.
    Runs(Vec<u64>),
    /// What is there is damaged.
    Damaged,
}

impl Places {
    /// Nothing yet; `file` is emptied.
    pub(super) fn begin(file: File, shape: Shape) -> io::Result<Self> {
        file.set_len(0)?;
        let directories = (0..shape.segments).map(|_| None).collect();
        Ok(Self { file, shape, span: shape.segment.div_ceil(1 << 16), directories })
    }

    /// Records that one place stands for.
    pub(super) fn span(&self) -> u64 {
        self.span
    }

    /// Notes where the records of segment `index` are, and gives on their
    /// hashes, in an order that is good to the filter.
    pub(super) fn write<'a, R>(&mut self, index: u64, records: R, mut noted: impl FnMut(u64)) -> io::Result<()>
    where
        R: Iterator<Item = (usize, &'a Record)> + Clone,
    {
        let newest = records.clone().map(|(_, record)| record.seen).max().unwrap_or_default();
        let by_id = self.write_trait(index, Trait::Id, records.clone(), &mut noted)?;
        let by_uniqueness = self.write_trait(index, Trait::Uniqueness, records, &mut noted)?;
        self.directories[index as usize] = Some(Directory { newest, by_id, by_uniqueness });
        Ok(())
    }

    /// When the newest record of segment `index` was seen; `None` if it was
    /// never full.
    pub(super) fn newest(&self, index: u64) -> Option<u32> {
        self.directories[index as usize].as_ref().map(|directory| directory.newest)
    }

    /// Where in segment `index` a record with this hash may be.
    pub(super) fn find(&self, index: u64, by: Trait, hash: u64) -> Found {
        let Some(directory) = &self.directories[index as usize] else { return Found::Runs(Vec::new()) };
        let cells = directory.cells(by);
        let cell = scaled(hash, cells.len());
        let start = cell.checked_sub(1).map_or(0, |before| cells[before].end);
        let mut bytes = vec![0; (cells[cell].end - start) as usize * PLACE_LEN];
        let at = self.at(index, by) + u64::from(start) * PLACE_LEN as u64;
        match positioned::read_up_to(&self.file, &mut bytes, at) {
            Ok(len) if len == bytes.len() && check(&bytes, cell) == cells[cell].check => {}
            _ => return Found::Damaged,
        }
        let (places, _) = bytes.as_chunks::<PLACE_LEN>();
        let fitting = places.iter().filter(|[known, ..]| *known == bits(hash));
        Found::Runs(fitting.map(|[_, low, high]| u16::from_le_bytes([*low, *high]).into()).collect())
    }

    /// Gives back the lock on the file, which is that of the window.
    pub(super) fn unlock(&self) {
        // What fails here is done when the file is closed.
        let _ = self.file.unlock();
    }

    /// For tests of what fails: the handle everything goes through.
    #[cfg(test)]
    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    fn write_trait<'a, R>(
        &self,
        index: u64,
        by: Trait,
        records: R,
        noted: &mut impl FnMut(u64),
    ) -> io::Result<Box<[Cell]>>
    where
        R: Iterator<Item = (usize, &'a Record)> + Clone,
    {
        let mut cells = vec![Cell::default(); (self.shape.segment as usize).div_ceil(CELL_AIM)];
        let mut ends = vec![0; cells.len()];
        records.clone().for_each(|(_, record)| ends[scaled(record.table_hash(by), cells.len())] += 1);
        let mut starts = Vec::with_capacity(cells.len());
        let mut sum = 0;
        for count in ends {
            starts.push(sum);
            sum += count;
        }
        let (mut bytes, mut hashes) = (vec![0; sum * PLACE_LEN], vec![0; sum]);
        for (place, record) in records {
            let hash = record.table_hash(by);
            let next = &mut starts[scaled(hash, cells.len())];
            let [low, high] = ((place as u64 / self.span) as u16).to_le_bytes();
            bytes[*next * PLACE_LEN..][..PLACE_LEN].copy_from_slice(&[bits(hash), low, high]);
            hashes[*next] = hash;
            *next += 1;
        }
        // Filled, the starts have become the ends.
        let mut start = 0;
        for (number, (cell, end)) in cells.iter_mut().zip(starts).enumerate() {
            let check = check(&bytes[start * PLACE_LEN..end * PLACE_LEN], number);
            *cell = Cell { end: end as u32, check };
            start = end;
        }
        positioned::write_all(&self.file, &bytes, self.at(index, by))?;
        hashes.into_iter().for_each(noted);
        Ok(cells.into())
    }

    fn at(&self, index: u64, by: Trait) -> u64 {
        let trait_index = match by {
            Trait::Id => 0,
            Trait::Uniqueness => 1,
        };
        (index * 2 + trait_index) * self.shape.segment * PLACE_LEN as u64
    }
}

impl Directory {
    fn cells(&self, by: Trait) -> &[Cell] {
        match by {
            Trait::Id => &self.by_id,
            Trait::Uniqueness => &self.by_uniqueness,
        }
    }
}

/// Keys of a cell: what a look into a segment reads.
const CELL_AIM: usize = 64;

/// Of the hash what neither the cell nor the filter goes by.
fn bits(hash: u64) -> u8 {
    (hash >> 8) as u8
}

fn check(bytes: &[u8], cell: usize) -> u32 {
    xxh3_64_with_seed(bytes, cell as u64) as u32
}
