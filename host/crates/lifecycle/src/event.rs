//! Events and effects of a [`LifecycleMachine`](super::LifecycleMachine).

use std::time::Duration;

use ochopod_init::Exit;
use ochopod_model::PostedView;
use ochopod_plugin::Command;
use serde_json::{Map, Value};

use super::{Failure, Outcome, Request};

/// Identifies a request until it is answered; counted from 1.
pub type RequestId = u64;

/// A callback to run in the plugin's lifecycle instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Callback {
    /// `initialize`
    Initialize,
    /// `can-configure`
    CanConfigure(PostedView),
    /// `configure`
    Configure(PostedView),
    /// `ready` of this process, with the view that it was configured from
    Ready(PostedView, u32),
    /// `configured`
    Configured(PostedView),
    /// `sanity-check` of this process
    SanityCheck(u32),
    /// `signaled` with this body, and the process if it runs
    Signaled(Option<Value>, Option<u32>),
    /// `tear-down` of this process
    TearDown(u32),
    /// `finalize`
    Finalize,
}

impl Callback {
    /// WIT name of [`Self::Ready`], which marks the reply of a pod that is only not ready.
    pub const READY: &'static str = "ready";

    /// Returns its WIT name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::CanConfigure(_) => "can-configure",
            Self::Configure(_) => "configure",
            Self::Ready(..) => Self::READY,
            Self::Configured(_) => "configured",
            Self::SanityCheck(_) => "sanity-check",
            Self::Signaled(..) => "signaled",
            Self::TearDown(_) => "tear-down",
            Self::Finalize => "finalize",
        }
    }
}

/// Result of a callback that succeeded.
#[derive(Debug, Clone, PartialEq)]
pub enum CallbackValue {
    /// Nothing but success.
    Nothing,
    /// `configure`: the command to run.
    Command(Command),
    /// `sanity-check`: metrics, and the role if one is named.
    Health(Map<String, Value>, Option<String>),
    /// `configured`: the role, if one is named.
    Role(Option<String>),
    /// `signaled`: any JSON.
    Json(Value),
}

/// Failure of a callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackError {
    /// Cause and blame.
    pub failure: Failure,
    /// Its kind.
    pub kind: CallbackErrorKind,
}

/// Kind of failure of a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackErrorKind {
    /// It returned an error, or trapped.
    Failed,
    /// It exceeded its deadline.
    Overrun,
    /// It cannot succeed yet: only of `initialize` and `configure`.
    NotYet,
}

/// Failure to start a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// One-line description.
    pub reason: String,
    /// Whether the machine lacked a resource: the program is not at fault, and another attempt may succeed.
    pub transient: bool,
}

/// Input of a [`LifecycleMachine`](super::LifecycleMachine).
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A request arrived.
    Submitted(RequestId, Request),
    /// The client of that request is gone.
    Withdrawn(RequestId),
    /// The callback of that number returned.
    CallbackValue(u64, Result<CallbackValue, CallbackError>),
    /// The last spawn succeeded with this process id, or failed.
    Spawned(Result<u32, StartFailure>),
    /// A spawned process exited.
    Exited(u32, Exit),
    /// The time of [`wake`](super::LifecycleMachine::wake) is reached.
    Tick,
    /// The shutdown started: no request is accepted and nothing is started from now on. A running sub-process keeps running until
    /// [`Stop`](Self::Stop).
    Drain,
    /// The sub-process has to be stopped for the shutdown.
    Stop,
    /// The host has to exit immediately.
    Force,
}

/// Output of a [`LifecycleMachine`](super::LifecycleMachine), to be carried out in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Run a callback and report [`CallbackValue`](Event::CallbackValue) with this number.
    Call(u64, Callback, Duration),
    /// Stop the running callback, for which nothing is reported.
    CancelCall,
    /// Spawn this and report [`Spawned`](Event::Spawned).
    Spawn(Command),
    /// Abandon the spawn, for which nothing is reported.
    AbandonSpawn,
    /// Terminate the process group: by SIGTERM, or by the signal with which the host was terminated.
    Terminate(u32),
    /// Send a signal, by its number, to the process alone.
    Signal(u32, u8),
    /// Send SIGKILL to the process group.
    Kill(u32),
    /// Stop managing the process, and only reap it.
    Release(u32),
    /// Answer a request.
    Reply(RequestId, Outcome),
    /// Count that the sub-process exited unexpectedly, or could not be restarted.
    EndedUnexpectedly,
    /// Count that the sub-process was started again after an unexpected exit.
    Restarted,
    /// Count a failed sanity check.
    CheckFailed,
    /// The pod is dead.
    Died,
    /// The pod is no longer dead.
    Revived,
    /// All is done: the host may exit.
    Finished,
}
