//! What accompanies an application, be it a plain command or a pod: built from a configuration.

use std::{ffi::OsString, future::ready, sync::Arc, time::Instant};

use futures_util::FutureExt as _;
use tokio::sync::watch;

use super::{
    error::StartError,
    pod::{Pod, Stop},
};
use crate::{
    discovery::Place,
    init::{Ending, Init, Privileges},
    pilot::{
        Application, Crew, Environment, Loader, Means, Outlet, Page, Pilot, Roster, Runner, Shown, Started, Wish,
        config::Config,
    },
    process,
    settings::hostname,
    status::LifecycleReport,
    telemetry::{PilotLog, PilotMetrics},
};

/// What a configuration is carried out with.
pub(super) struct Company {
    pub(super) loader: Loader,
    pub(super) config: Config,
    /// What the ids of its services end with.
    host: String,
    runner: Runner,
    pub(super) metrics: Arc<PilotMetrics>,
}

impl Company {
    /// What it runs has these variables, and some more, and these privileges. `config` is what the loader gave.
    pub(super) fn new<'v>(
        (loader, config): (Loader, Config),
        init: Init,
        variables: impl IntoIterator<Item = (&'v OsString, &'v OsString)>,
        privileges: Privileges,
    ) -> Self {
        let environment = Environment::new(variables.into_iter().map(|(name, value)| (name.clone(), value.clone())));
        let metrics = Arc::<PilotMetrics>::default();
        let runner = Runner::new(init, environment, privileges, Arc::clone(&metrics));
        Self { loader, config, host: hostname(), runner, metrics }
    }

    /// The same for one of several on this machine, told apart by this.
    pub(super) fn called(self, name: &str) -> Self {
        Self { host: format!("{}-{name}", self.host), ..self }
    }

    /// What it runs finds there what it has for an environment.
    pub(super) fn environment(&self) -> Environment {
        self.runner.environment().clone()
    }

    /// What it has for Prometheus.
    pub(super) fn page(&self) -> Page {
        let metrics = Arc::clone(&self.metrics);
        Arc::new(move || metrics.page(process::host_usage(), Instant::now()))
    }

    /// Puts it together, and serves its telemetry: with this page. `log` is what the configuration may change, `pod` what
    /// services may be as healthy as.
    pub(super) async fn pilot(
        self,
        log: Option<PilotLog>,
        pod: Option<watch::Receiver<LifecycleReport>>,
        page: Page,
    ) -> Result<Pilot, StartError> {
        let Self { loader, config, host, runner, metrics } = self;
        let crew = Crew::new(Means { runner: runner.clone(), hostname: host, open: Box::new(Place::open), pod });
        // Hooks that run before the crew is at work find it too.
        runner.environment().advertise(&config);
        let mut outlet = Outlet::new(Shown { page, status: status(crew.roster()) });
        let opened = outlet.open(config.telemetry.as_ref()).await.map_err(StartError::Telemetry)?;
        outlet.switch(opened);
        config.tell_remarks();
        Ok(Pilot { loader, config, crew: Some(crew), outlet, runner, log, metrics })
    }
}

/// A pod as what is accompanied. It leaves in its own order and time; other signals are for its sub-process, while that
/// runs.
pub(super) fn application(pod: Pod, init: Init) -> Application {
    let (stop, lifecycle) = (Stop::default(), pod.watch.lifecycle.clone());
    let ended = pod.run(stop.clone()).map(Ending::code).boxed();
    let obey = move |wish| match wish {
        Wish::End => stop.requested.cancel(),
        Wish::Kill => stop.forced.cancel(),
        Wish::Signal(signal) => {
            if let Some(pid) = lifecycle.borrow().pid {
                init.signal(pid, signal);
            }
        }
    };
    let started = Started { ended, obey: Box::new(obey) };
    Application { start: ready(Ok(started)).boxed(), patient: true }
}

/// What `/status` answers.
fn status(roster: watch::Receiver<Roster>) -> Arc<dyn Fn() -> serde_json::Value + Send + Sync> {
    // A status is made of texts and numbers: it can always be written as JSON.
    Arc::new(move || serde_json::to_value(roster.borrow().status()).unwrap_or_default())
}
