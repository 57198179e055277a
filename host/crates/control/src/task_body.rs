//! Names of tasks, and their bodies.

use bytes::Bytes;
use ochopod_lifecycle::{ControlTask, Cordon};
use ochopod_model::{
    PodId, PostedView, json,
    status::{MAX_REASON_BYTES, single_line},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    cluster_task::ClusterTask,
    pod_views::{PodViews, ViewHeaders},
    reply::ApiError,
};

/// Name of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskName {
    Check,
    On,
    Off,
    Ok,
    Kill,
    Signal,
    Cordon,
    Uncordon,
    Restart,
    Revive,
    StepDown,
    Pause,
    Resume,
}

/// Task with its validated body.
#[derive(Debug, PartialEq)]
pub(super) enum Task {
    /// For the lifecycle.
    Lifecycle(ControlTask),
    /// For the membership.
    Cluster(ClusterTask),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CordonBody {
    reason: String,
    #[serde(default)]
    process: CordonProcess,
}

/// Effect of a cordon on the sub-process.
#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CordonProcess {
    #[default]
    Keep,
    Stopped,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseBody {
    reason: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepDownBody {
    #[serde(default)]
    to: Option<PodId>,
}

impl TaskName {
    const ALL: [Self; 13] = [
        Self::Check,
        Self::On,
        Self::Off,
        Self::Ok,
        Self::Kill,
        Self::Signal,
        Self::Cordon,
        Self::Uncordon,
        Self::Restart,
        Self::Revive,
        Self::StepDown,
        Self::Pause,
        Self::Resume,
    ];

    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        Self::ALL.into_iter().find(|task| task.name() == text).ok_or_else(|| {
            ApiError::bad_request(format!(
                "unknown task {text:?}: expected check, on, off, ok, kill, signal, cordon, uncordon, restart, revive, \
                 step-down, pause or resume"
            ))
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::On => "on",
            Self::Off => "off",
            Self::Ok => "ok",
            Self::Kill => "kill",
            Self::Signal => "signal",
            Self::Cordon => "cordon",
            Self::Uncordon => "uncordon",
            Self::Restart => "restart",
            Self::Revive => "revive",
            Self::StepDown => "step-down",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// Returns the task with its body, and the pod for which it is if one is named. Tasks that need no body accept any JSON:
    /// leaders post the view to `off` and `kill` too.
    ///
    /// # Errors
    /// 400 for an invalid body; 412 if the pod does not hold the view that the request names.
    pub(super) fn with_body(
        self,
        body: &Bytes,
        headers: &ViewHeaders,
        views: &PodViews,
    ) -> Result<(Task, Option<PodId>), ApiError> {
        let view = |task: fn(PostedView) -> ControlTask| {
            let view = views.read(headers, body)?;
            let target_pod = view.key.clone();
            Ok((Task::Lifecycle(task(view)), Some(target_pod)))
        };
        let json =
            || -> Result<Option<Value>, ApiError> { if body.is_empty() { Ok(None) } else { parse(body).map(Some) } };
        let bare = |task: Task| {
            let json = json()?;
            let target_pod = match json.as_ref().and_then(|json| json.get("key")) {
                None => headers.target.clone(),
                Some(Value::String(key)) => Some(PodId::from(key.as_str())),
                Some(_) => return Err(ApiError::bad_request("invalid key: expected text")),
            };
            Ok((task, target_pod))
        };
        let task = match self {
            Self::Check => return view(ControlTask::Check),
            Self::On if !body.is_empty() || headers.view.is_some() => return view(|view| ControlTask::On(Some(view))),
            Self::Ok => return view(ControlTask::Ok),
            Self::Off => return bare(Task::Lifecycle(ControlTask::Off)),
            Self::Kill => return bare(Task::Lifecycle(ControlTask::Kill)),
            Self::Uncordon => return bare(Task::Lifecycle(ControlTask::Uncordon)),
            Self::Restart => return bare(Task::Lifecycle(ControlTask::Restart)),
            Self::Revive => return bare(Task::Lifecycle(ControlTask::Revive)),
            Self::Resume => return bare(Task::Cluster(ClusterTask::Resume)),
            Self::On => Task::Lifecycle(ControlTask::On(None)),
            Self::Signal => Task::Lifecycle(ControlTask::Signal(json()?)),
            Self::Cordon => {
                let CordonBody { reason, process } = parse_object(body)?;
                let stop = matches!(process, CordonProcess::Stopped);
                Task::Lifecycle(ControlTask::Cordon(Cordon { reason: validate_reason(&reason)?, stop }))
            }
            Self::StepDown if body.is_empty() => Task::Cluster(ClusterTask::StepDown(None)),
            Self::StepDown => Task::Cluster(ClusterTask::StepDown(parse_object::<StepDownBody>(body)?.to)),
            Self::Pause => {
                Task::Cluster(ClusterTask::Pause(validate_reason(&parse_object::<PauseBody>(body)?.reason)?))
            }
        };
        Ok((task, None))
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    json::parse(body).map_err(invalid_json)
}

fn parse_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    json::parse_object(body).map_err(invalid_json)
}

#[expect(clippy::needless_pass_by_value, reason = "an argument of `map_err`")]
fn invalid_json(error: String) -> ApiError {
    ApiError::bad_request(format!("invalid JSON body: {error}"))
}

/// Returns the reason without spaces around it.
fn validate_reason(text: &str) -> Result<String, ApiError> {
    let reason = text.trim();
    if reason.is_empty() || reason != single_line(reason, MAX_REASON_BYTES) {
        return Err(ApiError::bad_request(format!(
            "invalid reason: expected one line of 1 to {MAX_REASON_BYTES} bytes"
        )));
    }
    Ok(reason.to_owned())
}
