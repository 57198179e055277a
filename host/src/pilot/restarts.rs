//! When a coprocess that ended is started again.

use std::time::Duration;

use super::config;
use crate::backoff::Backoff;

/// A coprocess that ran this long is healthy: when it ends, it is started again at once.
const HEALTHY: Duration = Duration::from_mins(1);
/// Waits before a start: none before the first one that follows an end, then twice this, and so on.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// What is left of a coprocess's restarts.
pub(super) struct Restarts {
    allowed: config::Restarts,
    backoff: Backoff,
}

impl Restarts {
    pub(super) fn new(allowed: config::Restarts) -> Self {
        Self { allowed, backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT) }
    }

    /// How long to wait before it is started again after it ran for so long; none when it is not.
    pub(super) fn next(&mut self, ran: Duration) -> Option<Duration> {
        if let config::Restarts::Most(left) = &mut self.allowed {
            *left = left.checked_sub(1)?;
        }
        if ran >= HEALTHY {
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
    fn so_many_restarts_are_one_run_more_as_with_containerpilot() {
        let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/coprocesses.json")).unwrap();
        for case in vectors["runs_of_a_command_that_exits_at_once"].as_array().unwrap() {
            let allowed = match &case["restarts"] {
                Value::Number(number) => number.as_u64().unwrap(),
                Value::String(text) => text.parse().unwrap_or(0),
                _ => 0,
            };
            let mut restarts = Restarts::new(config::Restarts::Most(allowed));
            let runs = 1 + std::iter::from_fn(|| restarts.next(Duration::ZERO)).count();
            assert_eq!(case["runs"], runs, "{case}");
        }
    }

    #[test]
    fn the_first_restart_is_at_once_and_later_ones_wait_longer_and_longer_up_to_a_minute() {
        let mut restarts = Restarts::new(config::Restarts::Unlimited);
        assert_eq!(restarts.next(Duration::ZERO), Some(Duration::ZERO));
        for span in [1, 2, 4, 8, 16, 32, 60, 60, 60].map(Duration::from_secs) {
            let wait = restarts.next(HEALTHY / 2).unwrap();
            assert!(span / 2 <= wait && wait <= span, "{wait:?} of {span:?}");
        }
        for _ in 0..1000 {
            assert!(restarts.next(Duration::ZERO).unwrap() <= LONGEST_WAIT);
        }
    }

    #[test]
    fn a_healthy_minute_makes_the_next_restart_immediate_again() {
        let mut restarts = Restarts::new(config::Restarts::Unlimited);
        for _ in 0..5 {
            restarts.next(Duration::ZERO);
        }
        assert_eq!(restarts.next(HEALTHY), Some(Duration::ZERO));
        assert!(restarts.next(Duration::ZERO).unwrap() > Duration::ZERO);
    }
}
