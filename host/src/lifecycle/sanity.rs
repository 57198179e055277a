//! The sanity checks within the machine: their schedule and what counts as a failure.

use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::machine::{Callback, Effect, Job, Machine};

/// The first check comes this soon after a start, at the latest.
const FIRST_CHECK: Duration = Duration::from_secs(1);
/// A check may take this long, at the most.
const LONGEST_CHECK: Duration = Duration::from_mins(1);

/// Schedule and score of the checks.
#[derive(Debug, Default)]
pub(super) struct Sanity {
    due: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    /// Unexpected ends since the last check.
    ends: u32,
    /// How the last check of the present process ended.
    sane: Option<bool>,
    metrics: Map<String, Value>,
}

impl Sanity {
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn metrics(&self) -> &Map<String, Value> {
        &self.metrics
    }

    pub(super) fn sane(&self) -> Option<bool> {
        self.sane
    }

    pub(super) fn started(&mut self, now: Instant, every: Duration) {
        self.due = Some(now + every.min(FIRST_CHECK));
    }

    /// The process ended unexpectedly: the next check knows.
    pub(super) fn ended(&mut self) {
        self.ends += 1;
        self.sane = None;
        self.metrics.clear();
    }

    /// The process is not wanted any more: no checks, no score.
    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    pub(super) fn postpone(&mut self, now: Instant) {
        self.due = Some(now);
    }
}

impl Machine {
    /// Begins a check if one is due. True when something began or was decided.
    pub(super) fn check_if_due(&mut self, now: Instant, effects: &mut Vec<Effect>) -> bool {
        if self.sanity.due.is_none_or(|due| due > now) || !self.supervision.is_wanted() {
            return false;
        }
        self.sanity.due = Some(now + self.settings.check_every);
        match self.supervision.pid() {
            _ if self.sanity.ends > 1 => {
                let reason = format!("the sub-process ended {} times since the last check", self.sanity.ends);
                self.check_failed(&reason, now, effects);
            }
            None => self.check_failed("the sub-process is not up", now, effects),
            Some(pid) => {
                self.job = Job::Sanity;
                self.call(Callback::SanityCheck(pid), self.settings.check_every.min(LONGEST_CHECK), effects);
            }
        }
        true
    }

    /// The plugin found the process sane.
    pub(super) fn check_passed(&mut self, metrics: Map<String, Value>) {
        self.sanity.failures = 0;
        self.sanity.ends = 0;
        if self.supervision.is_running() {
            self.sanity.sane = Some(true);
            self.sanity.metrics = metrics;
        }
    }

    /// One failed check more; too many turn the process off.
    pub(super) fn check_failed(&mut self, reason: &str, now: Instant, effects: &mut Vec<Effect>) {
        self.sanity.failures += 1;
        self.sanity.ends = 0;
        self.sanity.sane = self.supervision.is_running().then_some(false);
        let (failed, allowed) = (self.sanity.failures, self.settings.checks);
        tracing::warn!(reason, "sanity check failed ({failed}/{allowed})");
        if failed >= allowed {
            tracing::warn!("too many failed sanity checks: turning the sub-process off");
            self.begin_off(None, now, effects);
        }
    }
}
