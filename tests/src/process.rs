//! Processes of the kit.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{self, Signal},
    unistd::{self, Pid},
};

use crate::{Result, eventually};

/// Absolute path, because the started command may have another PATH.
const SETPRIV: &str = "/usr/bin/setpriv";

/// A process in a group of its own. It is killed with that group when it is dropped, and by the kernel when the thread
/// that started it ends.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Returns a command for [`Process::spawn`].
    pub fn command(program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(SETPRIV);
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).process_group(0);
        command
    }

    /// Returns the same without the capabilities of root, permanently.
    pub fn without_capabilities(program: impl AsRef<OsStr>) -> Command {
        let mut command = Self::command(SETPRIV);
        if unistd::geteuid().is_root() {
            command.args(["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]);
        }
        command.arg("--").arg(program);
        command
    }

    /// Starts it.
    ///
    /// # Errors
    /// If `setpriv` cannot be executed.
    pub fn spawn(name: impl Into<String>, mut command: Command) -> Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "the kit is not an init: it waits for each of its own children")]
        let child = command.spawn().context("cannot start setpriv (of util-linux): run `make setup`")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        Ok(Self { name: name.into(), pid, child, ended: None })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Sends a signal to the process alone.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result {
        ensure!(self.ended.is_none(), "{} has ended", self.name);
        signal::kill(self.pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Returns its exit status, if it has exited.
    ///
    /// # Errors
    /// If the state of the process cannot be read.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Waits for its exit.
    ///
    /// # Errors
    /// If it runs for longer.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        eventually(&what, limit, async || self.ended()?.context("it runs")).await
    }

    /// Returns the pipe to its standard input, if the command has one.
    pub fn input(&mut self) -> Option<&mut std::process::ChildStdin> {
        self.child.stdin.as_mut()
    }

    /// Closes the pipe to its standard input.
    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// Kills it and its group immediately.
    pub fn kill(&mut self) {
        if let Ok(None) = self.ended() {
            _ = signal::killpg(self.pid, Signal::SIGKILL);
            self.ended = self.child.wait().ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns whether a process runs (a zombie does not).
#[must_use]
pub fn alive(pid: i32) -> bool {
    status(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// Returns the children of a process that exited and were not reaped.
#[must_use]
pub fn zombies(of: i32) -> Vec<i32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| status(*pid) == Some(('Z', of))).collect()
}

/// Returns a process's state, and its parent.
fn status(pid: i32) -> Option<(char, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = text.rsplit_once(") ")?.1.split(' ');
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}
