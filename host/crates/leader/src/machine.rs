//! The pure machine of one leadership: `(state, event, now) -> effects`.
//!
//! It lives as long as one uninterrupted leadership. A suspended session drops it; a new one reconciles again when the lock
//! turns out to be still held. Its parts own their state: [`Settling`] the current view, [`Burst`] changes that belong
//! together, [`Rollout`] the configuration in flight, [`SnapshotWriter`] the snapshot, [`LeftOutPods`] the
//! pods that a configuration left out, [`Reconciliation`] the model's work for the cluster, [`DownPodList`] the pods that are
//! down or cordoned.
//!
//! ```text
//!           first observation                digest ≠ hash, or pending
//!   observing ─────────────▶ clean ◀──────────────────────────────────▶ dirty
//!                              ▲          unchanged again                 │ damper
//!                              │ committed                                ▼
//!                              └──────────────────────────────────── rollout ◀──▶ backing off
//!                                                                         failed / retry
//! ```

mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use ochopod_model::{Digest, PodId, StoredHash, View};
use ochopod_plugin::ModelSettings;
use ochopod_store::{Leadership, Observation, States};
use ochopod_timing::Backoff;

use super::{
    burst::Burst,
    down_pods::DownPodList,
    event::{Effect, Event, WriteResult},
    left_out::LeftOutPods,
    progress::{Progress, RolloutOutcome},
    reconciliation::{Reconciliation, confirmations},
    rollout::{Circumstances, Rollout},
    settle::{CurrentView, Settling},
    snapshot::SnapshotWriter,
};

/// Shortest time between a change and the configuration that it causes.
const MIN_DAMPER: Duration = Duration::from_millis(10);
/// Longest time between a configuration and the first probe.
const MAX_FIRST_PROBE_DELAY: Duration = Duration::from_secs(1);
/// Delay after a batch of which a pod died: time to pause the cluster before the next batch is tried.
const BATCH_RETRY_DELAY: Duration = Duration::from_secs(30);
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);
/// Time after which an absent pod or dependency counts as gone, in session timeouts.
const ABSENCE_SESSIONS: u32 = 2;
/// Reason of a resignation.
const LOCK_LOST: &str = "leader lock lost";

#[derive(Debug)]
enum LeaderState {
    /// The last configuration, the cluster or the states of its pods are not known yet.
    Observing {
        /// When the cluster was observed first: the damper runs from then.
        since: Option<Instant>,
    },
    /// The cluster is configured as it is now.
    Clean {
        probe_at: Instant,
        is_probing: bool,
    },
    /// The cluster changed: a rollout starts after this delay, or after a burst of changes.
    Dirty {
        since: Instant,
        delay: Duration,
    },
    Rollout(Box<Rollout>),
    /// The last rollout failed: the next one starts at this time. A change of the cluster starts it earlier, unless a batch
    /// failed: the next one may fail as well.
    BackingOff {
        until: Instant,
        is_batch: bool,
    },
    /// The leadership was resigned.
    Ended,
}

/// Configuration that is due although the digest of the cluster is that of the last one: a pod was revived, or has not been
/// configured in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ForcedConfiguration {
    None,
    /// No rollout has started since.
    Due,
    /// A rollout has started since.
    Started,
}

/// State of one leadership.
#[derive(Debug)]
pub struct LeaderMachine {
    pub(super) settings: ModelSettings,
    state: LeaderState,
    settling: Settling,
    burst: Burst,
    snapshot: SnapshotWriter,
    down_pods: DownPodList,
    left_out: LeftOutPods,
    reconciliation: Reconciliation,
    /// The leader's own pod.
    pub(super) own: Option<PodId>,
    /// Time after which something absent counts as gone.
    absence_timeout: Duration,
    states: Arc<States>,
    /// Whether the states were read: cordons are known.
    has_states: bool,
    observation: Option<Arc<Observation>>,
    stored: Option<StoredHash>,
    /// The current view and its digest, once it may be compared.
    current: Option<(CurrentView, Digest)>,
    /// Digest of the current view with the pods that are left out.
    registered: Option<Digest>,
    is_reading_lock: bool,
    /// Set if this leadership has no request numbers left: it ends with the next retry.
    exhausted: Option<String>,
    retries: Backoff,
    /// Pods found dead whose registration may not be marked yet, until the view changes.
    dead: BTreeSet<PodId>,
    /// Pods that wait for the first configuration of their life, and since when they do although the cluster is configured.
    unconfigured: BTreeMap<PodId, Instant>,
    forced: ForcedConfiguration,
    /// Whether registered pods have changed, and the rollout in flight has not followed that yet.
    has_registered_changed: bool,
    /// The last error, until a configuration succeeds.
    last_error: Option<String>,
    probe_text: String,
    /// Call of the last request.
    last_call: u64,
}

impl LeaderMachine {
    /// Creates the machine of a leadership that has not observed anything yet.
    ///
    /// An absent pod counts as gone after `absence_timeout`. `settle_until` is set if the pod has returned after a lost
    /// session or an interrupted connection: others may still be on their way back until then.
    #[must_use]
    pub fn new(settings: ModelSettings, absence_timeout: Duration, settle_until: Option<Instant>) -> Self {
        Self {
            settings,
            state: LeaderState::Observing { since: None },
            settling: Settling::new(absence_timeout, settle_until),
            burst: Burst::default(),
            snapshot: SnapshotWriter::default(),
            down_pods: DownPodList::default(),
            left_out: LeftOutPods::default(),
            reconciliation: Reconciliation::default(),
            own: None,
            absence_timeout,
            states: Arc::default(),
            has_states: false,
            observation: None,
            stored: None,
            current: None,
            registered: None,
            is_reading_lock: false,
            exhausted: None,
            retries: Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY),
            dead: BTreeSet::new(),
            unconfigured: BTreeMap::new(),
            forced: ForcedConfiguration::None,
            has_registered_changed: false,
            last_error: None,
            probe_text: String::new(),
            last_call: 0,
        }
    }

    /// Creates the machine of a leadership of this pod. It settles first if the pod has just returned to the store, at
    /// `reconnected_at`.
    pub(super) fn of(
        settings: &ModelSettings,
        leadership: &Leadership,
        own: PodId,
        reconnected_at: Option<Instant>,
    ) -> Self {
        let absence_timeout = ABSENCE_SESSIONS * leadership.session_timeout();
        let settle_until = reconnected_at.map(|since| since + absence_timeout);
        Self { own: Some(own), ..Self::new(settings.clone(), absence_timeout, settle_until) }
    }

    /// Applies the settings of a plugin that replaced the last one, to configurations that start from now on. Returns whether
    /// they differ.
    pub(super) fn set_settings(&mut self, settings: ModelSettings) -> bool {
        let differ = self.settings != settings;
        self.settings = settings;
        differ
    }

    /// Applies an event and returns its effects, in order.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut is_observing = matches!(event, Event::Stored(..) | Event::Observation(_) | Event::Tick);
        match event {
            Event::Stored(hash, view) => {
                self.settling.set_stored(&hash, view);
                self.stored = Some(hash);
            }
            Event::Observation(observation) => {
                self.down_pods.set_observation(Arc::clone(&observation));
                self.left_out.retain_registered(&observation.pods);
                let before = self.observation.replace(observation);
                if let LeaderState::Observing { since } = &mut self.state {
                    since.get_or_insert(now);
                }
                if let Some(before) = &before {
                    self.include_revived_since(before);
                    self.record_changes_since(before, now);
                }
                if before.is_some_and(|before| before.paused.is_some()) && !self.is_paused() {
                    self.resume(now);
                }
            }
            Event::States(states) => {
                is_observing = !std::mem::replace(&mut self.has_states, true);
                if cordoned(&self.states).ne(cordoned(&states)) {
                    is_observing = true;
                    self.left_out.include(cordoned(&self.states).map(|(id, _)| id));
                }
                self.states = Arc::clone(&states);
                self.down_pods.set_states(states);
            }
            Event::Reading(is_reading) => self.burst.set_reading(is_reading),
            Event::Answered(call, reply) => {
                is_observing |= self.left_out.answered(call, &reply, now);
                self.with_rollout(now, &mut effects, |rollout| rollout.answered(call, reply, now));
            }
            Event::Written(result) => self.written(result, now, &mut effects),
            Event::LockRead(held) => self.lock_read(&held, now, &mut effects),
            Event::Probed(result) => self.probed(result, now),
            Event::Reconciled(result) => self.reconciliation.returned(result, now),
            Event::Tick => self.with_rollout(now, &mut effects, |rollout| rollout.tick(now)),
        }
        let mut is_changed = is_observing && self.refresh_view(now);
        let must_stop = !self.is_settled() || self.is_paused();
        if is_observing && must_stop && self.stop_rollout(now, &mut effects) {
            is_changed |= self.refresh_view(now);
        }
        if !matches!(self.state, LeaderState::Ended) {
            self.reconcile(is_changed, now, &mut effects);
        }
        effects
    }

    /// Returns the latest time at which the machine needs a `Tick`.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        let snapshot = self.snapshot.wake();
        let own = match &self.state {
            LeaderState::Clean { is_probing: true, .. } => {
                let unconfigured = self.unconfigured.values().min().map(|since| *since + self.absence_timeout);
                [snapshot, self.left_out.wake(), unconfigured].into_iter().flatten().min()
            }
            LeaderState::Clean { probe_at, is_probing: false } => {
                let probe = (!self.reconciliation.is_running()).then_some(*probe_at);
                let unconfigured = self.unconfigured.values().min().map(|since| *since + self.absence_timeout);
                let own = [probe, snapshot, self.left_out.wake(), self.reconciliation.wake(), unconfigured];
                own.into_iter().flatten().min()
            }
            LeaderState::Dirty { since, delay } => {
                if self.may_start() {
                    Some(self.burst.due(*since, *delay))
                } else {
                    snapshot
                }
            }
            LeaderState::BackingOff { until, .. } => {
                Some(*until).filter(|_| self.may_start()).into_iter().chain(snapshot).min()
            }
            LeaderState::Rollout(rollout) => rollout.wake(),
            _ => None,
        };
        let settling = self.observation.as_ref().filter(|_| self.has_states).and_then(|_| self.settling.wake());
        own.into_iter().chain(settling).min()
    }

    /// Returns the time from a change to the configuration that it causes.
    fn damper(&self) -> Duration {
        self.settings.damper.max(MIN_DAMPER)
    }

    fn record_changes_since(&mut self, before: &Observation, now: Instant) {
        if let Some(observation) = &self.observation {
            self.burst.record(before, observation, now);
        }
    }

    /// Returns whether a configuration is in flight.
    pub(super) fn is_rolling_out(&self) -> bool {
        matches!(self.state, LeaderState::Rollout(_))
    }

    fn is_paused(&self) -> bool {
        self.observation.as_ref().is_some_and(|observation| observation.paused.is_some())
    }

    /// Requests a configuration if a pod that was dead is registered as alive.
    fn include_revived_since(&mut self, before: &Observation) {
        let Some(observation) = &self.observation else { return };
        let was_dead = |id: &PodId| before.pods.get(id).is_some_and(|pod| pod.is_dead());
        for (id, _) in observation.pods.iter().filter(|(id, pod)| !pod.is_dead() && was_dead(id)) {
            self.dead.remove(id);
            self.forced = ForcedConfiguration::Due;
        }
    }

    /// Continues after a pause: a configuration that was stopped is tried again.
    fn resume(&mut self, now: Instant) {
        if let LeaderState::BackingOff { until, .. } = &mut self.state {
            *until = now;
        }
    }

    /// Returns whether a configuration may start.
    fn may_start(&self) -> bool {
        self.is_settled() && !self.is_paused()
    }

    /// Returns whether every dependency in the current view is as it is now.
    fn is_settled(&self) -> bool {
        self.current.as_ref().is_none_or(|(current, _)| current.unsettled.is_empty())
    }

    /// Derives the current view again, once the cluster and the states of its pods are known. Returns whether it changed.
    fn refresh_view(&mut self, now: Instant) -> bool {
        let before = self.current.take();
        let Some(observation) = self.observation.as_ref().filter(|_| self.has_states) else { return false };
        let Some(mut current) = self.settling.current_view(observation, now) else { return false };
        current.registered = current.view.clone();
        current.registered.pods.retain(|id, _| self.states.get(id).is_none_or(|state| state.cordon.is_none()));
        current.view.clone_from(&current.registered);
        current.view.pods.retain(|id, _| !self.left_out.contains(id));
        let digest = Digest::of(&current.view);
        let registered = Some(Digest::of(&current.registered));
        self.has_registered_changed |= self.registered != registered;
        self.registered = registered;
        let is_changed = before.as_ref().is_none_or(|(_, before)| *before != digest);
        current.log_changes(before.as_ref().map(|(before, _)| before));
        self.current = Some((current, digest));
        if is_changed {
            self.dead.clear();
            self.retries.reset();
        }
        is_changed
    }

    /// Compares the current view with the last configuration, and starts what is due.
    fn reconcile(&mut self, is_changed: bool, now: Instant, effects: &mut Vec<Effect>) {
        let Some((_, digest)) = &self.current else { return };
        let Some(stored) = &self.stored else { return };
        let mut is_clean =
            matches!(stored, StoredHash::Done(done) if done == digest) && self.forced == ForcedConfiguration::None;
        if matches!(self.state, LeaderState::Observing { .. }) && !is_clean {
            is_clean = self.leave_out_again(now);
        }
        if matches!(self.state, LeaderState::Observing { .. } | LeaderState::Clean { .. }) && !is_clean {
            self.become_dirty(now, effects);
        }
        let soon = self.burst.due(now, self.damper());
        let may_start = self.may_start();
        match &mut self.state {
            LeaderState::Observing { .. } => self.become_clean(now, effects),
            LeaderState::Dirty { .. } if is_clean => self.become_clean(now, effects),
            LeaderState::Dirty { since, delay } if self.burst.due(*since, *delay) <= now && may_start => {
                self.start_rollout(now, effects);
            }
            LeaderState::BackingOff { until, is_batch } => {
                if is_changed && !*is_batch {
                    *until = soon.min(*until);
                }
                if is_clean {
                    self.become_clean(now, effects);
                } else if *until <= now && may_start {
                    self.start_rollout(now, effects);
                }
            }
            LeaderState::Clean { .. } => self.maintain(now, effects),
            LeaderState::Rollout(rollout) if Some(rollout.observed()) != self.registered.as_ref() => {
                self.follow_change(now, effects);
            }
            LeaderState::Rollout(_) | LeaderState::Dirty { .. } | LeaderState::Ended => {}
        }
        let is_waiting = matches!(self.state, LeaderState::BackingOff { .. })
            || (matches!(self.state, LeaderState::Dirty { .. }) && !may_start);
        if is_waiting {
            self.restore_snapshot(now, effects);
        }
    }

    /// Leaves pods out that the previous leader left out, as far as they are tolerated: the last configuration is that of all
    /// others. They are checked first. Returns whether there are such pods.
    fn leave_out_again(&mut self, now: Instant) -> bool {
        let Some((current, _)) = &self.current else { return false };
        let (Some(StoredHash::Done(done)), Some(members)) = (&self.stored, self.settling.members()) else {
            return false;
        };
        let mut view = current.view.clone();
        let absent = view.pods.iter().filter(|(id, pod)| !members.contains_key(*id) && !pod.is_dead());
        let absent: Vec<PodId> = absent.map(|(id, _)| id.clone()).filter(|id| Some(id) != self.own.as_ref()).collect();
        view.pods.retain(|id, _| !absent.contains(id));
        if absent.len() > self.settings.tolerate || Digest::of(&view) != *done {
            return false;
        }
        self.left_out.restore(absent, now);
        self.refresh_view(now);
        true
    }

    fn become_dirty(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if matches!(self.state, LeaderState::Clean { is_probing: true, .. }) {
            effects.push(Effect::CancelProbe);
        }
        effects.extend(self.reconciliation.cancel());
        effects.extend(self.left_out.cancel(now));
        tracing::info!("cluster changed, configuring after damper");
        let since = match self.state {
            LeaderState::Observing { since } => since.unwrap_or(now),
            _ => now,
        };
        self.state = LeaderState::Dirty { since, delay: self.damper() };
    }

    fn become_clean(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.last_error = None;
        self.state = self.clean(now);
        self.reconciliation.request(now);
        self.maintain(now, effects);
    }

    fn clean(&self, now: Instant) -> LeaderState {
        let probe_at = now + self.settings.probe_every.min(MAX_FIRST_PROBE_DELAY);
        LeaderState::Clean { probe_at, is_probing: false }
    }

    /// Removes dead pods from the snapshot, checks pods that were left out, and reconciles or probes when it is time.
    fn maintain(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some((current, _)) = &self.current else { return };
        let mut live = with_roles(&current.view, &self.states);
        live.pods.retain(|id, pod| !pod.is_dead() && !self.dead.contains(id));
        let live = Arc::new(live);
        effects.extend(self.snapshot.update(&live, now));
        if !self.left_out.reasons().is_empty() {
            let registered = Arc::new(with_roles(&current.registered, &self.states));
            effects.extend(self.left_out.request_checks(&registered, &mut self.last_call, now));
        }
        if self.include_unconfigured(now) {
            self.forced = ForcedConfiguration::Due;
            self.become_dirty(now, effects);
            return;
        }
        if self.reconciliation.observe(&live, &self.states, now) {
            effects.extend(confirmations(&live, &mut self.last_call));
        }
        let LeaderState::Clean { probe_at, is_probing } = &mut self.state else { return };
        if *is_probing {
            return;
        }
        effects.extend(self.reconciliation.start(&live, now));
        if *probe_at <= now && !self.reconciliation.is_running() {
            *is_probing = true;
            effects.push(Effect::Probe(live));
        }
    }

    /// Returns whether a pod waits for a configuration, although the cluster is configured: it was revived, or died and was
    /// revived unnoticed. What a pod publishes lags behind, in an outage of the store by up to a session timeout, so that it has
    /// to last for longer.
    fn include_unconfigured(&mut self, now: Instant) -> bool {
        let Some((current, _)) = &self.current else { return false };
        let pods = &current.view.pods;
        let waits = |id: &PodId| self.states.get(id).is_some_and(|state| state.unconfigured);
        let is_alive = |id: &PodId| pods.get(id).is_some_and(|pod| !pod.is_dead());
        self.unconfigured.retain(|id, _| waits(id) && is_alive(id));
        for id in pods.keys().filter(|id| waits(id) && is_alive(id)) {
            self.unconfigured.entry(id.clone()).or_insert(now);
        }
        let overdue = |since: &Instant| *since + self.absence_timeout <= now;
        let overdue: Vec<PodId> =
            self.unconfigured.iter().filter(|(_, since)| overdue(since)).map(|(id, _)| id.clone()).collect();
        for id in &overdue {
            self.dead.remove(id);
        }
        !overdue.is_empty()
    }

    /// Keeps the roles in the snapshot up to date while the next configuration takes time. Writes a snapshot if that of the
    /// previous leader is gone: it lists which pods of the last configuration are left. Otherwise clusters that depend on each
    /// other could wait for each other indefinitely.
    fn restore_snapshot(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some((current, _)) = &self.current else { return };
        let Some(members) = self.settling.members() else { return };
        let mut view = current.view.clone();
        if let Some(known) = self.snapshot.pods() {
            view.pods = members.clone();
            view.pods.retain(|id, _| known.contains_key(id));
        } else {
            view.pods.retain(|id, pod| members.contains_key(id) && !pod.is_dead() && !self.dead.contains(id));
        }
        if view.pods.is_empty() {
            self.snapshot.cancel_retry();
        } else {
            effects.extend(self.snapshot.update(&Arc::new(with_roles(&view, &self.states)), now));
        }
    }

    fn probed(&mut self, result: Result<Option<String>, String>, now: Instant) {
        let LeaderState::Clean { probe_at, is_probing } = &mut self.state else { return };
        *is_probing = false;
        *probe_at = now + self.settings.probe_every;
        self.probe_text = match result {
            Ok(text) => text.unwrap_or_default(),
            Err(reason) => format!("* {reason}"),
        };
    }

    fn written(&mut self, result: WriteResult, now: Instant, effects: &mut Vec<Effect>) {
        if result == WriteResult::Fenced {
            self.resign(LOCK_LOST.to_owned(), effects);
        } else if self.snapshot.is_writing() {
            self.snapshot.written(result, &mut self.retries, now);
        } else {
            let may_start = self.may_start();
            self.with_rollout(now, effects, |rollout| rollout.written(result, may_start));
        }
    }

    fn lock_read(&mut self, held: &Result<bool, String>, now: Instant, effects: &mut Vec<Effect>) {
        self.is_reading_lock = false;
        let lock = match held {
            Ok(false) => return self.resign(LOCK_LOST.to_owned(), effects),
            Ok(true) => Ok(()),
            Err(reason) => Err(reason.as_str()),
        };
        self.with_rollout(now, effects, |rollout| rollout.lock_read(lock, now));
    }

    /// Starts a configuration of the current view.
    fn start_rollout(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some((current, _)) = &self.current else { return };
        if let Some(reason) = self.exhausted.take() {
            self.resign(reason, effects);
            return;
        }
        if !self.may_start() {
            // A configuration must not start while paused, nor from pods that may be gone.
            self.settling.check_ended();
            self.state = LeaderState::Dirty { since: now, delay: Duration::ZERO };
            return;
        }
        let registered = with_roles(&current.registered, &self.states);
        let mut view = registered.clone();
        view.pods.retain(|id, _| !self.dead.contains(id));
        let (view, registered) = (Arc::new(view), Arc::new(registered));
        tracing::info!(pods = view.pods.len(), "configuration started");
        self.settling.check_started(&view);
        let down = self.states.iter().filter(|(_, state)| !state.ready).map(|(id, _)| id.clone());
        let circumstances = Circumstances { own: self.own.clone(), down: down.collect() };
        if self.forced == ForcedConfiguration::Due {
            self.forced = ForcedConfiguration::Started;
        }
        let (rollout, progress) = Rollout::start(view, registered, &self.settings, circumstances, self.last_call);
        self.state = LeaderState::Rollout(Box::new(rollout));
        self.apply(progress, now, effects);
    }

    /// Stops a rollout as far as possible: its dependencies became unsettled, or configurations are paused. Returns whether it
    /// ended.
    fn stop_rollout(&mut self, now: Instant, effects: &mut Vec<Effect>) -> bool {
        let was_in_flight = matches!(self.state, LeaderState::Rollout(_));
        self.with_rollout(now, effects, Rollout::stop);
        was_in_flight && !matches!(self.state, LeaderState::Rollout(_))
    }

    /// Follows a change of the cluster during a rollout: does not wait for pods that are gone, nor for pods to become ready if
    /// that is all that is left to do.
    fn follow_change(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some((current, _)) = &self.current else { return };
        let registered = current.registered.pods.clone();
        if std::mem::take(&mut self.has_registered_changed) {
            self.with_rollout(now, effects, |rollout| rollout.drop_departed(&registered));
        }
        self.with_rollout(now, effects, Rollout::supersede);
    }

    /// Applies a step to the rollout, if one is in flight.
    fn with_rollout(&mut self, now: Instant, effects: &mut Vec<Effect>, step: impl FnOnce(&mut Rollout) -> Progress) {
        if let LeaderState::Rollout(rollout) = &mut self.state {
            let progress = step(rollout);
            self.apply(progress, now, effects);
        }
    }

    /// Applies the progress of the rollout in flight.
    fn apply(&mut self, progress: Progress, now: Instant, effects: &mut Vec<Effect>) {
        if let LeaderState::Rollout(rollout) = &self.state {
            self.last_call = rollout.last_call();
        }
        effects.extend(progress.effects);
        self.dead.extend(progress.dead);
        self.stored = progress.stored.or(self.stored.take());
        if progress.needs_lock && !std::mem::replace(&mut self.is_reading_lock, true) {
            effects.push(Effect::ReadLock);
        }
        if progress.has_started_pods {
            self.settling.check_passed();
        }
        match progress.outcome {
            None => {}
            Some(RolloutOutcome::Completed(digest, view, left_out)) => {
                self.left_out.set(left_out, now);
                // Some may have left during the rollout.
                if let Some(observation) = &self.observation {
                    self.left_out.retain_registered(&observation.pods);
                }
                self.complete(digest, &view, now, effects);
            }
            Some(RolloutOutcome::Incomplete) => {
                tracing::info!("configuration incomplete, configuring again after damper");
                effects.push(Effect::RolloutEnded(false));
                self.settling.check_ended();
                self.state = LeaderState::Dirty { since: now, delay: self.damper() };
            }
            Some(RolloutOutcome::Failed(error)) => self.back_off(error, now, effects),
            Some(RolloutOutcome::BatchFailed(error)) => {
                self.back_off(error, now, effects);
                let until = now + BATCH_RETRY_DELAY.max(self.settings.damper);
                self.state = LeaderState::BackingOff { until, is_batch: true };
            }
            Some(RolloutOutcome::PodDied(error)) => {
                self.last_error = Some(error);
                effects.push(Effect::RolloutEnded(false));
                self.start_rollout(now, effects);
            }
            Some(RolloutOutcome::Exhausted(reason)) => {
                self.back_off(format!("{reason}; resigning for a new one"), now, effects);
                self.exhausted = Some(reason);
            }
        }
    }

    fn complete(&mut self, digest: Digest, view: &Arc<View>, now: Instant, effects: &mut Vec<Effect>) {
        tracing::info!(pods = view.pods.len(), hash = %digest, "configuration complete");
        effects.push(Effect::RolloutEnded(true));
        self.snapshot.committed(view);
        self.settling.set_configured(View::clone(view));
        self.stored = Some(StoredHash::Done(digest));
        self.last_error = None;
        self.retries.reset();
        self.probe_text.clear();
        self.unconfigured.clear();
        self.reconciliation.request(now);
        self.refresh_view(now);
        // A pod that was revived during the rollout was not configured by it, or died afterwards.
        let live = self.current.iter().flat_map(|(current, _)| &current.view.pods);
        let mut live = live.filter(|(id, pod)| !pod.is_dead() && !self.dead.contains(*id));
        if self.forced == ForcedConfiguration::Started && !live.any(|(id, _)| !view.pods.contains_key(id)) {
            self.forced = ForcedConfiguration::None;
        }
        // A change during the rollout starts the damper again, when it is reconciled next.
        self.state = self.clean(now);
    }

    /// Delays the next try of a configuration that failed.
    fn back_off(&mut self, error: String, now: Instant, effects: &mut Vec<Effect>) {
        let delay = self.retries.delay().max(self.settings.damper);
        tracing::warn!(
            refusal = error,
            retry_in = format_args!("{:.1}s", delay.as_secs_f64()),
            "configuration on hold"
        );
        effects.push(Effect::RolloutEnded(false));
        self.settling.check_ended();
        self.last_error = Some(error);
        self.state = LeaderState::BackingOff { until: now + delay, is_batch: false };
    }

    /// Ends the leadership, because another pod leads or this one has to start over.
    fn resign(&mut self, reason: String, effects: &mut Vec<Effect>) {
        if let LeaderState::Rollout(rollout) = &mut self.state {
            effects.extend(rollout.cancel());
        }
        self.state = LeaderState::Ended;
        effects.push(Effect::Resign(reason));
    }
}

/// Returns the pods that are out of the view, and the reasons.
fn cordoned(states: &States) -> impl Iterator<Item = (&PodId, &String)> {
    states.iter().filter_map(|(id, state)| Some((id, state.cordon.as_ref()?)))
}

/// Returns the view with the roles that its pods have published.
fn with_roles(view: &View, states: &States) -> View {
    let mut view = view.clone();
    for (id, pod) in &mut view.pods {
        let role = states.get(id).and_then(|state| state.role.as_deref()).unwrap_or_default();
        if pod.role() != role {
            *pod = Arc::new(pod.with_role(role));
        }
    }
    view
}
