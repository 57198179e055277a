//! Placeholder.
pub mod backoff;
pub mod cli;
pub mod cluster;
pub mod control;
pub mod coord;
pub mod init;
pub mod leader;
pub mod lifecycle;
pub mod plugin;
pub mod process;
pub mod settings;
pub mod status;
pub mod telemetry;
