/// Steps within a power of two: a recorded time is off by less than 1/64.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// One row of steps for each power of two of a `u64`, the exact small numbers being the first.
const SLOTS: usize = (64 - STEP_BITS as usize + 1) * STEPS as usize;

/// Counts of times in nanoseconds, in slots whose width grows with the time. Recording never allocates.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    slots: Vec<u64>,
    count: u64,
}

impl Histogram {
    pub(super) fn new() -> Histogram {
        Histogram { slots: vec![0; SLOTS], count: 0 }
    }

    /// Records `count` times of `nanos`.
    pub(super) fn record(&mut self, nanos: u64, count: u64) {
        self.slots[slot(nanos)] += count;
        self.count += count;
    }

    pub(super) fn add(&mut self, other: &Histogram) {
        for (slot, more) in self.slots.iter_mut().zip(&other.slots) {
            *slot += more;
        }
        self.count += other.count;
    }

    /// The time that the fraction `part` of all recorded times does not exceed, in microseconds; 0 without any.
    pub(super) fn percentile_us(&self, part: f64) -> f64 {
        let wanted = (self.count as f64 * part).ceil() as u64;
        let mut seen = 0;
        let found = self.slots.iter().position(|count| {
            seen += count;
            seen >= wanted && seen > 0
        });
        found.map_or(0.0, |slot| highest(slot) as f64 / 1000.0)
    }
}

fn slot(nanos: u64) -> usize {
    let octave = (u64::BITS - nanos.leading_zeros()).saturating_sub(STEP_BITS + 1);
    let step = nanos >> octave;
    (u64::from(octave) * STEPS + step) as usize
}

/// The highest time that is counted in `slot`.
fn highest(slot: usize) -> u64 {
    let slot = slot as u64;
    let octave = (slot / STEPS).saturating_sub(1);
    let step = slot - octave * STEPS;
    ((step + 1) << octave).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_slot_that_is_close_to_it() {
        let around = |shift: u32| [(1u64 << shift) - 1, 1 << shift, (1 << shift) + 1];
        for nanos in (0..300).chain((8..64).flat_map(around)).chain([u64::MAX]) {
            let slot = slot(nanos);
            assert!(slot < SLOTS, "{nanos}");
            let shown = highest(slot);
            assert!(shown >= nanos && shown - nanos <= nanos / STEPS, "{nanos} is shown as {shown}");
            assert!(slot == 0 || highest(slot - 1) < nanos, "{nanos}");
        }
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut low = Histogram::new();
        low.record(1_000, 90);
        let mut all = Histogram::new();
        all.record(50_000, 9);
        all.record(1_000_000, 1);
        all.add(&low);
        assert_eq!(Histogram::new().percentile_us(0.5), 0.0);
        for (part, exact) in [(0.5, 1.0), (0.9, 1.0), (0.95, 50.0), (0.99, 50.0), (0.999, 1000.0)] {
            let shown = all.percentile_us(part);
            assert!((shown - exact).abs() <= exact / STEPS as f64, "{part}: {shown}");
        }
    }
}
