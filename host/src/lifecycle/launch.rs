//! From a plugin's command to what init launches.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, sync::Once};

use serde_json::{Map, Value, json};

use crate::{
    init::{Launch, Output, Privileges},
    plugin::{Command, LifecycleSettings},
};

/// The shell of `shell: true`.
const SHELL: &str = "/bin/sh";

/// What every sub-process of this pod starts from.
#[derive(Debug, Clone)]
pub struct LaunchPad {
    /// The environment: the host's, minus secrets, plus the effective settings.
    pub environment: BTreeMap<OsString, OsString>,
    /// The pod's registration, without its `seq`.
    pub registration: Map<String, Value>,
    /// The dependencies as declared.
    pub dependencies: Vec<String>,
    /// The only programs that may be started; any when none.
    pub allowed: Option<Vec<String>>,
    /// As whom they run, and within which limits.
    pub privileges: Privileges,
}

/// Why a command is not launched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The operator allows other programs only.
    #[error("program {0:?} is not among those that --exec allows")]
    Program(String),
    /// A variable that would undo what the operator allows.
    #[error("variable {0:?} must not be set where --exec limits the programs")]
    Variable(String),
    /// A text that no program can be started with.
    #[error("{0:?} contains a NUL byte, or '=' in the name of a variable")]
    Text(String),
}

impl LaunchPad {
    /// What to launch for this command.
    ///
    /// # Errors
    /// When the operator does not allow it, or no system could start it.
    pub fn launch(
        &self,
        command: &Command,
        settings: &LifecycleSettings,
        seq: Option<u64>,
    ) -> Result<Launch, LaunchError> {
        self.permit(command, settings)?;
        let mut environment = self.environment.clone();
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
        Ok(Launch {
            program,
            arguments,
            environment,
            directory: settings.cwd.as_ref().map(PathBuf::from),
            input: false,
            output: if settings.pipe_subprocess { Output::Merged } else { Output::Inherit },
            daemons: false,
            privileges: self.privileges.clone(),
        })
    }

    fn permit(&self, command: &Command, settings: &LifecycleSettings) -> Result<(), LaunchError> {
        static UNLIMITED: Once = Once::new();
        let Some(allowed) = &self.allowed else {
            UNLIMITED.call_once(|| {
                tracing::info!("the plugin may start any program as this user; --exec PROGRAM would limit that");
            });
            return Ok(());
        };
        let program = if settings.shell { SHELL } else { &command.program };
        if !allowed.iter().any(|name| name == program) {
            return Err(LaunchError::Program(program.to_owned()));
        }
        match command.environment.keys().find(|name| *name == "PATH" || name.starts_with("LD_")) {
            Some(name) => Err(LaunchError::Variable(name.clone())),
            None => Ok(()),
        }
    }

    /// What the variable `ochopod` tells the sub-process: the registration and hints.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pad(allowed: Option<&[&str]>) -> LaunchPad {
        LaunchPad {
            environment: BTreeMap::from([("FOO".into(), "1".into()), ("PATH".into(), "/bin".into())]),
            registration: Map::from_iter([("cluster".to_owned(), json!("web"))]),
            dependencies: vec!["db".to_owned()],
            allowed: allowed.map(|names| names.iter().map(ToString::to_string).collect()),
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
        }
    }

    fn command(program: &str, variables: &[(&str, &str)]) -> Command {
        let environment = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Command { program: program.to_owned(), arguments: vec!["a b".to_owned()], environment }
    }

    #[test]
    fn the_environment_is_the_hosts_with_hints_and_the_plugins_overrides() {
        let launch = pad(None).launch(&command("x", &[("FOO", "2")]), &settings(false), Some(7)).unwrap();
        assert_eq!(launch.environment[&OsString::from("FOO")], "2");
        let hints: Value =
            serde_json::from_str(launch.environment[&OsString::from("ochopod")].to_str().unwrap()).unwrap();
        assert_eq!(hints, json!({"cluster": "web", "metrics": {}, "dependencies": ["db"], "seq": 7}));
        assert_eq!((launch.directory, launch.output), (Some(PathBuf::from("/opt")), Output::Merged));
    }

    #[test]
    fn with_shell_the_program_is_text_and_arguments_are_its_parameters() {
        let launch = pad(None).launch(&command("sleep $LAPSE && echo \"$1\"", &[]), &settings(true), None).unwrap();
        assert_eq!(launch.program, "/bin/sh");
        assert_eq!(launch.arguments, ["-c", "sleep $LAPSE && echo \"$1\"", "sh", "a b"]);
    }

    #[test]
    fn a_list_of_programs_refuses_any_other_and_what_would_undo_it() {
        let pad = pad(Some(&["redis-server"]));
        assert!(pad.launch(&command("redis-server", &[]), &settings(false), None).is_ok());
        let refused = |command: &Command, shell| pad.launch(command, &settings(shell), None).unwrap_err();
        assert_eq!(refused(&command("nc", &[]), false), LaunchError::Program("nc".to_owned()));
        assert_eq!(refused(&command("redis-server", &[]), true), LaunchError::Program("/bin/sh".to_owned()));
        for name in ["PATH", "LD_PRELOAD"] {
            let error = refused(&command("redis-server", &[(name, "x")]), false);
            assert_eq!(error, LaunchError::Variable(name.to_owned()));
        }
    }

    #[test]
    fn what_no_system_can_start_is_refused_by_name() {
        let launch = |command: &Command| pad(None).launch(command, &settings(false), None).unwrap_err();
        assert_eq!(launch(&command("a\0b", &[])), LaunchError::Text("a\0b".to_owned()));
        for name in ["", "A=B"] {
            assert_eq!(launch(&command("x", &[(name, "1")])), LaunchError::Text(name.to_owned()));
        }
    }
}
