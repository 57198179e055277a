//! The first and the last steps of each binary of this project.
//!
//! Guarantees: the stages of child processes run before anything else; no thread exists before termination signals are
//! blocked; the memory of the process is protected before secrets are read; each error is printed on standard error with the
//! name of the program, its hidden characters escaped; the exit code names the kind of failure.
//! State: none. Must not know: any command.

use std::{
    error::Error,
    ffi::OsString,
    fmt,
    future::Future,
    io::{self, Write},
    process::ExitCode,
};

use ochopod_environment::Env;
use ochopod_init::{self as init, HostExit, TerminationSignals, guard, launcher};
use ochopod_telemetry::{escape, escape::Escaped};

/// Error that ends a command.
pub trait CommandError: Error {
    /// Returns the exit code for this kind of error.
    fn exit(&self) -> HostExit;

    /// Returns whether it is a list, with one error on each line and each line escaped.
    fn is_list(&self) -> bool;
}

/// Error of the set-up of the process.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct SystemError {
    /// The operation that failed.
    pub what: &'static str,
    /// Cause of the failure.
    pub source: io::Error,
}

impl SystemError {
    /// Returns the conversion of an error of this operation.
    pub fn of(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self { what, source }
    }
}

/// Runs the stage of a child process that the arguments name, or else `command` with termination signals blocked.
pub fn main(command: impl FnOnce(Vec<OsString>, &Env) -> ExitCode) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if launcher::is_launch(&arguments) {
        return launcher::run(arguments);
    }
    if guard::is_guard(&arguments) {
        return guard::run();
    }
    TerminationSignals::block();
    command(arguments, &std::env::vars_os().collect::<Env>())
}

/// Sets up the process, before anything else runs in it.
///
/// # Errors
/// `/proc` is not mounted, or the memory of the process cannot be protected.
pub fn init_process() -> Result<(), SystemError> {
    let proc = SystemError::of("/proc is not mounted; mount it in the container (mount -t proc proc /proc)");
    std::fs::metadata("/proc/self/stat").map_err(proc)?;
    // Libraries that select no cryptography provider use this one.
    _ = rustls::crypto::ring::default_provider().install_default();
    init::raise_descriptor_limit();
    init::disable_dumps().map_err(SystemError::of("cannot make the process non-dumpable"))
}

/// Runs a command on one thread: guests, init and blocking calls have others.
///
/// # Errors
/// That of the command, or the runtime cannot be started.
pub fn block_on<E: From<SystemError>>(command: impl Future<Output = Result<HostExit, E>>) -> Result<HostExit, E> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(SystemError::of("cannot start the runtime"))?;
    let result = runtime.block_on(command);
    // A name lookup may still block a thread: do not wait for it.
    runtime.shutdown_background();
    result
}

/// Returns the exit code of a result. Prints the error and its causes, on one line unless it lists several errors.
pub fn finish(program: &str, result: Result<HostExit, impl CommandError>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            let text = error_chain(&error);
            let text = if error.is_list() { text } else { Escaped(&text).to_string() };
            print_error(program, &text, error.exit())
        }
    }
}

/// Prints text to standard output, and returns the exit code.
#[must_use]
pub fn print(text: &str) -> ExitCode {
    let mut output = io::stdout();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => HostExit::Stopped.into(),
        Err(_) => HostExit::Internal.into(),
    }
}

/// Prints the lines of an error, each with the name of the program, and returns the exit code.
#[must_use]
pub fn print_error(program: &str, text: &str, exit: HostExit) -> ExitCode {
    let lines = escape::lines(text.trim_end()).replace('\n', &format!("\n{program}: "));
    // A failure cannot be reported if standard error is closed.
    _ = writeln!(io::stderr(), "{program}: {lines}");
    exit.into()
}

/// Several errors, one escaped line for each.
pub struct ErrorLines<'a, E>(pub &'a [E]);

impl<E: fmt::Display> fmt::Display for ErrorLines<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, line) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { "\n" }, Escaped(&line.to_string()))?;
        }
        Ok(())
    }
}

/// Returns the error and its causes.
fn error_chain(error: &dyn Error) -> String {
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
