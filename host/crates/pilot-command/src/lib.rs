//! `ochopod pilot` and the binary `ochopod-pilot`: a command, or none, with services, hooks and telemetry as in
//! ContainerPilot 2. No plugin, no engine, no cluster.
//!
//! Guarantees: invalid flags and configurations are reported before anything starts; the exit code is that of the
//! application. State: the command owns its [`Pilot`](ochopod_pilot::Pilot) and its init. Must not know: pods, plugins and
//! clusters; the host builds the services around a pod with the same [`PilotBuilder`].
//!
//! | module | contents |
//! |---|---|
//! | `arguments` | flags in the syntax of Go; the command line of the binary |
//! | `command` | the command: validates, prints, or runs the application to its exit |
//! | `builder` | from a loaded configuration to the services around an application |
//! | `stop_time` | remaining time once the application was terminated |
//! | `error` | errors that prevent the start, and their exit codes |

mod arguments;
mod builder;
mod command;
mod error;
mod stop_time;

pub use self::{
    arguments::{PilotArgs, StandaloneArgs, normalize_go_flags},
    builder::PilotBuilder,
    command::{load_for_pod, pilot},
    error::PilotError,
};
