//! The sub-process within the machine: starting, stopping, restarting.

use std::time::{Duration, Instant};

use super::machine::{Callback, Effect, Job, Life, Machine};
use crate::{backoff::Backoff, init::Exit, plugin::Command, status::ProcessState};

/// A sub-process that ran this long is healthy: the next unexpected end restarts it at once again.
const HEALTHY: Duration = Duration::from_mins(1);
/// Delays between restarts: none before the first one, then twice this, and so on.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_mins(1);

/// Where the sub-process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Stopped,
    Spawning,
    Running {
        pid: u32,
        since: Instant,
    },
    Stopping {
        pid: u32,
        /// When it is killed or released.
        patience: Instant,
        /// It ended already; the tear-down callback has not.
        ended: bool,
    },
}

/// The sub-process and what is to become of it.
#[derive(Debug)]
pub(super) struct Supervision {
    state: State,
    /// When it is started again after an unexpected end.
    restart: Option<Instant>,
    backoff: Backoff,
    released: Vec<u32>,
    /// How often it was started.
    starts: u64,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            state: State::Stopped,
            restart: None,
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY),
            released: Vec::new(),
            starts: 0,
        }
    }
}

impl Supervision {
    pub(super) fn state(&self) -> ProcessState {
        match self.state {
            State::Stopped | State::Spawning => ProcessState::Stopped,
            State::Running { .. } => ProcessState::Running,
            State::Stopping { .. } => ProcessState::Terminating,
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        match self.state {
            State::Running { pid, .. } | State::Stopping { pid, ended: false, .. } => Some(pid),
            _ => None,
        }
    }

    pub(super) fn released(&self) -> &[u32] {
        &self.released
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    pub(super) fn is_spawning(&self) -> bool {
        self.state == State::Spawning
    }

    pub(super) fn has_started(&self) -> bool {
        self.starts > 0
    }

    /// Whether it runs, or will again by itself.
    pub(super) fn is_wanted(&self) -> bool {
        self.restart.is_some() || matches!(self.state, State::Running { .. } | State::Spawning)
    }

    pub(super) fn wake(&self, may_restart: bool) -> Option<Instant> {
        match self.state {
            State::Stopping { patience, .. } => Some(patience),
            State::Stopped if may_restart => self.restart,
            _ => None,
        }
    }

    pub(super) fn spawn(&mut self, command: &Command, effects: &mut Vec<Effect>) {
        self.restart = None;
        self.state = State::Spawning;
        self.starts += 1;
        effects.push(Effect::Spawn(command.clone()));
    }

    pub(super) fn cancel_restart(&mut self) {
        self.restart = None;
    }

    fn ended_unexpectedly(&mut self, ran: Duration, now: Instant) {
        if ran >= HEALTHY {
            self.backoff.reset();
        }
        let attempt = self.backoff.attempts();
        let delay = self.backoff.delay();
        self.restart = Some(if attempt == 0 { now } else { now + delay });
    }
}

impl Machine {
    /// Whether a restart may begin although something else is under way: not while that something changes the process.
    pub(super) fn may_restart(&self) -> bool {
        self.life == Life::Alive && !matches!(self.job, Job::On(..) | Job::Off(_) | Job::End(_))
    }

    pub(super) fn restart_if_due(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let due = self.supervision.restart.is_some_and(|at| at <= now);
        if due
            && self.supervision.state == State::Stopped
            && self.may_restart()
            && let Some(configured) = &self.configured
        {
            self.supervision.spawn(&configured.command, effects);
        }
    }

    /// Begins to stop the process: tear-down, then patience, then SIGKILL (or release). False when there is none.
    pub(super) fn begin_stop(&mut self, now: Instant, effects: &mut Vec<Effect>) -> bool {
        self.supervision.cancel_restart();
        self.sanity.stop();
        let State::Running { pid, .. } = self.supervision.state else { return false };
        let patience = now + self.settings.grace;
        self.supervision.state = State::Stopping { pid, patience, ended: false };
        tracing::info!(pid, "tearing the sub-process down");
        if self.forced {
            effects.push(Effect::Kill(pid));
        } else {
            self.call(Callback::TearDown(pid), self.settings.grace, effects);
        }
        true
    }

    /// The tear-down callback ended.
    pub(super) fn torn_down(&mut self, failed: bool, now: Instant, effects: &mut Vec<Effect>) {
        if let State::Stopping { pid, ended, .. } = self.supervision.state {
            if ended {
                self.stopped(now, effects);
            } else if failed {
                tracing::info!(pid, "sending SIGTERM instead");
                effects.push(Effect::Terminate(pid));
            }
        }
    }

    /// Patience is over, by time or because the pod has to end now.
    pub(super) fn lose_patience(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let State::Stopping { pid, ended, .. } = self.supervision.state else { return };
        self.cancel_call(effects);
        if ended {
            self.stopped(now, effects);
        } else if self.settings.soft && self.life == Life::Alive {
            tracing::info!(pid, "releasing the sub-process, which outlived its grace");
            self.supervision.released.push(pid);
            effects.push(Effect::Release(pid));
            self.stopped(now, effects);
        } else {
            tracing::info!(pid, "killing the sub-process, which outlived its grace");
            effects.push(Effect::Kill(pid));
            self.supervision.state =
                State::Stopping { pid, patience: now + self.settings.grace + HEALTHY, ended: false };
        }
    }

    pub(super) fn supervision_tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if matches!(self.supervision.state, State::Stopping { patience, .. } if patience <= now) {
            self.lose_patience(now, effects);
        }
    }

    pub(super) fn spawned(&mut self, result: Result<u32, String>, now: Instant, effects: &mut Vec<Effect>) {
        if self.supervision.state != State::Spawning {
            return;
        }
        match result {
            Ok(pid) => {
                self.supervision.state = State::Running { pid, since: now };
                self.sanity.started(now, self.settings.check_every);
                tracing::info!(pid, start = self.supervision.starts, "the sub-process runs");
                self.on_spawned(Ok(()), now, effects);
            }
            Err(reason) => {
                self.supervision.state = State::Stopped;
                match self.job {
                    Job::On(..) => self.on_spawned(Err(reason), now, effects),
                    Job::End(_) => self.after_stop(now, effects),
                    _ => {
                        tracing::warn!(reason, "the sub-process cannot be restarted");
                        effects.push(Effect::EndedUnexpectedly);
                        self.sanity.ended();
                        self.supervision.ended_unexpectedly(Duration::ZERO, now);
                    }
                }
            }
        }
    }

    pub(super) fn exited(&mut self, pid: u32, exit: Exit, now: Instant, effects: &mut Vec<Effect>) {
        match self.supervision.state {
            State::Running { pid: running, since } if running == pid => {
                self.supervision.state = State::Stopped;
                if self.job == Job::Sanity {
                    // The check is about a process that is no more: it counts neither way.
                    self.cancel_call(effects);
                    self.job = Job::None;
                }
                if exit == Exit::Code(0) {
                    tracing::info!(pid, "the sub-process ended well: the pod is done");
                    self.sanity.stop();
                    self.life = Life::Doomed;
                } else {
                    tracing::warn!(pid, ?exit, "the sub-process ended unexpectedly, restarting it");
                    effects.push(Effect::EndedUnexpectedly);
                    self.sanity.ended();
                    self.supervision.ended_unexpectedly(now.saturating_duration_since(since), now);
                }
            }
            State::Stopping { pid: stopping, patience, .. } if stopping == pid => {
                tracing::info!(pid, ?exit, "the sub-process ended");
                if self.call.is_some() {
                    self.supervision.state = State::Stopping { pid, patience, ended: true };
                } else {
                    self.stopped(now, effects);
                }
            }
            _ => self.supervision.released.retain(|released| *released != pid),
        }
    }

    /// The process is gone: goes on with the job that wanted it stopped.
    fn stopped(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.supervision.state = State::Stopped;
        self.after_stop(now, effects);
    }
}
