//! Restart policy of a coprocess.

use std::time::Duration;

use ochopod_timing::Backoff;

use super::config;

/// A coprocess that ran this long is restarted immediately.
const HEALTHY_AFTER: Duration = Duration::from_mins(1);
/// Delays before a restart: none before the first one, then this, doubled each time.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(500);
const MAX_RETRY_DELAY: Duration = Duration::from_mins(1);

/// Remaining restarts of a coprocess, and the delay of the next one.
pub(super) struct RestartBackoff {
    allowed: config::RestartLimit,
    backoff: Backoff,
}

impl RestartBackoff {
    pub(super) fn new(allowed: config::RestartLimit) -> Self {
        Self { allowed, backoff: Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY) }
    }

    /// Returns the delay of the next restart after a run of this length; none if there is no restart.
    pub(super) fn next(&mut self, ran: Duration) -> Option<Duration> {
        if let config::RestartLimit::AtMost(left) = &mut self.allowed {
            *left = left.checked_sub(1)?;
        }
        if ran >= HEALTHY_AFTER {
            self.backoff.reset();
        }
        let is_first = self.backoff.attempts() == 0;
        let wait = self.backoff.delay();
        Some(if is_first { Duration::ZERO } else { wait })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn runs_are_one_more_than_restarts_as_in_containerpilot() {
        let vectors: Value = serde_json::from_str(include_str!("../../../../tests/vectors/coprocesses.json")).unwrap();
        for case in vectors["runs_of_a_command_that_exits_at_once"].as_array().unwrap() {
            let allowed = match &case["restarts"] {
                Value::Number(number) => number.as_u64().unwrap(),
                Value::String(text) => text.parse().unwrap_or(0),
                _ => 0,
            };
            let mut restarts = RestartBackoff::new(config::RestartLimit::AtMost(allowed));
            let runs = 1 + std::iter::from_fn(|| restarts.next(Duration::ZERO)).count();
            assert_eq!(case["runs"], runs, "{case}");
        }
    }

    #[test]
    fn first_restart_is_immediate_and_later_delays_grow_to_a_minute() {
        let mut restarts = RestartBackoff::new(config::RestartLimit::Unlimited);
        assert_eq!(restarts.next(Duration::ZERO), Some(Duration::ZERO));
        for span in [1, 2, 4, 8, 16, 32, 60, 60, 60].map(Duration::from_secs) {
            let wait = restarts.next(HEALTHY_AFTER / 2).unwrap();
            assert!(span / 2 <= wait && wait <= span, "{wait:?} of {span:?}");
        }
        for _ in 0..1000 {
            assert!(restarts.next(Duration::ZERO).unwrap() <= MAX_RETRY_DELAY);
        }
    }

    #[test]
    fn restart_after_a_healthy_minute_is_immediate() {
        let mut restarts = RestartBackoff::new(config::RestartLimit::Unlimited);
        for _ in 0..5 {
            restarts.next(Duration::ZERO);
        }
        assert_eq!(restarts.next(HEALTHY_AFTER), Some(Duration::ZERO));
        assert!(restarts.next(Duration::ZERO).unwrap() > Duration::ZERO);
    }
}
