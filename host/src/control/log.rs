//! `/log`: the newest lines.

use hyper::StatusCode;
use serde_json::Value;

use super::{
    Pod,
    reply::{self, Refusal, Reply},
};

pub(super) async fn log(pod: &Pod) -> Result<Reply, Refusal> {
    let tail = pod.log.clone();
    let lines = tokio::task::spawn_blocking(move || tail.lines()).await;
    let lines = lines.map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the log cannot be read"))?;
    Ok(reply::value(StatusCode::OK, &Value::from(lines)))
}
