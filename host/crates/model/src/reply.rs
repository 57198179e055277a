//! Replies of the control API, as its server writes and its clients read them.
//!
//! Keys are written in alphabetical order. Clients must ignore unknown keys, as these types do. A successful control request
//! is answered with `{}`, or with any JSON that the plugin's `signaled` returned.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    PodId,
    status::{Blame, CommandReport, PluginIdentity, ProcessState, Role},
};

/// Reply of `/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReply {
    /// Whether the plugin differs from the last one.
    pub changed: bool,
    /// SHA-256 digest of the component in force, in hexadecimal.
    pub digest: String,
    /// Digest of the component in force before.
    pub previous: String,
    /// Names of the settings that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings_changed: Vec<String>,
}

/// Reply of `/info`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InfoReply {
    /// Application on the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// Name of the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// Name of the cluster within its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Command of the last configuration.
    #[serde(default)]
    pub command: Option<CommandReport>,
    /// Reason for which the pod is out of the view; none if it is not cordoned.
    #[serde(default)]
    pub cordon: Option<String>,
    /// Dependencies, as the plugin's model declares them.
    pub dependencies: Vec<String>,
    /// The leadership that the pod accepts: its own, or the last one it admitted.
    pub epoch: Option<i64>,
    /// Address that other pods use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Identity of the pod.
    pub key: PodId,
    /// Last exit of the sub-process.
    #[serde(default)]
    pub last_exit: Option<String>,
    /// The pod that leads, if it is this one.
    #[serde(default)]
    pub leader: Option<LeaderAddress>,
    /// Metrics of the last sanity check.
    pub metrics: Map<String, Value>,
    /// Namespace of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Time of the next start of a sub-process that is restarted, in seconds since 1970.
    #[serde(default)]
    pub next_start: Option<u64>,
    /// Name of the underlying machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Process id of the running sub-process.
    #[serde(default)]
    pub pid: Option<u32>,
    /// The plugin in force.
    #[serde(default)]
    pub plugin: PluginIdentity,
    /// Control port in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Mapped ports: container port to host port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Map<String, Value>>,
    /// State of the sub-process.
    pub process: ProcessState,
    /// Public address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<String>,
    /// Whether the pod is ready, as `/readyz` reports it.
    #[serde(default)]
    pub ready: bool,
    /// Cause for which the sub-process does not run, is not ready, or the pod is dead.
    #[serde(default)]
    pub reason: Option<String>,
    /// Number of restarts of the sub-process after unexpected exits.
    #[serde(default)]
    pub restarts: u64,
    /// Role that the plugin named.
    #[serde(default)]
    pub role: Option<String>,
    /// Number of the pod; none until it is registered for the first time.
    pub seq: Option<u64>,
    /// State of the session with the store: `connected`, `suspended` or `lost`.
    pub session: String,
    /// Settings of the plugin in force, those of the lifecycle and those of the model.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// Time of the last change of `process` or `reason`, in seconds since 1970.
    #[serde(default)]
    pub since: Option<u64>,
    /// Source of each value that the platform or a setting provides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, String>,
    /// Time at which the running sub-process was started, in seconds since 1970.
    #[serde(default)]
    pub started: Option<u64>,
    /// Role in the cluster.
    pub state: Role,
    /// Status of the pod and, on the leader, of the cluster.
    pub status: String,
    /// Task on the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

/// The pod that leads a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderAddress {
    /// Address of its control API.
    pub address: String,
    /// Its number.
    pub seq: u64,
}

/// Reply of `/control/step-down`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StepDownReply {
    /// Pods that do not let another one lead: they do not know the request, did not answer or answered an error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<PodId>,
}

/// Reply of every request that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// Component to blame, if a task or tool failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blame: Option<Blame>,
    /// WIT name of the callback that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
    /// Reason for which the pod is out of the view, if that is why it rejects the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordon: Option<String>,
    /// One-line description.
    pub error: String,
    /// For a request that arrived out of order: the number that the pod has accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
}

impl ErrorReply {
    /// Returns a reply with a text only.
    #[must_use]
    pub fn new(error: impl Into<String>) -> Self {
        Self { blame: None, callback: None, cordon: None, error: error.into(), number: None }
    }
}

/// Reply of `/exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecReply {
    /// Exit code of the tool, 0 for success by convention.
    pub code: i32,
    /// Lines of output without their ends.
    pub stdout: Vec<String>,
}

/// Reply of `/log`: the newest lines, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogReply(pub Vec<String>);

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    fn assert_round_trip<T: Serialize + DeserializeOwned>(text: &str) {
        let reply: T = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&reply).unwrap(), text);
    }

    #[test]
    fn replies_read_back_as_they_are_written_with_sorted_keys() {
        assert_round_trip::<ErrorReply>(r#"{"error":"unknown path"}"#);
        assert_round_trip::<ErrorReply>(r#"{"blame":"plugin","callback":"configure","error":"no disk"}"#);
        assert_round_trip::<ErrorReply>(r#"{"error":"out of order","number":7}"#);
        assert_round_trip::<ExecReply>(r#"{"code":1,"stdout":["a","b"]}"#);
        assert_round_trip::<LogReply>(r#"["one","two"]"#);
        assert_round_trip::<StepDownReply>("{}");
        assert_round_trip::<StepDownReply>(r#"{"skipped":["a","b"]}"#);
        assert_round_trip::<InfoReply>(concat!(
            r#"{"application":"shop/web","binding":"marathon","cluster":"web","command":{"arguments":["-v"],"program":"/bin/web"},"#,
            r#""cordon":"disk","dependencies":["db"],"epoch":null,"ip":"10.0.0.1","key":"a","#,
            r#""last_exit":"exited with code 1","leader":{"address":"10.0.0.1:8080","seq":3},"metrics":{},"#,
            r#""namespace":"marathon","next_start":1800000001,"node":"agent-7","pid":7,"#,
            r#""plugin":{"digest":"ff","name":"web","version":"1.2"},"port":"8080","ports":{"8080":31000},"#,
            r#""process":"stopped","public":"54.0.0.1","ready":false,"reason":"killed","restarts":2,"role":"primary","#,
            r#""seq":3,"session":"connected","settings":{"lifecycle":{"checks":1},"model":{}},"since":1800000000,"#,
            r#""sources":{"ip":"HOST, resolved"},"started":1800000000,"state":"leader (configuring)","status":"","task":"web.1"}"#,
        ));
        let python = r#"{"dependencies":[],"epoch":7,"key":"a","metrics":{"cpu":0.5},"process":"terminating","seq":null,
            "session":"lost","state":"follower","status":"* off: #2"}"#;
        let info: InfoReply = serde_json::from_str(python).unwrap();
        assert_eq!((info.process, info.since, info.ready), (ProcessState::Terminating, None, false));
    }

    #[test]
    fn states_are_written_as_they_are_displayed() {
        let processes = [ProcessState::Stopped, ProcessState::Running, ProcessState::Terminating, ProcessState::Dead];
        for process in processes {
            assert_eq!(serde_json::to_value(process).unwrap(), process.to_string());
        }
        for role in [Role::Follower, Role::Leader, Role::Pending, Role::Configuring] {
            assert_eq!(serde_json::to_value(role).unwrap(), role.to_string());
        }
    }

    #[test]
    fn unknown_keys_are_ignored() {
        let reply: ErrorReply = serde_json::from_str(r#"{"error":"x","hint":"y"}"#).unwrap();
        assert_eq!(reply, ErrorReply::new("x"));
    }
}
