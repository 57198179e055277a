//! Services around an application, with real processes and a registry in memory.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "these are tests")]

mod backends;
mod changes;
mod coprocesses;
mod kit;
mod memory_registry;
mod periodic;
mod programs;
mod reload;
mod services;
mod starts;
