//! The actor of one service: runs its checks every `poll`, and reports them to the registry before the `ttl` ends.

use std::{future::pending, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use ochopod_discovery::{Registry, RegistryError, ServiceRegistration};
use ochopod_model::status::{LifecycleReport, ProcessState};
use ochopod_timing::next_completed;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Purpose, RunOutcome, Runner,
    claim::Claim,
    config::{HealthCheck, Service},
    interval::poll_interval,
    service_machine::{Action, CheckResult, Event, RegistryCall, ServiceMachine},
};

/// Keeps a service registered while it is healthy.
pub(super) struct ServiceActor {
    pub(super) service: Service,
    pub(super) registration: ServiceRegistration,
    /// Claim on the ID of the registration.
    pub(super) claim: Arc<Claim>,
    pub(super) registry: Arc<dyn Registry>,
    /// Former client of the same registry, if the access to it changed.
    pub(super) former: Option<Arc<dyn Registry>>,
    pub(super) runner: Runner,
    /// Lifecycle of the pod; none without a pod.
    pub(super) pod: Option<watch::Receiver<LifecycleReport>>,
    pub(super) maintenance: watch::Receiver<bool>,
    /// Status for `GET /status`.
    pub(super) status: watch::Sender<&'static str>,
}

impl ServiceActor {
    /// Runs until stopped. A check does not delay the stop, a registration in progress is completed. The final state records
    /// what the registry knows of the service.
    pub(super) async fn run(mut self, mut machine: ServiceMachine, stop: CancellationToken) -> ServiceMachine {
        let mut former = self.former.take();
        let mut maintenance = self.maintenance.clone();
        let mut pod = self.pod.clone();
        let mut ticks = poll_interval(self.service.poll);
        let mut in_flight: Option<BoxFuture<'_, Event>> = None;
        let mut next = machine.begin(*maintenance.borrow_and_update());
        loop {
            match next {
                Some(Action::Check) => in_flight = Some(self.check().boxed()),
                Some(Action::Call(call)) => in_flight = Some(self.call_registry(call).boxed()),
                Some(Action::Idle) => in_flight = None,
                None => {}
            }
            // Some registries remove the registrations of a client that is dropped: not before the new one is there.
            former = former.filter(|_| machine.is_registering());
            self.status.send_replace(machine.status());
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = maintenance.changed() => Event::Maintain(*maintenance.borrow_and_update()),
                event = next_completed(&mut in_flight) => event,
                event = self.until_unhealthy(&mut pod), if in_flight.is_none() => event,
                _ = ticks.tick(), if in_flight.is_none() => Event::Due,
            };
            next = machine.step(event);
        }
        if machine.is_registering() {
            // Dropped, it could take effect after the request that removes it.
            machine.step(next_completed(&mut in_flight).await);
        }
        machine
    }

    async fn check(&self) -> Event {
        Event::Checked(match &self.service.health {
            HealthCheck::Always => Some(CheckResult::Healthy),
            HealthCheck::SanityCheck => self.pod.as_ref().and_then(|pod| sanity_result(&pod.borrow())),
            HealthCheck::Command(command) => {
                let purpose = Purpose::Health { service: self.service.name.clone(), id: self.registration.id.clone() };
                let never = CancellationToken::new();
                let outcome = self.runner.run(&purpose, command, Some(self.service.limit), &never).await;
                check_result(&outcome)
            }
        })
    }

    async fn call_registry(&self, call: RegistryCall) -> Event {
        let (registry, registration) = (&self.registry, &self.registration);
        if !self.claim.hold() {
            let ServiceRegistration { id, address, port, .. } = registration;
            return Event::Answered(Err(RegistryError::Taken(format!(
                "another process on this host registers {id} at {address}:{port}; expected another name, address or port"
            ))));
        }
        tracing::debug!("service {}: {call}", registration.name);
        let is_registration = call == RegistryCall::Register;
        let answer = match call {
            RegistryCall::Register => registry.register(registration).await,
            RegistryCall::Pass => registry.pass(registration).await,
            RegistryCall::Fail(note) => registry.fail(registration, &note).await,
            RegistryCall::Deregister => registry.deregister(registration).await,
        };
        match &answer {
            Ok(()) if is_registration => self.runner.metrics().registered(&registration.name),
            Ok(()) | Err(RegistryError::NotRegistered(_) | RegistryError::Taken(_)) => {}
            Err(_) => self.runner.metrics().discovery_failed(),
        }
        Event::Answered(answer)
    }

    /// Waits until the pod reports that it is not healthy. That does not wait for the next check.
    ///
    /// # Cancellation safety
    /// Dropping the future loses nothing.
    async fn until_unhealthy(&self, pod: &mut Option<watch::Receiver<LifecycleReport>>) -> Event {
        if let (HealthCheck::SanityCheck, Some(pod)) = (&self.service.health, pod) {
            while pod.changed().await.is_ok() {
                let result = sanity_result(&pod.borrow_and_update());
                if matches!(result, Some(CheckResult::Failing(_))) {
                    return Event::Checked(result);
                }
            }
        }
        pending().await
    }
}

/// Returns the result of a check; none if it was not started for lack of resources, which is logged.
fn check_result(outcome: &RunOutcome) -> Option<CheckResult> {
    match outcome {
        _ if outcome.is_success() => Some(CheckResult::Healthy),
        _ if outcome.is_shortage() => None,
        _ => Some(CheckResult::Failing(outcome.to_string())),
    }
}

/// Returns the health of a pod; none before the first sanity check of a running sub-process.
fn sanity_result(report: &LifecycleReport) -> Option<CheckResult> {
    match (report.process, report.last_check_passed) {
        (ProcessState::Running, Some(true)) => Some(CheckResult::Healthy),
        (ProcessState::Running, Some(false)) => Some(CheckResult::Failing("sanity check failed".to_owned())),
        (ProcessState::Running, None) => None,
        (state, _) => Some(CheckResult::Failing(format!("sub-process is {state}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use nix::errno::Errno;
    use ochopod_init::{Exit, SpawnError};

    use super::*;

    #[test]
    fn checks_not_started_for_lack_of_resources_have_no_result() {
        let not_started = |errno: Errno| {
            let cause = io::Error::from(errno).into();
            RunOutcome::SpawnFailed(SpawnError::Fork { program: "x".to_owned(), cause })
        };
        assert_eq!(check_result(&RunOutcome::Exited(Exit::Code(0))), Some(CheckResult::Healthy));
        assert_eq!(check_result(&not_started(Errno::EAGAIN)), None);
        for failed in [
            not_started(Errno::ENOENT),
            RunOutcome::Exited(Exit::Code(1)),
            RunOutcome::TimedOut(Duration::from_secs(1)),
        ] {
            assert!(matches!(check_result(&failed), Some(CheckResult::Failing(_))), "{failed}");
        }
    }

    #[test]
    fn running_pod_is_as_healthy_as_its_last_sanity_check() {
        use ProcessState::{Dead, Running, Stopped, Terminating};
        let healthy = Some(CheckResult::Healthy);
        let failing = |note: &str| Some(CheckResult::Failing(note.to_owned()));
        for (process, sane, expected) in [
            (Stopped, None, failing("sub-process is stopped")),
            (Running, None, None),
            (Running, Some(true), healthy),
            (Running, Some(false), failing("sanity check failed")),
            (Terminating, Some(true), failing("sub-process is terminating")),
            (Dead, None, failing("sub-process is dead")),
        ] {
            let report = LifecycleReport { process, last_check_passed: sane, ..LifecycleReport::default() };
            assert_eq!(sanity_result(&report), expected, "{process} {sane:?}");
        }
    }
}
