//! `/info`: what the pod is, rendered once for each change of it.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::Pod;
use crate::{
    coord::{Membership, SessionState},
    lifecycle::Admission,
    status::{LeaderReport, LifecycleReport, PluginReport},
};

/// Keys that are shown as they were registered.
const REGISTERED: [&str; 9] = ["application", "cluster", "ip", "namespace", "node", "port", "ports", "public", "task"];

/// The body of `/info`, kept until something changes.
pub(super) struct Info {
    fixed: Map<String, Value>,
    current: Mutex<Current>,
}

struct Current {
    membership: watch::Receiver<Membership>,
    lifecycle: watch::Receiver<LifecycleReport>,
    leader: watch::Receiver<LeaderReport>,
    plugin: watch::Receiver<PluginReport>,
    admitted: watch::Receiver<Option<Admission>>,
    /// Whether the status counts seconds, and so is another one each time.
    counting: bool,
    /// Kept while there is no session: it is the pod's for life.
    seq: Option<u64>,
    body: Bytes,
}

impl Info {
    pub(super) fn new(pod: &Pod) -> Self {
        let shown = |key: &str| Some((key.to_owned(), pod.registration.get(key)?.clone()));
        let mut fixed: Map<String, Value> = REGISTERED.iter().filter_map(|key| shown(key)).collect();
        fixed.insert("dependencies".to_owned(), pod.dependencies.clone().into());
        fixed.insert("key".to_owned(), pod.id.as_str().into());
        let mut current = Current {
            membership: pod.member.watch(),
            lifecycle: pod.lifecycle_report.clone(),
            leader: pod.leader_report.clone(),
            plugin: pod.plugin_report.clone(),
            admitted: pod.fence.watch(),
            counting: false,
            seq: None,
            body: Bytes::new(),
        };
        current.render(&fixed);
        Self { fixed, current: Mutex::new(current) }
    }

    /// The body, as JSON.
    pub(super) fn body(&self) -> Bytes {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_stale() {
            current.render(&self.fixed);
        }
        current.body.clone()
    }
}

impl Current {
    /// Whether anything was published since, or will not be any more: the last word may be unread then.
    fn is_stale(&self) -> bool {
        self.membership.has_changed().unwrap_or(true)
            || self.lifecycle.has_changed().unwrap_or(true)
            || self.leader.has_changed().unwrap_or(true)
            || self.plugin.has_changed().unwrap_or(true)
            || self.admitted.has_changed().unwrap_or(true)
            || self.counting
    }

    fn render(&mut self, fixed: &Map<String, Value>) {
        let mut info = fixed.clone();
        let mut show = |key: &str, value: Value| _ = info.insert(key.to_owned(), value);
        let membership = self.membership.borrow_and_update();
        self.seq = membership.registered.map(|registered| registered.seq).or(self.seq);
        show("seq", self.seq.into());
        show("session", membership.state.to_string().into());
        // The leadership that the pod obeys: its own, or the one it admitted last.
        let admitted = self.admitted.borrow_and_update().map(|admission| admission.epoch);
        show("epoch", membership.leadership.as_ref().map(|leadership| leadership.epoch).or(admitted).into());
        let connected = membership.state == SessionState::Connected;
        drop(membership);
        let lifecycle = self.lifecycle.borrow_and_update();
        show("process", lifecycle.process.to_string().into());
        show("metrics", lifecycle.metrics.clone().into());
        drop(lifecycle);
        let reported = self.leader.borrow_and_update();
        // Without a connection nobody leads, whether or not the leader's actor has come round to say so.
        let leader = if connected { &*reported } else { &LeaderReport::default() };
        show("state", leader.role.to_string().into());
        // What the leader says of the cluster comes first; what is wrong with the own plugin is never left out.
        let now = Instant::now();
        let (cluster, plugin) = (leader.status(now), self.plugin.borrow_and_update().status(now));
        self.counting = leader.due.is_some() || !plugin.is_empty();
        let told: Vec<String> = [cluster, plugin].into_iter().filter(|text| !text.is_empty()).collect();
        show("status", told.join(", ").into());
        self.body = Bytes::from(Value::Object(info).to_string());
    }
}
