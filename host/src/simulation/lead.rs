//! One pod's part as a leader: its machine, for as long as a leadership lasts.
//!
//! What the leader's actor does over HTTP, this does over the simulated network; store and election are the real ones.

use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{
    FutureExt, StreamExt,
    future::{AbortHandle, Aborted, BoxFuture, OptionFuture, abortable},
    stream::FuturesUnordered,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    ledger::Ledger,
    network::{Network, request},
    weather::Weather,
};
use crate::{
    cluster::{ClusterName, Dependency, PodId, Stored, View},
    coord::{self, Leadership, Member, Membership, World, layout::Layout},
    leader::{Answer, Effect, Event, Task, Write, Written, ended, machine, read_stored, whole_seconds, write},
    plugin::ModelSettings,
    wake::until,
};

pub(super) struct Leader {
    pub(super) id: PodId,
    pub(super) cluster: ClusterName,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) settings: ModelSettings,
    pub(super) member: Member,
    pub(super) address: String,
    pub(super) network: Network,
    pub(super) weather: Weather,
    pub(super) ledger: Ledger,
    /// Requests so far.
    pub(super) posted: AtomicU64,
    /// Confirmations, which outlive the leadership that posts them.
    pub(super) confirm: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
}

/// What one leadership has under way.
struct Activities {
    leadership: Leadership,
    posts: FuturesUnordered<BoxFuture<'static, Result<(u64, Answer), Aborted>>>,
    aborts: BTreeMap<u64, AbortHandle>,
    writes: VecDeque<Write>,
    writing: Option<BoxFuture<'static, Written>>,
    probe: BoxFuture<'static, ()>,
    stored: BoxFuture<'static, (Stored, View)>,
}

impl Leader {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut membership = self.member.watch();
        while !stop.is_cancelled() {
            let found = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                found = membership.wait_for(|m| m.leadership.is_some()) => match found {
                    Ok(found) => found.clone(),
                    Err(_) => return,
                },
            };
            let Some(lease) = found.leadership.clone() else { continue };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = ended(membership.clone(), lease.epoch) => {}
                () = self.lead(lease.clone(), &found) => {
                    self.ledger.follows(&self.id);
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => {}
                        () = self.give_up(membership.clone(), lease.epoch) => {}
                    }
                }
            }
            self.ledger.note(|| format!("{}: leads no more by {}", self.id, lease.epoch));
            self.ledger.follows(&self.id);
        }
    }

    async fn give_up(&self, membership: watch::Receiver<Membership>, epoch: i64) {
        self.member.resign(epoch).await;
        ended(membership, epoch).await;
    }

    /// Returns when somebody else was found to lead.
    async fn lead(&self, leadership: Leadership, found: &Membership) {
        let epoch = leadership.epoch;
        self.ledger.note(|| format!("{}: leads by {epoch}", self.id));
        let mut machine = machine(&self.settings, &leadership, found.back_since);
        let layout = Layout::new(&self.cluster);
        let (publish, mut world) = watch::channel(None);
        let (session, dependencies) = (Arc::clone(&leadership.session), self.dependencies.clone());
        let mut observing = Box::pin(coord::observe(session, self.cluster.clone(), dependencies, publish));
        let mut activities = Activities::new(leadership, layout.clone());
        loop {
            let event = tokio::select! {
                biased;
                event = activities.next(&layout) => event,
                Some(world) = seen(&mut world) => {
                    self.ledger.saw(&self.id, &world);
                    Event::World(world)
                }
                () = until(machine.wake()) => Event::Tick,
                _ = &mut observing => pending().await,
            };
            let ticked = event == Event::Tick;
            let effects = machine.step(event, Instant::now().into_std());
            let session = self.member.watch().borrow().state;
            self.ledger.led(&self.id, epoch, &machine, ticked, &effects, session);
            for effect in effects {
                if let Effect::Resign(_) = &effect {
                    return;
                }
                self.carry_out(effect, &mut activities);
            }
        }
    }

    fn carry_out(&self, effect: Effect, activities: &mut Activities) {
        match effect {
            Effect::Post(post) => {
                let (call, task, meant, address) = (post.call, post.task, post.pod.clone(), post.address.clone());
                let limit = whole_seconds(self.settings.grace);
                let number = self.posted.fetch_add(1, Ordering::Relaxed);
                let request = request(post, activities.leadership.epoch, number, limit);
                let posted = self.network.clone().post(self.address.clone(), address, meant, request);
                let posted = posted.map(move |answer| (call, answer));
                if task == Task::Ok {
                    // Nobody is left to confirm for when the pod is gone.
                    let _ = self.confirm.send(posted.map(drop).boxed());
                    return;
                }
                let (posted, abort) = abortable(posted);
                activities.aborts.insert(call, abort);
                activities.posts.push(posted.boxed());
            }
            Effect::Cancel(call) => {
                if let Some(abort) = activities.aborts.remove(&call) {
                    abort.abort();
                }
            }
            Effect::Write(write) => activities.writes.push_back(write),
            Effect::Probe(_) => activities.probe = sleep(self.weather.latency()).boxed(),
            Effect::CancelProbe => activities.probe = pending().boxed(),
            Effect::Ended(_) | Effect::Resign(_) => {}
        }
    }
}

impl Activities {
    fn new(leadership: Leadership, layout: Layout) -> Self {
        let reading = leadership.clone();
        Self {
            leadership,
            posts: FuturesUnordered::new(),
            aborts: BTreeMap::new(),
            writes: VecDeque::new(),
            writing: None,
            probe: pending().boxed(),
            stored: async move { read_stored(&reading, &layout).await }.boxed(),
        }
    }

    async fn next(&mut self, layout: &Layout) -> Event {
        loop {
            if self.writing.is_none()
                && let Some(next) = self.writes.pop_front()
            {
                self.writing = Some(write(self.leadership.clone(), layout.clone(), next).boxed());
            }
            tokio::select! {
                biased;
                Some(ended) = self.posts.next() => {
                    if let Ok((call, answer)) = ended && self.aborts.remove(&call).is_some() {
                        return Event::Answered(call, answer);
                    }
                }
                written = OptionFuture::from(self.writing.as_mut()), if self.writing.is_some() => {
                    self.writing = None;
                    if let Some(written) = written {
                        return Event::Written(written);
                    }
                }
                () = &mut self.probe => {
                    self.probe = pending().boxed();
                    return Event::Probed(Ok(None));
                }
                (hash, view) = &mut self.stored => {
                    self.stored = pending().boxed();
                    return Event::Stored(hash, view);
                }
            }
        }
    }
}

async fn seen(world: &mut watch::Receiver<Option<Arc<World>>>) -> Option<Arc<World>> {
    if world.changed().await.is_err() {
        return pending().await;
    }
    world.borrow_and_update().clone()
}
