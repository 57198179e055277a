//! What the host does for a guest: its log, its sub-process, programs of the container.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tracing::Level;

use super::{
    bindings::ochopod::pod::{exec, log, process, types},
    store::State,
};
use crate::{
    init::{Launch, Output, RunError},
    process::usage,
};

/// Most bytes of each stream of a program that the guest gets.
const OUTPUT: usize = 1 << 20;

impl types::Host for State {}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Debug => Level::DEBUG,
            log::Level::Info => Level::INFO,
            log::Level::Warning => Level::WARN,
            log::Level::Error => Level::ERROR,
        };
        self.voice.say(level, &message);
        Ok(())
    }
}

impl process::Host for State {
    fn pid(&mut self) -> wasmtime::Result<Option<u32>> {
        Ok(self.sub_process())
    }

    fn previous(&mut self) -> wasmtime::Result<Vec<u32>> {
        Ok(self.sandbox.services.process.borrow().released.clone())
    }

    fn running(&mut self) -> wasmtime::Result<bool> {
        Ok(self.sub_process().is_some())
    }

    fn signal(&mut self, number: u8) -> wasmtime::Result<Result<(), String>> {
        Ok(self.send(number))
    }

    fn usage(&mut self) -> wasmtime::Result<Option<process::Resources>> {
        let used = self.sub_process().and_then(usage);
        Ok(used.map(|used| process::Resources { cpu: used.cpu, memory: used.memory, uptime: used.uptime }))
    }
}

impl State {
    fn sub_process(&self) -> Option<u32> {
        self.sandbox.services.process.borrow().pid
    }

    fn send(&self, number: u8) -> Result<(), String> {
        let signal = Signal::try_from(i32::from(number)).map_err(|_| match number {
            32..=64 => format!("signal {number} is a real-time signal, which cannot be sent from here"),
            _ => format!("there is no signal {number}"),
        })?;
        let pid = self.sub_process().ok_or("the sub-process is not running")?;
        let init = self.sandbox.services.init.as_ref().ok_or("no signal can be sent from here")?;
        init.signal_group(pid, signal);
        Ok(())
    }
}

impl exec::Host for State {
    async fn run(&mut self, argv: Vec<String>, stdin: Vec<u8>, limit: f64) -> Result<exec::Output, exec::Error> {
        let mut argv = argv.into_iter();
        let program = argv.next().ok_or_else(|| exec::Error::Other("argv is empty".to_owned()))?;
        if !self.sandbox.gate.runs(&program) {
            return Err(exec::Error::Denied(format!("{program} is not granted: --run {program} would grant it")));
        }
        let init = self.sandbox.services.init.clone();
        let init = init.ok_or_else(|| exec::Error::Failed("no program can be run from here".to_owned()))?;
        let launch = Launch {
            program: program.into(),
            arguments: argv.map(Into::into).collect(),
            environment: self.sandbox.services.environment.clone(),
            directory: None,
            input: true,
            output: Output::Separate,
            daemons: false,
            privileges: self.sandbox.services.privileges.clone(),
        };
        let finished = init.run(launch, stdin, self.limit(limit)?, OUTPUT).await.map_err(|error| match error {
            RunError::Limit { .. } => exec::Error::Timeout,
            other => exec::Error::Failed(other.to_string()),
        })?;
        Ok(exec::Output { code: finished.exit.code().into(), stdout: finished.stdout, stderr: finished.stderr })
    }
}

impl State {
    /// A limit that the guest gave, but never beyond the end of the present call.
    fn limit(&self, seconds: f64) -> Result<Duration, exec::Error> {
        let wrong = || exec::Error::Other(format!("the limit is {seconds}, expected a positive number of seconds"));
        if seconds.is_nan() || seconds <= 0.0 {
            return Err(wrong());
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        Ok(Duration::try_from_secs_f64(seconds).map_or(left, |limit| limit.min(left)))
    }
}
