//! One host with its pod, put together as in production; it can be frozen and it can crash.

use std::{
    future::pending,
    pin::Pin,
    sync::{Arc, Mutex, atomic::AtomicU64},
    task::{Context, Poll, Waker},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http_body_util::BodyExt as _;
use serde_json::{Map, json};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{lead::Leader, lock, network::Delivery, plan::Side, pod::Pod, world::Town};
use crate::{
    cluster::{ClusterName, Dependency, PodId, wire},
    control,
    coord::{Ensemble, Member},
    leader,
    lifecycle::{Fence, LifecycleHandle},
};

/// Submissions that may wait, as in production.
const QUEUE: usize = 64;

/// A host that can be frozen, as a stopped process is: time goes on without it.
#[derive(Debug, Clone, Default)]
pub(super) struct Freezer(Arc<Mutex<(bool, Option<Waker>)>>);

impl Freezer {
    pub(super) fn freeze(&self, frozen: bool) {
        let mut state = lock(&self.0);
        state.0 = frozen;
        if !frozen && let Some(waker) = state.1.take() {
            waker.wake();
        }
    }
}

/// A future that makes no progress while its host is frozen.
struct Freezable {
    inner: BoxFuture<'static, ()>,
    freezer: Freezer,
}

impl Future for Freezable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut state = lock(&self.freezer.0);
            state.1 = Some(cx.waker().clone());
            if state.0 {
                return Poll::Pending;
            }
        }
        self.inner.as_mut().poll(cx)
    }
}

/// A host, as the world sees it.
pub(super) struct Node {
    pub(super) id: PodId,
    pub(super) side: Side,
    pub(super) address: String,
    /// Its number at the store.
    pub(super) host: usize,
    pub(super) freezer: Freezer,
    pub(super) member: Member,
    pub(super) stop: CancellationToken,
    pub(super) force: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

impl Node {
    /// Starts a pod with this identity at this address.
    pub(super) fn start(town: &Town, side: Side, id: PodId, address: String) -> Self {
        let (access, host) = town.store.connect_host();
        let cluster = cluster(side);
        let (member, membership) =
            Member::start(Ensemble::Simulated(access), &cluster, id.clone(), registration(side, &address));
        let fence = Arc::new(Fence::new(member.clone()));
        let (submit, submissions) = mpsc::channel(QUEUE);
        let (confirm, confirmations) = mpsc::unbounded_channel();
        let settings = town.plan.model(side);
        let dependencies = settings.depends_on.iter().map(|name| Dependency::new(name, &cluster).unwrap()).collect();
        let leader = Leader {
            id: id.clone(),
            cluster,
            dependencies,
            settings,
            member: member.clone(),
            address: address.clone(),
            network: town.network.clone(),
            weather: town.weather.clone(),
            ledger: town.ledger.clone(),
            posted: AtomicU64::new(0),
            confirm,
        };
        let pod = Pod {
            id: id.clone(),
            settings: town.plan.lifecycle.clone(),
            pace: town.plan.pace,
            start: town.plan.start,
            fence: Arc::clone(&fence),
            member: member.clone(),
            weather: town.weather.clone(),
            processes: town.processes.clone(),
            ledger: town.ledger.clone(),
        };
        let deliveries = town.network.attach(&address);
        let (stop, force) = (CancellationToken::new(), CancellationToken::new());
        let (leave, leading) = (CancellationToken::new(), CancellationToken::new());
        // Each tells of its end by dropping its sender.
        let ((led, has_led), (lived, has_lived)) = (oneshot::channel::<()>(), oneshot::channel::<()>());
        let leads = leader.run(leading.clone()).map(|()| drop(led));
        let living = pod.run(submissions, leave.clone(), force.clone()).map(|()| drop(lived));
        let ending = {
            let (stop, force, member) = (stop.clone(), force.clone(), member.clone());
            async move {
                tokio::select! { biased; () = stop.cancelled() => {}, () = force.cancelled() => {} }
                leave.cancel();
                leading.cancel();
                unless_forced(&force, has_led.map(drop)).await;
                unless_forced(&force, member.step_down()).await;
                has_lived.map(drop).await;
                unless_forced(&force, member.leave()).await;
            }
        };
        let serving = serve(id.clone(), fence, LifecycleHandle::new(submit), deliveries);
        let inner = async move {
            let working = async {
                futures_util::join!(membership, leads, living);
                pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = ending => {}
                () = serving => {}
                () = post_all(confirmations) => {}
                () = working => {}
            }
        };
        let freezer = Freezer::default();
        let task = tokio::spawn(Freezable { inner: inner.boxed(), freezer: freezer.clone() });
        Self { id, side, address, host, freezer, member, stop, force, task }
    }
}

/// The whole name of a cluster.
pub(super) fn cluster(side: Side) -> ClusterName {
    ClusterName::new("sim", side.name()).unwrap()
}

fn registration(side: Side, address: &str) -> Map<String, serde_json::Value> {
    let (ip, port) = address.split_once(':').unwrap();
    let fields = json!({
        "namespace": "sim", "cluster": side.name(), "ip": ip, "port": port, "ports": {}, "status": "",
    });
    fields.as_object().cloned().unwrap()
}

async fn unless_forced(force: &CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! { biased; () = work => {}, () = force.cancelled() => {} }
}

/// The control API: everything from where a request is understood.
async fn serve(
    id: PodId,
    fence: Arc<Fence>,
    lifecycle: LifecycleHandle,
    mut deliveries: mpsc::UnboundedReceiver<Delivery>,
) {
    let mut answering = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(Delivery { meant, request, reply }) = deliveries.recv() => {
                let (id, fence, lifecycle) = (&id, &fence, &lifecycle);
                answering.push(async move {
                    let answer = control::ask(id, fence, lifecycle, meant.as_ref(), request, Instant::now()).await;
                    let (code, stranger) = (answer.status().as_u16(), answer.headers().contains_key(wire::KEY));
                    let body = answer.into_body().collect().await.unwrap().to_bytes();
                    // Whoever asked may have hung up.
                    let _ = reply.send(leader::answer(code, stranger, &body));
                });
            }
            Some(()) = answering.next() => {}
        }
    }
}

/// Carries out what nobody waits for.
async fn post_all(mut posts: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>) {
    let mut posting = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(post) = posts.recv() => posting.push(post),
            Some(()) = posting.next() => {}
            else => pending().await,
        }
    }
}
