//! Errors of plugins: while one is loaded, and while it is called.

use std::{io, path::PathBuf, time::Duration};

use ochopod_model::status::Blame;

/// Error of loading a plugin. The plugin is at fault, except with [`LoadError::Sandbox`] and [`LoadError::Store`].
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read plugin {path}")]
    Read {
        /// The plugin.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// The path names a directory, a device or a pipe.
    #[error("plugin {path} is not a regular file")]
    NotAFile {
        /// The plugin.
        path: PathBuf,
    },
    /// The file is too large.
    #[error("plugin {path} too large, limit is 1 GiB")]
    Large {
        /// The plugin.
        path: PathBuf,
    },
    /// The file is neither WebAssembly nor compiled by this program.
    #[error("plugin {path} is not WebAssembly: expected a component (.wasm), or one compiled by `ochopod compile`")]
    NotWasm {
        /// The plugin.
        path: PathBuf,
    },
    /// The file is a core module.
    #[error("plugin {path} is a core WebAssembly module, not a component: build it for wasm32-wasip2")]
    CoreModule {
        /// The plugin.
        path: PathBuf,
    },
    /// The file ends early.
    #[error("plugin {path} is truncated: it ends within a section")]
    Truncated {
        /// The plugin.
        path: PathBuf,
    },
    /// The compiler rejected the plugin.
    #[error("plugin {path} does not compile: {reason}")]
    Compile {
        /// The plugin.
        path: PathBuf,
        /// Message of the compiler.
        reason: String,
    },
    /// The file changed between two reads.
    #[error("plugin {path} changed during compilation: try again")]
    Changed {
        /// The plugin.
        path: PathBuf,
    },
    /// This program must not, or cannot, run the compiled plugin.
    #[error("compiled plugin {path} rejected")]
    CompiledPlugin {
        /// The plugin.
        path: PathBuf,
        /// Reason for the rejection.
        source: CompiledPluginError,
    },
    /// The plugin is native code, which is accepted only from the operator's own file.
    #[error("plugin {path} is compiled: expected a component (.wasm)")]
    NativeCode {
        /// The plugin.
        path: PathBuf,
    },
    /// The component is not an ochopod plugin.
    #[error("plugin {path} is not an ochopod plugin: export {missing} is missing")]
    World {
        /// The plugin.
        path: PathBuf,
        /// Missing interfaces.
        missing: String,
    },
    /// The plugin was built for another version of the contract.
    #[error("plugin {path} was built for ochopod:pod@{found}, host supports {supported}: rebuild it")]
    Version {
        /// The plugin.
        path: PathBuf,
        /// The version it was made for.
        found: String,
        /// The versions this host supports.
        supported: String,
    },
    /// An import is unknown to this host, or an export has another type than in the contract.
    #[error("plugin {path} does not fit this host: {reason}")]
    Link {
        /// The plugin.
        path: PathBuf,
        /// Mismatch.
        reason: String,
    },
    /// `settings` or `list` failed, or returned an invalid result.
    #[error("plugin {path}: {callback} failed during loading: {reason}")]
    Describe {
        /// The plugin.
        path: PathBuf,
        /// The export that was called.
        callback: &'static str,
        /// Failure.
        reason: String,
    },
    /// A granted directory is missing.
    #[error("cannot set up plugin sandbox: {reason}")]
    Sandbox {
        /// Missing directory.
        reason: String,
    },
    /// The compiled plugin cannot be written.
    #[error("cannot store compiled plugin {path}")]
    Store {
        /// The plugin.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
}

/// Reason for rejecting a compiled plugin.
#[derive(Debug, thiserror::Error)]
pub enum CompiledPluginError {
    /// The file cannot be read.
    #[error("cannot read file")]
    Read(#[from] io::Error),
    /// The owner is not trusted.
    #[error("owned by user {owner}: native code must be owned by root or user {user}")]
    Owner {
        /// UID of the owner.
        owner: u32,
        /// UID of this process.
        user: u32,
    },
    /// Other users may change the file.
    #[error("mode {mode:04o}: native code must be writable by its owner only")]
    Mode {
        /// Permissions of the file.
        mode: u32,
    },
    /// The file was not written by `ochopod compile`, or is truncated.
    #[error("not written by `ochopod compile`, or truncated")]
    Foreign,
    /// The content changed.
    #[error("damaged: content does not match its checksum")]
    Damaged,
    /// The file was written by another version, or for another machine.
    #[error("compiled by another version of ochopod or for another machine: compile it again ({0})")]
    Incompatible(String),
}

/// Error of a callback.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// The plugin returned an error or an invalid result. Contains the text.
    #[error("{0}")]
    Rejected(String),
    /// The plugin cannot do it yet. Contains its reason.
    #[error("{0}")]
    NotYet(String),
    /// The plugin trapped, as by a panic. The instance is discarded.
    #[error("plugin trapped: {0}")]
    Trapped(String),
    /// The call exceeded this time limit. The instance is discarded.
    #[error("plugin call exceeded its deadline of {} s", .0.as_secs_f64())]
    DeadlineExceeded(Duration),
    /// The plugin requested more memory or table elements than the limit. The instance is discarded.
    #[error("plugin exceeded a limit: {0}")]
    Exhausted(String),
    /// The call was cancelled. The instance is discarded.
    #[error("call cancelled")]
    Cancelled,
    /// The instance is suspended after repeated failures.
    #[error("plugin not available: {0}")]
    Unavailable(String),
    /// The host cannot set up the sandbox.
    #[error("cannot set up plugin sandbox: {0}")]
    Sandbox(String),
}

impl PluginError {
    /// Returns whether the plugin or the host is at fault.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Cancelled | Self::Sandbox(_) => Blame::Host,
            _ => Blame::Plugin,
        }
    }
}
