//! The control API: HTTP/1.1 with JSON, on the control port.
//!
//! | request | module | reply |
//! |---|---|---|
//! | `GET`, `POST /info` | `info` | 200: state of the pod |
//! | `GET`, `POST /log` | `log` | 200: the newest lines |
//! | `POST /reset` | `reset` | 200: the session is dropped and the pod registers again; 410 if the pod is shutting down |
//! | `POST /reload` | `reload` | 200: the plugin is replaced; 406 for one that is rejected, 409 during another reload |
//! | `POST /control/<task>[/<seconds>]` | `task`, `cluster_task` | outcome of the task: 200, 406, 408, 409, 410, 412, 500; 503 if the lock holder is unknown or the machine lacks resources |
//! | `POST /exec` | `exec` | 200: output of a tool of the plugin; 404 for an unknown tool, 410 if the pod is dead or shutting down, 503 if 8 run |
//! | `GET /healthz` | `monitoring` | 200 while this process serves |
//! | `GET /readyz` | `monitoring` | 200 while the pod is ready, else 503 with the reason |
//! | `GET /metrics` | `monitoring` | 200: Prometheus text |
//! | `HEAD` instead of `GET` | the same | the head of the same reply |
//! | `OPTIONS` of a path above | `server` | 204 with the header `Allow`; 404 for any other path |
//!
//! Guarantees: a rejected request changes nothing; clients are limited separately, so that none keeps others or a leader out;
//! no request of an earlier leadership is executed after one of a later. Replies except `/metrics` are JSON, and their types are
//! in `ochopod_model::reply`.
//!
//! Order of checks: 404 and 405 · 401 and 403 (409 for a request that a leader signed for another pod) · 503 if there are too
//! many requests · 400 for task, limit or headers · 413 · 401 for a body that was not signed, or a replay · 400 for the body, 412 for
//! a named view that the pod does not hold · 409 and 503 · 410 · the task.
//!
//! The server owns limits, signatures in use and the views that the pod holds, which pods of one process share. The state of the pod belongs to the actors, whose reports it reads; what a
//! task does is unknown here.
//!
//! | other modules | content |
//! |---|---|
//! | `auth` | which client may send which request |
//! | `request_limiter`, `pending_requests` | limits of requests, of bodies being read, and of requests that wait |
//! | `body`, `task_body` | bounded reading of bodies; bodies of tasks |
//! | `pod_views` | the views that the pod holds, which requests may name |
//! | `replay_guard` | signatures in use |
//! | `route`, `reply` | paths and methods; status codes and bodies |

mod auth;
mod body;
mod cluster_task;
mod exec;
mod info;
mod log;
mod monitoring;
mod pending_requests;
mod pod_views;
mod reload;
mod replay_guard;
mod reply;
mod request_limiter;
mod reset;
mod route;
mod server;
mod task;
mod task_body;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use exec::{ExecOutput, ExecRequest, Tools, UploadDir};
pub use monitoring::metrics_page;
use ochopod_client::Client;
use ochopod_lifecycle::{Fence, LifecycleHandle};
use ochopod_model::{
    PodId, Registration, Token,
    status::{LeaderReport, LifecycleReport, PlatformReport, PluginIdentity, PluginReport},
};
use ochopod_store::MembershipHandle;
use ochopod_telemetry::{LogTail, Metrics};
pub use pod_views::{PodViews, SharedViews, ViewHeaders, ViewReadError};
pub use reload::{PostedComponent, ReloadError, ReloadRequest, Reloads};
use serde_json::{Map, Value};
pub use server::serve;
pub use task::submit;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Returns text in Prometheus' format, of families that the pod's own page does not have.
pub type FurtherMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// The parts of one pod that the handlers use.
pub struct ApiContext {
    /// Its identity.
    pub id: PodId,
    /// The token that clients have to send for requests with an effect, if there is one.
    pub token: Option<Token>,
    /// Its registration, without its `seq`.
    pub registration: Map<String, Value>,
    /// Its dependencies, as its model declares them.
    pub dependencies: Vec<String>,
    /// Executes control requests.
    pub lifecycle: LifecycleHandle,
    /// Determines which leadership is accepted.
    pub fence: Arc<Fence>,
    /// The views that it holds.
    pub views: PodViews,
    /// Its membership of the cluster.
    pub member: MembershipHandle,
    /// Sends requests to the other pods of the cluster.
    pub peers: Client,
    /// Report of the lifecycle.
    pub lifecycle_report: watch::Receiver<LifecycleReport>,
    /// Report of the leader.
    pub leader_report: watch::Receiver<LeaderReport>,
    /// Report of the plugin's instances.
    pub plugin_report: watch::Receiver<PluginReport>,
    /// The plugin in force.
    pub plugin: watch::Receiver<PluginIdentity>,
    /// Its settings in force, as `/info` reports them.
    pub settings: watch::Receiver<Map<String, Value>>,
    /// Its platform, and the sources of its values.
    pub platform: watch::Receiver<PlatformReport>,
    /// The plugin's tools.
    pub tools: Tools,
    /// Replaces the plugin.
    pub reloads: Reloads,
    /// The newest lines of the log.
    pub log: LogTail,
    /// Its counters.
    pub metrics: Arc<Metrics>,
    /// Further families of its metrics page, if there are any.
    pub further_metrics: Option<FurtherMetrics>,
    /// Cancelled when the pod shuts down: no tool starts any longer.
    pub shutdown: CancellationToken,
}

impl ApiContext {
    /// Returns the address of the pod's control API, as other pods use it; none if it is invalid.
    pub(crate) fn control_address(&self) -> Option<String> {
        let mut fields = self.registration.clone();
        fields.insert("seq".to_owned(), 0.into());
        Registration::from_fields(fields).ok()?.control_address().ok()
    }
}
