//! Pods: the real binary.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Display,
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
use serde_json::Value;

use crate::{Client, Process, Proxy, Result, SOON, alive, artifacts, eventually};

/// Marks every process that descends from a pod: variables are inherited.
const MARK: &str = "KIT_POD";
/// How much of its log a pod shows when its test fails.
const SHOWN: usize = 200;

/// `ochopod run PLUGIN`, to be completed.
#[derive(Debug, Clone)]
pub struct PodBuilder {
    verb: &'static str,
    binary: Option<PathBuf>,
    plugin: PathBuf,
    directory: PathBuf,
    environment: BTreeMap<String, String>,
    arguments: Vec<String>,
    within: Vec<String>,
    address: String,
    authority: String,
    piped: bool,
    quiet: bool,
    powerless: bool,
}

impl PodBuilder {
    /// A pod that runs in a directory of its own, made when it starts.
    #[must_use]
    pub fn new(plugin: &Path, directory: &Path) -> Self {
        Self {
            verb: "run",
            binary: None,
            plugin: plugin.to_owned(),
            directory: directory.to_owned(),
            environment: BTreeMap::new(),
            arguments: Vec::new(),
            within: Vec::new(),
            address: String::new(),
            authority: String::new(),
            piped: false,
            quiet: false,
            powerless: false,
        }
    }

    /// Where its control port will be.
    #[must_use]
    pub fn reached_at(mut self, address: &str, port: u16) -> Self {
        address.clone_into(&mut self.address);
        self.authority = format!("{address}:{port}");
        self
    }

    /// `ochopod up PLUGIN` instead, with a pipe for its commands.
    #[must_use]
    pub fn up(mut self) -> Self {
        self.verb = "up";
        self.piped = true;
        self
    }

    /// Another binary than the debug build.
    #[must_use]
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_owned());
        self
    }

    /// Is started by this command, which gets the host's command line after its own: see [`crate::namespaces`].
    #[must_use]
    pub fn within(mut self, command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.within.extend(command.into_iter().map(Into::into));
        self
    }

    /// Does not show its log in the end.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Runs it as a user who has no power over others of the same user, as those who are not root have not.
    #[must_use]
    pub fn powerless(mut self) -> Self {
        self.powerless = true;
        self
    }

    /// A setting: the variable `ochopod_<name>`.
    #[must_use]
    pub fn set(self, name: &str, value: impl Display) -> Self {
        self.env(&format!("ochopod_{name}"), value)
    }

    /// Takes a setting back.
    #[must_use]
    pub fn unset(mut self, name: &str) -> Self {
        self.environment.remove(&format!("ochopod_{name}"));
        self
    }

    /// A variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Display) -> Self {
        self.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// A flag, or several.
    #[must_use]
    pub fn flags<'a>(mut self, flags: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(flags.into_iter().map(str::to_owned));
        self
    }

    /// Peers reach its control port through a proxy; the kit goes there directly.
    ///
    /// # Errors
    /// When there is no port for it.
    pub async fn proxied(self) -> Result<(Self, Proxy)> {
        let proxy = Proxy::http(self.authority.parse()?).await?;
        let (_, port) = self.authority.rsplit_once(':').context("no port")?;
        let mapping = format!("PORT_{port}");
        let listen = self.authority.clone();
        Ok((self.set("listen", listen).env(&mapping, proxy.address().port()), proxy))
    }

    /// What the misbehaving guest runs: text for the shell, in the pod's directory.
    #[must_use]
    pub fn command(self, text: &str) -> Self {
        self.set("test_command", text)
    }

    /// The same, preceded by a line with its pid in the file that [`Pod::starts`] reads.
    #[must_use]
    pub fn counted(self, text: &str) -> Self {
        self.command(&format!("echo $$ >> starts; {text}"))
    }

    /// What a callback of the misbehaving guest does: `trap`, `spin`, `sleep`, `reject`, `panic`…
    #[must_use]
    pub fn misbehave(self, callback: &str, how: &str) -> Self {
        self.set(&format!("test_{callback}"), how)
    }

    /// Starts it. Compiled plugins are shared by all pods of one machine, as for its users.
    ///
    /// # Errors
    /// When the binary is not there.
    pub fn start(self) -> Result<Pod> {
        fs::create_dir_all(&self.directory)?;
        let log = self.directory.join("stderr");
        let mark = uuid::Uuid::new_v4().to_string();
        let binary = self.binary.map_or_else(artifacts::ochopod, Ok)?;
        let words: Vec<OsString> = self.within.iter().map(OsString::from).chain([binary.into_os_string()]).collect();
        let (program, words) = words.split_first().context("there is no program")?;
        let mut command = if self.powerless { Process::powerless(program) } else { Process::command(program) };
        command.args(words).arg(self.verb).arg(&self.plugin).args(&self.arguments).current_dir(&self.directory);
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| is_harmless(&name.to_string_lossy())));
        command.env("ochopod_cache", artifacts::cache()).envs(&self.environment).env(MARK, &mark);
        command.stdin(if self.piped { Stdio::piped() } else { Stdio::null() });
        command.stdout(File::create(self.directory.join("stdout"))?).stderr(File::create(&log)?);
        let process = Process::spawn(format!("the pod {}", self.address), command)?;
        let client = Client::new(self.authority);
        let Self { address, directory, quiet, .. } = self;
        Ok(Pod { process, client, address, directory, log, mark, quiet })
    }
}

fn is_harmless(variable: &str) -> bool {
    !variable.to_ascii_lowercase().starts_with("ochopod") && !variable.starts_with("PORT_") && variable != MARK
}

/// A running pod, or one that has ended.
#[derive(Debug)]
pub struct Pod {
    process: Process,
    client: Client,
    address: String,
    directory: PathBuf,
    log: PathBuf,
    mark: String,
    quiet: bool,
}

impl Pod {
    /// Its control API.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its working directory, which is also that of its sub-process.
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
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// What it wrote to standard error.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn console(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// What it, or its sub-process, wrote to standard output.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn output(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.directory.join("stdout"))?).into_owned())
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

    /// Waits until `/info` has a value at a key.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn shows(&self, key: &str, value: &str) -> Result<Value> {
        let what = format!("{} has {key} {value:?}", self.address);
        eventually(&what, SOON, async || {
            let info = self.client.info().await?;
            ensure!(info[key] == value, "it has {}", info[key]);
            Ok(info)
        })
        .await
    }

    /// Waits until its log has a text, and gives the whole log.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn logs(&self, text: &str) -> Result<String> {
        let what = format!("{} logs {text:?}", self.address);
        eventually(&what, SOON, async || {
            let console = self.console()?;
            ensure!(console.contains(text), "it does not");
            Ok(console)
        })
        .await
    }

    /// How often its log has a text.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn logged(&self, text: &str) -> Result<usize> {
        Ok(self.console()?.matches(text).count())
    }

    /// Process ids of the sub-process, of all its starts so far: see [`PodBuilder::counted`].
    ///
    /// # Errors
    /// When the file has something else.
    pub fn starts(&self) -> Result<Vec<i32>> {
        let text = fs::read_to_string(self.directory.join("starts")).unwrap_or_default();
        text.lines().map(|line| line.parse().with_context(|| format!("{line:?} is no pid"))).collect()
    }

    /// Waits until the sub-process was started so often, and gives the pid of the last start.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn started(&self, times: usize) -> Result<i32> {
        let what = format!("start {times} at {}", self.address);
        eventually(&what, SOON, async || {
            let starts = self.starts()?;
            ensure!(starts.len() >= times, "it was started {} times", starts.len());
            starts.last().copied().context("it was not started")
        })
        .await
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

impl Drop for Pod {
    /// Ends it and all that descends from it. The log that it prints is shown for failed tests only.
    fn drop(&mut self) {
        self.process.kill();
        for pid in self.descendants() {
            _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if self.quiet {
            return;
        }
        let log = self.console().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines.get(lines.len().saturating_sub(SHOWN)..).unwrap_or_default();
        eprintln!("--- log of the pod {}\n{}\n---", self.address, shown.join("\n"));
    }
}
