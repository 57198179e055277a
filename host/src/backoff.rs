//! Growing, jittered waits between attempts.

use std::time::Duration;

/// Capped exponential back-off: each wait is drawn from the upper half of a span that doubles with every attempt, so that
/// those who failed together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    attempts: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// Waits of at most `first`, then twice that and so on, never above `cap`.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self::seeded(first, cap, fastrand::u64(..))
    }

    /// The same with waits that the seed determines.
    #[must_use]
    pub fn seeded(first: Duration, cap: Duration, seed: u64) -> Self {
        Self { first, cap, attempts: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// The wait before the next attempt.
    pub fn delay(&mut self) -> Duration {
        let span = self.first.saturating_mul(1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX)).min(self.cap);
        self.attempts = self.attempts.saturating_add(1);
        span.mul_f64(0.5 + self.random.f64() / 2.0)
    }

    /// How many waits there were since the last reset.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Starts anew: an attempt succeeded.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_anew_after_a_reset() {
        let second = Duration::from_secs(1);
        for seed in 0..50 {
            let mut backoff = Backoff::seeded(second, 30 * second, seed);
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
    fn a_thousand_attempts_do_not_overflow_and_two_seeds_do_not_march_in_step() {
        let mut one = Backoff::seeded(Duration::from_millis(100), Duration::from_secs(2), 1);
        let mut two = Backoff::seeded(Duration::from_millis(100), Duration::from_secs(2), 2);
        let apart = (0..1000).filter(|_| one.delay() != two.delay()).count();
        assert!(apart > 900, "{apart}");
        assert!(one.delay() <= Duration::from_secs(2));
    }
}
