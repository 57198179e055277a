//! Plugins: WebAssembly components in a sandbox. The only module that names wasmtime.

use std::{collections::BTreeMap, time::Duration};

/// Settings of a plugin's lifecycle, after the operator's overrides.
#[derive(Debug, Clone, PartialEq)]
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
