//! A registry in memory that follows the contract of the trait, can be down or slow, and records its calls.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use ochopod_discovery::{
    ChangeIndex, QueryResult, Registry, RegistryError, ServiceInstance, ServiceQuery, ServiceRegistration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

/// The deadline of every call.
const DEADLINE: Duration = Duration::from_secs(5);

/// Clones share their state.
#[derive(Clone)]
pub(crate) struct MemoryRegistry {
    inner: Arc<Mutex<RegistryState>>,
    changed: watch::Sender<u64>,
    /// Whether queries block until a change.
    blocking: bool,
}

struct RegistryState {
    known: BTreeMap<String, Entry>,
    availability: Availability,
    /// Recorded calls, with their times.
    recorded: Vec<(Duration, String)>,
    queries: usize,
    begin: Instant,
}

struct Entry {
    registration: ServiceRegistration,
    healthy_until: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Availability {
    Up,
    Slow(Duration),
    Down,
    Hanging,
}

impl MemoryRegistry {
    pub(crate) fn new() -> Self {
        let inner = RegistryState {
            known: BTreeMap::new(),
            availability: Availability::Up,
            recorded: Vec::new(),
            queries: 0,
            begin: Instant::now(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), changed: watch::Sender::new(1), blocking: false }
    }

    pub(crate) fn blocking() -> Self {
        Self { blocking: true, ..Self::new() }
    }

    pub(crate) fn set_availability(&self, availability: Availability) {
        self.lock().availability = availability;
    }

    /// Returns the calls since the last request, each with its second.
    pub(crate) fn recorded(&self) -> Vec<String> {
        let recorded = std::mem::take(&mut self.lock().recorded);
        recorded.into_iter().map(|(at, what)| format!("{} {what}", at.as_secs_f64())).collect()
    }

    /// Returns the same without the times, and without passes.
    pub(crate) fn recorded_calls(&self) -> Vec<String> {
        let recorded = std::mem::take(&mut self.lock().recorded);
        recorded.into_iter().map(|(_, what)| what).filter(|what| !what.starts_with("pass ")).collect()
    }

    /// Counts such calls since the last request of all.
    pub(crate) fn count(&self, what: &str) -> usize {
        self.lock().recorded.iter().filter(|(_, recorded)| recorded == what).count()
    }

    /// Returns the number of queries.
    pub(crate) fn queries(&self) -> usize {
        self.lock().queries
    }

    /// Returns the ids of the healthy instances.
    pub(crate) fn healthy(&self) -> Vec<String> {
        let now = Instant::now();
        let inner = self.lock();
        inner.known.iter().filter(|(_, entry)| entry.is_healthy(now)).map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn registration(&self, id: &str) -> Option<ServiceRegistration> {
        self.lock().known.get(id).map(|entry| entry.registration.clone())
    }

    /// Adds and removes other instances.
    pub(crate) fn set_instances(&self, registrations: &[ServiceRegistration]) {
        let until = Some(Instant::now() + Duration::from_hours(1));
        let entry =
            |registration: &ServiceRegistration| Entry { registration: registration.clone(), healthy_until: until };
        self.lock().known = registrations.iter().map(|it| (it.id.clone(), entry(it))).collect();
        self.change();
    }

    fn change(&self) {
        self.changed.send_modify(|mark| *mark += 1);
    }

    fn lock(&self) -> MutexGuard<'_, RegistryState> {
        self.inner.lock().unwrap()
    }

    async fn call<T>(
        &self,
        answer: impl FnOnce(&mut RegistryState) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let availability = self.lock().availability;
        match availability {
            Availability::Slow(time) => sleep(time).await,
            Availability::Hanging => sleep(DEADLINE).await,
            Availability::Up | Availability::Down => {}
        }
        match availability {
            Availability::Down | Availability::Hanging => Err(RegistryError::Unavailable("no answer".to_owned())),
            Availability::Up | Availability::Slow(_) => answer(&mut self.lock()),
        }
    }

    async fn report(
        &self,
        what: String,
        answer: impl FnOnce(&mut RegistryState) -> Result<(), RegistryError>,
    ) -> Result<(), RegistryError> {
        let at = self.lock().begin.elapsed();
        self.lock().recorded.push((at, what));
        let answer = self.call(answer).await;
        self.change();
        answer
    }
}

impl Entry {
    fn is_healthy(&self, now: Instant) -> bool {
        self.healthy_until.is_some_and(|until| until > now)
    }
}

fn known<'a>(inner: &'a mut RegistryState, id: &str) -> Result<&'a mut Entry, RegistryError> {
    inner.known.get_mut(id).ok_or_else(|| RegistryError::NotRegistered(id.to_owned()))
}

impl Registry for MemoryRegistry {
    fn register<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>> {
        let (id, port) = (&registration.id, registration.port);
        let register = move |inner: &mut RegistryState| {
            let healthy_until = Some(Instant::now() + registration.ttl);
            inner.known.insert(id.clone(), Entry { registration: registration.clone(), healthy_until });
            Ok(())
        };
        self.report(format!("register {id}:{port}"), register).boxed()
    }

    fn pass<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>> {
        let pass = |inner: &mut RegistryState| {
            known(inner, &registration.id)?.healthy_until = Some(Instant::now() + registration.ttl);
            Ok(())
        };
        self.report(format!("pass {}", registration.id), pass).boxed()
    }

    fn fail<'a>(
        &'a self,
        registration: &'a ServiceRegistration,
        note: &'a str,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        let fail = |inner: &mut RegistryState| {
            known(inner, &registration.id)?.healthy_until = None;
            Ok(())
        };
        self.report(format!("fail {}: {note}", registration.id), fail).boxed()
    }

    fn deregister<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>> {
        let deregister = |inner: &mut RegistryState| {
            inner.known.remove(&registration.id);
            Ok(())
        };
        self.report(format!("deregister {}", registration.id), deregister).boxed()
    }

    fn instances<'a>(
        &'a self,
        sought: &'a ServiceQuery,
        since: Option<ChangeIndex>,
        patience: Duration,
    ) -> BoxFuture<'a, Result<QueryResult, RegistryError>> {
        let look = async move {
            self.lock().queries += 1;
            let mut changed = self.changed.subscribe();
            if let Some(ChangeIndex(since)) = since {
                let _ = timeout(patience, changed.wait_for(|mark| *mark != since)).await;
            }
            let mark = self.blocking.then(|| ChangeIndex(*changed.borrow()));
            let instances = self.call(|inner| Ok(inner.instances(sought))).await?;
            Ok(QueryResult { instances, index: mark })
        };
        look.boxed()
    }
}

impl RegistryState {
    fn instances(&self, sought: &ServiceQuery) -> Vec<ServiceInstance> {
        let now = Instant::now();
        let is_sought = |registration: &ServiceRegistration| {
            registration.name == sought.name && sought.tag.iter().all(|tag| registration.tags.contains(tag))
        };
        let found = self.known.values().filter(|entry| entry.is_healthy(now) && is_sought(&entry.registration));
        let instance = |ServiceRegistration { id, address, port, .. }: &ServiceRegistration| ServiceInstance {
            id: id.clone(),
            address: address.to_string(),
            port: *port,
        };
        found.map(|entry| instance(&entry.registration)).collect()
    }
}

/// Waits until this time since the start of the test, and runs everything that is due then.
pub(crate) async fn second(begin: Instant, second: f64) {
    sleep_until(begin + Duration::from_secs_f64(second) + Duration::from_millis(1)).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}
