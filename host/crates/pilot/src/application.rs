//! The application that is accompanied: a program, or anything else that starts, exits and accepts signals.

use std::{collections::BTreeMap, ffi::OsString};

use futures_util::{FutureExt as _, future::BoxFuture};
use ochopod_init::{Child, Init, Privileges, ProcessSpec, Signal, SignalNumber, StdioMode};
use tokio_util::sync::CancellationToken;

use super::{Environment, shortage::retried};

/// An application that can be started once.
pub struct Application {
    /// Starts it. The error is the exit code that stands for the failure. Dropping the future kills what is being started.
    pub start: BoxFuture<'static, Result<RunningApplication, u8>>,
    /// Whether it limits its shutdown itself. Otherwise `stopTimeout` of the configuration is the limit.
    pub has_own_grace: bool,
}

/// An application that is running.
pub struct RunningApplication {
    /// Completes with its exit code.
    pub exited: BoxFuture<'static, u8>,
    /// Sends a signal to it.
    pub send: Box<dyn Fn(ApplicationSignal) + Send>,
}

/// A signal to an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplicationSignal {
    /// It shall exit.
    Terminate,
    /// It shall be killed.
    Kill,
    /// Any other signal, to be forwarded.
    Signal(SignalNumber),
}

impl Application {
    /// Creates an application from a program with its arguments. Its output is the host's. It gets the terminal if the host has
    /// one, otherwise its standard input is empty. [`ApplicationSignal::Terminate`] sends SIGTERM to its process group, or the
    /// signal that requested the shutdown to the program alone (see [`Init::terminate`]); other signals go to the program alone.
    /// `secrets` are variables that no other program gets. While the machine lacks resources, the start is retried until `stop`
    /// is cancelled.
    #[must_use]
    pub fn program(
        program: OsString,
        arguments: Vec<OsString>,
        init: Init,
        environment: Environment,
        privileges: Privileges,
        secrets: BTreeMap<OsString, OsString>,
        stop: CancellationToken,
    ) -> Self {
        let start = async move {
            let mut variables = environment.snapshot();
            variables.extend(secrets);
            let spec = ProcessSpec {
                program,
                arguments,
                environment: variables,
                directory: None,
                input: false,
                output: StdioMode::Inherit,
                keep_daemons: false,
                privileges,
            };
            let started = retried("application", None, &stop, || init.spawn_in_foreground(spec.clone())).await;
            let child = started.map_err(|error| {
                tracing::error!("cannot start application: {error}");
                error.code()
            })?;
            environment.set_pid("APP", child.pid);
            Ok(RunningApplication::of(child, init))
        };
        Self { start: start.boxed(), has_own_grace: false }
    }
}

impl RunningApplication {
    fn of(child: Child, init: Init) -> Self {
        let pid = child.pid;
        let exited = async move {
            let Ok(exit) = child.exit.await else { return u8::MAX };
            tracing::info!(pid, "application exited with {exit}");
            exit.code()
        };
        let send = move |signal| match signal {
            ApplicationSignal::Terminate => init.terminate(pid),
            ApplicationSignal::Kill => init.signal_group(pid, Signal::SIGKILL),
            ApplicationSignal::Signal(signal) => init.signal(pid, signal),
        };
        Self { exited: exited.boxed(), send: Box::new(send) }
    }
}
