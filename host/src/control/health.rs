//! `/healthz`, `/readyz` and `/metrics`: for platforms and monitors.

use std::time::Instant;

use bytes::Bytes;
use hyper::StatusCode;

use super::{
    Pod,
    reply::{self, Refusal, Reply},
};
use crate::{
    process,
    status::{ProcessState, Role},
    telemetry::Gauges,
};

/// Ready is a pod that is registered under its present session and was configured.
pub(super) fn ready(pod: &Pod) -> Result<Reply, Refusal> {
    let registered = pod.member.watch().borrow().registered.is_some();
    let lifecycle = pod.lifecycle_report.borrow();
    let reason = match (lifecycle.process, registered, lifecycle.configured) {
        (ProcessState::Dead, ..) => "the pod is dead",
        (_, false, _) => "the pod is not registered",
        (_, _, false) => "the pod was not configured yet",
        (_, true, true) => return Ok(reply::ok()),
    };
    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason))
}

pub(super) fn metrics(pod: &Pod) -> Reply {
    reply::body(StatusCode::OK, Bytes::from(page(pod)), reply::PROMETHEUS)
}

/// What `/metrics` answers now: the pod's counters, and what its company has.
#[must_use]
pub fn page(pod: &Pod) -> String {
    let registered = pod.member.watch().borrow().registered.is_some();
    let leader = pod.leader_report.borrow().role != Role::Follower;
    let gauges = {
        let lifecycle = pod.lifecycle_report.borrow();
        let process_up = matches!(lifecycle.process, ProcessState::Running | ProcessState::Terminating);
        let (plugin, now) = (pod.plugin_report.borrow(), Instant::now());
        Gauges {
            registered,
            leader,
            process_up,
            configured: lifecycle.configured,
            lifecycle_suspended: plugin.is_suspended("lifecycle", now),
            model_suspended: plugin.is_suspended("model", now),
        }
    };
    let mut page = pod.metrics.page(gauges);
    if let Some(pilot) = &pod.pilot {
        page.push_str(&pilot.page(process::host_usage(), Instant::now()));
    }
    page
}
