//! Invariants that must hold at each step of pods and leaders, as seen from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use ochopod_client::{ControlContent, ControlRequest};
use ochopod_leader::{self as leader, RolloutTask, Step};
use ochopod_lifecycle::{Callback, ControlTask, Effect, LifecycleMachine, Outcome, Request, RequestId, TimeoutResult};
use ochopod_model::{Digest, PodId, Pods, status::ProcessState};
use ochopod_store::{Observation, SessionState};
use tokio::time::Instant;

use super::lock;

/// Time after an unexpected exit in which a second one delays the restart: the longest delay and a healthy minute.
const SUSPECT_PERIOD: Duration = Duration::from_mins(3);

/// A request without a reply.
#[derive(Debug)]
struct OpenRequest {
    task: &'static str,
    epoch: Option<i64>,
    generation: Option<Digest>,
    started: bool,
}

/// Observed state of one pod.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug, Default)]
pub(super) struct PodRecord {
    open: BTreeMap<RequestId, OpenRequest>,
    /// Highest epoch of an accepted command.
    accepted: Option<i64>,
    /// No `off` or `on` of an epoch below this may start.
    floor: Option<i64>,
    spawning: bool,
    /// Its process.
    child: Option<u32>,
    /// The generation that the process was started for, until another client than a leader stops it, or it exits.
    started_for: Option<Digest>,
    /// Number of starts.
    pub(super) starts: u32,
    /// Generation of the last successful `on`.
    pub(super) generation: Option<Digest>,
    /// Whether an `off` succeeded after the last `on`.
    off: bool,
    /// Time of the last unexpected exit.
    unexpected_exit: Option<Instant>,
    /// Whether it was turned off since then by an operator or by its sanity checks, or may have been.
    pub(super) turned_off: bool,
    pub(super) died: Option<Instant>,
    pub(super) process: ProcessState,
    /// The configuration that it started last as a leader.
    rollout: Option<RolloutRecord>,
    /// The dependencies as it observed them last.
    observed: BTreeMap<String, Pods>,
    /// Whether it is out of the view.
    cordoned: bool,
    /// Generation of the last successful `off` of a leader.
    off_for: Option<Digest>,
}

/// A configuration, derived from its posts.
#[derive(Debug)]
struct RolloutRecord {
    /// Start of the pre-check, and its pods.
    started: Instant,
    pods: BTreeSet<PodId>,
    /// Pods that were observed to have left since then.
    departed: BTreeSet<PodId>,
}

#[derive(Debug)]
struct CheckerState {
    started: Instant,
    trace: Option<Vec<String>>,
    violation: Option<String>,
    pods: BTreeMap<PodId, PodRecord>,
    seqs: BTreeMap<PodId, u64>,
    /// Number of the last request of each leader and epoch to each pod.
    numbers: BTreeMap<(PodId, i64, PodId), u64>,
    /// Number of configurations that started.
    rollouts: usize,
    full_shutdown: bool,
}

/// Checks the invariants of one run. Clones share their state.
#[derive(Debug, Clone)]
pub(super) struct InvariantChecker(Arc<Mutex<CheckerState>>);

impl InvariantChecker {
    pub(super) fn new(traced: bool, full_shutdown: bool) -> Self {
        Self(Arc::new(Mutex::new(CheckerState {
            started: Instant::now(),
            trace: traced.then(Vec::new),
            violation: None,
            pods: BTreeMap::new(),
            seqs: BTreeMap::new(),
            numbers: BTreeMap::new(),
            rollouts: 0,
            full_shutdown,
        })))
    }

    /// Adds a line to the trace of the seed.
    pub(super) fn note(&self, line: impl FnOnce() -> String) {
        lock(&self.0).note(line);
    }

    pub(super) fn trace(&self) -> Vec<String> {
        lock(&self.0).trace.take().unwrap_or_default()
    }

    pub(super) fn violation(&self) -> Option<String> {
        lock(&self.0).violation.clone()
    }

    pub(super) fn rollouts(&self) -> usize {
        lock(&self.0).rollouts
    }

    /// Reads the observed state of a pod.
    pub(super) fn of<T>(&self, id: &PodId, read: impl FnOnce(&PodRecord) -> T) -> T {
        read(lock(&self.0).pods.entry(id.clone()).or_default())
    }

    pub(super) fn submitted(&self, id: &PodId, request_id: RequestId, request: &Request) {
        let (task, epoch, generation) = (request.task.name(), request.epoch, request.generation.clone());
        let mut state = lock(&self.0);
        state.note(|| format!("{id}: submitted {task} {request_id} of epoch {epoch:?}"));
        let pod = state.pod(id);
        pod.accepted = pod.accepted.max(epoch);
        pod.open.insert(request_id, OpenRequest { task, epoch, generation, started: false });
    }

    /// Verifies a step of a pod's machine.
    pub(super) fn stepped(&self, id: &PodId, machine: &LifecycleMachine, is_ticked: bool, effects: &[Effect]) {
        let mut state = lock(&self.0);
        for effect in effects {
            state.note(|| format!("{id}: {}", describe(effect)));
            let violation = state.pod(id).check_effect(effect, machine);
            state.assert(id, violation);
        }
        // Requests that do not wait have started: those in progress, and those that are answered once the process is ready.
        let open: Vec<RequestId> = state.pod(id).open.keys().copied().collect();
        for request_id in open.into_iter().filter(|request_id| !machine.is_waiting(*request_id)) {
            let violation = state.pod(id).started(request_id);
            state.assert(id, violation);
        }
        let late = is_ticked && machine.wake().is_some_and(|wake| wake <= Instant::now().into_std());
        state.assert(id, late.then(|| "needs another tick immediately".to_owned()));
        let process = machine.report().process;
        state.pod(id).process = process;
        state.pod(id).cordoned = machine.report().cordon.is_some();
    }

    /// Verifies a step of a leader.
    pub(super) fn leader_stepped(&self, id: &PodId, step: &Step<'_>, session: SessionState) {
        let Step { epoch, event, machine, effects } = step;
        let mut state = lock(&self.0);
        let acts = |effect: &leader::Effect| matches!(effect, leader::Effect::Post(_) | leader::Effect::Write(_));
        if session != SessionState::Connected && effects.iter().any(acts) {
            state.assert(id, Some(format!("starts something as leader while its session is {session}")));
        }
        let is_renumbered = effects.iter().any(|effect| matches!(effect, leader::Effect::CountAbove(_)));
        let repeats = |effect: &leader::Effect| {
            is_renumbered && matches!(effect, leader::Effect::Post(post) if post.task == RolloutTask::Check)
        };
        for effect in *effects {
            state.note(|| format!("{id}: as leader {epoch}, {}", describe_as_leader(effect)));
            // A check that is posted again under a higher number starts no configuration.
            let violation = if repeats(effect) { None } else { state.check_leader_effect(id, *epoch, effect) };
            state.assert(id, violation);
        }
        let is_ticked = matches!(event, leader::Event::Tick);
        let is_late = is_ticked && machine.wake().is_some_and(|wake| wake <= Instant::now().into_std());
        state.assert(id, is_late.then(|| "needs another tick immediately, as leader".to_owned()));
    }

    /// Verifies that the requests of a leadership have increasing numbers.
    pub(super) fn posted(&self, id: &PodId, request: &ControlRequest) {
        let ControlRequest { epoch, number, .. } = *request;
        let mut state = lock(&self.0);
        let last = state.numbers.insert((id.clone(), epoch, request.pod.clone()), number);
        // A pod that does not hold the view is sent the whole one under the same number.
        let may_repeat = request.content == ControlContent::Whole;
        let is_repeated = last.is_some_and(|last| last > number || (last == number && !may_repeat));
        state.assert(id, is_repeated.then(|| format!("posts number {number} of epoch {epoch} after {last:?}")));
    }

    /// Verifies what a leader observed: sequence numbers are unique and never change.
    pub(super) fn observed(&self, id: &PodId, observation: &Observation) {
        let mut state = lock(&self.0);
        let seen = observation.dependencies.iter().map(|(name, observed)| (name.clone(), observed.snapshot.clone()));
        state.pod(id).observed = seen.collect();
        if let Some(rollout) = &mut state.pod(id).rollout {
            rollout.departed.extend(rollout.pods.iter().filter(|pod| !observation.pods.contains_key(pod)).cloned());
        }
        for (pod, registration) in &observation.pods {
            let seq = registration.seq();
            let known = *state.seqs.entry(pod.clone()).or_insert(seq);
            let other = state
                .seqs
                .iter()
                .find(|(other, number)| **number == seq && *other != pod && in_one_cluster(other, pod));
            let other = other.map(|(other, _)| format!("{pod} and {other} have the same seq {seq}"));
            let changed = (known != seq).then(|| format!("the seq of {pod} was {known} and is {seq}"));
            state.assert(id, other.or(changed));
        }
    }
}

/// Returns whether two pods are of one cluster: they are named after it.
fn in_one_cluster(one: &PodId, other: &PodId) -> bool {
    one.as_str().split('-').next() == other.as_str().split('-').next()
}

impl CheckerState {
    fn pod(&mut self, id: &PodId) -> &mut PodRecord {
        self.pods.entry(id.clone()).or_default()
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:9.3}  {}", self.started.elapsed().as_secs_f64(), line()));
        }
    }

    fn assert(&mut self, id: &PodId, violation: Option<String>) {
        if let Some(violation) = violation {
            self.note(|| format!("{id}: VIOLATION {violation}"));
            self.violation.get_or_insert(format!("{id}: {violation}"));
        }
    }

    fn check_leader_effect(&mut self, id: &PodId, epoch: i64, effect: &leader::Effect) -> Option<String> {
        use leader::StoreWrite;
        match effect {
            leader::Effect::Post(post) if post.task == RolloutTask::Check => {
                let (started, pods) = (Instant::now(), BTreeSet::from([post.pod.clone()]));
                let pod = self.pods.entry(id.clone()).or_default();
                if post.view.dependencies != pod.observed {
                    return Some("a configuration starts from outdated dependencies".to_owned());
                }
                match &mut pod.rollout {
                    Some(rollout) if rollout.started == started => rollout.pods.extend(pods),
                    rollout => {
                        self.rollouts += 1;
                        *rollout = Some(RolloutRecord { started, pods, departed: BTreeSet::new() });
                    }
                }
                None
            }
            leader::Effect::Post(post) => {
                let running = (post.task == RolloutTask::On).then(|| self.not_off(id, epoch, post)).flatten();
                running.or_else(|| self.dead_pod_in(id, post.view.pods.keys()))
            }
            leader::Effect::Write(StoreWrite::Pending(_)) => {
                let pods = self.pod(id).rollout.as_ref().map(|rollout| rollout.pods.clone()).unwrap_or_default();
                for pod in pods {
                    let floor = &mut self.pod(&pod).floor;
                    *floor = (*floor).max(Some(epoch));
                }
                None
            }
            leader::Effect::Write(StoreWrite::Commit(_, view)) => self.dead_pod_in(id, view.pods.keys()),
            _ => None,
        }
    }

    /// Finds a pod that is not off while another starts, with full shutdown. A pod that has accepted a later leadership may
    /// be on for that one: it accepts nothing of this one.
    fn not_off(&self, id: &PodId, epoch: i64, post: &leader::PeerRequest) -> Option<String> {
        let rollout = self.pods.get(id)?.rollout.as_ref().filter(|_| self.full_shutdown)?;
        let pods = post.view.pods.keys().filter(|pod| !rollout.departed.contains(*pod));
        let mut known = pods.filter_map(|pod| Some((pod, self.pods.get(pod)?)));
        let running = known.find(|(_, known)| {
            let accepts = known.died.is_none() && !known.cordoned && known.accepted <= Some(epoch);
            accepts && known.off_for.as_ref() != Some(&post.generation)
        });
        running.map(|(pod, _)| format!("a pod is started while {pod} was not turned off"))
    }

    /// Finds a pod in a view after the pre-check that was dead before it.
    fn dead_pod_in<'a>(&mut self, id: &PodId, mut view: impl Iterator<Item = &'a PodId>) -> Option<String> {
        let started = self.pod(id).rollout.as_ref()?.started;
        let dead = view.find(|pod| self.pods.get(pod).and_then(|known| known.died).is_some_and(|died| died < started));
        dead.map(|pod| format!("{pod} was dead before the pre-check and is in the view after it"))
    }
}

impl PodRecord {
    /// Verifies that a command may start.
    fn started(&mut self, request_id: RequestId) -> Option<String> {
        let open = self.open.get_mut(&request_id).filter(|open| !open.started)?;
        open.started = true;
        let (task, epoch) = (open.task, open.epoch?);
        if self.accepted.is_some_and(|accepted| accepted > epoch) {
            return Some(format!("{task} of epoch {epoch} starts after one of {:?} was accepted", self.accepted));
        }
        let changes = ["on", "off"].contains(&task);
        (changes && self.floor.is_some_and(|floor| floor > epoch))
            .then(|| format!("{task} of epoch {epoch} starts after the pre-check of {:?}", self.floor))
    }

    /// Verifies that an effect is allowed.
    fn check_effect(&mut self, effect: &Effect, machine: &LifecycleMachine) -> Option<String> {
        match effect {
            Effect::Spawn(_) => self.check_start(machine),
            Effect::AbandonSpawn => {
                self.spawning = false;
                None
            }
            Effect::Terminate(pid) | Effect::Kill(pid) => {
                (self.child != Some(*pid)).then(|| format!("process {pid} is signalled, its own is {:?}", self.child))
            }
            Effect::Release(pid) => {
                (self.child.take() != Some(*pid)).then(|| format!("process {pid} of another pod is released"))
            }
            Effect::EndedUnexpectedly => {
                self.started_for = None;
                // The restart after a second exit is delayed, possibly beyond the check that verifies whether it runs.
                let before = self.unexpected_exit.replace(Instant::now());
                self.turned_off |= before.is_some_and(|before| before.elapsed() < SUSPECT_PERIOD);
                None
            }
            Effect::Call(_, Callback::TearDown(_), _) => {
                self.record_stop(machine);
                None
            }
            Effect::Reply(request_id, outcome) => self.check_reply(*request_id, outcome),
            Effect::Died => {
                self.died = Some(Instant::now());
                None
            }
            Effect::Revived => {
                self.died = None;
                self.turned_off = false;
                (self.started_for, self.generation, self.off) = (None, None, false);
                None
            }
            _ => None,
        }
    }

    /// Verifies that there is one process at a time, and one start for each configuration.
    fn check_start(&mut self, machine: &LifecycleMachine) -> Option<String> {
        if self.died.is_some() {
            return Some("a dead pod starts a process".to_owned());
        }
        if self.spawning || self.child.is_some() {
            return Some("a second process is started".to_owned());
        }
        self.spawning = true;
        self.starts += 1;
        let (on, generation) = match machine.in_flight() {
            Some((_, Request { task: ControlTask::On(Some(_)), generation, .. })) => (true, generation.clone()),
            Some((_, Request { task: ControlTask::On(None) | ControlTask::Restart, .. })) => (true, None),
            _ => (false, None),
        };
        if on {
            self.off = false;
        }
        if self.off {
            return Some("restarted although it was turned off".to_owned());
        }
        let again = generation.is_some() && generation == self.started_for;
        self.started_for = generation.or(self.started_for.take());
        again.then(|| "started twice for one generation".to_owned())
    }

    /// Records a stop. After one for another configuration, or by another client than a leader, a second start for the same
    /// configuration is allowed.
    fn record_stop(&mut self, machine: &LifecycleMachine) {
        let request = machine.in_flight().map(|(_, request)| request).filter(|request| request.epoch.is_some());
        if request.is_none_or(|request| request.generation != self.started_for) {
            self.started_for = None;
        }
        self.turned_off |= request.is_none();
    }

    /// Verifies that every request is answered once.
    fn check_reply(&mut self, request_id: RequestId, outcome: &Outcome) -> Option<String> {
        let is_not_started = matches!(
            outcome,
            Outcome::TimedOut(TimeoutResult::NotStarted)
                | Outcome::Superseded(_)
                | Outcome::Late(..)
                | Outcome::EpochUnknown
                | Outcome::Gone(_)
        );
        let violation = if is_not_started { None } else { self.started(request_id) };
        let Some(open) = self.open.remove(&request_id) else {
            return Some(format!("request {request_id} is answered twice, or was never submitted"));
        };
        if let Outcome::Done(_) = outcome {
            match open.task {
                "on" => {
                    self.generation = open.generation.clone().or(self.generation.take());
                    // A process that keeps running is that of the new configuration.
                    self.started_for = open.generation.or(self.started_for.take());
                    (self.off, self.turned_off) = (false, false);
                }
                "restart" => (self.off, self.turned_off) = (false, false),
                "off" => {
                    self.turned_off |= open.epoch.is_none();
                    self.off = self.child.is_none();
                    self.off_for = open.generation.or(self.off_for.take());
                }
                _ => {}
            }
        }
        violation
    }

    /// Returns whether all requests are answered.
    pub(super) fn is_quiet(&self) -> bool {
        self.open.is_empty()
    }
}

impl InvariantChecker {
    /// Records that a process was started, or could not be.
    pub(super) fn spawned(&self, id: &PodId, pid: Option<u32>) {
        let mut state = lock(&self.0);
        state.note(|| format!("{id}: process {pid:?} started"));
        let pod = state.pod(id);
        (pod.spawning, pod.child) = (false, pid);
        if pid.is_none() {
            pod.started_for = None;
        }
    }

    /// Records that a process exited.
    pub(super) fn exited(&self, id: &PodId, pid: u32) {
        let mut state = lock(&self.0);
        state.note(|| format!("{id}: process {pid} exited"));
        let pod = state.pod(id);
        pod.child = pod.child.filter(|child| *child != pid);
    }
}

fn describe(effect: &Effect) -> String {
    match effect {
        Effect::Call(_, callback, limit) => format!("calls {} for at most {limit:?}", callback.name()),
        Effect::Spawn(_) => "starts its process".to_owned(),
        other => format!("{other:?}"),
    }
}

fn describe_as_leader(effect: &leader::Effect) -> String {
    use leader::{Effect, StoreWrite};
    match effect {
        Effect::Post(post) => format!("posts {} to {} ({})", post.task.name(), post.pod, post.call),
        Effect::Write(StoreWrite::Pending(_)) => "writes pending".to_owned(),
        Effect::Write(StoreWrite::Commit(..)) => "commits".to_owned(),
        Effect::Write(StoreWrite::Snapshot(_)) => "writes the snapshot".to_owned(),
        Effect::Probe(_) => "probes".to_owned(),
        other => format!("{other:?}"),
    }
}
