//! Tasks that pass the state of a pod on to its cluster, its membership and its control API, for as long as it runs.

use std::{sync::Arc, time::Duration};

use ochopod_lifecycle::Fence;
use ochopod_model::status::{LifecycleReport, PlatformReport, PluginIdentity, PodState};
use ochopod_platform::InstanceMetadata;
use ochopod_plugin::PluginSlot;
use ochopod_store::{Membership, MembershipHandle};
use ochopod_telemetry::Metrics;
use serde_json::{Map, Value};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{pod::PodWatch, settings_json};

/// Cordon of a pod that leaves the view before it stops.
const LEAVING: &str = "leaving";
/// Source of a public address that was found after the registration.
const LATE_PUBLIC: &str = "instance metadata, after the registration";

/// The parts of a pod that these tasks connect.
pub(super) struct BackgroundTasks {
    pub(super) watch: PodWatch,
    pub(super) slot: PluginSlot,
    pub(super) settings_report: watch::Sender<Map<String, Value>>,
    pub(super) platform_report: watch::Sender<PlatformReport>,
    pub(super) platform: watch::Receiver<PlatformReport>,
    /// The service with the public address of the machine, if it is looked up.
    pub(super) public_look_up: Option<InstanceMetadata>,
    pub(super) registered_public: String,
    pub(super) member: MembershipHandle,
    pub(super) fence: Arc<Fence>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: CancellationToken,
    pub(super) leave_delay: Duration,
}

impl BackgroundTasks {
    /// Spawns the tasks, which run until they are aborted.
    pub(super) fn spawn(self, tasks: &mut JoinSet<()>) {
        let Self { watch, slot, settings_report, platform, member, fence, metrics, shutdown, leave_delay, .. } = self;
        let (lifecycle, identity) = (watch.lifecycle.clone(), slot.identity());
        tasks.spawn(publish_state(lifecycle, identity, platform, member.clone(), shutdown, leave_delay));
        if let Some(service) = self.public_look_up {
            tasks.spawn(follow_public(service, self.registered_public, self.platform_report).in_current_span());
        }
        tasks.spawn(follow_cordon(watch.lifecycle, member));
        tasks.spawn(async move { match fence.follow_leader().await {} });
        tasks.spawn(report_settings(slot, settings_report));
        tasks.spawn(count_session_losses(watch.membership, metrics));
    }
}

/// Publishes the state of the pod in its cluster whenever it changes. With a `leave_delay`, a pod that shuts down is cordoned.
async fn publish_state(
    mut lifecycle: watch::Receiver<LifecycleReport>,
    mut plugin: watch::Receiver<PluginIdentity>,
    mut platform: watch::Receiver<PlatformReport>,
    member: MembershipHandle,
    shutdown: CancellationToken,
    leave_delay: Duration,
) {
    loop {
        let is_shutting_down = shutdown.is_cancelled();
        let mut state = PodState::of(&lifecycle.borrow_and_update(), is_shutting_down);
        if is_shutting_down && !leave_delay.is_zero() {
            state.cordon.get_or_insert_with(|| LEAVING.to_owned());
        }
        let public = platform.borrow_and_update().late_public.clone();
        member.publish(state.with_plugin(&plugin.borrow_and_update()).with_public(public));
        let changed = tokio::select! {
            changed = lifecycle.changed() => changed.is_ok(),
            Ok(()) = plugin.changed() => true,
            Ok(()) = platform.changed() => true,
            () = shutdown.cancelled(), if !is_shutting_down => true,
        };
        if !changed {
            std::future::pending::<()>().await;
        }
    }
}

/// Keeps a cordoned pod from contending for the leader lock. A leader that is cordoned hands over.
async fn follow_cordon(mut lifecycle: watch::Receiver<LifecycleReport>, member: MembershipHandle) {
    let mut contending = true;
    loop {
        let wanted = lifecycle.borrow_and_update().cordon.is_none();
        if wanted != contending {
            contending = wanted;
            member.set_contending(contending).await;
        }
        if lifecycle.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Reports the settings of the plugin in force whenever it is replaced.
async fn report_settings(slot: PluginSlot, report: watch::Sender<Map<String, Value>>) {
    let mut plugin = slot.watch();
    loop {
        let settings = settings_json::in_force(plugin.borrow_and_update().settings());
        report.send_if_modified(|reported| {
            let is_changed = *reported != settings;
            *reported = settings;
            is_changed
        });
        if plugin.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Reports the public address of the machine whenever it differs from the registered one: it may be attached, moved or found
/// after the registration, which stays as it is. Soon repeats a look-up that found none.
async fn follow_public(service: InstanceMetadata, registered: String, report: watch::Sender<PlatformReport>) {
    let is_registered = !registered.is_empty();
    let source = report.borrow().sources.get("public").cloned();
    service
        .follow_public(!is_registered, |public| {
            let public = public.map(|ip| ip.to_string());
            let late = public.clone().filter(|public| *public != registered);
            let is_changed = report.send_if_modified(|report| {
                let is_changed = report.late_public != late;
                report.sources.remove("public");
                let source = late.is_some().then(|| LATE_PUBLIC.to_owned()).or_else(|| source.clone());
                report.sources.extend(source.map(|source| ("public".to_owned(), source)));
                report.late_public = late;
                is_changed
            });
            if is_changed {
                tracing::info!(public, registered, "public address changed, published without a new registration");
            }
        })
        .await;
}

/// Counts lost sessions, by the registrations that follow them.
async fn count_session_losses(mut membership: watch::Receiver<Membership>, metrics: Arc<Metrics>) {
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
