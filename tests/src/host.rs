//! What every way to start the binary has in common.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::{Process, Result, SOON, alive, artifacts, eventually};

/// Marks every process that descends from a host: variables are inherited.
const MARK: &str = "KIT_POD";
/// What a host may not have from whoever runs the tests: beginnings of variables, in small letters.
const NOT_INHERITED: [&str; 5] = ["ochopod", "port_", "containerpilot", "consul_", "kit_pod"];
/// How much of its log a host shows when its test fails.
const SHOWN: usize = 200;

/// The binary, to be started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// Where it runs: made when it starts.
    pub(crate) directory: PathBuf,
    /// The debug build when none.
    pub(crate) binary: Option<PathBuf>,
    pub(crate) environment: BTreeMap<String, String>,
    /// What starts it; nothing else does when empty.
    pub(crate) within: Vec<String>,
    /// Its standard input is a pipe.
    pub(crate) piped: bool,
    pub(crate) quiet: bool,
    pub(crate) powerless: bool,
}

impl Launch {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            binary: None,
            environment: BTreeMap::new(),
            within: Vec::new(),
            piped: false,
            quiet: false,
            powerless: false,
        }
    }

    /// Starts it with these arguments. `log` names the streams that it logs to.
    pub(crate) fn start(
        self,
        name: String,
        arguments: impl IntoIterator<Item = OsString>,
        log: &'static [&'static str],
    ) -> Result<Host> {
        fs::create_dir_all(&self.directory)?;
        let mark = uuid::Uuid::new_v4().to_string();
        let binary = self.binary.map_or_else(artifacts::ochopod, Ok)?;
        let words: Vec<OsString> = self.within.iter().map(OsString::from).chain([binary.into_os_string()]).collect();
        let (program, words) = words.split_first().context("there is no program")?;
        let mut command = if self.powerless { Process::powerless(program) } else { Process::command(program) };
        command.args(words).args(arguments).current_dir(&self.directory);
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| is_harmless(&name.to_string_lossy())));
        command.envs(&self.environment).env(MARK, &mark);
        command.stdin(if self.piped { Stdio::piped() } else { Stdio::null() });
        command.stdout(File::create(self.directory.join("stdout"))?);
        command.stderr(File::create(self.directory.join("stderr"))?);
        let process = Process::spawn(&name, command)?;
        Ok(Host { process, name, directory: self.directory, log, mark, quiet: self.quiet })
    }
}

fn is_harmless(variable: &str) -> bool {
    let variable = variable.to_ascii_lowercase();
    !NOT_INHERITED.iter().any(|beginning| variable.starts_with(beginning))
}

/// The binary while it runs, and what it left when it has ended. It and all that descends from it is ended when it is
/// dropped.
#[derive(Debug)]
pub struct Host {
    process: Process,
    name: String,
    directory: PathBuf,
    log: &'static [&'static str],
    mark: String,
    quiet: bool,
}

/// How much of the system a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdings {
    /// Its threads.
    pub threads: usize,
    /// Its open descriptors.
    pub descriptors: usize,
    /// Its children, those included that ended and were not waited for.
    pub children: usize,
}

impl Host {
    /// Its working directory, which is also that of what it starts.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Process id of the host, or of what it was started within where that is still there.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.inner().unwrap_or_else(|| self.process.pid())
    }

    /// The host, where it is the child of the `unshare` that made a namespace for it.
    fn inner(&self) -> Option<i32> {
        let outer = self.process.pid();
        fs::read_link(format!("/proc/{outer}/exe")).ok().filter(|exe| exe.ends_with("unshare"))?;
        children(outer)?.into_iter().next()
    }

    /// What it wrote to standard error.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn console(&self) -> Result<String> {
        self.written("stderr")
    }

    /// What it, or what it started, wrote to standard output.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn output(&self) -> Result<String> {
        self.written("stdout")
    }

    fn written(&self, stream: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.directory.join(stream))?).into_owned())
    }

    /// Sends a line to its standard input.
    ///
    /// # Errors
    /// When it has ended.
    pub fn say(&mut self, line: &str) -> Result {
        let input = self.process.input().context("its input is no pipe")?;
        std::io::Write::write_all(input, format!("{line}\n").as_bytes())?;
        Ok(())
    }

    /// Closes its standard input.
    pub fn hang_up(&mut self) {
        self.process.hang_up();
    }

    /// Sends a signal to the host.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result {
        match self.inner() {
            Some(pid) => signal::kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal}")),
            None => self.process.signal(signal),
        }
    }

    /// Ends the host as a crash would, with nothing done in order, and waits for the end.
    ///
    /// # Errors
    /// When it has ended before.
    pub async fn kill9(&mut self) -> Result {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(SOON).await?;
        Ok(())
    }

    /// Asks the host to leave.
    ///
    /// # Errors
    /// When it has ended.
    pub fn term(&self) -> Result {
        self.signal(Signal::SIGTERM)
    }

    /// Waits for the end of the host.
    ///
    /// # Errors
    /// When it runs on for longer.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.process.wait(limit).await
    }

    /// Waits for the end of the host and gives its code.
    ///
    /// # Errors
    /// When it runs on for longer than usual, or a signal ended it.
    pub async fn exit_code(&mut self) -> Result<i32> {
        self.wait(SOON * 2).await?.code().context("a signal ended it")
    }

    /// Whether the host runs.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn is_up(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_none())
    }

    /// Its log, of all streams that it logs to.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn log(&self) -> Result<String> {
        self.log.iter().map(|stream| self.written(stream)).collect()
    }

    /// Waits until its log has a text, and gives the whole log.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn logs(&self, text: &str) -> Result<String> {
        let what = format!("{} logs {text:?}", self.name);
        eventually(&what, SOON, async || {
            let log = self.log()?;
            ensure!(log.contains(text), "it does not");
            Ok(log)
        })
        .await
    }

    /// How often its log has a text.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn logged(&self, text: &str) -> Result<usize> {
        Ok(self.log()?.matches(text).count())
    }

    /// Lines of a file in its directory, of which there are none before it exists.
    #[must_use]
    pub fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read(self.directory.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    /// Waits until a file in its directory has so many lines, and gives them.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn wrote(&self, file: &str, lines: usize) -> Result<Vec<String>> {
        let what = format!("{} wrote {lines} lines to {file}", self.name);
        eventually(&what, SOON, async || {
            let written = self.lines(file);
            ensure!(written.len() >= lines, "there are {written:?}");
            Ok(written)
        })
        .await
    }

    /// Process ids that were written to the file `starts`, by each start of something so far.
    ///
    /// # Errors
    /// When the file has something else.
    pub fn starts(&self) -> Result<Vec<i32>> {
        let lines = self.lines("starts").into_iter();
        lines.map(|line| line.parse().with_context(|| format!("{line:?} is no pid"))).collect()
    }

    /// Waits until there were so many starts, and gives the pid of the last one.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn started(&self, times: usize) -> Result<i32> {
        self.wrote("starts", times).await?;
        self.starts()?.last().copied().context("it was not started")
    }

    /// How much of the system the host holds.
    ///
    /// # Errors
    /// When it has ended.
    pub fn holdings(&self) -> Result<Holdings> {
        let pid = self.pid();
        let count = |what: &str| Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{pid}/{what}"))?.count());
        let threads = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
        let children = threads.filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("children")).ok()?;
            Some(text.split_whitespace().count())
        });
        Ok(Holdings { threads: count("task")?, descriptors: count("fd")?, children: children.sum() })
    }

    /// Resident memory of the host, in megabytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes / 1024.0)
    }

    /// Processes that descend from it and still live, itself aside: those that inherited its mark, or its directory where
    /// they wrote over their environment, as redis does.
    #[must_use]
    pub fn descendants(&self) -> Vec<i32> {
        let mark = format!("{MARK}={}", self.mark);
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let descends = |pid: i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
                || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|directory| directory == self.directory)
        };
        let own = [self.pid(), self.process.pid()];
        pids.filter(|pid| !own.contains(pid) && descends(*pid) && alive(*pid)).collect()
    }

    /// Waits until nothing that descends from it lives any more.
    ///
    /// # Errors
    /// When something does.
    pub async fn leaves_nothing(&self) -> Result {
        eventually("no process is left behind", SOON, async || {
            let left = self.descendants();
            ensure!(left.is_empty(), "left are {left:?}");
            Ok(())
        })
        .await
    }
}

/// Children that the first thread of a process started.
fn children(pid: i32) -> Option<Vec<i32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Some(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

impl Drop for Host {
    /// Ends it and all that descends from it. The log that it prints is shown for failed tests only.
    fn drop(&mut self) {
        self.process.kill();
        for pid in self.descendants() {
            _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if self.quiet {
            return;
        }
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines.get(lines.len().saturating_sub(SHOWN)..).unwrap_or_default();
        eprintln!("--- log of {}\n{}\n---", self.name, shown.join("\n"));
    }
}
