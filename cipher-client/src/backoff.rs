//! Waiting times between attempts to connect: exponential, with full jitter.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The bounds of the waiting times between attempts to connect.
///
/// The n-th wait is drawn evenly from nothing to `initial * 2^n`, at most
/// `max`: a thousand clients that lost the same broker come back spread out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackoffOptions {
    initial: Duration,
    max: Duration,
    attempts: Option<u32>,
}

impl Default for BackoffOptions {
    /// 100 ms up to 5 s, without end.
    fn default() -> Self {
        Self { initial: Duration::from_millis(100), max: Duration::from_secs(5), attempts: None }
    }
}

impl BackoffOptions {
    /// Upper bound of the first wait.
    pub fn initial(mut self, initial: Duration) -> Self {
        self.initial = initial;
        self
    }

    /// Upper bound of every wait.
    pub fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// Give up after this many attempts in a row; the client is closed then
    /// and every call fails with
    /// [`ErrorKind::Connection`](crate::ErrorKind::Connection).
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    pub(crate) fn is_sound(&self) -> bool {
        !self.initial.is_zero() && self.initial <= self.max
    }
}

/// Where one run of attempts stands.
#[derive(Debug)]
pub(crate) struct Backoff {
    options: BackoffOptions,
    used: u32,
}

impl Backoff {
    pub(crate) fn new(options: BackoffOptions) -> Self {
        Self { options, used: 0 }
    }

    /// How long to wait before the next attempt; `None` when they are used up.
    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Option<Duration> {
        if self.options.attempts.is_some_and(|attempts| self.used >= attempts) {
            return None;
        }
        let factor = 2_u32.saturating_pow(self.used);
        let ceiling = self.options.initial.saturating_mul(factor).min(self.options.max);
        self.used = self.used.saturating_add(1);
        Some(ceiling.mul_f64(rng.random_range(0.0..=1.0)))
    }

    /// A connection lasted after one that was lost at `uptime`: one that
    /// lasted shorter than the longest wait counts as one more failure, so
    /// that a broker that accepts and drops is not hammered.
    pub(crate) fn connection_lasted(&mut self, uptime: Duration) {
        if uptime >= self.options.max {
            self.used = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn waits_grow_to_the_bound_and_are_spread() {
        let seed = 7;
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut spread = 0;
        for _ in 0..200 {
            let mut backoff = Backoff::new(BackoffOptions::default());
            for ceiling_ms in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
                let wait = backoff.next(&mut rng).unwrap();
                assert!(wait <= Duration::from_millis(ceiling_ms), "{wait:?} > {ceiling_ms} ms");
                spread += usize::from(wait > Duration::from_millis(ceiling_ms / 2));
            }
        }
        // Even over the whole range: about half of 1,600 lie in the upper half.
        assert!((650..950).contains(&spread), "{spread}");
    }

    #[test]
    fn the_same_seed_gives_the_same_waits() {
        let waits = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut backoff = Backoff::new(BackoffOptions::default());
            std::iter::repeat_with(|| backoff.next(&mut rng)).take(20).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }

    #[test]
    fn attempts_end_and_never_overflow() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut backoff = Backoff::new(BackoffOptions::default().max_attempts(100));
        assert_eq!(std::iter::from_fn(|| backoff.next(&mut rng)).count(), 100);
        assert_eq!(backoff.next(&mut rng), None);
    }

    #[test]
    fn only_a_connection_that_lasted_starts_the_count_anew() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut backoff = Backoff::new(BackoffOptions::default().max_attempts(1));
        assert!(backoff.next(&mut rng).is_some());
        backoff.connection_lasted(Duration::from_secs(1));
        assert!(backoff.next(&mut rng).is_none());
        backoff.connection_lasted(Duration::from_secs(5));
        assert!(backoff.next(&mut rng).is_some());
    }
}
