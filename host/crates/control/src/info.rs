//! `/info`: the state of the pod, encoded once for each change. Times are absolute, so that time alone changes nothing.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use ochopod_lifecycle::{AdmittedEpoch, KnownLeader};
use ochopod_model::{
    reply::{InfoReply, LeaderAddress},
    status::{LeaderReport, LifecycleReport, PlatformReport, PluginIdentity, PluginReport, ProcessState, Role},
};
use ochopod_store::{Membership, SessionState};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{ApiContext, monitoring::unready_reason_of, reply};

/// `reason` of a pod that was never configured.
const NEVER_CONFIGURED: &str = "never configured";

/// The body of `/info`, kept until something changes.
pub(super) struct InfoCache(Mutex<InfoState>);

struct InfoState {
    info: InfoReply,
    membership: watch::Receiver<Membership>,
    lifecycle: watch::Receiver<LifecycleReport>,
    leader: watch::Receiver<LeaderReport>,
    plugin: watch::Receiver<PluginReport>,
    identity: watch::Receiver<PluginIdentity>,
    settings: watch::Receiver<Map<String, Value>>,
    platform: watch::Receiver<PlatformReport>,
    /// Registered public address.
    public: Option<String>,
    admitted: watch::Receiver<Option<AdmittedEpoch>>,
    /// The leader, if it is another pod and known.
    located: watch::Receiver<Option<KnownLeader>>,
    shutdown: CancellationToken,
    /// Address of the control API.
    address: Option<String>,
    since: UnixTime,
    started: UnixTime,
    next_start: UnixTime,
    /// Whether the body is that of a pod that shuts down.
    is_shutting_down: bool,
    /// Whether the status counts seconds, and so differs each time.
    is_counting: bool,
    body: Bytes,
}

impl InfoCache {
    pub(super) fn new(context: &ApiContext) -> Self {
        let value = |key: &str| context.registration.get(key);
        let text = |key: &str| value(key).and_then(Value::as_str).map(str::to_owned);
        let (membership, lifecycle) = (context.member.watch(), context.lifecycle_report.clone());
        let info = InfoReply {
            application: text("application"),
            binding: text("binding"),
            cluster: text("cluster"),
            command: None,
            cordon: None,
            dependencies: context.dependencies.clone(),
            epoch: None,
            ip: text("ip"),
            key: context.id.clone(),
            last_exit: None,
            leader: None,
            metrics: lifecycle.borrow().metrics.clone(),
            namespace: text("namespace"),
            next_start: None,
            node: text("node"),
            pid: None,
            plugin: PluginIdentity::default(),
            port: text("port"),
            ports: value("ports").and_then(Value::as_object).cloned(),
            process: lifecycle.borrow().process,
            public: text("public"),
            ready: false,
            reason: None,
            restarts: 0,
            role: None,
            seq: None,
            session: membership.borrow().state.to_string(),
            settings: Map::new(),
            since: None,
            sources: BTreeMap::new(),
            started: None,
            state: context.leader_report.borrow().role,
            status: String::new(),
            task: text("task"),
        };
        let mut state = InfoState {
            info,
            membership,
            lifecycle,
            leader: context.leader_report.clone(),
            plugin: context.plugin_report.clone(),
            identity: context.plugin.clone(),
            settings: context.settings.clone(),
            platform: context.platform.clone(),
            public: text("public"),
            admitted: context.fence.watch(),
            located: context.fence.leader(),
            shutdown: context.shutdown.clone(),
            address: context.control_address(),
            since: UnixTime::default(),
            started: UnixTime::default(),
            next_start: UnixTime::default(),
            is_shutting_down: false,
            is_counting: false,
            body: Bytes::new(),
        };
        state.update();
        Self(Mutex::new(state))
    }

    /// Returns the body, as JSON.
    pub(super) fn body(&self) -> Bytes {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_stale() {
            state.update();
        }
        state.body.clone()
    }
}

impl InfoState {
    /// Returns whether anything was published since, or can no longer be: the last report may be unread then.
    fn is_stale(&self) -> bool {
        self.membership.has_changed().unwrap_or(true)
            || self.lifecycle.has_changed().unwrap_or(true)
            || self.leader.has_changed().unwrap_or(true)
            || self.plugin.has_changed().unwrap_or(true)
            || self.identity.has_changed().unwrap_or(true)
            || self.settings.has_changed().unwrap_or(true)
            || self.platform.has_changed().is_ok_and(|changed| changed)
            || self.admitted.has_changed().unwrap_or(true)
            || self.located.has_changed().unwrap_or(true)
            || self.is_shutting_down != self.shutdown.is_cancelled()
            || self.is_counting
    }

    fn update(&mut self) {
        let info = &mut self.info;
        let membership = self.membership.borrow_and_update();
        // The number is the pod's for life, and kept while there is no session.
        info.seq = membership.registered.map(|registered| registered.seq).or(info.seq);
        info.session = membership.state.to_string();
        // The leadership that the pod accepts: its own, or the last one it admitted.
        let admitted = self.admitted.borrow_and_update().as_ref().map(|admission| admission.epoch);
        info.epoch = membership.leadership.as_ref().map(|leadership| leadership.epoch).or(admitted);
        let is_connected = membership.state == SessionState::Connected;
        let unregistered = membership.unregistered_reason().map(|reason| format!("* not registered: {reason}"));
        let lifecycle = self.lifecycle.borrow_and_update();
        self.is_shutting_down = self.shutdown.is_cancelled();
        info.ready = unready_reason_of(self.is_shutting_down, &lifecycle, &membership).is_none();
        drop(membership);
        info.process = lifecycle.process;
        info.metrics.clone_from(&lifecycle.metrics);
        info.command.clone_from(&lifecycle.command);
        info.cordon.clone_from(&lifecycle.cordon);
        info.last_exit.clone_from(&lifecycle.last_exit);
        info.role.clone_from(&lifecycle.role);
        (info.pid, info.restarts) = (lifecycle.pid, lifecycle.restarts);
        info.reason = reason(&lifecycle);
        info.since = self.since.update(lifecycle.since);
        info.started = self.started.update(lifecycle.started);
        info.next_start = self.next_start.update(lifecycle.next_start);
        let process = lifecycle.status();
        drop(lifecycle);
        info.plugin.clone_from(&self.identity.borrow_and_update());
        info.settings.clone_from(&self.settings.borrow_and_update());
        let platform = self.platform.borrow_and_update();
        info.sources.clone_from(&platform.sources);
        info.public = platform.late_public.clone().or_else(|| self.public.clone());
        drop(platform);
        let reported = self.leader.borrow_and_update();
        // Without a connection no pod leads, whether or not the leader's actor has reported that yet.
        let leader = if is_connected { &*reported } else { &LeaderReport::default() };
        info.state = leader.role;
        let leads = leader.role != Role::Follower;
        let own = self.address.clone().zip(info.seq).map(|(address, seq)| LeaderAddress { address, seq });
        let located = self.located.borrow_and_update().as_ref().map(|known| known.address.clone());
        info.leader = if leads { own } else { located.filter(|_| is_connected) };
        // The cause that prevents the registration comes first, then the status of the cluster. Faults of the pod's own process
        // and plugin are always included.
        let now = Instant::now();
        let report = self.plugin.borrow_and_update();
        let (cluster, plugin) = (leader.status(now), report.status(now));
        self.is_counting = leader.next_action_at.is_some() || report.has_suspended(now);
        drop(report);
        let texts = [unregistered.unwrap_or_default(), cluster, process, plugin];
        let texts: Vec<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
        info.status = texts.join(", ");
        self.body = reply::encode(info);
    }
}

/// Returns the cause for which the sub-process does not run or is not ready, or the pod is dead.
fn reason(lifecycle: &LifecycleReport) -> Option<String> {
    let known = lifecycle.reason.as_ref().or(lifecycle.unready.as_ref()).cloned();
    let is_new = lifecycle.process == ProcessState::Stopped && !lifecycle.configured;
    known.or_else(|| is_new.then(|| NEVER_CONFIGURED.to_owned()))
}

/// A time in seconds since 1970. It is converted once: a clock that is set does not change it.
#[derive(Default)]
struct UnixTime {
    time: Option<Instant>,
    seconds: Option<u64>,
}

impl UnixTime {
    fn update(&mut self, time: Option<Instant>) -> Option<u64> {
        if self.time != time {
            self.time = time;
            self.seconds = time.map(unix_seconds);
        }
        self.seconds
    }
}

/// Returns a time in seconds since 1970, rounded.
fn unix_seconds(time: Instant) -> u64 {
    let (now, clock) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let (ahead, behind) = (time.saturating_duration_since(now), now.saturating_duration_since(time));
    clock.saturating_add(ahead + Duration::from_millis(500)).saturating_sub(behind).as_secs()
}
