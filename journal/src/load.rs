use std::collections::BTreeMap;

use crate::append::Tail;
use crate::frame::{BLOCK, FRAME_HEADER, LAST, SEAL};
use crate::frames::{Extent, Frame, Frames, Stretch, has_frames};
use crate::header::{Before, Found, SegmentHeader};
use crate::judge::{Find, Judged, Record, judge, synced_by};
use crate::report::FindingKind;
use crate::segment::{Failure, Segment, segment_base};
use crate::{Disk, DiskFile, OpenError};
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// A file with a segment's name.
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) base: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    /// What the file has, or should have if it was cut.
    pub(crate) len: u64,
    /// `None` if neither copy can be read.
    pub(crate) header: Option<SegmentHeader>,
    /// What is wrong with the header, or with what should be in front of the segment.
    pub(crate) finds: Vec<Find>,
    /// What the next segment says of this one.
    pub(crate) told: Option<Before>,
}

/// A segment's frames, judged.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// From `start` on.
    pub(crate) bytes: Vec<u8>,
    pub(crate) start: u64,
    /// More of the segment stands behind this frame, the last of a write.
    pub(crate) more: Option<Frame>,
    pub(crate) judged: Judged,
    pub(crate) before: Before,
    pub(crate) is_sealed: bool,
    /// Frames stand behind the seal: of a write that was to replace it and was torn.
    pub(crate) is_overrun: bool,
    /// The last write of records; that of a seal can be written over.
    pub(crate) last_batch: u32,
    /// What the disk would not read.
    pub(crate) failed: Option<FailedRead>,
}

/// Blocks that the disk could not read. They may be readable another time: nothing is written over them, and their segment is not dropped.
#[derive(Debug)]
pub(crate) struct FailedRead {
    /// Where the last of them ends.
    pub(crate) end: u64,
    pub(crate) error: io::Error,
}

impl Loaded {
    /// The end of this segment, the last of the log.
    pub(crate) fn tail(&self) -> Tail {
        let end = self.before.end.min(self.bytes.len() as u64);
        let bytes = self.bytes[(end - end % BLOCK) as usize..end as usize].to_vec();
        Tail { bytes, before: self.settled(), is_torn: self.is_torn() }
    }

    /// How the last segment of a log is remembered once its end is on disk: all that is whole in it counts as synced from then on, so
    /// that what is damaged later is not taken for torn. Unless something torn is in it: that must be judged the same way again.
    pub(crate) fn settled(&self) -> Before {
        let synced = if self.is_torn() { self.before.synced } else { self.before.synced.max(self.last_batch) };
        Before { synced, ..self.before }
    }

    /// Whether something torn is in front of its end, or behind its seal.
    fn is_torn(&self) -> bool {
        let is_inside = |find: &Find| find.kind == FindingKind::Torn && find.offset < self.before.end;
        self.is_overrun || self.judged.finds.iter().any(is_inside)
    }

    pub(crate) fn payload(&self, record: &Record) -> &[u8] {
        self.stretch(record.frame + FRAME_HEADER as u64, record.len.into())
    }

    /// So many bytes at `offset`, or as many of them as were read.
    pub(crate) fn stretch(&self, offset: u64, len: u64) -> &[u8] {
        let within = |offset: u64| offset.saturating_sub(self.start).min(self.bytes.len() as u64) as usize;
        &self.bytes[within(offset)..within(offset + len)]
    }
}

/// No segment is longer.
const LEN_MAX: u64 = 1 << 40;

/// All segments of a log, in order, with what their headers say.
pub(crate) fn list(disk: &dyn Disk) -> Result<Vec<Listed>, OpenError> {
    let names = disk.list().map_err(Failure::new("list", "log"))?;
    let bases: BTreeMap<u64, String> =
        names.into_iter().filter_map(|name| segment_base(&name).map(|base| (base, name))).collect();
    let mut listed: Vec<Listed> = Vec::with_capacity(bases.len());
    for (base, name) in bases {
        match look_at(disk, base, name)? {
            Some(next) => listed.push(next),
            // Dropped a moment ago, and all in front of it, but for those that cannot be read and never are.
            None => listed.retain(|earlier| earlier.header.is_none()),
        }
    }
    for index in 1..listed.len() {
        let Some(header) = listed[index].header else { continue };
        let before = &mut listed[index - 1];
        if header.before.base == before.base {
            before.told = Some(header.before);
        } else if before.header.is_some() {
            // Behind a segment that cannot be read, and is never dropped, others may have been.
            listed[index].finds.push(Find { offset: 0, len: 0, kind: FindingKind::Missing });
        }
    }
    Ok(listed)
}

/// `None` if the file is not there any more: a running broker drops segments while somebody looks.
fn look_at(disk: &dyn Disk, base: u64, name: String) -> Result<Option<Listed>, OpenError> {
    let file = match disk.open(&name) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(Failure::new("open", &name))?,
    };
    let mut len = file.len().map_err(Failure::new("look at", &name))?;
    let mut block = vec![0; BLOCK as usize];
    // What is missing of it shows in the copies of the header.
    read(&*file, 0, &mut block).map_err(Failure::new("read", &name))?;
    let mut finds = Vec::new();
    let header = match SegmentHeader::read(&block, base) {
        Found::Newer { version } => return Err(OpenError::Newer { segment: name, version }),
        Found::Header { header, bad_copy } => {
            finds.extend(bad_copy.map(|offset| Find { offset, len: BLOCK / 2, kind: FindingKind::Copy }));
            // The file was made as long as the header says. What a damaged file system says counts only where there is no header.
            len = header.file_len;
            Some(header)
        }
        Found::Nothing => {
            len = len.min(LEN_MAX);
            finds.push(Find { offset: 0, len, kind: FindingKind::Header });
            None
        }
    };
    Ok(Some(Listed { name, base, file, len, header, finds, told: None }))
}

impl Listed {
    /// Reads the segment and says what counts. `bytes` is reused.
    pub(crate) fn load(&self, bytes: Vec<u8>) -> Result<Loaded, Failure> {
        let nothing = Before { base: self.base, end: BLOCK, synced: 1 };
        match self.header {
            Some(header) => {
                load(&*self.file, header.checks(), self.len, self.told, bytes).map_err(Failure::new("read", &self.name))
            }
            None => Ok(Loaded { bytes, before: nothing, ..Loaded::default() }),
        }
    }
}

/// Reads a segment of `len` bytes. `told` is what is known of its end; `None` where the log may end in it.
pub(crate) fn load(
    file: &dyn DiskFile,
    checks: crate::frame::Checks,
    len: u64,
    told: Option<Before>,
    mut bytes: Vec<u8>,
) -> io::Result<Loaded> {
    let extent = told.map_or(Extent::Open, |told| Extent::To(told.end.clamp(BLOCK, len.max(BLOCK))));
    let until = if let Extent::To(end) = extent { end } else { len };
    bytes.resize(until as usize, 0);
    let Unread { finds: unread, failed } = read(file, 0, &mut bytes)?;
    let stretch = Stretch { start: 0, bytes: &bytes };
    let frames = Frames::find(stretch, checks, extent);
    let synced = told.map_or_else(|| synced_by(&frames), |told| told.synced);
    let mut judged = judge(&frames, synced, extent == Extent::Open);
    let end = if frames.is_sealed { frames.end } else { until };
    note_unread(unread.into_iter().filter(|find| find.offset < end), &mut judged);
    // The seal is no record, and a log that goes on needs none.
    let end = if frames.is_sealed { frames.end - FRAME_HEADER as u64 } else { frames.end };
    let before = Before { base: checks.base, end, synced };
    let records = frames.frames.iter().filter(|frame| !frame.has(SEAL));
    let last_batch = records.map(|frame| frame.header.batch).max().unwrap_or(1);
    let is_overrun = frames.is_sealed && extent == Extent::Open && has_frames(stretch, frames.end, checks);
    let is_sealed = frames.is_sealed;
    Ok(Loaded { bytes, start: 0, more: None, judged, before, is_sealed, is_overrun, last_batch, failed })
}

/// Reads about `part_bytes` of a segment whose end is known, from behind `mark` on, the last frame of a write: up to the end of
/// another, so that what is read can be judged by itself.
pub(crate) fn load_part(
    segment: &Segment,
    before: Before,
    mark: Option<Frame>,
    mut part_bytes: u64,
) -> io::Result<Loaded> {
    let Segment { file, checks, len, .. } = segment;
    let end = before.end.clamp(BLOCK, (*len).max(BLOCK));
    let start = mark.map_or(0, |frame| frame.end());
    loop {
        let until = start.saturating_add(part_bytes).clamp(BLOCK, end);
        let mut bytes = vec![0; until.saturating_sub(start) as usize];
        let Unread { finds: unread, failed } = read(&**file, start, &mut bytes)?;
        let mut frames = Frames::find(Stretch { start, bytes: &bytes }, *checks, Extent::To(until));
        let last = frames.frames.iter().rposition(|frame| frame.has(LAST));
        let more = match last.filter(|_| until < end) {
            Some(last) => {
                frames.frames.truncate(last + 1);
                let last = frames.frames[last];
                frames.gaps.retain(|gap| gap.offset < last.offset);
                Some(last)
            }
            None if until < end => {
                part_bytes = part_bytes.saturating_mul(2);
                continue;
            }
            None => None,
        };
        // What stands in front of a gap says what it is.
        if let Some(mark) = mark {
            frames.frames.insert(0, mark);
        }
        let mut judged = judge(&frames, before.synced, false);
        judged.records.retain(|record| record.offset >= start);
        judged.finds.retain(|find| find.offset >= start);
        let until = more.map_or(until, |more| more.end());
        note_unread(unread.into_iter().filter(|find| find.offset < until), &mut judged);
        return Ok(Loaded { bytes, start, more, judged, before, failed, ..Loaded::default() });
    }
}

/// How many blocks of a segment count as damaged if the disk cannot read them. With more of them, or with nothing else, it is the disk
/// that has failed, and nothing must be concluded from what it does not say.
const UNREADABLE_BLOCKS_MAX: usize = 64;

/// Says so where bytes could not be read, or were not there: the log may have gone on in them, and been acknowledged.
fn note_unread(unread: impl Iterator<Item = Find>, judged: &mut Judged) {
    for find in unread {
        let overlaps =
            |other: &&mut Find| other.offset < find.offset + find.len && find.offset < other.offset + other.len;
        let mut is_noted = false;
        for other in judged.finds.iter_mut().filter(overlaps) {
            is_noted = true;
            if other.kind == FindingKind::Torn {
                other.kind = FindingKind::Damaged;
            }
        }
        if !is_noted {
            judged.finds.push(find);
        }
    }
    judged.finds.sort_unstable_by_key(|find| find.offset);
}

/// What could not be read, or was not there.
#[derive(Debug, Default)]
struct Unread {
    finds: Vec<Find>,
    failed: Option<FailedRead>,
}

/// Fills `into` from an offset of the file on. What cannot be read, and what is not there, becomes zeros: no frame passes for whole there.
fn read(file: &dyn DiskFile, start: u64, into: &mut [u8]) -> io::Result<Unread> {
    let all = start + into.len() as u64;
    let unread = |from: u64, to: u64| Find { offset: from, len: to - from, kind: FindingKind::Damaged };
    let error = match read_at(file, start, into) {
        Ok(read) if start + read == all => return Ok(Unread::default()),
        Ok(read) => return Ok(Unread { finds: vec![unread(start + read, all)], failed: None }),
        Err(error) => error,
    };
    let blocks = into.len().div_ceil(BLOCK as usize);
    let mut finds = Vec::new();
    let (mut bad, mut end) = (0, 0);
    for (index, block) in into.chunks_mut(BLOCK as usize).enumerate() {
        let from = start + index as u64 * BLOCK;
        let to = from + block.len() as u64;
        match read_at(file, from, block) {
            Ok(read) if from + read == to => {}
            Ok(read) => finds.push(unread(from + read, to)),
            Err(_) => {
                block.fill(0);
                finds.push(unread(from, to));
                (bad, end) = (bad + 1, to);
            }
        }
        if bad == blocks || bad > UNREADABLE_BLOCKS_MAX {
            return Err(error);
        }
    }
    let failed = (bad > 0).then_some(FailedRead { end, error });
    Ok(Unread { finds, failed })
}

/// How many bytes there were; the rest becomes zeros.
fn read_at(file: &dyn DiskFile, offset: u64, into: &mut [u8]) -> io::Result<u64> {
    let read = file.read_at(offset, into)?;
    into[read..].fill(0);
    Ok(read as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDisk;
    use crate::frame::{CONTINUED, CONTINUES, COPY, Checks, VITAL, finish_frame};

    const CHECKS: Checks = Checks { salt: 7, base: 4096 };

    /// Writes, each with the flags of its frames; those up to the second were synced.
    const WRITES: [&[u32]; 6] = [
        &[0],
        &[VITAL, COPY, 0],
        &[0, CONTINUES, CONTINUES | CONTINUED, CONTINUED],
        &[VITAL, COPY],
        &[0, 0],
        &[CONTINUES, CONTINUED, 0],
    ];
    const SYNCED: u32 = 2;

    /// A segment with these writes, and where each frame begins.
    fn segment() -> (Vec<u8>, Vec<u64>) {
        let mut bytes = vec![0; BLOCK as usize];
        let mut offsets = Vec::new();
        for (batch, write) in (1..).zip(WRITES) {
            for (index, flags) in write.iter().enumerate() {
                let start = bytes.len();
                offsets.push(start as u64);
                bytes.resize(start + FRAME_HEADER, 0);
                // The copy of a frame is as long as that.
                bytes.resize(bytes.len() + 700 * batch as usize, offsets.len() as u8);
                let last = if index + 1 == write.len() { LAST } else { 0 };
                finish_frame(&mut bytes, start, start as u64, CHECKS, flags | last, batch, (batch - 1).min(SYNCED));
            }
        }
        (bytes, offsets)
    }

    fn file(bytes: &[u8]) -> Arc<dyn DiskFile> {
        let disk = MemoryDisk::new();
        disk.put("0000000000001000.log", bytes.to_vec());
        disk.open("0000000000001000.log").unwrap()
    }

    /// What counts, with the last byte of its payload, and what is found.
    type Verdict = (Vec<(Record, Option<u8>)>, Vec<Find>);

    fn verdict(loaded: &Loaded) -> Verdict {
        let records = loaded.judged.records.iter().map(|record| (*record, loaded.payload(record).last().copied()));
        (records.collect(), loaded.judged.finds.clone())
    }

    fn in_parts(segment: &Segment, before: Before, part_bytes: u64) -> (Verdict, usize) {
        let (mut all, mut parts, mut mark) = (Verdict::default(), 0, None);
        loop {
            let loaded = load_part(segment, before, mark, part_bytes).unwrap();
            let (records, finds) = verdict(&loaded);
            all.0.extend(records);
            all.1.extend(finds);
            parts += 1;
            mark = loaded.more;
            if mark.is_none() {
                return (all, parts);
            }
        }
    }

    #[test]
    fn a_segment_in_parts_is_judged_as_it_is_whole() {
        let (good, offsets) = segment();
        let (mut most, mut torn) = (0, 0);
        // Two headers or payloads at a time; the last frame is where the end was found.
        for first in &offsets[..offsets.len() - 1] {
            for second in &offsets[..offsets.len() - 1] {
                for at in [0, FRAME_HEADER] {
                    let mut bytes = good.clone();
                    bytes[*first as usize] ^= 1;
                    bytes[*second as usize + at] ^= 2;
                    let before = Before { base: CHECKS.base, end: bytes.len() as u64, synced: SYNCED };
                    let len = bytes.len() as u64;
                    let segment = Segment { name: String::new(), file: file(&bytes), checks: CHECKS, len };
                    let whole = load(&*segment.file, CHECKS, len, Some(before), Vec::new()).unwrap();
                    torn += whole.judged.finds.iter().filter(|find| find.kind == FindingKind::Torn).count();
                    for part_bytes in [1, 3000, 9000] {
                        let (verdict_of_parts, parts) = in_parts(&segment, before, part_bytes);
                        assert_eq!(
                            verdict_of_parts,
                            verdict(&whole),
                            "{first}, {second} + {at}, parts of {part_bytes}"
                        );
                        most = most.max(parts);
                    }
                }
            }
        }
        assert!(most >= 4 && torn > 100, "{most} parts, {torn} torn");
    }
}
