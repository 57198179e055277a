//! Graceful and forced shutdown of pods, and the deadlines of its steps.

use std::time::Duration;

use ochopod_init::{Init, TerminationSignals};
use ochopod_store::MembershipHandle;
use ochopod_timing::shutdown::{Schedule, ShutdownClock};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::settings::Settings;

/// Time limit for deregistration once the shutdown is forced.
const FORCED_DEREGISTER_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit for the lifecycle of a pod once the shutdown is forced.
const FORCED_STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum and minimum time limit for killed processes once the shutdown is forced.
const FORCED_KILL_TIMEOUT: Duration = Duration::from_secs(2);
const MIN_KILL_TIMEOUT: Duration = Duration::from_millis(100);

/// Graceful and forced shutdown signals of a pod, and its deadline. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Shutdown {
    /// The shutdown started: the pod accepts no request and does not lead.
    pub(super) announced: CancellationToken,
    /// The sub-process has to be stopped: at the same time, or after the hook `preStop`.
    pub(super) requested: CancellationToken,
    pub(super) forced: CancellationToken,
    pub(super) clock: ShutdownClock,
}

impl Shutdown {
    /// Creates the shutdown that signals of this process request.
    pub(super) fn new(terminations: &TerminationSignals, timeout: Duration) -> Self {
        Self {
            announced: terminations.requested().clone(),
            requested: terminations.requested().clone(),
            forced: terminations.forced().clone(),
            clock: ShutdownClock::new(timeout),
        }
    }

    /// Returns whether the shutdown was requested.
    pub(super) fn is_requested(&self) -> bool {
        [&self.announced, &self.requested, &self.forced].into_iter().any(CancellationToken::is_cancelled)
    }

    /// Runs work that is cancelled at that time, or when the shutdown is forced.
    pub(super) async fn until_forced(&self, until: std::time::Instant, work: impl Future<Output = ()>) {
        tokio::select! {
            () = work => {}
            () = self.forced.cancelled() => {}
            () = sleep_until(until.into()) => {}
        }
    }

    /// Waits until the leader has configured the cluster without this pod, which has published that it leaves: at most for
    /// `leave_delay`, so that the stop of the sub-process keeps its whole grace, or until the shutdown is forced. `leading`
    /// completes when the pod no longer acts as the leader.
    pub(super) async fn leave_view(
        &self,
        schedule: Schedule,
        (leave_delay, grace): (Duration, Duration),
        member: &MembershipHandle,
        leading: impl Future<Output = ()>,
    ) {
        if leave_delay.is_zero() {
            return;
        }
        let latest = schedule.process.checked_sub(grace).unwrap_or(schedule.start);
        let until = latest.min(schedule.start + leave_delay);
        let left = async {
            leading.await;
            member.step_down().await;
            member.until_excluded().await;
            tracing::info!("excluded from view, stopping");
        };
        tracing::info!("waiting for exclusion from view before shutdown");
        self.until_forced(until, left).await;
    }

    /// Runs the deregistration, which gets a moment even if the shutdown is forced.
    pub(super) async fn deregister(&self, schedule: Schedule, deregistration: impl Future<Output = ()>) {
        self.abandon(schedule.store, FORCED_DEREGISTER_TIMEOUT, "deregistration timed out", deregistration).await;
    }

    /// Awaits the end of a pod's lifecycle, which observes the schedule itself.
    pub(super) async fn stopped(&self, schedule: Schedule, stopped: impl Future<Output = ()>) {
        self.abandon(schedule.store, FORCED_STOP_TIMEOUT, "lifecycle shutdown timed out", stopped).await;
    }

    async fn abandon(
        &self,
        until: std::time::Instant,
        once_forced: Duration,
        what: &'static str,
        work: impl Future<Output = ()>,
    ) {
        let overdue = async {
            tokio::select! {
                () = sleep_until(until.into()) => {}
                () = async { self.forced.cancelled().await; sleep(once_forced).await } => {}
            }
        };
        tokio::select! {
            biased;
            () = work => {}
            () = overdue => tracing::warn!("{what}, continuing shutdown"),
        }
    }

    /// Terminates all remaining processes, whatever their group or session: SIGTERM for all, SIGKILL after the grace, or
    /// immediately if the shutdown is forced. Processes that remain at the deadline are reported.
    pub(super) async fn finish(&self, init: &Init, grace: Duration) {
        let schedule = self.clock.start();
        let left = |until: std::time::Instant| Instant::from_std(until).saturating_duration_since(Instant::now());
        let limit = left(schedule.end).max(MIN_KILL_TIMEOUT);
        tokio::select! {
            biased;
            () = self.forced.cancelled() => {
                let limit = left(schedule.end).clamp(MIN_KILL_TIMEOUT, FORCED_KILL_TIMEOUT);
                init.shut_down_within(Duration::ZERO, limit).await;
            }
            () = init.shut_down_within(grace.min(left(schedule.kill)), limit) => {}
        }
    }
}

/// Logs the time limit of a shutdown, and whether the kill delay of the platform, or the time for `leave_delay`, is shorter.
pub(super) fn report_stop_timeout(settings: &Settings, timeout: Duration, grace: Duration) {
    let now = std::time::Instant::now();
    let time_to_stop = Schedule::new(now, timeout).process.saturating_duration_since(now);
    if !settings.leave_delay.is_zero() && settings.leave_delay + grace > time_to_stop {
        tracing::warn!(
            leave_delay = ?settings.leave_delay,
            ?grace,
            stop_timeout = ?timeout,
            "leave_delay and grace exceed stop_timeout, leave_delay is cut short; raise stop_timeout and the kill delay of the \
             platform"
        );
    }
    let Some(known) = settings.kill_delay else {
        tracing::debug!(stop_timeout = ?timeout, "kill delay of the platform unknown");
        return;
    };
    let (platform, kill_delay) = (known.platform, known.delay);
    if timeout > known.longest_stop() {
        tracing::warn!(
            stop_timeout = ?timeout,
            ?kill_delay,
            platform,
            "stop_timeout exceeds the kill delay of the platform; raise {} above it, or lower stop_timeout",
            known.setting
        );
    } else if !known.is_default {
        tracing::info!(stop_timeout = ?timeout, ?kill_delay, platform, "stop_timeout fits into the kill delay");
    } else if settings.explicit_stop_timeout.is_none() {
        tracing::info!(
            stop_timeout = ?timeout,
            ?kill_delay,
            platform,
            "stop_timeout follows the kill delay; if {} differs, set stop_timeout to one second less",
            known.setting
        );
    }
}
