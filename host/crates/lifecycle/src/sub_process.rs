//! The sub-process: start, stop, restart.

use std::time::{Duration, Instant};

use ochopod_init::Exit;
use ochopod_model::status::ProcessState;
use ochopod_plugin::{Command, LifecycleSettings};
use ochopod_timing::{
    Backoff,
    shutdown::{KILL_TIMEOUT, Schedule},
};

use super::{Callback, Effect, StartFailure, shortage::Shortage};

/// Uptime after which the sub-process is healthy: its next unexpected exit is followed by an immediate restart again.
const HEALTHY_AFTER: Duration = Duration::from_mins(1);
/// Delays between restarts: none before the first one, then twice this, and so on.
const MIN_RESTART_DELAY: Duration = Duration::from_millis(500);
const MAX_RESTART_DELAY: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProcessPhase {
    Stopped,
    Spawning,
    Running { pid: u32, since: Instant },
    Stopping(Stopping),
}

/// A stop in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stopping {
    pid: u32,
    /// When it is sent SIGTERM because `tear-down` does not return; none once that is settled.
    terminate: Option<Instant>,
    /// When it is killed or released.
    deadline: Instant,
    /// `tear-down` runs.
    tearing_down: bool,
    /// It was sent SIGKILL.
    killed: bool,
    /// It exited, and `tear-down` has not returned.
    exited: bool,
}

/// Progress of a stop.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct StopProgress {
    /// Effects, in order.
    pub(super) effects: Vec<Effect>,
    /// Whether the process is gone, so that the job that waits for this can continue.
    pub(super) is_stopped: bool,
}

/// Meaning of the exit of a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExitCause {
    /// It exited without being stopped, after this time.
    Unexpected(Duration),
    /// It was stopped, and is gone.
    Stopped,
    /// It was stopped, and `tear-down` has not returned; or it was released before.
    Ignored,
}

/// Starts, stops and restarts the sub-process of one pod.
#[derive(Debug)]
pub(super) struct Supervisor {
    grace: Duration,
    /// Whether a process that exceeds its grace is released instead of killed.
    soft: bool,
    phase: ProcessPhase,
    /// When it is started again after an unexpected exit.
    restart: Option<Instant>,
    backoff: Backoff,
    shortage: Shortage,
    released: Vec<u32>,
    starts: u64,
    /// Starts after an unexpected exit.
    restarts: u64,
    last_exit: Option<Exit>,
    /// The shutdown started: stops end in time for the rest of it, as far as it has a schedule.
    #[allow(clippy::option_option, reason = "a shutdown may have started before its schedule is known")]
    shutdown: Option<Option<Schedule>>,
}

impl Supervisor {
    pub(super) fn new(settings: &LifecycleSettings) -> Self {
        Self {
            grace: settings.grace,
            soft: settings.soft,
            phase: ProcessPhase::Stopped,
            restart: None,
            backoff: Backoff::new(MIN_RESTART_DELAY, MAX_RESTART_DELAY),
            shortage: Shortage::default(),
            released: Vec::new(),
            starts: 0,
            restarts: 0,
            last_exit: None,
            shutdown: None,
        }
    }

    /// Applies the settings of another plugin, to stops that begin from now on.
    pub(super) fn set_settings(&mut self, settings: &LifecycleSettings) {
        (self.grace, self.soft) = (settings.grace, settings.soft);
    }

    pub(super) fn state(&self) -> ProcessState {
        match self.phase {
            ProcessPhase::Stopped | ProcessPhase::Spawning => ProcessState::Stopped,
            ProcessPhase::Running { .. } => ProcessState::Running,
            ProcessPhase::Stopping(_) => ProcessState::Terminating,
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        match self.phase {
            ProcessPhase::Running { pid, .. } | ProcessPhase::Stopping(Stopping { pid, exited: false, .. }) => {
                Some(pid)
            }
            _ => None,
        }
    }

    pub(super) fn released(&self) -> &[u32] {
        &self.released
    }

    /// Returns when the running process was started.
    pub(super) fn started(&self) -> Option<Instant> {
        match self.phase {
            ProcessPhase::Running { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Counts a start after an unexpected exit.
    pub(super) fn count_restart(&mut self) {
        self.restarts += 1;
    }

    /// Returns the number of starts after an unexpected exit.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Returns the last exit of a process of this pod.
    pub(super) fn last_exit(&self) -> Option<Exit> {
        self.last_exit
    }

    /// Returns when it is started again after an unexpected exit.
    pub(super) fn next_start(&self) -> Option<Instant> {
        self.restart.filter(|_| self.is_stopped())
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, ProcessPhase::Running { .. })
    }

    pub(super) fn is_spawning(&self) -> bool {
        self.phase == ProcessPhase::Spawning
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.phase, ProcessPhase::Stopping(_))
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.phase == ProcessPhase::Stopped
    }

    pub(super) fn has_started(&self) -> bool {
        self.starts > 0
    }

    /// Returns whether it runs, or is to run again without a request.
    pub(super) fn is_wanted(&self) -> bool {
        self.restart.is_some() || self.is_running() || self.is_spawning()
    }

    /// Returns whether it does not run for lack of resources.
    pub(super) fn lacks_resources(&self) -> bool {
        self.shortage.is_present()
    }

    /// Returns when [`tick`](Self::tick), a restart or another attempt to start is due.
    pub(super) fn wake(&self, may_restart: bool) -> Option<Instant> {
        match self.phase {
            ProcessPhase::Stopping(Stopping { terminate, deadline, exited, .. }) => {
                terminate.filter(|_| !exited).into_iter().chain([deadline]).min()
            }
            ProcessPhase::Stopped if self.shortage.retry().is_some() => self.shortage.retry(),
            ProcessPhase::Stopped if may_restart => self.restart,
            _ => None,
        }
    }

    /// Starts it. Not to be called unless it [is stopped](Self::is_stopped).
    #[must_use]
    pub(super) fn spawn(&mut self, command: &Command) -> Effect {
        self.restart = None;
        self.shortage.attempt();
        self.phase = ProcessPhase::Spawning;
        Effect::Spawn(command.clone())
    }

    /// Returns whether a restart is due.
    pub(super) fn is_restart_due(&self, now: Instant) -> bool {
        self.is_stopped() && self.restart.is_some_and(|at| at <= now)
    }

    /// Returns whether another attempt is due of a start for which an `on` waits.
    pub(super) fn is_retry_due(&self, now: Instant) -> bool {
        self.is_stopped() && self.shortage.retry().is_some_and(|at| at <= now)
    }

    /// Cancels restarts and further attempts. Returns the last failure for lack of resources, if that is present.
    pub(super) fn cancel_restart(&mut self) -> Option<String> {
        self.restart = None;
        self.shortage.end()
    }

    /// Schedules another attempt of a start for which an `on` waits.
    pub(super) fn retry_later(&mut self, reason: String, now: Instant) {
        self.shortage.retry_at(reason, now);
    }

    /// Schedules another attempt of a restart that failed for lack of resources.
    pub(super) fn restart_later(&mut self, reason: String, now: Instant) {
        self.restart = Some(self.shortage.restart_at(reason, now));
    }

    /// Schedules a restart after an uptime that ended unexpectedly.
    pub(super) fn restart_after(&mut self, uptime: Duration, now: Instant) {
        self.shortage.end();
        if uptime >= HEALTHY_AFTER {
            self.backoff.reset();
        }
        let attempt = self.backoff.attempts();
        let delay = self.backoff.delay();
        self.restart = Some(if attempt == 0 { now } else { now + delay });
    }

    /// Records the result of a spawn. None if none was in progress.
    pub(super) fn spawned(
        &mut self,
        result: Result<u32, StartFailure>,
        now: Instant,
    ) -> Option<Result<(), StartFailure>> {
        if !self.is_spawning() {
            return None;
        }
        Some(match result {
            Ok(pid) => {
                self.phase = ProcessPhase::Running { pid, since: now };
                self.starts += 1;
                self.shortage.end();
                tracing::info!(pid, start = self.starts, "sub-process started");
                Ok(())
            }
            Err(failure) => {
                self.phase = ProcessPhase::Stopped;
                Err(failure)
            }
        })
    }

    /// Records the exit of a process.
    pub(super) fn exited(&mut self, pid: u32, exit: Exit, now: Instant) -> ExitCause {
        match &mut self.phase {
            ProcessPhase::Running { pid: running, since } if *running == pid => {
                let uptime = now.saturating_duration_since(*since);
                self.last_exit = Some(exit);
                self.phase = ProcessPhase::Stopped;
                ExitCause::Unexpected(uptime)
            }
            ProcessPhase::Stopping(stopping) if stopping.pid == pid => {
                tracing::info!(pid, exit = exit.description(), "sub-process exited");
                self.last_exit = Some(exit);
                if stopping.tearing_down {
                    stopping.exited = true;
                    return ExitCause::Ignored;
                }
                self.phase = ProcessPhase::Stopped;
                ExitCause::Stopped
            }
            _ => {
                self.released.retain(|released| *released != pid);
                ExitCause::Ignored
            }
        }
    }

    /// Starts to stop it: `tear-down`, SIGTERM unless that returns in time, then SIGKILL (or release) at the end of the grace;
    /// SIGKILL immediately if `force` is set. None if it does not run.
    pub(super) fn stop(&mut self, force: bool, now: Instant) -> Option<StopProgress> {
        self.cancel_restart();
        let ProcessPhase::Running { pid, .. } = self.phase else { return None };
        let grace = self.clipped(now + self.grace).saturating_duration_since(now);
        self.phase = ProcessPhase::Stopping(Stopping {
            pid,
            terminate: Some(now + grace / 2),
            deadline: now + grace,
            tearing_down: !force,
            killed: false,
            exited: false,
        });
        tracing::info!(pid, "stopping sub-process");
        if force {
            return Some(self.kill_now(now));
        }
        let tear_down = Effect::Call(0, Callback::TearDown(pid), grace);
        Some(StopProgress { effects: vec![tear_down], is_stopped: false })
    }

    /// Fits every stop from now on into the shutdown.
    pub(super) fn begin_shutdown(&mut self, schedule: Option<Schedule>) {
        self.shutdown = Some(schedule);
    }

    /// Fits the stop in progress into the shutdown, which has just started.
    pub(super) fn hurry(&mut self, now: Instant) {
        let ProcessPhase::Stopping(stopping) = self.phase else { return };
        let deadline = if stopping.killed {
            stopping.deadline.min(self.abandoned_at(now))
        } else {
            self.clipped(stopping.deadline).max(now)
        };
        let half = now + deadline.saturating_duration_since(now) / 2;
        let terminate = stopping.terminate.map(|at| at.min(half));
        self.phase = ProcessPhase::Stopping(Stopping { terminate, deadline, ..stopping });
    }

    /// Records that `tear-down` returned.
    pub(super) fn tear_down_returned(&mut self, failed: bool) -> StopProgress {
        let ProcessPhase::Stopping(stopping) = &mut self.phase else { return StopProgress::default() };
        stopping.tearing_down = false;
        let was_terminated = stopping.terminate.take().is_none();
        if stopping.exited {
            return self.stopped(Vec::new());
        }
        let mut effects = Vec::new();
        if failed && !was_terminated {
            tracing::info!(pid = stopping.pid, "sending SIGTERM instead");
            effects.push(Effect::Terminate(stopping.pid));
        }
        StopProgress { effects, is_stopped: false }
    }

    /// Continues the stop in progress as time passes. A process that exceeds its grace is released if that is configured and
    /// `may_release` is set.
    pub(super) fn tick(&mut self, may_release: bool, now: Instant) -> StopProgress {
        let mut effects = Vec::new();
        effects.extend(self.terminate_if_due(now));
        let ProcessPhase::Stopping(stopping) = self.phase else { return StopProgress::default() };
        if stopping.deadline > now {
            return StopProgress { effects, is_stopped: false };
        }
        let mut progress = self.grace_expired(stopping, may_release, now);
        effects.append(&mut progress.effects);
        StopProgress { effects, ..progress }
    }

    /// Sends SIGTERM while `tear-down` takes too long. It continues, and the process has the other half of its grace however
    /// late this is.
    fn terminate_if_due(&mut self, now: Instant) -> Option<Effect> {
        let ProcessPhase::Stopping(stopping) = self.phase else { return None };
        let at = stopping.terminate.filter(|at| *at <= now && !stopping.killed && !stopping.exited)?;
        let pid = stopping.pid;
        tracing::warn!(pid, "tear-down still running after half of the grace, sending SIGTERM");
        let rest = self.clipped(now + stopping.deadline.saturating_duration_since(at));
        let deadline = stopping.deadline.max(rest);
        self.phase = ProcessPhase::Stopping(Stopping { terminate: None, deadline, ..stopping });
        Some(Effect::Terminate(pid))
    }

    fn grace_expired(&mut self, stopping: Stopping, may_release: bool, now: Instant) -> StopProgress {
        let Stopping { pid, killed, exited, tearing_down, .. } = stopping;
        let mut effects = Vec::new();
        if tearing_down {
            effects.push(Effect::CancelCall);
        }
        if exited {
            return self.stopped(effects);
        }
        let is_abandoned = killed && self.shutdown.is_some();
        if is_abandoned || (self.soft && may_release) {
            if is_abandoned {
                tracing::error!(pid, "sub-process not gone after SIGKILL, shutting down without it");
            } else {
                tracing::info!(pid, "grace expired, releasing sub-process");
            }
            self.released.push(pid);
            effects.push(Effect::Release(pid));
            return self.stopped(effects);
        }
        tracing::info!(pid, "grace expired, killing sub-process");
        effects.push(self.kill(stopping, now));
        StopProgress { effects, is_stopped: false }
    }

    /// Kills a process whose stop is in progress, whatever is left of its grace. Its callback is cancelled by the caller.
    pub(super) fn kill_now(&mut self, now: Instant) -> StopProgress {
        let ProcessPhase::Stopping(stopping) = self.phase else { return StopProgress::default() };
        if stopping.exited {
            return self.stopped(Vec::new());
        }
        if stopping.killed {
            self.hurry(now);
            return StopProgress::default();
        }
        tracing::info!(pid = stopping.pid, "killing sub-process");
        StopProgress { effects: vec![self.kill(stopping, now)], is_stopped: false }
    }

    fn kill(&mut self, stopping: Stopping, now: Instant) -> Effect {
        // If it survives, it is killed again, or left behind in a shutdown.
        let deadline = if self.shutdown.is_some() { self.abandoned_at(now) } else { now + self.grace + HEALTHY_AFTER };
        let (terminate, tearing_down, killed) = (None, false, true);
        self.phase = ProcessPhase::Stopping(Stopping { terminate, deadline, tearing_down, killed, ..stopping });
        Effect::Kill(stopping.pid)
    }

    fn stopped(&mut self, effects: Vec<Effect>) -> StopProgress {
        self.phase = ProcessPhase::Stopped;
        StopProgress { effects, is_stopped: true }
    }

    /// Returns the time by which the sub-process has to be stopped, if the shutdown leaves less than this.
    fn clipped(&self, time: Instant) -> Instant {
        self.shutdown.flatten().map_or(time, |schedule| time.min(schedule.process))
    }

    /// Returns when a shutdown continues without a process that was killed and does not exit.
    fn abandoned_at(&self, now: Instant) -> Instant {
        let at = now + KILL_TIMEOUT;
        self.shutdown.flatten().map_or(at, |schedule| at.min(schedule.finalize))
    }
}
