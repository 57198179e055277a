//! Plugins: WebAssembly components in a sandbox. The only crate that names wasmtime.
//!
//! # Lifetimes and owners
//! - The **process** has one [`Engine`]: wasmtime, the threads of guests, and the clock that interrupts guests.
//! - A **plugin** file is one [`Plugin`]: code that a child process compiled, mapped from a file and shared by many
//!   pods.
//! - A **pod** has one [`Lifecycle`] and one [`Model`]. Each has its own instance, which one task owns; every run of a
//!   tool has a new one. They share a [`PodSandbox`]: the operator's grants and the peers of the latest view.
//!
//! # Guarantees
//! - Guests run on separate threads and yield every 10 ms. A call ends at its deadline, whether it computes or waits.
//! - A callback borrows the view of its cluster. What it does not read is not copied, and nothing is left of it afterwards.
//! - Memory, tables, open resources and the data of one call are limited. Files, network, environment and programs are
//!   denied unless granted; control ports and ZooKeeper are never granted.
//! - A failure discards one instance. An instance that keeps failing is suspended until its budget of rebuilds allows
//!   another one; `/info` and the metrics report that.
//!
//! One thing outlasts a deadline: an operation on a file that never ends (a named pipe in a granted directory, a file
//! system that is stuck) holds one of the threads for files. If all of these are held, new instances are rejected with
//! that reason. Nothing else of the host waits for them.
//!
//! # Boundaries
//! This crate does not decide when callbacks are called, what their errors mean for the pod, or who leads the cluster: that is
//! `ochopod-lifecycle` and `ochopod-leader`.
//!
//! | module | contents |
//! |---|---|
//! | `handle` | [`Plugin`], [`Lifecycle`], [`Model`]: the callbacks |
//! | `engine`, `epoch_ticker` | [`Engine`], the threads that run guests, and the clock that interrupts them |
//! | `plugin_file`, `load`, `compiled` | kind of a plugin file, compilation and cache, mapping of native code |
//! | `wit_version`, `bindings`, `convert` | contract version, generated bindings, conversion of their types |
//! | `cluster` | the view that callbacks borrow |
//! | `worker`, `budget` | task of one instance, budget of rebuilds |
//! | `store`, `limits`, `memory` | store of one instance, its limits, the memory that instances share |
//! | `sandbox`, `grants`, `inspect` | sandbox of one pod, grants of the operator, missing grants |
//! | `policy`, `network_rules`, `loopback_ports`, `resolver` | access decisions, rules for addresses, name resolution |
//! | `imports`, `lookup`, `sockets`, `outgoing`, `request` | host functions: log, process, exec, names, sockets, HTTP |
//! | `guest_log` | log output of a guest |
//! | `slot`, `trial` | [`PluginSlot`]: the plugin that a pod runs, its replacement, and the first calls of a new one |
//! | `settings`, `overrides` | settings as text, and overrides by the operator |
//! | `error` | errors of loading and of calls |

mod bindings;
mod budget;
mod cluster;
mod compiled;
mod convert;
mod engine;
mod epoch_ticker;
mod error;
mod grants;
mod guest_log;
mod handle;
mod imports;
mod inspect;
mod limits;
mod load;
mod lookup;
mod loopback_ports;
mod memory;
mod network_rules;
mod outgoing;
mod overrides;
mod plugin_file;
mod policy;
mod request;
mod resolver;
mod sandbox;
mod settings;
mod slot;
mod sockets;
mod store;
mod trial;
mod wit_version;
mod worker;

use std::{collections::BTreeMap, time::Duration};

pub use compiled::compile;
pub use engine::{Engine, EngineError};
pub use error::{CompiledPluginError, LoadError, PluginError};
pub use grants::{DirectoryGrant, Grants, NetworkGrant};
pub use handle::{Description, Lifecycle, Model, Plugin, PodSandbox, Uploads};
pub use inspect::Inspection;
pub use load::Compiler;
pub use loopback_ports::LoopbackPorts;
pub use network_rules::Endpoint;
pub use overrides::SettingOverride;
pub use sandbox::SandboxConfig;
pub use slot::{PluginCall, PluginSettings, PluginSlot, PodPlugin};

/// Settings of a plugin's lifecycle, after the operator's overrides.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "these are the settings as users know them")]
pub struct LifecycleSettings {
    /// Delay between two sanity checks.
    pub check_every: Duration,
    /// Number of consecutive failed sanity checks that stops the sub-process; at least 1.
    pub checks: u32,
    /// Working directory of the sub-process.
    pub cwd: Option<String>,
    /// Time for the sub-process to exit before it is killed.
    pub grace: Duration,
    /// Whether its output goes to the pod's log.
    pub pipe_subprocess: bool,
    /// Whether its program is text for `/bin/sh -c`.
    pub shell: bool,
    /// Whether it is released instead of killed.
    pub soft: bool,
    /// Whether every configuration restarts it.
    pub strict: bool,
    /// Effect of a configuration with other dependencies on it.
    pub on_change: OnChange,
    /// Time from a start until it must be ready.
    pub ready_within: Duration,
}

/// Effect of a configuration with other dependencies on the running sub-process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnChange {
    /// It is stopped, configured and started.
    #[default]
    Restart,
    /// It is configured while it runs, and restarted only if its command differs.
    Compare,
}

/// Settings of a plugin's model, after the operator's overrides.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSettings {
    /// Number of pods that a configuration stops and starts at a time.
    pub batch: Batch,
    /// Time for which changes are collected before a configuration.
    pub damper: Duration,
    /// Dependencies as declared.
    pub depends_on: Vec<String>,
    /// Whether all pods stop before any starts.
    pub full_shutdown: bool,
    /// Time limit of each request sent by the leader.
    pub grace: Duration,
    /// Delay between two probes.
    pub probe_every: Duration,
    /// Whether pods are handled one after the other.
    pub sequential: bool,
    /// Number of pods that may be left out of a configuration.
    pub tolerate: usize,
}

/// Number of pods that a configuration handles at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Batch {
    /// All of them.
    #[default]
    All,
    /// This many, at least 1.
    Pods(usize),
    /// This percentage of the live pods, from 1 to 100, rounded down to a number of at least 1.
    Percent(u8),
}

impl Batch {
    /// Returns the number for this many live pods.
    #[must_use]
    pub fn of(self, live: usize) -> usize {
        match self {
            Self::All => live,
            Self::Pods(pods) => pods,
            Self::Percent(percent) => live * usize::from(percent) / 100,
        }
        .max(1)
    }
}

/// Command that a plugin's `configure` returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Program, or text for the shell.
    pub program: String,
    /// Arguments.
    pub arguments: Vec<String>,
    /// Variables to add or replace.
    pub environment: BTreeMap<String, String>,
    /// Signal for the process that runs this very command already, by its number.
    pub reload: Option<u8>,
}

impl Command {
    /// Returns whether a process of this command is one of the other as well. Their signals are not compared.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.program, &self.arguments, &self.environment) == (&other.program, &other.arguments, &other.environment)
    }
}

/// Directory that a plugin requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedDirectory {
    /// Path in the guest.
    pub guest: String,
    /// Whether the guest writes to it.
    pub writable: bool,
}

/// Requests of a plugin beyond its sandbox.
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

/// Command that clients run inside the pod with `POST /exec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Name, one word.
    pub name: String,
    /// One-line description.
    pub help: String,
}

/// Result of a tool run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutput {
    /// 0 for success, by custom.
    pub code: i32,
    /// Lines without their ends.
    pub stdout: Vec<String>,
}

/// Returns the longest prefix of at most this many bytes.
fn truncate(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}
