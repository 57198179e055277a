//! etcd by its v3 API: an instance is a key `<prefix>/<name>/<id>` that lives as long as its lease.
//!
//! The key knows its lease, so nothing has to be remembered here: who passes an instance keeps the lease alive that its key
//! has by then. A lease whose key was deleted or registered anew has nothing left to remove when it expires.

use std::{future::Future, time::Duration};

use etcd_client::{Client, Error, GetOptions, KeyValue, PutOptions, WatchOptions, WatchStream};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::{self, Instant};
use tracing::debug;

use super::{seconds, server::Server, servers::Servers};
use crate::discovery::{
    Discovery, DiscoveryError, EtcdAddress, Found, Instance, Mark, OpenError, Registration, Sought,
    entry::{Entry, segment},
};

/// An etcd cluster, spoken to by its v3 API. It is connected to when it is first asked something, and again whenever that is
/// needed.
pub struct Etcd {
    servers: Servers<Server>,
    prefix: String,
}

impl Etcd {
    /// The cluster at this address, whether it is there or not.
    ///
    /// # Errors
    /// When something of the address cannot be used, files for TLS included.
    pub fn new(address: &EtcdAddress) -> Result<Self, OpenError> {
        let prefix = address.prefix.trim_end_matches('/').to_owned();
        Ok(Self { servers: Servers::new(Server::all(address)?), prefix })
    }

    async fn ask<T, F>(&self, question: impl Fn(Client) -> F) -> Result<T, DiscoveryError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.servers.ask(|server, limit| server.ask(&question, limit)).await
    }

    /// What the keys of a service's instances begin with.
    fn service(&self, name: &str) -> String {
        format!("{}/{}/", self.prefix, segment(name))
    }

    fn key(&self, registration: &Registration) -> String {
        self.service(&registration.name) + &segment(&registration.id)
    }

    async fn remove(&self, registration: &Registration) -> Result<(), DiscoveryError> {
        let key = self.key(registration);
        self.ask(|mut client| {
            let key = key.clone();
            async move { client.delete(key, None).await.map(drop) }
        })
        .await
    }

    /// The instances right now, and the store's revision.
    async fn list(&self, sought: &Sought) -> Result<(Vec<Instance>, i64), DiscoveryError> {
        let service = self.service(&sought.name);
        let listed = self.ask(|mut client| {
            let service = service.clone();
            async move { client.get(service, Some(GetOptions::new().with_prefix())).await }
        });
        let listed = listed.await?;
        let mut instances: Vec<Instance> =
            listed.kvs().iter().filter_map(read).filter(|entry| entry.has_tag(sought)).map(Instance::from).collect();
        instances.sort_unstable();
        Ok((instances, listed.header().map_or(0, etcd_client::ResponseHeader::revision)))
    }

    /// Waits until a service's instances may have changed since a revision, or until the deadline. Whether that went well:
    /// a watch may break off.
    async fn wait(&self, name: &str, since: i64, deadline: Instant) -> Result<bool, DiscoveryError> {
        let (service, next) = (self.service(name), since.saturating_add(1));
        let watch = self.ask(|mut client| {
            let service = service.clone();
            async move {
                client.watch(service, Some(WatchOptions::new().with_prefix().with_start_revision(next))).await
            }
        });
        let watched = time::timeout_at(deadline, changed(watch.await?, since)).await;
        Ok(watched.unwrap_or(true))
    }
}

/// Waits until there is something new, or what is new cannot be known: the history since that revision is gone
/// (compaction), or the revision is still to come (the store was emptied). False when the watch broke off.
async fn changed(mut watch: WatchStream, since: i64) -> bool {
    while let Ok(Some(told)) = watch.message().await {
        let is_behind = told.header().is_some_and(|header| header.revision() < since);
        if is_behind || told.compact_revision() > 0 || !told.events().is_empty() {
            return true;
        }
        if told.canceled() {
            debug!("a watch of etcd was cancelled: {}", told.cancel_reason());
            return false;
        }
    }
    false
}

fn read(kept: &KeyValue) -> Option<Entry> {
    Entry::read(&String::from_utf8_lossy(kept.key()), kept.value())
}

impl Discovery for Etcd {
    fn register<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        async move {
            let (key, content) = (self.key(registration), Entry::content(registration));
            let ttl = i64::try_from(seconds(registration.ttl)).unwrap_or(i64::MAX);
            self.ask(|mut client| {
                let (key, content) = (key.clone(), content.clone());
                async move {
                    let lease = client.lease_grant(ttl, None).await?.id();
                    client.put(key, content, Some(PutOptions::new().with_lease(lease))).await.map(drop)
                }
            })
            .await
        }
        .boxed()
    }

    fn pass<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        async move {
            let key = self.key(registration);
            let lives = self.ask(|mut client| {
                let key = key.clone();
                async move {
                    let kept = client.get(key, None).await?;
                    let Some(kept) = kept.kvs().first() else { return Ok(false) };
                    match client.lease_keep_alive(kept.lease()).await {
                        Ok(_) => Ok(true),
                        // It has expired, or the key has none.
                        Err(Error::LeaseKeepAliveError(_)) => Ok(false),
                        Err(error) => Err(error),
                    }
                }
            });
            if lives.await? { Ok(()) } else { Err(DiscoveryError::Forgotten(registration.id.clone())) }
        }
        .boxed()
    }

    fn fail<'a>(&'a self, registration: &'a Registration, _: &'a str) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        self.remove(registration).boxed()
    }

    fn deregister<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        self.remove(registration).boxed()
    }

    fn instances<'a>(
        &'a self,
        sought: &'a Sought,
        since: Option<Mark>,
        patience: Duration,
    ) -> BoxFuture<'a, Result<Found, DiscoveryError>> {
        async move {
            let waited = match since.map(|Mark(since)| i64::try_from(since).unwrap_or(0)) {
                Some(since) => self.wait(&sought.name, since, Instant::now() + patience).await?,
                None => true,
            };
            let (instances, revision) = self.list(sought).await?;
            // Where watches break off but questions are answered, waiting is not to be tried again at once.
            let mark = u64::try_from(revision).ok().filter(|_| waited).map(Mark);
            Ok(Found { instances, mark })
        }
        .boxed()
    }
}
