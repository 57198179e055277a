//! The actors of a configuration, and the changes of that set.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use ochopod_discovery::{Registry, RegistryConfig, RegistryConfigError, RegistryError, ServiceRegistration};
use ochopod_model::status::LifecycleReport;
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{
    Claims, Runner, StatusView,
    actor_handle::{ActorHandle, reconcile},
    backend_watcher::BackendWatcher,
    claim::Claim,
    config::{Backend, Config, Coprocess, Sensor, Service, Task},
    coprocess::{self, CoprocessReport},
    known_instances::KnownInstances,
    periodic, runner,
    service_actor::ServiceActor,
    service_machine::ServiceMachine,
};

/// Time for actors that a configuration no longer has to stop, before their programs are killed.
const STOP_GRACE: Duration = Duration::from_secs(6);
/// The same during the shutdown of the host.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
/// Time limit for a replaced registry to remove a service.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(2);

/// The actor of a service.
type ServiceHandle = ActorHandle<Service, &'static str, ServiceMachine>;

/// Former client of the registry, after a configuration that changed it.
enum FormerRegistry {
    /// The registry is the same, in the same way.
    Unchanged,
    /// The registry is the same, but it is reached in another way.
    Same(Arc<dyn Registry>),
    /// The registry is another one.
    Another(Arc<dyn Registry>),
}

impl FormerRegistry {
    fn new(former: Option<(RegistryConfig, Arc<dyn Registry>)>, config: &RegistryConfig) -> Self {
        match former {
            Some((former, client)) if former != *config && former.is_same_registry(config) => Self::Same(client),
            Some((former, client)) if former != *config => Self::Another(client),
            _ => Self::Unchanged,
        }
    }

    fn is_unchanged(&self) -> bool {
        matches!(self, Self::Unchanged)
    }

    fn same(&self) -> Option<&Arc<dyn Registry>> {
        if let Self::Same(client) = self { Some(client) } else { None }
    }

    fn another(&self) -> Option<&Arc<dyn Registry>> {
        if let Self::Another(client) = self { Some(client) } else { None }
    }
}

/// Opens a registry without waiting for it.
pub type OpenRegistry = Box<dyn Fn(&RegistryConfig) -> Result<Arc<dyn Registry>, RegistryConfigError> + Send + Sync>;

/// Dependencies of the actors.
pub struct ActorContext {
    /// Runs their programs.
    pub runner: Runner,
    /// Last part of the service IDs.
    pub hostname: String,
    /// IDs that this process holds.
    pub claims: Claims,
    /// Opens a service registry.
    pub open: OpenRegistry,
    /// Lifecycle of the pod, for services with the health check `sanity-check`; none without a pod.
    pub pod: Option<watch::Receiver<LifecycleReport>>,
}

/// The services, backends, tasks, coprocesses and sensors of the current configuration, one actor for each.
///
/// Dropping it kills all of them with their programs. Registrations then stay until their `ttl` expires.
pub struct ActorSet {
    context: ActorContext,
    registry: Option<(RegistryConfig, Arc<dyn Registry>)>,
    /// A registry that was opened for a configuration to come.
    prepared: Option<(RegistryConfig, Arc<dyn Registry>)>,
    services: Vec<ServiceHandle>,
    /// IDs of the services, by name.
    ids: BTreeMap<String, Arc<Claim>>,
    backends: Vec<ActorHandle<Backend, usize, KnownInstances>>,
    tasks: Vec<ActorHandle<Task, (), ()>>,
    sensors: Vec<ActorHandle<Sensor, (), ()>>,
    coprocesses: Vec<ActorHandle<Coprocess, CoprocessReport, ()>>,
    /// Time for a coprocess that is stopped to exit after SIGTERM.
    coprocess_grace: watch::Sender<Duration>,
    maintenance: watch::Sender<bool>,
    /// Changes at each reload.
    reloads: watch::Sender<()>,
    /// Deregistrations in progress, with their success.
    deregistering: JoinSet<bool>,
    /// Actors that are being stopped.
    stopping: JoinSet<()>,
    status: watch::Sender<StatusView>,
}

impl ActorSet {
    /// Creates an empty set.
    #[must_use]
    pub fn new(context: ActorContext) -> Self {
        Self {
            context,
            registry: None,
            prepared: None,
            services: Vec::new(),
            ids: BTreeMap::new(),
            backends: Vec::new(),
            tasks: Vec::new(),
            sensors: Vec::new(),
            coprocesses: Vec::new(),
            coprocess_grace: watch::Sender::new(runner::STOP_GRACE),
            maintenance: watch::Sender::new(false),
            reloads: watch::Sender::default(),
            deregistering: JoinSet::new(),
            stopping: JoinSet::new(),
            status: watch::Sender::default(),
        }
    }

    /// Returns the status of the actors.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<StatusView> {
        self.status.subscribe()
    }

    /// Accepts a client of the registry that the next configuration names, so that applying it opens nothing.
    pub fn prepare(&mut self, registry: &RegistryConfig, client: Arc<dyn Registry>) {
        self.prepared = Some((registry.clone(), client));
    }

    /// Applies a configuration in the background. Parts that it has in common with the current one keep their timers, known
    /// instances, counts and registrations. A service that changed is registered again without being removed first. A coprocess
    /// that changed is stopped first. If the registry is another one, all services are removed from the former one; if only the
    /// access to it changed, they are registered again. Maintenance mode stays.
    ///
    /// # Errors
    /// Fails if the registry cannot be opened. Then nothing has changed.
    pub fn apply(&mut self, config: &Config) -> Result<(), RegistryConfigError> {
        let registry = self.open(&config.registry)?;
        let former = self.registry.replace((config.registry.clone(), Arc::clone(&registry)));
        let former = FormerRegistry::new(former, &config.registry);
        self.context.runner.environment().set_services(config);
        while self.deregistering.try_join_next().is_some() {}
        while self.stopping.try_join_next().is_some() {}
        // Before new actors subscribe.
        self.reloads.send_replace(());
        self.apply_coprocesses(config);
        self.apply_services(config, &registry, &former);
        self.apply_backends(config, &registry, former.is_unchanged());
        self.apply_periodic(config);
        self.publish();
        Ok(())
    }

    /// Enables or disables maintenance mode. In that mode, all services are deregistered and only coprocesses run. Afterwards
    /// each service is registered again once it is healthy.
    pub fn set_maintenance(&mut self, is_enabled: bool) {
        self.maintenance.send_replace(is_enabled);
    }

    /// Returns whether maintenance mode is enabled.
    #[must_use]
    pub fn is_in_maintenance(&self) -> bool {
        *self.maintenance.borrow()
    }

    /// Stops everything except coprocesses, and deregisters all services that may be registered, within `limit`. Returns the
    /// number of services that could not be deregistered.
    pub async fn deregister(&mut self, limit: Duration) -> usize {
        self.stop_polling(SHUTDOWN_GRACE);
        if let Some((_, registry)) = self.registry.clone() {
            for handle in std::mem::take(&mut self.services) {
                self.stop_and_deregister(handle, Arc::clone(&registry));
            }
        }
        self.publish();
        self.wait_deregistered(limit).await
    }

    /// Deregisters all services of a configuration that is not going to be applied: an earlier process may have left them.
    /// Returns the number of services that could not be deregistered within `limit`.
    pub async fn deregister_config(&mut self, config: &Config, limit: Duration) -> usize {
        let services = config.registered_services();
        match self.open(&config.registry) {
            Ok(registry) => {
                for service in services {
                    let claim = self.context.claims.choose(&service, &self.context.hostname, &config.registry);
                    let (registry, registration) = (Arc::clone(&registry), registration(&service, &claim.id));
                    self.deregistering.spawn(async move { deregister(&*registry, &registration, claim).await });
                }
                self.wait_deregistered(limit).await
            }
            Err(error) => {
                tracing::warn!("cannot deregister leftover services: {error}");
                services.len()
            }
        }
    }

    /// Stops all actors with their programs: SIGTERM, SIGKILL after `grace`. Registrations stay.
    pub async fn shut_down(&mut self, grace: Duration) {
        self.services.clear();
        self.ids.clear();
        self.stop_polling(grace);
        self.coprocess_grace.send_replace(grace);
        stop_in_background(&mut self.stopping, self.coprocesses.drain(..), grace);
        self.publish();
        let _ = timeout(grace, async { while self.stopping.join_next().await.is_some() {} }).await;
        self.stopping.shutdown().await;
    }

    /// Returns a client of a registry: the current or the prepared one, if it is the same.
    fn open(&self, wanted: &RegistryConfig) -> Result<Arc<dyn Registry>, RegistryConfigError> {
        let opened = self.registry.iter().chain(&self.prepared).find(|(opened, _)| opened == wanted);
        opened.map_or_else(|| (self.context.open)(wanted), |(_, registry)| Ok(Arc::clone(registry)))
    }

    /// Stops backends, tasks and sensors.
    fn stop_polling(&mut self, grace: Duration) {
        stop_in_background(&mut self.stopping, self.tasks.drain(..), grace);
        stop_in_background(&mut self.stopping, self.sensors.drain(..), grace);
        stop_in_background(&mut self.stopping, self.backends.drain(..), grace);
    }

    fn publish(&self) {
        let Self { services, backends, tasks, coprocesses, .. } = self;
        self.status.send_replace(StatusView::new(services, backends, tasks, coprocesses));
    }

    fn apply_services(&mut self, config: &Config, registry: &Arc<dyn Registry>, former: &FormerRegistry) {
        let mut present = std::mem::take(&mut self.services);
        let gone = reconcile(
            &mut present,
            config.registered_services(),
            |present, wanted| former.is_unchanged() && present == wanted,
            |service| service.name.clone(),
            |service, predecessor| {
                let claim = self.context.claims.choose(&service, &self.context.hostname, &config.registry);
                let predecessor = predecessor.zip(self.ids.insert(service.name.clone(), Arc::clone(&claim)));
                self.start_service(service, claim, predecessor, registry, former)
            },
        );
        self.services = present;
        for handle in gone {
            self.stop_and_deregister(handle, Arc::clone(former.another().unwrap_or(registry)));
        }
    }

    /// Starts the actor of a service. `predecessor` is the actor of the same name, with its ID.
    fn start_service(
        &self,
        service: Service,
        claim: Arc<Claim>,
        predecessor: Option<(ServiceHandle, Arc<Claim>)>,
        registry: &Arc<dyn Registry>,
        former: &FormerRegistry,
    ) -> ServiceHandle {
        let usual = format!("{}-{}", service.name, self.context.hostname);
        if claim.id != usual && claim.hold() {
            let name = &service.name;
            tracing::warn!("{name}: another process on this host registers {usual}; registering as {}", claim.id);
        }
        let mut machine = ServiceMachine::new(service.name.clone(), registry.keeps_leftovers());
        let (status, report) = watch::channel(machine.status());
        let same = former.same().cloned();
        // The registry to remove it from, if that or the ID changed.
        let former = match &predecessor {
            Some((_, was)) if was.id != claim.id => Some(Arc::clone(former.another().unwrap_or(registry))),
            _ => former.another().cloned(),
        };
        let actor = ServiceActor {
            registration: registration(&service, &claim.id),
            claim,
            service: service.clone(),
            registry: Arc::clone(registry),
            former: same,
            runner: self.context.runner.clone(),
            pod: self.context.pod.clone(),
            maintenance: self.maintenance.subscribe(),
            status,
        };
        let predecessor = predecessor.map(|(handle, was)| (registration(&handle.what, &was.id), was, handle.stop()));
        ActorHandle::start(service, report, |stop| async move {
            if let Some((registration, was, stopped)) = predecessor
                && let Some(left) = stopped.await
            {
                machine = left;
                if let Some(former) = former {
                    if machine.is_registered() {
                        let _ = timeout(DEREGISTER_TIMEOUT, deregister(&*former, &registration, was)).await;
                    }
                    machine.on_registry_changed();
                }
            }
            actor.run(machine, stop).await
        })
    }

    fn apply_backends(&mut self, config: &Config, registry: &Arc<dyn Registry>, is_unchanged: bool) {
        let gone = reconcile(
            &mut self.backends,
            config.backends.clone(),
            |present, wanted| is_unchanged && present == wanted,
            |backend| (backend.name.clone(), backend.tag.clone()),
            |backend, predecessor| {
                let (count, report) = watch::channel(0);
                let watcher = BackendWatcher {
                    backend: backend.clone(),
                    registry: Arc::clone(registry),
                    runner: self.context.runner.clone(),
                    maintenance: self.maintenance.subscribe(),
                    reloads: self.reloads.subscribe(),
                    count,
                };
                let predecessor = stop_predecessor(predecessor);
                ActorHandle::start(backend, report, |stop| async move {
                    let known = predecessor.await.unwrap_or_default();
                    watcher.run(known, stop).await
                })
            },
        );
        stop_in_background(&mut self.stopping, gone, STOP_GRACE);
    }

    fn apply_periodic(&mut self, config: &Config) {
        let gone = reconcile(
            &mut self.tasks,
            config.tasks.clone(),
            |present, wanted| present == wanted,
            |task| task.name.clone(),
            |task, predecessor| {
                let (runner, maintenance) = (self.context.runner.clone(), self.maintenance.subscribe());
                let predecessor = stop_predecessor(predecessor);
                ActorHandle::start(task.clone(), watch::channel(()).1, |stop| async move {
                    predecessor.await;
                    periodic::task(task, runner, maintenance, stop).await;
                })
            },
        );
        stop_in_background(&mut self.stopping, gone, STOP_GRACE);
        let sensors = config.telemetry.as_ref().map(|telemetry| telemetry.sensors.clone()).unwrap_or_default();
        self.context.runner.metrics().sensors.declare(sensors.iter().map(Sensor::spec).collect());
        let gone = reconcile(
            &mut self.sensors,
            sensors,
            |present, wanted| present == wanted,
            |sensor| sensor.metric.clone(),
            |sensor, predecessor| {
                let (runner, maintenance) = (self.context.runner.clone(), self.maintenance.subscribe());
                let predecessor = stop_predecessor(predecessor);
                ActorHandle::start(sensor.clone(), watch::channel(()).1, |stop| async move {
                    predecessor.await;
                    periodic::sensor(sensor, runner, maintenance, stop).await;
                })
            },
        );
        stop_in_background(&mut self.stopping, gone, STOP_GRACE);
    }

    fn apply_coprocesses(&mut self, config: &Config) {
        let gone = reconcile(
            &mut self.coprocesses,
            config.coprocesses.clone(),
            |present, wanted| present == wanted,
            |coprocess| coprocess.name.clone(),
            |coprocess, predecessor| {
                let (runner, grace) = (self.context.runner.clone(), self.coprocess_grace.subscribe());
                let (progress, report) = watch::channel(CoprocessReport::default());
                let predecessor = stop_predecessor(predecessor);
                ActorHandle::start(coprocess.clone(), report, |stop| async move {
                    predecessor.await;
                    coprocess::coprocess(coprocess, runner, grace, progress, stop).await;
                })
            },
        );
        stop_in_background(&mut self.stopping, gone, STOP_GRACE);
    }

    /// Stops a service and deregisters it.
    fn stop_and_deregister(&mut self, handle: ServiceHandle, registry: Arc<dyn Registry>) {
        let Some(claim) = self.ids.remove(&handle.what.name) else { return };
        let registration = registration(&handle.what, &claim.id);
        let stopped = handle.stop();
        self.deregistering.spawn(async move {
            let is_registered = stopped.await.is_none_or(|machine| machine.is_registered());
            !is_registered || deregister(&*registry, &registration, claim).await
        });
    }

    /// Waits for all deregistrations within `limit`. Returns how many failed.
    async fn wait_deregistered(&mut self, limit: Duration) -> usize {
        let mut failed = 0;
        let all = async {
            while let Some(done) = self.deregistering.join_next().await {
                failed += usize::from(!done.unwrap_or(false));
            }
        };
        let in_time = timeout(limit, all).await.is_ok();
        if !in_time {
            failed += self.deregistering.len();
            tracing::warn!("deregistration timed out after {limit:?}");
        }
        self.deregistering.abort_all();
        failed
    }
}

fn registration(service: &Service, id: &str) -> ServiceRegistration {
    ServiceRegistration {
        id: id.to_owned(),
        name: service.name.clone(),
        address: service.address,
        port: service.port,
        tags: service.tags.clone(),
        ttl: service.ttl,
        enable_tag_override: service.enable_tag_override,
        deregister_critical_service_after: service.deregister_critical_service_after.clone(),
    }
}

/// Removes a service from a registry, unless another process holds its ID. The ID stays claimed until then. Returns whether the
/// registry has nothing of this process.
async fn deregister(registry: &dyn Registry, registration: &ServiceRegistration, claim: Arc<Claim>) -> bool {
    if !claim.hold() {
        return true;
    }
    match registry.deregister(registration).await {
        Ok(()) | Err(RegistryError::NotRegistered(_)) => {
            tracing::info!("service {} deregistered", registration.name);
            true
        }
        Err(error) => {
            tracing::warn!("cannot deregister service {}: {error}", registration.name);
            false
        }
    }
}

/// Stops a predecessor now. The future completes with its final state; with none if it was killed.
fn stop_predecessor<T, Report, FinalState: Send + 'static>(
    predecessor: Option<ActorHandle<T, Report, FinalState>>,
) -> impl Future<Output = Option<FinalState>> + Send + 'static {
    let stopped = predecessor.map(ActorHandle::stop);
    async move { timeout(STOP_GRACE, stopped?).await.ok()? }
}

/// Stops actors now, and kills those that exceed the grace.
fn stop_in_background<T, Report, FinalState: Send + 'static>(
    stopping: &mut JoinSet<()>,
    handles: impl IntoIterator<Item = ActorHandle<T, Report, FinalState>>,
    grace: Duration,
) {
    for handle in handles {
        let stopped = timeout(grace, handle.stop());
        stopping.spawn(async {
            let _ = stopped.await;
        });
    }
}
