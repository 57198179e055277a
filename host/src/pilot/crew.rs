//! All that runs around the application by itself.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{
    Roster, Runner,
    backend::Watcher,
    config::{Backend, Config, Coprocess, Sensor, Service, Task},
    coprocess::{self, Progress},
    member::{Member, reconcile},
    memory::Memory,
    routine,
    service::Keeper,
    standing::Standing,
};
use crate::{
    discovery::{Discovery, DiscoveryError, OpenError, Place, Registration},
    status::LifecycleReport,
};

/// How long what is not wanted any more may take to end when asked to, before it is killed.
const PATIENCE: Duration = Duration::from_secs(6);
/// The same when the host ends.
const HASTE: Duration = Duration::from_secs(1);
/// How long a place that is left for another one may take to remove a service.
const FAREWELL: Duration = Duration::from_secs(2);

/// Opens a place, without waiting for it.
pub type Open = Box<dyn Fn(&Place) -> Result<Arc<dyn Discovery>, OpenError> + Send + Sync>;

/// What a crew works with.
pub struct Means {
    /// Who runs its programs.
    pub runner: Runner,
    /// What the ids of its services end with.
    pub hostname: String,
    /// Who opens the place where services are registered.
    pub open: Open,
    /// What the pod says about itself, for services that are as healthy as it is; none where there is no pod.
    pub pod: Option<watch::Receiver<LifecycleReport>>,
}

/// The services, backends, tasks, coprocesses and sensors of the present configuration, each with an actor of its own.
///
/// Dropping it ends all of them at once, with whatever they run; what is registered then stays so until its time is over.
pub struct Crew {
    means: Means,
    place: Option<(Place, Arc<dyn Discovery>)>,
    services: Vec<Member<Service, &'static str, Standing>>,
    backends: Vec<Member<Backend, usize, Memory>>,
    tasks: Vec<Member<Task, (), ()>>,
    sensors: Vec<Member<Sensor, (), ()>>,
    coprocesses: Vec<Member<Coprocess, Progress, ()>>,
    maintenance: watch::Sender<bool>,
    /// Deregistrations: whether they were done.
    leaving: JoinSet<bool>,
    /// What was asked to end.
    ending: JoinSet<()>,
    roster: watch::Sender<Roster>,
}

impl Crew {
    /// A crew with nothing to do yet.
    #[must_use]
    pub fn new(means: Means) -> Self {
        Self {
            means,
            place: None,
            services: Vec::new(),
            backends: Vec::new(),
            tasks: Vec::new(),
            sensors: Vec::new(),
            coprocesses: Vec::new(),
            maintenance: watch::Sender::new(false),
            leaving: JoinSet::new(),
            ending: JoinSet::new(),
            roster: watch::Sender::default(),
        }
    }

    /// Who is at work, for whoever wants to tell others.
    #[must_use]
    pub fn roster(&self) -> watch::Receiver<Roster> {
        self.roster.subscribe()
    }

    /// Carries this configuration out from now on, in the background. What it has in common with the present one goes on
    /// untouched: timers, memories, counts and registrations. A service that changed is registered again without being
    /// removed first; a coprocess that changed is ended first. With another place, all services are removed from the former
    /// one and registered at this one; where only the way to it is another, they are registered again. Maintenance goes on.
    ///
    /// # Errors
    /// When the place cannot be opened. Then nothing has changed.
    pub fn apply(&mut self, config: &Config) -> Result<(), OpenError> {
        let place = self.open(&config.place)?;
        let former = self.place.replace((config.place.clone(), Arc::clone(&place)));
        let former = former.filter(|(former, _)| *former != config.place);
        let is_renewed = former.is_some();
        let former = former.filter(|(former, _)| !former.is_same_store(&config.place)).map(|(_, former)| former);
        self.means.runner.environment().advertise(config);
        while self.leaving.try_join_next().is_some() {}
        while self.ending.try_join_next().is_some() {}
        self.apply_coprocesses(config);
        self.apply_services(config, &place, is_renewed, former.as_ref());
        self.apply_backends(config, &place, is_renewed);
        self.apply_routines(config);
        self.publish();
        Ok(())
    }

    /// During maintenance all services are deregistered, and nothing is checked, watched, measured or begun but coprocesses.
    /// After it, services are registered again when they are found healthy.
    pub fn maintain(&mut self, begins: bool) {
        self.maintenance.send_replace(begins);
    }

    /// Whether there is maintenance.
    #[must_use]
    pub fn is_in_maintenance(&self) -> bool {
        *self.maintenance.borrow()
    }

    /// Stops everything but coprocesses, and deregisters all services that may be registered, within this limit. Returns how
    /// many services could not be deregistered.
    pub async fn withdraw(&mut self, limit: Duration) -> usize {
        self.stop_polling(HASTE);
        if let Some((_, place)) = self.place.clone() {
            for member in std::mem::take(&mut self.services) {
                self.retire(member, Arc::clone(&place));
            }
        }
        self.publish();
        self.deregistered(limit).await
    }

    /// Deregisters all services of a configuration that is not going to be applied, whoever registered them: an earlier life
    /// of the host may have left them. Returns how many could not be deregistered within this limit.
    pub async fn withdraw_all(&mut self, config: &Config, limit: Duration) -> usize {
        let services = config.registered();
        match self.open(&config.place) {
            Ok(place) => {
                for service in services {
                    let (place, registration) = (Arc::clone(&place), self.registration(&service));
                    self.leaving.spawn(async move { deregister(&*place, &registration).await });
                }
                self.deregistered(limit).await
            }
            Err(error) => {
                tracing::warn!("cannot deregister what may have been left: {error}");
                services.len()
            }
        }
    }

    /// Ends all that is still at work, and whatever it runs: by TERM, and by KILL after the grace. Registrations stay.
    pub async fn disband(&mut self, grace: Duration) {
        self.services.clear();
        self.stop_polling(grace);
        dismiss(&mut self.ending, self.coprocesses.drain(..), grace);
        self.publish();
        let _ = timeout(grace, async { while self.ending.join_next().await.is_some() {} }).await;
        self.ending.shutdown().await;
    }

    /// A place, the present one if it is the same.
    fn open(&self, wanted: &Place) -> Result<Arc<dyn Discovery>, OpenError> {
        match &self.place {
            Some((present, place)) if present == wanted => Ok(Arc::clone(place)),
            _ => (self.means.open)(wanted),
        }
    }

    /// Ends all that looks, runs or measures again and again, but for services.
    fn stop_polling(&mut self, patience: Duration) {
        dismiss(&mut self.ending, self.tasks.drain(..), patience);
        dismiss(&mut self.ending, self.sensors.drain(..), patience);
        dismiss(&mut self.ending, self.backends.drain(..), patience);
    }

    fn publish(&self) {
        let Self { services, backends, tasks, coprocesses, .. } = self;
        self.roster.send_replace(Roster::new(services, backends, tasks, coprocesses));
    }

    fn apply_services(
        &mut self,
        config: &Config,
        place: &Arc<dyn Discovery>,
        is_renewed: bool,
        former: Option<&Arc<dyn Discovery>>,
    ) {
        let mut present = std::mem::take(&mut self.services);
        let gone = reconcile(
            &mut present,
            config.registered(),
            |present, wanted| !is_renewed && present == wanted,
            |service| service.name.clone(),
            |service, predecessor| self.start_service(service, predecessor, Arc::clone(place), former.cloned()),
        );
        self.services = present;
        for member in gone {
            self.retire(member, Arc::clone(former.unwrap_or(place)));
        }
    }

    fn start_service(
        &self,
        service: Service,
        predecessor: Option<Member<Service, &'static str, Standing>>,
        place: Arc<dyn Discovery>,
        former: Option<Arc<dyn Discovery>>,
    ) -> Member<Service, &'static str, Standing> {
        let mut standing = Standing::new(service.name.clone());
        let (word, report) = watch::channel(standing.word());
        let keeper = Keeper {
            registration: self.registration(&service),
            service: service.clone(),
            place,
            runner: self.means.runner.clone(),
            pod: self.means.pod.clone(),
            maintenance: self.maintenance.subscribe(),
            word,
        };
        let before = predecessor.map(|member| (self.registration(&member.what), member.end()));
        Member::start(service, report, |stop| async move {
            if let Some((registration, end)) = before
                && let Some(left) = end.await
            {
                standing = left;
                if let Some(former) = former {
                    if standing.is_registered() {
                        let _ = timeout(FAREWELL, deregister(&*former, &registration)).await;
                    }
                    standing.moved();
                }
            }
            keeper.run(standing, stop).await
        })
    }

    fn apply_backends(&mut self, config: &Config, place: &Arc<dyn Discovery>, is_renewed: bool) {
        let gone = reconcile(
            &mut self.backends,
            config.backends.clone(),
            |present, wanted| !is_renewed && present == wanted,
            |backend| (backend.name.clone(), backend.tag.clone()),
            |backend, predecessor| {
                let (count, report) = watch::channel(0);
                let watcher = Watcher {
                    backend: backend.clone(),
                    place: Arc::clone(place),
                    runner: self.means.runner.clone(),
                    maintenance: self.maintenance.subscribe(),
                    count,
                };
                let before = ended(predecessor);
                Member::start(backend, report, |stop| async move {
                    let memory = before.await.unwrap_or_default();
                    watcher.run(memory, stop).await
                })
            },
        );
        dismiss(&mut self.ending, gone, PATIENCE);
    }

    fn apply_routines(&mut self, config: &Config) {
        let gone = reconcile(
            &mut self.tasks,
            config.tasks.clone(),
            |present, wanted| present == wanted,
            |task| task.name.clone(),
            |task, predecessor| {
                let (runner, maintenance) = (self.means.runner.clone(), self.maintenance.subscribe());
                let before = ended(predecessor);
                Member::start(task.clone(), watch::channel(()).1, |stop| async move {
                    before.await;
                    routine::task(task, runner, maintenance, stop).await;
                })
            },
        );
        dismiss(&mut self.ending, gone, PATIENCE);
        let sensors = config.telemetry.as_ref().map(|telemetry| telemetry.sensors.clone()).unwrap_or_default();
        self.means.runner.metrics().sensors.declare(sensors.iter().map(Sensor::instrument).collect());
        let gone = reconcile(
            &mut self.sensors,
            sensors,
            |present, wanted| present == wanted,
            |sensor| sensor.metric.clone(),
            |sensor, predecessor| {
                let (runner, maintenance) = (self.means.runner.clone(), self.maintenance.subscribe());
                let before = ended(predecessor);
                Member::start(sensor.clone(), watch::channel(()).1, |stop| async move {
                    before.await;
                    routine::sensor(sensor, runner, maintenance, stop).await;
                })
            },
        );
        dismiss(&mut self.ending, gone, PATIENCE);
    }

    fn apply_coprocesses(&mut self, config: &Config) {
        let gone = reconcile(
            &mut self.coprocesses,
            config.coprocesses.clone(),
            |present, wanted| present == wanted,
            |coprocess| coprocess.name.clone(),
            |coprocess, predecessor| {
                let runner = self.means.runner.clone();
                let (progress, report) = watch::channel(Progress::default());
                let before = ended(predecessor);
                Member::start(coprocess.clone(), report, |stop| async move {
                    before.await;
                    coprocess::coprocess(coprocess, runner, progress, stop).await;
                })
            },
        );
        dismiss(&mut self.ending, gone, PATIENCE);
    }

    /// Ends a service, and removes what its place may know of it.
    fn retire(&mut self, member: Member<Service, &'static str, Standing>, place: Arc<dyn Discovery>) {
        let registration = self.registration(&member.what);
        let end = member.end();
        self.leaving.spawn(async move {
            let is_registered = end.await.is_none_or(|standing| standing.is_registered());
            !is_registered || deregister(&*place, &registration).await
        });
    }

    /// Waits for all deregistrations within the limit. How many were not done.
    async fn deregistered(&mut self, limit: Duration) -> usize {
        let mut failed = 0;
        let all = async {
            while let Some(done) = self.leaving.join_next().await {
                failed += usize::from(!done.unwrap_or(false));
            }
        };
        let in_time = timeout(limit, all).await.is_ok();
        if !in_time {
            failed += self.leaving.len();
            tracing::warn!("deregistering services took longer than {limit:?}");
        }
        self.leaving.abort_all();
        failed
    }

    fn registration(&self, service: &Service) -> Registration {
        Registration {
            id: format!("{}-{}", service.name, self.means.hostname),
            name: service.name.clone(),
            address: service.address,
            port: service.port,
            tags: service.tags.clone(),
            ttl: service.ttl,
            enable_tag_override: service.enable_tag_override,
            deregister_critical_service_after: service.deregister_critical_service_after.clone(),
        }
    }
}

/// Removes a service from a place. Whether that was done.
async fn deregister(place: &dyn Discovery, registration: &Registration) -> bool {
    match place.deregister(registration).await {
        Ok(()) | Err(DiscoveryError::Forgotten(_)) => {
            tracing::info!("{} is deregistered", registration.name);
            true
        }
        Err(error) => {
            tracing::warn!("cannot deregister {}: {error}", registration.name);
            false
        }
    }
}

/// Asks a predecessor to end, now. The future is what it leaves behind, once it has ended or was killed.
fn ended<T, Report, Legacy: Send + 'static>(
    predecessor: Option<Member<T, Report, Legacy>>,
) -> impl Future<Output = Option<Legacy>> + Send + 'static {
    let end = predecessor.map(Member::end);
    async move { timeout(PATIENCE, end?).await.ok()? }
}

/// Asks all of them to end, now, and has those killed that do not within this time.
fn dismiss<T, Report, Legacy: Send + 'static>(
    ending: &mut JoinSet<()>,
    members: impl IntoIterator<Item = Member<T, Report, Legacy>>,
    patience: Duration,
) {
    for member in members {
        let end = timeout(patience, member.end());
        ending.spawn(async {
            let _ = end.await;
        });
    }
}
