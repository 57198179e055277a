//! Builds the services around an application, a plain command or a pod, from a configuration.

use std::{ffi::OsString, sync::Arc, time::Instant};

use ochopod_discovery::{Registry, RegistryConfig};
use ochopod_init::{Init, Privileges, process};
use ochopod_model::status::LifecycleReport;
use ochopod_pilot::{
    ActorContext, ActorSet, Claims, ConfigLoader, Environment, Loaded, MetricsPage, Pilot, PilotLog, PilotMetrics,
    Runner, StatusView, TelemetryEndpoint, TelemetryHandlers, config::Config,
};
use ochopod_platform::hostname;
use tokio::sync::watch;

use super::error::PilotError;

/// Parts of a [`Pilot`] before it is built.
pub struct PilotBuilder {
    pub(super) loader: ConfigLoader,
    pub(super) config: Config,
    registry: Arc<dyn Registry>,
    /// Last part of the service IDs.
    host: String,
    runner: Runner,
    metrics: Arc<PilotMetrics>,
}

impl PilotBuilder {
    /// Creates a builder from a loader and the configuration that it loaded. Programs get these variables and privileges.
    pub fn new<'v>(
        (loader, Loaded { config, registry }): (ConfigLoader, Loaded),
        init: Init,
        variables: impl IntoIterator<Item = (&'v OsString, &'v OsString)>,
        privileges: Privileges,
    ) -> Self {
        let environment = Environment::new(variables.into_iter().map(|(name, value)| (name.clone(), value.clone())));
        let metrics = Arc::<PilotMetrics>::default();
        let runner = Runner::new(init, environment, privileges, Arc::clone(&metrics));
        Self { loader, config, registry, host: hostname(), runner, metrics }
    }

    /// Appends a suffix to the host name in service IDs, for one of several pods on this host.
    #[must_use]
    pub fn with_host_suffix(self, name: &str) -> Self {
        Self { host: format!("{}-{name}", self.host), ..self }
    }

    /// Returns the environment of its programs.
    #[must_use]
    pub fn environment(&self) -> Environment {
        self.runner.environment().clone()
    }

    /// Returns its page for Prometheus.
    #[must_use]
    pub fn metrics_page(&self) -> MetricsPage {
        let metrics = Arc::clone(&self.metrics);
        Arc::new(move || metrics.render(process::host_usage(), Instant::now()))
    }

    /// Builds the pilot and serves its telemetry, with this `page`. A reload may change `log`. `pod` is the lifecycle for the health
    /// check `sanity-check`.
    ///
    /// # Errors
    /// The telemetry cannot be served.
    pub async fn build(
        self,
        log: Option<PilotLog>,
        pod: Option<watch::Receiver<LifecycleReport>>,
        page: MetricsPage,
    ) -> Result<Pilot, PilotError> {
        let Self { loader, config, registry, host, runner, metrics } = self;
        let claims = Claims::default();
        let context =
            ActorContext { runner: runner.clone(), hostname: host, claims, open: Box::new(RegistryConfig::open), pod };
        let mut actors = ActorSet::new(context);
        actors.prepare(&config.registry, registry);
        // For hooks that run before the actors are started.
        runner.environment().set_services(&config);
        let mut telemetry = TelemetryEndpoint::new(TelemetryHandlers { page, status: status_handler(actors.status()) });
        let rebind = telemetry.rebind(config.telemetry.as_ref()).await.map_err(PilotError::Telemetry)?;
        telemetry.apply(rebind);
        config.log_warnings();
        Ok(Pilot { loader, config, actors: Some(actors), telemetry, runner, log, metrics })
    }
}

/// Returns the handler of `GET /status`.
fn status_handler(view: watch::Receiver<StatusView>) -> Arc<dyn Fn() -> serde_json::Value + Send + Sync> {
    // Strings and numbers always serialize.
    Arc::new(move || serde_json::to_value(view.borrow().status()).unwrap_or_default())
}
