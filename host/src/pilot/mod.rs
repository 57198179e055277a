//! Services around an application, as ContainerPilot 2 has them: registration, health checks, backends, tasks, coprocesses,
//! hooks and telemetry. For a plain command (`ochopod pilot`), and for any pod (`ochopod run PLUGIN --config FILE`).

pub mod config;
pub mod exposition;
