//! Carries out what the machine decides, for as long as a leadership lasts.

use std::{collections::BTreeMap, collections::VecDeque, future::pending, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Answer, Effect, Event, Machine, Post, Task, Write, Written,
    peer::{Peers, Shared},
    store,
};
use crate::{
    cluster::{ClusterName, Dependency, PodId, PostedView, Stored, View},
    coord::{self, CoordError, Coordination, Leadership, Member, Membership, World, layout::Layout},
    plugin::{Model, ModelSettings},
    settings::Access,
    status::{LeaderReport, Role},
    telemetry::{Metrics, Rollout},
    wake::until,
};

/// A probe may take this long, at the most.
const LONGEST_PROBE: Duration = Duration::from_mins(1);
/// How long to wait before the cluster is watched again, when something in it may not be read.
const WATCH_AGAIN: Duration = Duration::from_secs(5);
/// How long to wait before the store is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// One pod's part as a leader: idle while another leads.
pub struct Leader {
    /// The own pod.
    pub id: PodId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// What the cluster depends on.
    pub dependencies: Vec<Dependency>,
    /// How it is configured.
    pub settings: ModelSettings,
    /// How it shows its peers that it may ask them.
    pub access: Access,
    /// Where leadership comes from.
    pub member: Member,
    /// The plugin's model.
    pub model: Arc<Model>,
    /// What is said about it.
    pub report: watch::Sender<LeaderReport>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// What outlives a leadership.
#[derive(Default)]
struct Lasting {
    /// Confirmations: the configuration is done.
    confirmations: JoinSet<()>,
    /// Requests so far. A leadership that resumes after a suspension counts on.
    posted: u64,
}

/// What one leadership has under way. Dropping it stops all of it.
struct Activities {
    leadership: Leadership,
    layout: Layout,
    peers: Peers,
    /// The same connections with places of their own: confirmations take none from the next rollout.
    confirming: Peers,
    posts: JoinSet<(u64, Answer)>,
    aborts: BTreeMap<u64, AbortHandle>,
    body: Option<Shared>,
    writes: VecDeque<Write>,
    writing: Option<BoxFuture<'static, Written>>,
    probe: Option<BoxFuture<'static, Result<Option<String>, String>>>,
    stored: BoxFuture<'static, (Stored, View)>,
}

/// Counts a rollout that is under way when its leadership ends.
struct UnderWay<'a> {
    metrics: &'a Metrics,
    rolling_out: bool,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.rolling_out {
            self.metrics.rollout(Rollout::Abandoned);
        }
    }
}

impl Leader {
    /// Leads whenever the lock is held, until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut membership = self.member.watch();
        let mut lasting = Lasting::default();
        while !stop.is_cancelled() {
            let leadership = tokio::select! {
                () = stop.cancelled() => return,
                found = membership.wait_for(|m| m.leadership.is_some()) => match found {
                    Ok(found) => found.clone(),
                    Err(_) => return,
                },
            };
            let Some(lease) = leadership.leadership.clone() else { continue };
            tokio::select! {
                () = stop.cancelled() => {}
                () = ended(membership.clone(), lease.epoch) => tracing::info!(epoch = lease.epoch, "the leadership ended"),
                () = self.lead(lease.clone(), &leadership, &mut lasting) => {
                    self.report.send_replace(LeaderReport::default());
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = self.give_up(membership.clone(), lease.epoch) => {}
                    }
                }
            }
            self.report.send_replace(LeaderReport::default());
        }
    }

    async fn give_up(&self, membership: watch::Receiver<Membership>, epoch: i64) {
        self.member.resign(epoch).await;
        ended(membership, epoch).await;
    }

    /// Returns when somebody else was found to lead.
    async fn lead(&self, leadership: Leadership, membership: &Membership, lasting: &mut Lasting) {
        tracing::info!(epoch = leadership.epoch, "leading the cluster");
        let mut machine = machine(&self.settings, &leadership, membership.back_since);
        let mut activities = Activities::new(leadership.clone(), Layout::new(&self.cluster), self.peers());
        let (publish, mut world) = watch::channel(None);
        let mut observing = Box::pin(self.observe(Arc::clone(&leadership.session), publish));
        let mut rollout = UnderWay { metrics: &self.metrics, rolling_out: false };
        loop {
            let report = machine.report();
            rollout.rolling_out = report.role == Role::Configuring;
            self.report.send_if_modified(|published| std::mem::replace(published, report.clone()) != report);
            while lasting.confirmations.try_join_next().is_some() {}
            let event = tokio::select! {
                event = activities.next() => event,
                Some(world) = seen(&mut world) => Event::World(world),
                () = until(machine.wake()) => Event::Tick,
                never = &mut observing => match never {},
            };
            for effect in machine.step(event, Instant::now().into_std()) {
                if let Effect::Resign(reason) = &effect {
                    tracing::warn!(reason, "resigning");
                    return;
                }
                self.carry_out(effect, &mut activities, lasting);
            }
        }
    }

    fn peers(&self) -> Peers {
        Peers::new(self.settings.grace, &self.access)
    }

    /// Publishes the world for as long as the session lasts.
    async fn observe(
        &self,
        session: Arc<dyn Coordination>,
        publish: watch::Sender<Option<Arc<World>>>,
    ) -> std::convert::Infallible {
        loop {
            let (own, dependencies) = (self.cluster.clone(), self.dependencies.clone());
            let error = coord::observe(Arc::clone(&session), own, dependencies, publish.clone()).await;
            if error == CoordError::SessionLost {
                return pending().await;
            }
            tracing::warn!(%error, "cannot watch the cluster, trying again");
            tokio::time::sleep(WATCH_AGAIN).await;
        }
    }

    fn carry_out(&self, effect: Effect, activities: &mut Activities, lasting: &mut Lasting) {
        match effect {
            Effect::Post(post) => {
                lasting.posted += 1;
                let (call, task) = (post.call, post.task);
                let request = activities.request(post, lasting.posted);
                if task == Task::Ok {
                    lasting.confirmations.spawn(request.map(drop));
                } else {
                    let abort = activities.posts.spawn(request);
                    activities.aborts.insert(call, abort);
                }
            }
            Effect::Cancel(call) => {
                if let Some(abort) = activities.aborts.remove(&call) {
                    abort.abort();
                }
            }
            Effect::Write(write) => activities.writes.push_back(write),
            Effect::Probe(view) => {
                let view = PostedView { key: self.id.clone(), view: View::clone(&view) };
                let model = Arc::clone(&self.model);
                let limit = self.settings.probe_every.min(LONGEST_PROBE);
                let probe = async move { model.probe(&view, limit).await.map_err(|error| error.to_string()) };
                activities.probe = Some(probe.boxed());
            }
            Effect::CancelProbe => activities.probe = None,
            Effect::Ended(well) => self.metrics.rollout(if well { Rollout::Completed } else { Rollout::Held }),
            Effect::Resign(_) => {}
        }
    }
}

impl Activities {
    fn new(leadership: Leadership, layout: Layout, peers: Peers) -> Self {
        let (reading, at) = (leadership.clone(), layout.clone());
        Self {
            leadership,
            layout,
            confirming: peers.with_own_places(),
            peers,
            posts: JoinSet::new(),
            aborts: BTreeMap::new(),
            body: None,
            writes: VecDeque::new(),
            writing: None,
            probe: None,
            stored: async move { read_stored(&reading, &at).await }.boxed(),
        }
    }

    /// A request, its body shared with those before it that send the same view.
    fn request(&mut self, post: Post, number: u64) -> impl Future<Output = (u64, Answer)> + Send + 'static {
        let body = match self.body.take().filter(|body| body.is_of(&post.view)) {
            Some(body) => body,
            None => Shared::new(Arc::clone(&post.view)),
        };
        self.body = Some(body.clone());
        let (call, epoch) = (post.call, self.leadership.epoch);
        let peers = if post.task == Task::Ok { self.confirming.clone() } else { self.peers.clone() };
        async move {
            let (pod, task) = (post.pod.clone(), post.task);
            let answer = peers.post(post, body, epoch, number).await;
            tracing::debug!(%pod, task = task.name(), ?answer, "answered");
            (call, answer)
        }
    }

    /// The next thing that ends.
    ///
    /// # Cancellation safety
    /// Nothing is lost when it is dropped.
    async fn next(&mut self) -> Event {
        loop {
            if self.writing.is_none()
                && let Some(write) = self.writes.pop_front()
            {
                self.writing = Some(store::write(self.leadership.clone(), self.layout.clone(), write).boxed());
            }
            tokio::select! {
                Some(ended) = self.posts.join_next() => {
                    if let Ok((call, answer)) = ended && self.aborts.remove(&call).is_some() {
                        return Event::Answered(call, answer);
                    }
                }
                written = ready(&mut self.writing) => {
                    self.writing = None;
                    return Event::Written(written);
                }
                probed = ready(&mut self.probe) => {
                    self.probe = None;
                    return Event::Probed(probed);
                }
                (hash, view) = &mut self.stored => {
                    self.stored = pending().boxed();
                    return Event::Stored(hash, view);
                }
            }
        }
    }
}

/// The machine of a leadership. It settles first when the pod has just come back to the store.
pub(crate) fn machine(
    settings: &ModelSettings,
    leadership: &Leadership,
    back_since: Option<std::time::Instant>,
) -> Machine {
    let patience = 2 * leadership.session.timeout();
    Machine::new(settings.clone(), patience, back_since.map(|since| since + patience))
}

/// The future's value when there is one; else never.
async fn ready<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn seen(world: &mut watch::Receiver<Option<Arc<World>>>) -> Option<Arc<World>> {
    if world.changed().await.is_err() {
        return pending().await;
    }
    world.borrow_and_update().clone()
}

/// Completes when this leadership is not the present one any more.
pub(crate) async fn ended(mut membership: watch::Receiver<Membership>, epoch: i64) {
    // An error means that the membership actor is gone, and the leadership with it.
    let _ = membership.wait_for(|m| m.leadership.as_ref().is_none_or(|lease| lease.epoch != epoch)).await;
}

pub(crate) async fn read_stored(leadership: &Leadership, layout: &Layout) -> (Stored, View) {
    loop {
        match store::last_configuration(leadership, layout).await {
            Ok(stored) => return stored,
            Err(CoordError::SessionLost) => return pending().await,
            Err(error) => {
                tracing::warn!(%error, "cannot read the last configuration, trying again");
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
}
