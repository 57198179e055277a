//! Replies to `/healthz`, `/readyz` and `/metrics`, for platforms and monitors.

use std::time::Instant;

use bytes::Bytes;
use hyper::StatusCode;
use ochopod_http::Reply;
use ochopod_model::status::{LifecycleReport, ProcessState, Role};
use ochopod_store::{Membership, SessionState};
use ochopod_telemetry::Gauges;

use super::{
    ApiContext,
    reply::{self, ApiError},
};

/// Replies 200 while the pod is ready, else 503 with the reason: the rules are in `docs/monitoring.md`.
pub(super) fn ready(context: &ApiContext) -> Result<Reply, ApiError> {
    match unready_reason(context) {
        None => Ok(reply::ok()),
        Some(reason) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, reason)),
    }
}

/// Returns why the pod is not ready; none while it is. A suspended or lost session is not a reason, nor is a new one until the
/// registration under it failed: the sub-process works without the store.
fn unready_reason(context: &ApiContext) -> Option<String> {
    let membership = context.member.watch();
    unready_reason_of(context.shutdown.is_cancelled(), &context.lifecycle_report.borrow(), &membership.borrow())
}

/// Returns why a pod with this state is not ready; none while it is.
pub(super) fn unready_reason_of(
    is_shutting_down: bool,
    lifecycle: &LifecycleReport,
    membership: &Membership,
) -> Option<String> {
    if is_shutting_down {
        return Some("pod is shutting down".to_owned());
    }
    lifecycle.unready_reason().or_else(|| {
        let reason = membership.unregistered_reason().filter(|_| membership.state == SessionState::Connected);
        reason.map(|reason| format!("pod is not registered: {reason}"))
    })
}

pub(super) fn metrics(context: &ApiContext) -> Reply {
    ochopod_http::body(StatusCode::OK, Bytes::from(metrics_page(context)), ochopod_http::PROMETHEUS)
}

/// Returns the current page of `/metrics`: the metrics of the pod, and further ones.
#[must_use]
pub fn metrics_page(context: &ApiContext) -> String {
    let registered = context.member.watch().borrow().registered.is_some();
    let ready = unready_reason(context).is_none();
    let (leader, (cluster_off, cluster_dead)) = {
        let report = context.leader_report.borrow();
        (report.role != Role::Follower, (report.down.off, report.down.dead))
    };
    let gauges = {
        let lifecycle = context.lifecycle_report.borrow();
        let process_up = matches!(lifecycle.process, ProcessState::Running | ProcessState::Terminating);
        let (plugin, now) = (context.plugin_report.borrow(), Instant::now());
        Gauges {
            registered,
            leader,
            process_up,
            configured: lifecycle.configured,
            ready,
            off: lifecycle.is_off(),
            dead: lifecycle.process == ProcessState::Dead,
            cluster_off,
            cluster_dead,
            lifecycle_suspended: plugin.is_suspended("lifecycle", now),
            model_suspended: plugin.is_suspended("model", now),
        }
    };
    let mut page = context.metrics.render(gauges);
    if let Some(further) = &context.further_metrics {
        page.push_str(&further());
    }
    page
}
