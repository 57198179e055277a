//! Plugins: WebAssembly components in a sandbox. The only module that names wasmtime.
//!
//! # Three lifetimes
//! - The **process** has one [`Engine`]: wasmtime, the guests' own threads, and the clock that interrupts guests.
//! - A **plugin** file is one [`Plugin`]: code that was compiled by a child process and is mapped from a file, so that
//!   many pods share it.
//! - A **pod** has one [`Lifecycle`] and one [`Model`], each with an instance of its own that one task owns; a tool runs
//!   in a fresh one. [`Pod`] is what they share: the operator's grants and what is known of the peers.
//!
//! # What a guest cannot do
//! Guests run on threads apart from the host's, and yield every 10 ms. A call is over at its deadline, computing or
//! waiting. Memory, tables, open resources and what one call carries are bounded. Files, network, environment and programs
//! are denied unless granted. A failure costs one instance; instances that keep failing wait for a budget of rebuilds, and
//! `/info` and the metrics say so meanwhile.
//!
//! One thing outlasts its deadline: an operation on a file that never ends (a named pipe in a granted directory, a file
//! system that is stuck) holds one of the guests' threads for files. When all of these are held, new instances are refused
//! with that reason; nothing else of the host waits for them.

mod artefact;
mod bindings;
mod budget;
mod convert;
mod engine;
mod error;
mod gate;
mod handle;
mod imports;
mod inspect;
mod limits;
mod load;
mod names;
mod network;
mod outgoing;
mod output;
mod overrides;
mod sandbox;
mod source;
mod store;
mod ticker;
mod worker;
mod world;

pub use artefact::compile;
pub use engine::{Engine, EngineError};
pub use error::{ArtefactError, LoadError, PluginError};
pub use handle::{Description, Lifecycle, Model, Plugin, Pod, Uploads};
pub use inspect::Inspection;
pub use load::Compiler;
pub use network::Endpoint;
pub use overrides::Override;
pub use sandbox::Services;

use std::{collections::BTreeMap, time::Duration};

/// Settings of a plugin's lifecycle, after the operator's overrides.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "these are the settings as users know them")]
pub struct LifecycleSettings {
    /// Delay between two sanity checks.
    pub check_every: Duration,
    /// Sanity checks in a row that may fail before the sub-process is turned off; at least 1.
    pub checks: u32,
    /// Working directory of the sub-process.
    pub cwd: Option<String>,
    /// How long the sub-process may take to end.
    pub grace: Duration,
    /// Whether its output goes to the pod's log.
    pub pipe_subprocess: bool,
    /// Whether its program is text for `/bin/sh -c`.
    pub shell: bool,
    /// Whether it is released instead of killed.
    pub soft: bool,
    /// Whether every configuration restarts it.
    pub strict: bool,
}

/// Settings of a plugin's model, after the operator's overrides.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSettings {
    /// How long changes are gathered before a configuration.
    pub damper: Duration,
    /// Dependencies as declared.
    pub depends_on: Vec<String>,
    /// Whether all pods stop before any starts.
    pub full_shutdown: bool,
    /// Limit of each request of the leader's.
    pub grace: Duration,
    /// Delay between two probes.
    pub probe_every: Duration,
    /// Whether pods are handled one after the other.
    pub sequential: bool,
}

/// What a plugin's `configure` returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Program, or text for the shell.
    pub program: String,
    /// Arguments.
    pub arguments: Vec<String>,
    /// Variables to add or replace.
    pub environment: BTreeMap<String, String>,
}

/// A directory that a plugin wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedDirectory {
    /// Path under which it expects it.
    pub guest: String,
    /// Whether it writes to it.
    pub writable: bool,
}

/// What a plugin needs beyond its sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// Directories.
    pub directories: Vec<WantedDirectory>,
    /// Addresses, as the operator would grant them.
    pub network: Vec<String>,
    /// Programs to run.
    pub programs: Vec<String>,
    /// Environment variables.
    pub environment: Vec<String>,
}

/// A command that people may run inside the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Its name: one word.
    pub name: String,
    /// One line for people.
    pub help: String,
}

/// What a tool gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutput {
    /// 0 for success, by custom.
    pub code: i32,
    /// Lines without their ends.
    pub stdout: Vec<String>,
}

/// The longest prefix of at most this many bytes.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}
