//! Remaining time of a pilot whose application was terminated.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use ochopod_init::TerminationSignals;
use ochopod_pilot::{Application, ApplicationSignal, RunningApplication};
use tokio::sync::watch;

/// Time limit for processes to be gone after SIGKILL.
pub(super) const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// The same if that time is over for the application.
const MIN_KILL_TIMEOUT: Duration = Duration::from_millis(500);
/// Exit code of a killed application.
const KILLED: u8 = 137;

/// Times at which the application was first terminated and killed. Its grace is also that of everything else that is left.
#[derive(Debug, Clone)]
pub(super) struct StopTime {
    /// `stopTimeout` of the configuration in force.
    grace: watch::Receiver<Duration>,
    /// With its grace.
    terminated: Arc<OnceLock<(Instant, Duration)>>,
    killed: Arc<OnceLock<Instant>>,
}

impl StopTime {
    /// Creates the times of an application that has received no signal yet.
    pub(super) fn new(grace: watch::Receiver<Duration>) -> Self {
        Self { grace, terminated: Arc::default(), killed: Arc::default() }
    }

    /// Returns the application with its signals recorded. A start that hangs, for example on an unresponsive file system, is
    /// abandoned when the grace has passed since the termination request, or at a second request.
    pub(super) fn observe(&self, application: Application, terminations: &TerminationSignals) -> Application {
        let (stop, start) = (self.clone(), application.start);
        let (requested, forced) = (terminations.requested().clone(), terminations.forced().clone());
        let start = async move {
            let overdue = async {
                tokio::select! {
                    () = forced.cancelled() => {}
                    () = async { requested.cancelled().await; tokio::time::sleep(stop.grace()).await } => {}
                }
            };
            let RunningApplication { exited, send } = tokio::select! {
                biased;
                running = start => running?,
                () = overdue => {
                    tracing::error!("application not started within its grace, abandoning the start");
                    return Err(KILLED);
                }
            };
            let send_and_record = move |signal| {
                match signal {
                    ApplicationSignal::Terminate => _ = stop.terminated.set((Instant::now(), stop.grace())),
                    ApplicationSignal::Kill => _ = stop.killed.set(Instant::now()),
                    ApplicationSignal::Signal(_) => {}
                }
                send(signal);
            };
            Ok(RunningApplication { exited, send: Box::new(send_and_record) })
        };
        Application { start: start.boxed(), ..application }
    }

    /// Returns what is left of the grace, and of the time until no process may be left. An application that exited without a
    /// request used none of either.
    pub(super) fn time_left(&self) -> (Duration, Duration) {
        let expired = self.terminated.get().and_then(|(terminated, grace)| terminated.checked_add(*grace));
        let Some(kill_at) = self.killed.get().copied().into_iter().chain(expired).min() else {
            let grace = self.grace();
            return (grace, grace.saturating_add(KILL_TIMEOUT));
        };
        let now = Instant::now();
        let left = kill_at.saturating_duration_since(now);
        let limit = left.saturating_add(KILL_TIMEOUT).saturating_sub(now.saturating_duration_since(kill_at));
        (left, limit.max(MIN_KILL_TIMEOUT))
    }

    fn grace(&self) -> Duration {
        *self.grace.borrow()
    }
}
