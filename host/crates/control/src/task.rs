//! `/control/<task>[/<seconds>]`: tasks for the lifecycle or the membership, from a leader or an operator.

use std::{
    fmt::Display,
    str::FromStr,
    time::{Duration, SystemTime},
};

use hyper::{StatusCode, body::Incoming, header::HeaderMap};
use ochopod_http::Reply;
use ochopod_lifecycle::{Fence, FenceError, LifecycleHandle, Outcome, Request};
use ochopod_model::{Digest, PodId, seconds, wire};
use tokio::time::{Instant, timeout_at};

use super::{
    auth::{self, Authorization},
    body,
    cluster_task::{self, ClusterRequest},
    pending_requests::parsed_size,
    pod_views::ViewHeaders,
    reply::{self, ApiError},
    request_limiter::RequestPermit,
    server::ServerState,
    task_body::{Task, TaskName},
};

const DEFAULT_TIME_LIMIT: Duration = Duration::from_mins(1);
const MAX_TIME_LIMIT: Duration = Duration::from_hours(24);
/// Time beyond the time limit in which the lifecycle must report that it is exceeded.
const REPLY_MARGIN: Duration = Duration::from_millis(500);

/// Executes a control request, and counts it.
pub(super) async fn control(
    state: &ServerState,
    permit: &RequestPermit<'_>,
    task: &str,
    limit: Option<&str>,
    authorization: Authorization,
    (headers, body): (&HeaderMap, &mut Incoming),
) -> Result<Reply, ApiError> {
    let task = TaskName::parse(task)?;
    let reply = execute(state, permit, task, limit, authorization, (headers, body)).await;
    let mut reply = reply.unwrap_or_else(Reply::from);
    if headers.contains_key(wire::EPOCH) {
        state.context.views.report(&mut reply);
    }
    tracing::debug!(task = task.name(), status = reply.status().as_u16(), "control request completed");
    state.context.metrics.request(task.name(), reply.status().as_u16());
    Ok(reply)
}

async fn execute(
    state: &ServerState,
    permit: &RequestPermit<'_>,
    task: TaskName,
    limit: Option<&str>,
    authorization: Authorization,
    (headers, body): (&HeaderMap, &mut Incoming),
) -> Result<Reply, ApiError> {
    let context = &*state.context;
    let arrived = Instant::now();
    let limit = limit.map_or(Ok(DEFAULT_TIME_LIMIT), |text| {
        let expected = "expected seconds above 0, at most 86400, such as 60 or 0.5";
        seconds(text, MAX_TIME_LIMIT)
            .ok_or_else(|| ApiError::bad_request(format!("invalid time limit {text:?}: {expected}")))
    })?;
    let epoch = number(headers, wire::EPOCH, &i64::MAX)?;
    let number = number(headers, wire::NUMBER, &wire::MAX_NUMBER)?;
    let generation = generation(headers)?;
    let view_headers = ViewHeaders::read(headers)?;
    expect_target(&context.id, view_headers.target.as_ref())?;
    let (guard, task, target_pod) = {
        let mut body = body::read(permit, (body, body::max_bytes(headers)), arrived, limit).await?;
        if let Authorization::Signature(signature) = authorization {
            signature.verify_body(&body.bytes)?;
            state.replay_guard.record(signature, auth::oldest_valid(SystemTime::now()))?;
        }
        body.decompress(headers, arrived, limit).await?;
        let guard = state.pending_requests.admit(permit, parsed_size(&body.bytes))?;
        let (task, target_pod) = task.with_body(&body.bytes, &view_headers, &context.views)?;
        (guard, task, target_pod)
    };
    let task = match task {
        Task::Lifecycle(task) => task,
        Task::Cluster(task) => {
            guard.claim.start();
            if guard.gave_way() {
                return Err(gave_way());
            }
            let request = ClusterRequest { task, target_pod, epoch, client: permit.connection.address };
            return cluster_task::run(context, request, arrived, limit).await;
        }
    };
    let request = Request { task, epoch, number, generation, limit };
    let lifecycle = context.lifecycle.with_claim(guard.claim.clone());
    let reply = submit(&context.id, &context.fence, &lifecycle, target_pod.as_ref(), request, arrived).await;
    if guard.gave_way() {
        return Err(gave_way());
    }
    Ok(reply)
}

fn gave_way() -> ApiError {
    ApiError::unavailable("request not started, clients with fewer pending requests come first: try again later")
}

/// Admits a request and submits it to the lifecycle. Its time limit counts from its arrival; `target_pod` is the pod for which it
/// is, if it names one.
pub async fn submit(
    id: &PodId,
    fence: &Fence,
    lifecycle: &LifecycleHandle,
    target_pod: Option<&PodId>,
    request: Request,
    arrived: Instant,
) -> Reply {
    let limit = request.limit;
    loop {
        match timeout_at(arrived + limit, admit(id, fence, target_pod, request.epoch)).await {
            Ok(Ok(())) => {
                // Views of others say nothing about the leader that was admitted.
                if let Some(view) = request.task.view().filter(|_| request.epoch.is_some()) {
                    fence.locate_leader(view);
                }
            }
            Ok(Err(error)) => return error.into(),
            Err(_) => return ApiError::timed_out(limit, "request not started").into(),
        }
        let left = limit.saturating_sub(arrived.elapsed());
        let request = Request { limit: left, ..request.clone() };
        match timeout_at(arrived + limit + REPLY_MARGIN, lifecycle.submit(request)).await {
            // It waited for so long that the admission is no longer valid.
            Ok(Outcome::EpochUnknown) => {}
            Ok(outcome) => return reply::outcome(outcome, limit),
            Err(_) => return ApiError::timed_out(limit, "request may still be running").into(),
        }
    }
}

/// Rejects a request that is for another pod.
fn expect_target(id: &PodId, target_pod: Option<&PodId>) -> Result<(), ApiError> {
    match target_pod {
        Some(target_pod) if target_pod != id => {
            let error = format!("wrong pod: view is for {:?}, this is {:?}", target_pod.as_str(), id.as_str());
            Err(ApiError::wrong_pod(error, id))
        }
        _ => Ok(()),
    }
}

/// Admits a request that is for this pod and from the current leadership.
pub(super) async fn admit(
    id: &PodId,
    fence: &Fence,
    target_pod: Option<&PodId>,
    epoch: Option<i64>,
) -> Result<(), ApiError> {
    expect_target(id, target_pod)?;
    let Some(epoch) = epoch else { return Ok(()) };
    fence.admit(epoch).await.map_err(|error| match error {
        FenceError::Superseded(_) => ApiError::new(StatusCode::CONFLICT, error.to_string()),
        FenceError::Unknown(ref reason) => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("{error}: {reason}")),
    })
}

fn number<N: FromStr + PartialOrd + Display>(headers: &HeaderMap, name: &str, most: &N) -> Result<Option<N>, ApiError> {
    let Some(text) = body::header(headers, name)? else { return Ok(None) };
    let number = Some(text).filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse().ok());
    let error = || ApiError::bad_request(format!("invalid header {name} {text:?}: expected a number from 0 to {most}"));
    number.filter(|number| number <= most).map(Some).ok_or_else(error)
}

fn generation(headers: &HeaderMap) -> Result<Option<Digest>, ApiError> {
    match body::header(headers, wire::GENERATION)? {
        Some("") => Err(ApiError::bad_request(format!("empty header {}", wire::GENERATION))),
        generation => Ok(generation.map(Digest::from)),
    }
}
