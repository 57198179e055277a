//! What a pod says about itself, composed from what its actors publish. Nobody else writes these words.

use std::{collections::BTreeMap, fmt, time::Instant};

use serde_json::{Map, Value};

/// The sub-process, as `/info` names its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProcessState {
    /// Not running.
    #[default]
    Stopped,
    /// Running.
    Running,
    /// Asked to end.
    Terminating,
    /// The pod has ended for good.
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

/// Published by the lifecycle actor.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LifecycleReport {
    /// State of the sub-process.
    pub process: ProcessState,
    /// What the last sanity check returned; empty while stopped.
    pub metrics: Map<String, Value>,
    /// Whether the last sanity check of the present sub-process passed; none before its first one, and while stopped.
    pub sane: Option<bool>,
    /// Whether the pod was configured at least once (it answered 200 to an `on` with a view).
    pub configured: bool,
    /// Process id of the sub-process while it runs.
    pub pid: Option<u32>,
    /// Process ids released by `soft` that still live.
    pub released: Vec<u32>,
}

/// Published by the plugin's instances: which of them failed so often that they wait to be built anew, by their kind
/// (`lifecycle`, `model`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PluginReport(pub BTreeMap<&'static str, Suspension>);

/// An instance that is not built anew for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspension {
    /// When a call may build it again.
    pub until: Instant,
    /// How the last one failed.
    pub fault: String,
}

impl PluginReport {
    /// Whether this kind of instance waits.
    #[must_use]
    pub fn is_suspended(&self, instance: &str, now: Instant) -> bool {
        self.0.get(instance).is_some_and(|suspension| suspension.until > now)
    }

    /// What waits, as it reads now; empty when nothing does.
    #[must_use]
    pub fn status(&self, now: Instant) -> String {
        let waiting = self.0.iter().filter(|(_, suspension)| suspension.until > now);
        let told = waiting.map(|(instance, Suspension { until, fault })| {
            let seconds = until.saturating_duration_since(now).as_secs_f64();
            format!("* the plugin's {instance} failed too often ({fault}), started again in {seconds:.0} seconds")
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

/// What the pod is to its cluster, as `/info` names it in `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Another pod leads, or none is known to.
    #[default]
    Follower,
    /// It leads and the cluster is configured.
    Leader,
    /// It leads; a configuration is due, or it has not looked yet.
    Pending,
    /// It leads and a configuration is under way.
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
    /// What the pod is.
    pub role: Role,
    /// Text about the cluster: what the probe said, or `* <what is going on or wrong>`. Empty on followers.
    pub status: String,
    /// When what `status` announces comes.
    pub due: Option<Instant>,
}

impl LeaderReport {
    /// The status as it reads now: with the seconds until what it announces.
    #[must_use]
    pub fn status(&self, now: Instant) -> String {
        match self.due {
            Some(due) => format!("{} in {:.1} seconds", self.status, due.saturating_duration_since(now).as_secs_f64()),
            None => self.status.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_suspended_instance_is_told_until_its_time_has_come() {
        let now = Instant::now();
        let suspension = Suspension { until: now + Duration::from_secs(30), fault: "it trapped".to_owned() };
        let report = PluginReport([("model", suspension)].into());
        assert_eq!(
            report.status(now),
            "* the plugin's model failed too often (it trapped), started again in 30 seconds"
        );
        assert!(report.is_suspended("model", now) && !report.is_suspended("lifecycle", now));
        let later = now + Duration::from_secs(30);
        assert_eq!(report.status(later), "");
        assert!(!report.is_suspended("model", later));
    }
}
