//! Welch's t-test with cropping, as in "Dude, is my code constant time?" (Reparaz, Balasch, Verbauwhede, 2016).
//!
//! What is compared are the mean times of envelopes. Two openings of one envelope are no two samples: where its session key
//! lies in the cache makes it a little slower or faster each time, and a class of few envelopes differ from another by
//! which these are.

/// From here on two means count as different. The usual bound of leakage tests: under no difference one comparison in
/// 150,000 passes it.
pub(crate) const T_MAX: f64 = 4.5;

/// Shares of the samples that are looked at, the fastest first: what the system adds to an operation makes it slower, and
/// hides small differences in the mean of all.
const CROPS: [f64; 6] = [1.0, 0.99, 0.95, 0.9, 0.75, 0.5];

/// Nanoseconds by envelope.
pub(crate) type Samples = [Vec<u32>];

/// Fewer envelopes of a class say nothing: their t is not spread as [`T_MAX`] supposes.
const SAMPLES_MIN: f64 = 30.0;

/// How the times of two classes differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Difference {
    /// The t of the crop with the largest |t|.
    pub(crate) t: f64,
    /// The smallest difference of the means, in nanoseconds, that would have passed [`T_MAX`] in some crop.
    pub(crate) seen_from: f64,
}

impl Difference {
    pub(crate) fn is_found(&self) -> bool {
        self.t.abs() > T_MAX
    }
}

/// Compares two sets of samples, in nanoseconds.
pub(crate) fn compare(one: &Samples, other: &Samples) -> Difference {
    compare_beyond(0.0, one, other)
}

/// Whether the means differ by more than `allowed` nanoseconds, in either direction.
pub(crate) fn compare_beyond(allowed: f64, one: &Samples, other: &Samples) -> Difference {
    let mut both: Vec<u32> = one.iter().chain(other).flatten().copied().collect();
    both.sort_unstable();
    let mut found = Difference { t: 0.0, seen_from: f64::INFINITY };
    for share in CROPS {
        let last = ((both.len() as f64 * share) as usize).clamp(1, both.len().max(1)) - 1;
        let Some(&most) = both.get(last) else { continue };
        let (one, other) = (Moments::up_to(most, one), Moments::up_to(most, other));
        let deviation = (one.variance_of_mean() + other.variance_of_mean()).sqrt();
        let is_enough = one.count.min(other.count) >= SAMPLES_MIN && deviation > 0.0;
        if !is_enough {
            continue;
        }
        let difference = one.mean - other.mean;
        let t = (difference - difference.clamp(-allowed, allowed)) / deviation;
        if t.abs() > found.t.abs() {
            found.t = t;
        }
        found.seen_from = found.seen_from.min(T_MAX * deviation);
    }
    found
}

/// The middle of the samples; 0 without any.
pub(crate) fn median(samples: &Samples) -> u32 {
    let mut sorted = samples.concat();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

struct Moments {
    count: f64,
    mean: f64,
    variance: f64,
}

impl Moments {
    fn up_to(most: u32, samples: &Samples) -> Self {
        let mean_of = |of_one: &Vec<u32>| {
            let kept = || of_one.iter().filter(|sample| **sample <= most).map(|sample| f64::from(*sample));
            let count = kept().count();
            (count > 0).then(|| kept().sum::<f64>() / count as f64)
        };
        let means: Vec<f64> = samples.iter().filter_map(mean_of).collect();
        let count = means.len() as f64;
        let mean = means.iter().sum::<f64>() / count;
        let variance = means.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / (count - 1.0);
        Self { count, mean, variance }
    }

    fn variance_of_mean(&self) -> f64 {
        self.variance / self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    const SEED: u64 = 17;

    /// Times as they are: a narrow body, and now and then an interruption.
    fn times(random: &mut StdRng, count: usize, middle: u32) -> Vec<Vec<u32>> {
        let one = |_| vec![time(random, middle)];
        (0..count).map(one).collect()
    }

    fn time(random: &mut StdRng, middle: u32) -> u32 {
        let interrupted = if random.random_ratio(1, 50) { random.random_range(0..20_000) } else { 0 };
        middle - 20 + random.random_range(0..40) + interrupted
    }

    fn single(samples: &[u32]) -> Vec<Vec<u32>> {
        samples.iter().map(|sample| vec![*sample]).collect()
    }

    #[test]
    fn the_t_is_welchs() {
        // By hand: means 3 and 4, sums of squares 10 and 40 for every five, so with n = 200 and m = 100 variances of
        // 400 / 199 and 800 / 99, and t = -1 / sqrt(400 / 199 / 200 + 800 / 99 / 100).
        let (one, other) = (single(&[1, 2, 3, 4, 5].repeat(40)), single(&[0, 2, 4, 6, 8].repeat(20)));
        let all = -1.0 / (400.0 / 199.0 / 200.0 + 800.0 / 99.0 / 100.0_f64).sqrt();
        let moments = [Moments::up_to(u32::MAX, &one), Moments::up_to(u32::MAX, &other)];
        let t = (moments[0].mean - moments[1].mean) / moments.iter().map(Moments::variance_of_mean).sum::<f64>().sqrt();
        assert!((t - all).abs() < 1e-9, "{t} {all}");
        assert!(compare(&one, &other).t.abs() >= all.abs(), "the crops only add");
    }

    #[test]
    fn equal_times_are_not_told_apart() {
        let mut random = StdRng::seed_from_u64(SEED);
        for round in 0..20 {
            let found = compare(&times(&mut random, 20_000, 700), &times(&mut random, 20_000, 700));
            assert!(!found.is_found(), "round {round}: {found:?}");
        }
    }

    /// Each has its own place in memory, the same in all of its openings.
    #[test]
    fn envelopes_that_are_faster_or_slower_than_others_are_no_difference_of_classes() {
        let mut random = StdRng::seed_from_u64(SEED);
        let mut class = || -> Vec<Vec<u32>> {
            let mut envelope = |_| {
                let middle = 690 + random.random_range(0..20);
                (0..500).map(|_| time(&mut random, middle)).collect()
            };
            (0..40).map(&mut envelope).collect()
        };
        for round in 0..20 {
            let found = compare(&class(), &class());
            assert!(!found.is_found(), "round {round}: {found:?}");
        }
    }

    /// One nanosecond in 700, under interruptions of up to 20 microseconds.
    #[test]
    fn a_small_difference_is_found_under_interruptions() {
        let mut random = StdRng::seed_from_u64(SEED);
        let found = compare(&times(&mut random, 20_000, 701), &times(&mut random, 20_000, 700));
        assert!(found.is_found() && found.t > 0.0, "{found:?}");
        assert!(found.seen_from < 1.0, "{found:?}");
    }

    #[test]
    fn too_few_samples_find_nothing() {
        for samples in [&[][..], &[5], &[5, 5, 5]] {
            assert!(!compare(&single(samples), &single(&[9; 1000])).is_found());
        }
        assert!(!compare(&[vec![5; 1000]], &[vec![9; 1000]]).is_found(), "of one envelope");
        assert!(!compare(&single(&[5; 1000]), &single(&[5; 1000])).is_found(), "nothing varies");
        assert_eq!((median(&[]), median(&single(&[9, 1, 5]))), (0, 5));
    }

    #[test]
    fn a_difference_that_is_allowed_is_none_and_what_goes_beyond_is_one() {
        let mut random = StdRng::seed_from_u64(SEED);
        let (one, other) = (times(&mut random, 20_000, 1000), times(&mut random, 20_000, 1010));
        assert!(compare(&one, &other).is_found());
        for (allowed, is_found) in [(5.0, true), (15.0, false)] {
            for (one, other) in [(&one, &other), (&other, &one)] {
                assert_eq!(compare_beyond(allowed, one, other).is_found(), is_found, "{allowed}");
            }
        }
    }
}
