//! Host functions of a guest: the log, the sub-process, programs of the container.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ochopod_init::{LimitedSignals, ProcessSpec, RunError, StdioMode, process::usage};
use ochopod_model::status::ProcessState;
use tracing::Level;

use super::{
    bindings::ochopod::pod::{exec, log, process, types},
    store::StoreData,
};

/// Maximum length of each output of a program.
const MAX_OUTPUT_BYTES: usize = 1 << 20;

impl types::Host for StoreData {}

impl log::Host for StoreData {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Debug => Level::DEBUG,
            log::Level::Info => Level::INFO,
            log::Level::Warning => Level::WARN,
            log::Level::Error => Level::ERROR,
        };
        self.log.log(level, &message);
        Ok(())
    }
}

impl process::Host for StoreData {
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
        Ok(self.send_signal(number))
    }

    fn terminate(&mut self) -> wasmtime::Result<Result<(), String>> {
        Ok(self.request_exit())
    }

    fn usage(&mut self) -> wasmtime::Result<Option<process::Resources>> {
        let used = self.sub_process().and_then(usage);
        Ok(used.map(|used| process::Resources { cpu: used.cpu, memory: used.memory, uptime: used.uptime }))
    }
}

impl StoreData {
    fn sub_process(&self) -> Option<u32> {
        self.sandbox.services.process.borrow().pid
    }

    fn send_signal(&self, number: u8) -> Result<(), String> {
        let signal = Signal::try_from(i32::from(number)).map_err(|_| match number {
            32..=64 => format!("signal {number} is a real-time signal: use exec to run kill"),
            _ => format!("unknown signal {number}"),
        })?;
        let (pid, signals) = self.signal_target()?;
        let running = !self.is_terminating();
        signals.signal(pid, signal, running).map_err(|error| error.to_string())?;
        if !running {
            // A stopped process would not handle the signal.
            signals.signal(pid, Signal::SIGCONT, running).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn request_exit(&self) -> Result<(), String> {
        let (pid, signals) = self.signal_target()?;
        signals.terminate(pid, !self.is_terminating()).map_err(|error| error.to_string())
    }

    /// Returns whether the lifecycle is ending the sub-process, and kills it at the end of the grace.
    fn is_terminating(&self) -> bool {
        self.sandbox.services.process.borrow().process == ProcessState::Terminating
    }

    fn signal_target(&self) -> Result<(u32, &LimitedSignals), &'static str> {
        let pid = self.sub_process().ok_or("the sub-process is not running")?;
        Ok((pid, self.signals.as_ref().ok_or("signals not available here")?))
    }
}

impl exec::Host for StoreData {
    async fn run(&mut self, argv: Vec<String>, stdin: Vec<u8>, limit: f64) -> Result<exec::Output, exec::Error> {
        let mut argv = argv.into_iter();
        let program = argv.next().ok_or_else(|| exec::Error::Other("argv is empty".to_owned()))?;
        if !self.sandbox.policy.allows_program(&program) {
            return Err(exec::Error::Denied(format!("{program} not granted: use --run {program}")));
        }
        let init = self.sandbox.services.init.clone();
        let init = init.ok_or_else(|| exec::Error::Failed("programs not available here".to_owned()))?;
        let launch = ProcessSpec {
            program: program.into(),
            arguments: argv.map(Into::into).collect(),
            environment: self.sandbox.services.environment.clone(),
            directory: None,
            input: true,
            output: StdioMode::Separate,
            keep_daemons: false,
            privileges: self.sandbox.services.privileges.clone(),
        };
        let finished =
            init.run(launch, stdin, self.limit(limit)?, MAX_OUTPUT_BYTES).await.map_err(|error| match error {
                RunError::Limit { .. } => exec::Error::Timeout,
                other => exec::Error::Failed(other.to_string()),
            })?;
        Ok(exec::Output { code: finished.exit.code().into(), stdout: finished.stdout, stderr: finished.stderr })
    }
}

impl StoreData {
    /// Validates a limit that the guest gave, and cuts it at the deadline of the current call.
    fn limit(&self, seconds: f64) -> Result<Duration, exec::Error> {
        let wrong = || exec::Error::Other(format!("the limit is {seconds}, expected a positive number of seconds"));
        if seconds.is_nan() || seconds <= 0.0 {
            return Err(wrong());
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        Ok(Duration::try_from_secs_f64(seconds).map_or(left, |limit| limit.min(left)))
    }
}
