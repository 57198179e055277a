//! The v3 API: an instance is a key `<prefix>/<name>/<id>` that lives as long as its lease.
//!
//! The key knows its lease, so no state is kept here: passing an instance keeps the lease alive that its key has by
//! then. A lease whose key was deleted or registered again has nothing left to remove when it expires.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    select,
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{
    gateway::{KeyValue, LeaseId, RangeRequest},
    seconds,
    server::{EtcdServer, WatchStream},
    server_pool::ServerPool,
};
use crate::{
    ChangeIndex, EtcdAddress, QueryResult, Registry, RegistryConfigError, RegistryError, ServiceInstance, ServiceQuery,
    ServiceRegistration,
    candidate::{Candidate, InstanceFilter},
    stored_instance::{OwnIds, StoredInstance, segment},
};

/// Client of an etcd cluster through its v3 API. It connects at the first request, and again whenever that is needed.
pub struct Etcd {
    servers: ServerPool<EtcdServer>,
    prefix: String,
    registered: OwnIds,
    filter: InstanceFilter,
}

/// State of the key at which an instance is passed.
enum KeyState {
    /// Holds the instance, whose lease was kept alive.
    Alive,
    /// Absent, or without a valid lease.
    Missing,
    /// Holds another instance.
    Other(StoredInstance),
}

impl Etcd {
    /// Creates a client of the cluster at this address, whether it can be reached or not.
    ///
    /// # Errors
    /// If something of the address cannot be used, files for TLS included.
    pub fn new(address: &EtcdAddress) -> Result<Self, RegistryConfigError> {
        let prefix = address.prefix.trim_end_matches('/').to_owned();
        let servers = ServerPool::new(EtcdServer::all(address)?);
        Ok(Self { servers, prefix, registered: OwnIds::default(), filter: InstanceFilter::default() })
    }

    /// Returns the prefix of the keys of a service's instances.
    fn service(&self, name: &str) -> String {
        format!("{}/{}/", self.prefix, segment(name))
    }

    fn key(&self, registration: &ServiceRegistration) -> String {
        self.service(&registration.name) + &segment(&registration.id)
    }

    async fn delete(&self, registration: &ServiceRegistration) -> Result<(), RegistryError> {
        let key = &self.key(registration);
        self.servers.request(|server, limit| server.within(limit, server.delete(key))).await
    }

    /// Returns the current instances and the revision of the store.
    async fn list(&self, query: &ServiceQuery) -> Result<(Vec<ServiceInstance>, i64), RegistryError> {
        let range = &RangeRequest::prefix(&self.service(&query.name));
        let listed = self.servers.request(|server, limit| server.within(limit, server.range(range))).await?;
        let entries = listed.kvs.iter().filter_map(read).filter(|entry| entry.has_tag(query));
        Ok((self.filter.instances(entries.map(Candidate::from)), listed.header.revision))
    }

    /// Waits until a service's instances may have changed since a revision, or until the deadline. Returns whether the
    /// watch worked: it may break off.
    async fn wait(&self, name: &str, since: i64, deadline: Instant) -> Result<bool, RegistryError> {
        let (range, start) = (&RangeRequest::prefix(&self.service(name)), since.saturating_add(1));
        let (server, watch) = self
            .servers
            .request(|server, limit| {
                let opened = server.within(limit, server.watch(range.clone(), start));
                opened.map(move |watch| Ok((server, watch?)))
            })
            .await?;
        select! {
            is_known = wait_for_change(watch, since) => Ok(is_known),
            () = server.until_silent() => Ok(false),
            () = sleep_until(deadline) => Ok(true),
        }
    }
}

/// Waits for a change, or for the news that changes cannot be known: the history since that revision is gone
/// (compaction), or the revision is still to come (the store was emptied). False when the watch broke off.
async fn wait_for_change(mut watch: WatchStream, since: i64) -> bool {
    while let Some(event) = watch.next().await {
        let is_behind = event.header.as_ref().is_some_and(|header| header.revision < since);
        if is_behind || event.compact_revision > 0 || !event.events.is_empty() {
            return true;
        }
        if let Some(error) = event.cancellation() {
            debug!(reason = error.message, "etcd watch cancelled");
            return false;
        }
    }
    false
}

fn read(stored: &KeyValue) -> Option<StoredInstance> {
    StoredInstance::read(&String::from_utf8_lossy(&stored.key.0), &stored.value.0)
}

impl Registry for Etcd {
    fn register<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>> {
        async move {
            let (key, content) = (&self.key(registration), &StoredInstance::content(registration));
            let register = |server: &'a EtcdServer, limit| {
                server.within(limit, async move {
                    let lease = server.grant(seconds(registration.ttl)).await?;
                    server.put(key, content, lease).await
                })
            };
            self.servers.request(register).await?;
            self.registered.insert(&registration.id);
            Ok(())
        }
        .boxed()
    }

    fn pass<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>> {
        async move {
            let range = &RangeRequest::key(&self.key(registration));
            let is_own = self.registered.contains(&registration.id);
            let is_other = move |entry: &StoredInstance| is_own && entry.is_another(registration);
            let pass = |server: &'a EtcdServer, limit| {
                server.within(limit, async move {
                    let stored = server.range(range).await?;
                    // A key without a lease would never expire.
                    let Some(stored) = stored.kvs.first().filter(|stored| stored.lease != LeaseId::default()) else {
                        return Ok(KeyState::Missing);
                    };
                    if let Some(other) = read(stored).filter(is_other) {
                        return Ok(KeyState::Other(other));
                    }
                    let is_alive = server.keep_alive(stored.lease).await?;
                    Ok(if is_alive { KeyState::Alive } else { KeyState::Missing })
                })
            };
            match self.servers.request(pass).await? {
                KeyState::Alive => Ok(()),
                KeyState::Missing => Err(RegistryError::NotRegistered(registration.id.clone())),
                KeyState::Other(other) => Err(other.taken(registration)),
            }
        }
        .boxed()
    }

    fn deregister<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.delete(registration).boxed()
    }

    fn instances<'a>(
        &'a self,
        query: &'a ServiceQuery,
        since: Option<ChangeIndex>,
        max_wait: Duration,
    ) -> BoxFuture<'a, Result<QueryResult, RegistryError>> {
        async move {
            let waited = match since.map(|ChangeIndex(since)| i64::try_from(since).unwrap_or(0)) {
                Some(since) => self.wait(&query.name, since, Instant::now() + max_wait).await?,
                None => true,
            };
            let (instances, revision) = self.list(query).await?;
            // If watches break off although requests succeed, waiting is not to be retried immediately.
            let index = u64::try_from(revision).ok().filter(|_| waited).map(ChangeIndex);
            Ok(QueryResult { instances, index })
        }
        .boxed()
    }
}
