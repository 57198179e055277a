//! `/log`: the newest log lines.

use std::time::Duration;

use hyper::StatusCode;
use ochopod_http::Reply;
use ochopod_model::reply::LogReply;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use super::{
    ApiContext,
    reply::{self, ApiError},
};

/// Time limit for reading the file, other readers included: after that the lines come from memory.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Limits concurrent readers of log files: a disk that does not respond blocks no further threads.
static READERS: Semaphore = Semaphore::const_new(4);

pub(super) async fn log(context: &ApiContext) -> Result<Reply, ApiError> {
    let tail = context.log.clone();
    let read = async move {
        let Ok(permit) = READERS.acquire().await else { return None };
        let lines = spawn_blocking(move || {
            let lines = tail.lines();
            drop(permit);
            lines
        });
        lines.await.ok()
    };
    let lines = timeout(READ_TIMEOUT, read).await.ok().flatten().unwrap_or_else(|| context.log.newest());
    Ok(reply::json(StatusCode::OK, &LogReply(lines)))
}
