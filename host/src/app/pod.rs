//! One pod: its actors, and the order in which they leave.

use std::sync::Arc;

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{error::StartError, house::House, tools};
use crate::{
    cluster::PodId,
    control::{self, Tools},
    coord::{Member, Membership},
    init::Ending,
    leader::Leader,
    lifecycle::{Fence, LaunchPad, LifecycleActor, LifecycleHandle},
    pilot::Page,
    settings::Settings,
    status::{LeaderReport, LifecycleReport, PluginReport, ProcessState},
    telemetry::{Metrics, PilotMetrics},
};

/// Requests that wait for the lifecycle actor before senders have to.
const QUEUE: usize = 64;

/// Who tells a pod to end: first gracefully, then at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    pub(super) requested: CancellationToken,
    pub(super) forced: CancellationToken,
}

/// One pod, built and listening; nothing runs yet.
pub(super) struct Pod {
    settings: Settings,
    listener: TcpListener,
    actors: Actors,
    pub(super) watch: PodWatch,
}

/// What can be watched of a pod.
#[derive(Clone)]
pub(super) struct PodWatch {
    pub(super) membership: watch::Receiver<Membership>,
    pub(super) lifecycle: watch::Receiver<LifecycleReport>,
    pub(super) leader: watch::Receiver<LeaderReport>,
}

struct Actors {
    member: Member,
    membership: futures_util::future::BoxFuture<'static, ()>,
    lifecycle: LifecycleActor,
    submissions: mpsc::Receiver<crate::lifecycle::Submission>,
    leader: Leader,
    control: Arc<control::Pod>,
    tools: futures_util::future::BoxFuture<'static, ()>,
    metrics: Arc<Metrics>,
    leave: CancellationToken,
}

impl Pod {
    /// Binds the control port and builds the actors. Nothing is registered yet. `company` has the counts
    /// of the pod's company, if it has any.
    pub(super) async fn build(
        house: &House,
        settings: Settings,
        company: Option<Arc<PilotMetrics>>,
    ) -> Result<Self, StartError> {
        let address = settings.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
        let id = PodId::random();
        let (member, membership) =
            Member::start(house.ensemble.clone(), &settings.cluster, id.clone(), settings.registration.clone());
        let (lifecycle_report, lifecycle) = watch::channel(LifecycleReport::default());
        let (leader_report, leader) = watch::channel(LeaderReport::default());
        let (submit, submissions) = mpsc::channel(QUEUE);
        let (ask, runs) = mpsc::channel(QUEUE);
        let fence = Arc::new(Fence::new(member.clone()));
        let metrics = Arc::new(Metrics::default());
        let (plugin_report, plugin) = watch::channel(PluginReport::default());
        let surroundings = house.surroundings(&settings, lifecycle.clone(), plugin_report, Arc::clone(&metrics));
        let tool_names = house.plugin.description().tools.iter().map(|tool| tool.name.clone()).collect();
        let watch = PodWatch { membership: member.watch(), lifecycle: lifecycle.clone(), leader: leader.clone() };
        let leave = CancellationToken::new();
        let control = control::Pod {
            id: id.clone(),
            token: settings.access.token.clone(),
            registration: settings.registration.clone(),
            dependencies: house.model.depends_on.clone(),
            lifecycle: LifecycleHandle::new(submit),
            fence: Arc::clone(&fence),
            member: member.clone(),
            lifecycle_report: lifecycle,
            leader_report: leader,
            plugin_report: plugin,
            tools: Tools::new(tool_names, ask),
            log: house.log.tail(),
            metrics: Arc::clone(&metrics),
            pilot: company,
            leaving: leave.clone(),
        };
        let pad = LaunchPad {
            environment: settings.environment.clone(),
            registration: settings.registration.clone(),
            dependencies: house.model.depends_on.clone(),
            allowed: settings.grants.exec.clone(),
            privileges: settings.privileges.clone(),
        };
        let actors = Actors {
            membership: Box::pin(membership),
            lifecycle: LifecycleActor {
                settings: house.lifecycle.clone(),
                start: settings.start,
                plugin: Arc::new(house.plugin.lifecycle(&surroundings)),
                pad,
                init: house.init.clone(),
                fence,
                member: member.clone(),
                report: lifecycle_report,
                metrics: Arc::clone(&metrics),
            },
            submissions,
            leader: Leader {
                id,
                cluster: settings.cluster.clone(),
                dependencies: house.dependencies.clone(),
                settings: house.model.clone(),
                access: settings.access.clone(),
                member: member.clone(),
                model: Arc::new(house.plugin.model(&surroundings)),
                report: leader_report,
                metrics: Arc::clone(&metrics),
            },
            control: Arc::new(control),
            tools: Box::pin(tools::run_tools(house.plugin.clone(), surroundings, runs)),
            metrics,
            leave,
            member,
        };
        Ok(Self { settings, listener, actors, watch })
    }

    /// Its page for Prometheus.
    pub(super) fn page(&self) -> Page {
        let pod = Arc::clone(&self.actors.control);
        Arc::new(move || control::page(&pod))
    }

    /// Runs until told to stop, or until there is no more use in running. Leaves in order: no more requests, leadership
    /// released, sub-process stopped and plugin finalized, membership ended, control server closed.
    ///
    /// # Cancellation safety
    /// Dropping the future ends the pod as a crash would.
    pub(super) async fn run(self, stop: Stop) -> Ending {
        let Self { settings, listener, actors, watch } = self;
        let Actors { member, membership, lifecycle, submissions, leader, control, tools, metrics, leave } = actors;
        tracing::info!(
            cluster = %settings.cluster,
            listen = %settings.listen,
            "starting pod {}",
            control.id
        );
        let (leading, serving) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(membership.in_current_span());
        tasks.spawn(tools.in_current_span());
        tasks.spawn(count_losses(watch.membership.clone(), metrics));
        let mut serves = JoinSet::new();
        serves.spawn(
            control::serve(listener, control, settings.access.server.clone(), serving.clone()).in_current_span(),
        );
        let mut leads = JoinSet::new();
        leads.spawn(leader.run(leading.clone()).in_current_span());
        let mut lives = JoinSet::new();
        let force = stop.forced.clone();
        lives.spawn(lifecycle.run(submissions, leave.clone(), force).in_current_span());

        let ending = tokio::select! {
            // What is known comes before what has to be taken for a failure: the membership also ends when it is refused.
            biased;
            () = stop.requested.cancelled() => Ending::Stopped,
            () = stop.forced.cancelled() => Ending::Stopped,
            () = dead(watch.lifecycle.clone()), if settings.exit_when_dead => Ending::Stopped,
            reason = refused(watch.membership.clone()) => {
                tracing::error!(reason, "ZooKeeper does not let this pod in");
                Ending::Credentials
            }
            // None of them ends by itself.
            _ = tasks.join_next() => Ending::Internal,
            _ = serves.join_next() => Ending::Internal,
            _ = leads.join_next() => Ending::Internal,
            _ = lives.join_next() => Ending::Internal,
        };
        if ending == Ending::Internal {
            tracing::error!("a part of the host failed");
        }
        tracing::info!("leaving");
        leave.cancel();
        leading.cancel();
        unless_forced(&stop, async { _ = leads.join_next().await }).await;
        unless_forced(&stop, member.step_down()).await;
        lives.join_next().await;
        unless_forced(&stop, member.leave()).await;
        serving.cancel();
        unless_forced(&stop, async { _ = serves.join_next().await }).await;
        tracing::info!("left");
        ending
    }
}

async fn unless_forced(stop: &Stop, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = stop.forced.cancelled() => {}
    }
}

/// Completes when the pod is dead.
async fn dead(mut lifecycle: watch::Receiver<LifecycleReport>) {
    let died = lifecycle.wait_for(|report| report.process == ProcessState::Dead).await.is_ok();
    if !died {
        std::future::pending::<()>().await;
    }
}

/// Completes with the reason when the store does not let the pod in.
async fn refused(mut membership: watch::Receiver<Membership>) -> String {
    let refused = membership.wait_for(|membership| membership.refused.is_some()).await;
    match refused.ok().and_then(|membership| membership.refused.clone()) {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}

/// Counts the sessions that were lost, as the registrations that come after them tell.
async fn count_losses(mut membership: watch::Receiver<Membership>, metrics: Arc<Metrics>) {
    let mut last = None;
    while membership.changed().await.is_ok() {
        let Some(registered) = membership.borrow_and_update().registered else { continue };
        if registered.after_loss && last != Some(registered.at) {
            metrics.session_lost();
        }
        last = Some(registered.at);
    }
    std::future::pending::<()>().await;
}
