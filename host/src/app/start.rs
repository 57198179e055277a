//! From the command line to a command, and from errors to exit codes.

use std::{ffi::OsString, process::ExitCode};

use ochopod_entry::{block_on, finish, init_process, print, print_error};
use ochopod_environment::Env;
use ochopod_init::{HostExit, TerminationSignals};

use super::{check, compile, error::StartError, run, up};
use crate::{
    cli,
    cli::{CliError, Commands},
};

/// Name of the binary in error messages.
const PROGRAM: &str = "ochopod";

/// Runs the command of the command line and returns the exit code.
#[must_use]
pub fn start(arguments: Vec<OsString>, env: &Env) -> ExitCode {
    match cli::parse(arguments) {
        Ok(cli) => finish(PROGRAM, run_command(cli.command, env)),
        Err(CliError::Info(text)) => print(&text),
        Err(CliError::Usage(text)) => print_error(PROGRAM, &text, HostExit::Usage),
    }
}

fn run_command(command: Commands, env: &Env) -> Result<HostExit, StartError> {
    init_process()?;
    match command {
        Commands::Run(run) => block_on(run::run(*run, env)),
        Commands::Up(up) => block_on(up::up(*up, env)),
        Commands::Check(check) => {
            TerminationSignals::unblock();
            block_on(check::check(check, env))
        }
        Commands::Compile(compile) => {
            TerminationSignals::unblock();
            compile::compile(&compile)
        }
        #[cfg(feature = "pilot")]
        Commands::Pilot(pilot) => Ok(block_on(ochopod_pilot_command::pilot(*pilot, env))?),
    }
}
