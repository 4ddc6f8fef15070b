//! The numbers a window on disk is built with.
//!
//! Records lie in a ring of *slots* in order of arrival; the newest overwrites
//! the oldest. `seq` numbers messages without an end: `slot` is what remains
//! when it is divided by the slots, `lap` the quotient. A *segment* is a run of
//! slots that shares an index; messages of the newest, which is being filled,
//! are looked up in memory.

/// How many records a window remembers and how they are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Messages remembered.
    pub(super) entries: u64,
    /// Slots of a segment.
    pub(super) segment: u64,
    /// Segments of the ring.
    pub(super) segments: u64,
}

/// A filter has 255 tags for segments: those of the ring, one more while the
/// oldest is overwritten, and one whose entries are being removed.
pub(super) const SEGMENTS_AIM: u64 = 200;
const SEGMENT_MIN: u64 = 64;

impl Shape {
    pub(super) const fn of(entries: u64) -> Self {
        let aim = entries.div_ceil(SEGMENTS_AIM);
        let segment = if aim > SEGMENT_MIN { aim } else { SEGMENT_MIN };
        // More slots than entries: a record that is being written is not yet
        // one of those remembered, and what it overwrites no longer one.
        Self { entries, segment, segments: entries / segment + 1 }
    }

    pub(super) fn slots(&self) -> u64 {
        self.segment * self.segments
    }

    pub(super) fn slot(&self, seq: u64) -> u64 {
        seq % self.slots()
    }

    /// As records keep it.
    pub(super) fn lap(&self, seq: u64) -> u8 {
        (seq / self.slots()) as u8
    }

    /// The number of a message in `slot` of lap `lap`, in a ring whose next
    /// message is to be `head`: the one of that lap nearest to `head`.
    pub(super) fn seq(&self, head: u64, slot: u64, lap: u8) -> u64 {
        let head_lap = head / self.slots();
        let ahead = lap.wrapping_sub(head_lap as u8) as i8;
        head_lap.saturating_add_signed(ahead.into()) * self.slots() + slot
    }

    /// Whether message `seq` is among the last `entries`.
    pub(super) fn holds(&self, head: u64, seq: u64) -> bool {
        seq < head && head - seq <= self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_entries_fits_with_a_slot_to_spare() {
        let some = [1, 63, 64, 65, 12_799, 12_800, 12_801, 1_000_000, 9_999_999, 10_000_000, 100_000_000];
        for entries in (1..2000).chain(some) {
            let shape = Shape::of(entries);
            assert!(shape.slots() > entries, "{shape:?}");
            assert!(shape.slots() - entries <= shape.segment, "{shape:?}");
            assert!(shape.segments <= SEGMENTS_AIM + 1, "{shape:?}");
        }
    }

    #[test]
    fn ten_million_messages_take_less_than_400_megabytes_of_disk() {
        let shape = Shape::of(10_000_000);
        let places = shape.slots() * 2 * super::super::places::PLACE_LEN as u64;
        let ring = super::super::ring::DATA_AT + shape.slots() * super::super::record::RECORD_LEN as u64;
        assert!(ring + places < 400_000_000, "{}", ring + places);
    }

    #[test]
    fn a_number_is_found_again_from_its_slot_and_lap() {
        let shape = Shape::of(100);
        for head in 300 * shape.slots()..302 * shape.slots() {
            for seq in head - shape.slots()..head {
                assert_eq!(shape.seq(head, shape.slot(seq), shape.lap(seq)), seq);
            }
        }
    }
}
