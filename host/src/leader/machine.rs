//! The pure machine of one leadership: `(state, event, now) -> effects`.
//!
//! A machine lives as long as one uninterrupted leadership: a suspended session drops it, and a new one looks anew when
//! the lock was found to be still held.
//!
//! ```text
//!              first look                    digest ≠ hash, or pending
//!   looking ───────────────▶ clean ◀──────────────────────────────────▶ dirty
//!                              ▲              back in time                 │ damper
//!                              │ committed                                 ▼
//!                              └───────────────────────────────────── rollout ◀──▶ holding
//!                                                                          refused / next try
//! ```

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    rollout::Rollout,
    settle::{Present, Settling},
};
use crate::{
    backoff::Backoff,
    cluster::{Digest, PodId, Stored, View},
    coord::World,
    plugin::ModelSettings,
    status::{LeaderReport, Role},
};

/// Changes are gathered at least this long.
const GATHERING: Duration = Duration::from_millis(10);
/// The first probe comes this soon after a configuration, at the latest.
const FIRST_PROBE: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// A control task that a leader posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// `check`
    Check,
    /// `off`
    Off,
    /// `on`
    On,
    /// `ok`, of which no answer is awaited.
    Ok,
}

impl Task {
    /// As in the path of a request.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Off => "off",
            Self::On => "on",
            Self::Ok => "ok",
        }
    }
}

/// What a pod answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A status code, and the text of the error if it is one.
    Code(u16, String),
    /// Another pod lives at the address. The one that is meant is on its way out, or registered a wrong address.
    Stranger(String),
    /// No answer, and why.
    Unreachable(String),
}

/// A request to one pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Post {
    /// Names the request until it is answered or cancelled.
    pub call: u64,
    /// The pod.
    pub pod: PodId,
    /// Where its control API is.
    pub address: String,
    /// What to do.
    pub task: Task,
    /// The configuration it belongs to.
    pub generation: Digest,
    /// The view to send: one value for all pods of a phase.
    pub view: Arc<View>,
}

/// A write to the store, as one commit with a check on the lock.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// A configuration of this generation begins.
    Pending(Digest),
    /// It is complete: the new hash, and the view whose pods are the new snapshot.
    Commit(Digest, Arc<View>),
    /// The snapshot alone: pods have died, or the previous leader's snapshot went with it.
    Snapshot(Arc<View>),
}

/// What came of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It is there.
    Done,
    /// It may or may not be there.
    Unknown(String),
    /// The lock is not held any more.
    Fenced,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// What the store said when the leadership began: `hash` and `view`.
    Stored(Stored, View),
    /// What is to be configured changed, or was seen for the first time.
    World(Arc<World>),
    /// A pod answered.
    Answered(u64, Answer),
    /// A write ended.
    Written(Written),
    /// The probe ended.
    Probed(Result<Option<String>, String>),
    /// Time passed: `wake` has come.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send a request and report `Answered` (not for `ok`).
    Post(Post),
    /// Do not wait for this request any more.
    Cancel(u64),
    /// Write and report `Written`. One at a time.
    Write(Write),
    /// Run the model's probe and report `Probed`.
    Probe(Arc<View>),
    /// Stop the probe; nothing is reported for it.
    CancelProbe,
    /// Somebody else leads: give up and contend anew. The last effect.
    Resign(String),
    /// A configuration ended: for the metrics.
    Ended(bool),
}

#[derive(Debug)]
pub(super) enum State {
    Looking,
    Clean { probe: Instant, probing: bool },
    Dirty { due: Instant },
    Rollout(Rollout),
    Holding { until: Instant },
    Over,
}

/// State of one leadership.
#[derive(Debug)]
pub struct Machine {
    pub(super) settings: ModelSettings,
    pub(super) state: State,
    pub(super) settling: Settling,
    world: Option<Arc<World>>,
    stored: Option<Stored>,
    /// The present view and its digest, when it may be compared.
    pub(super) present: Option<(Present, Digest)>,
    /// The pods in the snapshot, as far as this leadership wrote it.
    pub(super) snapshot: Option<BTreeSet<PodId>>,
    pub(super) writing_snapshot: bool,
    /// When a snapshot that could not be written is tried again.
    pub(super) snapshot_due: Option<Instant>,
    pub(super) retries: Backoff,
    /// Pods found dead that may not say so yet in their registration, until the view changes.
    pub(super) excluded: BTreeSet<PodId>,
    /// The last refusal, until a configuration succeeds.
    pub(super) refusal: Option<String>,
    probed: String,
    pub(super) calls: u64,
}

impl Machine {
    /// A leadership that has not looked yet. `patience` is twice the session timeout; `settle_until` is there when the
    /// pod has come back after a lost session or an interrupted connection.
    #[must_use]
    pub fn new(settings: ModelSettings, patience: Duration, settle_until: Option<Instant>) -> Self {
        Self {
            settings,
            state: State::Looking,
            settling: Settling::new(patience, settle_until),
            world: None,
            stored: None,
            present: None,
            snapshot: None,
            writing_snapshot: false,
            snapshot_due: None,
            retries: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            excluded: BTreeSet::new(),
            refusal: None,
            probed: String::new(),
            calls: 0,
        }
    }

    /// Takes an event; returns what is to be done, in order.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        let observed = matches!(event, Event::Stored(..) | Event::World(_) | Event::Tick);
        match event {
            Event::Stored(hash, view) => {
                self.settling.stored(&hash, view);
                self.stored = Some(hash);
            }
            Event::World(world) => self.world = Some(world),
            Event::Answered(call, answer) => self.answered(call, answer, now, &mut effects),
            Event::Written(result) => self.written(result, now, &mut effects),
            Event::Probed(result) => self.probed(result, now),
            Event::Tick => {}
        }
        let changed = observed && self.observe(now);
        if !matches!(self.state, State::Over) {
            self.look(changed, now, &mut effects);
        }
        effects
    }

    /// When the machine wants a `Tick`, at the latest.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Clean { probe, probing } => {
                let snapshot = self.snapshot_due.filter(|_| !self.writing_snapshot);
                Some(*probe).filter(|_| !probing).into_iter().chain(snapshot).min()
            }
            State::Dirty { due } => Some(*due),
            State::Holding { until } => Some(*until),
            _ => None,
        };
        let settling = self.world.as_ref().and_then(|_| self.settling.wake());
        own.into_iter().chain(settling).min()
    }

    /// What the pod says about its cluster.
    #[must_use]
    pub fn report(&self) -> LeaderReport {
        let refusal = self.refusal.as_deref();
        let (role, status, due) = match &self.state {
            State::Looking if self.settling.is_waiting() => {
                (Role::Pending, "* waiting for the pods that were configured last".to_owned(), None)
            }
            State::Looking => (Role::Pending, "* looking at the cluster".to_owned(), None),
            State::Clean { .. } => (Role::Leader, self.left_out().unwrap_or_else(|| self.probed.clone()), None),
            State::Dirty { due } => (Role::Pending, "* configuration".to_owned(), Some(*due)),
            State::Holding { until } => {
                (Role::Pending, format!("* {}, next try", refusal.unwrap_or("holding")), Some(*until))
            }
            State::Rollout(rollout) => {
                let last = refusal.map(|text| format!(" (last try: {text})")).unwrap_or_default();
                (Role::Configuring, format!("* configuring {} pods{last}", rollout.size()), None)
            }
            State::Over => (Role::Follower, String::new(), None),
        };
        LeaderReport { role, status, due }
    }

    fn left_out(&self) -> Option<String> {
        let (present, _) = self.present.as_ref()?;
        let names: Vec<&str> = present.refused.iter().map(PodId::as_str).collect();
        (!names.is_empty())
            .then(|| format!("* left out, since the view would exceed what the store can hold: {}", names.join(", ")))
    }

    /// Takes in what may be different now. True when the present view is another one.
    fn observe(&mut self, now: Instant) -> bool {
        let before = self.present.take().map(|(_, digest)| digest);
        let Some(world) = &self.world else { return false };
        let Some(present) = self.settling.present(world, now) else { return false };
        let digest = Digest::of(&present.view);
        let changed = before.as_ref() != Some(&digest);
        self.present = Some((present, digest));
        if changed {
            self.excluded.clear();
            self.retries.reset();
        }
        changed
    }

    /// Compares what is with what was configured, and begins what is due.
    fn look(&mut self, changed: bool, now: Instant, effects: &mut Vec<Effect>) {
        let Some((_, digest)) = &self.present else { return };
        let Some(stored) = &self.stored else { return };
        let clean = matches!(stored, Stored::Done(done) if done == digest);
        let soon = now + self.settings.damper.max(GATHERING);
        match &mut self.state {
            State::Looking | State::Clean { .. } if !clean => self.dirty(soon, effects),
            State::Looking => self.clean(now, effects),
            State::Dirty { .. } if clean => self.clean(now, effects),
            State::Dirty { due } if *due <= now => self.begin(now, effects),
            State::Holding { until } => {
                if changed {
                    *until = soon.min(*until);
                }
                if clean {
                    self.clean(now, effects);
                } else if *until <= now {
                    self.begin(now, effects);
                }
            }
            State::Clean { .. } => self.while_clean(now, effects),
            State::Rollout(_) if changed => self.drop_the_departed(now, effects),
            State::Rollout(_) | State::Dirty { .. } | State::Over => {}
        }
    }

    fn dirty(&mut self, due: Instant, effects: &mut Vec<Effect>) {
        if matches!(self.state, State::Clean { probing: true, .. }) {
            effects.push(Effect::CancelProbe);
        }
        tracing::info!("the cluster changed, configuring after the damper");
        self.state = State::Dirty { due };
    }

    fn clean(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.refusal = None;
        self.state = State::Clean { probe: now + self.settings.probe_every.min(FIRST_PROBE), probing: false };
        self.while_clean(now, effects);
    }

    /// The snapshot follows deaths, and the probe its schedule.
    fn while_clean(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some((present, _)) = &self.present else { return };
        let mut live = present.view.clone();
        live.pods.retain(|id, pod| !pod.is_dead() && !self.excluded.contains(id));
        let names: BTreeSet<PodId> = live.pods.keys().cloned().collect();
        let live = Arc::new(live);
        if self.snapshot.as_ref() == Some(&names) {
            self.snapshot_due = None;
        } else if !self.writing_snapshot && self.snapshot_due.is_none_or(|due| due <= now) {
            self.snapshot_due = None;
            self.writing_snapshot = true;
            self.snapshot = Some(names);
            effects.push(Effect::Write(Write::Snapshot(Arc::clone(&live))));
        }
        if let State::Clean { probe, probing } = &mut self.state
            && *probe <= now
            && !*probing
        {
            *probing = true;
            effects.push(Effect::Probe(live));
        }
    }

    fn probed(&mut self, result: Result<Option<String>, String>, now: Instant) {
        let State::Clean { probe, probing } = &mut self.state else { return };
        *probing = false;
        *probe = now + self.settings.probe_every;
        self.probed = match result {
            Ok(text) => text.unwrap_or_default(),
            Err(reason) => format!("* {reason}"),
        };
    }

    /// The configuration did not go through: try again later.
    pub(super) fn hold(&mut self, refusal: String, now: Instant, effects: &mut Vec<Effect>) {
        let delay = self.retries.delay().max(self.settings.damper);
        tracing::warn!(refusal, "holding the configuration, next try in {:.1} s", delay.as_secs_f64());
        effects.push(Effect::Ended(false));
        self.refusal = Some(refusal);
        self.state = State::Holding { until: now + delay };
    }

    /// Somebody else leads.
    pub(super) fn resign(&mut self, reason: String, effects: &mut Vec<Effect>) {
        self.state = State::Over;
        effects.push(Effect::Resign(reason));
    }

    /// The configuration went through.
    pub(super) fn committed(&mut self, digest: Digest, view: &Arc<View>, now: Instant, effects: &mut Vec<Effect>) {
        tracing::info!(pods = view.pods.len(), hash = %digest, "configuration complete");
        effects.push(Effect::Ended(true));
        self.snapshot = Some(view.pods.keys().cloned().collect());
        self.settling.configured(View::clone(view));
        self.stored = Some(Stored::Done(digest));
        self.refusal = None;
        self.retries.reset();
        self.probed.clear();
        // A change that came meanwhile starts the damper anew, in the look that follows.
        self.state = State::Clean { probe: now + self.settings.probe_every.min(FIRST_PROBE), probing: false };
    }

    /// A configuration is under way and not known to have ended.
    pub(super) fn is_pending(&mut self, generation: Digest) {
        self.stored = Some(Stored::Pending(generation));
    }

    /// A configuration reached those who were there, but some left meanwhile: it stays pending, and another one follows.
    pub(super) fn incomplete(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        tracing::info!("pods left while the cluster was being configured, configuring again after the damper");
        effects.push(Effect::Ended(false));
        self.state = State::Dirty { due: now + self.settings.damper.max(GATHERING) };
    }
}
