//! What runs around an application by itself, with real processes and a place in memory.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "these are tests")]

mod backends;
mod coprocesses;
mod kit;
mod place;
mod programs;
mod reload;
mod routines;
mod services;
