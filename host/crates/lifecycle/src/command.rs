//! Control requests and their outcomes.

use std::{fmt, time::Duration};

use ochopod_model::{Digest, PostedView, View, status::Blame};
use serde_json::Value;

/// Task of a control request with its validated body.
#[derive(Debug, Clone, PartialEq)]
pub enum ControlTask {
    /// Pre-check of a configuration.
    Check(PostedView),
    /// Configure with a view, or start the last configuration.
    On(Option<PostedView>),
    /// Stop the sub-process.
    Off,
    /// Run `configured`.
    Ok(PostedView),
    /// Stop, finalize and become dead.
    Kill,
    /// User logic with any JSON.
    Signal(Option<Value>),
    /// Stop and start the last configuration.
    Restart,
    /// Leave the view of the cluster.
    Cordon(Cordon),
    /// Return to the view of the cluster.
    Uncordon,
    /// Begin another life of a dead pod.
    Revive,
}

impl ControlTask {
    /// Returns the name that it has in the control API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Check(_) => "check",
            Self::On(_) => "on",
            Self::Off => "off",
            Self::Ok(_) => "ok",
            Self::Kill => "kill",
            Self::Signal(_) => "signal",
            Self::Restart => "restart",
            Self::Cordon(_) => "cordon",
            Self::Uncordon => "uncordon",
            Self::Revive => "revive",
        }
    }

    /// Returns the view that it carries.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        match self {
            Self::Check(posted) | Self::On(Some(posted)) | Self::Ok(posted) => Some(&posted.view),
            _ => None,
        }
    }
}

/// Request to take a pod out of the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cordon {
    /// Reason, shown in every status.
    pub reason: String,
    /// Whether the sub-process is stopped too.
    pub stop: bool,
}

/// A control request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Task to execute.
    pub task: ControlTask,
    /// The leadership that sent it; none for operators and for leaders of the Python SDK.
    pub epoch: Option<i64>,
    /// Its position among the requests of that leadership: later ones have higher numbers.
    pub number: Option<u64>,
    /// The configuration to which it belongs.
    pub generation: Option<Digest>,
    /// Time limit of the reply, from the arrival.
    pub limit: Duration,
}

impl Request {
    /// Returns whether only a leader sends it: it names a leadership, or carries a view.
    pub(super) fn is_of_leader(&self) -> bool {
        self.epoch.is_some() || self.task.view().is_some()
    }

    /// Logs which client requested what. The requests of each configuration that change no process are details.
    pub(super) fn log_started(&self) {
        let (task, epoch) = (self.task.name(), self.epoch);
        let generation = self.generation.as_ref().map(Digest::as_str);
        if self.epoch.is_some() && matches!(self.task, ControlTask::Check(_) | ControlTask::Ok(_)) {
            tracing::debug!(task, epoch, generation, "control request started");
        } else {
            tracing::info!(task, epoch, generation, "control request started");
        }
    }
}

/// A callback, or the step of the host, that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// WIT name of the plugin's callback, if it failed in one.
    pub callback: Option<&'static str>,
    /// Component to blame.
    pub blame: Blame,
    /// One-line description.
    pub message: String,
}

/// `configure: no disk`, or the message alone.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.callback {
            Some(callback) => write!(f, "{callback}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// State of a request whose time limit was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeoutResult {
    /// It did not start, and will not.
    NotStarted,
    /// It started and continues.
    StillRunning,
    /// Its callback was stopped at the deadline.
    Aborted,
}

impl fmt::Display for TimeoutResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotStarted => "request dropped before it started",
            Self::StillRunning => "request still running",
            Self::Aborted => "plugin callback stopped",
        })
    }
}

/// Outcome of a request, with the status code of the control API.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// 200 with this JSON.
    Done(Value),
    /// 406: rejected by the plugin, or impossible in this state of the pod.
    Rejected(Failure),
    /// 500.
    Failed(Failure),
    /// 408: the time limit was exceeded.
    TimedOut(TimeoutResult),
    /// 409: the epoch is no longer that of the lock holder.
    Superseded(String),
    /// 409: the number is not above this one, which was accepted in the same epoch.
    Late(u64, String),
    /// 503: the same request may succeed later. The machine lacked resources until the time limit, the plugin answered that
    /// it cannot do it yet, or the sub-process is not ready.
    Unavailable(Failure),
    /// 503: whether the epoch still is that of the lock holder has to be read from the store again.
    EpochUnknown,
    /// 410: the pod is dead or shutting down.
    Gone(String),
    /// 410 for leaders: the pod is cordoned for this reason.
    Cordoned(String),
}

/// One line for the log and for statuses.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(_) => f.write_str("done"),
            Self::Rejected(failure) | Self::Failed(failure) | Self::Unavailable(failure) => failure.fmt(f),
            Self::TimedOut(overrun) => write!(f, "time limit exceeded: {overrun}"),
            Self::EpochUnknown => f.write_str("lock holder unknown"),
            Self::Cordoned(reason) => write!(f, "pod is cordoned: {reason}"),
            Self::Superseded(reason) | Self::Late(_, reason) | Self::Gone(reason) => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_is_displayed_as_one_line() {
        let failure = |callback| Failure { callback, blame: Blame::Plugin, message: "no disk".to_owned() };
        for (outcome, text) in [
            (Outcome::Done(Value::Null), "done"),
            (Outcome::Rejected(failure(Some("configure"))), "configure: no disk"),
            (Outcome::Failed(failure(None)), "no disk"),
            (Outcome::TimedOut(TimeoutResult::Aborted), "time limit exceeded: plugin callback stopped"),
            (Outcome::Gone("pod is dead".to_owned()), "pod is dead"),
        ] {
            assert_eq!(outcome.to_string(), text);
        }
    }
}
