//! Sanity checks of the sub-process: schedule and score.

use std::time::{Duration, Instant};

use ochopod_plugin::LifecycleSettings;
use serde_json::{Map, Value};

use super::{Callback, Effect, reason::Reason};

/// Delay of the first check after a start, at most.
const MAX_FIRST_DELAY: Duration = Duration::from_secs(1);
/// Time limit of a check, at most.
const CHECK_TIMEOUT: Duration = Duration::from_mins(1);

/// State of the sub-process when a check is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    /// It runs with this process id.
    Running(u32),
    /// It runs and is not ready.
    Unready,
    /// It does not run because the machine lacks resources, which does not indicate a defect of the program.
    LacksResources,
    /// It does not run.
    Down,
}

/// Decision when a check is due.
#[derive(Debug, PartialEq)]
pub(super) enum NextCheck {
    /// Run the callback.
    Run(Effect),
    /// There is nothing to check now.
    Skip,
    /// The check failed without the plugin.
    Failed(String),
}

/// Schedule and score of the checks.
#[derive(Debug)]
pub(super) struct SanityChecks {
    interval: Duration,
    max_failures: u32,
    due: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    /// Unexpected exits and failed starts since the last check.
    ended: u32,
    /// How the process ended the last time, since it was started by a request.
    last_end: Option<String>,
    last_check_passed: Option<bool>,
    metrics: Map<String, Value>,
}

impl SanityChecks {
    pub(super) fn new(settings: &LifecycleSettings) -> Self {
        Self {
            interval: settings.check_every,
            max_failures: settings.checks,
            due: None,
            failures: 0,
            ended: 0,
            last_end: None,
            last_check_passed: None,
            metrics: Map::new(),
        }
    }

    /// Applies the settings of another plugin, whose first check is due now if the process is checked.
    pub(super) fn set_settings(&mut self, settings: &LifecycleSettings, now: Instant) {
        (self.interval, self.max_failures) = (settings.check_every, settings.checks);
        self.due = self.due.map(|_| now);
    }

    /// Returns when the next check is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Returns the metrics of the last check.
    pub(super) fn metrics(&self) -> &Map<String, Value> {
        &self.metrics
    }

    /// Returns whether the last check of the current process passed.
    pub(super) fn last_check_passed(&self) -> Option<bool> {
        self.last_check_passed
    }

    /// Schedules the first check of a process that started, and again once it is ready.
    pub(super) fn process_started(&mut self, now: Instant) {
        self.due = Some(now + self.interval.min(MAX_FIRST_DELAY));
    }

    /// Records that the process ended unexpectedly, or could not be started again, and how: the next check takes it into account.
    pub(super) fn process_ended(&mut self, how: String) {
        self.ended += 1;
        self.last_end = Some(how);
        self.last_check_passed = None;
        self.metrics.clear();
    }

    /// Ends the checks and drops the score, because the process is to be stopped.
    pub(super) fn stop(&mut self) {
        (self.due, self.failures, self.ended, self.last_end, self.last_check_passed) = (None, 0, 0, None, None);
        self.metrics.clear();
    }

    /// Repeats a check that was cancelled as soon as there is nothing else to do.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// Returns what to do if a check is due.
    #[must_use]
    pub(super) fn next(&mut self, process: Checked, now: Instant) -> Option<NextCheck> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        self.due = Some(now + self.interval);
        Some(match process {
            _ if self.ended > 1 => self.without_process(&format!("ended {} times since the last check", self.ended)),
            Checked::Unready | Checked::LacksResources => NextCheck::Skip,
            Checked::Down => self.without_process("not running"),
            Checked::Running(pid) => {
                NextCheck::Run(Effect::Call(0, Callback::SanityCheck(pid), self.interval.min(CHECK_TIMEOUT)))
            }
        })
    }

    /// Returns the failure of a check that finds no process, or another one than the last.
    fn without_process(&self, what: &str) -> NextCheck {
        NextCheck::Failed(match &self.last_end {
            Some(how) => format!("sub-process {what}: {how}"),
            None => format!("sub-process {what}"),
        })
    }

    /// Records that the plugin found the process sane.
    pub(super) fn passed(&mut self, metrics: Map<String, Value>, is_running: bool) {
        (self.failures, self.ended) = (0, 0);
        if is_running {
            self.last_check_passed = Some(true);
            self.metrics = metrics;
        }
    }

    /// Records a failed check. Returns the effect, and the reason to stop the process after too many.
    #[must_use]
    pub(super) fn failed(&mut self, reason: &str, is_running: bool) -> (Effect, Option<Reason>) {
        self.failures += 1;
        self.ended = 0;
        self.last_check_passed = is_running.then_some(false);
        let (failures, allowed) = (self.failures, self.max_failures);
        tracing::warn!(failures, allowed, reason, "sanity check failed");
        let stop = (failures >= allowed).then(|| {
            tracing::warn!("too many failed sanity checks, stopping sub-process");
            Reason::Checks { failed: failures, error: reason.to_owned() }
        });
        (Effect::CheckFailed, stop)
    }
}
