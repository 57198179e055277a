//! `/reset`: a new session with the store, the sub-process left alone.

use std::time::Duration;

use hyper::StatusCode;

use super::{
    Pod,
    reply::{self, Refusal, Reply},
};

/// How long the membership may take to take the request.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn reset(pod: &Pod) -> Result<Reply, Refusal> {
    let taken = tokio::time::timeout(LIMIT, pod.member.reset()).await;
    taken.map_err(|_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the membership is busy: try again"))?;
    Ok(reply::ok())
}
