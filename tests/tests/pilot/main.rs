//! `ochopod pilot` as an operator uses it: the real binary, a fake agent that can fail, and other real servers.
//!
//! Scenarios run concurrently, each in its own environment.

#![allow(clippy::indexing_slicing, reason = "a test may panic")]
#![allow(missing_docs, reason = "the names of the tests say it")]

mod backends;
mod change_data;
mod check;
mod edge_cases;
mod exit_codes;
mod health;
mod logging;
mod maintenance;
mod nginx;
mod pilot_env;
mod pods;
mod privileges;
mod registration;
mod registries;
mod reload;
mod reload_safety;
mod same_service;
mod secrets;
mod shutdown;
mod signals;
mod tasks;
mod telemetry;
mod terminal;
mod usage;

/// An application that exits on SIGTERM.
const SLEEP: &str = "exec sleep 86400";
/// One that exits with code 0 on SIGTERM.
const OBEDIENT: &str = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
/// One that exits only on SIGKILL.
const STUBBORN: &str = "trap '' TERM; while :; do sleep 0.05; done";
