//! Starts that fail because the machine lacks a resource: they are retried, and count as no exit of the program.

use std::time::{Duration, Instant};

use ochopod_timing::Backoff;

/// Delays between attempts: up to this, then twice this, and so on.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(10);

/// Shortage of resources, and the next attempt.
#[derive(Debug)]
pub(super) struct Shortage {
    /// Failure of the last attempt; none while there is no shortage.
    reason: Option<String>,
    /// Next attempt of a start for which an `on` waits. Others are restarts.
    retry: Option<Instant>,
    backoff: Backoff,
}

impl Default for Shortage {
    fn default() -> Self {
        Self { reason: None, retry: None, backoff: Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY) }
    }
}

impl Shortage {
    pub(super) fn is_present(&self) -> bool {
        self.reason.is_some()
    }

    pub(super) fn retry(&self) -> Option<Instant> {
        self.retry
    }

    /// Starts the next attempt.
    pub(super) fn attempt(&mut self) {
        self.retry = None;
    }

    /// Ends the shortage: an attempt succeeded, or none is wanted any longer. Returns the last failure.
    pub(super) fn end(&mut self) -> Option<String> {
        self.retry = None;
        self.backoff.reset();
        self.reason.take()
    }

    /// Schedules the next attempt for an `on`.
    pub(super) fn retry_at(&mut self, reason: String, now: Instant) {
        self.retry = Some(self.restart_at(reason, now));
    }

    /// Returns when the next attempt of a restart is due.
    pub(super) fn restart_at(&mut self, reason: String, now: Instant) -> Instant {
        let delay = self.backoff.delay();
        if self.reason.is_none() {
            tracing::warn!(reason, retry_in = ?delay, "sub-process not started for lack of resources, retrying");
        } else {
            tracing::debug!(reason, retry_in = ?delay, "sub-process not started for lack of resources, retrying");
        }
        self.reason = Some(reason);
        now + delay
    }
}
