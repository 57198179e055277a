//! Name resolution: look-ups cannot pile up, and the last successful result of each is cached.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore},
    task::spawn_blocking,
    time::timeout,
};

/// Time for which the addresses of a name are not looked up again.
const CACHE_TTL: Duration = Duration::from_secs(30);
/// Time limit of a look-up, and the time before a name that exceeded it is looked up again.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of cached names, in addition to those that are always kept.
const MAX_REMEMBERED: usize = 1024;

/// Most look-ups of this process in flight: they cannot be interrupted, and each takes a thread.
const MAX_CONCURRENT_LOOK_UPS: usize = 4;
static LOOK_UP_PERMITS: Semaphore = Semaphore::const_new(MAX_CONCURRENT_LOOK_UPS);

type ResolveFn = fn(&str) -> io::Result<Vec<IpAddr>>;

/// Addresses of names.
#[derive(Debug)]
pub(super) struct Resolver {
    resolve: ResolveFn,
    /// Names that are never evicted.
    kept: BTreeSet<String>,
    known: Mutex<BTreeMap<String, Arc<ResolverEntry>>>,
}

#[derive(Debug, Default)]
struct ResolverEntry {
    /// Held during a look-up, so that no second one starts.
    turn: Arc<AsyncMutex<()>>,
    found: Mutex<CachedAddresses>,
}

#[derive(Debug, Default, Clone)]
struct CachedAddresses {
    /// Addresses of the last successful look-up.
    addresses: Option<Vec<IpAddr>>,
    /// Time of the next look-up.
    until: Option<Instant>,
}

impl Resolver {
    pub(super) fn new(kept: BTreeSet<String>) -> Self {
        Self { resolve: resolve_by_system, kept, known: Mutex::default() }
    }

    /// Returns the last known addresses of a name, if it ever had any. An expired name is looked up, which takes a few
    /// seconds at most.
    pub(super) async fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let entry = self.entry(name);
        if !entry.is_fresh() && timeout(LOOK_UP_TIMEOUT, self.look_up(name, &entry)).await.is_err() {
            entry.with(|found| found.until = Some(Instant::now() + LOOK_UP_TIMEOUT));
        }
        entry.with(|found| found.addresses.clone())
    }

    /// Returns the same for several names, within the time of one. Names that never had an address are missing.
    pub(super) async fn all<'a>(&self, names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, Vec<IpAddr>> {
        let names: BTreeSet<&str> = names.collect();
        let found = names.into_iter().map(async |name| Some((name, self.addresses(name).await?)));
        join_all(found).await.into_iter().flatten().collect()
    }

    /// Looks a name up, unless another call just did. A started look-up continues when the future is dropped.
    async fn look_up(&self, name: &str, entry: &Arc<ResolverEntry>) {
        let turn = Arc::clone(&entry.turn).lock_owned().await;
        if entry.is_fresh() {
            return;
        }
        let Ok(permit) = LOOK_UP_PERMITS.acquire().await else { return };
        let (resolve, name, entry) = (self.resolve, name.to_owned(), Arc::clone(entry));
        let looked_up = spawn_blocking(move || {
            let found = resolve(&name);
            entry.store(found.unwrap_or_default());
            drop((permit, turn));
        });
        _ = looked_up.await;
    }

    fn entry(&self, name: &str) -> Arc<ResolverEntry> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > MAX_REMEMBERED {
            known.retain(|name, entry| self.kept.contains(name) || Arc::strong_count(entry) > 1);
        }
        Arc::clone(known.entry(name.to_owned()).or_default())
    }
}

impl ResolverEntry {
    fn is_fresh(&self) -> bool {
        self.with(|found| found.until.is_some_and(|until| Instant::now() < until))
    }

    fn store(&self, addresses: Vec<IpAddr>) {
        self.with(|found| {
            found.until = Some(Instant::now() + CACHE_TTL);
            if !addresses.is_empty() {
                found.addresses = Some(addresses);
            }
        });
    }

    fn with<R>(&self, act: impl FnOnce(&mut CachedAddresses) -> R) -> R {
        act(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn resolve_by_system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    use super::*;

    fn names(resolve: ResolveFn) -> Resolver {
        Resolver { resolve, ..Resolver::new(BTreeSet::from(["kept".to_owned()])) }
    }

    #[tokio::test]
    async fn a_name_that_is_lost_keeps_its_last_addresses_and_one_that_never_had_any_has_none() {
        static LOST: AtomicBool = AtomicBool::new(false);
        let names = names(|name| {
            let lost = LOST.load(Ordering::Relaxed) || name == "missing";
            if lost { Err(io::Error::other("no such name")) } else { Ok(vec![IpAddr::from([10, 0, 0, 1])]) }
        });
        let address = Some(vec![IpAddr::from([10, 0, 0, 1])]);
        assert_eq!(names.addresses("zk").await, address);
        LOST.store(true, Ordering::Relaxed);
        names.entry("zk").with(|found| found.until = None);
        assert_eq!(names.addresses("zk").await, address);
        assert_eq!(names.addresses("missing").await, None);
    }

    #[tokio::test]
    async fn at_most_four_names_are_looked_up_at_a_time_and_none_twice() {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        static PEAK: AtomicUsize = AtomicUsize::new(0);
        static ALL: AtomicUsize = AtomicUsize::new(0);
        static FOUR: Barrier = Barrier::new(4);
        let names = names(|_| {
            PEAK.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            ALL.fetch_add(1, Ordering::SeqCst);
            // Continues once four are here, so that there would be time for a fifth.
            FOUR.wait();
            NOW.fetch_sub(1, Ordering::SeqCst);
            Ok(vec![IpAddr::from([10, 0, 0, 1])])
        });
        let queried: Vec<String> = (0..12).map(|number| number.to_string()).collect();
        let (one, other) =
            tokio::join!(names.all(queried.iter().map(String::as_str)), names.all(queried.iter().map(String::as_str)));
        assert_eq!((one.len(), other.len()), (12, 12));
        assert_eq!(ALL.load(Ordering::SeqCst), 12, "a name was looked up twice");
        assert!(PEAK.load(Ordering::SeqCst) <= 4, "{PEAK:?} look-ups at a time");
    }

    #[tokio::test]
    async fn names_that_guests_make_up_are_forgotten() {
        let names = names(|_| Ok(vec![IpAddr::from([10, 0, 0, 1])]));
        names.addresses("kept").await;
        for number in 0..2 * MAX_REMEMBERED {
            drop(names.entry(&number.to_string()));
        }
        let known = names.known.lock().unwrap();
        assert!(known.len() <= MAX_REMEMBERED + 1 && known.contains_key("kept"), "{}", known.len());
    }
}
