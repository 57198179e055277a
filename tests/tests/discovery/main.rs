//! All places where services are registered and found keep the same promises.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "all of it is test"
)]

mod consul;
mod contract;
mod embedded;
mod etcd;
mod etcd_v2;
mod zookeeper;

use std::time::{Duration, Instant};

use ochopod::discovery::{Discovery, Found, Mark, Place, Registration, Sought};

/// How soon what was done must be seen.
const SOON: Duration = Duration::from_secs(1);

/// A server that a test has for itself.
trait Server: Sized {
    async fn start() -> Self;

    /// The place, for a client of it.
    fn place(&self) -> Place;

    /// Ends it as a power failure would.
    async fn stop(&mut self);

    /// Starts it again; it may have forgotten everything.
    async fn restart(&mut self);

    /// Connections stand, nothing is answered.
    fn freeze(&self);

    fn thaw(&self);
}

fn registration(name: &str, host: &str, port: u16) -> Registration {
    Registration {
        id: format!("{name}-{host}"),
        name: name.to_owned(),
        address: [10, 0, 0, 1].into(),
        port,
        tags: Vec::new(),
        ttl: Duration::from_secs(30),
        enable_tag_override: false,
        deregister_critical_service_after: None,
    }
}

fn sought(name: &str) -> Sought {
    Sought { name: name.to_owned(), tag: None }
}

/// What is there now.
async fn look(place: &dyn Discovery, sought: &Sought) -> Found {
    place.instances(sought, None, Duration::ZERO).await.unwrap()
}

/// The instances there are now, shown as `ID at ADDRESS:PORT`.
async fn shown(place: &dyn Discovery, sought: &Sought) -> Vec<String> {
    let found = look(place, sought).await;
    found.instances.iter().map(|found| format!("{} at {}:{}", found.id, found.address, found.port)).collect()
}

/// Soon, these instances are there, and stay.
async fn found(place: &dyn Discovery, sought: &Sought, expected: &[&str]) {
    found_within(SOON, place, sought, expected).await;
    assert_eq!(shown(place, sought).await, expected);
}

async fn found_within(limit: Duration, place: &dyn Discovery, sought: &Sought, expected: &[&str]) {
    let what = format!("{expected:?} are found");
    let attempt = async || {
        let shown = shown(place, sought).await;
        anyhow::ensure!(shown == expected, "there are {shown:?}");
        Ok(())
    };
    ochopod_tests::eventually(&what, limit, attempt).await.unwrap();
}

/// A mark to wait from, once a place has come to rest: some tell of a change in several steps.
async fn mark(place: &dyn Discovery, sought: &Sought) -> Mark {
    let mut mark = look(place, sought).await.mark.expect("it can be waited for");
    loop {
        let begin = Instant::now();
        mark = place.instances(sought, Some(mark), SOON).await.unwrap().mark.expect("it can be waited for");
        if begin.elapsed() > SOON / 2 {
            return mark;
        }
    }
}
