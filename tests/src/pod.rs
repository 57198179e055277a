//! Pods: the real binary.

use std::{
    ffi::{OsStr, OsString},
    fmt::Display,
    ops::{Deref, DerefMut},
    path::Path,
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    Client, DEFAULT_TIMEOUT, Proxy, Result, artifacts, eventually,
    host::{Host, Input, Launch},
    namespaces,
};

/// `ochopod run PLUGIN`, before it is started.
#[derive(Debug, Clone)]
pub struct PodBuilder {
    launch: Launch,
    /// Its arguments: a verb, the plugin and flags.
    arguments: Vec<OsString>,
    address: String,
    authority: String,
    /// Whether its sub-process writes its pid to the file that [`Host::starts`] reads.
    counts_starts: bool,
}

impl PodBuilder {
    /// Returns a builder of a pod that runs in a directory of its own, made when it starts.
    #[must_use]
    pub fn new(plugin: &Path, directory: &Path) -> Self {
        Self::of(["run".as_ref(), plugin.as_os_str()], directory)
    }

    /// Returns a builder of another command than `run`, with its arguments.
    #[must_use]
    pub fn of<T: AsRef<OsStr>>(words: impl IntoIterator<Item = T>, directory: &Path) -> Self {
        let mut launch = Launch::new(directory);
        launch.environment.insert("ochopod_cache".to_owned(), artifacts::cache().display().to_string());
        let arguments = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        Self { launch, arguments, address: String::new(), authority: String::new(), counts_starts: false }
    }

    /// Its control port.
    #[must_use]
    pub fn reached_at(mut self, address: &str, port: u16) -> Self {
        address.clone_into(&mut self.address);
        self.authority = format!("{address}:{port}");
        self
    }

    /// Runs `ochopod up PLUGIN` instead, with a pipe for its commands.
    #[must_use]
    pub fn up(mut self) -> Self {
        if let Some(verb) = self.arguments.first_mut() {
            *verb = "up".into();
        }
        self.launch.input = Input::Pipe;
        self
    }

    /// Selects another binary than the debug build.
    #[must_use]
    pub fn binary(mut self, path: &Path) -> Self {
        self.launch.binary = Some(path.to_owned());
        self
    }

    /// Is started by this command, which gets the host's command line after its own: see [`crate::namespaces`].
    #[must_use]
    pub fn within(mut self, command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.launch.within.extend(command.into_iter().map(Into::into));
        self
    }

    /// Is controlled by a terminal of its own: see [`Host::press`].
    #[must_use]
    pub fn on_terminal(mut self) -> Self {
        self.launch.input = Input::Terminal;
        self.within(namespaces::on_terminal())
    }

    /// Does not show its log in the end.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.launch.quiet = true;
        self
    }

    /// Runs it as a user without power over other processes of the same user, like every user except root.
    #[must_use]
    pub fn without_capabilities(mut self) -> Self {
        self.launch.powerless = true;
        self
    }

    /// Sets a setting: the variable `ochopod_<name>`.
    #[must_use]
    pub fn set(self, name: &str, value: impl Display) -> Self {
        self.env(&format!("ochopod_{name}"), value)
    }

    /// Removes a setting.
    #[must_use]
    pub fn unset(mut self, name: &str) -> Self {
        self.launch.environment.remove(&format!("ochopod_{name}"));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Display) -> Self {
        self.launch.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// Adds flags.
    #[must_use]
    pub fn flags<'a>(mut self, flags: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(flags.into_iter().map(OsString::from));
        self
    }

    /// Peers reach its control port through a proxy; the kit uses the port directly.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn proxied(self) -> Result<(Self, Proxy)> {
        let proxy = Proxy::http(self.authority.parse()?).await?;
        let (_, port) = self.authority.rsplit_once(':').context("no port")?;
        let mapping = format!("PORT_{port}");
        let listen = self.authority.clone();
        Ok((self.set("listen", listen).env(&mapping, proxy.address().port()), proxy))
    }

    /// Sets the command of the misbehaving guest: text for the shell, in the pod's directory.
    #[must_use]
    pub fn command(mut self, text: &str) -> Self {
        self.counts_starts = false;
        self.set("test_command", text)
    }

    /// Sets the same, preceded by a line with its pid in the file that [`Host::starts`] reads.
    #[must_use]
    pub fn count_starts(self, text: &str) -> Self {
        let counting = self.command(&format!("echo $$ >> starts; {text}"));
        Self { counts_starts: true, ..counting }
    }

    /// Sets the same for text that sets traps and then loops: the line is written once the traps are set.
    #[must_use]
    pub fn count_trapped_starts(self, text: &str) -> Self {
        let (traps, body) = text.split_at(text.rfind("while").unwrap_or_default());
        let counting = self.command(&format!("{traps}echo $$ >> starts; {body}"));
        Self { counts_starts: true, ..counting }
    }

    /// Sets the behaviour of a callback of the misbehaving guest: `trap`, `spin`, `sleep`, `reject`, `panic`…
    #[must_use]
    pub fn misbehave(self, callback: &str, how: &str) -> Self {
        self.set(&format!("test_{callback}"), how)
    }

    /// Starts it. Compiled plugins are shared by all pods of one machine, as for its users.
    ///
    /// # Errors
    /// If the binary is not there.
    pub fn start(self) -> Result<Pod> {
        let host = self.launch.start(format!("the pod {}", self.address), self.arguments, &["stderr"])?;
        let (client, counts_starts) = (Client::new(self.authority), self.counts_starts);
        Ok(Pod { host, client, address: self.address, counts_starts })
    }
}

/// A running pod, or one that has ended: a [`Host`] with a control port.
#[derive(Debug)]
pub struct Pod {
    host: Host,
    client: Client,
    address: String,
    counts_starts: bool,
}

impl Deref for Pod {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl DerefMut for Pod {
    fn deref_mut(&mut self) -> &mut Host {
        &mut self.host
    }
}

impl Pod {
    /// Checks that the sub-process with this pid, as in `/info`, has reported its start, if it does so. It runs a moment
    /// before: a test that stops it immediately would miss it.
    ///
    /// # Errors
    /// If it has not.
    pub fn has_reported_start(&self, pid: &Value) -> Result {
        if self.counts_starts {
            let last = self.starts()?.last().copied();
            ensure!(last.map(Value::from).as_ref() == Some(pid), "{}: {pid} has not reported its start", self.address);
        }
        Ok(())
    }

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

    /// Waits until `/info` has a value at a key.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn wait_info(&self, key: &str, value: impl Into<Value>) -> Result<Value> {
        let value = value.into();
        let what = format!("{} has {key} {value}", self.address);
        eventually(&what, DEFAULT_TIMEOUT, async || {
            let info = self.client.info().await?;
            ensure!(info[key] == value, "it has {}", info[key]);
            Ok(info)
        })
        .await
    }
}
