//! Readiness of the sub-process: schedule of the callback `ready`, and the requests that wait for it.

use std::time::{Duration, Instant};

use ochopod_model::status::Blame;
use ochopod_plugin::LifecycleSettings;

use super::{Callback, Effect, Failure, Outcome, queue::PendingRequest};

/// Delays between two calls.
const MIN_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(1);
/// Deadline of a call.
pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// Reason before the first call has returned.
const NOT_CALLED: &str = "not checked yet";

#[derive(Debug)]
enum Phase {
    /// The process does not run.
    Down {
        /// How it ended, unless it was stopped.
        ended: Option<String>,
    },
    /// It runs and is not ready.
    Unready {
        /// Next call.
        due: Instant,
        delay: Duration,
        /// When it fails a sanity check.
        overdue_at: Instant,
        reason: String,
    },
    Ready,
}

/// Readiness of the current process, and the requests that are answered once it is ready.
#[derive(Debug)]
pub(super) struct Readiness {
    within: Duration,
    phase: Phase,
    waiting: Vec<PendingRequest>,
}

impl Readiness {
    pub(super) fn new(settings: &LifecycleSettings) -> Self {
        Self { within: settings.ready_within, phase: Phase::Down { ended: None }, waiting: Vec::new() }
    }

    /// Applies the settings of another plugin, to processes that start from now on.
    pub(super) fn set_settings(&mut self, settings: &LifecycleSettings) {
        self.within = settings.ready_within;
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// Returns why the running process is not ready; none if it is, or does not run.
    pub(super) fn unready_reason(&self) -> Option<&str> {
        match &self.phase {
            Phase::Unready { reason, .. } => Some(reason),
            Phase::Down { .. } | Phase::Ready => None,
        }
    }

    pub(super) fn process_started(&mut self, now: Instant) {
        let reason = match &self.phase {
            Phase::Down { ended: Some(ended) } => format!("{ended} and was started again"),
            _ => NOT_CALLED.to_owned(),
        };
        let overdue_at = now + self.within;
        self.phase = Phase::Unready { due: now, delay: MIN_DELAY, overdue_at, reason };
    }

    /// Records that the process is being stopped. Requests keep waiting: it may be started again.
    pub(super) fn process_stopped(&mut self) {
        self.phase = Phase::Down { ended: None };
    }

    /// Records that the process ended unexpectedly, or could not be started again, and how. Requests keep waiting.
    pub(super) fn process_ended(&mut self, how: String) {
        self.phase = Phase::Down { ended: Some(how) };
    }

    /// Adds a request that is answered once the process is ready.
    pub(super) fn wait(&mut self, pending: PendingRequest) {
        self.waiting.push(pending);
    }

    /// Returns whether the callback is to be called.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        matches!(&self.phase, Phase::Unready { due, .. } if *due <= now)
    }

    /// Repeats the call, which was stopped because of another request, as soon as there is nothing else to do.
    pub(super) fn postpone(&mut self, now: Instant) {
        if let Phase::Unready { due, .. } = &mut self.phase {
            *due = now;
        }
    }

    /// Records that the process is not ready.
    pub(super) fn failed(&mut self, error: &str, now: Instant) {
        if let Phase::Unready { due, delay, reason, .. } = &mut self.phase {
            if reason != error {
                tracing::info!(reason = error, "sub-process not ready");
                error.clone_into(reason);
            }
            *due = now + *delay;
            *delay = (*delay * 2).min(MAX_DELAY);
        }
    }

    /// Records that the process is ready. Returns the requests to answer.
    #[must_use]
    pub(super) fn passed(&mut self) -> Vec<PendingRequest> {
        if matches!(self.phase, Phase::Unready { delay, .. } if delay > MIN_DELAY) {
            tracing::info!("sub-process ready");
        }
        self.phase = Phase::Ready;
        std::mem::take(&mut self.waiting)
    }

    /// Returns the error of a failed sanity check if the process should have been ready by now.
    #[must_use]
    pub(super) fn overdue(&mut self, now: Instant) -> Option<String> {
        match &mut self.phase {
            Phase::Unready { overdue_at, reason, .. } if *overdue_at <= now => {
                *overdue_at = now + self.within;
                Some(format!("not ready within {} s: {reason}", self.within.as_secs_f64()))
            }
            _ => None,
        }
    }

    /// Answers the requests whose time limit is exceeded. The process keeps running.
    #[must_use]
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Effect> {
        let reason = match &self.phase {
            Phase::Unready { reason, .. } => reason.clone(),
            Phase::Down { ended: Some(ended) } => format!("sub-process not running: {ended}"),
            Phase::Down { ended: None } => "sub-process not running".to_owned(),
            Phase::Ready => String::new(),
        };
        let (expired, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|wait| wait.expires <= now);
        self.waiting = waiting;
        let expired: Vec<PendingRequest> = expired;
        expired.into_iter().filter_map(|pending| pending.reply(Outcome::Unavailable(not_ready(&reason)))).collect()
    }

    /// Answers all requests with this outcome.
    #[must_use]
    pub(super) fn reject_all(&mut self, outcome: &Outcome) -> Vec<Effect> {
        self.waiting.drain(..).filter_map(|pending| pending.reply(outcome.clone())).collect()
    }

    /// Returns when a request expires, or, if `may_call` is set, a call or a failed check is due.
    pub(super) fn wake(&self, may_call: bool) -> Option<Instant> {
        let expires = self.waiting.iter().map(|pending| pending.expires).min();
        let call = match &self.phase {
            Phase::Unready { due, overdue_at, .. } if may_call => Some(*due.min(overdue_at)),
            _ => None,
        };
        expires.into_iter().chain(call).min()
    }
}

fn not_ready(reason: &str) -> Failure {
    let callback = Some(Callback::READY);
    Failure { callback, blame: Blame::Plugin, message: reason.to_owned() }
}
