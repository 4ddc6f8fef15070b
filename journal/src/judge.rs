//! What counts of a segment: which frames are records, and what is to be said of everything else.
//!
//! The rules, which must give the same answer every time the same bytes are read:
//! - A vital record counts if either of its copies is whole.
//! - A group of which a member is missing is left out, if its write was never known to be synced: it was not acknowledged. In a
//!   write that was synced, the missing member is damage, and the others count.
//! - What is missing is torn if it can only belong to writes that were never known to be synced, and damage otherwise.

use crate::frame::{CONTINUED, CONTINUES, COPY, LAST, SEAL, VITAL, frame_len};
use crate::frames::{Frame, Frames, Gap};
use crate::report::FindingKind;

/// What counts of a segment.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) records: Vec<Record>,
    pub(crate) finds: Vec<Find>,
    /// From here on the segment was not known to be synced.
    pub(crate) unsynced_from: Option<u64>,
}

/// A record that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Where its first copy stands: its position within the segment.
    pub(crate) offset: u64,
    /// Where the header of the copy to read stands.
    pub(crate) frame: u64,
    pub(crate) len: u32,
    pub(crate) flags: u32,
}

/// A finding within a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Find {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) kind: FindingKind,
}

/// A record with all its copies, good or not.
#[derive(Clone, Copy)]
struct Unit {
    record: Record,
    batch: u32,
    end: u64,
    is_good: bool,
}

/// The last write that `frames` show to have been synced. The first one always was.
pub(crate) fn synced_by(frames: &Frames) -> u32 {
    frames.frames.iter().map(|frame| frame.header.synced).max().unwrap_or(1).max(1)
}

/// Judges `frames`, of which the writes up to `synced` were synced. `is_last`: more may have been written behind them.
pub(crate) fn judge(frames: &Frames, synced: u32, is_last: bool) -> Judged {
    let mut judged = Judged::default();
    let mut gaps: Vec<_> = frames.gaps.iter().map(|gap| (*gap, kind_of_gap(gap, frames, synced, is_last))).collect();
    let units = units(&frames.frames, &mut gaps, &mut judged.finds);
    judged.finds.extend(gaps.into_iter().map(|(Gap { offset, len }, kind)| Find { offset, len, kind }));
    for group in groups(&units) {
        let is_synced = group[0].batch <= synced;
        let counts = is_synced || is_complete(group);
        for unit in group {
            if unit.is_good && counts {
                judged.records.push(unit.record);
            } else {
                let kind = if is_synced { FindingKind::Damaged } else { FindingKind::Torn };
                let offset = unit.record.offset;
                judged.finds.push(Find { offset, len: unit.end - offset, kind });
            }
        }
    }
    judged.finds.sort_unstable_by_key(|find| find.offset);
    judged.unsynced_from = frames.frames.iter().find(|frame| frame.header.batch > synced).map(|frame| frame.offset);
    judged
}

fn kind_of_gap(gap: &Gap, frames: &Frames, synced: u32, is_last: bool) -> FindingKind {
    let next = frames.frames.partition_point(|frame| frame.offset < gap.offset);
    let before = next.checked_sub(1).map(|index| &frames.frames[index]);
    let batch = before.map_or(1, |before| before.header.batch);
    let is_torn = match frames.frames.get(next) {
        // Of a synced write in front, nothing may be missing.
        Some(next) => {
            let is_ended = batch == synced && before.is_some_and(|before| before.has(LAST));
            next.header.batch > synced && (batch > synced || is_ended)
        }
        None => is_last && batch >= synced,
    };
    if is_torn { FindingKind::Torn } else { FindingKind::Damaged }
}

/// Puts the copies of vital records together.
fn units(frames: &[Frame], gaps: &mut [(Gap, FindingKind)], finds: &mut Vec<Find>) -> Vec<Unit> {
    let mut units = Vec::with_capacity(frames.len());
    let mut frames = frames.iter().filter(|frame| !frame.has(SEAL)).peekable();
    while let Some(first) = frames.next() {
        note_padding(first, finds);
        let len = first.end() - first.offset;
        if first.has(COPY) {
            // The first copy's header is lost, or it would have taken this one along.
            let missing = Gap { offset: first.offset - len, len };
            note_lost_copy(missing, gaps);
            units.push(Unit::new(first, missing.offset, first.end()));
        } else if first.has(VITAL) {
            let copy = frames.next_if(|next| next.has(COPY) && next.offset == first.end());
            let Some(copy) = copy else {
                note_lost_copy(Gap { offset: first.end(), len }, gaps);
                units.push(Unit::new(first, first.offset, first.end() + len));
                continue;
            };
            note_padding(copy, finds);
            let best = if first.is_whole { first } else { copy };
            if first.is_whole != copy.is_whole {
                let bad = if first.is_whole { copy } else { first };
                finds.push(Find { offset: bad.offset, len, kind: FindingKind::Copy });
            }
            units.push(Unit::new(best, first.offset, copy.end()));
        } else {
            units.push(Unit::new(first, first.offset, first.end()));
        }
    }
    units
}

impl Unit {
    fn new(frame: &Frame, offset: u64, end: u64) -> Unit {
        let record = Record { offset, frame: frame.offset, len: frame.header.len, flags: frame.header.flags };
        Unit { record, batch: frame.header.batch, end, is_good: frame.is_whole }
    }
}

fn note_padding(frame: &Frame, finds: &mut Vec<Find>) {
    if frame.is_whole && !frame.is_padded {
        let len = frame_len(u64::from(frame.header.len));
        finds.push(Find { offset: frame.offset, len, kind: FindingKind::Padding });
    }
}

/// A gap that is exactly the lost copy of a vital record costs nothing.
fn note_lost_copy(copy: Gap, gaps: &mut [(Gap, FindingKind)]) {
    if let Ok(index) = gaps.binary_search_by_key(&copy.offset, |(gap, _)| gap.offset)
        && gaps[index].0 == copy
    {
        gaps[index].1 = FindingKind::Copy;
    }
}

/// Splits into groups, where one is not as it was written: into what is left of it.
fn groups(units: &[Unit]) -> impl Iterator<Item = &[Unit]> {
    units
        .chunk_by(|a, b| a.record.flags & CONTINUES != 0 && b.record.flags & CONTINUED != 0 && a.end == b.record.offset)
}

fn is_complete(group: &[Unit]) -> bool {
    let (first, last) = (group[0].record.flags, group[group.len() - 1].record.flags);
    first & CONTINUED == 0 && last & CONTINUES == 0 && group.iter().all(|unit| unit.is_good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{BLOCK, Checks, FRAME_HEADER, finish_frame};
    use crate::frames::{Extent, Stretch};

    const CHECKS: Checks = Checks { salt: 5, base: 4096 };
    const LEN: u64 = 40;

    /// A segment with a record of 8 bytes for each (flags, batch), each saying that the write before its own was synced.
    fn segment(records: &[(u32, u32)]) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK as usize];
        for (index, (flags, batch)) in records.iter().enumerate() {
            let start = bytes.len();
            bytes.resize(start + FRAME_HEADER, 0);
            bytes.extend_from_slice(&(index as u64).to_le_bytes());
            finish_frame(&mut bytes, start, start as u64, CHECKS, *flags, *batch, batch - 1);
        }
        bytes.resize(2 * BLOCK as usize, 0);
        bytes
    }

    /// Judges it with a bit of these records' headers flipped: which records count, and what is found where.
    fn with_lost_headers(records: &[(u32, u32)], lost: &[u64]) -> (Vec<u64>, Vec<(u64, FindingKind)>) {
        let mut bytes = segment(records);
        lost.iter().for_each(|index| bytes[(BLOCK + index * LEN) as usize] ^= 1);
        verdict(&bytes)
    }

    fn verdict(bytes: &[u8]) -> (Vec<u64>, Vec<(u64, FindingKind)>) {
        let frames = Frames::find(Stretch { start: 0, bytes }, CHECKS, Extent::Open);
        let judged = judge(&frames, synced_by(&frames), true);
        let index = |offset| (offset - BLOCK) / LEN;
        let records = judged.records.iter().map(|record| index(record.offset)).collect();
        (records, judged.finds.iter().map(|find| (index(find.offset), find.kind)).collect())
    }

    #[test]
    fn what_is_lost_in_a_synced_write_is_damage_and_costs_one_record() {
        let verdict = with_lost_headers(&[(0, 1), (0, 2), (0, 2), (0, 3)], &[1]);
        assert_eq!(verdict, (vec![0, 2, 3], vec![(1, FindingKind::Damaged)]));
    }

    #[test]
    fn what_is_lost_at_the_end_is_torn() {
        let verdict = with_lost_headers(&[(0, 1), (0, 2), (0, 3), (0, 3)], &[3]);
        assert_eq!(verdict, (vec![0, 1, 2], vec![(3, FindingKind::Torn)]));
        let verdict = with_lost_headers(&[(0, 1), (0, 2), (0, 3), (0, 3), (0, 3)], &[3]);
        assert_eq!(verdict, (vec![0, 1, 2, 4], vec![(3, FindingKind::Torn)]), "what is whole behind it is kept");
    }

    #[test]
    fn between_a_synced_write_and_another_it_counts_whether_the_first_has_ended() {
        let verdict = with_lost_headers(&[(0, 1), (0, 2), (0, 3), (0, 3)], &[2]);
        assert_eq!(verdict, (vec![0, 1, 3], vec![(2, FindingKind::Damaged)]), "its end may be what is lost");
        let verdict = with_lost_headers(&[(LAST, 1), (LAST, 2), (0, 3), (LAST, 3)], &[2]);
        assert_eq!(verdict, (vec![0, 1, 3], vec![(2, FindingKind::Torn)]));
        let verdict = with_lost_headers(&[(LAST, 1), (0, 2), (LAST, 2), (LAST, 3)], &[2]);
        assert_eq!(verdict, (vec![0, 1, 3], vec![(2, FindingKind::Damaged)]));
    }

    #[test]
    fn a_torn_group_is_left_out_whole() {
        let group = [(0, 1), (0, 2), (CONTINUES, 3), (CONTINUES | CONTINUED, 3), (CONTINUED, 3), (0, 3)];
        let torn = FindingKind::Torn;
        assert_eq!(with_lost_headers(&group, &[4]), (vec![0, 1, 5], vec![(2, torn), (3, torn), (4, torn)]));
        assert_eq!(with_lost_headers(&group, &[3]).0, [0, 1, 5]);
        assert_eq!(with_lost_headers(&group, &[2]).0, [0, 1, 5]);
        let mut bytes = segment(&group);
        bytes[(BLOCK + 3 * LEN) as usize + FRAME_HEADER] ^= 1;
        assert_eq!(verdict(&bytes), (vec![0, 1, 5], vec![(2, torn), (3, torn), (4, torn)]), "a lost payload alike");
    }

    #[test]
    fn a_damaged_group_loses_one_member() {
        let group = [(0, 1), (CONTINUES, 2), (CONTINUES | CONTINUED, 2), (CONTINUED, 2), (0, 3)];
        for lost in 1..4 {
            let (records, finds) = with_lost_headers(&group, &[lost]);
            assert_eq!(records, (0..5).filter(|index| *index != lost).collect::<Vec<_>>());
            assert_eq!(finds, [(lost, FindingKind::Damaged)]);
        }
    }

    #[test]
    fn of_a_vital_record_either_copy_is_enough() {
        let mut good = segment(&[(0, 1), (VITAL, 2), (COPY, 2), (0, 3)]);
        // Copies have the same payload; here they are told apart by their number, which does not matter.
        assert_eq!(verdict(&good), (vec![0, 1, 3], vec![]));
        for (lost, at) in [(1, 0), (1, FRAME_HEADER), (2, 0), (2, FRAME_HEADER)] {
            let byte = (BLOCK + lost * LEN) as usize + at;
            good[byte] ^= 1;
            assert_eq!(verdict(&good), (vec![0, 1, 3], vec![(lost, FindingKind::Copy)]), "copy {lost} at {at}");
            good[byte] ^= 1;
        }
        let both = with_lost_headers(&[(0, 1), (VITAL, 2), (COPY, 2), (0, 3)], &[1, 2]);
        assert_eq!(both, (vec![0, 3], vec![(1, FindingKind::Damaged)]));
    }
}
