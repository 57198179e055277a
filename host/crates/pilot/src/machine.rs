//! Pure state machine of an application's lifetime: order of hooks, start, registration and shutdown.

use std::time::{Duration, Instant};

/// Time for the application to exit after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// Exit code that stands for SIGKILL.
const KILLED: u8 = 137;

/// Commands that run at fixed points of the application's lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Hook {
    /// Before the start.
    PreStart,
    /// Before it receives SIGTERM.
    PreStop,
    /// After it exited.
    PostStop,
}

/// Input of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Everything is ready.
    Begin,
    /// A hook exited with this code; 0 if it is not configured.
    HookEnded(Hook, u8),
    /// The application is running.
    Started,
    /// The application exited, or could not be started, with this code.
    Exited(u8),
    /// Nothing is polled any longer and, as far as possible, nothing is registered.
    Deregistered,
    /// The coprocesses exited.
    CoprocessesStopped,
    /// A shutdown was requested.
    Terminate,
    /// The shutdown was forced. The actor kills a hook that is running.
    Force,
    /// The time of [`PilotMachine::next_action_at`] was reached.
    Tick,
}

/// Output of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Run this hook, if it is configured, and report its exit.
    Run(Hook),
    /// Terminate the hook that is running. Its exit is reported as always.
    CancelHook,
    /// Start services, backends, tasks, coprocesses and sensors.
    StartServices,
    /// Start the application.
    Start,
    /// Kill the application while it is being started. Its start is no longer reported.
    CancelStart,
    /// Stop polling and deregister all services.
    Deregister,
    /// Deregister services that an earlier process may have left: none was started by this one.
    DeregisterLeftovers,
    /// Terminate the application.
    Terminate,
    /// Kill the application.
    Kill,
    /// Stop the coprocesses.
    StopCoprocesses,
    /// Exit with this code.
    Exit(u8),
}

/// Phase of the lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    PreStart,
    Starting {
        /// When the start is cancelled. Its program may not even be executed yet.
        deadline: Option<Instant>,
    },
    Running,
    /// First phase of the shutdown.
    Deregistering,
    PreStop,
    Stopping {
        /// When it is killed, or abandoned once it was killed.
        grace: Option<Instant>,
        killed: bool,
    },
    PostStop,
    StoppingCoprocesses,
    Exited,
}

/// Whether the host is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ShutdownMode {
    None,
    Requested,
    Forced,
}

/// State of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ApplicationState {
    /// There is none, or it is not running yet.
    None,
    Up,
    Exited,
}

/// State machine of one application, or of none.
///
/// Order: `preStart`; then services and the application together. The shutdown starts with a request or the application's
/// exit: services are deregistered; `preStop` runs and the application is terminated, if it is still running; `postStop`
/// runs; coprocesses are stopped.
#[derive(Debug)]
pub(super) struct PilotMachine {
    phase: Phase,
    application: ApplicationState,
    has_application: bool,
    /// `preStart` succeeded.
    pre_started: bool,
    mode: ShutdownMode,
    /// Exit code of the host so far.
    code: u8,
    /// Time for the application to exit after SIGTERM; none if it is killed instead.
    grace: Option<Duration>,
}

impl PilotMachine {
    /// Creates a machine. Without an application the host runs until a shutdown is requested.
    #[must_use]
    pub(super) fn new(application: bool, grace: Option<Duration>) -> Self {
        Self {
            phase: Phase::New,
            application: ApplicationState::None,
            has_application: application,
            pre_started: false,
            mode: ShutdownMode::None,
            code: 0,
            grace,
        }
    }

    /// Sets the `stopTimeout` of the next stop.
    pub(super) fn set_grace(&mut self, grace: Option<Duration>) {
        self.grace = grace;
    }

    /// Returns when [`Event::Tick`] is due.
    #[must_use]
    pub(super) fn next_action_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Stopping { grace, .. } => grace,
            Phase::Starting { deadline } => deadline,
            _ => None,
        }
    }

    /// Returns whether the application is being started. Signals to it have to wait.
    #[must_use]
    pub(super) fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. })
    }

    /// Returns whether the actors are running and follow a new configuration.
    #[must_use]
    pub(super) fn services_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Handles an event. Returns the effects in order.
    pub(super) fn step(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match event {
            Event::Begin => self.begin(),
            Event::HookEnded(hook, code) => self.hook_ended(hook, code, now),
            Event::Started => self.started(),
            Event::Exited(code) => self.exited(code),
            Event::Deregistered => self.deregistered(now),
            Event::CoprocessesStopped => self.coprocesses_stopped(),
            Event::Terminate => self.terminate(now),
            Event::Force => self.force(now),
            Event::Tick => self.tick(now),
        }
    }

    fn begin(&mut self) -> Vec<Effect> {
        self.phase = Phase::PreStart;
        vec![Effect::Run(Hook::PreStart)]
    }

    fn hook_ended(&mut self, hook: Hook, code: u8, now: Instant) -> Vec<Effect> {
        match (self.phase, hook) {
            (Phase::PreStart, Hook::PreStart) if self.mode != ShutdownMode::None => self.deregister(),
            (Phase::PreStart, Hook::PreStart) if code != 0 => {
                self.code = code;
                self.deregister()
            }
            (Phase::PreStart, Hook::PreStart) => {
                self.pre_started = true;
                self.phase = if self.has_application { Phase::Starting { deadline: None } } else { Phase::Running };
                if self.has_application {
                    vec![Effect::StartServices, Effect::Start]
                } else {
                    vec![Effect::StartServices]
                }
            }
            (Phase::PreStop, Hook::PreStop) => self.stop(now),
            (Phase::PostStop, Hook::PostStop) => {
                if code != 0 && self.mode != ShutdownMode::Forced {
                    self.code = code;
                }
                self.stop_coprocesses()
            }
            _ => Vec::new(),
        }
    }

    fn started(&mut self) -> Vec<Effect> {
        if !self.is_starting() {
            return Vec::new();
        }
        self.application = ApplicationState::Up;
        self.phase = Phase::Running;
        match self.mode {
            ShutdownMode::None => Vec::new(),
            ShutdownMode::Requested | ShutdownMode::Forced => self.deregister(),
        }
    }

    fn exited(&mut self, code: u8) -> Vec<Effect> {
        self.application = ApplicationState::Exited;
        self.code = code;
        match self.phase {
            Phase::Starting { .. } | Phase::Running => self.deregister(),
            Phase::Stopping { .. } => self.post_stop(),
            // The phase continues and finds it exited.
            _ => Vec::new(),
        }
    }

    fn deregister(&mut self) -> Vec<Effect> {
        self.phase = Phase::Deregistering;
        vec![if self.pre_started { Effect::Deregister } else { Effect::DeregisterLeftovers }]
    }

    fn deregistered(&mut self, now: Instant) -> Vec<Effect> {
        if self.phase != Phase::Deregistering {
            return Vec::new();
        }
        match self.application {
            _ if !self.pre_started => self.stop_coprocesses(),
            ApplicationState::Exited => self.post_stop(),
            _ if self.mode == ShutdownMode::Forced => self.kill(now),
            _ => {
                self.phase = Phase::PreStop;
                vec![Effect::Run(Hook::PreStop)]
            }
        }
    }

    /// Terminates the application.
    fn stop(&mut self, now: Instant) -> Vec<Effect> {
        if self.application != ApplicationState::Up {
            return self.post_stop();
        }
        match self.grace {
            Some(grace) if self.mode != ShutdownMode::Forced => {
                self.phase = Phase::Stopping { grace: now.checked_add(grace), killed: false };
                vec![Effect::Terminate]
            }
            _ => self.kill(now),
        }
    }

    fn kill(&mut self, now: Instant) -> Vec<Effect> {
        if self.application != ApplicationState::Up {
            return self.post_stop();
        }
        self.phase = Phase::Stopping { grace: Some(now + KILL_TIMEOUT), killed: true };
        vec![Effect::Kill]
    }

    fn post_stop(&mut self) -> Vec<Effect> {
        if self.mode == ShutdownMode::Forced {
            return self.stop_coprocesses();
        }
        self.phase = Phase::PostStop;
        vec![Effect::Run(Hook::PostStop)]
    }

    fn stop_coprocesses(&mut self) -> Vec<Effect> {
        self.phase = Phase::StoppingCoprocesses;
        vec![Effect::StopCoprocesses]
    }

    fn coprocesses_stopped(&mut self) -> Vec<Effect> {
        if self.phase != Phase::StoppingCoprocesses {
            return Vec::new();
        }
        self.phase = Phase::Exited;
        vec![Effect::Exit(self.code)]
    }

    /// Cancels a start that hangs.
    fn cancel_start(&mut self) -> Vec<Effect> {
        [vec![Effect::CancelStart], self.exited(KILLED)].concat()
    }

    fn terminate(&mut self, now: Instant) -> Vec<Effect> {
        if self.mode != ShutdownMode::None {
            return Vec::new();
        }
        self.mode = ShutdownMode::Requested;
        let grace = self.grace.unwrap_or_default();
        match &mut self.phase {
            Phase::Starting { deadline } => {
                *deadline = now.checked_add(grace);
                Vec::new()
            }
            Phase::PreStart => vec![Effect::CancelHook],
            Phase::Running => self.deregister(),
            // The shutdown is in progress.
            _ => Vec::new(),
        }
    }

    fn force(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = self.terminate(now);
        if self.mode == ShutdownMode::Forced {
            return effects;
        }
        self.mode = ShutdownMode::Forced;
        if self.is_starting() {
            return self.cancel_start();
        }
        if let Phase::Stopping { grace, killed } = &mut self.phase {
            *grace = Some(now + KILL_TIMEOUT);
            *killed = true;
        }
        if self.application == ApplicationState::Up {
            effects.push(Effect::Kill);
        }
        effects
    }

    fn tick(&mut self, now: Instant) -> Vec<Effect> {
        match self.phase {
            Phase::Stopping { grace: Some(grace), killed } if grace <= now => {
                // A process in uninterruptible sleep does not exit when killed.
                if killed { self.exited(KILLED) } else { self.kill(now) }
            }
            Phase::Starting { deadline: Some(deadline) } if deadline <= now => self.cancel_start(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
