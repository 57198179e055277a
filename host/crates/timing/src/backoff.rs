//! Growing, jittered delays between attempts.

use std::time::Duration;

/// Capped exponential back-off: each delay is drawn from the upper half of a span that doubles with every attempt, so that
/// clients that failed together do not retry together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    attempts: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// Returns delays of at most `first`, then twice that and so on, never above `cap`.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self::with_seed(first, cap, fastrand::u64(..))
    }

    /// Returns the same with delays determined by the seed.
    #[must_use]
    pub fn with_seed(first: Duration, cap: Duration, seed: u64) -> Self {
        Self { first, cap, attempts: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// Returns the delay before the next attempt.
    pub fn delay(&mut self) -> Duration {
        let span = self.first.saturating_mul(1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX)).min(self.cap);
        self.attempts = self.attempts.saturating_add(1);
        span.mul_f64(0.5 + self.random.f64() / 2.0)
    }

    /// Returns the number of delays since the last reset.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Resets the delays after a successful attempt.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap_and_restart_after_a_reset() {
        let second = Duration::from_secs(1);
        for seed in 0..50 {
            let mut backoff = Backoff::with_seed(second, 30 * second, seed);
            for span in [1, 2, 4, 8, 16, 30, 30] {
                let delay = backoff.delay();
                assert!(delay >= span * second / 2 && delay <= span * second, "{delay:?} of {span} s");
            }
            backoff.reset();
            assert!(backoff.delay() <= second);
            assert_eq!(backoff.attempts(), 1);
        }
    }

    #[test]
    fn many_attempts_do_not_overflow_and_seeds_differ() {
        let mut one = Backoff::with_seed(Duration::from_millis(100), Duration::from_secs(2), 1);
        let mut two = Backoff::with_seed(Duration::from_millis(100), Duration::from_secs(2), 2);
        let apart = (0..1000).filter(|_| one.delay() != two.delay()).count();
        assert!(apart > 900, "{apart}");
        assert!(one.delay() <= Duration::from_secs(2));
    }
}
