//! The command line. Definitions only; the commands are in `app`.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, error::ErrorKind};
#[cfg(feature = "pilot")]
use ochopod_pilot_command::{PilotArgs, normalize_go_flags};
use ochopod_settings::Flags;

use crate::settings::GrantFlags;

/// Most pods of one process.
pub(crate) const MAX_PODS: u16 = 2000;

/// A pod host: the containers of a cluster discover each other, elect a leader and configure themselves.
///
/// Each setting has a flag and an environment variable (in parentheses); the flag takes precedence.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "ochopod", version, disable_help_subcommand = true)]
pub struct Cli {
    /// Command.
    #[command(subcommand)]
    pub command: Commands,
}

/// The commands.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Commands {
    /// Run one pod, as a container's init (PID 1) or as an ordinary process
    Run(Box<RunArgs>),
    /// Run several pods of one cluster in this process, for development
    ///
    /// Pods listen on 127.0.0.2, 127.0.0.3, … Coordination is in-process unless --zk is given. Commands on standard input:
    /// add, kill N, quit; end of input also quits.
    Up(Box<UpArgs>),
    /// Validate a plugin without running it; print its world, imports, the flags that grant what it requests, and the platform
    ///
    /// With -o json, the report is an object with stable keys: plugin (path), world, exports, imports (lists of
    /// interfaces), lifecycle, model (settings by name; durations in seconds), tools (objects with name and help),
    /// requests (object with directories, network, programs and variables), missing (flags that grant what is requested
    /// and not granted by the other flags), platform (object with binding, values by name, each with value and source, and
    /// problems, the look-ups that failed), denied (requested secrets of host and platform, which are never granted).
    Check(CheckArgs),
    /// Compile a plugin ahead of time, for use with `run`
    Compile(CompileArgs),
    /// Run a command with ContainerPilot 2 features: service registration, health checks, backends and hooks
    ///
    /// Flags take one or two dashes and end at the first non-flag word, which starts the application's command line.
    /// SIGTERM, SIGINT, SIGQUIT, SIGRTMIN+3, and SIGWINCH without a terminal, deregister and then stop the application; a
    /// second one kills it. SIGHUP reloads the configuration, SIGUSR1 toggles maintenance, other signals are forwarded to
    /// the application, which also gets the terminal. The exit code is that of the application.
    #[cfg(feature = "pilot")]
    Pilot(Box<PilotArgs>),
}

/// `ochopod run`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RunArgs {
    /// Plugin: a component (.wasm), or one compiled ahead of time (.cwasm)
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
pub struct UpArgs {
    /// Plugin: a component (.wasm), or one compiled ahead of time (.cwasm)
    #[arg(value_name = "PLUGIN")]
    pub plugin: PathBuf,
    /// Number of pods
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_PODS)))]
    pub pods: u16,
    /// Settings of each pod.
    #[command(flatten)]
    pub settings: Flags,
    /// Grants to the plugin.
    #[command(flatten)]
    pub grants: GrantFlags,
}

/// `ochopod check`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CheckArgs {
    /// Plugin
    #[arg(value_name = "PLUGIN")]
    pub plugin: PathBuf,
    /// Output format: text or json (see above)
    #[arg(short, long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub output: String,
    /// List the imports instead of their number
    #[arg(short, long)]
    pub verbose: bool,
    /// Settings of the pod, of which those about the platform are reported.
    #[command(flatten)]
    pub settings: Flags,
    /// Grants to the plugin.
    #[command(flatten)]
    pub grants: GrantFlags,
}

/// `ochopod compile`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CompileArgs {
    /// Plugin
    #[arg(value_name = "PLUGIN")]
    pub plugin: PathBuf,
    /// Output file
    #[arg(short, long, value_name = "FILE.cwasm")]
    pub output: PathBuf,
}

/// Reason for which no command is run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CliError {
    /// Help or version was requested: this text is printed, and the exit code is 0.
    #[error("{0}")]
    Info(String),
    /// Invalid usage, with what was expected.
    #[error("{0}")]
    Usage(String),
}

/// Parses the command line, which starts with the program's name.
///
/// # Errors
/// If there is no command to run; see [`CliError`] for whether that is a failure.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, CliError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    #[cfg(feature = "pilot")]
    let arguments =
        if arguments.get(1).is_some_and(|word| word == "pilot") { normalize_go_flags(arguments, 2) } else { arguments };
    Cli::try_parse_from(arguments).map_err(|error| {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => CliError::Info(text),
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
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_and_version_are_info_and_everything_else_is_a_usage_error() {
        for line in ["ochopod --help", "ochopod run --help", "ochopod --version", "ochopod up -h"] {
            assert!(matches!(parsed(line), Err(CliError::Info(_))), "{line}");
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
        for name in ["run", "up", "check"] {
            let command = command.find_subcommand(name).unwrap();
            let settings = command.get_arguments().filter(|arg| arg.get_help_heading() == Some("Settings"));
            let settings: Vec<_> = settings.collect();
            assert_eq!(settings.len(), 41);
            for arg in settings {
                let flag = arg.get_long().unwrap();
                let variable = format!("(ochopod_{}", flag.replace('-', "_"));
                assert!(arg.get_help().unwrap().to_string().contains(&variable), "--{flag}");
            }
        }
    }

    #[test]
    fn switch_has_an_optional_value() {
        let Commands::Run(run) =
            parsed("ochopod run --local --start=false a.wasm --set damper=5 --set checks=2").unwrap().command
        else {
            panic!("not run")
        };
        assert_eq!((run.settings.text("local"), run.settings.text("start")), (Some("true"), Some("false")));
        assert_eq!(
            (run.plugin, run.settings.all("set")),
            (PathBuf::from("a.wasm"), ["damper=5".to_owned(), "checks=2".to_owned()].as_slice())
        );
    }
}
