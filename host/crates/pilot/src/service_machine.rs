//! Pure state machine of one service: results of checks and registry calls in, next action out.

use std::fmt;

use ochopod_discovery::RegistryError;

/// Result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CheckResult {
    /// The service is healthy.
    Healthy,
    /// It is not, for this reason.
    Failing(String),
}

/// Input of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A check is due.
    Due,
    /// A check completed, or the pod reported; none if the health is not known.
    Checked(Option<CheckResult>),
    /// The registry answered.
    Answered(Result<(), RegistryError>),
    /// Maintenance mode was enabled or disabled.
    Maintain(bool),
}

/// A call of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RegistryCall {
    Register,
    Pass,
    Fail(String),
    Deregister,
}

/// Writes the call, to follow the name of the service and a colon.
impl fmt::Display for RegistryCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register => f.write_str("register"),
            Self::Pass => f.write_str("pass"),
            Self::Fail(note) => write!(f, "fail ({note})"),
            Self::Deregister => f.write_str("deregister"),
        }
    }
}

/// Request that replaces the operation in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Check,
    Call(RegistryCall),
    /// Nothing.
    Idle,
}

/// State of the service in the registry, as far as this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReportedStatus {
    /// Nothing: the first call registers all of it.
    None,
    /// Nothing, or the leftover of an earlier process: as `None`, except that it is removed when the service is deregistered.
    Leftover,
    /// Something or nothing: the next call registers all of it.
    Unknown,
    /// A registration of another process, which must not be changed.
    OfAnotherProcess,
    Passing,
    Failing,
}

/// State machine of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceMachine {
    /// Name of the service.
    name: String,
    reported: ReportedStatus,
    /// Last known health.
    healthy: Option<bool>,
    in_maintenance: bool,
    /// Call in progress.
    calling: Option<RegistryCall>,
    /// Whether the last call failed.
    registry_failing: bool,
}

impl ServiceMachine {
    /// Creates the machine of a service about which nothing is known. With `leftovers`, the registry may still list the
    /// registration of an earlier process.
    pub(super) fn new(name: String, leftovers: bool) -> Self {
        Self {
            name,
            reported: if leftovers { ReportedStatus::Leftover } else { ReportedStatus::None },
            healthy: None,
            in_maintenance: false,
            calling: None,
            registry_failing: false,
        }
    }

    /// Starts. A service that succeeds a healthy one of the same ID takes over its registration immediately.
    pub(super) fn begin(&mut self, in_maintenance: bool) -> Option<Action> {
        self.calling = None;
        if in_maintenance || !self.is_registered() || self.reported == ReportedStatus::Leftover {
            return self.step(Event::Maintain(in_maintenance));
        }
        self.in_maintenance = false;
        let was_healthy = self.is_passing();
        self.reported = ReportedStatus::Unknown;
        was_healthy.then(|| self.call(RegistryCall::Register))
    }

    /// Continues with a registry that does not know the service.
    pub(super) fn on_registry_changed(&mut self) {
        if !self.is_passing() {
            self.reported = ReportedStatus::None;
        }
    }

    /// Returns whether the service is healthy and the registry knows.
    fn is_passing(&self) -> bool {
        self.reported == ReportedStatus::Passing && self.healthy == Some(true)
    }

    /// Handles an event. None if the operation in progress continues.
    pub(super) fn step(&mut self, event: Event) -> Option<Action> {
        match event {
            Event::Due if !self.in_maintenance => Some(Action::Check),
            Event::Due => Some(self.deregister()),
            Event::Checked(result) => Some(self.checked(result)),
            Event::Answered(answer) => Some(self.answered(answer)),
            Event::Maintain(is_enabled) => {
                self.in_maintenance = is_enabled;
                // Dropped, they would leave the registry in an unknown state.
                if self.is_registering() || self.calling == Some(RegistryCall::Deregister) {
                    return None;
                }
                Some(if is_enabled { self.deregister() } else { self.idle() })
            }
        }
    }

    /// Returns whether the registry may know the service.
    pub(super) fn is_registered(&self) -> bool {
        !matches!(self.reported, ReportedStatus::None | ReportedStatus::OfAnotherProcess)
    }

    /// Returns whether a registration is in progress.
    pub(super) fn is_registering(&self) -> bool {
        self.calling == Some(RegistryCall::Register)
    }

    /// Returns `healthy`, `unhealthy`, `maintenance`, or `unknown` before the first check.
    pub(super) fn status(&self) -> &'static str {
        match self.healthy {
            _ if self.in_maintenance => "maintenance",
            Some(true) => "healthy",
            Some(false) => "unhealthy",
            None => "unknown",
        }
    }

    fn idle(&mut self) -> Action {
        self.calling = None;
        Action::Idle
    }

    fn call(&mut self, call: RegistryCall) -> Action {
        if matches!(call, RegistryCall::Register | RegistryCall::Deregister) {
            self.reported = ReportedStatus::Unknown;
        }
        self.calling = Some(call.clone());
        Action::Call(call)
    }

    fn deregister(&mut self) -> Action {
        if self.is_registered() { self.call(RegistryCall::Deregister) } else { self.idle() }
    }

    fn checked(&mut self, result: Option<CheckResult>) -> Action {
        let (Some(result), false) = (result, self.in_maintenance) else { return self.idle() };
        let name = &self.name;
        match &result {
            CheckResult::Healthy if self.healthy == Some(false) => tracing::info!("{name}.health: passing again"),
            CheckResult::Failing(note) if self.healthy != Some(false) => tracing::warn!("{name}.health: {note}"),
            _ => {}
        }
        self.healthy = Some(result == CheckResult::Healthy);
        match (result, self.reported) {
            (CheckResult::Healthy, ReportedStatus::None | ReportedStatus::Leftover | ReportedStatus::Unknown) => {
                self.call(RegistryCall::Register)
            }
            (
                CheckResult::Healthy,
                ReportedStatus::Passing | ReportedStatus::Failing | ReportedStatus::OfAnotherProcess,
            ) => self.call(RegistryCall::Pass),
            (CheckResult::Failing(note), ReportedStatus::Passing | ReportedStatus::Unknown) => {
                self.call(RegistryCall::Fail(note))
            }
            (
                CheckResult::Failing(_),
                ReportedStatus::None
                | ReportedStatus::Leftover
                | ReportedStatus::Failing
                | ReportedStatus::OfAnotherProcess,
            ) => self.idle(),
        }
    }

    fn answered(&mut self, answer: Result<(), RegistryError>) -> Action {
        let Some(call) = self.calling.take() else { return Action::Idle };
        self.log(&call, &answer);
        match (&call, answer) {
            (RegistryCall::Register | RegistryCall::Pass, Ok(())) => self.reported = ReportedStatus::Passing,
            (RegistryCall::Fail(_), Ok(())) => self.reported = ReportedStatus::Failing,
            // If the other process was first, the registry has nothing of this one.
            (RegistryCall::Deregister, Ok(()))
            | (_, Err(RegistryError::NotRegistered(_)))
            | (RegistryCall::Register | RegistryCall::Deregister, Err(RegistryError::Taken(_))) => {
                self.reported = ReportedStatus::None;
            }
            (_, Err(RegistryError::Taken(_))) => self.reported = ReportedStatus::OfAnotherProcess,
            // Retried when the next check is due.
            (_, Err(_)) => {}
        }
        if self.in_maintenance && call != RegistryCall::Deregister {
            self.deregister()
        } else if call == RegistryCall::Pass && self.reported == ReportedStatus::None {
            self.call(RegistryCall::Register)
        } else {
            Action::Idle
        }
    }

    /// Logs changes: the first failure, and the recovery.
    fn log(&mut self, call: &RegistryCall, answer: &Result<(), RegistryError>) {
        let name = &self.name;
        let failure = answer.as_ref().err().filter(|error| !matches!(error, RegistryError::NotRegistered(_)));
        match failure {
            Some(RegistryError::Taken(reason)) if !self.registry_failing => {
                tracing::error!("service {name} not registered: {reason}");
            }
            Some(error) if !self.registry_failing => {
                tracing::warn!("cannot update service {name} in the registry: {error}");
            }
            None if self.registry_failing => tracing::info!("service {name}: registry updates working again"),
            _ => {}
        }
        self.registry_failing = failure.is_some();
        match (call, answer) {
            (RegistryCall::Register, Ok(())) => tracing::info!("service {name} registered"),
            (RegistryCall::Deregister, Ok(())) => tracing::info!("service {name} deregistered"),
            (RegistryCall::Pass, Err(RegistryError::NotRegistered(_))) => {
                tracing::info!("service {name} missing from registry, registering again");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
