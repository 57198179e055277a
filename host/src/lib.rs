//! The `ochopod` binary as a library: [`app::start`] is all that `main` calls.
//!
//! The crates under `host/crates` contain the functions of the host; `docs/architecture.md` is their map. This crate reads
//! the settings of a pod and connects the crates.
//!
//! Guarantees: invalid usage and settings are reported together, before anything starts; the exit code names the kind of
//! failure. State: the commands own the actors of their pods. Must not know: the internals of any crate.
//!
//! | module | content |
//! |---|---|
//! | [`app`] | the commands: build the actors, connect them, shut them down in order |
//! | [`cli`] | the command line |
//! | [`settings`] | settings of a pod: flags and variables, validated together |

pub mod app;
pub mod cli;
pub mod settings;
