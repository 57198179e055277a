//! Services around an application, as ContainerPilot 2 has them: registration, health checks, backends, tasks, coprocesses,
//! hooks and telemetry. For a plain command (`ochopod pilot`), and for any pod (`ochopod run PLUGIN --config FILE`).
//!
//! [`Crew`] owns an actor for each service, backend, task, coprocess and sensor of the present configuration. None of them
//! waits for another one, and none makes the end of the host wait.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | what a configuration says |
//! | `crew`, `member` | who is at work: what a new configuration changes, maintenance, the end |
//! | `standing`, `service` | one service: the pure machine, and the actor that checks and registers |
//! | `memory`, `backend` | one backend: what counts as a change, and the actor that looks and reacts |
//! | `restarts`, `coprocess` | one coprocess: when it is started again, and the actor that does so |
//! | `cadence`, `routine` | tasks and sensors |
//! | `runner`, `purpose`, `environment` | how programs are run, what for, and what they find in their environment |
//! | `roster` | what `GET /status` tells |

mod backend;
mod cadence;
pub mod config;
mod coprocess;
mod crew;
mod environment;
mod member;
mod memory;
mod purpose;
mod restarts;
mod roster;
mod routine;
mod runner;
mod service;
mod standing;

pub use self::{
    crew::{Crew, Means, Open},
    environment::Environment,
    purpose::Purpose,
    roster::{CoprocessStatus, Roster, ServiceStatus, Status, WatchStatus},
    routine::Record,
    runner::{Outcome, Runner},
};
