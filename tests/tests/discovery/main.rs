//! All service registries fulfil the same contract.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "all of it is test"
)]

mod consul;
mod consul_agent;
mod contract;
mod embedded;
mod etcd;
mod etcd_users;
mod etcd_v2;
mod taken;
mod zookeeper;

use std::time::{Duration, Instant};

use ochopod_discovery::{ChangeIndex, QueryResult, Registry, RegistryConfig, ServiceQuery, ServiceRegistration};

/// Time within which a change must be visible.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without changes after which a registry counts as idle.
const REST: Duration = Duration::from_secs(1);

/// A server of one test.
trait Server: Sized {
    async fn start() -> Self;

    /// Returns a registry on it.
    fn registry(&self) -> RegistryConfig;

    /// Kills it as a power failure would.
    async fn stop(&mut self);

    /// Starts it again; it may have lost its state.
    async fn restart(&mut self);

    /// Freezes it: connections stay open, nothing is answered.
    fn freeze(&self);

    fn thaw(&self);
}

fn registration(name: &str, host: &str, port: u16) -> ServiceRegistration {
    ServiceRegistration {
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

fn query(name: &str) -> ServiceQuery {
    ServiceQuery { name: name.to_owned(), tag: None }
}

/// Entries whose address or port would be harmful in rendered files, as etcd and ZooKeeper store them.
fn invalid_entries() -> Vec<String> {
    let addresses = [
        "10.0.0.1;}\nevil {\n",
        "10.0.0.1,10.9.9.9",
        "",
        "a b",
        "10.0.0.1:80",
        "fe80::1%eth0",
        "0.0.0.0",
        "-x",
        "h\u{202e}",
    ];
    let entries = addresses.map(|address| (address, 5432)).into_iter().chain([("10.0.0.1", 0)]);
    let entry =
        |(address, port)| serde_json::json!({"id": "i0", "name": "db", "address": address, "port": port, "tags": null});
    entries.map(|entry_of| entry(entry_of).to_string()).collect()
}

/// Returns the current instances.
async fn find(registry: &dyn Registry, query: &ServiceQuery) -> QueryResult {
    registry.instances(query, None, Duration::ZERO).await.unwrap()
}

/// Returns the current instances as `ID at ADDRESS:PORT`.
async fn listed(registry: &dyn Registry, query: &ServiceQuery) -> Vec<String> {
    let found = find(registry, query).await;
    found.instances.iter().map(|found| format!("{} at {}:{}", found.id, found.address, found.port)).collect()
}

/// Waits until these instances are found, and checks that they stay.
async fn found(registry: &dyn Registry, query: &ServiceQuery, expected: &[&str]) {
    found_within(DEFAULT_TIMEOUT, registry, query, expected).await;
    assert_eq!(listed(registry, query).await, expected);
}

async fn found_within(limit: Duration, registry: &dyn Registry, query: &ServiceQuery, expected: &[&str]) {
    let what = format!("{expected:?} are found");
    let attempt = async || {
        let shown = listed(registry, query).await;
        anyhow::ensure!(shown == expected, "there are {shown:?}");
        Ok(())
    };
    ochopod_tests::eventually(&what, limit, attempt).await.unwrap();
}

/// Returns an index to wait from, once the registry is idle: some report a change in several steps.
async fn settled_index(registry: &dyn Registry, query: &ServiceQuery) -> ChangeIndex {
    let mut mark = find(registry, query).await.index.expect("it can be waited for");
    loop {
        let begin = Instant::now();
        mark = registry.instances(query, Some(mark), REST).await.unwrap().index.expect("it can be waited for");
        if begin.elapsed() > REST / 2 {
            return mark;
        }
    }
}
