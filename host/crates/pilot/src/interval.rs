//! Ticks of periodic work.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Longest interval: practically never.
const MAX_INTERVAL: Duration = Duration::from_hours(24 * 365);

/// Returns ticks at each interval, the first one interval from now. One tick is kept while none is awaited: work that exceeds
/// its interval continues immediately, and then in step again.
pub(super) fn poll_interval(every: Duration) -> Interval {
    let every = every.clamp(Duration::from_millis(1), MAX_INTERVAL);
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

    /// Returns when each of these actions starts, in milliseconds.
    async fn start_times(every: u32, takes: &[u32]) -> Vec<u128> {
        let begin = Instant::now();
        let mut ticks = poll_interval(every * MS);
        let mut found = Vec::new();
        for takes in takes {
            ticks.tick().await;
            found.push(begin.elapsed().as_millis());
            sleep(*takes * MS).await;
        }
        found
    }

    #[tokio::test(start_paused = true)]
    async fn first_tick_follows_after_one_interval_and_one_is_kept() {
        for (every, takes, expected) in [
            (100, &[0, 0, 0][..], &[100, 200, 300][..]),
            (100, &[30, 99, 30], &[100, 200, 300]),
            (100, &[150, 0, 0], &[100, 250, 300]),
            (100, &[470, 0, 0], &[100, 570, 600]),
            (100, &[470, 470, 0], &[100, 570, 1040]),
        ] {
            assert_eq!(start_times(every, takes).await, expected, "{takes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ticks_are_as_many_as_in_containerpilot() {
        let vectors: Value = serde_json::from_str(include_str!("../../../../tests/vectors/tasks.json")).unwrap();
        let case = &vectors["timing"][0];
        assert_eq!(case["frequency"], "100ms");
        let end = Instant::now() + Duration::from_millis(case["observe_ms"].as_u64().unwrap());
        let mut ticks = poll_interval(100 * MS);
        let mut runs = 0;
        while timeout_at(end, ticks.tick()).await.is_ok() {
            runs += 1;
        }
        assert_eq!(case["runs"], runs);
    }

    #[tokio::test(start_paused = true)]
    async fn interval_may_be_of_any_length() {
        poll_interval(Duration::ZERO).tick().await;
        poll_interval(Duration::MAX).tick().await;
    }
}
