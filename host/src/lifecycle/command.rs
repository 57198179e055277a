//! What a pod can be asked to do, and what comes of it.

use std::time::Duration;

use serde_json::Value;

use crate::cluster::{Digest, PostedView};

/// A control request's task with its body, checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Pre-check of a configuration.
    Check(PostedView),
    /// Configure with a view, or start what was configured last.
    On(Option<PostedView>),
    /// Stop the sub-process.
    Off,
    /// Run `configured`.
    Ok(PostedView),
    /// Stop, finalize and become dead.
    Kill,
    /// User logic with any JSON.
    Signal(Option<Value>),
}

impl Command {
    /// The task as the control API names it.
    #[must_use]
    pub fn task(&self) -> &'static str {
        match self {
            Self::Check(_) => "check",
            Self::On(_) => "on",
            Self::Off => "off",
            Self::Ok(_) => "ok",
            Self::Kill => "kill",
            Self::Signal(_) => "signal",
        }
    }
}

/// A command with what came along.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// The leadership that asks; none for people and for leaders of the Python SDK.
    pub epoch: Option<i64>,
    /// Where it stands among the posts of that leadership: what was posted later has a higher number.
    pub number: Option<u64>,
    /// The configuration that it belongs to.
    pub generation: Option<Digest>,
    /// How long the answer may take, from the arrival.
    pub limit: Duration,
}

impl Request {
    /// Who asks for what: the answer to "who stopped it?".
    pub(super) fn log_begin(&self) {
        let generation = self.generation.as_ref().map(Digest::as_str);
        tracing::info!(epoch = self.epoch, generation, "/control/{} begins", self.command.task());
    }
}

/// Who is to blame for a failure, as errors of the control API say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The plugin refused, or failed to do its part.
    Plugin,
    /// The host could not do what it should.
    Host,
}

/// A callback, or the step of the host, that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The plugin's callback (its WIT name), when it was in one.
    pub callback: Option<&'static str>,
    /// Who is to blame.
    pub blame: Blame,
    /// The text for people.
    pub message: String,
}

/// What became of a request whose limit passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overrun {
    /// It never began, and will not.
    Dropped,
    /// It had begun, and goes on.
    GoesOn,
    /// The callback was stopped at its deadline.
    Stopped,
}

/// What came of a request. The status code is the control API's.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// 200 with this JSON.
    Done(Value),
    /// 406: the plugin, or the state of the pod, refuses.
    Refused(Failure),
    /// 500.
    Failed(Failure),
    /// 408: the limit passed.
    TimedOut(Overrun),
    /// 409: the epoch is no more that of the lock holder, or its leader has posted something else since.
    Superseded(String),
    /// 503: whether the epoch still is that of the lock holder has to be found out anew.
    Lapsed,
    /// 410: the pod is dead or leaving.
    Gone(String),
}
