//! What names mean: look-ups that cannot pile up, and the last good answer to each.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{
    sync::{Mutex as Turn, Semaphore},
    task::spawn_blocking,
    time::timeout,
};

/// How long the addresses of a name are taken for granted.
const LAST: Duration = Duration::from_secs(30);
/// How long a guest waits for names, and how long one that did not answer is left in peace.
const LOOK_UP: Duration = Duration::from_secs(5);
/// Names that are remembered, besides those that always are.
const MOST: usize = 1024;

/// Look-ups of this process that may be under way: none can be interrupted, and each takes a thread.
static LOOK_UPS: Semaphore = Semaphore::const_new(4);

type Resolve = fn(&str) -> io::Result<Vec<IpAddr>>;

/// The addresses of names.
#[derive(Debug)]
pub(super) struct Names {
    resolve: Resolve,
    /// Names that are never forgotten.
    kept: BTreeSet<String>,
    known: Mutex<BTreeMap<String, Arc<Name>>>,
}

#[derive(Debug, Default)]
struct Name {
    /// Held during a look-up, so that no second one begins.
    turn: Arc<Turn<()>>,
    found: Mutex<Found>,
}

#[derive(Debug, Default, Clone)]
struct Found {
    /// Those of the last look-up that found any.
    addresses: Option<Vec<IpAddr>>,
    /// Until when nobody needs to look again.
    until: Option<Instant>,
}

impl Names {
    pub(super) fn new(kept: BTreeSet<String>) -> Self {
        Self { resolve: system, kept, known: Mutex::default() }
    }

    /// The last addresses that a name had; none when it never had any. It is looked up when the last time is long ago,
    /// which takes a few seconds at most.
    pub(super) async fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let entry = self.entry(name);
        if !entry.is_fresh() && timeout(LOOK_UP, self.look_up(name, &entry)).await.is_err() {
            entry.with(|found| found.until = Some(Instant::now() + LOOK_UP));
        }
        entry.with(|found| found.addresses.clone())
    }

    /// The same for several names, within the time of one. What never had an address is missing.
    pub(super) async fn all<'a>(&self, names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, Vec<IpAddr>> {
        let names: BTreeSet<&str> = names.collect();
        let found = names.into_iter().map(async |name| Some((name, self.addresses(name).await?)));
        join_all(found).await.into_iter().flatten().collect()
    }

    /// Looks a name up, unless somebody else just did. What was begun goes on when this is given up.
    async fn look_up(&self, name: &str, entry: &Arc<Name>) {
        let turn = Arc::clone(&entry.turn).lock_owned().await;
        if entry.is_fresh() {
            return;
        }
        let Ok(permit) = LOOK_UPS.acquire().await else { return };
        let (resolve, name, entry) = (self.resolve, name.to_owned(), Arc::clone(entry));
        let looked_up = spawn_blocking(move || {
            let found = resolve(&name);
            entry.take(found.unwrap_or_default());
            drop((permit, turn));
        });
        _ = looked_up.await;
    }

    fn entry(&self, name: &str) -> Arc<Name> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > MOST {
            known.retain(|name, entry| self.kept.contains(name) || Arc::strong_count(entry) > 1);
        }
        Arc::clone(known.entry(name.to_owned()).or_default())
    }
}

impl Name {
    fn is_fresh(&self) -> bool {
        self.with(|found| found.until.is_some_and(|until| Instant::now() < until))
    }

    fn take(&self, addresses: Vec<IpAddr>) {
        self.with(|found| {
            found.until = Some(Instant::now() + LAST);
            if !addresses.is_empty() {
                found.addresses = Some(addresses);
            }
        });
    }

    fn with<R>(&self, act: impl FnOnce(&mut Found) -> R) -> R {
        act(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    use super::*;

    fn names(resolve: Resolve) -> Names {
        Names { resolve, ..Names::new(BTreeSet::from(["kept".to_owned()])) }
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
            // Goes on once four are here, so that there would be time for a fifth.
            FOUR.wait();
            NOW.fetch_sub(1, Ordering::SeqCst);
            Ok(vec![IpAddr::from([10, 0, 0, 1])])
        });
        let asked: Vec<String> = (0..12).map(|number| number.to_string()).collect();
        let (one, other) =
            tokio::join!(names.all(asked.iter().map(String::as_str)), names.all(asked.iter().map(String::as_str)));
        assert_eq!((one.len(), other.len()), (12, 12));
        assert_eq!(ALL.load(Ordering::SeqCst), 12, "a name was looked up twice");
        assert!(PEAK.load(Ordering::SeqCst) <= 4, "{PEAK:?} look-ups at a time");
    }

    #[tokio::test]
    async fn names_that_guests_make_up_are_forgotten() {
        let names = names(|_| Ok(vec![IpAddr::from([10, 0, 0, 1])]));
        names.addresses("kept").await;
        for number in 0..2 * MOST {
            drop(names.entry(&number.to_string()));
        }
        let known = names.known.lock().unwrap();
        assert!(known.len() <= MOST + 1 && known.contains_key("kept"), "{}", known.len());
    }
}
