//! Child processes: the duties of an init. Every spawn and every wait of the host happens here, in one thread.
//!
//! # Guarantees
//! - The exit of every child is reported once. No zombie remains, whichever process of this one's descendants exits.
//! - A child that exits on its own takes its process group along, unless it may leave daemons. If the caller terminated it
//!   to exit, the rest of its group keeps the grace, and the exit is reported when the group is empty.
//! - A shutdown of the host sends SIGTERM to every descendant, whatever its group or session, and SIGKILL at the end of
//!   the grace. A process that survives SIGKILL, as in uninterruptible sleep, is logged and left behind at the
//!   deadline.
//! - If the host is killed, the kernel kills its children, and the guard kills the rest of their groups.
//! - A process that is terminated is continued too, because a stopped process handles no signal.
//!
//! # Design
//! **One thread.** The kernel sends the parent-death signal when the *thread* that created the child ends, and `waitpid(-1)`
//! in addition to another spawner steals exit statuses. Therefore one actor, [`Init`]'s thread, owns all children.
//!
//! **A launcher.** A child first runs this binary as `ochopod launch` (hidden). It sets the parent-death signal, the
//! working directory and everything else that needs the context of the child, then replaces itself by the program. That
//! needs no `unsafe` between fork and exec, keeps spawning cheap, and reports a failed exec with its cause.
//!
//! # Boundaries
//! This crate does not decide when a program starts or stops, and knows neither pods nor plugins. [`Signal`] is exported
//! for callers that send one.
//!
//! | module | contents |
//! |---|---|
//! | `handle` | [`Init`], the handle of the thread |
//! | `reaper` | actor of the thread: reaps every child and adopted orphan, owns the only table of children |
//! | `launcher` | the launcher stage, both sides |
//! | `environment` | variables of the program, passed through the launcher |
//! | `guard` | process that kills the groups of a killed host |
//! | `privileges` | user and resource limits of programs, and protection of the host's memory |
//! | `outputs` | the host's output, for programs of another user |
//! | `descriptors` | descriptor limits of the host and its children |
//! | `pipes` | pipes between host and child |
//! | `cause`, `interpreter` | cause of a failed start, and the missing interpreter |
//! | `descendants` | children, descendants and process groups, read from `/proc` |
//! | `run` | a program run to its end, with limits |
//! | `process` | output and resource usage of processes |
//! | `signals`, `signal_number` | signals that start and force the shutdown, and forwarded signals; signal numbers |
//! | `inherited` | blocked and ignored signals that the parent process left |
//! | `terminal` | the controlling terminal and its foreground group |
//! | `exit` | exit codes of the host |

mod cause;
mod descendants;
mod descriptors;
mod environment;
mod exit;
pub mod guard;
mod handle;
mod inherited;
mod interpreter;
pub mod launcher;
mod outputs;
mod pipes;
mod privileges;
pub mod process;
mod reaper;
mod run;
mod signal_number;
mod signals;
mod terminal;

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

pub use nix::sys::signal::Signal;
use tokio::{
    net::unix::pipe,
    sync::{oneshot, watch},
};

pub use self::{
    cause::Cause,
    descriptors::raise_descriptor_limit,
    exit::HostExit,
    handle::{Init, InitError, KillOnDrop, LimitedSignals, SignalError},
    outputs::{LentOutputs, lend_outputs},
    privileges::{Account, Identity, Privileges, ResourceLimit, disable_dumps, group, own_user_and_group},
    run::{Capture, ProgramOutput, RunError},
    signal_number::SignalNumber,
    signals::TerminationSignals,
};

/// Path of the running binary, even after its file was replaced: the launcher of children.
pub const SELF_EXE: &str = "/proc/self/exe";

/// Exit status of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The child returned this code.
    Code(i32),
    /// This signal killed the child.
    Signal(i32),
}

/// Destination of a child's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StdioMode {
    /// The host's own standard output and error.
    Inherit,
    /// One pipe for both, read by the host.
    Merged,
    /// Two pipes, read by the host.
    Separate,
    /// A pipe for standard output, read by the host; standard error is the host's own.
    Printed,
}

/// Program to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSpec {
    /// Path, or name looked up in the PATH of `environment`.
    pub program: OsString,
    /// Arguments, without the program.
    pub arguments: Vec<OsString>,
    /// Complete environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// Working directory; none means the host's.
    pub directory: Option<PathBuf>,
    /// Whether standard input is a pipe from the host; otherwise it is empty.
    pub input: bool,
    /// Destination of its output.
    pub output: StdioMode,
    /// Whether the rest of its group, such as daemons, keeps running when it exits on its own; otherwise the rest is
    /// killed.
    pub keep_daemons: bool,
    /// User and resource limits.
    pub privileges: Privileges,
}

/// Started child: the program runs (exec succeeded).
#[derive(Debug)]
pub struct Child {
    /// Process id, which is also the id of its process group.
    pub pid: u32,
    /// Receives the exit status. By then the rest of its group is gone or was sent SIGKILL, unless it may stay. An
    /// error means that the init thread ended.
    pub exit: oneshot::Receiver<Exit>,
    /// Signal that stopped the child, while it is stopped.
    pub stopped: watch::Receiver<Option<Signal>>,
    /// Standard input, if requested.
    pub input: Option<pipe::Sender>,
    /// Standard output (both streams if merged), if requested.
    pub output: Option<pipe::Receiver>,
    /// Standard error, if separate.
    pub error: Option<pipe::Receiver>,
}

/// Error of starting a program.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The working directory cannot be entered.
    #[error("cannot enter the working directory {directory}: {cause}")]
    Directory {
        /// As given by the caller.
        directory: String,
        /// Error of the system.
        cause: Cause,
    },
    /// The limits cannot be set.
    #[error("cannot set the limits of {program} ({limits}): {cause}")]
    Limits {
        /// As given by the caller.
        program: String,
        /// All of them.
        limits: String,
        /// Error of the system.
        cause: Cause,
    },
    /// The program cannot run as the user.
    #[error("cannot run {program} as user {user}: {cause}")]
    Identity {
        /// As given by the caller.
        program: String,
        /// UID of the user.
        user: u32,
        /// Error of the system.
        cause: Cause,
    },
    /// The file that becomes the program's standard input cannot be opened.
    #[error("cannot open {path} as standard input of {program}: {cause}")]
    Input {
        /// As given by the caller.
        program: String,
        /// The file.
        path: String,
        /// Error of the system.
        cause: Cause,
    },
    /// The program cannot be executed.
    #[error("cannot execute {program}: {cause}")]
    Exec {
        /// As given by the caller.
        program: String,
        /// Whether the program exists, but cannot be executed.
        found: bool,
        /// Error of the system.
        cause: Cause,
    },
    /// No process could be created.
    #[error("cannot create process for {program}: {cause}")]
    Fork {
        /// As given by the caller.
        program: String,
        /// Error of the system.
        cause: Cause,
    },
    /// The init thread ended.
    #[error("cannot start processes: host is shutting down")]
    Gone,
}

impl SpawnError {
    /// Returns whether the machine lacks a resource: the program is not at fault, and another attempt may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Directory { cause, .. }
            | Self::Limits { cause, .. }
            | Self::Identity { cause, .. }
            | Self::Input { cause, .. }
            | Self::Exec { cause, .. }
            | Self::Fork { cause, .. } => cause.is_transient(),
            Self::Gone => false,
        }
    }
}
