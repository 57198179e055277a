//! Real components in the real sandbox: what a plugin can do, what it cannot, and what happens to it when it tries.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test")]

mod calls;
mod kit;
mod loading;
mod misbehaviour;
mod sandbox;
