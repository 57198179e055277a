//! What `GET /status` tells of the crew.

use serde::Serialize;
use tokio::sync::watch;

use super::{
    config::{Backend, Coprocess, Service, Task},
    coprocess::{Progress, State},
    member::Member,
};

/// Who is at work at present, and what each says about itself. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    services: Vec<(Service, watch::Receiver<&'static str>)>,
    backends: Vec<(Backend, watch::Receiver<usize>)>,
    tasks: Vec<Task>,
    coprocesses: Vec<(Coprocess, watch::Receiver<Progress>)>,
}

impl Roster {
    pub(super) fn new<L1, L2, L3, L4>(
        services: &[Member<Service, &'static str, L1>],
        backends: &[Member<Backend, usize, L2>],
        tasks: &[Member<Task, (), L3>],
        coprocesses: &[Member<Coprocess, Progress, L4>],
    ) -> Self {
        Self {
            services: listed(services),
            backends: listed(backends),
            tasks: tasks.iter().map(|member| member.what.clone()).collect(),
            coprocesses: listed(coprocesses),
        }
    }

    /// How everybody does now.
    #[must_use]
    pub fn status(&self) -> Status {
        let service = |(service, word): &(Service, watch::Receiver<&'static str>)| ServiceStatus {
            name: service.name.clone(),
            address: service.address.to_string(),
            port: service.port,
            status: *word.borrow(),
        };
        let watched = |(backend, count): &(Backend, watch::Receiver<usize>)| WatchStatus {
            name: backend.name.clone(),
            tag: backend.tag.clone(),
            healthy: *count.borrow(),
        };
        let coprocess = |(coprocess, progress): &(Coprocess, watch::Receiver<Progress>)| {
            let Progress { state, starts } = *progress.borrow();
            CoprocessStatus {
                name: coprocess.name.clone(),
                status: match state {
                    State::Running => "running",
                    State::Waiting => "waiting",
                    State::Ended => "ended",
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

fn listed<T: Clone, Report, Legacy>(members: &[Member<T, Report, Legacy>]) -> Vec<(T, watch::Receiver<Report>)> {
    members.iter().map(|member| (member.what.clone(), member.report.clone())).collect()
}

/// How the crew does, spelled as ContainerPilot 3 spells its status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// That of the host.
    pub version: &'static str,
    /// What is registered, or will be.
    pub services: Vec<ServiceStatus>,
    /// What is watched.
    pub watches: Vec<WatchStatus>,
    /// Names of what runs again and again.
    pub tasks: Vec<String>,
    /// What runs beside the application.
    pub coprocesses: Vec<CoprocessStatus>,
}

/// How a service does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Where it is reached.
    pub address: String,
    /// Where it is reached.
    pub port: u16,
    /// `healthy`, `unhealthy`, `maintenance`, or `unknown` before its first check.
    pub status: &'static str,
}

/// How a backend does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct WatchStatus {
    /// The service that is watched.
    pub name: String,
    /// Only instances with this tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// How many instances were healthy at the last look.
    pub healthy: usize,
}

/// How a coprocess does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CoprocessStatus {
    /// Its name.
    pub name: String,
    /// `running`, `waiting` to be started again, or `ended`.
    pub status: &'static str,
    /// How often it was started again.
    pub restarts: u64,
}
