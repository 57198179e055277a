//! Services around an application, as ContainerPilot 2 has them: registration, health checks, backends, tasks, coprocesses,
//! hooks and telemetry. For a plain command (`ochopod pilot`), and for any pod (`ochopod run PLUGIN --config FILE`).

mod actor;
mod application;
pub mod config;
mod loader;
mod machine;
mod outlet;

pub use self::{
    actor::{Orders, Pilot},
    application::{Application, Started, Wish},
    loader::{LoadError, Loader},
    outlet::{Outlet, OutletError, Shown},
};
