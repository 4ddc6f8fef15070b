use std::fmt;
use std::io;
use std::sync::Arc;

use crate::Position;
use crate::frame::{BLOCK, Checks, FRAME_HEADER, FrameHeader, VITAL, frame_len};
use crate::log::Log;
use crate::segment::Segment;

/// How much is read at a time, if entries are read in the order of the log.
const CHUNK_BYTES_MAX: usize = 256 << 10;
/// How much is read at a time, if they are not.
const CHUNK_BYTES_MIN: usize = 16 << 10;

/// Reads entries back. Each reader keeps one stretch of the log, so that reading in the order of the log costs one read of the
/// disk for many entries. For one thread.
#[derive(Default)]
pub struct Reader {
    log: Option<Arc<Log>>,
    chunk: Chunk,
    /// How much the next read of the disk takes.
    ahead: usize,
    /// How often the disk was read.
    reads: u64,
}

/// A stretch of one segment. It holds on to no file: a segment can be dropped while a reader rests.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    start: u64,
    checks: Option<Checks>,
}

/// Why an entry could not be read back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The log has no such entry any more: its segment was dropped. Whoever holds the position asks its owner for the
    /// newer one.
    #[error("the log has no entry at {0:?}")]
    Gone(Position),
    /// The entry is there, but its bytes are not those that were written.
    #[error("the entry at {0:?} is damaged")]
    Damaged(Position),
    /// The disk failed.
    #[error("the entry at {0:?} could not be read: {1}")]
    Io(Position, io::ErrorKind),
}

impl Reader {
    /// A reader of a log that keeps nothing.
    pub fn of_nothing() -> Reader {
        Reader::default()
    }

    pub(crate) fn new(log: Arc<Log>) -> Reader {
        Reader { log: Some(log), ..Reader::default() }
    }

    /// The payload of the entry at `position`, checked against its checksums.
    ///
    /// # Errors
    /// As [`ReadError`] says.
    pub fn read(&mut self, position: Position) -> Result<&[u8], ReadError> {
        let payload = match self.chunk.payload(position) {
            Some(payload) => payload,
            None => self.fetch(position)?,
        };
        Ok(&self.chunk.bytes[payload])
    }

    /// How often this reader has read the disk.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// Frees the memory it keeps.
    pub fn rest(&mut self) {
        self.chunk = Chunk::default();
        self.ahead = CHUNK_BYTES_MIN;
    }

    /// Reads the entry from the disk, and what follows it.
    fn fetch(&mut self, position: Position) -> Result<std::ops::Range<usize>, ReadError> {
        let segment = self.log.as_ref().and_then(|log| log.segments.at(position)).ok_or(ReadError::Gone(position))?;
        let offset = position.0 - segment.base();
        let follows = self.chunk.is_of(segment.checks)
            && (self.chunk.start..=self.chunk.end() + CHUNK_BYTES_MIN as u64).contains(&offset);
        self.ahead = if follows { (self.ahead * 2).min(CHUNK_BYTES_MAX) } else { CHUNK_BYTES_MIN };
        self.load(&segment, offset, self.ahead, position)?;
        if let Some(payload) = self.chunk.payload(position) {
            return Ok(payload);
        }
        // It may be longer than what was read, or the first copy of two may be the bad one.
        let header = self.chunk.header(offset);
        if let Some(header) = header.filter(|header| frame_len(header.len.into()) as usize > self.ahead) {
            self.load(&segment, offset, frame_len(header.len.into()) as usize, position)?;
            if let Some(payload) = self.chunk.payload(position) {
                return Ok(payload);
            }
        }
        let copy = header.filter(|header| header.flags & VITAL != 0).map(|header| frame_len(header.len.into()));
        let copy = copy.ok_or(ReadError::Damaged(position))?;
        self.load(&segment, offset + copy, copy as usize, position)?;
        self.chunk.payload(Position(position.0 + copy)).ok_or(ReadError::Damaged(position))
    }

    fn load(&mut self, segment: &Segment, offset: u64, len: usize, position: Position) -> Result<(), ReadError> {
        let start = offset - offset % BLOCK;
        let end = (offset + len as u64).next_multiple_of(BLOCK).min(segment.len.max(offset));
        let bytes = &mut self.chunk.bytes;
        bytes.resize((end - start) as usize, 0);
        if bytes.len() < CHUNK_BYTES_MAX {
            bytes.shrink_to(2 * CHUNK_BYTES_MAX);
        }
        self.chunk.checks = None;
        self.reads += 1;
        let read = segment.file.read_at(start, bytes).map_err(|error| ReadError::Io(position, error.kind()))?;
        bytes.truncate(read);
        self.chunk.start = start;
        self.chunk.checks = Some(segment.checks);
        Ok(())
    }
}

impl Chunk {
    fn is_of(&self, checks: Checks) -> bool {
        self.checks.is_some_and(|own| own.base == checks.base)
    }

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn header(&self, offset: u64) -> Option<FrameHeader> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        FrameHeader::read(self.bytes.get(at..)?, offset, self.checks?)
    }

    /// Where the payload of the entry at `position` is in `bytes`, if it is there and good. What was read before it was written
    /// is not good: then the disk is asked again.
    fn payload(&self, position: Position) -> Option<std::ops::Range<usize>> {
        let checks = self.checks?;
        let offset = position.0.checked_sub(checks.base)?;
        let header = self.header(offset)?;
        let start = (offset - self.start) as usize + FRAME_HEADER;
        let payload = start..start + header.len as usize;
        header.matches(self.bytes.get(payload.clone())?, offset, checks).then_some(payload)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("kept", &self.chunk.bytes.len()).field("reads", &self.reads).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDisk;
    use crate::testing::{Note, note, open};

    fn text(len: usize, tag: usize) -> String {
        format!("{tag}:").repeat(len / 2)
    }

    #[test]
    fn entries_are_read_back_with_few_reads_of_the_disk() {
        let log = open(&MemoryDisk::new());
        log.write((0..100).map(|tag| note(text(600, tag))));
        let mut reader = log.journal.reader();
        for (position, text) in &log.keeper.look().live {
            assert_eq!(reader.read(*position), Ok(text.as_bytes()));
        }
        assert!(reader.reads() <= 12, "{} reads", reader.reads());
    }

    #[test]
    fn what_was_written_behind_a_chunk_that_is_kept_is_found() {
        let log = open(&MemoryDisk::new());
        log.write([note("first")]);
        let mut reader = log.journal.reader();
        assert_eq!(reader.read(log.at("first")), Ok(&b"first"[..]));
        log.write([note("second")]);
        assert_eq!(reader.read(log.at("second")), Ok(&b"second"[..]));
    }

    #[test]
    fn an_entry_longer_than_a_chunk_is_read() {
        let log = open(&MemoryDisk::new());
        let long = text(400_000, 7);
        log.write([note("x"), note(&*long)]);
        let mut reader = log.journal.reader();
        assert_eq!(reader.read(log.at(&long)), Ok(long.as_bytes()));
        assert_eq!(reader.read(log.at("x")), Ok(&b"x"[..]));
        assert!(reader.chunk.bytes.capacity() <= 2 * CHUNK_BYTES_MAX, "the memory of a long one is given back");
    }

    #[test]
    fn damage_is_told_and_the_copy_of_a_vital_entry_is_used() {
        let disk = MemoryDisk::new();
        let log = open(&disk);
        log.write([note("plain"), Note { vital: true, ..note("vital") }]);
        let (plain, vital) = (log.at("plain"), log.at("vital"));
        for position in [plain, vital] {
            assert!(disk.flip("0000000000001000.log", (position.0 - 0x1000 + 32) * 8));
        }
        let mut reader = log.journal.reader();
        assert_eq!(reader.read(plain), Err(ReadError::Damaged(plain)));
        assert_eq!(reader.read(vital), Ok(&b"vital"[..]));
        let beyond = Position(u64::MAX);
        assert_eq!(reader.read(beyond), Err(ReadError::Gone(beyond)));
    }
}
