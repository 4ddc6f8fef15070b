use crate::frame::{BLOCK, Checks, END_MARK, FRAME_HEADER, FrameHeader, SEAL, frame_len};

/// How much is kept of what stands behind the last frame where nobody knows how far it goes.
const TAIL_BYTES_MAX: u64 = 1 << 20;

/// A frame whose header is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) offset: u64,
    pub(crate) header: FrameHeader,
    /// The payload is what was written.
    pub(crate) is_whole: bool,
    /// The padding is zero.
    pub(crate) is_padded: bool,
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// How far the frames of a segment go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Up to here; the next segment says so.
    To(u64),
    /// Unknown: the log ends somewhere in this segment.
    Open,
}

/// The frames of a segment.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// In order.
    pub(crate) frames: Vec<Frame>,
    /// In order.
    pub(crate) gaps: Vec<Gap>,
    /// Where the last frame ends.
    pub(crate) end: u64,
    pub(crate) is_sealed: bool,
}

/// Bytes of a segment, from an offset on.
#[derive(Clone, Copy)]
pub(crate) struct Stretch<'a> {
    pub(crate) start: u64,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Stretch<'a> {
    pub(crate) fn end(self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// What stands at `offset` and behind it.
    fn at(self, offset: u64) -> Option<&'a [u8]> {
        self.bytes.get(usize::try_from(offset.checked_sub(self.start)?).ok()?..)
    }
}

impl Frame {
    pub(crate) fn end(&self) -> u64 {
        self.offset + frame_len(u64::from(self.header.len))
    }

    pub(crate) fn has(&self, flag: u32) -> bool {
        self.header.flags & flag != 0
    }
}

impl Frames {
    /// Finds the frames in `bytes`: the segment up to the end of its extent, from its beginning or from where a frame should be. Wherever
    /// one should be and is not, every eighth byte is tried until the next frame: one is never lost because of what stands in
    /// front of it.
    pub(crate) fn find(bytes: Stretch<'_>, checks: Checks, extent: Extent) -> Frames {
        let mut offset = bytes.start.max(BLOCK);
        let mut found = Frames { end: offset, ..Frames::default() };
        loop {
            if let Some(frame) = frame_at(bytes, offset, checks) {
                found.frames.push(frame);
                offset = frame.end();
                found.end = offset;
                if frame.has(SEAL) {
                    found.is_sealed = true;
                    return found;
                }
            } else if let Some(next) = next_frame(bytes, offset, checks) {
                found.gaps.push(Gap { offset, len: next - offset });
                offset = next;
            } else {
                found.gaps.extend(tail(bytes, offset, extent));
                return found;
            }
        }
    }
}

fn frame_at(bytes: Stretch<'_>, offset: u64, checks: Checks) -> Option<Frame> {
    let frame = bytes.at(offset)?;
    let header = FrameHeader::read(frame, offset, checks)?;
    let len = header.len as usize;
    let frame = frame.get(FRAME_HEADER..frame_len(u64::from(header.len)) as usize)?;
    let (payload, padding) = frame.split_at(len);
    let is_whole = header.matches(payload, offset, checks);
    Some(Frame { offset, header, is_whole, is_padded: padding.iter().all(|byte| *byte == 0) })
}

/// Whether there is a frame at `offset` or behind it.
pub(crate) fn has_frames(bytes: Stretch<'_>, offset: u64, checks: Checks) -> bool {
    frame_at(bytes, offset, checks).or_else(|| frame_at(bytes, next_frame(bytes, offset, checks)?, checks)).is_some()
}

/// Where the next frame stands behind `offset`.
fn next_frame(bytes: Stretch<'_>, offset: u64, checks: Checks) -> Option<u64> {
    let mut at = offset + 8;
    while at + FRAME_HEADER as u64 <= bytes.end() {
        let here = bytes.at(at)?;
        // Most of an unfinished segment is zeros.
        if here.starts_with(&[0; 256]) {
            at += 256 - END_MARK;
        } else if FrameHeader::read(here, at, checks).is_some() && frame_at(bytes, at, checks).is_some() {
            return Some(at);
        }
        at += 8;
    }
    None
}

/// What stands behind the last frame and should not.
fn tail(bytes: Stretch<'_>, offset: u64, extent: Extent) -> Option<Gap> {
    if let Extent::To(end) = extent {
        return (offset < end).then(|| Gap { offset, len: end - offset });
    }
    let rest = bytes.at(offset)?;
    if rest.iter().take(END_MARK as usize).all(|byte| *byte == 0) {
        return None;
    }
    let rest = &rest[..rest.len().min(TAIL_BYTES_MAX as usize)];
    let len = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
    Some(Gap { offset, len })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{CHECKPOINT, finish_frame};

    fn find(bytes: &[u8], extent: Extent) -> Frames {
        Frames::find(Stretch { start: 0, bytes }, CHECKS, extent)
    }

    const CHECKS: Checks = Checks { salt: 99, base: 4096 };

    /// A segment of 16 KiB with these payloads, each in its own write.
    fn segment(payloads: &[&[u8]]) -> (Vec<u8>, Vec<u64>) {
        let mut bytes = vec![0; BLOCK as usize];
        let mut offsets = Vec::new();
        for (index, payload) in payloads.iter().enumerate() {
            let start = bytes.len();
            offsets.push(start as u64);
            bytes.resize(start + FRAME_HEADER, 0);
            bytes.extend_from_slice(payload);
            let batch = index as u32 + 1;
            finish_frame(&mut bytes, start, start as u64, CHECKS, CHECKPOINT, batch, batch - 1);
        }
        offsets.push(bytes.len() as u64);
        bytes.resize(16384, 0);
        (bytes, offsets)
    }

    #[test]
    fn frames_are_found_up_to_the_zeros() {
        let (bytes, offsets) = segment(&[b"one", b"", &[7; 5000]]);
        let found = find(&bytes, Extent::Open);
        assert_eq!(found.frames.iter().map(|frame| frame.offset).collect::<Vec<_>>(), offsets[..3]);
        assert!(found.frames.iter().all(|frame| frame.is_whole && frame.is_padded));
        assert_eq!((found.end, found.gaps.len(), found.is_sealed), (offsets[3], 0, false));
    }

    #[test]
    fn a_lost_header_costs_only_its_frame() {
        let (mut bytes, offsets) = segment(&[b"one", &[7; 5000], b"three"]);
        bytes[offsets[1] as usize] ^= 1;
        let found = find(&bytes, Extent::Open);
        assert_eq!(found.frames.iter().map(|frame| frame.offset).collect::<Vec<_>>(), [offsets[0], offsets[2]]);
        assert_eq!(found.gaps, [Gap { offset: offsets[1], len: offsets[2] - offsets[1] }]);
    }

    #[test]
    fn frames_behind_a_hole_of_zeros_are_found() {
        let (mut bytes, offsets) = segment(&[b"one", &[7; 5000], b"three"]);
        bytes[offsets[1] as usize..offsets[2] as usize].fill(0);
        let found = find(&bytes, Extent::Open);
        assert_eq!(found.gaps, [Gap { offset: offsets[1], len: offsets[2] - offsets[1] }]);
        assert_eq!(found.end, offsets[3]);
    }

    #[test]
    fn what_is_left_of_an_earlier_life_is_no_frame() {
        let (mut bytes, offsets) = segment(&[b"one", b"two"]);
        let (earlier, _) = segment(&[b"one", b"two", b"three"]);
        let (_, rest) = earlier.split_at(offsets[2] as usize);
        // Frames of another salt, behind the zeros of the last write.
        bytes[offsets[2] as usize + 32..].copy_from_slice(&rest[..rest.len() - 32]);
        let found = find(&bytes, Extent::Open);
        assert_eq!((found.frames.len(), found.gaps.len(), found.end), (2, 0, offsets[2]));
    }

    #[test]
    fn bytes_missing_in_front_of_a_known_end_are_a_gap() {
        let (mut bytes, offsets) = segment(&[b"one", b"two"]);
        bytes.truncate(offsets[2] as usize);
        bytes[offsets[1] as usize] ^= 1;
        let found = find(&bytes, Extent::To(offsets[2]));
        assert_eq!(found.gaps, [Gap { offset: offsets[1], len: offsets[2] - offsets[1] }]);
    }

    #[test]
    fn a_part_of_a_segment_has_the_same_frames() {
        let (mut bytes, offsets) = segment(&[b"one", &[7; 5000], b"three", b"four"]);
        bytes[offsets[2] as usize] ^= 1;
        let whole = find(&bytes, Extent::To(offsets[4]));
        let part = Stretch { start: offsets[1], bytes: &bytes[offsets[1] as usize..offsets[4] as usize] };
        let part = Frames::find(part, CHECKS, Extent::To(offsets[4]));
        assert_eq!((&part.frames[..], &part.gaps[..], part.end), (&whole.frames[1..], &whole.gaps[..], whole.end));
    }

    #[test]
    fn a_torn_end_is_kept_up_to_its_last_byte() {
        let (mut bytes, offsets) = segment(&[b"one", &[7; 100]]);
        bytes[offsets[1] as usize] ^= 1;
        let found = find(&bytes, Extent::Open);
        assert_eq!(found.gaps, [Gap { offset: offsets[1], len: 32 + 100 }]);
        assert_eq!(found.end, offsets[1]);
    }
}
