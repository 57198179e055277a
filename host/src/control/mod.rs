//! The control API: HTTP/1.1 with JSON, on the control port.
//!
//! | request | answered by | reply |
//! |---|---|---|
//! | `GET`, `POST /info` | `info` | 200: what the pod is |
//! | `GET`, `POST /log` | `log` | 200: the newest lines |
//! | `POST /reset` | `reset` | 200: the session is dropped and the pod registers again |
//! | `POST /control/<task>[/<seconds>]` | `task` | what the lifecycle says: 200, 406, 408, 409, 410, 500; 503 where the lock holder is unknown |
//! | `POST /exec` | `exec` | 200: what a tool of the plugin printed; 404 for no such tool, 410 for a dead or leaving pod, 503 when 8 run |
//! | `GET /healthz` | `health` | 200: this process serves |
//! | `GET /readyz` | `health` | 200 once registered and configured, else 503 with the reason |
//! | `GET /metrics` | `health` | 200: Prometheus text |
//!
//! `access` has who may ask for what, `crowd` who gives way when too many do.
//!
//! Order of answers: 404 and 405 · 401 and 403 (409 for what a leader signed for another pod) · 503 when too much is asked
//! at once · 400 for task, limit or headers · 413 · 401 for a body that was not signed, or comes again · 400 for the body ·
//! 409 and 503 · 410 · the task.
//! Every reply but `/metrics` is JSON, errors are `{"error", "callback"?, "blame"?}`. A request that is refused changes
//! nothing.

mod access;
mod body;
mod crowd;
mod exec;
mod health;
mod info;
mod log;
mod replay;
mod reply;
mod reset;
mod route;
mod server;
mod task;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use task::ask;

pub use exec::{ToolOutput, ToolRun, Tools, Uploads};
pub use health::page;
pub use server::serve;

/// What the server of another page needs too.
pub(crate) use self::{
    reply::{JSON, PROMETHEUS, Reply, body as reply_with},
    server::{accept, converse},
};

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{PodId, Token},
    coord::Member,
    lifecycle::{Fence, LifecycleHandle},
    status::{LeaderReport, LifecycleReport, PluginReport},
    telemetry::{LogTail, Metrics, PilotMetrics},
};

/// What the handlers may use of one pod, and nothing more.
pub struct Pod {
    /// Its identity.
    pub id: PodId,
    /// What has to be shown by those who ask for more than to look, if anything has.
    pub token: Option<Token>,
    /// What it registers, but for its `seq`.
    pub registration: Map<String, Value>,
    /// Its dependencies, as its model declares them.
    pub dependencies: Vec<String>,
    /// Where control requests go.
    pub lifecycle: LifecycleHandle,
    /// Which leaderships are obeyed.
    pub fence: Arc<Fence>,
    /// Its membership of the cluster.
    pub member: Member,
    /// What the lifecycle says.
    pub lifecycle_report: watch::Receiver<LifecycleReport>,
    /// What the leader says.
    pub leader_report: watch::Receiver<LeaderReport>,
    /// What the plugin's instances say.
    pub plugin_report: watch::Receiver<PluginReport>,
    /// The plugin's tools.
    pub tools: Tools,
    /// The newest lines of the log.
    pub log: LogTail,
    /// Its counters.
    pub metrics: Arc<Metrics>,
    /// Those of the services around it, where it has any.
    pub pilot: Option<Arc<PilotMetrics>>,
    /// Whether it is leaving: no tool runs any more.
    pub leaving: CancellationToken,
}
