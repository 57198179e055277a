//! Common parts of all ways to start the binary.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::{DEFAULT_TIMEOUT, Process, Result, alive, artifacts, eventually, terminal::Terminal};

/// Marks every process that descends from a host: variables are inherited.
const MARKER_VARIABLE: &str = "KIT_POD";
/// Prefixes, in small letters, of variables that a host does not inherit from the caller of the tests.
const NOT_INHERITED: [&str; 15] = [
    "ochopod",
    "port_",
    "containerpilot",
    "consul_",
    "kit_pod",
    "aws_",
    "ecs_",
    "host",
    "kubernetes_",
    "libprocess_",
    "marathon_",
    "mesos_",
    "node_",
    "nomad_",
    "pod_",
];
/// Keeps hosts from looking up the instance on which the tests run.
const NO_INSTANCE: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");
/// Number of log lines that a host prints if its test fails.
const MAX_SHOWN_LINES: usize = 200;

/// Standard input of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    Empty,
    Pipe,
    /// A terminal, as all its standard streams are.
    Terminal,
}

/// The binary, before it is started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// Its working directory, created at its start.
    pub(crate) directory: PathBuf,
    /// The debug build if none.
    pub(crate) binary: Option<PathBuf>,
    pub(crate) environment: BTreeMap<String, String>,
    /// The command that starts it; none if empty.
    pub(crate) within: Vec<String>,
    pub(crate) input: Input,
    pub(crate) quiet: bool,
    pub(crate) powerless: bool,
}

impl Launch {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            binary: None,
            environment: BTreeMap::from([(NO_INSTANCE.0.to_owned(), NO_INSTANCE.1.to_owned())]),
            within: Vec::new(),
            input: Input::Empty,
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
        let (program, words) = words.split_first().context("no program")?;
        let mut command =
            if self.powerless { Process::without_capabilities(program) } else { Process::command(program) };
        command.args(words).args(arguments).current_dir(&self.directory);
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| is_harmless(&name.to_string_lossy())));
        command.envs(&self.environment).env(MARKER_VARIABLE, &mark);
        command.stdin(if self.input == Input::Pipe { Stdio::piped() } else { Stdio::null() });
        command.stderr(File::create(self.directory.join("stderr"))?);
        let screen = self.directory.join("stdout");
        let terminal = if self.input == Input::Terminal {
            let (terminal, device) = Terminal::open(&screen)?;
            command.stdin(device.try_clone()?).stdout(device.try_clone()?).stderr(device);
            Some(terminal)
        } else {
            command.stdout(File::create(screen)?);
            None
        };
        let process = Process::spawn(&name, command)?;
        Ok(Host { process, name, directory: self.directory, log, mark, quiet: self.quiet, terminal })
    }
}

fn is_harmless(variable: &str) -> bool {
    let variable = variable.to_ascii_lowercase();
    !NOT_INHERITED.iter().any(|beginning| variable.starts_with(beginning))
}

/// The running binary, and its files once it has exited. Dropping it kills the binary and all of its descendants.
#[derive(Debug)]
pub struct Host {
    process: Process,
    name: String,
    directory: PathBuf,
    log: &'static [&'static str],
    mark: String,
    quiet: bool,
    terminal: Option<Terminal>,
}

/// Resources of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceUsage {
    /// Its threads.
    pub threads: usize,
    /// Its open descriptors.
    pub descriptors: usize,
    /// Its children, including those that exited and were not reaped.
    pub children: usize,
}

impl Host {
    /// Its working directory, which is also that of its children.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Process id of the host, or of the command that started it, if that still runs.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.inner().unwrap_or_else(|| self.process.pid())
    }

    /// Returns the host, if it is the child of the `unshare` that created a namespace for it, or the `setsid` that
    /// created a session.
    fn inner(&self) -> Option<i32> {
        let outer = self.process.pid();
        let exe = fs::read_link(format!("/proc/{outer}/exe")).ok()?;
        ["unshare", "setsid"].iter().find(|wrapper| exe.ends_with(wrapper))?;
        children(outer)?.into_iter().next()
    }

    /// Returns its standard error.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn console(&self) -> Result<String> {
        self.written("stderr")
    }

    /// Returns the standard output of the host and its children.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn output(&self) -> Result<String> {
        self.written("stdout")
    }

    fn written(&self, stream: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.directory.join(stream))?).into_owned())
    }

    /// Sends a line to its standard input.
    ///
    /// # Errors
    /// If it has ended.
    pub fn write_stdin(&mut self, line: &str) -> Result {
        let input = self.process.input().context("its input is not a pipe")?;
        std::io::Write::write_all(input, format!("{line}\n").as_bytes())?;
        Ok(())
    }

    /// Types on its terminal.
    ///
    /// # Errors
    /// If it has none.
    pub fn press(&mut self, keys: &str) -> Result {
        self.terminal.as_mut().context("it has no terminal")?.press(keys)
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        self.process.close_stdin();
    }

    /// Sends a signal to the host.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result {
        match self.inner() {
            Some(pid) => signal::kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal}")),
            None => self.process.signal(signal),
        }
    }

    /// Sends a signal to the host by its number, which may be a real-time signal.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal_number(&self, number: i32) -> Result {
        let sent = Command::new("kill").arg(format!("-{number}")).arg(self.pid().to_string()).status()?;
        ensure!(sent.success(), "cannot send signal {number}");
        Ok(())
    }

    /// Kills the host as a crash would, and waits for its exit.
    ///
    /// # Errors
    /// If it has exited before.
    pub async fn kill9(&mut self) -> Result {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(DEFAULT_TIMEOUT).await?;
        Ok(())
    }

    /// Terminates the host.
    ///
    /// # Errors
    /// If it has ended.
    pub fn term(&self) -> Result {
        self.signal(Signal::SIGTERM)
    }

    /// Waits for the exit of the host.
    ///
    /// # Errors
    /// If it runs for longer.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.process.wait(limit).await
    }

    /// Waits for the exit of the host and returns its code.
    ///
    /// # Errors
    /// If it runs for longer than usual, or a signal killed it.
    pub async fn exit_code(&mut self) -> Result<i32> {
        self.wait(DEFAULT_TIMEOUT * 2).await?.code().context("a signal ended it")
    }

    /// Returns whether the host runs.
    ///
    /// # Errors
    /// If the state of the process cannot be read.
    pub fn is_up(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_none())
    }

    /// Returns its log, of all streams that it logs to.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn log(&self) -> Result<String> {
        self.log.iter().map(|stream| self.written(stream)).collect()
    }

    /// Waits until its log has a text, and returns the whole log.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn wait_log(&self, text: &str) -> Result<String> {
        let what = format!("{} logs {text:?}", self.name);
        eventually(&what, DEFAULT_TIMEOUT, async || {
            let log = self.log()?;
            ensure!(log.contains(text), "not logged yet");
            Ok(log)
        })
        .await
    }

    /// Returns the number of occurrences of a text in its log.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn count_log(&self, text: &str) -> Result<usize> {
        Ok(self.log()?.matches(text).count())
    }

    /// Returns the lines of a file in its directory; none before it exists.
    #[must_use]
    pub fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read(self.directory.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    /// Waits until a file in its directory has this number of lines, and returns them.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn wait_lines(&self, file: &str, lines: usize) -> Result<Vec<String>> {
        let what = format!("{} wrote {lines} lines to {file}", self.name);
        eventually(&what, DEFAULT_TIMEOUT, async || {
            let written = self.lines(file);
            ensure!(written.len() >= lines, "there are {written:?}");
            Ok(written)
        })
        .await
    }

    /// Returns the process ids in the file `starts`, one for each start so far.
    ///
    /// # Errors
    /// If the file has other content.
    pub fn starts(&self) -> Result<Vec<i32>> {
        let lines = self.lines("starts").into_iter();
        lines.map(|line| line.parse().with_context(|| format!("invalid pid {line:?}"))).collect()
    }

    /// Waits until this number of starts, and returns the pid of the last one.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn started(&self, times: usize) -> Result<i32> {
        self.wait_lines("starts", times).await?;
        self.starts()?.last().copied().context("it was not started")
    }

    /// Returns the resources of the host.
    ///
    /// # Errors
    /// If it has ended.
    pub fn holdings(&self) -> Result<ResourceUsage> {
        let pid = self.pid();
        let count = |what: &str| Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{pid}/{what}"))?.count());
        let threads = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
        let children = threads.filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("children")).ok()?;
            Some(text.split_whitespace().count())
        });
        Ok(ResourceUsage { threads: count("task")?, descriptors: count("fd")?, children: children.sum() })
    }

    /// Returns the processor time that all threads of the host have used.
    ///
    /// # Errors
    /// If it has ended.
    pub fn cpu_time(&self) -> Result<Duration> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid()))?;
        let spent = threads.filter_map(|thread| {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Ok(Duration::from_nanos(spent.sum()))
    }

    /// Returns the resident memory of the host, in MiB.
    ///
    /// # Errors
    /// If it has ended.
    pub fn resident(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// Returns the running descendants of the host: those that inherited its mark, or its directory if they overwrote
    /// their environment, as redis does.
    #[must_use]
    pub fn descendants(&self) -> Vec<i32> {
        let mark = format!("{MARKER_VARIABLE}={}", self.mark);
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

    /// Waits until no descendant of the host runs.
    ///
    /// # Errors
    /// If one still runs.
    pub async fn assert_clean(&self) -> Result {
        eventually("no process is left behind", DEFAULT_TIMEOUT, async || {
            let left = self.descendants();
            ensure!(left.is_empty(), "left are {left:?}");
            Ok(())
        })
        .await
    }
}

/// Returns the children of the first thread of a process.
fn children(pid: i32) -> Option<Vec<i32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Some(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

impl Drop for Host {
    /// Kills it and all of its descendants. Its log is shown for failed tests only.
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
        let shown = lines.get(lines.len().saturating_sub(MAX_SHOWN_LINES)..).unwrap_or_default();
        eprintln!("--- log of {}\n{}\n---", self.name, shown.join("\n"));
    }
}
