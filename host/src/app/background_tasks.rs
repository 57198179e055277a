//! Tasks that pass the state of a pod on to its cluster, its membership and its control API, for as long as it runs.

use std::{sync::Arc, time::Duration};

use ochopod_lifecycle::Fence;
use ochopod_model::status::{LifecycleReport, PluginIdentity, PodState};
use ochopod_plugin::PluginSlot;
use ochopod_store::{Membership, MembershipHandle};
use ochopod_telemetry::Metrics;
use serde_json::{Map, Value};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{pod::PodWatch, settings_json};

/// Cordon of a pod that leaves the view before it stops.
const LEAVING: &str = "leaving";

/// The parts of a pod that these tasks connect.
pub(super) struct BackgroundTasks {
    pub(super) watch: PodWatch,
    pub(super) slot: PluginSlot,
    pub(super) settings_report: watch::Sender<Map<String, Value>>,
    pub(super) member: MembershipHandle,
    pub(super) fence: Arc<Fence>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) leaving: CancellationToken,
    pub(super) leave_delay: Duration,
}

impl BackgroundTasks {
    /// Spawns the tasks, which run until they are aborted.
    pub(super) fn spawn(self, tasks: &mut JoinSet<()>) {
        let Self { watch, slot, settings_report, member, fence, metrics, leaving, leave_delay } = self;
        tasks.spawn(publish_state(watch.lifecycle.clone(), slot.identity(), member.clone(), leaving, leave_delay));
        tasks.spawn(follow_cordon(watch.lifecycle, member));
        tasks.spawn(async move { match fence.follow_leader().await {} });
        tasks.spawn(report_settings(slot, settings_report));
        tasks.spawn(count_session_losses(watch.membership, metrics));
    }
}

/// Publishes the state of the pod in its cluster whenever it changes. With a `leave_delay`, a pod that is leaving is cordoned.
async fn publish_state(
    mut lifecycle: watch::Receiver<LifecycleReport>,
    mut plugin: watch::Receiver<PluginIdentity>,
    member: MembershipHandle,
    leaving: CancellationToken,
    leave_delay: Duration,
) {
    loop {
        let is_leaving = leaving.is_cancelled();
        let mut state = PodState::of(&lifecycle.borrow_and_update(), is_leaving);
        if is_leaving && !leave_delay.is_zero() {
            state.cordon.get_or_insert_with(|| LEAVING.to_owned());
        }
        member.publish(state.with_plugin(&plugin.borrow_and_update()));
        let changed = tokio::select! {
            changed = lifecycle.changed() => changed.is_ok(),
            Ok(()) = plugin.changed() => true,
            () = leaving.cancelled(), if !is_leaving => true,
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
