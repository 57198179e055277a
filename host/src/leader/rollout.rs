//! One configuration, phase by phase: check, pending, off, on, ok, commit.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::machine::{Answer, Effect, Machine, Post, State, Task, Write, Written};
use crate::cluster::{Digest, PodId, View};

/// Where a configuration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Check,
    Pending,
    Off,
    On,
    Commit,
}

impl Phase {
    /// What the requests of this phase ask for.
    fn task(self) -> Task {
        match self {
            Self::Check => Task::Check,
            Self::Off => Task::Off,
            Self::Pending | Self::On | Self::Commit => Task::On,
        }
    }
}

/// A configuration under way.
#[derive(Debug)]
pub(super) struct Rollout {
    phase: Phase,
    /// Digest of all registered pods: what `hash` becomes.
    digest: Digest,
    /// The view that is sent: all registered pods for the check, then the live ones.
    view: Arc<View>,
    /// Digest of the view that is sent.
    generation: Digest,
    /// Requests that wait for their answer.
    waiting: BTreeMap<u64, PodId>,
    /// Pods that come after, in `seq` order (when sequential).
    next: VecDeque<PodId>,
    /// Whether a pod left that had not answered everything.
    departed: bool,
}

impl Rollout {
    pub(super) fn size(&self) -> usize {
        self.view.pods.len()
    }
}

impl Machine {
    /// Begins a configuration of the present view.
    pub(super) fn begin(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some((present, digest)) = &self.present else { return };
        let unaddressed = present.view.pods.iter().find_map(|(id, pod)| Some((id, pod.control_address().err()?)));
        if let Some((id, error)) = unaddressed {
            let refusal = format!("pod {id} cannot be addressed: {error}");
            self.hold(refusal, now, effects);
            return;
        }
        let mut view = present.view.clone();
        view.pods.retain(|id, _| !self.excluded.contains(id));
        let (view, digest) = (Arc::new(view), digest.clone());
        tracing::info!(pods = view.pods.len(), "configuring");
        let generation = digest.clone();
        self.state = State::Rollout(Rollout {
            phase: Phase::Check,
            digest,
            view,
            generation,
            waiting: BTreeMap::new(),
            next: VecDeque::new(),
            departed: false,
        });
        self.post_all(Task::Check, false, now, effects);
    }

    /// Begins a phase of requests: to all pods at once, or one after the other in the order of `seq`.
    fn post_all(&mut self, task: Task, sequential: bool, now: Instant, effects: &mut Vec<Effect>) {
        let State::Rollout(rollout) = &mut self.state else { return };
        let mut pods: Vec<_> = rollout.view.pods.iter().map(|(id, pod)| (pod.seq(), id.clone())).collect();
        pods.sort();
        rollout.next = pods.into_iter().map(|(_, id)| id).collect();
        let at_once = if sequential { 1 } else { rollout.next.len() };
        for _ in 0..at_once {
            self.post_next(task, effects);
        }
        self.phase_done_if_all_answered(now, effects);
    }

    /// Posts to the next pod that has not left meanwhile.
    fn post_next(&mut self, task: Task, effects: &mut Vec<Effect>) {
        let (State::Rollout(rollout), Some((present, _))) = (&mut self.state, &self.present) else { return };
        let pod = loop {
            let Some(pod) = rollout.next.pop_front() else { return };
            if task == Task::Ok || present.view.pods.contains_key(&pod) {
                break pod;
            }
            rollout.departed = true;
        };
        let address = rollout.view.pods.get(&pod).and_then(|registration| registration.control_address().ok());
        self.calls += 1;
        if task != Task::Ok {
            rollout.waiting.insert(self.calls, pod.clone());
        }
        effects.push(Effect::Post(Post {
            call: self.calls,
            pod,
            address: address.unwrap_or_default(),
            task,
            generation: rollout.generation.clone(),
            view: Arc::clone(&rollout.view),
        }));
    }

    pub(super) fn answered(&mut self, call: u64, answer: Answer, now: Instant, effects: &mut Vec<Effect>) {
        let State::Rollout(rollout) = &mut self.state else { return };
        let Some(pod) = rollout.waiting.remove(&call) else { return };
        let (phase, task) = (rollout.phase, rollout.phase.task());
        match answer {
            Answer::Code(200, _) => self.go_on(task, now, effects),
            Answer::Code(410, _) if phase == Phase::Check => {
                tracing::info!(%pod, "dropping a dead pod");
                let mut view = View::clone(&rollout.view);
                view.pods.remove(&pod);
                rollout.view = Arc::new(view);
                self.excluded.insert(pod);
                self.go_on(task, now, effects);
            }
            Answer::Stranger(text) => {
                self.cancel_posts(effects);
                self.hold(format!("pod {pod} is not at its address: {text}"), now, effects);
            }
            Answer::Code(409, text) => {
                self.cancel_posts(effects);
                self.resign(format!("pod {pod} follows another leader: {text}"), effects);
            }
            Answer::Code(code @ (406 | 410), text) if code == 410 || phase == Phase::On => {
                tracing::warn!(%pod, code, text, "a pod died while being configured, starting again without it");
                self.refusal = Some(format!("pod {pod} answered {} with {code}: {text}", task.name()));
                self.excluded.insert(pod);
                self.cancel_posts(effects);
                effects.push(Effect::Ended(false));
                self.begin(now, effects);
            }
            Answer::Code(code, text) => {
                self.cancel_posts(effects);
                self.hold(format!("pod {pod} answered {} with {code}: {text}", task.name()), now, effects);
            }
            Answer::Unreachable(reason) => {
                self.cancel_posts(effects);
                self.hold(format!("pod {pod} cannot be reached for {}: {reason}", task.name()), now, effects);
            }
        }
    }

    /// One pod is through: the next one, or the next phase.
    fn go_on(&mut self, task: Task, now: Instant, effects: &mut Vec<Effect>) {
        self.post_next(task, effects);
        self.phase_done_if_all_answered(now, effects);
    }

    fn phase_done_if_all_answered(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let State::Rollout(rollout) = &mut self.state else { return };
        if !rollout.waiting.is_empty() || !rollout.next.is_empty() {
            return;
        }
        let sequential = self.settings.sequential;
        match rollout.phase {
            Phase::Check => {
                rollout.phase = Phase::Pending;
                rollout.generation = Digest::of(&rollout.view);
                tracing::info!(generation = %rollout.generation, "no pod objects, going on");
                effects.push(Effect::Write(Write::Pending(rollout.generation.clone())));
            }
            Phase::Off => {
                rollout.phase = Phase::On;
                self.post_all(Task::On, sequential, now, effects);
            }
            Phase::On if rollout.departed => self.incomplete(now, effects),
            Phase::On => {
                rollout.phase = Phase::Commit;
                let (digest, view) = (rollout.digest.clone(), Arc::clone(&rollout.view));
                self.post_all(Task::Ok, false, now, effects);
                effects.push(Effect::Write(Write::Commit(digest, view)));
            }
            Phase::Pending | Phase::Commit => {}
        }
    }

    pub(super) fn written(&mut self, result: Written, now: Instant, effects: &mut Vec<Effect>) {
        if let Written::Fenced = result {
            self.cancel_posts(effects);
            self.resign("the lock is held no more".to_owned(), effects);
            return;
        }
        if std::mem::take(&mut self.writing_snapshot) {
            if let Written::Unknown(reason) = result {
                tracing::warn!(reason, "the snapshot could not be written, trying again");
                self.snapshot = None;
                self.snapshot_due = Some(now + self.retries.delay());
            }
            return;
        }
        let State::Rollout(rollout) = &mut self.state else { return };
        match (result, rollout.phase) {
            (Written::Done, Phase::Pending) => {
                let (generation, sequential) = (rollout.generation.clone(), self.settings.sequential);
                let (phase, task) =
                    if self.settings.full_shutdown { (Phase::Off, Task::Off) } else { (Phase::On, Task::On) };
                rollout.phase = phase;
                self.is_pending(generation);
                self.post_all(task, sequential, now, effects);
            }
            (Written::Done, Phase::Commit) => {
                let (digest, view) = (rollout.digest.clone(), Arc::clone(&rollout.view));
                self.committed(digest, &view, now, effects);
            }
            (Written::Unknown(reason), phase) => {
                if phase == Phase::Pending {
                    // It may be there: only a configuration that is complete makes the cluster clean again.
                    let generation = rollout.generation.clone();
                    self.is_pending(generation);
                }
                self.hold(format!("the store did not take the configuration: {reason}"), now, effects);
            }
            (Written::Done | Written::Fenced, _) => {}
        }
    }

    /// A pod that left is not waited for any more. The configuration goes on with the others but does not count as done:
    /// should the pod come back as it was, it still has to be configured.
    pub(super) fn drop_the_departed(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let (State::Rollout(rollout), Some((present, _))) = (&mut self.state, &self.present) else { return };
        let gone = |pod: &PodId| !present.view.pods.contains_key(pod);
        let departed: Vec<u64> = rollout.waiting.iter().filter(|(_, pod)| gone(pod)).map(|(call, _)| *call).collect();
        let before = rollout.next.len();
        rollout.next.retain(|pod| !gone(pod));
        if departed.is_empty() && before == rollout.next.len() {
            return;
        }
        rollout.departed = true;
        if rollout.phase == Phase::Check {
            let mut view = View::clone(&rollout.view);
            view.pods.retain(|pod, _| !gone(pod));
            rollout.view = Arc::new(view);
        }
        for call in &departed {
            rollout.waiting.remove(call);
            effects.push(Effect::Cancel(*call));
        }
        let task = rollout.phase.task();
        if rollout.waiting.is_empty() {
            self.go_on(task, now, effects);
        }
    }

    fn cancel_posts(&mut self, effects: &mut Vec<Effect>) {
        if let State::Rollout(rollout) = &mut self.state {
            effects.extend(std::mem::take(&mut rollout.waiting).into_keys().map(Effect::Cancel));
            rollout.next.clear();
        }
    }
}
