//! One configuration of the cluster, phase by phase: check, pending, off, on, ok, commit.
//!
//! A [`Rollout`] owns its requests and their replies. Its methods return a [`Progress`]: what has to be done, and, at the
//! end, the [`RolloutOutcome`]. It knows neither the store nor when the next rollout starts.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use ochopod_model::{Digest, PodId, Pods, Registration, StoredHash, View, wire::MAX_NUMBER};
use ochopod_plugin::{Batch, ModelSettings};
use ochopod_store::States;

use super::{
    event::{Effect, PeerReply, PeerRequest, RolloutTask, StoreWrite, WriteResult},
    failed_check::FailedCheck,
    progress::{Progress, RolloutOutcome},
    unready::UnreadyPods,
};

/// Number of repeated requests to one pod under a higher number, in one rollout.
const MAX_RENUMBERED: u32 = 3;
/// Number of pods that are not ready that a status names.
const MAX_NAMED: usize = 3;
/// Highest number above which a leadership continues: the rest is left for its requests.
const MAX_CONTINUED: u64 = MAX_NUMBER - (1 << 32);

/// Phase of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Check,
    Pending,
    Off,
    On,
    Commit,
}

impl Phase {
    /// Returns the task of the requests of this phase.
    fn task(self) -> RolloutTask {
        match self {
            Self::Check => RolloutTask::Check,
            Self::Off => RolloutTask::Off,
            Self::Pending | Self::On | Self::Commit => RolloutTask::On,
        }
    }
}

/// State of the cluster in addition to the view of a rollout.
#[derive(Debug, Clone, Default)]
pub(super) struct Circumstances {
    /// The leader's own pod: the last one of the last batch, and never left out.
    pub(super) own: Option<PodId>,
    /// Pods whose sub-process does not run or is not ready: the first ones of the first batch.
    pub(super) down: BTreeSet<PodId>,
}

/// A rollout in flight.
#[derive(Debug)]
pub(super) struct Rollout {
    phase: Phase,
    full_shutdown: bool,
    sequential: bool,
    batch: Batch,
    tolerate: usize,
    circumstances: Circumstances,
    /// Maximum number of concurrent requests of this phase.
    parallel: usize,
    /// Digest of all registered pods without those left out: what `hash` becomes.
    digest: Digest,
    /// Digest of all registered pods at the start.
    observed: Digest,
    /// All registered pods without those left out.
    registered: Arc<View>,
    /// Pods whose start was requested in earlier batches, and in the current one.
    started: Arc<BTreeSet<PodId>>,
    starting: BTreeSet<PodId>,
    /// None unless a pod has failed the check.
    failed_check: Option<FailedCheck>,
    /// Pods that are only not ready.
    unready: UnreadyPods,
    /// Number of pods that are left out because they failed.
    tolerated: usize,
    /// Pods that are left out because they failed or are cordoned, and the reason.
    left_out: BTreeMap<PodId, String>,
    /// The view to send: all registered pods for the check, then the live ones.
    view: Arc<View>,
    /// Digest of the view to send.
    generation: Digest,
    /// Call of the last request.
    last_call: u64,
    /// Requests without a reply.
    waiting: BTreeMap<u64, PodId>,
    /// Pods of the next requests.
    next: VecDeque<PodId>,
    /// Pods of the view that are no longer registered.
    missing: BTreeSet<PodId>,
    /// Whether a pod left before it had replied to everything, or was skipped for a reason that may pass.
    is_incomplete: bool,
    /// Requests that were answered 409 while the lock is read: they still wait.
    disputed: BTreeMap<u64, Dispute>,
    /// Number of repeated requests to each pod under a higher number.
    renumbered: BTreeMap<PodId, u32>,
}

/// A 409 reply.
#[derive(Debug)]
struct Dispute {
    /// The number that the pod has accepted, if it reports one.
    accepted: Option<u64>,
    text: String,
}

impl Rollout {
    /// Starts a rollout: posts the check to all pods of `view`, which are those of `registered` that are not known to be dead.
    /// Calls are numbered above `last_call`.
    pub(super) fn start(
        view: Arc<View>,
        registered: Arc<View>,
        settings: &ModelSettings,
        circumstances: Circumstances,
        last_call: u64,
    ) -> (Self, Progress) {
        let digest = Digest::of(&registered);
        let mut rollout = Self {
            phase: Phase::Check,
            full_shutdown: settings.full_shutdown,
            sequential: settings.sequential,
            batch: settings.batch,
            tolerate: settings.tolerate,
            circumstances,
            parallel: 0,
            generation: digest.clone(),
            observed: digest.clone(),
            digest,
            registered,
            started: Arc::default(),
            starting: BTreeSet::new(),
            failed_check: None,
            unready: UnreadyPods::default(),
            tolerated: 0,
            left_out: BTreeMap::new(),
            view,
            last_call,
            waiting: BTreeMap::new(),
            next: VecDeque::new(),
            missing: BTreeSet::new(),
            is_incomplete: false,
            disputed: BTreeMap::new(),
            renumbered: BTreeMap::new(),
        };
        let mut progress = Progress::default();
        rollout.post_all(RolloutTask::Check, &mut progress);
        (rollout, progress)
    }

    /// Returns the digest of the pods that it started with.
    pub(super) fn observed(&self) -> &Digest {
        &self.observed
    }

    /// Returns the latest time at which it needs [`tick`](Self::tick).
    pub(super) fn wake(&self) -> Option<Instant> {
        let ends = self.failed_check.as_ref().map(FailedCheck::end_at);
        self.unready.wake().into_iter().chain(ends).min()
    }

    /// Repeats requests to pods that were not ready, or ends a failed check, if it is time.
    pub(super) fn tick(&mut self, now: Instant) -> Progress {
        let mut progress = Progress::default();
        if let Some(failed) = self.failed_check.take_if(|failed| failed.end_at() <= now) {
            self.cancel_requests(&mut progress);
            return progress.end(RolloutOutcome::Failed(failed.into_error()));
        }
        for pod in self.unready.take_due(now) {
            self.post(pod, RolloutTask::On, &mut progress);
        }
        progress
    }

    /// Returns which of the pods that it waits for are not ready and why, as they have answered or published it; none if there
    /// are none.
    pub(super) fn unready_text(&self, states: &States) -> Option<String> {
        if self.phase != Phase::On {
            return None;
        }
        let pods: BTreeSet<&PodId> = self.unready.pods().chain(self.waiting.values()).collect();
        let published = |pod| states.get(pod).filter(|state| state.is_unready())?.reason.as_ref();
        let reason = |pod| self.unready.reason(pod).or_else(|| published(pod));
        let unready: Vec<_> = pods.into_iter().filter_map(|pod| Some((pod, reason(pod)?))).collect();
        if unready.is_empty() {
            return None;
        }
        let named = unready.iter().take(MAX_NAMED);
        let mut items: Vec<String> = named.map(|(pod, reason)| format!("{} ({reason})", self.name(pod))).collect();
        if unready.len() > MAX_NAMED {
            items.push(format!("and {} more", unready.len() - MAX_NAMED));
        }
        Some(items.join(", "))
    }

    /// Returns whether all replies that it waits for are those of pods that were not ready before.
    fn waits_for_readiness(&self) -> bool {
        self.waiting.values().all(|pod| self.unready.contains(pod))
    }

    /// Ends the rollout if it only waits for pods to become ready: the cluster has changed, and the next one waits for them too.
    pub(super) fn supersede(&mut self) -> Progress {
        let mut progress = Progress::default();
        if self.phase == Phase::On && !self.unready.is_empty() && self.waits_for_readiness() {
            self.cancel_requests(&mut progress);
            progress.outcome = Some(RolloutOutcome::Incomplete);
        }
        progress
    }

    /// Returns `#seq address (uuid)` of a pod.
    fn name(&self, pod: &PodId) -> String {
        let registration = self.registered.pods.get(pod).or_else(|| self.view.pods.get(pod));
        registration.map_or_else(|| pod.to_string(), |registration| pod_name(pod, registration))
    }

    /// Returns the number of pods.
    pub(super) fn size(&self) -> usize {
        self.view.pods.len()
    }

    /// Returns the call of the last request.
    pub(super) fn last_call(&self) -> u64 {
        self.last_call
    }

    /// Applies the reply to a request. Ignores one that is not waited for.
    pub(super) fn answered(&mut self, call: u64, reply: PeerReply, now: Instant) -> Progress {
        let mut progress = Progress::default();
        let Some(pod) = self.waiting.remove(&call) else { return progress };
        if let Some(failed) = &mut self.failed_check {
            failed.extend(now);
        }
        let (phase, task) = (self.phase, self.phase.task().name());
        if let PeerReply::NotReady(reason) = &reply
            && phase == Phase::On
        {
            self.unready.insert(pod, reason.clone(), now);
            return progress;
        }
        self.unready.remove(&pod);
        if phase == Phase::Check && self.may_leave_out(&pod, &reply) {
            self.leave_out(pod, &reply);
            self.advance(&mut progress);
            return progress;
        }
        let name = self.name(&pod);
        match reply {
            PeerReply::Status(200, _) => self.advance(&mut progress),
            PeerReply::Status(410, _) if phase == Phase::Check => {
                tracing::info!(%pod, "excluding dead pod");
                let mut view = View::clone(&self.view);
                view.pods.remove(&pod);
                self.view = Arc::new(view);
                progress.dead = Some(pod);
                self.advance(&mut progress);
            }
            PeerReply::Status(409, text) => self.dispute(call, pod, None, text, &mut progress),
            PeerReply::Late(number, text) => self.dispute(call, pod, Some(number), text, &mut progress),
            PeerReply::Status(code @ (406 | 410), text) if code == 410 || phase == Phase::On => {
                tracing::warn!(%pod, code, text, "pod died during configuration");
                self.cancel_requests(&mut progress);
                let error = format!("pod {name} failed {task} with {code}: {text}");
                progress.dead = Some(pod);
                let stops = self.batch != Batch::All && code == 406;
                let outcome = if stops { RolloutOutcome::BatchFailed } else { RolloutOutcome::PodDied };
                progress.outcome = Some(outcome(error));
            }
            PeerReply::WrongPod(text) => {
                return self.fail(progress, format!("another pod answers at the address of pod {name}: {text}"), now);
            }
            PeerReply::Status(code, text) => {
                return self.fail(progress, format!("pod {name} failed {task} with {code}: {text}"), now);
            }
            PeerReply::Cordoned(_) => {
                tracing::info!(%pod, "pod cordoned during configuration, configuring again without it");
                self.cancel_requests(&mut progress);
                progress.outcome = Some(RolloutOutcome::Incomplete);
            }
            PeerReply::NotReady(reason) => {
                return self.fail(progress, format!("pod {name} failed {task} with 503: not ready: {reason}"), now);
            }
            PeerReply::Unreachable(reason) => {
                return self.unreachable(progress, pod, reason, now);
            }
        }
        progress
    }

    /// Leaves out a pod that cannot be reached, or ends the rollout.
    fn unreachable(&mut self, mut progress: Progress, pod: PodId, cause: String, now: Instant) -> Progress {
        let name = self.name(&pod);
        let error = format!("pod {name} unreachable for {}: {cause}", self.phase.task().name());
        let reply = PeerReply::Unreachable(cause);
        if self.phase == Phase::Check && self.may_leave_out(&pod, &reply) {
            self.leave_out(pod, &reply);
            self.advance(&mut progress);
            return progress;
        }
        self.fail(progress, error, now)
    }

    /// Returns whether a pod with this reply to the check is left out, instead of holding the configuration: it is cordoned, or
    /// tolerated.
    fn may_leave_out(&self, pod: &PodId, reply: &PeerReply) -> bool {
        let failed = match reply {
            PeerReply::Cordoned(_) => return true,
            PeerReply::Status(code, _) => !matches!(code, 200 | 409 | 410),
            PeerReply::Unreachable(_) | PeerReply::WrongPod(_) | PeerReply::NotReady(_) => true,
            PeerReply::Late(..) => false,
        };
        failed && self.tolerated < self.tolerate && self.circumstances.own.as_ref() != Some(pod)
    }

    /// Leaves a pod out of the configuration.
    fn leave_out(&mut self, pod: PodId, reply: &PeerReply) {
        tracing::warn!(%pod, %reply, "pod left out of the configuration");
        for view in [&mut self.view, &mut self.registered] {
            let mut without = View::clone(view);
            without.pods.remove(&pod);
            *view = Arc::new(without);
        }
        self.digest = Digest::of(&self.registered);
        self.tolerated += usize::from(!matches!(reply, PeerReply::Cordoned(_)));
        self.left_out.insert(pod, reply.to_string());
    }

    /// Applies the result of reading the lock, which is still held or cannot be read.
    pub(super) fn lock_read(&mut self, lock: Result<(), &str>, now: Instant) -> Progress {
        let mut progress = Progress::default();
        let task = self.phase.task();
        for (call, Dispute { accepted, text }) in std::mem::take(&mut self.disputed) {
            let Some(pod) = self.waiting.remove(&call) else { continue };
            let renumbered = self.renumbered.entry(pod.clone()).or_default();
            *renumbered += 1;
            match (lock, accepted) {
                (Ok(()), Some(number)) if number > MAX_CONTINUED => {
                    self.cancel_requests(&mut progress);
                    return progress.end(RolloutOutcome::Exhausted(format!(
                        "pod {} accepted request number {number}, leaving none for this leadership",
                        self.name(&pod)
                    )));
                }
                (Ok(()), Some(number)) if *renumbered <= MAX_RENUMBERED => {
                    tracing::warn!(%pod, number, "request number already used, continuing above it");
                    progress.effects.push(Effect::CountAbove(number));
                    self.post(pod, task, &mut progress);
                }
                (lock, _) => {
                    let cause = match lock {
                        Ok(()) => format!("answered 409 although this leader holds the lock: {text}"),
                        Err(reason) => format!("answered 409, and the leader lock cannot be read ({reason}): {text}"),
                    };
                    progress = self.unreachable(progress, pod, cause, now);
                    if progress.outcome.is_some() {
                        return progress;
                    }
                }
            }
        }
        self.finish_phase(&mut progress);
        progress
    }

    /// Applies the result of the write of this phase. `may_start` is false if a dependency in the view is unsettled, or the cluster
    /// is paused.
    pub(super) fn written(&mut self, result: WriteResult, may_start: bool) -> Progress {
        let mut progress = Progress::default();
        if self.phase == Phase::Pending && result != WriteResult::Fenced {
            // Also if it is unknown: only a completed configuration makes the cluster clean again.
            progress.stored = Some(StoredHash::Pending(self.generation.clone()));
        }
        match (result, self.phase) {
            (WriteResult::Done, Phase::Pending) if !may_start => progress.end(RolloutOutcome::Incomplete),
            (WriteResult::Done, Phase::Pending) => {
                progress.has_started_pods = true;
                self.phase = if self.full_shutdown { Phase::Off } else { Phase::On };
                self.post_all(self.phase.task(), &mut progress);
                progress
            }
            (WriteResult::Done, Phase::Commit) => progress.end(RolloutOutcome::Completed(
                self.digest.clone(),
                Arc::clone(&self.view),
                self.left_out.clone(),
            )),
            (WriteResult::Unknown(reason), _) => {
                progress.end(RolloutOutcome::Failed(format!("cannot write configuration state: {reason}")))
            }
            (WriteResult::Done | WriteResult::Fenced, _) => progress,
        }
    }

    /// Stops waiting for pods that are no longer registered. The rollout continues with the others but does not count as
    /// complete: a pod that returns unchanged still has to be configured.
    pub(super) fn drop_departed(&mut self, registered: &Pods) -> Progress {
        let mut progress = Progress::default();
        self.missing = self.view.pods.keys().filter(|pod| !registered.contains_key(*pod)).cloned().collect();
        let missing = &self.missing;
        let departed: Vec<u64> =
            self.waiting.iter().filter(|(_, pod)| missing.contains(*pod)).map(|(call, _)| *call).collect();
        let before = self.next.len() + self.unready.len();
        self.next.retain(|pod| !missing.contains(pod));
        self.unready.retain(|pod| !missing.contains(pod));
        if departed.is_empty() && before == self.next.len() + self.unready.len() {
            return progress;
        }
        self.is_incomplete = true;
        if self.phase == Phase::Check {
            let mut view = View::clone(&self.view);
            view.pods.retain(|pod, _| !missing.contains(pod));
            self.view = Arc::new(view);
        }
        for call in departed {
            self.waiting.remove(&call);
            self.disputed.remove(&call);
            progress.effects.push(Effect::Cancel(call));
        }
        self.advance(&mut progress);
        progress
    }

    /// Stops as far as possible: a dependency became unsettled, or configurations are paused. A rollout at its check ends. A
    /// sequence skips the pods without a request so far, which stay unchanged. A rollout that has stopped pods continues.
    pub(super) fn stop(&mut self) -> Progress {
        let mut progress = Progress::default();
        match self.phase {
            Phase::Check => {
                self.cancel_requests(&mut progress);
                progress.outcome = Some(RolloutOutcome::Incomplete);
            }
            Phase::On if !self.full_shutdown && !self.next.is_empty() => {
                self.next.clear();
                self.is_incomplete = true;
                self.finish_phase(&mut progress);
            }
            _ => {}
        }
        progress
    }

    /// Cancels all requests.
    pub(super) fn cancel(&mut self) -> Vec<Effect> {
        let mut progress = Progress::default();
        self.cancel_requests(&mut progress);
        progress.effects
    }

    /// Starts a phase of requests: to all pods in parallel, or to some at a time.
    fn post_all(&mut self, task: RolloutTask, progress: &mut Progress) {
        let stops_or_starts = matches!(task, RolloutTask::Off | RolloutTask::On);
        let in_batches = stops_or_starts && self.batch != Batch::All;
        let Circumstances { own, down } = &self.circumstances;
        let mut pods: Vec<_> = self
            .view
            .pods
            .iter()
            .map(|(id, pod)| {
                let rank = if in_batches { (own.as_ref() == Some(id), !down.contains(id)) } else { (false, false) };
                (rank, pod.seq(), id.clone())
            })
            .collect();
        pods.sort();
        self.next = pods.into_iter().map(|(_, _, id)| id).collect();
        self.parallel = match self.batch {
            _ if !stops_or_starts => self.next.len(),
            _ if self.sequential => 1,
            batch => batch.of(self.next.len()),
        };
        self.advance(progress);
    }

    /// Posts to the next batch, or moves to the next phase, if all requests so far have been answered.
    fn advance(&mut self, progress: &mut Progress) {
        if !self.waiting.is_empty() || !self.unready.is_empty() {
            return;
        }
        if self.phase == Phase::On && !self.starting.is_empty() {
            let started = self.started.union(&self.starting).cloned().collect();
            self.started = Arc::new(started);
            self.starting.clear();
        }
        let task = self.phase.task();
        for _ in 0..self.parallel {
            self.post_next(task, progress);
        }
        self.finish_phase(progress);
    }

    /// Posts to the next pod that is still registered.
    fn post_next(&mut self, task: RolloutTask, progress: &mut Progress) {
        while let Some(pod) = self.next.pop_front() {
            if !self.missing.contains(&pod) {
                self.post(pod, task, progress);
                return;
            }
            self.is_incomplete = true;
        }
    }

    fn post(&mut self, pod: PodId, task: RolloutTask, progress: &mut Progress) {
        let address = self.view.pods.get(&pod).and_then(|registration| registration.control_address().ok());
        self.last_call += 1;
        if task != RolloutTask::Ok {
            self.waiting.insert(self.last_call, pod.clone());
        }
        let started = if task == RolloutTask::On {
            self.starting.insert(pod.clone());
            Arc::clone(&self.started)
        } else {
            Arc::default()
        };
        progress.effects.push(Effect::Post(PeerRequest {
            call: self.last_call,
            pod,
            address: address.unwrap_or_default(),
            task,
            generation: self.generation.clone(),
            view: Arc::clone(&self.view),
            started,
        }));
    }

    /// Waits for the lock: whether another pod leads is decided by the store and not by the pod that answered 409.
    fn dispute(&mut self, call: u64, pod: PodId, accepted: Option<u64>, text: String, progress: &mut Progress) {
        tracing::debug!(%pod, text, "409 received, reading leader lock");
        self.waiting.insert(call, pod);
        self.disputed.insert(call, Dispute { accepted, text });
        progress.needs_lock = true;
    }

    /// Starts the next phase if all pods have replied.
    fn finish_phase(&mut self, progress: &mut Progress) {
        if !self.waiting.is_empty() || !self.next.is_empty() || !self.unready.is_empty() {
            return;
        }
        if let Some(failed) = self.failed_check.take() {
            progress.outcome = Some(RolloutOutcome::Failed(failed.into_error()));
            return;
        }
        match self.phase {
            Phase::Check => {
                self.phase = Phase::Pending;
                self.generation = Digest::of(&self.view);
                tracing::info!(generation = %self.generation, "pre-check passed");
                progress.effects.push(Effect::Write(StoreWrite::Pending(self.generation.clone())));
            }
            Phase::Off => {
                self.phase = Phase::On;
                self.post_all(RolloutTask::On, progress);
            }
            Phase::On if self.is_incomplete => progress.outcome = Some(RolloutOutcome::Incomplete),
            Phase::On => {
                self.phase = Phase::Commit;
                self.confirm(progress);
                let (digest, view) = (self.digest.clone(), Arc::clone(&self.view));
                progress.effects.push(Effect::Write(StoreWrite::Commit(digest, view)));
            }
            Phase::Pending | Phase::Commit => {}
        }
    }

    /// Ends the rollout because a pod failed: a check once all others have replied, another phase immediately.
    fn fail(&mut self, mut progress: Progress, error: String, now: Instant) -> Progress {
        if self.phase == Phase::Check {
            let failed = self.failed_check.get_or_insert_with(|| {
                tracing::warn!(error, "check failed, waiting for replies of other pods");
                FailedCheck::new(error, now)
            });
            failed.add_pod();
            self.advance(&mut progress);
            return progress;
        }
        self.cancel_requests(&mut progress);
        progress.end(RolloutOutcome::Failed(error))
    }

    fn cancel_requests(&mut self, progress: &mut Progress) {
        progress.effects.extend(std::mem::take(&mut self.waiting).into_keys().map(Effect::Cancel));
        self.next.clear();
        self.disputed.clear();
        self.unready.clear();
        self.failed_check = None;
    }

    /// Posts `ok` to all pods, whose replies are not awaited.
    fn confirm(&mut self, progress: &mut Progress) {
        let mut pods: Vec<_> = self.view.pods.iter().map(|(id, pod)| (pod.seq(), id.clone())).collect();
        pods.sort();
        for (_, pod) in pods {
            self.post(pod, RolloutTask::Ok, progress);
        }
    }
}

/// Returns `#seq address (uuid)`.
pub(super) fn pod_name(pod: &PodId, registration: &Registration) -> String {
    let address = registration.control_address().unwrap_or_else(|_| "without a valid address".to_owned());
    format!("#{} {address} ({pod})", registration.seq())
}
