//! `/reset`: a new session with the store. The sub-process keeps running.

use std::time::Duration;

use hyper::StatusCode;
use ochopod_http::Reply;

use super::{
    ApiContext,
    reply::{self, ApiError},
};

/// Time limit for the membership to accept the request.
const RESET_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn reset(context: &ApiContext) -> Result<Reply, ApiError> {
    if context.shutdown.is_cancelled() {
        return Err(ApiError::new(StatusCode::GONE, "pod is shutting down"));
    }
    let accepted = tokio::time::timeout(RESET_TIMEOUT, context.member.reset()).await;
    accepted.map_err(|_| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "session reset not accepted within 10 s: try again")
    })?;
    Ok(reply::ok())
}
