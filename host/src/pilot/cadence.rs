//! When what is done again and again is due.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Far enough for what never comes.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// Ticks at each interval from now on, the first one interval from now. Of those that come while nobody waits for one, one
/// is kept: whoever takes longer than an interval goes on at once, and then in step again.
pub(super) fn cadence(every: Duration) -> Interval {
    let every = every.clamp(Duration::from_millis(1), LONGEST);
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokio::time::{sleep, timeout_at};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// When each of so many actions that take so long begins, in milliseconds.
    async fn beginnings(every: u32, takes: &[u32]) -> Vec<u128> {
        let begin = Instant::now();
        let mut ticks = cadence(every * MS);
        let mut found = Vec::new();
        for takes in takes {
            ticks.tick().await;
            found.push(begin.elapsed().as_millis());
            sleep(*takes * MS).await;
        }
        found
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_action_comes_after_one_interval_and_at_most_one_is_kept_while_one_takes_long() {
        for (every, takes, expected) in [
            (100, &[0, 0, 0][..], &[100, 200, 300][..]),
            (100, &[30, 99, 30], &[100, 200, 300]),
            (100, &[150, 0, 0], &[100, 250, 300]),
            (100, &[470, 0, 0], &[100, 570, 600]),
            (100, &[470, 470, 0], &[100, 570, 1040]),
        ] {
            assert_eq!(beginnings(every, takes).await, expected, "{takes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_come_as_with_containerpilot() {
        let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/tasks.json")).unwrap();
        let case = &vectors["timing"][0];
        assert_eq!(case["frequency"], "100ms");
        let end = Instant::now() + Duration::from_millis(case["observe_ms"].as_u64().unwrap());
        let mut ticks = cadence(100 * MS);
        let mut runs = 0;
        while timeout_at(end, ticks.tick()).await.is_ok() {
            runs += 1;
        }
        assert_eq!(case["runs"], runs);
    }

    #[tokio::test(start_paused = true)]
    async fn no_interval_is_too_short_or_too_long() {
        cadence(Duration::ZERO).tick().await;
        cadence(Duration::MAX).tick().await;
    }
}
