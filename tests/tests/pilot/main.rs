//! What users of `ochopod pilot` see: the real binary, an agent that can be told to fail, and other real servers.
//!
//! Scenarios run side by side, each in a corner of its own.

#![allow(clippy::indexing_slicing, reason = "a test may panic")]
#![allow(missing_docs, reason = "the names of the tests say it")]

mod backends;
mod corner;
mod edges;
mod endings;
mod health;
mod leaving;
mod logging;
mod maintenance;
mod nginx;
mod places;
mod pods;
mod registration;
mod reload;
mod tasks;
mod telemetry;
mod usage;

/// An application that TERM ends.
const SLEEP: &str = "exec sleep 86400";
/// One that ends with code 0 when it is asked.
const OBEDIENT: &str = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
/// One that only KILL ends.
const STUBBORN: &str = "trap '' TERM; while :; do sleep 0.05; done";
