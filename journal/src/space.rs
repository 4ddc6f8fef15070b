use std::collections::VecDeque;

use crate::Position;

/// How many bytes of each segment are live: the owner says so at every commit and recovery.
///
/// A record is live as long as somebody retains bytes of it. A segment with no live bytes can be dropped; one with few is
/// emptied by writing the rest anew.
#[derive(Debug, Default)]
pub struct Space {
    /// Live bytes by the segment's first position, in order. `None` in a log without segments.
    segments: Option<VecDeque<(u64, u64)>>,
    live: u64,
    released: u64,
}

impl Space {
    /// The space of a log in memory: nothing is counted.
    pub fn uncounted() -> Space {
        Space::default()
    }

    pub(crate) fn counted() -> Space {
        Space { segments: Some(VecDeque::new()), ..Space::default() }
    }

    /// `bytes` of the record at `position` are of use from now on. Several parties may each retain a share of one record.
    pub fn retain(&mut self, position: Position, bytes: u64) {
        if let Some(live) = self.segment(position) {
            *live += bytes;
            self.live += bytes;
        }
    }

    /// `bytes` retained of the record at `position` are of no use any more.
    pub fn release(&mut self, position: Position, bytes: u64) {
        if let Some(live) = self.segment(position) {
            debug_assert!(*live >= bytes, "released {bytes} of {live} bytes at {position:?}");
            let released = bytes.min(*live);
            *live -= released;
            self.live -= released;
            self.released += released;
        }
    }

    /// A segment begins, behind all others.
    pub(crate) fn begin(&mut self, base: u64) {
        if let Some(segments) = &mut self.segments {
            segments.push_back((base, 0));
        }
    }

    /// The oldest segment is dropped.
    pub(crate) fn end(&mut self, base: u64) {
        let Some(segments) = &mut self.segments else { return };
        if let Some((_, live)) = segments.front().copied().filter(|(oldest, _)| *oldest == base) {
            segments.pop_front();
            self.live -= live;
        }
    }

    /// Live bytes of all segments.
    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    /// Live bytes of one segment.
    pub(crate) fn live_in(&mut self, base: u64) -> u64 {
        self.segment(Position(base)).map_or(0, |live| *live)
    }

    /// How many bytes were released since this was asked the last time.
    pub(crate) fn take_released(&mut self) -> u64 {
        std::mem::take(&mut self.released)
    }

    fn segment(&mut self, position: Position) -> Option<&mut u64> {
        let segments = self.segments.as_mut()?;
        // Most entries are of the newest segment, or of few.
        let index = match segments.back() {
            Some((newest, _)) if *newest <= position.0 => segments.len() - 1,
            _ => segments.partition_point(|(base, _)| *base <= position.0).checked_sub(1)?,
        };
        segments.get_mut(index).map(|(_, live)| live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_in_the_segment_of_their_position() {
        let mut space = Space::counted();
        [4096, 8192, 12288].into_iter().for_each(|base| space.begin(base));
        space.retain(Position(4200), 10);
        space.retain(Position(8191), 1);
        space.retain(Position(8192), 20);
        space.retain(Position(99_999), 30);
        assert_eq!([4096, 8192, 12288].map(|base| space.live_in(base)), [11, 20, 30]);
        space.release(Position(4200), 10);
        assert_eq!((space.live(), space.take_released(), space.take_released()), (51, 10, 0));
        space.end(4096);
        assert_eq!(space.live(), 50);
        space.release(Position(4200), 1);
        assert_eq!(space.live(), 50, "a dropped segment has nothing to release");
    }

    #[test]
    fn a_log_in_memory_counts_nothing() {
        let mut space = Space::uncounted();
        space.retain(Position(1), 10);
        space.release(Position(1), 10);
        assert_eq!((space.live(), space.live_in(0)), (0, 0));
    }
}
