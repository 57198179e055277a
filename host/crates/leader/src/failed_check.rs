//! A check that at least one pod has failed.

use std::time::{Duration, Instant};

/// Longest pause between two replies to the check after a pod has failed it. After it, the others are not waited for.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// A failed check. The other pods may reply still: a pod that was sent the whole view holds it then, and is sent only changes
/// with the next check.
#[derive(Debug)]
pub(super) struct FailedCheck {
    /// Error of the first pod that failed.
    error: String,
    /// Number of pods that failed.
    pods: usize,
    end_at: Instant,
}

impl FailedCheck {
    /// Returns a check that no pod has failed yet; the first that does has this error.
    pub(super) fn new(error: String, now: Instant) -> Self {
        Self { error, pods: 0, end_at: now + MAX_PAUSE }
    }

    /// Counts a pod that failed it.
    pub(super) fn add_pod(&mut self) {
        self.pods += 1;
    }

    /// Waits for the next reply after this one.
    pub(super) fn extend(&mut self, now: Instant) {
        self.end_at = now + MAX_PAUSE;
    }

    /// Returns when it ends, unless a reply arrives before.
    pub(super) fn end_at(&self) -> Instant {
        self.end_at
    }

    /// Returns the error of the first pod that failed, and how many more did.
    pub(super) fn into_error(self) -> String {
        match self.pods {
            0 | 1 => self.error,
            pods => format!("{} (and {} more failed)", self.error, pods - 1),
        }
    }
}
