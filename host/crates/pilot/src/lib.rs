//! Service registration, health checks, backends, tasks, coprocesses, hooks and telemetry around an application, as in
//! ContainerPilot 2: for a plain command (`ochopod pilot`), and for any pod (`ochopod run PLUGIN --config FILE`).
//!
//! # Guarantees
//! - Every service that was registered is deregistered before the application is terminated, within a limit.
//! - No program outlives its time limit, and none delays the shutdown past its share of it.
//! - A reload applies completely or not at all; whatever it does not change keeps its timers, counts and registrations.
//! - On one host, an ID in a registry is registered by one process at a time.
//!
//! # State
//! [`Pilot`] owns the configuration in force and accompanies one application from `preStart` to the exit; its pure state
//! machine decides the order. [`ActorSet`] owns one actor for each service, backend, task, coprocess and sensor. No actor
//! waits for another one.
//!
//! # Limits
//! This crate does not know plugins, clusters, leaders or the control API. A pod is a [`LifecycleReport`] to it, and an
//! [`Application`] that something else starts.
//!
//! [`LifecycleReport`]: ochopod_model::status::LifecycleReport
//!
//! | module | contents |
//! |---|---|
//! | [`config`] | content of a configuration |
//! | `config_loader`, `load` | from the source of a configuration to the configuration, at the start and at each reload, on another thread |
//! | `machine`, `actor` | lifetime of the application: pure state machine; actor that applies its effects and handles signals |
//! | `application` | the application that is accompanied |
//! | `actor_set`, `actor_handle` | the actors: changes by a new configuration, maintenance, shutdown |
//! | `service_machine`, `service_actor`, `claim` | one service: pure state machine; actor that checks it every `poll`, registers it and renews its TTL; its ID, which one process registers |
//! | `known_instances`, `backend_watcher` | one backend: what counts as a change; actor that queries it and runs `onChange` |
//! | `change`, `render` | input of `onChange`, which `backend_watcher` runs; the file that is rendered before it |
//! | `restart_backoff`, `coprocess` | one coprocess: restart policy; actor that runs it |
//! | `interval`, `periodic` | tasks and sensors |
//! | `log` | log in ContainerPilot's formats |
//! | `metrics`, `sensors` | counters, and values of sensors |
//! | `runner`, `purpose`, `environment` | execution of programs, their purpose, their environment |
//! | `shortage` | retries of starts that fail for lack of resources |
//! | `status` | reply to `GET /status` |
//! | `telemetry_endpoint`, `telemetry_server` | listener of the telemetry, and its HTTP server, which answers `/metrics` and `/status` |

mod actor;
mod actor_handle;
mod actor_set;
mod application;
mod backend_watcher;
mod change;
mod claim;
pub mod config;
mod config_loader;
mod coprocess;
mod environment;
mod interval;
mod known_instances;
mod load;
mod log;
mod machine;
mod metrics;
mod periodic;
mod purpose;
mod render;
mod restart_backoff;
mod runner;
mod sensors;
mod service_actor;
mod service_machine;
mod shortage;
mod status;
mod telemetry_endpoint;
mod telemetry_server;

pub use self::{
    actor::{Pilot, PilotSignals},
    actor_set::{ActorContext, ActorSet, OpenRegistry},
    application::{Application, ApplicationSignal, RunningApplication},
    claim::Claims,
    config_loader::{ConfigLoadError, ConfigLoader},
    environment::Environment,
    load::Loaded,
    log::{PilotLog, PreparedLogging},
    metrics::{PilotMetrics, ReloadResult, RunResult},
    purpose::Purpose,
    runner::{RunOutcome, Runner},
    status::{CoprocessStatus, ServiceStatus, Status, StatusView, WatchStatus},
    telemetry_endpoint::{MetricsPage, Rebind, TelemetryBindError, TelemetryEndpoint, TelemetryHandlers},
};
