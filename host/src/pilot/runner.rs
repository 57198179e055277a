//! Programs that are run for the application: how long they may take, and where what they print goes.

use std::{
    fmt::{self, Display},
    future::pending,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Environment, Purpose, config::Command};
use crate::{
    init::{Capture, Child, Exit, Init, KillOnDrop, Launch, Output, Privileges, Signal, SpawnError},
    process,
    telemetry::{PilotMetrics, Run},
};

/// How long a program that took too long may take to end when asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(1);
/// How long one that is not wanted any more may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last lines of a program that ended are waited for. Only a daemon that it left behind makes that long.
const LAST_LINES: Duration = Duration::from_millis(100);
/// How much of what a sensor prints is kept, in bytes.
const LONGEST_VALUE: usize = 4 * 1024;
/// The exit code of what took too long, as that of `timeout(1)`.
const TIMED_OUT: u8 = 124;

/// Runs programs, each in a process group of its own, with nothing as its standard input. Clones are the same.
#[derive(Clone)]
pub struct Runner {
    init: Init,
    environment: Environment,
    privileges: Privileges,
    metrics: Arc<PilotMetrics>,
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// The program ended.
    Ended(Exit),
    /// It took longer than this, and was ended for that with its group.
    Overran(Duration),
    /// It was not started.
    NotStarted(SpawnError),
}

impl Outcome {
    /// Whether the program ended with code 0, in time.
    #[must_use]
    pub fn is_well(&self) -> bool {
        matches!(self, Self::Ended(Exit::Code(0)))
    }

    fn result(&self) -> Run {
        match self {
            Self::Ended(Exit::Code(0)) => Run::Succeeded,
            Self::Overran(_) => Run::TimedOut,
            Self::Ended(_) | Self::NotStarted(_) => Run::Failed,
        }
    }

    /// The exit code that a shell would report: that of the program, 128 and the signal's number, 127 or 126 when it was not
    /// started, 124 when it took too long.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Ended(exit) => exit.code(),
            Self::Overran(_) => TIMED_OUT,
            Self::NotStarted(error) => error.code(),
        }
    }
}

/// `ended with code 3`, `timeout after 5s`, `cannot execute …`: to be put after a name and a colon.
impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(exit) => write!(f, "ended with {exit}"),
            Self::Overran(limit) => write!(f, "timeout after {limit:?}"),
            Self::NotStarted(SpawnError::Fork { program, source }) => {
                write!(f, "cannot make a process for {program}: {source}")
            }
            Self::NotStarted(error) => error.fmt(f),
        }
    }
}

impl Runner {
    /// Runs programs in this environment, as this user and within these limits, and counts how they end.
    #[must_use]
    pub fn new(init: Init, environment: Environment, privileges: Privileges, metrics: Arc<PilotMetrics>) -> Self {
        Self { init, environment, privileges, metrics }
    }

    /// The environment of what is run.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Where is counted what it runs, and what comes of that.
    #[must_use]
    pub fn metrics(&self) -> &PilotMetrics {
        &self.metrics
    }

    /// Runs a command to its end. At the `limit`, its group is asked to end by TERM, and killed a second later. When `stop`
    /// is cancelled, its group is asked to end by TERM, and killed 5 seconds later; whoever is less patient drops the future.
    ///
    /// # Cancellation safety
    /// Dropping the future kills the program and its group.
    pub async fn run(
        &self,
        purpose: &Purpose,
        command: &Command,
        limit: Option<Duration>,
        stop: &CancellationToken,
    ) -> Outcome {
        let (outcome, _) = self.measure(purpose, command, limit, stop).await;
        match purpose {
            Purpose::Health { service, .. } => self.metrics.health_checked(service, outcome.result()),
            Purpose::OnChange(backend) => self.metrics.on_change(backend, outcome.result()),
            Purpose::Task(_) => self.metrics.task(outcome.result()),
            Purpose::Hook(_) | Purpose::Coprocess(_) | Purpose::Sensor(_) => {}
        }
        outcome
    }

    /// The same, with what a sensor printed.
    pub(super) async fn measure(
        &self,
        purpose: &Purpose,
        command: &Command,
        limit: Option<Duration>,
        stop: &CancellationToken,
    ) -> (Outcome, Vec<u8>) {
        let late = || {
            let limit = limit.unwrap_or_default();
            tracing::warn!("{purpose} timeout after {limit:?}: '[{}]'", command.arguments.join(" "));
            (Outcome::Overran(limit), Vec::new())
        };
        let mut passed = pin!(passed(limit));
        let started = tokio::select! {
            biased;
            started = self.start(purpose, command) => started,
            () = &mut passed => return late(),
        };
        let mut running = match started {
            Ok(running) => running,
            Err(error) => return (Outcome::NotStarted(error), Vec::new()),
        };
        let exit = tokio::select! {
            biased;
            exit = running.ended() => exit,
            () = stop.cancelled() => return (Outcome::Ended(running.end(PATIENCE).await), Vec::new()),
            () = &mut passed => {
                let outcome = late();
                running.end(GRACE).await;
                return outcome;
            }
        };
        tracing::debug!(pid = running.pid, "{purpose} ended with {exit}");
        (Outcome::Ended(exit), running.printed().await)
    }

    async fn start(&self, purpose: &Purpose, command: &Command) -> Result<Running, SpawnError> {
        let output = match purpose {
            Purpose::Hook(_) => Output::Inherit,
            Purpose::Sensor(_) => Output::Printed,
            _ => Output::Merged,
        };
        let launch = Launch {
            program: (&command.program).into(),
            arguments: command.arguments.iter().map(Into::into).collect(),
            environment: self.environment.snapshot(),
            directory: None,
            input: false,
            output,
            // They act, and what they began may have to go on; the others only look, or run for themselves.
            daemons: matches!(purpose, Purpose::Hook(_) | Purpose::OnChange(_)),
            privileges: self.privileges.clone(),
        };
        let (Child { pid, exit, output, .. }, kill) = self.init.spawn_guarded(launch).await?;
        tracing::debug!(pid, "{purpose} runs {} '[{}]'", command.program, command.arguments.join(" "));
        if let Some(name) = purpose.variable() {
            self.environment.started(&name, pid);
        }
        let printed = match (output, purpose) {
            (Some(pipe), Purpose::Sensor(_)) => Printed::Kept(Capture::new(Some(pipe), LONGEST_VALUE)),
            (Some(pipe), _) => {
                let purpose = purpose.clone();
                Printed::Logged(tokio::spawn(async move { process::each_line(pipe, |line| purpose.log(line)).await }))
            }
            (None, _) => Printed::Elsewhere,
        };
        Ok(Running { pid, exit, printed, init: self.init.clone(), kill })
    }
}

async fn passed(limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep(limit).await,
        None => pending().await,
    }
}

/// A program that runs. Dropping it kills its group.
struct Running {
    pid: u32,
    exit: oneshot::Receiver<Exit>,
    printed: Printed,
    init: Init,
    kill: KillOnDrop,
}

/// Where that goes which the program prints.
enum Printed {
    Elsewhere,
    Logged(JoinHandle<()>),
    Kept(Capture),
}

impl Running {
    fn signal(&self, signal: Signal) {
        self.init.signal_group(self.pid, signal);
    }

    /// Waits for the end. Not to be called again after that.
    ///
    /// # Cancellation safety
    /// Dropping the future loses nothing.
    async fn ended(&mut self) -> Exit {
        let exit = match &mut self.printed {
            Printed::Kept(capture) => tokio::select! {
                exit = &mut self.exit => exit,
                () = capture.read() => (&mut self.exit).await,
            },
            _ => (&mut self.exit).await,
        };
        // The init being gone means that the program was killed.
        exit.unwrap_or(Exit::Signal(Signal::SIGKILL as i32))
    }

    /// What a program that has ended printed, where that is kept; where it is logged, it is in the log then.
    async fn printed(self) -> Vec<u8> {
        self.kill.disarm();
        match self.printed {
            Printed::Kept(capture) => return capture.finish(),
            // What a daemon that holds the pipe prints later is logged all the same.
            Printed::Logged(lines) => drop(timeout(LAST_LINES, lines).await),
            Printed::Elsewhere => {}
        }
        Vec::new()
    }

    /// Ends the program's group: by TERM, and by KILL after the grace.
    async fn end(mut self, grace: Duration) -> Exit {
        self.signal(Signal::SIGTERM);
        let exit = if let Ok(exit) = timeout(grace, self.ended()).await {
            exit
        } else {
            self.signal(Signal::SIGKILL);
            self.ended().await
        };
        self.kill.disarm();
        exit
    }
}
