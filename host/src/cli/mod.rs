//! The command line: what can be asked of the binary. Definitions only; the work is elsewhere.

mod pilot;

pub use pilot::Pilot;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, error::ErrorKind};

use crate::settings::{Flags, GrantFlags};

/// A host for pods: containers of one cluster find each other, elect a leader and configure themselves.
///
/// Every setting is a flag and a variable, named in parentheses; the flag wins.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "ochopod", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run one pod, as the init of a container or not
    Run(Box<Run>),
    /// Run several pods of one cluster in this process, for development
    ///
    /// The pods are at 127.0.0.2 and up. They find each other within the process, unless --zk is given. Commands on
    /// standard input: add, kill N, quit; the end of the input quits too.
    Up(Box<Up>),
    /// Validate a plugin without running it: world and version, imports, what it wants and which flags grant that
    Check(Check),
    /// Compile a plugin ahead of time; `run` accepts the result
    Compile(Compile),
    /// Run any command with services, health checks, backends and hooks around it, as ContainerPilot 2 does
    ///
    /// Flags have one dash or two, and end at the first word that is none: that word and all after it are the application.
    /// HUP reloads the configuration, USR1 begins and ends maintenance, other signals are for the application. The exit code
    /// is the application's.
    Pilot(Box<Pilot>),
}

/// `ochopod run`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Run {
    /// The plugin: a component (.wasm), or one compiled ahead of time (.cwasm)
    #[arg(value_name = "PLUGIN")]
    pub plugin: PathBuf,
    /// Settings of the pod.
    #[command(flatten)]
    pub settings: Flags,
    /// Grants to the plugin.
    #[command(flatten)]
    pub grants: GrantFlags,
}

/// `ochopod up`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Up {
    /// The plugin: a component (.wasm), or one compiled ahead of time (.cwasm)
    #[arg(value_name = "PLUGIN")]
    pub plugin: PathBuf,
    /// How many pods
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=250))]
    pub pods: u8,
    /// Settings of each pod.
    #[command(flatten)]
    pub settings: Flags,
    /// Grants to the plugin.
    #[command(flatten)]
    pub grants: GrantFlags,
}

/// `ochopod check`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Check {
    /// The plugin
    #[arg(value_name = "PLUGIN")]
    pub plugin: PathBuf,
    /// Grants to the plugin.
    #[command(flatten)]
    pub grants: GrantFlags,
}

/// `ochopod compile`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Compile {
    /// The plugin
    #[arg(value_name = "PLUGIN")]
    pub plugin: PathBuf,
    /// Where the compiled plugin goes
    #[arg(short, long, value_name = "FILE.cwasm")]
    pub output: PathBuf,
}

/// Why there is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CliError {
    /// Help or the version was asked for: this text is the answer, and success.
    #[error("{0}")]
    Shown(String),
    /// Bad usage, and what would be good.
    #[error("{0}")]
    Usage(String),
}

/// Reads the command line, the program's name first.
///
/// # Errors
/// When there is no command to carry out; see [`CliError`] for whether that is a failure.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, CliError> {
    Cli::try_parse_from(pilot::normalize(arguments.into_iter().collect())).map_err(|error| {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => CliError::Shown(text),
            _ => CliError::Usage(text),
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parsed(line: &str) -> Result<Cli, CliError> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_and_version_are_answers_and_everything_else_is_bad_usage() {
        for line in ["ochopod --help", "ochopod run --help", "ochopod --version", "ochopod up -h"] {
            assert!(matches!(parsed(line), Err(CliError::Shown(_))), "{line}");
        }
        for line in [
            "ochopod",
            "ochopod run",
            "ochopod walk",
            "ochopod run a.wasm --nope",
            "ochopod up a.wasm",
            "ochopod up a.wasm --pods 0",
            "ochopod compile a.wasm",
            "ochopod run a.wasm --port",
            "ochopod run a b",
        ] {
            assert!(matches!(parsed(line), Err(CliError::Usage(_))), "{line}");
        }
    }

    #[test]
    fn help_names_the_variable_of_every_setting() {
        let command = Cli::command();
        for name in ["run", "up"] {
            let command = command.find_subcommand(name).unwrap();
            let settings = command.get_arguments().filter(|arg| arg.get_help_heading() == Some("Settings"));
            let settings: Vec<_> = settings.collect();
            assert_eq!(settings.len(), 33);
            for arg in settings {
                let flag = arg.get_long().unwrap();
                let variable = format!("(ochopod_{}", flag.replace('-', "_"));
                assert!(arg.get_help().unwrap().to_string().contains(&variable), "--{flag}");
            }
        }
    }

    #[test]
    fn a_switch_may_stand_alone_or_have_a_value() {
        let Command::Run(run) =
            parsed("ochopod run --local --start=false a.wasm --set damper=5 --set checks=2").unwrap().command
        else {
            panic!("not run")
        };
        assert_eq!((run.settings.local.as_deref(), run.settings.start.as_deref()), (Some("true"), Some("false")));
        assert_eq!(
            (run.plugin, run.settings.set),
            (PathBuf::from("a.wasm"), vec!["damper=5".into(), "checks=2".into()])
        );
    }
}
