//! The life of what a pilot accompanies, decided: hooks, the application, registration and the end, in their order.

use std::time::{Duration, Instant};

/// The commands that run at fixed points of the application's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Hook {
    /// Before it starts.
    PreStart,
    /// Before it is asked to end.
    PreStop,
    /// After it ended.
    PostStop,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Everything is ready.
    Begin,
    /// A hook ended with this code, or is not configured: 0.
    HookEnded(Hook, u8),
    /// The application runs.
    Started,
    /// The application ended, or could not be started: with this code.
    Ended(u8),
    /// Nothing is polled any more and nothing registered, as far as that was possible.
    Withdrawn,
    /// The coprocesses have ended.
    Disbanded,
    /// The host was asked to end.
    Terminate,
    /// The host was told to end at once: whoever runs a hook kills it.
    Force,
    /// It is as late as [`Machine::wake`] said.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Run this hook, if it is configured, and tell how it ended.
    Run(Hook),
    /// Ask the hook that runs to end: it is told as always.
    Cut,
    /// Start services, backends, tasks, coprocesses and sensors.
    Gather,
    /// Start the application.
    Start,
    /// Poll no more, and deregister everything.
    Withdraw,
    /// Nothing was gathered: deregister what an earlier life of the host may have left.
    Clear,
    /// Ask the application to end.
    Ask,
    /// Kill the application.
    Kill,
    /// End the coprocesses.
    Disband,
    /// The host ends with this code.
    Leave(u8),
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    PreStart,
    Starting,
    Running,
    /// The end has begun: with what is registered.
    Withdrawing,
    PreStop,
    Stopping {
        /// When it is killed.
        patience: Option<Instant>,
    },
    PostStop,
    Disbanding,
    Left,
}

/// Whether the host is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Not that it was told.
    Open,
    Requested,
    /// At once.
    Forced,
}

/// The application itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Application {
    /// None is wanted, or it does not run yet.
    None,
    Up,
    Ended,
}

/// The machine: one for each run of the host.
///
/// In order: `preStart` to its end; the crew and the application together; and at the end, which the application's own
/// end or a request begins: everything deregistered; `preStop` and the request to the application, where it still runs;
/// `postStop`; the coprocesses.
#[derive(Debug)]
pub(super) struct Machine {
    phase: Phase,
    application: Application,
    wanted: bool,
    /// `preStart` ended well.
    began: bool,
    end: End,
    /// What the host ends with, so far.
    code: u8,
    /// How long the application may take to end when asked; none: it is killed instead.
    patience: Option<Duration>,
}

impl Machine {
    /// A machine for an application, or for none: then the host serves until it is asked to end.
    #[must_use]
    pub(super) fn new(application: bool, patience: Option<Duration>) -> Self {
        Self {
            phase: Phase::New,
            application: Application::None,
            wanted: application,
            began: false,
            end: End::Open,
            code: 0,
            patience,
        }
    }

    /// Another configuration has another `stopTimeout`. It counts from the next stop on.
    pub(super) fn set_patience(&mut self, patience: Option<Duration>) {
        self.patience = patience;
    }

    /// When to come with [`Event::Tick`].
    #[must_use]
    pub(super) fn wake(&self) -> Option<Instant> {
        match self.phase {
            Phase::Stopping { patience } => patience,
            _ => None,
        }
    }

    /// Whether the application is being started: what is meant for it has to wait.
    #[must_use]
    pub(super) fn is_starting(&self) -> bool {
        self.phase == Phase::Starting
    }

    /// Whether services and the like run, and are to follow the configuration.
    #[must_use]
    pub(super) fn has_crew(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Takes what happened and tells what is to be done, in this order.
    pub(super) fn step(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match event {
            Event::Begin => self.begin(),
            Event::HookEnded(hook, code) => self.hook_ended(hook, code, now),
            Event::Started => self.started(),
            Event::Ended(code) => self.ended(code),
            Event::Withdrawn => self.withdrawn(),
            Event::Disbanded => self.disbanded(),
            Event::Terminate => self.terminate(),
            Event::Force => self.force(),
            Event::Tick => self.tick(now),
        }
    }

    fn begin(&mut self) -> Vec<Effect> {
        self.phase = Phase::PreStart;
        vec![Effect::Run(Hook::PreStart)]
    }

    fn hook_ended(&mut self, hook: Hook, code: u8, now: Instant) -> Vec<Effect> {
        match (self.phase, hook) {
            (Phase::PreStart, Hook::PreStart) if self.end != End::Open => self.withdraw(),
            (Phase::PreStart, Hook::PreStart) if code != 0 => {
                self.code = code;
                self.withdraw()
            }
            (Phase::PreStart, Hook::PreStart) => {
                self.began = true;
                self.phase = if self.wanted { Phase::Starting } else { Phase::Running };
                if self.wanted { vec![Effect::Gather, Effect::Start] } else { vec![Effect::Gather] }
            }
            (Phase::PreStop, Hook::PreStop) => self.stop(now),
            (Phase::PostStop, Hook::PostStop) => {
                if code != 0 && self.end != End::Forced {
                    self.code = code;
                }
                self.disband()
            }
            _ => Vec::new(),
        }
    }

    fn started(&mut self) -> Vec<Effect> {
        if self.phase != Phase::Starting {
            return Vec::new();
        }
        self.application = Application::Up;
        self.phase = Phase::Running;
        match self.end {
            End::Open => Vec::new(),
            End::Requested => self.withdraw(),
            End::Forced => [vec![Effect::Kill], self.withdraw()].concat(),
        }
    }

    fn ended(&mut self, code: u8) -> Vec<Effect> {
        self.application = Application::Ended;
        self.code = code;
        match self.phase {
            Phase::Starting | Phase::Running => self.withdraw(),
            Phase::Stopping { .. } => self.post_stop(),
            // The phase goes on by itself, and finds it ended.
            _ => Vec::new(),
        }
    }

    fn withdraw(&mut self) -> Vec<Effect> {
        self.phase = Phase::Withdrawing;
        vec![if self.began { Effect::Withdraw } else { Effect::Clear }]
    }

    fn withdrawn(&mut self) -> Vec<Effect> {
        if self.phase != Phase::Withdrawing {
            return Vec::new();
        }
        match self.application {
            _ if !self.began => self.disband(),
            Application::Ended => self.post_stop(),
            _ if self.end == End::Forced => self.stop_at_once(),
            _ => {
                self.phase = Phase::PreStop;
                vec![Effect::Run(Hook::PreStop)]
            }
        }
    }

    /// Asks the application to end.
    fn stop(&mut self, now: Instant) -> Vec<Effect> {
        if self.application != Application::Up {
            return self.post_stop();
        }
        match self.patience {
            Some(patience) if self.end != End::Forced => {
                self.phase = Phase::Stopping { patience: now.checked_add(patience) };
                vec![Effect::Ask]
            }
            _ => self.stop_at_once(),
        }
    }

    fn stop_at_once(&mut self) -> Vec<Effect> {
        if self.application != Application::Up {
            return self.post_stop();
        }
        self.phase = Phase::Stopping { patience: None };
        vec![Effect::Kill]
    }

    fn post_stop(&mut self) -> Vec<Effect> {
        if self.end == End::Forced {
            return self.disband();
        }
        self.phase = Phase::PostStop;
        vec![Effect::Run(Hook::PostStop)]
    }

    fn disband(&mut self) -> Vec<Effect> {
        self.phase = Phase::Disbanding;
        vec![Effect::Disband]
    }

    fn disbanded(&mut self) -> Vec<Effect> {
        if self.phase != Phase::Disbanding {
            return Vec::new();
        }
        self.phase = Phase::Left;
        vec![Effect::Leave(self.code)]
    }

    fn terminate(&mut self) -> Vec<Effect> {
        if self.end != End::Open {
            return Vec::new();
        }
        self.end = End::Requested;
        match self.phase {
            Phase::PreStart => vec![Effect::Cut],
            Phase::Running => self.withdraw(),
            // The end has begun by itself, or begins with the start that is under way.
            _ => Vec::new(),
        }
    }

    fn force(&mut self) -> Vec<Effect> {
        let mut effects = self.terminate();
        if self.end == End::Forced {
            return effects;
        }
        self.end = End::Forced;
        if let Phase::Stopping { patience } = &mut self.phase {
            *patience = None;
        }
        if self.application == Application::Up {
            effects.push(Effect::Kill);
        }
        effects
    }

    fn tick(&mut self, now: Instant) -> Vec<Effect> {
        match self.phase {
            Phase::Stopping { patience: Some(patience) } if patience <= now => self.stop_at_once(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
