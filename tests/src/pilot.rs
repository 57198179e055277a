//! Pilots: the real binary around a command.

use std::{
    ffi::OsString,
    fmt::Display,
    fs,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    Result,
    host::{Host, Input, Launch},
    namespaces,
};

/// Path of the configuration, in the pilot's directory.
const CONFIGURATION: &str = "pilot.json5";

/// `ochopod pilot`, before it is started.
#[derive(Debug, Clone)]
pub struct PilotBuilder {
    launch: Launch,
    subcommand: Option<&'static str>,
    configuration: Option<String>,
    flags: Vec<OsString>,
    application: Vec<OsString>,
}

impl PilotBuilder {
    /// Returns a builder of a pilot that runs in a directory of its own, made when it starts, without a configuration
    /// or an application.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            launch: Launch::new(directory),
            subcommand: Some("pilot"),
            configuration: None,
            flags: Vec::new(),
            application: Vec::new(),
        }
    }

    /// Sets the configuration, in a file.
    #[must_use]
    pub fn configured(self, configuration: &Value) -> Self {
        self.written(&configuration.to_string())
    }

    /// Sets the text of the configuration, in a file.
    #[must_use]
    pub fn written(mut self, text: &str) -> Self {
        self.configuration = Some(text.to_owned());
        self
    }

    /// Adds arguments before the application.
    #[must_use]
    pub fn flags(mut self, flags: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.flags.extend(flags.into_iter().map(Into::into));
        self
    }

    /// Sets its application.
    #[must_use]
    pub fn application(mut self, words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.application = words.into_iter().map(Into::into).collect();
        self
    }

    /// Sets its application, as text for the shell.
    #[must_use]
    pub fn shell(self, text: &str) -> Self {
        self.application(["sh", "-c", text])
    }

    /// Sets the same, preceded by a line with its pid in the file that [`Host::starts`] reads.
    #[must_use]
    pub fn count_starts(self, text: &str) -> Self {
        self.shell(&format!("echo $$ >> starts; {text}"))
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Display) -> Self {
        self.launch.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// Selects another binary than the debug build.
    #[must_use]
    pub fn binary(mut self, path: &Path) -> Self {
        self.launch.binary = Some(path.to_owned());
        self
    }

    /// Selects the binary that has the pilot command alone.
    #[must_use]
    pub fn standalone(self, path: &Path) -> Self {
        Self { subcommand: None, ..self.binary(path) }
    }

    /// Is started by this command, which gets the host's command line after its own: see [`namespaces`].
    #[must_use]
    pub fn within(mut self, command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.launch.within.extend(command.into_iter().map(Into::into));
        self
    }

    /// Is PID 1, of a namespace of its own.
    #[must_use]
    pub fn init(self) -> Self {
        self.within(namespaces::init())
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

    /// Starts it.
    ///
    /// # Errors
    /// If the binary is not there.
    pub fn start(self) -> Result<Pilot> {
        let file = self.launch.directory.join(CONFIGURATION);
        let mut words: Vec<OsString> = self.subcommand.map(OsString::from).into_iter().collect();
        if let Some(text) = &self.configuration {
            replace(&file, text)?;
            words.extend(["-config".into(), format!("file://{}", file.display()).into()]);
        }
        words.extend(self.flags);
        words.extend(self.application);
        let host = self.launch.start("the pilot".to_owned(), words, &["stdout", "stderr"])?;
        Ok(Pilot { host, file })
    }
}

/// A running pilot, or one that has ended: a [`Host`] with a configuration that can be replaced.
#[derive(Debug)]
pub struct Pilot {
    host: Host,
    file: PathBuf,
}

impl Deref for Pilot {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl DerefMut for Pilot {
    fn deref_mut(&mut self) -> &mut Host {
        &mut self.host
    }
}

impl Pilot {
    /// Replaces its configuration and sends SIGHUP.
    ///
    /// # Errors
    /// If it has ended.
    pub fn reload(&self, configuration: &Value) -> Result {
        self.reload_text(&configuration.to_string())
    }

    /// Reloads the same with the text of a configuration, or of none.
    ///
    /// # Errors
    /// If it has ended.
    pub fn reload_text(&self, text: &str) -> Result {
        replace(&self.file, text)?;
        self.signal(Signal::SIGHUP)
    }
}

/// Replaces a file atomically, so that no reader sees half of it.
fn replace(file: &Path, text: &str) -> Result {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let next = file.with_extension("next");
    fs::write(&next, text)?;
    Ok(fs::rename(next, file)?)
}
