//! The records on disk: a ring in which the newest overwrites the oldest.
//!
//! ```text
//! 0          8      24        32         40      48
//! | CMQSEEN2 | salt | segment | segments | check | zeros …    integers u64 little-endian
//! 4096: the same again
//! 8192: | record | record | …                                32 bytes each, see `record`
//! ```
//!
//! Two generations are in the file: the records of the running lap, and behind
//! them what is left of the lap before. Every record says which lap it is of,
//! so nothing else has to be written when a lap ends, and nothing that a crash
//! could leave half done.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::record::{RECORD_LEN, Record, SALT_LEN, Salt, prefix};
use super::shape::{SEGMENTS_AIM, Shape};
use super::{ENTRIES_MAX, beside, positioned, remove_if_there};
use crate::error::{Error, ErrorKind, Result};
use crate::files;

/// Where the records begin.
pub(super) const DATA_AT: u64 = 2 * HEADER_BLOCK;

/// The file that holds the records.
pub(super) struct Ring {
    path: PathBuf,
    file: File,
    pub(super) salt: Salt,
    pub(super) shape: Shape,
}

/// Where a ring goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    /// Number of the next message.
    pub(super) head: u64,
    /// Number of the first message that may be there.
    pub(super) oldest: u64,
    /// In a ring that was full, slots from the head on that hold nothing: a
    /// record that a crash tore.
    pub(super) torn: u64,
}

/// The numbers in a ring's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) salt: [u8; SALT_LEN],
    segment: u64,
    segments: u64,
}

impl Ring {
    /// The ring in `file`, as its header says.
    pub(super) fn new(path: &Path, file: File, header: Header) -> Self {
        let Header { salt, segment, segments } = header;
        let shape = Shape { entries: segment * segments - 1, segment, segments };
        Self { path: path.to_owned(), file, salt: Salt(salt), shape }
    }

    /// Writes the header again, over a copy that is damaged.
    pub(super) fn repair_header(&self) -> Result<()> {
        let header = Header::of(self.salt, self.shape).encode();
        let write = |at| positioned::write_all(&self.file, &header, at);
        // One after the other, so that one is good at any time.
        let repair = write(0).and_then(|()| self.file.sync_data()).and_then(|()| write(HEADER_BLOCK));
        self.or_fault("cannot be repaired", repair.and_then(|()| self.file.sync_data()))
    }

    /// Writes the record of message `seq` into its slot.
    pub(super) fn write(&self, seq: u64, record: &Record) -> Result<()> {
        let slot = self.shape.slot(seq);
        let bytes = record.encode(slot, self.shape.lap(seq));
        self.or_fault("cannot be written", positioned::write_all(&self.file, &bytes, at(slot)))
    }

    /// Empties the slot of message `seq`, as far as the disk allows: what fails
    /// is written over by the next message.
    pub(super) fn erase(&self, seq: u64) {
        drop(positioned::write_all(&self.file, &[0; RECORD_LEN], at(self.shape.slot(seq))));
    }

    /// What is in the slots from `slot` on; less of them where the file ends.
    pub(super) fn read(&self, slot: u64, slots: u64) -> Result<Vec<Option<(Record, u8)>>> {
        let slots = slots.min(self.shape.slots() - slot) as usize;
        let mut bytes = vec![0; slots * RECORD_LEN];
        let read = positioned::read_up_to(&self.file, &mut bytes, at(slot));
        let len = read.map_err(|fault| unreadable(&self.path, fault))?;
        let (records, _) = bytes[..len].as_chunks();
        Ok((slot..).zip(records).map(|(slot, bytes)| Record::decode(bytes, slot)).collect())
    }

    /// Gives on what is in messages `seqs`, in order; `None` where it is
    /// damaged or gone.
    pub(super) fn for_each(
        &self,
        seqs: std::ops::Range<u64>,
        mut found: impl FnMut(u64, Option<Record>) -> Result<()>,
    ) -> Result<()> {
        let mut seq = seqs.start;
        while seq < seqs.end {
            let wanted = (seqs.end - seq).min(READ_RECORDS);
            let mut records = self.read(self.shape.slot(seq), wanted)?;
            let to_lap_end = self.shape.slots() - self.shape.slot(seq);
            records.resize(wanted.min(to_lap_end) as usize, None);
            for entry in records {
                let record = entry.filter(|(_, lap)| *lap == self.shape.lap(seq)).map(|(record, _)| record);
                found(seq, record)?;
                seq += 1;
            }
        }
        Ok(())
    }

    /// Finds where the newest lap ends.
    pub(super) fn ends(&self) -> Result<Ends> {
        let (slots, mut newest, mut head_slot) = (self.shape.slots(), None, 0);
        // Empty slots in front of the first record, and behind the head.
        let (mut leading, mut torn, mut is_torn, mut has_older) = (0, 0, false, false);
        let mut slot = 0;
        while slot < slots {
            let entries = self.read(slot, READ_RECORDS)?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                let age = entry.map(|(_, lap)| newest.map_or(-1, |newest: u8| newest.wrapping_sub(lap) as i8));
                match (entry, age) {
                    (Some((_, lap)), Some(..=0)) => {
                        has_older |= age < Some(0) && newest.is_some();
                        (newest, head_slot) = (Some(lap), slot + 1);
                        (torn, is_torn) = (0, true);
                    }
                    (Some(_), _) => (has_older, is_torn) = (true, false),
                    (None, _) if newest.is_none() => leading += 1,
                    (None, _) => torn += u64::from(is_torn),
                }
                slot += 1;
            }
        }
        let lap_start = (FIRST_LAP + u64::from(newest.unwrap_or(0))) * slots;
        let head = lap_start + head_slot;
        match (head_slot == slots, has_older) {
            (true, _) => Ok(Ends { head, oldest: head - slots, torn: leading }),
            (false, true) => Ok(Ends { head, oldest: head - slots, torn }),
            (false, false) => Ok(Ends { head, oldest: lap_start, torn: 0 }),
        }
    }

    /// Cuts off what lies behind the head in a ring that was never full; says
    /// how many bytes that were.
    pub(super) fn cut(&self, ends: Ends) -> Result<u64> {
        let len = self.len()?;
        if ends.head - ends.oldest == self.shape.slots() {
            let part = len.saturating_sub(DATA_AT) % RECORD_LEN as u64;
            return Ok(ends.torn * RECORD_LEN as u64 + part);
        }
        let end = at(self.shape.slot(ends.head));
        if len > end {
            self.or_fault("cannot be cut to its last whole record", self.file.set_len(end))?;
        }
        Ok(len.saturating_sub(end))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.or_fault("cannot be synced", self.file.sync_data())
    }

    /// For tests of what fails: the handle everything goes through.
    #[cfg(test)]
    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    fn len(&self) -> Result<u64> {
        self.or_fault("cannot be read", self.file.metadata()).map(|metadata| metadata.len())
    }

    fn or_fault<T>(&self, operation: &'static str, outcome: io::Result<T>) -> Result<T> {
        outcome.map_err(|fault| Error::io(operation, &self.path, fault))
    }
}

/// A ring that is being made under another name.
pub(super) struct NewRing {
    path: PathBuf,
    file: BufWriter<File>,
    salt: Salt,
    shape: Shape,
    head: u64,
}

impl NewRing {
    pub(super) fn begin(path: &Path, salt: Salt, shape: Shape) -> Result<Self> {
        let new = beside(path, NEW);
        remove_if_there(&new)?;
        let file = files::create_new(&new, 0o600).map_err(|fault| Error::io("cannot be begun", &new, fault))?;
        let file = BufWriter::with_capacity(READ_RECORDS as usize * RECORD_LEN, file);
        let mut ring = Self { path: path.to_owned(), file, salt, shape, head: FIRST_LAP * shape.slots() };
        ring.write_header().map_err(|fault| Error::io("cannot be begun", &new, fault))?;
        Ok(ring)
    }

    /// Adds a record, over the oldest if there are too many.
    pub(super) fn push(&mut self, record: &Record) -> Result<()> {
        let slot = self.shape.slot(self.head);
        let bytes = record.encode(slot, self.shape.lap(self.head));
        let is_lap_start = slot == 0 && self.head > FIRST_LAP * self.shape.slots();
        let turn = if is_lap_start { self.file.seek(SeekFrom::Start(DATA_AT)).map(drop) } else { Ok(()) };
        let write = turn.and_then(|()| self.file.write_all(&bytes));
        write.map_err(|fault| Error::io("cannot be written", &beside(&self.path, NEW), fault))?;
        self.head += 1;
        Ok(())
    }

    /// Puts it in its place when it is on disk.
    pub(super) fn finish(self) -> Result<Ring> {
        let Self { path, file, salt, shape, .. } = self;
        let finish = || {
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            fs::rename(beside(&path, NEW), &path)?;
            files::sync_parent(&path)?;
            Ok(file)
        };
        match finish() {
            Ok(file) => Ok(Ring { path, file, salt, shape }),
            Err(fault) => Err(Error::io("cannot be begun", &path, fault)),
        }
    }

    fn write_header(&mut self) -> io::Result<()> {
        let mut block = [0; HEADER_BLOCK as usize];
        let header = Header::of(self.salt, self.shape).encode();
        block[..HEADER_LEN].copy_from_slice(&header);
        self.file.write_all(&block)?;
        self.file.write_all(&block)
    }
}

impl Header {
    /// The good copy of a header in the first `DATA_AT` bytes of a file, and
    /// whether the other one is good, too.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, bool)> {
        let copy = |at: u64| bytes.get(at as usize..)?.first_chunk().and_then(Self::decode);
        match (copy(0), copy(HEADER_BLOCK)) {
            (Some(one), other) => Some((one, other == Some(one))),
            (None, other) => other.map(|other| (other, false)),
        }
    }

    fn of(salt: Salt, shape: Shape) -> Self {
        Self { salt: salt.0, segment: shape.segment, segments: shape.segments }
    }

    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..24].copy_from_slice(&self.salt);
        bytes[24..32].copy_from_slice(&self.segment.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.segments.to_le_bytes());
        let check = xxh3_64(&bytes[..CHECK_AT]);
        bytes[CHECK_AT..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let number = |at: usize| u64::from_le_bytes(prefix(&bytes[at..]));
        let header = Self { salt: prefix(&bytes[8..]), segment: number(24), segments: number(32) };
        let is_sound = (1..=SEGMENT_MAX).contains(&header.segment) && (1..=SEGMENTS_MAX).contains(&header.segments);
        (is_sound && header.encode() == *bytes).then_some(header)
    }
}

pub(super) const MAGIC: &[u8; 8] = b"CMQSEEN2";
/// Where the second copy of the header is.
pub(super) const HEADER_BLOCK: u64 = 4096;
const HEADER_LEN: usize = 48;
const CHECK_AT: usize = 40;
/// Largest numbers believed of a header: those of the largest window. Every slot
/// that it speaks of is looked at, there or not.
const SEGMENT_MAX: u64 = Shape::of(ENTRIES_MAX as u64).segment;
const SEGMENTS_MAX: u64 = SEGMENTS_AIM + 1;
/// Ending of the name of a file that is not finished.
pub(super) const NEW: &str = ".new";
/// Records read at a time.
const READ_RECORDS: u64 = 8192;
/// Laps are counted from here, so that there is one in front of the first.
const FIRST_LAP: u64 = 256;

/// Not to be passed over: what cannot be read now may be read tomorrow, and what
/// is forgotten is taken once more.
pub(super) fn unreadable(path: &Path, fault: positioned::At) -> Error {
    let path = path.display().to_string();
    Error::with_source(ErrorKind::Io { operation: UNREADABLE, path }, fault)
}

const UNREADABLE: &str = "cannot be read; nothing is lost yet: if it stays so, copy what can be read (dd conv=noerror,sync bs=512) \
    and put the copy in its place, which forgets what was there";

fn at(slot: u64) -> u64 {
    DATA_AT + slot * RECORD_LEN as u64
}
