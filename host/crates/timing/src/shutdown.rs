//! Deadlines of the steps of a shutdown. Pure, except for the moment at which the deadline is fixed.
//!
//! A shutdown completes within `stop_timeout`, counted from the first signal. Its slices, from the end backwards:
//!
//! ```text
//!  first signal                                                                             end
//!  │ stop of the sub-process (grace, as far as there is room) │ finalize, ≤ 3 s │ leaving, ≤ 2 s │
//!  └─ hooks ─┘                                                                  └ store ─┘ └ kill ┘
//! ```

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

/// Time for a process to exit after SIGKILL before the shutdown continues without it.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// Last slice: the pod deregisters, connections are closed, descendants of the host are killed.
const MAX_LEAVE: Duration = Duration::from_secs(2);
/// The slice before that, for the plugin's `finalize`.
const MAX_FINALIZE: Duration = Duration::from_secs(3);
/// The share that each of the two slices takes of a short time, as a divisor.
const SLICE_DIVISOR: u32 = 4;

/// Deadlines of the steps of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The start of the shutdown.
    pub start: Instant,
    /// The hook `preStop` of a pod with a configuration.
    pub hooks: Instant,
    /// The stop of the sub-process: SIGKILL follows.
    pub process: Instant,
    /// `finalize`.
    pub finalize: Instant,
    /// Deregistration.
    pub store: Instant,
    /// The last requests, and all descendants of the host: SIGKILL follows.
    pub kill: Instant,
    /// Everything: the host exits.
    pub end: Instant,
}

impl Schedule {
    /// Returns the schedule of a shutdown that starts now, with this timeout.
    #[must_use]
    pub fn new(now: Instant, timeout: Duration) -> Self {
        let leave = MAX_LEAVE.min(timeout / SLICE_DIVISOR);
        let finalize = MAX_FINALIZE.min(timeout.saturating_sub(leave) / SLICE_DIVISOR);
        let process = timeout.saturating_sub(leave + finalize);
        let before_end = |slice| now + timeout.saturating_sub(slice);
        Self {
            start: now,
            hooks: now + process / 2,
            process: now + process,
            finalize: before_end(leave),
            store: before_end(leave / 2),
            kill: before_end(leave / SLICE_DIVISOR),
            end: now + timeout,
        }
    }
}

/// Schedule of a shutdown, fixed once when the shutdown starts. Clones share it.
#[derive(Debug, Clone)]
pub struct ShutdownClock {
    timeout: Duration,
    schedule: Arc<OnceLock<Schedule>>,
}

impl ShutdownClock {
    /// Returns a clock that is not started, with this timeout.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, schedule: Arc::default() }
    }

    /// Returns a separate clock that is not started, with the same timeout.
    #[must_use]
    pub fn separate(&self) -> Self {
        Self::new(self.timeout)
    }

    /// Starts the clock unless it was started before. Returns the schedule.
    #[must_use]
    pub fn start(&self) -> Schedule {
        *self.schedule.get_or_init(|| Schedule::new(tokio::time::Instant::now().into_std(), self.timeout))
    }

    /// Starts the clock as part of a shutdown that has this schedule, unless it was started before. Returns the schedule.
    #[must_use]
    pub fn join(&self, schedule: Schedule) -> Schedule {
        *self.schedule.get_or_init(|| schedule)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn last_seconds_are_for_store_and_finalize_and_short_timeouts_are_shared() {
        let now = Instant::now();
        let slices = |timeout| {
            let schedule = Schedule::new(now, Duration::from_secs_f64(timeout));
            let seconds = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64();
            (
                seconds(now, schedule.process),
                seconds(schedule.process, schedule.finalize),
                seconds(schedule.finalize, schedule.end),
            )
        };
        assert_eq!(slices(70.0), (65.0, 3.0, 2.0));
        assert_eq!(slices(29.0), (24.0, 3.0, 2.0));
        assert_eq!(slices(14.0), (9.0, 3.0, 2.0));
        assert_eq!(slices(9.0), (5.25, 1.75, 2.0), "the timeout for Docker");
        assert_eq!(slices(4.0), (2.25, 0.75, 1.0));
    }

    #[test]
    fn deadline_is_fixed_at_the_first_start() {
        let clock = ShutdownClock::new(Duration::from_secs(9));
        let schedule = clock.clone().start();
        let later = Schedule::new(schedule.end, Duration::from_secs(9));
        assert_eq!((clock.start(), clock.join(later)), (schedule, schedule));
        assert_eq!(clock.separate().join(later), later);
    }

    proptest! {
        #[test]
        fn every_step_has_some_time_and_all_are_in_order(millis in 1_u64..100_000_000) {
            let now = Instant::now();
            let timeout = Duration::from_millis(millis);
            let Schedule { start, hooks, process, finalize, store, kill, end } = Schedule::new(now, timeout);
            prop_assert!(start == now && now < hooks && hooks < process && process < finalize);
            prop_assert!(finalize < store && store < kill && kill < end);
            prop_assert_eq!(end, now + timeout);
            prop_assert!(process - now >= timeout / 2, "most of the time is for the sub-process");
        }
    }
}
