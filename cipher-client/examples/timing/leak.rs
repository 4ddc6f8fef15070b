//! Leaks that are made on purpose, to see whether they would be seen.

use std::hint::black_box;

use sha1::{Digest, Sha1};

/// What a careless opening would do. All classes run it, so that they differ by the early return alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leak {
    /// Compares tags byte by byte, and returns at the first that differs.
    Comparison,
    /// Looks at the first byte of an OAEP padding, and takes off the masks only if it is right.
    Padding,
}

impl Leak {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Leak::Comparison => "an early return in a comparison of 16 bytes",
            Leak::Padding => "an early return before the masks of OAEP",
        }
    }

    /// What the careless code does; all of it, or as little as it can.
    pub(crate) fn run(self, is_all: bool) {
        match self {
            Leak::Comparison => {
                let found = if is_all { [7; 16] } else { [8; 16] };
                black_box(are_equal(black_box(&[7; 16]), black_box(&found)));
            }
            Leak::Padding => {
                if black_box(is_all) {
                    black_box(unmask(black_box(&[7; 256])));
                }
            }
        }
    }
}

fn are_equal(one: &[u8; 16], other: &[u8; 16]) -> bool {
    for (one, other) in one.iter().zip(other) {
        if black_box(*one) != black_box(*other) {
            return false;
        }
    }
    true
}

/// The hashing in OAEP with SHA-1 for a block of 2048 bits.
fn unmask(block: &[u8; 256]) -> u8 {
    let (seed, text) = block[1..].split_at(20);
    let mask = |from: &[u8], len: usize| -> Vec<u8> {
        let hash = |count: usize| Sha1::new().chain_update(from).chain_update((count as u32).to_be_bytes()).finalize();
        (0..len.div_ceil(20)).flat_map(hash).collect()
    };
    let seed: Vec<u8> = seed.iter().zip(mask(text, 20)).map(|(byte, mask)| byte ^ mask).collect();
    mask(&seed, text.len()).iter().zip(text).fold(0, |all, (mask, byte)| all | mask ^ byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistic::compare;
    use std::time::Instant;

    /// Measured alone, a thousand times over in each sample, they are seen on a busy machine.
    #[test]
    fn a_planted_leak_takes_the_time_that_it_says() {
        for leak in [Leak::Comparison, Leak::Padding] {
            let mut times = [Vec::new(), Vec::new()];
            for round in 0..400 {
                let start = Instant::now();
                (0..1000).for_each(|_| leak.run(round % 2 == 1));
                times[round % 2].push(vec![u32::try_from(start.elapsed().as_nanos()).unwrap()]);
            }
            let found = compare(&times[1], &times[0]);
            assert!(found.is_found() && found.t > 0.0, "{leak:?} {found:?}");
        }
    }
}
