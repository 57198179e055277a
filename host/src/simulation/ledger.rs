//! What pods and leaders do, as it is seen from outside, and what must hold at each step of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use super::lock;
use crate::{
    cluster::{Digest, PodId},
    coord::{SessionState, World},
    leader,
    lifecycle::{Callback, Command, Effect, Machine, Outcome, Overrun, Request, Ticket},
    status::{ProcessState, Role},
};

/// Longer than a process that ended once is watched with suspicion: the longest wait for a restart and a healthy minute.
const SICKLY: Duration = Duration::from_mins(3);

/// A request that is not answered yet.
#[derive(Debug)]
struct Open {
    task: &'static str,
    epoch: Option<i64>,
    generation: Option<Digest>,
    began: bool,
}

/// What is known of one pod.
#[derive(Debug, Default)]
pub(super) struct Known {
    open: BTreeMap<Ticket, Open>,
    /// The highest epoch of a command that it accepted.
    accepted: Option<i64>,
    /// No `off` or `on` of an epoch below this begins any more.
    floor: Option<i64>,
    spawning: bool,
    /// The process that is its own.
    child: Option<u32>,
    /// The generation that it was started for last, until somebody else than a leader has it stopped, or it ends.
    started_for: Option<Digest>,
    /// How often it was started.
    pub(super) starts: u32,
    /// The generation of the last `on` that it answered 200.
    pub(super) generation: Option<Digest>,
    /// It answered an `off` with 200, and no `on` since then.
    off: bool,
    /// When it ended unexpectedly last.
    ended: Option<Instant>,
    /// It was turned off by hand, or by its checks, since then, or may have been.
    pub(super) turned_off: bool,
    pub(super) died: Option<Instant>,
    pub(super) process: ProcessState,
    pub(super) role: Role,
    /// The configuration of the pod as a leader that began last.
    rollout: Option<Rollout>,
    /// The generation of the last `off` of a leader that it answered 200.
    off_for: Option<Digest>,
}

/// A configuration, as its posts tell.
#[derive(Debug)]
struct Rollout {
    /// When the pre-check began, and whom it asked.
    began: Instant,
    asked: BTreeSet<PodId>,
    /// Who was seen to have left since then.
    departed: BTreeSet<PodId>,
}

#[derive(Debug)]
struct Pages {
    began: Instant,
    trace: Option<Vec<String>>,
    violation: Option<String>,
    pods: BTreeMap<PodId, Known>,
    seqs: BTreeMap<PodId, u64>,
    /// How many configurations began.
    rollouts: usize,
    full_shutdown: bool,
}

/// The ledger of a world. Clones are handles on the same.
#[derive(Debug, Clone)]
pub(super) struct Ledger(Arc<Mutex<Pages>>);

impl Ledger {
    pub(super) fn new(traced: bool, full_shutdown: bool) -> Self {
        Self(Arc::new(Mutex::new(Pages {
            began: Instant::now(),
            trace: traced.then(Vec::new),
            violation: None,
            pods: BTreeMap::new(),
            seqs: BTreeMap::new(),
            rollouts: 0,
            full_shutdown,
        })))
    }

    /// A line for who reads the trace of a seed.
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

    /// What is known of a pod.
    pub(super) fn of<T>(&self, id: &PodId, look: impl FnOnce(&Known) -> T) -> T {
        look(lock(&self.0).pods.entry(id.clone()).or_default())
    }

    pub(super) fn submitted(&self, id: &PodId, ticket: Ticket, request: &Request) {
        let (task, epoch, generation) = (request.command.task(), request.epoch, request.generation.clone());
        let mut pages = lock(&self.0);
        pages.note(|| format!("{id}: asked for {task} {ticket} of epoch {epoch:?}"));
        let pod = pages.pod(id);
        pod.accepted = pod.accepted.max(epoch);
        pod.open.insert(ticket, Open { task, epoch, generation, began: false });
    }

    /// A pod's machine took an event.
    pub(super) fn stepped(&self, id: &PodId, machine: &Machine, ticked: bool, effects: &[Effect]) {
        let mut pages = lock(&self.0);
        for effect in effects {
            pages.note(|| format!("{id}: {}", told(effect)));
            let broken = pages.pod(id).took(effect, machine);
            pages.assert(id, broken);
        }
        if let Some((ticket, _)) = machine.under_way() {
            let broken = pages.pod(id).began(ticket);
            pages.assert(id, broken);
        }
        let late = ticked && machine.wake().is_some_and(|wake| wake <= Instant::now().into_std());
        pages.assert(id, late.then(|| "it wants to be woken again at once".to_owned()));
        let process = machine.report().process;
        pages.pod(id).process = process;
    }

    /// A leader's machine took an event.
    pub(super) fn led(
        &self,
        id: &PodId,
        epoch: i64,
        machine: &leader::Machine,
        ticked: bool,
        effects: &[leader::Effect],
        session: SessionState,
    ) {
        let mut pages = lock(&self.0);
        let acts = |effect: &leader::Effect| matches!(effect, leader::Effect::Post(_) | leader::Effect::Write(_));
        if session != SessionState::Connected && effects.iter().any(acts) {
            pages.assert(id, Some(format!("as leader, it begins something while its session is {session}")));
        }
        for effect in effects {
            pages.note(|| format!("{id}: as leader {epoch}, {}", led(effect)));
            let broken = pages.took_as_leader(id, epoch, effect);
            pages.assert(id, broken);
        }
        let late = ticked && machine.wake().is_some_and(|wake| wake <= Instant::now().into_std());
        pages.assert(id, late.then(|| "as leader, it wants to be woken again at once".to_owned()));
        pages.pod(id).role = machine.report().role;
    }

    /// The pod leads no more.
    pub(super) fn follows(&self, id: &PodId) {
        lock(&self.0).pod(id).role = Role::Follower;
    }

    /// Numbers are unique and never change.
    pub(super) fn saw(&self, id: &PodId, world: &World) {
        let mut pages = lock(&self.0);
        if let Some(rollout) = &mut pages.pod(id).rollout {
            rollout.departed.extend(rollout.asked.iter().filter(|pod| !world.pods.contains_key(pod)).cloned());
        }
        for (pod, registration) in &world.pods {
            let seq = registration.seq();
            let known = *pages.seqs.entry(pod.clone()).or_insert(seq);
            let other = pages
                .seqs
                .iter()
                .find(|(other, number)| **number == seq && *other != pod && in_one_cluster(other, pod));
            let other = other.map(|(other, _)| format!("{pod} and {other} have the same seq {seq}"));
            let changed = (known != seq).then(|| format!("the seq of {pod} was {known} and is {seq}"));
            pages.assert(id, other.or(changed));
        }
    }
}

/// Pods are named after their cluster.
fn in_one_cluster(one: &PodId, other: &PodId) -> bool {
    one.as_str().split('-').next() == other.as_str().split('-').next()
}

impl Pages {
    fn pod(&mut self, id: &PodId) -> &mut Known {
        self.pods.entry(id.clone()).or_default()
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:9.3}  {}", self.began.elapsed().as_secs_f64(), line()));
        }
    }

    fn assert(&mut self, id: &PodId, broken: Option<String>) {
        if let Some(broken) = broken {
            self.note(|| format!("{id}: VIOLATION {broken}"));
            self.violation.get_or_insert(format!("{id}: {broken}"));
        }
    }

    fn took_as_leader(&mut self, id: &PodId, epoch: i64, effect: &leader::Effect) -> Option<String> {
        use leader::{Task, Write};
        match effect {
            leader::Effect::Post(post) if post.task == Task::Check => {
                let (began, asked) = (Instant::now(), BTreeSet::from([post.pod.clone()]));
                let pod = self.pods.entry(id.clone()).or_default();
                match &mut pod.rollout {
                    Some(rollout) if rollout.began == began => rollout.asked.extend(asked),
                    rollout => {
                        self.rollouts += 1;
                        *rollout = Some(Rollout { began, asked, departed: BTreeSet::new() });
                    }
                }
                None
            }
            leader::Effect::Post(post) => {
                let running = (post.task == Task::On).then(|| self.not_off(id, epoch, post)).flatten();
                running.or_else(|| self.dead_pod_in(id, post.view.pods.keys()))
            }
            leader::Effect::Write(Write::Pending(_)) => {
                let asked = self.pod(id).rollout.as_ref().map(|rollout| rollout.asked.clone()).unwrap_or_default();
                for pod in asked {
                    let floor = &mut self.pod(&pod).floor;
                    *floor = (*floor).max(Some(epoch));
                }
                None
            }
            leader::Effect::Write(Write::Commit(_, view)) => self.dead_pod_in(id, view.pods.keys()),
            _ => None,
        }
    }

    /// With a full shutdown, all are off before any starts. A pod that has obeyed a later leadership may be on for that one:
    /// of this one it obeys nothing any more.
    fn not_off(&self, id: &PodId, epoch: i64, post: &leader::Post) -> Option<String> {
        let rollout = self.pods.get(id)?.rollout.as_ref().filter(|_| self.full_shutdown)?;
        let asked = post.view.pods.keys().filter(|pod| !rollout.departed.contains(*pod));
        let mut known = asked.filter_map(|pod| Some((pod, self.pods.get(pod)?)));
        let running = known.find(|(_, known)| {
            let obeys = known.died.is_none() && known.accepted <= Some(epoch);
            obeys && known.off_for.as_ref() != Some(&post.generation)
        });
        running.map(|(pod, _)| format!("a pod is to start while {pod} was not turned off"))
    }

    /// A pod that was dead when the pre-check began is in no view past it.
    fn dead_pod_in<'a>(&mut self, id: &PodId, mut view: impl Iterator<Item = &'a PodId>) -> Option<String> {
        let began = self.pod(id).rollout.as_ref()?.began;
        let dead = view.find(|pod| self.pods.get(pod).and_then(|known| known.died).is_some_and(|died| died < began));
        dead.map(|pod| format!("{pod} was dead before the pre-check and is in the view after it"))
    }
}

impl Known {
    /// A command begins.
    fn began(&mut self, ticket: Ticket) -> Option<String> {
        let open = self.open.get_mut(&ticket).filter(|open| !open.began)?;
        open.began = true;
        let (task, epoch) = (open.task, open.epoch?);
        if self.accepted.is_some_and(|accepted| accepted > epoch) {
            return Some(format!("{task} of epoch {epoch} begins after one of {:?} was accepted", self.accepted));
        }
        let changes = ["on", "off"].contains(&task);
        (changes && self.floor.is_some_and(|floor| floor > epoch))
            .then(|| format!("{task} of epoch {epoch} begins after the pre-check of {:?}", self.floor))
    }

    /// An effect is legal.
    fn took(&mut self, effect: &Effect, machine: &Machine) -> Option<String> {
        match effect {
            Effect::Spawn(_) => self.starts(machine),
            Effect::AbandonSpawn => {
                self.spawning = false;
                None
            }
            Effect::Terminate(pid) | Effect::Kill(pid) => {
                (self.child != Some(*pid)).then(|| format!("process {pid} is not its own, which is {:?}", self.child))
            }
            Effect::Release(pid) => {
                (self.child.take() != Some(*pid)).then(|| format!("process {pid} is not its own to release"))
            }
            Effect::EndedUnexpectedly => {
                self.started_for = None;
                // The restart after a second end comes late, perhaps after the check that asks whether it is up.
                let before = self.ended.replace(Instant::now());
                self.turned_off |= before.is_some_and(|before| before.elapsed() < SICKLY);
                None
            }
            Effect::Call(_, Callback::TearDown(_), _) => {
                self.stops(machine);
                None
            }
            Effect::Reply(ticket, outcome) => self.replied(*ticket, outcome),
            Effect::Died => {
                self.died = Some(Instant::now());
                None
            }
            _ => None,
        }
    }

    /// One process at a time, and one start for each configuration.
    fn starts(&mut self, machine: &Machine) -> Option<String> {
        if self.died.is_some() {
            return Some("a dead pod starts a process".to_owned());
        }
        if self.spawning || self.child.is_some() {
            return Some("a second process is started".to_owned());
        }
        self.spawning = true;
        self.starts += 1;
        let (on, generation) = match machine.under_way() {
            Some((_, Request { command: Command::On(Some(_)), generation, .. })) => (true, generation.clone()),
            Some((_, Request { command: Command::On(None), .. })) => (true, None),
            _ => (false, None),
        };
        if self.off && !on {
            return Some("it is started again although it was turned off".to_owned());
        }
        let again = generation.is_some() && generation == self.started_for;
        self.started_for = generation.or(self.started_for.take());
        again.then(|| "it is started twice for one generation".to_owned())
    }

    /// A stop of another configuration's, or by somebody else than a leader, may be followed by a start for the same one.
    fn stops(&mut self, machine: &Machine) {
        let request = machine.under_way().map(|(_, request)| request).filter(|request| request.epoch.is_some());
        if request.is_none_or(|request| request.generation != self.started_for) {
            self.started_for = None;
        }
        self.turned_off |= request.is_none();
    }

    /// Every request is answered once.
    fn replied(&mut self, ticket: Ticket, outcome: &Outcome) -> Option<String> {
        let never = matches!(
            outcome,
            Outcome::TimedOut(Overrun::Dropped) | Outcome::Superseded(_) | Outcome::Lapsed | Outcome::Gone(_)
        );
        let broken = if never { None } else { self.began(ticket) };
        let Some(open) = self.open.remove(&ticket) else {
            return Some(format!("request {ticket} is answered twice, or was never asked"));
        };
        if let Outcome::Done(_) = outcome {
            match open.task {
                "on" => {
                    self.generation = open.generation.clone().or(self.generation.take());
                    // A process that was left alone is that of the new configuration.
                    self.started_for = open.generation.or(self.started_for.take());
                    (self.off, self.turned_off) = (false, false);
                }
                "off" => {
                    self.turned_off |= open.epoch.is_none();
                    self.off = self.child.is_none();
                    self.off_for = open.generation.or(self.off_for.take());
                }
                _ => {}
            }
        }
        broken
    }

    /// Whether everything it was asked is answered.
    pub(super) fn is_quiet(&self) -> bool {
        self.open.is_empty()
    }
}

impl Ledger {
    /// The program that a pod asked for runs, or does not.
    pub(super) fn spawned(&self, id: &PodId, pid: Option<u32>) {
        let mut pages = lock(&self.0);
        pages.note(|| format!("{id}: process {pid:?} runs"));
        let pod = pages.pod(id);
        (pod.spawning, pod.child) = (false, pid);
        if pid.is_none() {
            pod.started_for = None;
        }
    }

    /// A process of a pod ended.
    pub(super) fn exited(&self, id: &PodId, pid: u32) {
        let mut pages = lock(&self.0);
        pages.note(|| format!("{id}: process {pid} ended"));
        let pod = pages.pod(id);
        pod.child = pod.child.filter(|child| *child != pid);
    }
}

fn told(effect: &Effect) -> String {
    match effect {
        Effect::Call(_, callback, limit) => format!("calls {} for at most {limit:?}", callback.name()),
        Effect::Spawn(_) => "starts its process".to_owned(),
        other => format!("{other:?}"),
    }
}

fn led(effect: &leader::Effect) -> String {
    use leader::{Effect, Write};
    match effect {
        Effect::Post(post) => format!("posts {} to {} ({})", post.task.name(), post.pod, post.call),
        Effect::Write(Write::Pending(_)) => "writes that a configuration is pending".to_owned(),
        Effect::Write(Write::Commit(..)) => "writes that it is complete".to_owned(),
        Effect::Write(Write::Snapshot(_)) => "writes the snapshot".to_owned(),
        Effect::Probe(_) => "probes".to_owned(),
        other => format!("{other:?}"),
    }
}
