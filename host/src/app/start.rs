//! From the command line to a command, and from errors to exit codes.

use std::{
    error::Error,
    ffi::OsString,
    future::Future,
    io::{self, Write},
    process::ExitCode,
};

use super::{check, compile, error::StartError, pilot, run, up};
use crate::{
    cli::{self, CliError, Command},
    init::{self, Ending, Terminations},
    settings::Env,
};

/// Carries out what the command line asks for and says how the process is to end.
#[must_use]
pub fn start(arguments: Vec<OsString>, env: &Env) -> ExitCode {
    let command = match cli::parse(arguments) {
        Ok(cli) => cli.command,
        Err(CliError::Shown(text)) => return shown(&text),
        Err(CliError::Usage(text)) => return refused(&text, Ending::Usage),
    };
    if let Err(error) = prepare() {
        return refused(&chain(&error), error.ending());
    }
    let ending = match command {
        Command::Run(run) => block_on(run::run(*run, env)),
        Command::Up(up) => block_on(up::up(*up, env)),
        Command::Check(check) => {
            Terminations::release();
            block_on(check::check(check))
        }
        Command::Compile(compile) => {
            Terminations::release();
            compile::compile(&compile)
        }
        Command::Pilot(pilot) => block_on(pilot::pilot(*pilot, env)),
    };
    match ending {
        Ok(ending) => ending.into(),
        Err(error) => refused(&chain(&error), error.ending()),
    }
}

/// What has to be before anything else runs in this process.
fn prepare() -> Result<(), StartError> {
    // Two libraries bring a cryptography each; those that ask for neither by name get this one.
    _ = rustls::crypto::ring::default_provider().install_default();
    let what = "cannot be closed to other processes";
    init::close_to_others().map_err(|source| StartError::System { what, source })
}

/// The host's own duties share one thread: guests, init and blocking calls have others.
fn block_on(command: impl Future<Output = Result<Ending, StartError>>) -> Result<Ending, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "cannot start the runtime", source })?;
    let ending = runtime.block_on(command);
    // A lookup of a name may still block a thread: it is not waited for.
    runtime.shutdown_background();
    ending
}

fn shown(text: &str) -> ExitCode {
    match write!(io::stdout(), "{text}") {
        Ok(()) => Ending::Stopped.into(),
        Err(_) => Ending::Internal.into(),
    }
}

fn refused(text: &str, ending: Ending) -> ExitCode {
    // Nobody is left to tell when standard error is gone.
    _ = writeln!(io::stderr(), "ochopod: {}", text.trim_end().replace('\n', "\nochopod: "));
    ending.into()
}

/// The error and what caused it.
fn chain(error: &StartError) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    let mut text = error.to_string();
    for cause in causes {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
