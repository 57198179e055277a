//! A place in memory that keeps the promises of the trait, can be away or slow, and remembers what it was told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use ochopod::discovery::{Discovery, DiscoveryError, Found, Instance, Mark, Registration, Sought};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

/// The deadline of every call.
const DEADLINE: Duration = Duration::from_secs(5);

/// Clones are the same place.
#[derive(Clone)]
pub(crate) struct InMemory {
    inner: Arc<Mutex<Inner>>,
    changed: watch::Sender<u64>,
    /// Whether looks can wait for a change.
    blocking: bool,
}

struct Inner {
    known: BTreeMap<String, Entry>,
    weather: Weather,
    /// What it was told, and when.
    told: Vec<(Duration, String)>,
    looks: usize,
    begin: Instant,
}

struct Entry {
    registration: Registration,
    healthy_until: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    Fine,
    Slow(Duration),
    Away,
    Hanging,
}

impl InMemory {
    pub(crate) fn new() -> Self {
        let inner =
            Inner { known: BTreeMap::new(), weather: Weather::Fine, told: Vec::new(), looks: 0, begin: Instant::now() };
        Self { inner: Arc::new(Mutex::new(inner)), changed: watch::Sender::new(1), blocking: false }
    }

    pub(crate) fn blocking() -> Self {
        Self { blocking: true, ..Self::new() }
    }

    pub(crate) fn turns(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// What it was told since this was asked last, each with its second.
    pub(crate) fn told(&self) -> Vec<String> {
        let told = std::mem::take(&mut self.lock().told);
        told.into_iter().map(|(at, what)| format!("{} {what}", at.as_secs_f64())).collect()
    }

    /// The same without the times, and without passes.
    pub(crate) fn news(&self) -> Vec<String> {
        let told = std::mem::take(&mut self.lock().told);
        told.into_iter().map(|(_, what)| what).filter(|what| !what.starts_with("pass ")).collect()
    }

    /// How often it was told this since somebody asked for everything.
    pub(crate) fn count(&self, what: &str) -> usize {
        self.lock().told.iter().filter(|(_, told)| told == what).count()
    }

    /// How often it was looked at.
    pub(crate) fn looks(&self) -> usize {
        self.lock().looks
    }

    /// Those that are healthy, by their ids.
    pub(crate) fn healthy(&self) -> Vec<String> {
        let now = Instant::now();
        let inner = self.lock();
        inner.known.iter().filter(|(_, entry)| entry.is_healthy(now)).map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn registration(&self, id: &str) -> Option<Registration> {
        self.lock().known.get(id).map(|entry| entry.registration.clone())
    }

    /// Others come and go.
    pub(crate) fn holds(&self, registrations: &[Registration]) {
        let until = Some(Instant::now() + Duration::from_hours(1));
        let entry = |registration: &Registration| Entry { registration: registration.clone(), healthy_until: until };
        self.lock().known = registrations.iter().map(|it| (it.id.clone(), entry(it))).collect();
        self.change();
    }

    fn change(&self) {
        self.changed.send_modify(|mark| *mark += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    async fn ask<T>(&self, answer: impl FnOnce(&mut Inner) -> Result<T, DiscoveryError>) -> Result<T, DiscoveryError> {
        let weather = self.lock().weather;
        match weather {
            Weather::Slow(time) => sleep(time).await,
            Weather::Hanging => sleep(DEADLINE).await,
            Weather::Fine | Weather::Away => {}
        }
        match weather {
            Weather::Away | Weather::Hanging => Err(DiscoveryError::Unavailable("nobody answers".to_owned())),
            Weather::Fine | Weather::Slow(_) => answer(&mut self.lock()),
        }
    }

    async fn tell(
        &self,
        what: String,
        answer: impl FnOnce(&mut Inner) -> Result<(), DiscoveryError>,
    ) -> Result<(), DiscoveryError> {
        let at = self.lock().begin.elapsed();
        self.lock().told.push((at, what));
        let answer = self.ask(answer).await;
        self.change();
        answer
    }
}

impl Entry {
    fn is_healthy(&self, now: Instant) -> bool {
        self.healthy_until.is_some_and(|until| until > now)
    }
}

fn known<'a>(inner: &'a mut Inner, id: &str) -> Result<&'a mut Entry, DiscoveryError> {
    inner.known.get_mut(id).ok_or_else(|| DiscoveryError::Forgotten(id.to_owned()))
}

impl Discovery for InMemory {
    fn register<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        let (id, port) = (&registration.id, registration.port);
        let register = move |inner: &mut Inner| {
            let healthy_until = Some(Instant::now() + registration.ttl);
            inner.known.insert(id.clone(), Entry { registration: registration.clone(), healthy_until });
            Ok(())
        };
        self.tell(format!("register {id}:{port}"), register).boxed()
    }

    fn pass<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        let pass = |inner: &mut Inner| {
            known(inner, &registration.id)?.healthy_until = Some(Instant::now() + registration.ttl);
            Ok(())
        };
        self.tell(format!("pass {}", registration.id), pass).boxed()
    }

    fn fail<'a>(&'a self, registration: &'a Registration, note: &'a str) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        let fail = |inner: &mut Inner| {
            known(inner, &registration.id)?.healthy_until = None;
            Ok(())
        };
        self.tell(format!("fail {}: {note}", registration.id), fail).boxed()
    }

    fn deregister<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        let deregister = |inner: &mut Inner| {
            inner.known.remove(&registration.id);
            Ok(())
        };
        self.tell(format!("deregister {}", registration.id), deregister).boxed()
    }

    fn instances<'a>(
        &'a self,
        sought: &'a Sought,
        since: Option<Mark>,
        patience: Duration,
    ) -> BoxFuture<'a, Result<Found, DiscoveryError>> {
        let look = async move {
            self.lock().looks += 1;
            let mut changed = self.changed.subscribe();
            if let Some(Mark(since)) = since {
                let _ = timeout(patience, changed.wait_for(|mark| *mark != since)).await;
            }
            let mark = self.blocking.then(|| Mark(*changed.borrow()));
            let instances = self.ask(|inner| Ok(inner.instances(sought))).await?;
            Ok(Found { instances, mark })
        };
        look.boxed()
    }
}

impl Inner {
    fn instances(&self, sought: &Sought) -> Vec<Instance> {
        let now = Instant::now();
        let is_sought = |registration: &Registration| {
            registration.name == sought.name && sought.tag.iter().all(|tag| registration.tags.contains(tag))
        };
        let found = self.known.values().filter(|entry| entry.is_healthy(now) && is_sought(&entry.registration));
        let instance = |Registration { id, address, port, .. }: &Registration| Instance {
            id: id.clone(),
            address: address.to_string(),
            port: *port,
        };
        found.map(|entry| instance(&entry.registration)).collect()
    }
}

/// Waits until so much time has passed since the test began, and lets everybody do what is due then.
pub(crate) async fn second(begin: Instant, second: f64) {
    sleep_until(begin + Duration::from_secs_f64(second) + Duration::from_millis(1)).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}
