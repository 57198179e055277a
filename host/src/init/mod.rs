//! The duties of an init: every spawn and every wait of the host, in one thread that lives as long as the host.
//!
//! **Why one thread.** The kernel sends a child its parent-death signal when the *thread* that made it ends; and a
//! `waitpid(-1)` next to somebody else's spawn steals exit statuses. So one actor does both.
//!
//! **Why a launcher.** A child first runs this same binary as `ochopod launch` (hidden), which sets the parent-death
//! signal, the working directory and whatever else needs the child's own context, then replaces itself by the program.
//! That needs no `unsafe` between fork and exec, keeps spawning cheap, and reports a failing exec with its reason.
//!
//! **How it ends.** While the host lives, a child that ends takes its process group along, unless it may leave daemons
//! behind, and daemons that left the group stay: they are reaped when they end. When the host leaves, after its pods stopped
//! their sub-processes, every process that descends from it is asked to end by SIGTERM, whatever group or session it is in;
//! what is left after a while (the plugin's `grace`, or `stopTimeout`), or at a second TERM, is killed.
//!
//! | module | what it holds |
//! |---|---|
//! | `handle` | [`Init`], through which the rest of the host reaches the thread |
//! | `reaper` | the actor of that thread: its table of children is the only one |
//! | `launch` | the launcher stage, both sides of it |
//! | `privileges` | as whom a program runs, and within which limits; who may look into the host |
//! | `pipes` | the pipes between host and child |
//! | `adopted` | which processes are children of ours, known or not |
//! | `run` | a program run to its end, with limits |
//! | `signals` | the host's own TERM and INT, and signals that are meant for somebody else |
//! | `exit` | the host's exit codes |
//!
//! No other module names nix; [`Signal`] is re-exported for those that send one.

mod adopted;
mod exit;
mod handle;
pub mod launch;
mod pipes;
mod privileges;
mod reaper;
mod run;
mod signals;

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

pub use nix::sys::signal::Signal;
use tokio::{net::unix::pipe, sync::oneshot};

pub use self::{
    exit::Ending,
    handle::{Init, InitError, KillOnDrop},
    privileges::{Account, Identity, Limit, Privileges, close_to_others, group, own_user_and_group},
    run::{Capture, Finished, RunError},
    signals::Terminations,
};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// What becomes of a child's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// The host's own standard output and error.
    Inherit,
    /// One pipe for both, read by the host.
    Merged,
    /// Two pipes, read by the host.
    Separate,
    /// A pipe for standard output, read by the host; standard error is the host's own.
    Printed,
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// A path, or a name looked up in the PATH of `environment`.
    pub program: OsString,
    /// Its arguments, without the program.
    pub arguments: Vec<OsString>,
    /// The whole environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// Working directory; the host's when none.
    pub directory: Option<PathBuf>,
    /// Whether standard input is a pipe from the host; else it is empty.
    pub input: bool,
    /// What becomes of its output.
    pub output: Output,
    /// Whether what is left of its group stays when it ends by itself, as daemons do; else that is killed.
    pub daemons: bool,
    /// As whom it runs, and within which limits.
    pub privileges: Privileges,
}

/// A child that was started: the program runs (exec succeeded).
#[derive(Debug)]
pub struct Child {
    /// Its process id, which is also the id of its process group.
    pub pid: u32,
    /// How it ends. What is left of its group, if it may not stay, is killed before this is told. An error means that the
    /// init is gone.
    pub exit: oneshot::Receiver<Exit>,
    /// Its standard input, when asked for.
    pub input: Option<pipe::Sender>,
    /// Its standard output (both streams when merged), when asked for.
    pub output: Option<pipe::Receiver>,
    /// Its standard error, when separate.
    pub error: Option<pipe::Receiver>,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The working directory cannot be entered.
    #[error("cannot enter the working directory {directory}: {reason}")]
    Directory {
        /// As given.
        directory: String,
        /// What the system said.
        reason: String,
    },
    /// The limits cannot be set.
    #[error("cannot set the limits of {program} ({limits}): {reason}")]
    Limits {
        /// As given.
        program: String,
        /// All of them.
        limits: String,
        /// What the system said.
        reason: String,
    },
    /// The program cannot run as the user.
    #[error("cannot run {program} as user {user}: {reason}")]
    Identity {
        /// As given.
        program: String,
        /// The user's number.
        user: u32,
        /// What the system said.
        reason: String,
    },
    /// The program cannot be executed.
    #[error("cannot execute {program}: {reason}")]
    Exec {
        /// As given.
        program: String,
        /// Whether there is such a program, which may not be executed.
        found: bool,
        /// What the system said.
        reason: String,
    },
    /// No process could be made.
    #[error("cannot make a process for {program}")]
    Fork {
        /// As given.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The init has stopped.
    #[error("the host is ending: no process is started any more")]
    Gone,
}
