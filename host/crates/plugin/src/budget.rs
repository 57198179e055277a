//! Limit on the rate of rebuilds of a failing instance.

use std::time::{Duration, Instant};

/// Number of rebuilds without a delay.
const MAX_TOKENS: u32 = 10;
/// Time after which another rebuild is allowed.
const REFILL_INTERVAL: Duration = Duration::from_mins(1);

/// Token bucket: ten rebuilds without a delay, then one per minute.
#[derive(Debug)]
pub(super) struct RebuildBudget {
    tokens: u32,
    refilled_at: Instant,
}

impl RebuildBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: MAX_TOKENS, refilled_at: now }
    }

    /// Takes a token for one rebuild.
    ///
    /// # Errors
    /// The time until the next token.
    pub(super) fn take_token(&mut self, now: Instant) -> Result<(), Duration> {
        while self.tokens < MAX_TOKENS && now.saturating_duration_since(self.refilled_at) >= REFILL_INTERVAL {
            self.tokens += 1;
            self.refilled_at += REFILL_INTERVAL;
        }
        if self.tokens == MAX_TOKENS {
            self.refilled_at = now;
        }
        let wait = REFILL_INTERVAL.saturating_sub(now.saturating_duration_since(self.refilled_at));
        self.tokens = self.tokens.checked_sub(1).ok_or(wait)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_rebuilds_are_immediate_and_then_one_is_allowed_per_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut budget = RebuildBudget::new(start);
        for _ in 0..10 {
            assert_eq!(budget.take_token(at(5)), Ok(()));
        }
        assert_eq!(budget.take_token(at(5)), Err(Duration::from_mins(1)));
        assert_eq!(budget.take_token(at(64)), Err(Duration::from_secs(1)));
        assert_eq!(budget.take_token(at(65)), Ok(()));
        assert_eq!(budget.take_token(at(66)), Err(Duration::from_secs(59)));
        assert_eq!(budget.take_token(at(190)), Ok(()));
        assert_eq!(budget.take_token(at(190)), Ok(()));
        assert_eq!(budget.take_token(at(190)), Err(Duration::from_secs(55)));
    }

    #[test]
    fn unused_budget_does_not_exceed_its_capacity() {
        let start = Instant::now();
        let later = start + Duration::from_hours(24);
        let mut budget = RebuildBudget::new(start);
        budget.take_token(start).unwrap();
        for _ in 0..10 {
            budget.take_token(later).unwrap();
        }
        assert_eq!(budget.take_token(later), Err(Duration::from_mins(1)));
    }
}
