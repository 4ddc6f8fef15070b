use std::collections::BTreeMap;

use crate::Position;

/// How many bytes of each segment are live: the owner says so at every commit and recovery.
///
/// A record is live as long as somebody retains bytes of it. A segment with no live bytes can be dropped; one with few is
/// emptied by writing the rest anew.
#[derive(Debug, Default)]
pub struct Space {
    /// Live bytes by the segment's first position. `None` in a log without segments.
    segments: Option<BTreeMap<u64, u64>>,
    live: u64,
}

impl Space {
    /// The space of a log in memory: nothing is counted.
    pub fn uncounted() -> Space {
        Space::default()
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
        }
    }

    fn segment(&mut self, position: Position) -> Option<&mut u64> {
        self.segments.as_mut()?.range_mut(..=position.0).next_back().map(|(_, live)| live)
    }
}
