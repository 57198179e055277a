//! The commands of the binary: they read settings, build and connect the actors, and return an exit code.
//!
//! | module | content |
//! |---|---|
//! | [`start`](start()) | runs the command of the command line; maps errors to exit codes |
//! | `pilot_services`, `no_pilot_services` | services, hooks and telemetry around a pod; their stand-in in builds without pilot |
//! | `host_context` | state shared by all pods of a process: init, engine, plugin, store |
//! | `pod` | one pod: builds and connects its actors, waits, shuts down in order |
//! | `background_tasks` | tasks that pass the state of a pod on |
//! | `shutdown` | graceful and forced shutdown, deadlines of its steps |
//! | `reload` | replaces the plugin of a pod |
//! | `control_listener` | the listener of the control port |
//! | `tools` | tools of `POST /exec` |
//! | `settings_json` | settings of a plugin as JSON |
//! | `run`, `up`, `check`, `compile` | the commands |

mod background_tasks;
mod check;
mod compile;
mod control_listener;
mod error;
mod host_context;
#[cfg(not(feature = "pilot"))]
mod no_pilot_services;
#[cfg(feature = "pilot")]
mod pilot_services;
mod pod;
mod reload;
mod run;
mod settings_json;
mod shutdown;
mod start;
mod tools;
mod up;

pub use start::start;
