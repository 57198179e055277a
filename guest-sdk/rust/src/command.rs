use std::collections::BTreeMap;

/// Command that the pod runs: the result of [`Lifecycle::configure`](crate::Lifecycle::configure).
///
/// ```
/// use ochopod_sdk::Command;
///
/// Command::new("redis-server").arg("--port").arg("6379").env("TZ", "UTC");
/// Command::shell("exec nginx -g 'daemon off;'");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Path or name looked up in PATH; text for `/bin/sh -c` if created by [`Command::shell`].
    pub program: String,
    /// Arguments; `$1`, `$2`… of a shell text.
    pub arguments: Vec<String>,
    /// Variables that are added to the host's environment or replace its variables.
    pub environment: BTreeMap<String, String>,
    /// Signal for the running sub-process if this command is the one that it runs: see [`Command::reload`].
    pub reload: Option<u8>,
    shell: bool,
}

impl Command {
    /// Runs a program directly (or a shell text, if the plugin's settings have `shell`).
    #[must_use]
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            reload: None,
            shell: false,
        }
    }

    /// Runs text by `/bin/sh -c`, whatever the settings are. Start the last command with `exec`, so that it replaces the
    /// shell.
    #[must_use]
    pub fn shell(text: impl Into<String>) -> Self {
        Self { shell: true, ..Self::new(text) }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable; the last value wins.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "numbers and text alike are handed over")]
    pub fn env(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.environment.insert(name.into(), value.to_string());
        self
    }

    /// Sets the signal, by its number, that makes the running sub-process read its files again. It is sent to the process
    /// if the command is the one that it runs, with [`OnChange::Compare`](crate::OnChange::Compare). Set it only if
    /// something that the process reads has changed.
    #[must_use]
    pub fn reload(self, signal: u8) -> Self {
        Self { reload: Some(signal), ..self }
    }

    /// Returns the command as the host runs it: the host adds `/bin/sh -c` if `host_shell`.
    pub(crate) fn resolved(self, host_shell: bool) -> Self {
        if !self.shell || host_shell {
            return self;
        }
        let head = ["-c".to_owned(), self.program.clone(), "sh".to_owned()];
        let arguments = head.into_iter().chain(self.arguments.clone()).collect();
        Self { program: "/bin/sh".to_owned(), arguments, shell: false, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_text_runs_by_the_shell_whether_or_not_the_host_adds_it() {
        let text = Command::shell("echo $1").arg("hi").env("A", 1);
        let direct = text.clone().resolved(false);
        assert_eq!(direct.program, "/bin/sh");
        assert_eq!(direct.arguments, ["-c", "echo $1", "sh", "hi"]);
        assert_eq!(direct.environment["A"], "1");
        let by_host = text.resolved(true);
        assert_eq!((by_host.program.as_str(), by_host.arguments), ("echo $1", vec!["hi".to_owned()]));
    }

    #[test]
    fn a_program_is_left_as_it_is() {
        let command = Command::new("sleep").args(["1", "2"]).env("A", "1").env("A", "2");
        assert_eq!(command.clone().resolved(false), command);
        assert_eq!(command.environment["A"], "2");
    }
}
