//! Delays that grow, with jitter.

use std::time::Duration;

/// Exponential delays between `first` and `longest`, each shortened by up to a quarter at random so that many who wait
/// for the same thing do not come back at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    /// Starts anew with these bounds.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempts: 0 }
    }

    /// How many delays were asked for since the last reset.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The next delay: `first` · 2ⁿ, at most `longest`, minus jitter.
    pub fn next_delay(&mut self) -> Duration {
        let factor = 2_u32.saturating_pow(self.attempts.min(30));
        self.attempts = self.attempts.saturating_add(1);
        self.first.saturating_mul(factor).min(self.longest).mul_f64(1.0 - 0.25 * fastrand::f64())
    }

    /// Back to the first delay.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_start_anew_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let within = |delay: Duration, nominal: f64| {
            let seconds = delay.as_secs_f64();
            assert!(
                seconds <= nominal && seconds >= nominal * 0.75,
                "{seconds} is not within a quarter below {nominal}"
            );
        };
        for nominal in [1.0, 2.0, 4.0, 5.0, 5.0] {
            within(backoff.next_delay(), nominal);
        }
        backoff.reset();
        within(backoff.next_delay(), 1.0);
    }
}
