use std::sync::Arc;

use crate::frame::{
    BLOCK, CONTINUED, CONTINUES, COPY, END_MARK, FRAME_HEADER, LAST, SEAL, SEAL_ROOM, VITAL, add_flags, finish_frame,
    frame_len,
};
use crate::header::{Before, SegmentHeader};
use crate::segment::{Failure, Segment};
use crate::{Entry, Position};

/// How much memory the buffer keeps after a long write.
const BUFFER_BYTES_KEPT: usize = 8 << 20;

/// The end of the log: collects frames and writes them in whole blocks.
pub(crate) struct Appender {
    segment: Arc<Segment>,
    /// Where the last collected frame begins in `buffer`.
    last: Option<usize>,
    /// What is written next, from the block on in which the last frame ended.
    buffer: Vec<u8>,
    /// Where the first byte of `buffer` stands in the file.
    start: u64,
    /// How much of `buffer` has been written before.
    written: usize,
    /// The number of the next write.
    batch: u32,
    /// The last write that is on disk.
    synced: u32,
    /// Where the segment counts as full.
    limit: u64,
}

/// The end of a log that was opened, in case it must go on there.
#[derive(Default)]
pub(crate) struct Tail {
    /// The last block, up to the end of the frames.
    pub(crate) bytes: Vec<u8>,
    pub(crate) before: Before,
    /// Something torn is in front of the end. Then nothing may follow in this segment: it would look as if that had been synced.
    pub(crate) is_torn: bool,
}

impl Appender {
    /// Begins a segment: nothing is written yet. `buffer` is reused.
    pub(crate) fn begin(segment: Arc<Segment>, header: &SegmentHeader, mut buffer: Vec<u8>) -> Appender {
        buffer.clear();
        buffer.extend_from_slice(&header.write());
        let limit = segment.len;
        Appender { segment, last: None, buffer, start: 0, written: 0, batch: 1, synced: 0, limit }
    }

    /// Goes on where a log ended that was opened, all of it synced by now. Only for want of room for a new segment.
    pub(crate) fn resume(segment: Arc<Segment>, tail: Tail) -> Appender {
        let Tail { bytes: buffer, before, is_torn } = tail;
        let (limit, synced) = (if is_torn { 0 } else { segment.len }, before.synced);
        let start = before.end - buffer.len() as u64;
        Appender { segment, last: None, written: buffer.len(), buffer, start, batch: synced + 1, synced, limit }
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Where the next frame will stand.
    pub(crate) fn offset(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    pub(crate) fn next_position(&self) -> Position {
        Position(self.segment.base() + self.offset())
    }

    /// How many bytes of frames still fit.
    pub(crate) fn left(&self) -> u64 {
        self.limit.saturating_sub(self.offset() + SEAL_ROOM)
    }

    /// How many bytes have been collected since the last write.
    pub(crate) fn collected(&self) -> usize {
        self.buffer.len() - self.written
    }

    /// Whether something was written that may not be on disk.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.synced + 1 < self.batch
    }

    /// How this segment will be remembered by the next one.
    pub(crate) fn as_before(&self) -> Before {
        Before { base: self.segment.base(), end: self.offset(), synced: self.synced }
    }

    /// Collects an entry, in two copies if it is vital. Returns where it begins in the buffer, for [`Appender::link`].
    pub(crate) fn collect(&mut self, entry: &impl Entry, flags: u32) -> Collected {
        let first = self.buffer.len();
        let vital = entry.is_vital();
        self.buffer.resize(first + FRAME_HEADER, 0);
        entry.encode(&mut self.buffer);
        let payload = first + FRAME_HEADER..self.buffer.len();
        self.finish(first, if vital { flags | VITAL } else { flags });
        if !vital {
            return Collected { first, copy: None };
        }
        let copy = self.buffer.len();
        self.buffer.resize(copy + FRAME_HEADER, 0);
        self.buffer.extend_from_within(payload);
        self.finish(copy, flags | COPY);
        Collected { first, copy: Some(copy) }
    }

    /// Makes a group of two entries collected one after the other. `second` was collected with [`CONTINUED`].
    pub(crate) fn link(&mut self, first: Collected) {
        for at in [Some(first.first), first.copy].into_iter().flatten() {
            self.flag(at, CONTINUES);
        }
    }

    fn flag(&mut self, at: usize, flags: u32) {
        let offset = self.start + at as u64;
        add_flags(&mut self.buffer[at..], offset, self.segment.checks, flags);
    }

    fn finish(&mut self, at: usize, flags: u32) {
        self.last = Some(at);
        let offset = self.start + at as u64;
        finish_frame(&mut self.buffer, at, offset, self.segment.checks, flags, self.batch, self.synced);
    }

    /// Writes what was collected, with zeros behind it up to the end of a block.
    pub(crate) fn write(&mut self) -> Result<(), Failure> {
        if let Some(last) = self.last.take() {
            self.flag(last, LAST);
        }
        let end = self.buffer.len();
        self.buffer.resize((end as u64 + END_MARK).next_multiple_of(BLOCK) as usize, 0);
        let written = self.segment.file.write_at(self.start, &self.buffer);
        self.buffer.truncate(end);
        written.map_err(Failure::new("write", &self.segment.name))?;
        self.batch += 1;
        self.keep_last_block();
        Ok(())
    }

    /// The block in which the last frame ends is written again with the next frames: the same bytes up to there.
    fn keep_last_block(&mut self) {
        let whole = self.buffer.len() - self.buffer.len() % BLOCK as usize;
        self.buffer.copy_within(whole.., 0);
        self.buffer.truncate(self.buffer.len() - whole);
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer.shrink_to(BUFFER_BYTES_KEPT / 2);
        }
        self.start += whole as u64;
        self.written = self.buffer.len();
    }

    /// Returns when all that was written is on disk.
    pub(crate) fn sync(&mut self) -> Result<(), Failure> {
        self.segment.file.sync().map_err(Failure::new("sync", &self.segment.name))?;
        self.synced = self.batch - 1;
        Ok(())
    }

    /// Marks the log as closed in order. Everything is synced before, and the mark behind.
    pub(crate) fn seal(&mut self) -> Result<(), Failure> {
        if self.limit == 0 {
            return Ok(());
        }
        if self.is_unsynced() {
            self.sync()?;
        }
        let at = self.buffer.len();
        self.buffer.resize(at + FRAME_HEADER, 0);
        self.finish(at, SEAL);
        self.write()?;
        self.sync()
    }

    /// The buffer, to be used for the next segment. Nothing is appended here any more.
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }
}

/// Where an entry stands in the buffer.
#[derive(Clone, Copy)]
pub(crate) struct Collected {
    first: usize,
    copy: Option<usize>,
}

/// How many bytes an entry takes in the log.
pub(crate) fn entry_len(entry: &impl Entry) -> u64 {
    let frame = frame_len(entry.encoded_len() as u64);
    if entry.is_vital() { 2 * frame } else { frame }
}

/// How the later members of a group are flagged.
pub(crate) fn member_flags(flags: u32, is_first: bool) -> u32 {
    if is_first { flags } else { flags | CONTINUED }
}
