//! Where services are registered and found: Consul, etcd or ZooKeeper, behind one trait.
//!
//! | module | what it holds |
//! |---|---|
//! | [`Place`] | which of them, and where: what a configuration says |
//! | `consul` | Consul's agent API, by blocking queries |
//! | `etcd` | etcd's v3 API, with leases, and its v2 keys, as ContainerPilot wrote them |
//! | `zookeeper` | ephemeral nodes under `/ochopod/services` |
//! | `entry` | what etcd and ZooKeeper keep of an instance |
//! | `http`, `tls` | HTTP by TCP, TLS or a unix socket |

mod consul;
mod entry;
mod etcd;
mod http;
mod place;
mod tls;
mod zookeeper;

pub use consul::Consul;
pub use etcd::{Etcd, EtcdV2};
pub use place::{ConsulAddress, EtcdAddress, EtcdVersion, OpenError, Place, Scheme, TlsFiles};
pub use zookeeper::ZooKeeper;

use std::{net::IpAddr, time::Duration};

use futures_util::future::BoxFuture;

/// One instance of a service of ours, as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Unique among all instances of all services: `<name>-<hostname>`.
    pub id: String,
    /// The service.
    pub name: String,
    /// Where it is reached.
    pub address: IpAddr,
    /// Where it is reached.
    pub port: u16,
    /// What those who look for it may ask for besides its name.
    pub tags: Vec<String>,
    /// How long it counts as healthy after it last said so.
    pub ttl: Duration,
    /// Consul: whether others may change the tags.
    pub enable_tag_override: bool,
    /// Consul: for how long it stays listed once it is critical, in Consul's own words (`40m`).
    pub deregister_critical_service_after: Option<String>,
}

/// A healthy instance of a service that was found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Where it is reached.
    pub address: String,
    /// Where it is reached.
    pub port: u16,
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sought {
    /// The service.
    pub name: String,
    /// Only instances with this tag, where the place knows tags.
    pub tag: Option<String>,
}

/// A state of a place, to be told apart from later ones. Means nothing to any other place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub u64);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The healthy instances, sorted by id.
    pub instances: Vec<Instance>,
    /// What to wait for a change from; none where the place cannot be waited for: ask again later.
    pub mark: Option<Mark>,
}

/// Why a place did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// It knows no such instance, or no more: register it again.
    #[error("{0} is not registered (any more)")]
    Forgotten(String),
    /// It cannot be reached, or did not answer in time: try again later.
    #[error("{0}")]
    Unavailable(String),
    /// It refused: trying again is of use only once somebody changed something.
    #[error("{0}")]
    Refused(String),
    /// It answered what it never should.
    #[error("{0}")]
    Unexpected(String),
}

/// A place where services are registered and found.
///
/// # Guarantees
/// Every call has a deadline of its own (a few seconds; [`Discovery::instances`]: its patience and a few seconds) and ends with
/// [`DiscoveryError::Unavailable`] past it.
///
/// # Cancellation safety
/// Dropping any of the futures leaves the place usable; whether what was asked was done is unknown then.
pub trait Discovery: Send + Sync + 'static {
    /// Registers an instance together with its check, passing, in one step. Whatever was registered under the same id, with
    /// another address for instance, is replaced.
    fn register<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>>;

    /// Says that an instance is healthy: it counts as that for its `ttl` from now on.
    ///
    /// # Errors
    /// [`DiscoveryError::Forgotten`] when it has to be registered (again) for that.
    fn pass<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>>;

    /// Says that an instance is not healthy: nobody finds it from now on. `note` is for people who look.
    fn fail<'a>(&'a self, registration: &'a Registration, note: &'a str) -> BoxFuture<'a, Result<(), DiscoveryError>>;

    /// Removes an instance. That it is not there is fine.
    fn deregister<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>>;

    /// The healthy instances of a service; none is an answer too. With `since`, waits until there is something else than
    /// at that mark, at most for `patience`; may return earlier, with the same instances.
    fn instances<'a>(
        &'a self,
        sought: &'a Sought,
        since: Option<Mark>,
        patience: Duration,
    ) -> BoxFuture<'a, Result<Found, DiscoveryError>>;
}
