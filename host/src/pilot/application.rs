//! What is accompanied: a program, or whatever else starts, ends and can be asked to.

use std::ffi::OsString;

use futures_util::{FutureExt as _, future::BoxFuture};

use super::Environment;
use crate::init::{Child, Init, Launch, Output, Privileges, Signal};

/// What is accompanied, to be started once.
pub struct Application {
    /// Starts it: what runs then, or the code that stands for why nothing does.
    pub start: BoxFuture<'static, Result<Started, u8>>,
    /// Whether it is its own affair how long it takes to end when asked, and no configuration's.
    pub patient: bool,
}

/// What is accompanied, and runs.
pub struct Started {
    /// Completes with its code when it has ended.
    pub ended: BoxFuture<'static, u8>,
    /// Passes a wish on.
    pub obey: Box<dyn Fn(Wish) + Send>,
}

/// What may be wanted of what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// That it ends.
    End,
    /// That it is gone.
    Kill,
    /// That it gets this signal.
    Signal(Signal),
}

impl Application {
    /// A program with its arguments. Its output is the host's, its input empty. To end it, its whole group is asked; other
    /// signals are for the program alone.
    #[must_use]
    pub fn program(program: OsString, arguments: Vec<OsString>, init: Init, environment: Environment) -> Self {
        let start = async move {
            let launch = Launch {
                program,
                arguments,
                environment: environment.snapshot(),
                directory: None,
                input: false,
                output: Output::Inherit,
                daemons: false,
                privileges: Privileges::default(),
            };
            let child = init.spawn(launch).await.map_err(|error| {
                tracing::error!("the application cannot be started: {error}");
                error.code()
            })?;
            environment.started("APP", child.pid);
            Ok(Started::of(child, init))
        };
        Self { start: start.boxed(), patient: false }
    }
}

impl Started {
    fn of(child: Child, init: Init) -> Self {
        let pid = child.pid;
        let ended = async move {
            let Ok(exit) = child.exit.await else { return u8::MAX };
            tracing::info!(pid, "the application ended with {exit}");
            exit.code()
        };
        let obey = move |wish| match wish {
            Wish::End => init.signal_group(pid, Signal::SIGTERM),
            Wish::Kill => init.signal_group(pid, Signal::SIGKILL),
            Wish::Signal(signal) => init.signal(pid, signal),
        };
        Self { ended: ended.boxed(), obey: Box::new(obey) }
    }
}
