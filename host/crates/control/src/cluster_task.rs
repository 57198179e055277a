//! `/control/step-down`, `/control/pause` and `/control/resume`: tasks for the membership, which the lifecycle does not see.
//!
//! A leader that hands over to one pod first requests all others to yield to that pod. These requests name the leadership in
//! the header `X-Ochopod-Epoch` and are signed like all requests of leaders; a request without it is an operator's.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt as _, stream};
use hyper::StatusCode;
use ochopod_client::ClientError;
use ochopod_http::Reply;
use ochopod_model::{PodId, Pods, Registration, reply::StepDownReply, status::ProcessState};
use ochopod_store::{CoordError, Pause, SessionState};
use tokio::time::{Instant, timeout_at};

use super::{
    ApiContext,
    reply::{self, ApiError},
    task,
};

/// Number of session timeouts for which a pod lets others lead.
const YIELD_FACTOR: u32 = 2;
/// Maximum number of concurrent requests to pods.
const MAX_CONCURRENT_REQUESTS: usize = 64;
/// Setting that only registrations of this host have: pods of the Python SDK do not know the request.
const HOST_SETTING: &str = "binding";

/// Task for the membership, with its validated body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClusterTask {
    /// Release the leadership, to any pod or to this one.
    StepDown(Option<PodId>),
    /// Pause the configurations of the cluster, for this reason.
    Pause(String),
    /// End the pause.
    Resume,
}

/// A request with such a task.
pub(super) struct ClusterRequest {
    pub(super) task: ClusterTask,
    /// The pod for which it is, if it names one.
    pub(super) target_pod: Option<PodId>,
    /// The leadership that sent it; none for operators.
    pub(super) epoch: Option<i64>,
    /// Address of the client.
    pub(super) client: IpAddr,
}

/// Executes a task within the time limit.
pub(super) async fn run(
    context: &ApiContext,
    request: ClusterRequest,
    arrived: Instant,
    limit: Duration,
) -> Result<Reply, ApiError> {
    let timed_out = |_| Err(ApiError::timed_out(limit, "request stopped, it may have taken effect"));
    timeout_at(arrived + limit, execute(context, request)).await.unwrap_or_else(timed_out)
}

async fn execute(context: &ApiContext, request: ClusterRequest) -> Result<Reply, ApiError> {
    let ClusterRequest { task, target_pod, epoch, client } = request;
    task::admit(&context.id, &context.fence, target_pod.as_ref(), epoch).await?;
    if context.shutdown.is_cancelled() {
        return Err(gone("pod is shutting down"));
    }
    if context.lifecycle_report.borrow().process == ProcessState::Dead {
        return Err(gone("pod is dead"));
    }
    match task {
        ClusterTask::StepDown(to) => step_down(context, to, epoch).await,
        ClusterTask::Pause(reason) => {
            tracing::info!(reason, %client, "pausing configurations of cluster");
            let pause = Pause { by: origin(context, client), since: unix_seconds(), reason };
            context.member.pause(&pause).await.map_err(|error| store_error(&error))?;
            Ok(reply::ok())
        }
        ClusterTask::Resume => {
            let was_paused = context.member.resume().await.map_err(|error| store_error(&error))?;
            tracing::info!(was_paused, %client, "resumed configurations of cluster");
            Ok(reply::ok())
        }
    }
}

async fn step_down(context: &ApiContext, to: Option<PodId>, epoch: Option<i64>) -> Result<Reply, ApiError> {
    let membership = context.member.watch().borrow().clone();
    if membership.state != SessionState::Connected {
        return Err(ApiError::unavailable("coordination store unavailable: try again later"));
    }
    let Some(leadership) = membership.leadership else {
        let (Some(to), Some(_)) = (to, epoch) else { return Err(not_acceptable("pod does not lead")) };
        return let_lead(context, &to).await;
    };
    let skipped = match to {
        Some(to) if to == context.id => return Err(not_acceptable("pod leads already")),
        Some(to) => prepare(context, &to, leadership.epoch).await?,
        None => Vec::new(),
    };
    context.member.yield_lock(YIELD_FACTOR * context.member.session_timeout()).await;
    if context.member.watch().borrow().state != SessionState::Connected {
        return Err(ApiError::unavailable("leader lock not released yet: coordination store unavailable"));
    }
    Ok(reply::json(StatusCode::OK, &StepDownReply { skipped }))
}

/// Executes the request of a leader that hands over to the pod `to`.
async fn let_lead(context: &ApiContext, to: &PodId) -> Result<Reply, ApiError> {
    if *to != context.id {
        context.member.yield_lock(YIELD_FACTOR * context.member.session_timeout()).await;
        return Ok(reply::ok());
    }
    let cordon = context.lifecycle_report.borrow().cordon.clone();
    if let Some(reason) = cordon {
        return Err(gone(format!("pod is cordoned: {reason}")));
    }
    context.member.stop_yielding().await;
    Ok(reply::ok())
}

/// Requests the pod `to` to contend, then all others to yield to it. Returns those that do not know the request, or did not
/// answer 200.
async fn prepare(context: &ApiContext, to: &PodId, epoch: i64) -> Result<Vec<PodId>, ApiError> {
    let mut pods = context.member.registered_pods().await.map_err(|error| store_error(&error))?;
    pods.remove(&context.id);
    let Some(target) = pods.remove(to) else { return Err(not_acceptable(format!("no such pod {:?}", to.as_str()))) };
    if target.is_dead() {
        return Err(not_acceptable(format!("pod {:?} is dead", to.as_str())));
    }
    match request_step_down(context, to, &target, to, epoch).await {
        Ok(()) | Err(PeerError::Unknown) => {}
        Err(PeerError::Unreachable(error)) => {
            return Err(ApiError::unavailable(format!("pod {:?} unreachable: {error}: try again later", to.as_str())));
        }
        Err(PeerError::Unavailable(error)) => {
            return Err(ApiError::unavailable(format!("pod {:?} cannot lead now: {error}", to.as_str())));
        }
        Err(PeerError::Rejected(error)) => {
            return Err(not_acceptable(format!("pod {:?} cannot lead: {error}", to.as_str())));
        }
    }
    Ok(request_all(context, pods, to, epoch).await)
}

async fn request_all(context: &ApiContext, pods: Pods, to: &PodId, epoch: i64) -> Vec<PodId> {
    let alive = pods.into_iter().filter(|(_, registration)| !registration.is_dead());
    let requests = stream::iter(alive).map(|(pod, registration)| async move {
        let error = request_step_down(context, &pod, &registration, to, epoch).await.err()?;
        tracing::warn!(%pod, %error, "pod did not yield leadership, continuing");
        Some(pod)
    });
    let results: Vec<Option<PodId>> = requests.buffer_unordered(MAX_CONCURRENT_REQUESTS).collect().await;
    let mut skipped: Vec<PodId> = results.into_iter().flatten().collect();
    skipped.sort();
    skipped
}

/// Result of a request to another pod other than 200.
#[derive(Debug, thiserror::Error)]
enum PeerError {
    /// The pod does not know the request.
    #[error("unknown request")]
    Unknown,
    /// The pod did not reply.
    #[error("{0}")]
    Unreachable(String),
    /// The pod cannot execute the request now.
    #[error("{0}")]
    Unavailable(String),
    /// The pod rejected the request.
    #[error("{0}")]
    Rejected(String),
}

async fn request_step_down(
    context: &ApiContext,
    pod: &PodId,
    registration: &Registration,
    to: &PodId,
    epoch: i64,
) -> Result<(), PeerError> {
    if !registration.has(HOST_SETTING) {
        return Err(PeerError::Unknown);
    }
    let address = registration.control_address().map_err(|error| PeerError::Unreachable(error.to_string()))?;
    let timeout = context.member.session_timeout();
    let unreachable = |error: ClientError| PeerError::Unreachable(error.to_string());
    let reply = context.peers.step_down(&address, pod, epoch, to, timeout).await.map_err(unreachable)?;
    match StatusCode::from_u16(reply.status) {
        Ok(StatusCode::OK) => Ok(()),
        Ok(StatusCode::SERVICE_UNAVAILABLE) => Err(PeerError::Unavailable(reply.error_text())),
        Ok(StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) => Err(PeerError::Unknown),
        _ => Err(PeerError::Rejected(reply.error_text())),
    }
}

/// Returns the client and the pod that it used, for people.
fn origin(context: &ApiContext, client: IpAddr) -> String {
    let client = client.to_canonical();
    match context.control_address() {
        Some(address) => format!("{client} at {address}"),
        None => client.to_string(),
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn store_error(error: &CoordError) -> ApiError {
    match error {
        CoordError::Unavailable(_) | CoordError::SessionLost | CoordError::Unexpected(_) => {
            ApiError::unavailable(format!("{error}: try again later"))
        }
        CoordError::Conflict { .. } => ApiError::new(StatusCode::CONFLICT, error.to_string()),
        CoordError::AuthFailed(_)
        | CoordError::AccessDenied(_)
        | CoordError::Exposed(_)
        | CoordError::TooLarge { .. } => not_acceptable(error.to_string()),
    }
}

fn gone(error: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::GONE, error)
}

fn not_acceptable(error: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::NOT_ACCEPTABLE, error)
}
