//! One host with its pod, put together as in production. It can be paused and it can crash.

use std::{
    future::pending,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http_body_util::BodyExt as _;
use ochopod_client::Reply;
use ochopod_control::{self as control, PodViews};
use ochopod_leader::LeaderActor;
use ochopod_lifecycle::{Fence, LifecycleHandle};
use ochopod_model::{CAPABILITIES, ClusterName, DIFFERENCES, Dependency, PodId, status::LeaderReport};
use ochopod_store::{MembershipHandle, StoreBackend};
use serde_json::{Map, json};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    leader::{self, SimModel, SimTransport},
    lifecycle::SimLifecycle,
    lock,
    network::{Delivery, Message},
    plan::{ClusterSide, Plan},
    run::SimEnvironment,
};

/// Submissions that may wait, as in production.
const QUEUE_LEN: usize = 64;

/// Pauses a host like a stopped process: time continues without it.
#[derive(Debug, Clone, Default)]
pub(super) struct PauseSwitch(Arc<Mutex<(bool, Option<Waker>)>>);

impl PauseSwitch {
    pub(super) fn set(&self, is_paused: bool) {
        let mut state = lock(&self.0);
        state.0 = is_paused;
        if !is_paused && let Some(waker) = state.1.take() {
            waker.wake();
        }
    }
}

/// A future that makes no progress while its host is paused.
struct Pausable {
    future: BoxFuture<'static, ()>,
    pause: PauseSwitch,
}

impl Future for Pausable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut state = lock(&self.pause.0);
            state.1 = Some(cx.waker().clone());
            if state.0 {
                return Poll::Pending;
            }
        }
        self.future.as_mut().poll(cx)
    }
}

/// Handle of a running host.
pub(super) struct SimHost {
    pub(super) id: PodId,
    pub(super) side: ClusterSide,
    pub(super) address: String,
    /// Number of the host at the store.
    pub(super) host: usize,
    pub(super) pause_switch: PauseSwitch,
    pub(super) member: MembershipHandle,
    pub(super) leader_report: watch::Receiver<LeaderReport>,
    pub(super) stop: CancellationToken,
    pub(super) force: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

impl SimHost {
    /// Starts a host whose pod has this identity and this address.
    pub(super) fn start(env: &SimEnvironment, side: ClusterSide, id: PodId, address: String) -> Self {
        let (access, host) = env.store.connect_host();
        let cluster = cluster(side);
        let (member, membership) = MembershipHandle::start(
            StoreBackend::from_nodes(access),
            &cluster,
            id.clone(),
            registration(side, &address, Plan::accepts_differences(&address)),
        );
        let fence = Arc::new(Fence::new(member.clone()));
        let (submit, submissions) = mpsc::channel(QUEUE_LEN);
        let (report, leader_report) = watch::channel(LeaderReport::default());
        let settings = env.plan.model(side);
        let dependencies = settings.depends_on.iter().map(|name| Dependency::new(name, &cluster).unwrap()).collect();
        let leader = LeaderActor {
            id: id.clone(),
            dependencies,
            settings,
            transport: Arc::new(SimTransport {
                id: id.clone(),
                address: address.clone(),
                network: env.network.clone(),
                checker: env.checker.clone(),
            }),
            member: member.clone(),
            model: Arc::new(SimModel(env.faults.clone())),
            report,
            metrics: Arc::default(),
            observer: Some(leader::observer(id.clone(), member.clone(), env.checker.clone())),
        };
        let pod = SimLifecycle {
            id: id.clone(),
            settings: env.plan.lifecycle.clone(),
            pace: env.plan.pace,
            start: env.plan.start,
            fence: Arc::clone(&fence),
            member: member.clone(),
            faults: env.faults.clone(),
            processes: env.processes.clone(),
            checker: env.checker.clone(),
        };
        let deliveries = env.network.attach(&address);
        let (stop, force) = (CancellationToken::new(), CancellationToken::new());
        let (stop_lifecycle, leading) = (CancellationToken::new(), CancellationToken::new());
        // Each reports its end by dropping its sender.
        let ((led, has_led), (lived, has_lived)) = (oneshot::channel::<()>(), oneshot::channel::<()>());
        let leads = leader.run(leading.clone()).map(|()| drop(led));
        let living = pod.run(submissions, stop_lifecycle.clone(), force.clone()).map(|()| drop(lived));
        let ending = {
            let (stop, force, member) = (stop.clone(), force.clone(), member.clone());
            async move {
                tokio::select! { biased; () = stop.cancelled() => {}, () = force.cancelled() => {} }
                stop_lifecycle.cancel();
                leading.cancel();
                until_forced(&force, has_led.map(drop)).await;
                until_forced(&force, member.step_down()).await;
                has_lived.map(drop).await;
                until_forced(&force, member.leave()).await;
            }
        };
        let serving = serve(id.clone(), fence, LifecycleHandle::new(submit), deliveries);
        let running = async move {
            let working = async {
                futures_util::join!(membership, leads, living);
                pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = ending => {}
                () = serving => {}
                () = working => {}
            }
        };
        let pause_switch = PauseSwitch::default();
        let task = tokio::spawn(Pausable { future: running.boxed(), pause: pause_switch.clone() });
        Self { id, side, address, host, pause_switch, member, leader_report, stop, force, task }
    }
}

/// Returns the full name of a cluster.
pub(super) fn cluster(side: ClusterSide) -> ClusterName {
    ClusterName::new("sim", side.name()).unwrap()
}

fn registration(side: ClusterSide, address: &str, accepts_differences: bool) -> Map<String, serde_json::Value> {
    let (ip, port) = address.split_once(':').unwrap();
    let fields = json!({
        "namespace": "sim", "cluster": side.name(), "ip": ip, "port": port, "ports": {}, "status": "",
    });
    let mut fields = fields.as_object().cloned().unwrap();
    if accepts_differences {
        fields.insert(CAPABILITIES.to_owned(), json!([DIFFERENCES]));
    }
    fields
}

async fn until_forced(force: &CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! { biased; () = work => {}, () = force.cancelled() => {} }
}

/// Serves the control API, from where a request is parsed.
async fn serve(
    id: PodId,
    fence: Arc<Fence>,
    lifecycle: LifecycleHandle,
    mut deliveries: mpsc::UnboundedReceiver<Delivery>,
) {
    let (views, mut answering) = (PodViews::default(), FuturesUnordered::new());
    loop {
        tokio::select! {
            biased;
            Some(Delivery { message, reply }) = deliveries.recv() => {
                let (id, fence, lifecycle, views) = (&id, &fence, &lifecycle, &views);
                answering.push(async move {
                    let arrived = Instant::now();
                    let answer = match message {
                        Message::Operator(request) => {
                            control::submit(id, fence, lifecycle, None, request, arrived).await
                        }
                        Message::Leader(request) => {
                            let pod = request.pod.clone();
                            let mut answer = match leader::read(request, views).await {
                                Ok(request) => {
                                    control::submit(id, fence, lifecycle, Some(&pod), request, arrived).await
                                }
                                Err(error) => error.into_reply(),
                            };
                            views.report(&mut answer);
                            answer
                        }
                    };
                    let (head, body) = answer.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    // The client may have hung up.
                    let _ = reply.send(Reply { status: head.status.as_u16(), headers: head.headers, body });
                });
            }
            Some(()) = answering.next() => {}
        }
    }
}
