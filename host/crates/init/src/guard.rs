//! Guard: a process that kills the groups of the host's children if the host is killed.
//!
//! The kernel kills each child when the host exits, but not the processes that the child started. As PID 1 the host
//! needs no guard, because the kernel kills everything. Otherwise it runs itself as
//!
//! ```text
//! ochopod guard
//! ```
//!
//! with a pipe as standard input, and no other open files. The host writes which process groups exist. The end of the
//! pipe means that the host exited: the guard kills the remaining groups and exits. It has its own session and blocks
//! all signals, so that a signal for the host does not end the guard first.
//!
//! The guard does not know processes that left the group of their child, as daemons do. They outlive a killed host.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::signal::{self, SigSet, Signal},
    unistd::{self, Pid},
};

use super::HostExit;

/// The hidden subcommand.
const SUBCOMMAND: &str = "guard";

/// Returns whether this process was started as a guard. `arguments` are those of the process, starting with its name.
#[must_use]
pub fn is_guard(arguments: &[OsString]) -> bool {
    arguments.get(1).is_some_and(|word| word == SUBCOMMAND) && arguments.len() == 2
}

/// Runs the guard until the host has exited. Must be called before any other thread exists.
#[must_use]
pub fn run() -> ExitCode {
    match collect_groups() {
        Ok(groups) => {
            for group in groups {
                // The group may be gone.
                _ = signal::killpg(group, Signal::SIGKILL);
            }
            HostExit::Stopped.into()
        }
        Err(error) => {
            eprintln!("ochopod: `{SUBCOMMAND}` is internal: the host uses it to start its guard ({error})");
            HostExit::Usage.into()
        }
    }
}

/// Reads changes of groups until the pipe ends, and returns the remaining groups.
fn collect_groups() -> io::Result<Vec<Pid>> {
    SigSet::all().thread_set_mask()?;
    unistd::setsid()?;
    std::env::set_current_dir("/")?;
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut groups = BTreeSet::new();
    for line in BufReader::new(input).lines() {
        // A pipe ends; it does not fail.
        let Ok(line) = line else { break };
        match Change::parse(&line) {
            Some(Change::Added(group)) => _ = groups.insert(group),
            Some(Change::Removed(group)) => _ = groups.remove(&group),
            None => {}
        }
    }
    Ok(groups.into_iter().map(|group| Pid::from_raw(group.cast_signed())).collect())
}

/// Change of a group, a line of the pipe: `+7` or `-7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Added(u32),
    Removed(u32),
}

impl Change {
    fn parse(line: &str) -> Option<Self> {
        let make = match line.as_bytes().first()? {
            b'+' => Self::Added,
            b'-' => Self::Removed,
            _ => return None,
        };
        line.get(1..)?.parse().ok().filter(|group| *group > 1).map(make)
    }

    fn line(self) -> String {
        match self {
            Self::Added(group) => format!("+{group}\n"),
            Self::Removed(group) => format!("-{group}\n"),
        }
    }
}

/// The host's side of a guard.
#[derive(Debug)]
pub(super) struct Guard {
    process: Child,
    pipe: File,
    started: Instant,
}

impl Guard {
    /// Starts a guard that knows these groups.
    ///
    /// # Errors
    /// If no process or descriptor is left.
    pub(super) fn start(host: &Path, groups: impl IntoIterator<Item = u32>) -> io::Result<Self> {
        let (input, pipe) = io::pipe()?;
        let mut command = Command::new(host);
        command.arg0("ochopod").arg(SUBCOMMAND).env_clear().stdin(input).stdout(Stdio::null()).stderr(Stdio::null());
        let pipe = OwnedFd::from(pipe);
        // The host never blocks on its guard.
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        #[allow(clippy::disallowed_methods, reason = "the reaper waits for it, as for all its children")]
        let process = command.spawn()?;
        let mut guard = Self { process, pipe: pipe.into(), started: Instant::now() };
        groups.into_iter().try_for_each(|group| guard.write(Change::Added(group)))?;
        Ok(guard)
    }

    /// Returns the process id.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Returns the time since the start.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Adds a group.
    ///
    /// # Errors
    /// If the guard no longer reads.
    pub(super) fn add_group(&mut self, group: u32) -> io::Result<()> {
        self.write(Change::Added(group))
    }

    /// Removes a group that is empty, or may outlive the host.
    ///
    /// # Errors
    /// If the guard no longer reads.
    pub(super) fn remove_group(&mut self, group: u32) -> io::Result<()> {
        self.write(Change::Removed(group))
    }

    fn write(&mut self, change: Change) -> io::Result<()> {
        self.pipe.write_all(change.line().as_bytes())
    }

    /// Kills the guard, so that it does not treat the end of its pipe as the exit of the host.
    pub(super) fn kill(mut self) {
        // The guard may have exited.
        _ = self.process.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guard_parses_the_lines_of_the_host() {
        for change in [Change::Added(7), Change::Removed(7), Change::Added(4_194_304)] {
            assert_eq!(Change::parse(change.line().trim_end()), Some(change));
        }
    }

    #[test]
    fn lines_without_a_valid_group_are_skipped() {
        for line in ["", "+", "-", "7", "+x", "+0", "+1", "-0", "--7", "+-7", "*7", "é"] {
            assert_eq!(Change::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn only_the_exact_command_line_is_a_guard() {
        let is = |words: &[&str]| is_guard(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(is(&["ochopod", "guard"]));
        assert!(!is(&["ochopod", "run", "guard"]) && !is(&["guard"]) && !is(&["ochopod", "guard", "x"]));
    }
}
