//! The one job that a machine executes at a time.

use std::time::{Duration, Instant};

use ochopod_plugin::Command;

use super::{Effect, Outcome, Request, RequestId, TimeoutResult, queue::PendingRequest};

/// A callback of a request is stopped at its time limit: its result is the better answer, if it arrives this soon.
pub(super) const LATE_REPLY_GRACE: Duration = Duration::from_millis(200);
/// A time that is never reached.
const FAR_FUTURE: Duration = Duration::from_hours(24 * 365);

/// Progress of `on`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum OnStage {
    /// The sub-process is being stopped. The command is known if it was compared, or is the last one.
    Stopping(Option<Box<Command>>),
    Initializing,
    Configuring,
    /// `configure` runs while the sub-process does.
    Comparing,
    Spawning,
}

/// Job in progress.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Job {
    None,
    /// One callback answers the request: `check`, `ok`, `signal`.
    Call(PendingRequest),
    /// `on`, and when it started.
    On(PendingRequest, OnStage, Instant),
    /// Stop, for a request or after too many failed checks.
    Off(Option<PendingRequest>),
    /// A sanity check.
    Sanity,
    /// A call of `ready`.
    Ready,
    /// End of the pod: stop, finalize, dead.
    End(Termination),
}

/// End of the pod in progress.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Termination {
    /// Requests that are answered once the pod is dead.
    pub(super) requests: Vec<RequestId>,
    /// Whether `finalize` runs.
    pub(super) finalizing: bool,
}

impl Job {
    /// Takes the job, and leaves none.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::None)
    }

    /// Returns its request, if it has one.
    fn pending(&self) -> Option<&PendingRequest> {
        match self {
            Self::Call(pending) | Self::On(pending, ..) | Self::Off(Some(pending)) => Some(pending),
            Self::None | Self::Off(None) | Self::Sanity | Self::Ready | Self::End(_) => None,
        }
    }

    /// Returns its request and the id of that, as long as it is not answered.
    pub(super) fn request(&self) -> Option<(RequestId, &Request)> {
        let pending = self.pending()?;
        Some((pending.id().unwrap_or_default(), &pending.request))
    }

    /// Returns when its request is answered although the job continues.
    pub(super) fn wake(&self) -> Option<Instant> {
        let expires = self.pending()?.expires;
        match self {
            Self::Off(_) | Self::On(_, OnStage::Stopping(_), _) => Some(expires),
            _ => Some(expires + LATE_REPLY_GRACE),
        }
    }

    /// Answers its request if the time limit is exceeded. The job continues.
    #[must_use]
    pub(super) fn expire(&mut self, now: Instant) -> Option<Effect> {
        if self.wake().is_none_or(|at| at > now) {
            return None;
        }
        let (Self::Call(pending) | Self::On(pending, ..) | Self::Off(Some(pending))) = self else { return None };
        pending.expires = now + FAR_FUTURE;
        pending.answer_early(Outcome::TimedOut(TimeoutResult::StillRunning))
    }

    /// Returns whether it starts or stops the sub-process, which must not be restarted meanwhile.
    pub(super) fn changes_process(&self) -> bool {
        matches!(self, Self::On(..) | Self::Off(_) | Self::End(_))
    }

    /// Returns whether it is a callback that yields to requests.
    pub(super) fn yields(&self) -> bool {
        matches!(self, Self::Sanity | Self::Ready)
    }

    /// Returns whether the pod is ending with `finalize` in progress.
    pub(super) fn is_finalizing(&self) -> bool {
        matches!(self, Self::End(termination) if termination.finalizing)
    }
}
