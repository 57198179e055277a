//! Applies the effects of the machine, for as long as a leadership lasts.

use std::{collections::BTreeMap, future::pending, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use ochopod_model::{ContentDigest, Dependency, PodId, PostedView, View, status::LeaderReport};
use ochopod_plugin::{ModelSettings, PluginSlot};
use ochopod_store::{
    ConfigurationEvent, ConfigurationKeeper, CoordError, Leadership, Membership, MembershipHandle, Observation,
};
use ochopod_telemetry::{Metrics, RolloutResult};
use ochopod_timing::sleep_until;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    event::{Effect, Event, PeerReply, PeerRequest, RolloutTask},
    machine::LeaderMachine,
    peer_client::{PeerClient, PeerTransport},
    view_encoding::PeerViews,
};

/// Longest time limit of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest time from the reply of a pod to the report of it.
const REPORT_DELAY: Duration = Duration::from_millis(20);
/// Delay before the cluster is watched again after part of it could not be read.
const WATCH_RETRY: Duration = Duration::from_secs(5);

/// Runs the callbacks of the plugin's model.
pub trait ClusterModel: Send + Sync + 'static {
    /// Returns the status that the model reports about the cluster, or the error.
    fn probe<'a>(&'a self, view: &'a PostedView, limit: Duration) -> BoxFuture<'a, Result<Option<String>, String>>;

    /// Does the model's work for the cluster.
    fn reconcile<'a>(&'a self, view: &'a PostedView, limit: Duration) -> BoxFuture<'a, Result<(), String>>;

    /// Returns the model's settings if they may change; else those of the actor stay in force.
    fn settings(&self) -> Option<ModelSettings> {
        None
    }
}

/// The model of the plugin in force. A callback that failed is repeated if its plugin was replaced or rolled back meanwhile.
impl ClusterModel for PluginSlot {
    fn probe<'a>(&'a self, view: &'a PostedView, limit: Duration) -> BoxFuture<'a, Result<Option<String>, String>> {
        async move {
            loop {
                let call = self.begin("probe");
                let result = call.plugin().model().probe(view, limit).await;
                if !call.end(result.as_ref().err()) {
                    return result.map_err(|error| error.to_string());
                }
            }
        }
        .boxed()
    }

    fn reconcile<'a>(&'a self, view: &'a PostedView, limit: Duration) -> BoxFuture<'a, Result<(), String>> {
        async move {
            loop {
                let call = self.begin("reconcile");
                let result = call.plugin().model().reconcile(view, limit).await;
                if !call.end(result.as_ref().err()) {
                    return result.map_err(|error| error.to_string());
                }
            }
        }
        .boxed()
    }

    fn settings(&self) -> Option<ModelSettings> {
        Some(self.current().settings().model.clone())
    }
}

/// One step of the machine of a leadership, before its effects are applied.
#[derive(Debug)]
pub struct Step<'a> {
    /// Epoch of the leadership.
    pub epoch: i64,
    /// The event that was taken.
    pub event: &'a Event,
    /// The machine after the event.
    pub machine: &'a LeaderMachine,
    /// Effects to execute.
    pub effects: &'a [Effect],
}

/// Called with each step of a leader.
pub type StepObserver = Box<dyn Fn(&Step<'_>) + Send + Sync>;

/// The leader of a pod: idle while another pod leads.
pub struct LeaderActor {
    /// This pod.
    pub id: PodId,
    /// The clusters that it depends on.
    pub dependencies: Vec<Dependency>,
    /// Settings of the plugin's model.
    pub settings: ModelSettings,
    /// Connections to the other pods.
    pub transport: Arc<dyn PeerTransport>,
    /// Source of leaderships.
    pub member: MembershipHandle,
    /// The plugin's model.
    pub model: Arc<dyn ClusterModel>,
    /// Receives the report about the cluster.
    pub report: watch::Sender<LeaderReport>,
    /// Counts rollouts.
    pub metrics: Arc<Metrics>,
    /// Called with each step of the machine, for tests that verify them.
    pub observer: Option<StepObserver>,
}

/// State that outlives a leadership.
#[derive(Default)]
struct CrossTermState {
    /// Posts of `ok`, whose replies nothing waits for.
    confirmations: JoinSet<()>,
    /// Number of the last request. A leadership that resumes after a suspension continues above it.
    last_number: u64,
}

/// Work in flight of one leadership. Dropping it stops all of it.
struct InFlight {
    leadership: Leadership,
    peers: PeerClient,
    /// The same connections with a separate limit: confirmations do not delay the next rollout.
    confirming: PeerClient,
    posts: JoinSet<PostResult>,
    aborts: BTreeMap<u64, AbortHandle>,
    views: PeerViews,
    configuration: ConfigurationKeeper,
    probe: Option<BoxFuture<'static, Result<Option<String>, String>>>,
    reconciliation: Option<BoxFuture<'static, Result<(), String>>>,
    lock: Option<BoxFuture<'static, Result<bool, String>>>,
}

/// The reply to a request, and the view that its pod holds now.
struct PostResult {
    call: u64,
    pod: PodId,
    reply: PeerReply,
    held: Option<ContentDigest>,
}

/// Counts a rollout as abandoned if it is in flight when its leadership ends.
struct RolloutGuard<'a> {
    metrics: &'a Metrics,
    is_rolling_out: bool,
}

impl Drop for RolloutGuard<'_> {
    fn drop(&mut self) {
        if self.is_rolling_out {
            self.metrics.rollout(RolloutResult::Abandoned);
        }
    }
}

impl LeaderActor {
    /// Leads whenever the lock is held, until stopped.
    ///
    /// # Cancellation safety
    /// Dropping the future ends the leadership as a crash would: what was posted or written may still arrive.
    pub async fn run(self, stop: CancellationToken) {
        let mut membership = self.member.watch();
        let mut across_terms = CrossTermState::default();
        while !stop.is_cancelled() {
            let found = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                found = membership.wait_for(|m| m.leadership.is_some()) => match found {
                    Ok(found) => found.clone(),
                    Err(_) => return,
                },
            };
            let Some(leadership) = found.leadership.clone() else { continue };
            let epoch = leadership.epoch;
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = until_leadership_ended(membership.clone(), epoch) => tracing::info!(epoch, "leadership ended"),
                () = self.lead(leadership, &found, &mut across_terms) => {
                    self.report.send_replace(LeaderReport::default());
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => {}
                        () = self.resign(membership.clone(), epoch) => {}
                    }
                }
            }
            self.report.send_replace(LeaderReport::default());
        }
    }

    /// Returns the settings of the plugin in force.
    fn current_settings(&self) -> ModelSettings {
        self.model.settings().unwrap_or_else(|| self.settings.clone())
    }

    fn peers(&self) -> PeerClient {
        PeerClient::new(Arc::clone(&self.transport), self.current_settings().grace)
    }

    async fn resign(&self, membership: watch::Receiver<Membership>, epoch: i64) {
        self.member.resign(epoch).await;
        until_leadership_ended(membership, epoch).await;
    }

    /// Leads until the machine resigns.
    async fn lead(&self, leadership: Leadership, membership: &Membership, across_terms: &mut CrossTermState) {
        let epoch = leadership.epoch;
        tracing::info!(epoch, "leadership started");
        let mut machine =
            LeaderMachine::of(&self.current_settings(), &leadership, self.id.clone(), membership.reconnected_at);
        let (publish, mut observations) = watch::channel(None);
        let (publish_states, mut states) = watch::channel(None);
        let mut observing_states = Box::pin(leadership.observe_states(observations.clone(), publish_states));
        let (publish_reading, mut reading) = watch::channel(false);
        let mut observing = Box::pin(self.observe(&leadership, publish, publish_reading));
        let mut in_flight = InFlight::new(leadership.clone(), self.peers());
        let mut rollout = RolloutGuard { metrics: &self.metrics, is_rolling_out: false };
        let mut report_at = Some(Instant::now().into_std());
        loop {
            rollout.is_rolling_out = machine.is_rolling_out();
            if report_at.is_some_and(|at| at <= Instant::now().into_std()) {
                report_at = None;
                let report = machine.report();
                self.report.send_if_modified(|published| std::mem::replace(published, report.clone()) != report);
            }
            while across_terms.confirmations.try_join_next().is_some() {}
            let event = tokio::select! {
                biased;
                event = in_flight.next() => event,
                Some(observation) = next_value(&mut observations) => Event::Observation(observation),
                Some(states) = next_value(&mut states) => Event::States(states),
                Ok(()) = reading.changed() => Event::Reading(*reading.borrow_and_update()),
                () = sleep_until(machine.wake()) => Event::Tick,
                () = sleep_until(report_at) => continue,
                never = &mut observing => match never {},
                never = &mut observing_states => match never {},
            };
            let observed = self.observer.as_ref().map(|observer| (observer, event.clone()));
            if !rollout.is_rolling_out && machine.set_settings(self.current_settings()) {
                in_flight.set_peers(self.peers());
            }
            let now = Instant::now().into_std();
            // A report takes time in proportion to the pods, and so many replies come in a row.
            let report_by = if matches!(event, Event::Answered(..)) { now + REPORT_DELAY } else { now };
            report_at = Some(report_at.map_or(report_by, |at| at.min(report_by)));
            let effects = machine.step(event, now);
            if let Some((observer, event)) = &observed {
                observer(&Step { epoch, event, machine: &machine, effects: &effects });
            }
            for effect in effects {
                if let Effect::Resign(reason) = &effect {
                    tracing::warn!(reason, "resigning");
                    return;
                }
                self.apply_effect(effect, &mut in_flight, across_terms);
            }
        }
    }

    /// Publishes observations of the cluster for as long as the session lasts.
    async fn observe(
        &self,
        leadership: &Leadership,
        publish: watch::Sender<Option<Arc<Observation>>>,
        reading: watch::Sender<bool>,
    ) -> std::convert::Infallible {
        loop {
            let error = leadership.observe(self.dependencies.clone(), publish.clone(), reading.clone()).await;
            reading.send_replace(false);
            if error == CoordError::SessionLost {
                return pending().await;
            }
            tracing::warn!(%error, "cannot watch cluster, retrying");
            tokio::time::sleep(WATCH_RETRY).await;
        }
    }

    fn apply_effect(&self, effect: Effect, in_flight: &mut InFlight, across_terms: &mut CrossTermState) {
        match effect {
            Effect::Post(request) => {
                across_terms.last_number += 1;
                let (call, task) = (request.call, request.task);
                let post = in_flight.post(request, across_terms.last_number);
                if task == RolloutTask::Ok {
                    across_terms.confirmations.spawn(post.map(drop).in_current_span());
                } else {
                    let abort = in_flight.posts.spawn(post.in_current_span());
                    in_flight.aborts.insert(call, abort);
                }
            }
            Effect::Cancel(call) => {
                if let Some(abort) = in_flight.aborts.remove(&call) {
                    abort.abort();
                }
            }
            Effect::Write(write) => in_flight.configuration.submit(write),
            Effect::ReadLock => {
                in_flight.lock = Some(holds_lock(self.member.clone(), in_flight.leadership.epoch).boxed());
            }
            Effect::CountAbove(number) => across_terms.last_number = across_terms.last_number.max(number),
            Effect::Probe(view) => {
                let (view, model, limit) = self.model_call(view);
                in_flight.probe = Some(async move { model.probe(&view, limit).await }.boxed());
            }
            Effect::CancelProbe => in_flight.probe = None,
            Effect::Reconcile(view) => {
                let (view, model, limit) = self.model_call(view);
                in_flight.reconciliation = Some(async move { model.reconcile(&view, limit).await }.boxed());
            }
            Effect::CancelReconcile => in_flight.reconciliation = None,
            Effect::RolloutEnded(is_complete) => {
                self.metrics.rollout(if is_complete { RolloutResult::Completed } else { RolloutResult::Held });
            }
            Effect::Resign(_) => {}
        }
    }

    /// Returns what a callback of the model is called with.
    fn model_call(&self, view: Arc<View>) -> (PostedView, Arc<dyn ClusterModel>, Duration) {
        let limit = self.current_settings().probe_every.min(PROBE_TIMEOUT);
        (PostedView::new(self.id.clone(), view), Arc::clone(&self.model), limit)
    }
}

impl InFlight {
    fn new(leadership: Leadership, peers: PeerClient) -> Self {
        Self {
            configuration: ConfigurationKeeper::new(leadership.clone()),
            leadership,
            confirming: peers.with_own_limit(),
            peers,
            posts: JoinSet::new(),
            aborts: BTreeMap::new(),
            views: PeerViews::default(),
            probe: None,
            reconciliation: None,
            lock: None,
        }
    }

    /// Sends later requests with other limits.
    fn set_peers(&mut self, peers: PeerClient) {
        (self.confirming, self.peers) = (peers.with_own_limit(), peers);
    }

    /// Returns the exchange of a request. Requests in a row with the same view share its encoding.
    fn post(&mut self, request: PeerRequest, number: u64) -> impl Future<Output = PostResult> + Send + 'static {
        let encoded = self.views.encode(&request);
        let (call, epoch) = (request.call, self.leadership.epoch);
        let peers = if request.task == RolloutTask::Ok { self.confirming.clone() } else { self.peers.clone() };
        async move {
            let (pod, task) = (request.pod.clone(), request.task);
            let (reply, held) = peers.post(request, encoded, epoch, number).await;
            tracing::debug!(%pod, task = task.name(), %reply, "peer replied");
            PostResult { call, pod, reply, held }
        }
    }

    /// Returns the answer to the request whose task failed, if it is waited for.
    fn failed(&self, error: &JoinError) -> Option<(u64, PeerReply)> {
        let (call, _) = self.aborts.iter().find(|(_, abort)| abort.id() == error.id())?;
        tracing::error!(call, %error, "request task failed");
        Some((*call, PeerReply::Unreachable("the task of the request failed".to_owned())))
    }

    /// Waits for the next work that finishes.
    ///
    /// # Cancellation safety
    /// Nothing is lost when it is dropped.
    async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.posts.join_next() => {
                    let answered = match ended {
                        Ok(PostResult { call, pod, reply, held }) => {
                            self.views.replied(pod, held);
                            Some((call, reply))
                        }
                        // Cancelled requests are no longer waited for.
                        Err(error) => self.failed(&error),
                    };
                    if let Some((call, reply)) = answered && self.aborts.remove(&call).is_some() {
                        return Event::Answered(call, reply);
                    }
                }
                event = self.configuration.next() => return match event {
                    ConfigurationEvent::Read(last) => {
                        self.views.assume(&last.view);
                        Event::Stored(last.hash, last.view)
                    }
                    ConfigurationEvent::Written(result) => Event::Written(result),
                },
                held = ready(&mut self.lock) => {
                    self.lock = None;
                    return Event::LockRead(held);
                }
                probed = ready(&mut self.probe) => {
                    self.probe = None;
                    return Event::Probed(probed);
                }
                reconciled = ready(&mut self.reconciliation) => {
                    self.reconciliation = None;
                    return Event::Reconciled(reconciled);
                }
            }
        }
    }
}

/// Returns whether the leadership of this epoch holds the lock, according to the store.
async fn holds_lock(member: MembershipHandle, epoch: i64) -> Result<bool, String> {
    let holder = member.lock_holder().await.map_err(|error| error.to_string())?;
    Ok(holder.is_some_and(|holder| holder.epoch == epoch))
}

/// Waits for the future, if there is one; else indefinitely.
async fn ready<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn next_value<T>(published: &mut watch::Receiver<Option<Arc<T>>>) -> Option<Arc<T>> {
    if published.changed().await.is_err() {
        return pending().await;
    }
    published.borrow_and_update().clone()
}

/// Completes when this leadership is no longer the current one.
async fn until_leadership_ended(mut membership: watch::Receiver<Membership>, epoch: i64) {
    // An error means that the membership actor is gone, and the leadership with it.
    let _ = membership.wait_for(|m| m.leadership.as_ref().is_none_or(|leadership| leadership.epoch != epoch)).await;
}

#[cfg(test)]
mod tests;
