//! One pod: its actors, and the order in which they shut down.

use std::sync::Arc;

use ochopod_client::Client;
use ochopod_control::{self as control, FurtherMetrics, Reloads, Tools};
use ochopod_init::HostExit;
use ochopod_leader::LeaderActor;
use ochopod_lifecycle::{Fence, LaunchConfig, LifecycleActor, LifecycleHandle};
use ochopod_loopback::Announcement;
use ochopod_model::{
    PodId,
    status::{LeaderReport, LifecycleReport, PluginReport, ProcessState},
};
use ochopod_plugin::{PluginSlot, PodPlugin};
use ochopod_store::{Membership, MembershipHandle};
use ochopod_telemetry::Metrics;
use ochopod_timing::shutdown::ShutdownClock;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    background_tasks::BackgroundTasks, control_listener::listen, error::StartError, host_context::HostContext,
    reload::ReloadActor, settings_json, shutdown::Shutdown, tools,
};
use crate::settings::Settings;

/// Length of the queues of the lifecycle actor and of tools.
const QUEUE_LEN: usize = 64;

/// One pod, built: its control port answers, nothing else runs yet.
pub(super) struct Pod {
    settings: Settings,
    /// The control server. It ends when this is dropped.
    server_task: JoinSet<()>,
    /// Shuts the control server down.
    serving: CancellationToken,
    /// Keeps guests of every ochopod in this network namespace from the control port.
    announcement: Option<Announcement>,
    actors: Actors,
    pub(super) watch: PodWatch,
}

/// Receivers for the state of a pod.
#[derive(Clone)]
pub(super) struct PodWatch {
    pub(super) membership: watch::Receiver<Membership>,
    pub(super) lifecycle: watch::Receiver<LifecycleReport>,
    pub(super) leader: watch::Receiver<LeaderReport>,
}

struct Actors {
    control: Arc<control::ApiContext>,
    member: MembershipHandle,
    membership: futures_util::future::BoxFuture<'static, ()>,
    lifecycle: LifecycleActor,
    submissions: mpsc::Receiver<ochopod_lifecycle::Submission>,
    leader: LeaderActor,
    tools: futures_util::future::BoxFuture<'static, ()>,
    reload: futures_util::future::BoxFuture<'static, ()>,
    background: BackgroundTasks,
    slot: PluginSlot,
    shutdown: CancellationToken,
    /// Clock of this pod alone: it may shut down while others stay.
    clock: ShutdownClock,
}

impl Pod {
    /// Binds and serves the control port, and builds the actors. Nothing is registered yet: until [`Pod::run`] the pod is
    /// alive and not ready, however long `preStart` takes. Its metrics page includes further
    /// families; `clock` limits the time of a shutdown.
    #[allow(clippy::too_many_lines, reason = "it lists what each actor gets")]
    pub(super) fn build(
        host: &HostContext,
        settings: Settings,
        further_metrics: Option<FurtherMetrics>,
        clock: &ShutdownClock,
    ) -> Result<Self, StartError> {
        let address = settings.listen;
        let listener = listen(address).map_err(|source| StartError::Listen { address, source })?;
        let announcement = announce(&listener);
        let (id, clock) = (PodId::random(), clock.separate());
        let (member, membership) = MembershipHandle::start(
            host.ensemble.clone(),
            &settings.cluster,
            id.clone(),
            settings.registration.clone(),
        );
        let (lifecycle_report, lifecycle) = watch::channel(LifecycleReport::default());
        let (leader_report, leader) = watch::channel(LeaderReport::default());
        let (submit, submissions) = mpsc::channel(QUEUE_LEN);
        let (requests_tx, requests) = mpsc::channel(QUEUE_LEN);
        let fence = Arc::new(Fence::new(member.clone()));
        let metrics = Arc::new(Metrics::default());
        let (plugin_report, plugin) = watch::channel(PluginReport::default());
        let sandbox = host.pod_sandbox(&settings, lifecycle.clone(), plugin_report, Arc::clone(&metrics));
        let slot = PodPlugin::new(host.plugin.clone(), &sandbox, host.lifecycle.clone(), host.model.clone());
        let slot = PluginSlot::new(slot, &host.loader.path);
        let (reloads, reload_requests) = Reloads::new();
        let (settings_report, plugin_settings) = watch::channel(settings_json::in_force(slot.current().settings()));
        let (platform_report, platform) = watch::channel(settings.platform.clone());
        let tool_names = host.plugin.description().tools.iter().map(|tool| tool.name.clone()).collect();
        let watch = PodWatch { membership: member.watch(), lifecycle: lifecycle.clone(), leader: leader.clone() };
        let shutdown = CancellationToken::new();
        let control = Arc::new(control::ApiContext {
            id: id.clone(),
            token: settings.access.token.clone(),
            registration: settings.registration.clone(),
            dependencies: host.model.depends_on.clone(),
            lifecycle: LifecycleHandle::new(submit),
            fence: Arc::clone(&fence),
            views: control::PodViews::new(Arc::clone(&host.views)),
            member: member.clone(),
            lifecycle_report: lifecycle,
            leader_report: leader,
            plugin_report: plugin,
            plugin: slot.identity(),
            settings: plugin_settings,
            platform: platform.clone(),
            tools: Tools::new(tool_names, requests_tx),
            reloads,
            peers: Client::for_peers(&settings.access),
            log: host.log.tail(),
            metrics: Arc::clone(&metrics),
            further_metrics,
            shutdown: shutdown.clone(),
        });
        let launch = LaunchConfig {
            environment: settings.environment.clone(),
            secrets: settings.secrets.clone(),
            registration: settings.registration.clone(),
            dependencies: host.model.depends_on.clone(),
            allowed: settings.grants.exec.clone(),
            variables: host.plugin.description().wants.environment.clone(),
            privileges: settings.privileges.clone(),
        };
        let reload = ReloadActor {
            loader: host.loader.clone(),
            slot: slot.clone(),
            tools: control.tools.clone(),
            lifecycle: watch.lifecycle.clone(),
            shutdown: shutdown.clone(),
        };
        let actors = Actors {
            membership: Box::pin(membership),
            lifecycle: LifecycleActor {
                start: settings.start,
                plugin: slot.clone(),
                launch,
                init: host.init.clone(),
                fence,
                member: member.clone(),
                report: lifecycle_report,
                metrics: Arc::clone(&metrics),
                clock: clock.clone(),
            },
            submissions,
            leader: LeaderActor {
                id,
                dependencies: host.dependencies.clone(),
                settings: host.model.clone(),
                transport: Arc::new(Client::for_peers(&settings.access)),
                member: member.clone(),
                model: Arc::new(slot.clone()),
                report: leader_report,
                metrics: Arc::clone(&metrics),
                observer: None,
            },
            control: Arc::clone(&control),
            tools: Box::pin(tools::run_tools(slot.clone(), requests)),
            reload: Box::pin(reload.run(reload_requests)),
            background: BackgroundTasks {
                watch: watch.clone(),
                slot: slot.clone(),
                settings_report,
                platform_report,
                platform,
                public_look_up: settings.public_look_up.clone(),
                registered_public: settings.registered("public").to_owned(),
                member: member.clone(),
                fence: Arc::clone(&control.fence),
                metrics,
                shutdown: shutdown.clone(),
                leave_delay: settings.leave_delay,
            },
            slot,
            shutdown,
            member,
            clock,
        };
        let (mut server_task, serving) = (JoinSet::new(), CancellationToken::new());
        let server = control::serve(listener, control, settings.access.server.clone(), serving.clone());
        server_task.spawn(server.in_current_span());
        Ok(Self { settings, server_task, serving, announcement, actors, watch })
    }

    /// Returns the whole metrics page.
    #[cfg(feature = "pilot")]
    pub(super) fn metrics_page(&self) -> FurtherMetrics {
        let pod = Arc::clone(&self.actors.control);
        Arc::new(move || control::metrics_page(&pod))
    }

    /// Runs until a shutdown is requested, the pod is dead (if it exits then), or a task fails. Shuts down in order: no more
    /// requests, leadership released, view left (if there is a `leave_delay`), sub-process stopped and plugin finalized, pod
    /// deregistered, control server closed. Each step is abandoned when its time is over.
    ///
    /// # Cancellation safety
    /// Dropping the future is like a crash of the pod.
    pub(super) async fn run(self, stop: Shutdown) -> HostExit {
        let Self { settings, mut server_task, serving, announcement: _announcement, actors, watch } = self;
        let Actors {
            member,
            membership,
            lifecycle,
            submissions,
            leader,
            control,
            tools,
            reload,
            background,
            slot,
            shutdown,
            clock,
        } = actors;
        tracing::info!(cluster = %settings.cluster, listen = %settings.listen, id = %control.id, "starting pod");
        let leading = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(membership.in_current_span());
        tasks.spawn(tools.in_current_span());
        tasks.spawn(reload.in_current_span());
        background.spawn(&mut tasks);
        let mut leads = JoinSet::new();
        leads.spawn(leader.run(leading.clone()).in_current_span());
        let mut lives = JoinSet::new();
        let (stopping, force) = (CancellationToken::new(), stop.forced.clone());
        lives.spawn(lifecycle.run(submissions, shutdown.clone(), stopping.clone(), force).in_current_span());
        let begin = || {
            // The clock of the process comes first: all pods have to be gone by then.
            let schedule = if stop.is_requested() { clock.join(stop.clock.start()) } else { clock.start() };
            if !shutdown.is_cancelled() {
                tracing::info!("shutting down");
            }
            shutdown.cancel();
            leading.cancel();
            schedule
        };
        let withdrawn = async {
            tokio::select! {
                biased;
                () = stop.announced.cancelled() => {}
                _ = leads.join_next() => return HostExit::Internal,
            }
            let schedule = begin();
            stop.until_forced(schedule.process, async { _ = leads.join_next().await }).await;
            stop.until_forced(schedule.process, member.step_down()).await;
            std::future::pending().await
        };

        let exit = tokio::select! {
            // Known causes precede failures: the membership also ends if access is denied.
            biased;
            () = stop.requested.cancelled() => HostExit::Stopped,
            () = stop.forced.cancelled() => HostExit::Stopped,
            exit = until_dead(watch.lifecycle.clone()), if settings.exit_when_dead => exit,
            reason = until_access_denied(watch.membership.clone()) => {
                tracing::error!(reason, "ZooKeeper access denied");
                HostExit::Credentials
            }
            // These tasks run until the shutdown.
            _ = tasks.join_next() => HostExit::Internal,
            _ = server_task.join_next() => HostExit::Internal,
            exit = withdrawn => exit,
            _ = lives.join_next() => HostExit::Internal,
        };
        if exit == HostExit::Internal {
            tracing::error!("host task ended unexpectedly, shutting down");
        }
        let schedule = begin();
        if exit == HostExit::Stopped && watch.lifecycle.borrow().process != ProcessState::Dead {
            let limits = (settings.leave_delay, slot.current().settings().lifecycle.grace);
            stop.leave_view(schedule, limits, &member, async { _ = leads.join_next().await }).await;
        }
        stopping.cancel();
        stop.until_forced(schedule.process, async { _ = leads.join_next().await }).await;
        stop.until_forced(schedule.process, member.step_down()).await;
        stop.stopped(schedule, async { _ = lives.join_next().await }).await;
        stop.deregister(schedule, member.leave()).await;
        serving.cancel();
        stop.until_forced(schedule.kill, async { _ = server_task.join_next().await }).await;
        tracing::info!("shutdown complete");
        exit
    }
}

/// Announces the control port, so that plugins of other pods cannot reach it on loopback.
fn announce(listener: &TcpListener) -> Option<Announcement> {
    let announced = listener.local_addr().and_then(Announcement::new);
    let announced = announced.inspect_err(|error| tracing::warn!(%error, "control port not announced on this machine"));
    announced.ok()
}

/// Completes when the pod is dead, with the exit code of the host.
async fn until_dead(mut lifecycle: watch::Receiver<LifecycleReport>) -> HostExit {
    let died = lifecycle.wait_for(|report| report.process == ProcessState::Dead).await.map(|report| report.failed);
    match died {
        Ok(true) => HostExit::Failed,
        Ok(false) => HostExit::Stopped,
        Err(_) => std::future::pending().await,
    }
}

/// Completes with the reason when the store denies access.
async fn until_access_denied(mut membership: watch::Receiver<Membership>) -> String {
    let refused = membership.wait_for(|membership| membership.rejected.is_some()).await;
    match refused.ok().and_then(|membership| membership.rejected.clone()) {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}
