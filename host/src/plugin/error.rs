//! What can go wrong with a plugin: while it is loaded, and while it is called.

use std::{io, path::PathBuf, time::Duration};

use crate::lifecycle::Blame;

/// Why a plugin cannot be used. Mostly the plugin's fault: see [`LoadError::Sandbox`] and [`LoadError::Store`].
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the plugin {path}")]
    Read {
        /// The plugin.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, a device, a pipe…
    #[error("the plugin {path} is not a file")]
    NotAFile {
        /// The plugin.
        path: PathBuf,
    },
    /// Neither WebAssembly nor compiled by this program.
    #[error("the plugin {path} is not WebAssembly: expected a component (.wasm) or what `ochopod compile` made of one")]
    NotWasm {
        /// The plugin.
        path: PathBuf,
    },
    /// A core module.
    #[error("the plugin {path} is a core WebAssembly module, not a component: build it for wasm32-wasip2")]
    CoreModule {
        /// The plugin.
        path: PathBuf,
    },
    /// The file ends early.
    #[error("the plugin {path} is truncated: it ends in the middle of a section")]
    Truncated {
        /// The plugin.
        path: PathBuf,
    },
    /// The compiler refused it.
    #[error("the plugin {path} does not compile: {reason}")]
    Compile {
        /// The plugin.
        path: PathBuf,
        /// What the compiler said.
        reason: String,
    },
    /// The file changed between two reads.
    #[error("the plugin {path} was changed while it was compiled: try again")]
    Changed {
        /// The plugin.
        path: PathBuf,
    },
    /// A compiled plugin that this program must not, or cannot, run.
    #[error("the compiled plugin {path} is refused")]
    Artefact {
        /// The plugin.
        path: PathBuf,
        /// What is wrong with it.
        source: ArtefactError,
    },
    /// A component for something else.
    #[error(
        "the plugin {path} is a component of another world: it does not export {missing}, as an ochopod plugin must"
    )]
    World {
        /// The plugin.
        path: PathBuf,
        /// The interfaces that are missing.
        missing: String,
    },
    /// A plugin for another version of the contract.
    #[error("the plugin {path} was made for ochopod:pod@{found}; this host supports {supported}: build it anew")]
    Version {
        /// The plugin.
        path: PathBuf,
        /// The version it was made for.
        found: String,
        /// The versions this host supports.
        supported: String,
    },
    /// It imports what no host of ours has, or its exports have other types than the contract's.
    #[error("the plugin {path} does not fit this host: {reason}")]
    Link {
        /// The plugin.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// `settings` or `list` failed, or returned nonsense.
    #[error("the plugin {path} fails to describe itself: {callback}: {reason}")]
    Describe {
        /// The plugin.
        path: PathBuf,
        /// The export that was called.
        callback: &'static str,
        /// How it failed.
        reason: String,
    },
    /// What the operator grants it is not there.
    #[error("the plugin's sandbox cannot be set up: {reason}")]
    Sandbox {
        /// What is missing.
        reason: String,
    },
    /// The result of a compilation cannot be kept anywhere.
    #[error("cannot store the compiled plugin {path}")]
    Store {
        /// The plugin.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is wrong with a compiled plugin.
#[derive(Debug, thiserror::Error)]
pub enum ArtefactError {
    /// The file cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// Somebody else's: native code that was not made by whom we trust.
    #[error("it belongs to user {owner}: it is native code and must belong to root or to user {user}, who runs this")]
    Owner {
        /// The owner's number.
        owner: u32,
        /// Who runs this.
        user: u32,
    },
    /// Others may change it.
    #[error("its mode is {mode:04o}: it is native code and nobody but its owner may have write permission")]
    Mode {
        /// Its permissions.
        mode: u32,
    },
    /// Not made by `ochopod compile`, or cut short.
    #[error("it was not made by `ochopod compile`, or is truncated")]
    Foreign,
    /// Not as it was written.
    #[error("it is damaged: its content does not match its checksum")]
    Damaged,
    /// Made by another version, or for another machine.
    #[error("it was made by another version of ochopod or for another machine: compile it again ({0})")]
    Incompatible(String),
}

/// Why a callback gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// The plugin said no, or returned what makes no sense. Its text.
    #[error("{0}")]
    Rejected(String),
    /// It trapped (a panic, for one). The instance is gone.
    #[error("the plugin trapped: {0}")]
    Trapped(String),
    /// It did not end within this time. The instance is gone.
    #[error("the plugin did not answer within {} s", .0.as_secs_f64())]
    DeadlineExceeded(Duration),
    /// It wanted more memory or tables than it may have. The instance is gone.
    #[error("the plugin hit a limit: {0}")]
    Exhausted(String),
    /// The call was given up. The instance is gone.
    #[error("the call was given up")]
    Cancelled,
    /// It failed too often of late to be built anew.
    #[error("the plugin is not available: {0}")]
    Unavailable(String),
    /// The host cannot set up its sandbox.
    #[error("the plugin's sandbox cannot be set up: {0}")]
    Sandbox(String),
}

impl PluginError {
    /// Whose fault it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Cancelled | Self::Sandbox(_) => Blame::Host,
            _ => Blame::Plugin,
        }
    }
}
