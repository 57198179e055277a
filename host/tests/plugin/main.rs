//! Real components in the real sandbox: permissions, limits, and consequences of exceeding them.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test")]

mod calls;
mod connecting;
mod kit;
mod loading;
mod misbehaviour;
mod reload;
mod sandbox;
mod view;
