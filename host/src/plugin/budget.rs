//! How often a failing instance may be rebuilt.

use std::time::{Duration, Instant};

/// Rebuilds that may follow each other at once.
const CAPACITY: u32 = 10;
/// Time after which one more is allowed.
const REFILL: Duration = Duration::from_mins(1);

/// A token bucket: ten rebuilds at once, then one per minute.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    counted: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: CAPACITY, counted: now }
    }

    /// Takes one rebuild, or says how long there is none.
    pub(super) fn spend(&mut self, now: Instant) -> Result<(), Duration> {
        while self.left < CAPACITY && now.saturating_duration_since(self.counted) >= REFILL {
            self.left += 1;
            self.counted += REFILL;
        }
        if self.left == CAPACITY {
            self.counted = now;
        }
        let wait = REFILL.saturating_sub(now.saturating_duration_since(self.counted));
        self.left = self.left.checked_sub(1).ok_or(wait)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_rebuilds_are_free_and_then_one_comes_back_each_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut budget = Budget::new(start);
        for _ in 0..10 {
            assert_eq!(budget.spend(at(5)), Ok(()));
        }
        assert_eq!(budget.spend(at(5)), Err(Duration::from_mins(1)));
        assert_eq!(budget.spend(at(64)), Err(Duration::from_secs(1)));
        assert_eq!(budget.spend(at(65)), Ok(()));
        assert_eq!(budget.spend(at(66)), Err(Duration::from_secs(59)));
        assert_eq!(budget.spend(at(190)), Ok(()));
        assert_eq!(budget.spend(at(190)), Ok(()));
        assert_eq!(budget.spend(at(190)), Err(Duration::from_secs(55)));
    }

    #[test]
    fn a_budget_that_rested_is_full_and_no_fuller() {
        let start = Instant::now();
        let later = start + Duration::from_hours(24);
        let mut budget = Budget::new(start);
        budget.spend(start).unwrap();
        for _ in 0..10 {
            budget.spend(later).unwrap();
        }
        assert_eq!(budget.spend(later), Err(Duration::from_mins(1)));
    }
}
