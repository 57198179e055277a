//! The actor of one service: runs its checks and tells its place.

use std::{future::pending, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Purpose, Runner,
    cadence::cadence,
    config::{Health, Service},
    standing::{Action, Call, Event, Standing, Verdict},
};
use crate::{
    discovery::{Discovery, DiscoveryError, Registration},
    status::{LifecycleReport, ProcessState},
    wake::done,
};

/// What keeps a service registered for as long as it is healthy.
pub(super) struct Keeper {
    pub(super) service: Service,
    pub(super) registration: Registration,
    pub(super) place: Arc<dyn Discovery>,
    pub(super) runner: Runner,
    /// What the pod says about itself; none where there is no pod.
    pub(super) pod: Option<watch::Receiver<LifecycleReport>>,
    pub(super) maintenance: watch::Receiver<bool>,
    /// How it stands, for people.
    pub(super) word: watch::Sender<&'static str>,
}

impl Keeper {
    /// Runs until it is stopped, which a check does not delay; a registration that is being made is seen through. What its
    /// place knows of the service then is in the standing: to be removed there, or to be taken over.
    pub(super) async fn run(self, mut standing: Standing, stop: CancellationToken) -> Standing {
        let mut maintenance = self.maintenance.clone();
        let mut pod = self.pod.clone();
        let mut ticks = cadence(self.service.poll);
        let mut doing: Option<BoxFuture<'_, Event>> = None;
        let mut next = standing.begin(*maintenance.borrow_and_update());
        loop {
            match next {
                Some(Action::Check) => doing = Some(self.check().boxed()),
                Some(Action::Tell(call)) => doing = Some(self.tell(call).boxed()),
                Some(Action::Rest) => doing = None,
                None => {}
            }
            self.word.send_replace(standing.word());
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = maintenance.changed() => Event::Maintain(*maintenance.borrow_and_update()),
                event = done(&mut doing) => event,
                event = self.turned_sick(&mut pod), if doing.is_none() => event,
                _ = ticks.tick(), if doing.is_none() => Event::Due,
            };
            next = standing.step(event);
        }
        if standing.is_registering() {
            // Given up, it could be carried out after what removes it.
            standing.step(done(&mut doing).await);
        }
        standing
    }

    async fn check(&self) -> Event {
        Event::Checked(match &self.service.health {
            Health::Always => Some(Verdict::Healthy),
            Health::SanityCheck => self.pod.as_ref().and_then(|pod| sanity(&pod.borrow())),
            Health::Command(command) => {
                let purpose = Purpose::Health { service: self.service.name.clone(), id: self.registration.id.clone() };
                let never = CancellationToken::new();
                let outcome = self.runner.run(&purpose, command, Some(self.service.limit), &never).await;
                Some(if outcome.is_well() { Verdict::Healthy } else { Verdict::Sick(outcome.to_string()) })
            }
        })
    }

    async fn tell(&self, call: Call) -> Event {
        let (place, registration) = (&self.place, &self.registration);
        tracing::debug!("telling of {}: {call:?}", registration.name);
        let registers = call == Call::Register;
        let answer = match call {
            Call::Register => place.register(registration).await,
            Call::Pass => place.pass(registration).await,
            Call::Fail(note) => place.fail(registration, &note).await,
            Call::Deregister => place.deregister(registration).await,
        };
        match &answer {
            Ok(()) if registers => self.runner.metrics().registered(&registration.name),
            Ok(()) | Err(DiscoveryError::Forgotten(_)) => {}
            Err(_) => self.runner.metrics().discovery_failed(),
        }
        Event::Answered(answer)
    }

    /// Waits until the pod tells that it is not sane (any more): that does not wait for the next check.
    ///
    /// # Cancellation safety
    /// Nothing is lost when it is dropped.
    async fn turned_sick(&self, pod: &mut Option<watch::Receiver<LifecycleReport>>) -> Event {
        if let (Health::SanityCheck, Some(pod)) = (&self.service.health, pod) {
            while pod.changed().await.is_ok() {
                let verdict = sanity(&pod.borrow_and_update());
                if matches!(verdict, Some(Verdict::Sick(_))) {
                    return Event::Checked(verdict);
                }
            }
        }
        pending().await
    }
}

/// Whether a pod is sane; none before the first check of a sub-process that runs.
fn sanity(report: &LifecycleReport) -> Option<Verdict> {
    match (report.process, report.sane) {
        (ProcessState::Running, Some(true)) => Some(Verdict::Healthy),
        (ProcessState::Running, Some(false)) => Some(Verdict::Sick("the sanity check failed".to_owned())),
        (ProcessState::Running, None) => None,
        (state, _) => Some(Verdict::Sick(format!("the sub-process is {state}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_as_healthy_as_its_last_sanity_check_while_it_runs() {
        use ProcessState::{Dead, Running, Stopped, Terminating};
        let healthy = Some(Verdict::Healthy);
        let sick = |note: &str| Some(Verdict::Sick(note.to_owned()));
        for (process, sane, expected) in [
            (Stopped, None, sick("the sub-process is stopped")),
            (Running, None, None),
            (Running, Some(true), healthy),
            (Running, Some(false), sick("the sanity check failed")),
            (Terminating, Some(true), sick("the sub-process is terminating")),
            (Dead, None, sick("the sub-process is dead")),
        ] {
            let report = LifecycleReport { process, sane, ..LifecycleReport::default() };
            assert_eq!(sanity(&report), expected, "{process} {sane:?}");
        }
    }
}
