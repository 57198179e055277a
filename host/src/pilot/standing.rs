//! The pure machine of one service: what its checks say and what its place was told go in, what to do next comes out.

use crate::discovery::DiscoveryError;

/// What a check said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The service is healthy.
    Healthy,
    /// It is not, and why.
    Sick(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// It is time for a check.
    Due,
    /// The check ended, or something else told how the service is; none when nobody can know yet.
    Checked(Option<Verdict>),
    /// The place answered.
    Answered(Result<(), DiscoveryError>),
    /// Maintenance began or ended.
    Maintain(bool),
}

/// What the place is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Register,
    Pass,
    Fail(String),
    Deregister,
}

/// What to do instead of whatever is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Check,
    Tell(Call),
    /// Nothing.
    Rest,
}

/// What the place knows of the service, as far as that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Nothing. What an earlier life of the host left there counts as that: the first thing it is told is all of it.
    Nothing,
    /// Something, or nothing: it has to be told all of it.
    Perhaps,
    Passing,
    Failing,
}

/// How a service stands with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// As the log names it.
    name: String,
    told: Told,
    /// Whether it was healthy when that was known last.
    healthy: Option<bool>,
    in_maintenance: bool,
    /// What the place is being told.
    telling: Option<Call>,
    /// Whether the place did not do as told, the last time.
    in_trouble: bool,
}

impl Standing {
    /// Of a service that nothing is known of.
    pub(super) fn new(name: String) -> Self {
        Self { name, told: Told::Nothing, healthy: None, in_maintenance: false, telling: None, in_trouble: false }
    }

    /// Begins. A service that succeeds another of the same id, which was healthy, takes its registration over at once.
    pub(super) fn begin(&mut self, in_maintenance: bool) -> Option<Action> {
        self.telling = None;
        if in_maintenance || self.told == Told::Nothing {
            return self.step(Event::Maintain(in_maintenance));
        }
        self.in_maintenance = false;
        let was_healthy = self.is_well();
        self.told = Told::Perhaps;
        was_healthy.then(|| self.tell(Call::Register))
    }

    /// Goes on at a place that knows nothing of the service, although another one may have.
    pub(super) fn moved(&mut self) {
        if !self.is_well() {
            self.told = Told::Nothing;
        }
    }

    /// Whether it is healthy, as far as that is known, and its place was told so.
    fn is_well(&self) -> bool {
        self.told == Told::Passing && self.healthy == Some(true)
    }

    /// Takes an event. None: whatever is under way goes on.
    pub(super) fn step(&mut self, event: Event) -> Option<Action> {
        match event {
            Event::Due if !self.in_maintenance => Some(Action::Check),
            Event::Due => Some(self.leave()),
            Event::Checked(verdict) => Some(self.checked(verdict)),
            Event::Answered(answer) => Some(self.answered(answer)),
            Event::Maintain(begins) => {
                self.in_maintenance = begins;
                // Dropped, they would leave the place in a state that nobody knows.
                if self.is_registering() || self.telling == Some(Call::Deregister) {
                    return None;
                }
                Some(if begins { self.leave() } else { self.rest() })
            }
        }
    }

    /// Whether the place may know the service.
    pub(super) fn is_registered(&self) -> bool {
        self.told != Told::Nothing
    }

    /// Whether it is being told of the service for the first time, or again.
    pub(super) fn is_registering(&self) -> bool {
        self.telling == Some(Call::Register)
    }

    /// `healthy`, `unhealthy`, `maintenance`, or `unknown` before the first check.
    pub(super) fn word(&self) -> &'static str {
        match self.healthy {
            _ if self.in_maintenance => "maintenance",
            Some(true) => "healthy",
            Some(false) => "unhealthy",
            None => "unknown",
        }
    }

    fn rest(&mut self) -> Action {
        self.telling = None;
        Action::Rest
    }

    fn tell(&mut self, call: Call) -> Action {
        if matches!(call, Call::Register | Call::Deregister) {
            self.told = Told::Perhaps;
        }
        self.telling = Some(call.clone());
        Action::Tell(call)
    }

    fn leave(&mut self) -> Action {
        if self.is_registered() { self.tell(Call::Deregister) } else { self.rest() }
    }

    fn checked(&mut self, verdict: Option<Verdict>) -> Action {
        let (Some(verdict), false) = (verdict, self.in_maintenance) else { return self.rest() };
        let name = &self.name;
        match &verdict {
            Verdict::Healthy if self.healthy == Some(false) => tracing::info!("{name}.health passes again"),
            Verdict::Sick(note) if self.healthy != Some(false) => tracing::warn!("{name}.health: {note}"),
            _ => {}
        }
        self.healthy = Some(verdict == Verdict::Healthy);
        match (verdict, self.told) {
            (Verdict::Healthy, Told::Nothing | Told::Perhaps) => self.tell(Call::Register),
            (Verdict::Healthy, Told::Passing | Told::Failing) => self.tell(Call::Pass),
            (Verdict::Sick(note), Told::Passing | Told::Perhaps) => self.tell(Call::Fail(note)),
            (Verdict::Sick(_), Told::Nothing | Told::Failing) => self.rest(),
        }
    }

    fn answered(&mut self, answer: Result<(), DiscoveryError>) -> Action {
        let Some(call) = self.telling.take() else { return Action::Rest };
        self.log(&call, &answer);
        match (&call, answer) {
            (Call::Register | Call::Pass, Ok(())) => self.told = Told::Passing,
            (Call::Fail(_), Ok(())) => self.told = Told::Failing,
            (Call::Deregister, Ok(())) | (_, Err(DiscoveryError::Forgotten(_))) => self.told = Told::Nothing,
            // It is tried again when the next check is due.
            (_, Err(_)) => {}
        }
        if self.in_maintenance && call != Call::Deregister {
            self.leave()
        } else if call == Call::Pass && self.told == Told::Nothing {
            self.tell(Call::Register)
        } else {
            Action::Rest
        }
    }

    /// What changed: of failures the first one, and that they are over.
    fn log(&mut self, call: &Call, answer: &Result<(), DiscoveryError>) {
        let name = &self.name;
        let failure = answer.as_ref().err().filter(|error| !matches!(error, DiscoveryError::Forgotten(_)));
        match failure {
            Some(error) if !self.in_trouble => tracing::warn!("cannot tell how {name} is: {error}"),
            None if self.in_trouble => tracing::info!("it can be told again how {name} is"),
            _ => {}
        }
        self.in_trouble = failure.is_some();
        match (call, answer) {
            (Call::Register, Ok(())) => tracing::info!("{name} is registered"),
            (Call::Deregister, Ok(())) => tracing::info!("{name} is deregistered"),
            (Call::Pass, Err(DiscoveryError::Forgotten(_))) => {
                tracing::info!("{name} was forgotten: registering it again");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
