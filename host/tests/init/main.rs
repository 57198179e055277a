//! The init thread with real processes. All tests share one init, as there is one per process.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "these are tests")]

mod children;
mod kit;
mod nested_host;
mod run;
