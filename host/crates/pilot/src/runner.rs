//! Execution of programs: time limits, standard input and output.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::{self, Display},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use ochopod_init::{
    Capture, Child, Exit, Init, KillOnDrop, Privileges, ProcessSpec, Signal, SpawnError, StdioMode, process,
};
use ochopod_timing::{shutdown, sleep_until};
use tokio::{
    io::AsyncWriteExt as _,
    net::unix::pipe,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Environment, Purpose, change,
    config::CommandLine,
    metrics::{PilotMetrics, RunResult},
    shortage::retried,
};

/// Time for a program that exceeded its limit to exit after SIGTERM, before SIGKILL.
const TIMEOUT_GRACE: Duration = Duration::from_secs(1);
/// The same for a program that is stopped while the host continues.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(5);
/// Time for a program to exit after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for the last lines of a program that exited. Only a daemon that it left keeps its output open.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);
/// Limit of a sensor's output; the rest is dropped.
const MAX_SENSOR_BYTES: usize = 4 * 1024;
/// Exit code of a program that exceeded its limit, as that of `timeout(1)`.
const TIMEOUT_EXIT_CODE: u8 = 124;

/// Runs programs, each in its own process group, with empty standard input unless one is set. Clones share their state.
#[derive(Clone)]
pub struct Runner {
    init: Init,
    environment: Environment,
    privileges: Privileges,
    metrics: Arc<PilotMetrics>,
}

/// Variables and standard input of one run.
#[derive(Debug, Default)]
pub(super) struct ProgramInput {
    /// Variables in addition to the environment.
    pub(super) variables: BTreeMap<OsString, OsString>,
    /// Standard input; empty if none.
    pub(super) input: Option<Vec<u8>>,
}

/// Time limit of a program.
#[derive(Debug, Clone, Copy)]
pub(super) enum TimeLimit {
    /// SIGTERM this long after the start, SIGKILL a second later. The start itself may take as long.
    Term(Duration),
    /// SIGKILL this long after the request, SIGTERM a second earlier, or at half of the limit if that is later.
    Kill(Duration),
}

impl TimeLimit {
    /// Returns when SIGTERM is due.
    fn term(self) -> Duration {
        match self {
            Self::Term(limit) => limit,
            Self::Kill(limit) => limit.saturating_sub(self.grace()),
        }
    }

    /// Returns how long after SIGTERM SIGKILL is due.
    fn grace(self) -> Duration {
        match self {
            Self::Term(_) => TIMEOUT_GRACE,
            Self::Kill(limit) => TIMEOUT_GRACE.min(limit / 2),
        }
    }

    /// Returns how long a killed program is waited for.
    fn kill_timeout(self) -> Duration {
        match self {
            Self::Term(_) => KILL_TIMEOUT,
            Self::Kill(_) => shutdown::KILL_TIMEOUT,
        }
    }
}

/// Result of a run.
#[derive(Debug)]
pub enum RunOutcome {
    /// The program exited.
    Exited(Exit),
    /// It exceeded this limit and was stopped with its group.
    TimedOut(Duration),
    /// It was not started.
    SpawnFailed(SpawnError),
}

impl RunOutcome {
    /// Returns whether the program exited with code 0, in time.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited(Exit::Code(0)))
    }

    /// Returns whether the program was not started because the machine lacked a resource. This does not indicate a
    /// defect of the program.
    pub(super) fn is_shortage(&self) -> bool {
        matches!(self, Self::SpawnFailed(error) if error.is_transient())
    }

    fn result(&self) -> RunResult {
        match self {
            Self::Exited(Exit::Code(0)) => RunResult::Succeeded,
            Self::TimedOut(_) => RunResult::TimedOut,
            Self::Exited(_) | Self::SpawnFailed(_) => RunResult::Failed,
        }
    }

    /// Returns the exit code that a shell would report: that of the program, 128 plus the signal's number, 127 or 126 if it was
    /// not started, 124 if it exceeded its limit.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Exited(exit) => exit.code(),
            Self::TimedOut(_) => TIMEOUT_EXIT_CODE,
            Self::SpawnFailed(error) => error.code(),
        }
    }
}

/// Writes `exited with code 3`, `timeout after 5s` or `cannot execute …`, to follow a name and a colon.
impl Display for RunOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(exit) => write!(f, "exited with {exit}"),
            Self::TimedOut(limit) => write!(f, "timeout after {limit:?}"),
            Self::SpawnFailed(error) => error.fmt(f),
        }
    }
}

impl Runner {
    /// Creates a runner for this environment, user and resource limits. It counts results in `metrics`.
    #[must_use]
    pub fn new(init: Init, environment: Environment, privileges: Privileges, metrics: Arc<PilotMetrics>) -> Self {
        Self { init, environment, privileges, metrics }
    }

    /// Returns the environment of the programs.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Returns the counters of runs and results.
    #[must_use]
    pub fn metrics(&self) -> &PilotMetrics {
        &self.metrics
    }

    /// Runs a command until it exits. At the `limit`, its group receives SIGTERM, and SIGKILL 1 s later. When `stop` is cancelled,
    /// it receives SIGTERM, and SIGKILL 5 s later; callers with a shorter grace drop the future. While the machine lacks
    /// resources, the start is retried, at most for the `limit` and until `stop`.
    ///
    /// # Cancellation safety
    /// Dropping the future kills the program and its group.
    pub async fn run(
        &self,
        purpose: &Purpose,
        command: &CommandLine,
        limit: Option<Duration>,
        stop: &CancellationToken,
    ) -> RunOutcome {
        self.run_with(purpose, command, limit, ProgramInput::default(), stop).await
    }

    /// Runs a coprocess as [`Self::run`] does, without a limit. When `stop` is cancelled, it receives SIGTERM, and SIGKILL after
    /// the `grace` of that time.
    ///
    /// # Cancellation safety
    /// Dropping the future kills the program and its group.
    pub(super) async fn run_coprocess(
        &self,
        purpose: &Purpose,
        command: &CommandLine,
        grace: &watch::Receiver<Duration>,
        stop: &CancellationToken,
    ) -> RunOutcome {
        self.complete(purpose, command, None, ProgramInput::default(), stop, Some(grace)).await.0
    }

    /// Runs a command as [`Self::run`] does, with SIGKILL at the `limit` and SIGTERM a second earlier, or at half of the limit if
    /// that is later.
    ///
    /// # Cancellation safety
    /// Dropping the future kills the program and its group.
    pub(super) async fn run_within(
        &self,
        purpose: &Purpose,
        command: &CommandLine,
        limit: Option<Duration>,
        stop: &CancellationToken,
    ) -> RunOutcome {
        self.complete(purpose, command, limit.map(TimeLimit::Kill), ProgramInput::default(), stop, None).await.0
    }

    /// Runs a command as [`Self::run`] does, with more input. The program need not read its standard input.
    pub(super) async fn run_with(
        &self,
        purpose: &Purpose,
        command: &CommandLine,
        limit: Option<Duration>,
        extra: ProgramInput,
        stop: &CancellationToken,
    ) -> RunOutcome {
        let (outcome, _) = self.complete(purpose, command, limit.map(TimeLimit::Term), extra, stop, None).await;
        match purpose {
            Purpose::Health { .. } if outcome.is_shortage() => {}
            Purpose::Health { service, .. } => self.metrics.health_checked(service, outcome.result()),
            Purpose::OnChange(backend) => self.metrics.on_change(backend, outcome.result()),
            Purpose::Task(_) => self.metrics.task(outcome.result()),
            Purpose::Hook(_) | Purpose::Coprocess(_) | Purpose::Sensor(_) => {}
        }
        outcome
    }

    /// Runs a sensor as [`Self::run`] does. Also returns its output.
    pub(super) async fn run_sensor(
        &self,
        purpose: &Purpose,
        command: &CommandLine,
        limit: Option<Duration>,
        stop: &CancellationToken,
    ) -> (RunOutcome, Vec<u8>) {
        self.complete(purpose, command, limit.map(TimeLimit::Term), ProgramInput::default(), stop, None).await
    }

    /// Runs a command. `grace` is the time to exit after `stop`, [`STOP_GRACE`] if none.
    async fn complete(
        &self,
        purpose: &Purpose,
        command: &CommandLine,
        limit: Option<TimeLimit>,
        extra: ProgramInput,
        stop: &CancellationToken,
        grace: Option<&watch::Receiver<Duration>>,
    ) -> (RunOutcome, Vec<u8>) {
        let term_time = || Instant::now().into_std().checked_add(limit?.term());
        let time_out = || {
            let limit = limit.map(TimeLimit::term).unwrap_or_default();
            tracing::warn!("{purpose} timeout after {limit:?}: '[{}]'", command.arguments.join(" "));
            (RunOutcome::TimedOut(limit), Vec::new())
        };
        let deadline = term_time();
        let mut expired = pin!(sleep_until(deadline));
        let started = tokio::select! {
            biased;
            started = retried(purpose, deadline, stop, || self.start(purpose, command, &extra)) => started,
            () = &mut expired => return time_out(),
        };
        let mut running = match started {
            Ok(running) => running,
            Err(error) => return (RunOutcome::SpawnFailed(error), Vec::new()),
        };
        if matches!(limit, Some(TimeLimit::Term(_))) {
            expired.set(sleep_until(term_time()));
        }
        let exit = tokio::select! {
            biased;
            exit = running.wait() => exit,
            () = stop.cancelled() => {
                let grace = grace.map_or(STOP_GRACE, |grace| *grace.borrow());
                return (RunOutcome::Exited(running.stop(grace, KILL_TIMEOUT).await), Vec::new());
            }
            () = &mut expired => {
                let outcome = time_out();
                let limit = limit.unwrap_or(TimeLimit::Term(Duration::ZERO));
                running.stop(limit.grace(), limit.kill_timeout()).await;
                return outcome;
            }
        };
        tracing::debug!(pid = running.pid, "{purpose} exited with {exit}");
        (RunOutcome::Exited(exit), running.into_output().await)
    }

    async fn start(
        &self,
        purpose: &Purpose,
        command: &CommandLine,
        extra: &ProgramInput,
    ) -> Result<RunningProgram, SpawnError> {
        let mut environment = self.environment.snapshot();
        if matches!(purpose, Purpose::OnChange(_)) {
            // Those of the host would be taken for the backend's.
            environment.retain(|name, _| !change::VARIABLES.iter().any(|own| name == own));
        }
        environment.extend(extra.variables.clone());
        let output = match purpose {
            Purpose::Hook(_) => StdioMode::Inherit,
            Purpose::Sensor(_) => StdioMode::Printed,
            _ => StdioMode::Merged,
        };
        let spec = ProcessSpec {
            program: (&command.program).into(),
            arguments: command.arguments.iter().map(Into::into).collect(),
            environment,
            directory: None,
            input: extra.input.is_some(),
            output,
            // Their daemons may have to continue; the others only query, or run for themselves.
            keep_daemons: matches!(purpose, Purpose::Hook(_) | Purpose::OnChange(_)),
            privileges: self.privileges.clone(),
        };
        let (Child { pid, exit, input, output, .. }, kill) = self.init.spawn_guarded(spec).await?;
        let writing = input
            .zip(extra.input.clone())
            .map(|(pipe, bytes)| AbortOnDropHandle::new(tokio::spawn(write_stdin(pipe, bytes))));
        tracing::debug!(pid, "{purpose} started: {} '[{}]'", command.program, command.arguments.join(" "));
        if let Some(name) = purpose.variable() {
            self.environment.set_pid(&name, pid);
        }
        let output = match (output, purpose) {
            (Some(pipe), Purpose::Sensor(_)) => OutputSink::Captured(Capture::new(Some(pipe), MAX_SENSOR_BYTES)),
            (Some(pipe), _) => {
                let purpose = purpose.clone();
                OutputSink::Logged(tokio::spawn(
                    async move { process::for_each_line(pipe, |line| purpose.log(line)).await },
                ))
            }
            (None, _) => OutputSink::Inherited,
        };
        Ok(RunningProgram { pid, exit, output, init: self.init.clone(), kill, _writing: writing })
    }
}

/// Writes the standard input of a program and closes it. The program need not read it.
async fn write_stdin(mut pipe: pipe::Sender, bytes: Vec<u8>) {
    if let Err(error) = pipe.write_all(&bytes).await {
        tracing::debug!("standard input not read completely: {error}");
    }
}

/// A program that is running. Dropping it kills its group.
struct RunningProgram {
    pid: u32,
    exit: oneshot::Receiver<Exit>,
    output: OutputSink,
    init: Init,
    kill: KillOnDrop,
    /// Writes its standard input.
    _writing: Option<AbortOnDropHandle<()>>,
}

/// Destination of a program's output.
enum OutputSink {
    Inherited,
    Logged(JoinHandle<()>),
    Captured(Capture),
}

impl RunningProgram {
    fn signal(&self, signal: Signal) {
        self.init.signal_group(self.pid, signal);
    }

    /// Waits for the exit. Must not be called again after that.
    ///
    /// # Cancellation safety
    /// Dropping the future loses nothing.
    async fn wait(&mut self) -> Exit {
        let exit = match &mut self.output {
            OutputSink::Captured(capture) => tokio::select! {
                exit = &mut self.exit => exit,
                () = capture.read() => (&mut self.exit).await,
            },
            _ => (&mut self.exit).await,
        };
        // If the init is gone, the program was killed.
        exit.unwrap_or(Exit::Signal(Signal::SIGKILL as i32))
    }

    /// Returns the captured output of a program that exited. Output that is logged is in the log then.
    async fn into_output(self) -> Vec<u8> {
        self.kill.disarm();
        match self.output {
            OutputSink::Captured(capture) => return capture.finish(),
            // Later output of a daemon that holds the pipe is logged nevertheless.
            OutputSink::Logged(lines) => drop(timeout(FLUSH_TIMEOUT, lines).await),
            OutputSink::Inherited => {}
        }
        Vec::new()
    }

    /// Stops the program's group: SIGTERM, SIGKILL after the grace.
    async fn stop(mut self, grace: Duration, kill_timeout: Duration) -> Exit {
        self.signal(Signal::SIGTERM);
        let exit = if let Ok(exit) = timeout(grace, self.wait()).await {
            exit
        } else {
            self.signal(Signal::SIGKILL);
            // A process in uninterruptible sleep is left behind.
            timeout(kill_timeout, self.wait()).await.unwrap_or(Exit::Signal(Signal::SIGKILL as i32))
        };
        self.kill.disarm();
        exit
    }
}
