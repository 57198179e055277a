//! Services around an application, as ContainerPilot 2 has them: registration, health checks, backends, tasks, coprocesses,
//! hooks and telemetry. For a plain command (`ochopod pilot`), and for any pod (`ochopod run PLUGIN --config FILE`).
//!
//! [`Pilot`] accompanies one application from `preStart` to the end; its pure machine decides in which order. [`Crew`] owns
//! an actor for each service, backend, task, coprocess and sensor of the present configuration. None of them waits for
//! another one, and none makes the end of the host wait.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | what a configuration says |
//! | `loader` | from where a configuration is to the configuration: at the start and at each reload |
//! | `machine`, `actor` | the application's life: the pure machine, and the actor that carries it out and obeys signals |
//! | `application` | what is accompanied |
//! | `crew`, `member` | who is at work: what a new configuration changes, maintenance, the end |
//! | `standing`, `service` | one service: the pure machine, and the actor that checks and registers |
//! | `memory`, `backend` | one backend: what counts as a change, and the actor that looks and reacts |
//! | `restarts`, `coprocess` | one coprocess: when it is started again, and the actor that does so |
//! | `cadence`, `routine` | tasks and sensors |
//! | `runner`, `purpose`, `environment` | how programs are run, what for, and what they find in their environment |
//! | `roster` | what `GET /status` tells |
//! | `outlet`, `exposition` | where the telemetry is served, and its server |

mod actor;
mod application;
mod backend;
mod cadence;
pub mod config;
mod coprocess;
mod crew;
mod environment;
mod exposition;
mod loader;
mod machine;
mod member;
mod memory;
mod outlet;
mod purpose;
mod restarts;
mod roster;
mod routine;
mod runner;
mod service;
mod standing;

pub use self::{
    actor::{Orders, Pilot},
    application::{Application, Started, Wish},
    crew::{Crew, Means, Open},
    environment::Environment,
    loader::{LoadError, Loader},
    outlet::{Outlet, OutletError, Page, Shown},
    purpose::Purpose,
    roster::{CoprocessStatus, Roster, ServiceStatus, Status, WatchStatus},
    runner::{Outcome, Runner},
};
