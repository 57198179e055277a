//! Turns a plugin's command into a process specification.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, sync::Once};

use ochopod_init::{Privileges, ProcessSpec, StdioMode};
use ochopod_plugin::{Command, LifecycleSettings};
use serde_json::{Map, Value, json};

/// The shell of `shell: true`.
const SHELL: &str = "/bin/sh";

/// Environment, permissions and privileges of every sub-process of a pod.
#[derive(Clone)]
pub struct LaunchConfig {
    /// The environment: the host's, minus secrets, plus the effective settings.
    pub environment: BTreeMap<OsString, OsString>,
    /// Variables for the sub-process only.
    pub secrets: BTreeMap<OsString, OsString>,
    /// The pod's registration, without its `seq`.
    pub registration: Map<String, Value>,
    /// The dependencies as declared.
    pub dependencies: Vec<String>,
    /// Programs that may be started; none for any.
    pub allowed: Option<Vec<String>>,
    /// Variables that the plugin may set if programs are restricted: those that it requests.
    pub variables: Vec<String>,
    /// User and resource limits.
    pub privileges: Privileges,
}

/// Rejection of a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The operator allows other programs only.
    #[error("program {0:?} not allowed by --exec")]
    Program(String),
    /// Variables that bypass the restriction: they make programs run other code.
    #[error(
        "variable {0} not allowed with --exec: expected variables that the plugin requests, and never PATH, LD_*, ENV, \
         BASH_ENV or BASH_FUNC_*"
    )]
    Variables(String),
    /// A text with which no program can be started.
    #[error("{0:?} contains a NUL byte, or '=' in the name of a variable")]
    Text(String),
}

impl LaunchConfig {
    /// Returns the specification of the process for this command.
    ///
    /// # Errors
    /// If the operator does not allow it, or no system could start it.
    pub fn process_spec(
        &self,
        command: &Command,
        settings: &LifecycleSettings,
        seq: Option<u64>,
    ) -> Result<ProcessSpec, LaunchError> {
        self.check_allowed(command, settings)?;
        let mut environment = self.environment.clone();
        environment.extend(self.secrets.iter().map(|(name, value)| (name.clone(), value.clone())));
        environment.insert("ochopod".into(), self.hints(seq).to_string().into());
        for (name, value) in &command.environment {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(LaunchError::Text(name.clone()));
            }
            environment.insert(name.into(), value.into());
        }
        let words = std::iter::once(&command.program).chain(&command.arguments);
        if let Some(word) = words.clone().find(|word| word.contains('\0')) {
            return Err(LaunchError::Text(word.clone()));
        }
        let (program, arguments) = if settings.shell {
            let mut arguments: Vec<OsString> = vec!["-c".into(), (&command.program).into(), "sh".into()];
            arguments.extend(command.arguments.iter().map(OsString::from));
            (SHELL.into(), arguments)
        } else {
            ((&command.program).into(), command.arguments.iter().map(OsString::from).collect())
        };
        Ok(ProcessSpec {
            program,
            arguments,
            environment,
            directory: settings.cwd.as_ref().map(PathBuf::from),
            input: false,
            output: if settings.pipe_subprocess { StdioMode::Merged } else { StdioMode::Inherit },
            keep_daemons: false,
            privileges: self.privileges.clone(),
        })
    }

    fn check_allowed(&self, command: &Command, settings: &LifecycleSettings) -> Result<(), LaunchError> {
        static UNRESTRICTED: Once = Once::new();
        let Some(allowed) = &self.allowed else {
            UNRESTRICTED.call_once(|| {
                tracing::info!(
                    "sub-process not restricted, plugin may run any program as this user; restrict with --exec PROGRAM"
                );
            });
            return Ok(());
        };
        let program = if settings.shell { SHELL } else { &command.program };
        if !allowed.iter().any(|name| name == program) {
            return Err(LaunchError::Program(program.to_owned()));
        }
        let may_set = |name: &String| self.variables.contains(name) && !runs_other_code(name);
        let rejected: Vec<String> = command
            .environment
            .keys()
            .filter(|name| !may_set(name))
            .map(|name| name.escape_debug().to_string())
            .collect();
        if rejected.is_empty() { Ok(()) } else { Err(LaunchError::Variables(rejected.join(", "))) }
    }

    /// Returns the value of the variable `ochopod`: the registration and hints.
    fn hints(&self, seq: Option<u64>) -> Value {
        let mut hints = self.registration.clone();
        hints.insert("metrics".to_owned(), json!({}));
        hints.insert("dependencies".to_owned(), json!(self.dependencies));
        if let Some(seq) = seq {
            hints.insert("seq".to_owned(), json!(seq));
        }
        Value::Object(hints)
    }
}

/// Returns whether this variable decides which code the loader or a shell runs, whatever the program is.
fn runs_other_code(name: &str) -> bool {
    matches!(name, "PATH" | "ENV" | "BASH_ENV") || name.starts_with("LD_") || name.starts_with("BASH_FUNC_")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config(allowed: Option<&[&str]>) -> LaunchConfig {
        LaunchConfig {
            environment: BTreeMap::from([("FOO".into(), "1".into()), ("PATH".into(), "/bin".into())]),
            secrets: BTreeMap::from([("DB_PASSWORD".into(), "hunter2".into()), ("FOO".into(), "0".into())]),
            registration: Map::from_iter([("cluster".to_owned(), json!("web"))]),
            dependencies: vec!["db".to_owned()],
            allowed: allowed.map(|names| names.iter().map(ToString::to_string).collect()),
            variables: ["ROLE", "PATH", "LD_PRELOAD", "BASH_ENV", "BASH_FUNC_ls%%"].map(str::to_owned).to_vec(),
            privileges: Privileges::default(),
        }
    }

    fn settings(shell: bool) -> LifecycleSettings {
        let minute = Duration::from_mins(1);
        LifecycleSettings {
            check_every: minute,
            checks: 1,
            cwd: Some("/opt".to_owned()),
            grace: minute,
            pipe_subprocess: true,
            shell,
            soft: false,
            strict: false,
            on_change: ochopod_plugin::OnChange::Restart,
            ready_within: Duration::from_mins(1),
        }
    }

    fn command(program: &str, variables: &[(&str, &str)]) -> Command {
        let environment = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Command { program: program.to_owned(), arguments: vec!["a b".to_owned()], environment, reload: None }
    }

    #[test]
    fn environment_is_the_hosts_with_hints_and_overrides_of_the_plugin() {
        let launch = config(None).process_spec(&command("x", &[("FOO", "2")]), &settings(false), Some(7)).unwrap();
        assert_eq!(launch.environment[&OsString::from("FOO")], "2", "the plugin overrides all others");
        assert_eq!(launch.environment[&OsString::from("DB_PASSWORD")], "hunter2");
        let plain = config(None).process_spec(&command("x", &[]), &settings(false), Some(7)).unwrap();
        assert_eq!(plain.environment[&OsString::from("FOO")], "0", "a secret overrides the host's variable");
        let hints: Value =
            serde_json::from_str(launch.environment[&OsString::from("ochopod")].to_str().unwrap()).unwrap();
        assert_eq!(hints, json!({"cluster": "web", "metrics": {}, "dependencies": ["db"], "seq": 7}));
        assert_eq!((launch.directory, launch.output), (Some(PathBuf::from("/opt")), StdioMode::Merged));
    }

    #[test]
    fn shell_runs_the_program_as_text_with_arguments_as_parameters() {
        let launch =
            config(None).process_spec(&command("sleep $LAPSE && echo \"$1\"", &[]), &settings(true), None).unwrap();
        assert_eq!(launch.program, "/bin/sh");
        assert_eq!(launch.arguments, ["-c", "sleep $LAPSE && echo \"$1\"", "sh", "a b"]);
    }

    #[test]
    fn list_of_programs_rejects_any_other() {
        let config = config(Some(&["redis-server"]));
        assert!(config.process_spec(&command("redis-server", &[]), &settings(false), None).is_ok());
        let rejected = |command: &Command, shell| config.process_spec(command, &settings(shell), None).unwrap_err();
        assert_eq!(rejected(&command("nc", &[]), false), LaunchError::Program("nc".to_owned()));
        assert_eq!(rejected(&command("redis-server", &[]), true), LaunchError::Program("/bin/sh".to_owned()));
    }

    #[test]
    fn list_of_programs_allows_only_requested_variables_and_none_that_runs_other_code() {
        let limited = config(Some(&["redis-server"]));
        let launch = limited.process_spec(&command("redis-server", &[("ROLE", "x")]), &settings(false), None).unwrap();
        assert_eq!(launch.environment[&OsString::from("ROLE")], "x");
        let wanted = ["PATH", "LD_PRELOAD", "BASH_ENV", "BASH_FUNC_ls%%"];
        let others = ["LD_AUDIT", "ENV", "BASH_FUNC_cd%%", "PYTHONSTARTUP", "NODE_OPTIONS", "IFS", "role", "FOO"];
        for name in wanted.into_iter().chain(others) {
            let command = command("redis-server", &[("ROLE", "1"), (name, "x"), ("OTHER", "y")]);
            let error = limited.process_spec(&command, &settings(false), None).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("OTHER"), "{text}");
            assert!(config(None).process_spec(&command, &settings(false), None).is_ok(), "{name}");
        }
    }

    #[test]
    fn command_that_no_system_can_start_is_rejected_by_name() {
        let launch = |command: &Command| config(None).process_spec(command, &settings(false), None).unwrap_err();
        assert_eq!(launch(&command("a\0b", &[])), LaunchError::Text("a\0b".to_owned()));
        for name in ["", "A=B"] {
            assert_eq!(launch(&command("x", &[(name, "1")])), LaunchError::Text(name.to_owned()));
        }
    }
}
