//! Reports of the actors of a pod, and the texts composed of them.

mod state;

use std::{collections::BTreeMap, fmt, time::Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
pub use state::{MAX_REASON_BYTES, PodState, single_line};

/// The sub-process, as `/info` names its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessState {
    /// Not running.
    #[default]
    Stopped,
    /// Running.
    Running,
    /// Being stopped.
    Terminating,
    /// The pod is dead.
    Dead,
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::Terminating => "terminating",
            Self::Dead => "dead",
        })
    }
}

/// Component to blame for a failure, as errors of the control API report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// The plugin rejected the request or failed.
    Plugin,
    /// The host failed, or cannot execute the request.
    Host,
}

/// Published by the lifecycle actor.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LifecycleReport {
    /// State of the sub-process.
    pub process: ProcessState,
    /// Metrics of the last sanity check; empty while stopped.
    pub metrics: Map<String, Value>,
    /// Whether the last sanity check of the current sub-process passed; none before its first one, and while stopped.
    pub last_check_passed: Option<bool>,
    /// Whether the pod was configured at least once (it answered 200 to an `on` with a view).
    pub configured: bool,
    /// Process id of the sub-process while it runs.
    pub pid: Option<u32>,
    /// Ids of released processes that still run.
    pub released: Vec<u32>,
    /// Cause for which the sub-process does not run or the pod is dead; none while it runs, and until the pod is configured.
    pub reason: Option<String>,
    /// Whether the pod died of a failure: it could not be configured.
    pub failed: bool,
    /// The signal that stopped the sub-process, for as long as it is stopped.
    pub stopped_by: Option<&'static str>,
    /// Reason for which the running sub-process is not ready; none if it is, or does not run.
    pub unready: Option<String>,
    /// Reason for which the pod is out of the view; none if it is not cordoned.
    pub cordon: Option<String>,
    /// Role that the plugin named last; none while the sub-process does not run.
    pub role: Option<String>,
    /// Time of the last change of `process`, `reason` or `unready`.
    pub since: Option<Instant>,
    /// Time at which the running sub-process was started.
    pub started: Option<Instant>,
    /// Number of restarts of the sub-process after unexpected exits.
    pub restarts: u64,
    /// Last exit of the sub-process, such as `exited with code 1`.
    pub last_exit: Option<String>,
    /// Time of the next start of a sub-process that is restarted.
    pub next_start: Option<Instant>,
    /// Command of the last configuration.
    pub command: Option<CommandReport>,
}

/// Platform of the pod, and the source of each registered value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlatformReport {
    /// Name of the platform.
    pub binding: String,
    /// Source of each known value: a setting, a variable or a look-up.
    pub sources: BTreeMap<String, String>,
    /// Public address that was found after the registration, if it differs from the registered one.
    pub late_public: Option<String>,
}

/// Program and arguments of a sub-process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandReport {
    /// Arguments without the program.
    pub arguments: Vec<String>,
    /// Program, or text for the shell.
    pub program: String,
}

impl LifecycleReport {
    /// Returns whether the sub-process of a configured pod does not run.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.process == ProcessState::Stopped && self.reason.is_some()
    }

    /// Returns the report with the time of its last change, which is now if it differs from the previous one.
    #[must_use]
    pub fn dated(self, previous: &Self, now: Instant) -> Self {
        let is_same =
            (self.process, &self.reason, &self.unready) == (previous.process, &previous.reason, &previous.unready);
        Self { since: previous.since.filter(|_| is_same).or(Some(now)), ..self }
    }

    /// Returns why the pod is not ready; none while it is configured and its sub-process runs.
    #[must_use]
    pub fn unready_reason(&self) -> Option<String> {
        let text = match self.process {
            ProcessState::Dead => "pod is dead",
            ProcessState::Running if self.unready.is_some() => {
                return self.unready.as_ref().map(|reason| format!("sub-process is not ready: {reason}"));
            }
            _ if !self.configured => "pod is not configured yet",
            ProcessState::Running => return self.stopped_by.map(|signal| format!("sub-process stopped by {signal}")),
            ProcessState::Terminating => "sub-process is being stopped",
            ProcessState::Stopped => "sub-process is not running",
        };
        Some(match &self.reason {
            Some(reason) => format!("{text}: {reason}"),
            None => text.to_owned(),
        })
    }

    /// Returns the part of `status` in `/info` about the sub-process; empty if there is nothing to report.
    #[must_use]
    pub fn status(&self) -> String {
        let cordoned = self.cordon.as_ref().map(|reason| format!("* cordoned: {reason}"));
        let stopped = self.stopped_by.map(|signal| format!("* sub-process stopped by {signal}"));
        let unready = self.unready.as_ref().map(|reason| format!("* sub-process not ready: {reason}"));
        cordoned.into_iter().chain(stopped).chain(unready).collect::<Vec<_>>().join(", ")
    }
}

/// Published by the plugin's instances.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PluginReport {
    /// Those suspended after repeated failures, by their kind (`lifecycle`, `model`).
    pub suspended: BTreeMap<&'static str, Suspension>,
    /// The plugin that was rolled back and the reason, until the next reload: `plugin 1a2b3c4d rolled back: …`.
    pub rolled_back: Option<String>,
}

/// The plugin that a pod runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PluginIdentity {
    /// SHA-256 digest of the component, in hexadecimal.
    pub digest: String,
    /// Name of its file, without the extension.
    pub name: String,
    /// Version, if the plugin names one.
    pub version: Option<String>,
}

impl PluginIdentity {
    /// Returns the part of the digest that the pod publishes in its cluster.
    #[must_use]
    pub fn short_digest(&self) -> &str {
        self.digest.get(..12).unwrap_or(&self.digest)
    }
}

/// Suspension of an instance after repeated failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspension {
    /// When a call may rebuild it.
    pub until: Instant,
    /// Failure of the last one.
    pub last_error: String,
}

impl PluginReport {
    /// Returns whether this kind of instance is suspended.
    #[must_use]
    pub fn is_suspended(&self, instance: &str, now: Instant) -> bool {
        self.suspended.get(instance).is_some_and(|suspension| suspension.until > now)
    }

    /// Returns whether any instance is suspended: [`Self::status`] counts seconds then.
    #[must_use]
    pub fn has_suspended(&self, now: Instant) -> bool {
        self.suspended.values().any(|suspension| suspension.until > now)
    }

    /// Returns the suspended instances as of now, and the plugin that was rolled back; empty if there is neither.
    #[must_use]
    pub fn status(&self, now: Instant) -> String {
        let waiting = self.suspended.iter().filter(|(_, suspension)| suspension.until > now);
        let texts = waiting.map(|(instance, Suspension { until, last_error })| {
            let seconds = until.saturating_duration_since(now).as_secs_f64();
            format!("* plugin {instance} suspended after repeated failures ({last_error}), restarting in {seconds:.0} seconds")
        });
        let rolled_back = self.rolled_back.as_ref().map(|text| format!("* {text}"));
        rolled_back.into_iter().chain(texts).collect::<Vec<_>>().join(", ")
    }
}

/// Role of the pod in its cluster, `state` in `/info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Role {
    /// Another pod leads, or none is known to.
    #[default]
    #[serde(rename = "follower")]
    Follower,
    /// It leads and the cluster is configured.
    #[serde(rename = "leader")]
    Leader,
    /// It leads; a configuration is due, or it has not read the state of the cluster yet.
    #[serde(rename = "leader (configuration pending)")]
    Pending,
    /// It leads and a configuration is in progress.
    #[serde(rename = "leader (configuring)")]
    Configuring,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Follower => "follower",
            Self::Leader => "leader",
            Self::Pending => "leader (configuration pending)",
            Self::Configuring => "leader (configuring)",
        })
    }
}

/// Published by the leader actor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaderReport {
    /// Role of the pod.
    pub role: Role,
    /// Text about the cluster: result of the probe, or `*` and the current activity or fault. Empty on followers.
    pub status: String,
    /// Time of the next action, which `status` announces.
    pub next_action_at: Option<Instant>,
    /// Pods of the cluster that are off or dead.
    pub down: DownPods,
}

/// Pods of a cluster that are off or dead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DownPods {
    /// Number of pods whose sub-process is off.
    pub off: usize,
    /// Number of dead pods.
    pub dead: usize,
    /// Their list for `status`, of bounded length; empty while there are none, and during a configuration.
    pub text: String,
}

impl LeaderReport {
    /// Returns the status as of now: with the seconds until the next action, and the pods that are off or dead.
    ///
    /// It starts with `*` during any activity or fault, a pod that is off or dead included.
    #[must_use]
    pub fn status(&self, now: Instant) -> String {
        let status = match self.next_action_at {
            Some(due) => format!("{} in {:.1} seconds", self.status, due.saturating_duration_since(now).as_secs_f64()),
            None => self.status.clone(),
        };
        let down = &self.down.text;
        match (status.is_empty(), down.is_empty()) {
            (_, true) => status,
            (true, false) => format!("* {down}"),
            (false, false) if status.starts_with('*') => format!("{status}, {down}"),
            (false, false) => format!("* {down}, {status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn status_lists_down_pods_behind_an_asterisk_and_keeps_its_own_text() {
        let now = Instant::now();
        let status = |status: &str, due, down: &str| {
            let down = DownPods { text: down.to_owned(), ..DownPods::default() };
            LeaderReport { role: Role::Leader, status: status.to_owned(), next_action_at: due, down }.status(now)
        };
        for (own, due, down, expected) in [
            ("", None, "", ""),
            ("3 replicas", None, "", "3 replicas"),
            ("", None, "off: #2", "* off: #2"),
            ("3 replicas", None, "off: #2", "* off: #2, 3 replicas"),
            ("* out of sync", None, "off: #2", "* out of sync, off: #2"),
            ("* configuration", Some(now), "off: #2", "* configuration in 0.0 seconds, off: #2"),
        ] {
            assert_eq!(status(own, due, down), expected);
        }
    }

    #[test]
    fn stopped_sub_process_is_unready_and_reported_with_its_signal() {
        let report = LifecycleReport { stopped_by: Some("SIGTTIN"), ..LifecycleReport::default() };
        assert_eq!(report.status(), "* sub-process stopped by SIGTTIN");
        let (process, configured) = (ProcessState::Running, true);
        let running = LifecycleReport { process, configured, ..report };
        assert_eq!(running.unready_reason().as_deref(), Some("sub-process stopped by SIGTTIN"));
        assert_eq!(LifecycleReport { stopped_by: None, ..running }.unready_reason(), None);
        assert_eq!(LifecycleReport::default().status(), "");
    }

    #[test]
    fn plugin_report_lists_suspended_instances_until_they_expire() {
        let now = Instant::now();
        let suspension = Suspension { until: now + Duration::from_secs(30), last_error: "it trapped".to_owned() };
        let mut report = PluginReport { suspended: [("model", suspension)].into(), rolled_back: None };
        let suspended = "* plugin model suspended after repeated failures (it trapped), restarting in 30 seconds";
        assert_eq!(report.status(now), suspended);
        assert!(report.is_suspended("model", now) && !report.is_suspended("lifecycle", now));
        let later = now + Duration::from_secs(30);
        assert_eq!(report.status(later), "");
        assert!(!report.is_suspended("model", later));
        report.rolled_back = Some("plugin 1a2b3c4d rolled back: sanity-check: no".to_owned());
        assert_eq!(report.status(later), "* plugin 1a2b3c4d rolled back: sanity-check: no");
        assert!(report.status(now).ends_with(&format!("no, {suspended}")));
    }
}
