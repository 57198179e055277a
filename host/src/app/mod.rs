//! The binary's commands: settings in, actors wired up, an exit code out.
//!
//! | module | what it does |
//! |---|---|
//! | [`start`](start()) | from the command line to a command, and from errors to exit codes |
//! | `accompany` | services, hooks and telemetry around a command or a pod |
//! | `house` | what all pods of a process share: init, engine, plugin, store |
//! | `pod` | one pod: builds its actors, hands each what it needs, waits, leaves in order |
//! | `run`, `up`, `check`, `compile`, `pilot` | the commands |

mod accompany;
mod check;
mod compile;
mod error;
mod house;
mod pilot;
mod pod;
mod run;
mod start;
mod tools;
mod up;

pub use start::start;
