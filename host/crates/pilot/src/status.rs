//! Reply to `GET /status`.

use serde::Serialize;
use tokio::sync::watch;

use super::{
    actor_handle::ActorHandle,
    config::{Backend, Coprocess, Service, Task},
    coprocess::{CoprocessReport, CoprocessState},
};

/// Current actors and their reports. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct StatusView {
    services: Vec<(Service, watch::Receiver<&'static str>)>,
    backends: Vec<(Backend, watch::Receiver<usize>)>,
    tasks: Vec<Task>,
    coprocesses: Vec<(Coprocess, watch::Receiver<CoprocessReport>)>,
}

impl StatusView {
    pub(super) fn new<L1, L2, L3, L4>(
        services: &[ActorHandle<Service, &'static str, L1>],
        backends: &[ActorHandle<Backend, usize, L2>],
        tasks: &[ActorHandle<Task, (), L3>],
        coprocesses: &[ActorHandle<Coprocess, CoprocessReport, L4>],
    ) -> Self {
        Self {
            services: listed(services),
            backends: listed(backends),
            tasks: tasks.iter().map(|handle| handle.what.clone()).collect(),
            coprocesses: listed(coprocesses),
        }
    }

    /// Returns the current status.
    #[must_use]
    pub fn status(&self) -> Status {
        let service = |(service, status): &(Service, watch::Receiver<&'static str>)| ServiceStatus {
            name: service.name.clone(),
            address: service.address.to_string(),
            port: service.port,
            status: *status.borrow(),
        };
        let watched = |(backend, count): &(Backend, watch::Receiver<usize>)| WatchStatus {
            name: backend.name.clone(),
            tag: backend.tag.clone(),
            healthy: *count.borrow(),
        };
        let coprocess = |(coprocess, progress): &(Coprocess, watch::Receiver<CoprocessReport>)| {
            let CoprocessReport { state, starts } = *progress.borrow();
            CoprocessStatus {
                name: coprocess.name.clone(),
                status: match state {
                    CoprocessState::Running => "running",
                    CoprocessState::Waiting => "waiting",
                    CoprocessState::Ended => "ended",
                },
                restarts: starts.saturating_sub(1),
            }
        };
        Status {
            version: env!("CARGO_PKG_VERSION"),
            services: self.services.iter().map(service).collect(),
            watches: self.backends.iter().map(watched).collect(),
            tasks: self.tasks.iter().map(|task| task.name.clone()).collect(),
            coprocesses: self.coprocesses.iter().map(coprocess).collect(),
        }
    }
}

fn listed<T: Clone, Report, FinalState>(
    handles: &[ActorHandle<T, Report, FinalState>],
) -> Vec<(T, watch::Receiver<Report>)> {
    handles.iter().map(|handle| (handle.what.clone(), handle.report.clone())).collect()
}

/// Status of all actors, in the format of ContainerPilot 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// Version of the host.
    pub version: &'static str,
    /// Services.
    pub services: Vec<ServiceStatus>,
    /// Backends.
    pub watches: Vec<WatchStatus>,
    /// Names of the tasks.
    pub tasks: Vec<String>,
    /// Coprocesses.
    pub coprocesses: Vec<CoprocessStatus>,
}

/// Status of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// `healthy`, `unhealthy`, `maintenance`, or `unknown` before its first check.
    pub status: &'static str,
}

/// Status of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct WatchStatus {
    /// The service that is watched.
    pub name: String,
    /// Only instances with this tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Number of healthy instances at the last query.
    pub healthy: usize,
}

/// Status of a coprocess.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CoprocessStatus {
    /// Its name.
    pub name: String,
    /// `running`, `waiting` for a restart, or `ended`.
    pub status: &'static str,
    /// Number of restarts.
    pub restarts: u64,
}
