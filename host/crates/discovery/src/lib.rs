//! Clients of service registries: Consul, etcd and ZooKeeper behind one trait, [`Registry`].
//!
//! # Guarantees
//! - All registries pass one contract suite (`tests/tests/discovery/contract.rs`); `docs/service-registry.md` describes
//!   their formats.
//! - An entry of a registry becomes a [`ServiceInstance`] only if its address and port are valid.
//! - Credentials and tokens are in no log and in no error.
//!
//! # State
//! The registry owns all instances. A client keeps connections, its session or token, and the ids that it registered.
//!
//! This crate does not know when instances are registered, passed or queried, nor the configuration's syntax:
//! `ochopod-pilot` does. What a machine is called and which addresses it has is `ochopod-interfaces`' subject.
//!
//! | module | content |
//! |---|---|
//! | [`RegistryConfig`] | type and address of a registry, as configured |
//! | `consul` | Consul's agent API, with blocking queries |
//! | `etcd` | etcd's v3 API, with leases, and its v2 keys, as ContainerPilot wrote them (feature `etcd`) |
//! | `zookeeper` | ephemeral nodes under `/ochopod/services` |
//! | `stored_instance` | entry of an instance in etcd and ZooKeeper |
//! | `candidate` | validation of entries |
//! | `http_client`, `tls` | HTTP/1.1 by TCP, TLS or a unix socket |
//! | `credentials` | file with a user's name and password |
//! | `fingerprint` | fingerprints of files whose content may change |

#![cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "the etcd clients are left out"))]

mod candidate;
mod config;
mod consul;
mod credentials;
mod endpoint;
#[cfg(feature = "etcd")]
mod etcd;
mod fingerprint;
mod http_client;
mod stored_instance;
mod tls;
mod zookeeper;

use std::{net::IpAddr, time::Duration};

pub use config::{
    ConsulAddress, EtcdAddress, EtcdVersion, Part, RegistryConfig, RegistryConfigError, Scheme, TlsFiles,
};
pub use consul::Consul;
pub use endpoint::is_endpoint;
#[cfg(feature = "etcd")]
pub use etcd::{Etcd, EtcdV2};
pub use fingerprint::Fingerprint;
use futures_util::future::BoxFuture;
use serde::Serialize;
pub use zookeeper::ZooKeeper;

/// One instance of a service of this process, as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRegistration {
    /// Unique among all instances of all services: `<name>-<hostname>`, followed by address and port if another process
    /// has that.
    pub id: String,
    /// Name of the service.
    pub name: String,
    /// Address of the instance.
    pub address: IpAddr,
    /// Port of the instance.
    pub port: u16,
    /// Tags that queries may require in addition to the name.
    pub tags: Vec<String>,
    /// Time for which the instance counts as healthy after each report that it is.
    pub ttl: Duration,
    /// Consul: whether other clients may change the tags.
    pub enable_tag_override: bool,
    /// Consul: time for which the instance stays listed once it is critical, in Consul's syntax (`40m`).
    pub deregister_critical_service_after: Option<String>,
}

/// A healthy instance of a service in the registry. Its address is the IP address of one machine or a host name, and
/// its port is not 0: both are rendered into configuration files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ServiceInstance {
    /// Id of the instance.
    pub id: String,
    /// Address of the instance.
    pub address: String,
    /// Port of the instance.
    pub port: u16,
}

/// A query for the healthy instances of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceQuery {
    /// Name of the service.
    pub name: String,
    /// Only instances with this tag, if the registry stores tags.
    pub tag: Option<String>,
}

/// A state of a registry, to be compared with later ones. It has no meaning for another registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeIndex(pub u64);

/// Result of a [`ServiceQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryResult {
    /// The healthy instances, sorted by id.
    pub instances: Vec<ServiceInstance>,
    /// State from which to wait for a change. None if the registry cannot wait: query again later.
    pub index: Option<ChangeIndex>,
}

/// Cause of a failed request to a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The registry has no such instance, or no longer: register it again.
    #[error("{0} not registered")]
    NotRegistered(String),
    /// Another live process registers the same instance, or another one under its id: not to be registered.
    #[error("{0}")]
    Taken(String),
    /// The registry cannot be reached or did not respond in time: retry later.
    #[error("{0}")]
    Unavailable(String),
    /// The registry rejected the request: a retry helps only after something was changed.
    #[error("{0}")]
    Rejected(String),
    /// The registry sent an invalid response.
    #[error("{0}")]
    InvalidResponse(String),
}

/// A registry of services and their instances.
///
/// # Guarantees
/// Every call has its own timeout (a few seconds; [`Registry::instances`]: `max_wait` and a few seconds) and ends with
/// [`RegistryError::Unavailable`] after it.
///
/// # Cancellation safety
/// Dropping any of the futures leaves the registry usable. Whether the request was carried out is unknown then.
pub trait Registry: Send + Sync + 'static {
    /// Registers an instance together with its check, passing, in one step. It replaces whatever was registered under
    /// the same id, with another address for instance.
    fn register<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>>;

    /// Reports an instance as healthy for its `ttl` from now on.
    ///
    /// # Errors
    /// [`RegistryError::NotRegistered`] if it has to be registered (again) first.
    fn pass<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>>;

    /// Reports an instance as unhealthy: no query returns it from now on. `note` is for operators. Registries that keep
    /// healthy instances only remove it, as this default does.
    fn fail<'a>(
        &'a self,
        registration: &'a ServiceRegistration,
        note: &'a str,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        _ = note;
        self.deregister(registration)
    }

    /// Returns whether it lists an instance after the process that registered it was killed and the `ttl` expired, until it is
    /// deregistered.
    fn keeps_leftovers(&self) -> bool {
        false
    }

    /// Removes an instance, if it is registered.
    fn deregister<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>>;

    /// Returns the healthy instances of a service, which may be none. With `since`, waits until the state differs from
    /// that, at most for `max_wait`; may return earlier, with the same instances.
    fn instances<'a>(
        &'a self,
        query: &'a ServiceQuery,
        since: Option<ChangeIndex>,
        max_wait: Duration,
    ) -> BoxFuture<'a, Result<QueryResult, RegistryError>>;
}
