//! Service IDs, each registered by one process of this host only.
//!
//! A process that registers an ID holds an abstract socket whose name is derived from the registry and the ID. The kernel grants
//! it to one process of a network namespace at a time, and frees it when that process exits. With the usual ID, a process also
//! holds the longer one, which has the address and port of the service. If the usual ID is held, a process uses the longer one.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    os::{linux::net::SocketAddrExt as _, unix::net},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use ochopod_discovery::RegistryConfig;
use ring::digest::{Context, SHA256};

use super::config::Service;

/// Prefix of the socket names.
const PREFIX: &str = "ochopod-service-";

/// IDs that this process holds. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// Separates processes that must not see each other.
    scope: String,
    held: Arc<Mutex<BTreeMap<String, Weak<net::UnixListener>>>>,
}

/// An ID in a registry, held or not.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) id: String,
    claims: Claims,
    /// One name for each server and ID: registries that share a server are the same.
    names: Vec<String>,
    /// None for a socket that the system does not grant. Processes are not distinguished then.
    held: Mutex<Vec<Option<Arc<net::UnixListener>>>>,
}

/// Another process holds it.
struct Taken;

impl Claims {
    /// Creates claims that conflict only with those of the same scope.
    #[must_use]
    pub fn within(scope: &str) -> Self {
        Self { scope: scope.to_owned(), ..Self::default() }
    }

    /// Returns the ID of a service in a registry: `<name>-<hostname>`; with address and port if another process holds that, or
    /// registers the same address and port. [`Claim::hold`] returns whether it is held.
    pub(super) fn choose(&self, service: &Service, hostname: &str, registry: &RegistryConfig) -> Arc<Claim> {
        let Service { name, address, port, .. } = service;
        let usual = format!("{name}-{hostname}");
        let longer = format!("{usual}-{address}-{port}");
        // The longer ID first: a process that cannot hold it must not keep the usual one from another process.
        let both = self.claim(usual.clone(), &[&longer, &usual], registry);
        if both.hold() {
            return Arc::new(both);
        }
        let longer = self.claim(longer.clone(), &[&longer], registry);
        longer.hold();
        Arc::new(longer)
    }

    /// Creates a claim on `id` that is held with the sockets of all `ids`.
    fn claim(&self, id: String, ids: &[&str], registry: &RegistryConfig) -> Claim {
        // Consul ignores case in IDs.
        let unique =
            |id: &str| if matches!(registry, RegistryConfig::Consul(_)) { id.to_lowercase() } else { id.to_owned() };
        let servers = servers(registry);
        let names = ids.iter().flat_map(|id| servers.iter().map(|server| self.name(server, &unique(id)))).collect();
        Claim { id, claims: self.clone(), names, held: Mutex::default() }
    }

    /// Returns the name of a socket. Its length does not depend on the ID.
    fn name(&self, server: &str, id: &str) -> String {
        let mut hasher = Context::new(&SHA256);
        for part in [self.scope.as_str(), server, id] {
            hasher.update(&part.len().to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finish().as_ref().iter().fold(PREFIX.to_owned(), |mut name, byte| {
            // Writing to a string does not fail.
            _ = write!(name, "{byte:02x}");
            name
        })
    }

    /// Returns the socket of this name.
    fn socket(&self, name: &str) -> Result<Option<Arc<net::UnixListener>>, Taken> {
        let mut held = lock(&self.held);
        held.retain(|_, socket| socket.strong_count() > 0);
        if let Some(socket) = held.get(name).and_then(Weak::upgrade) {
            return Ok(Some(socket));
        }
        match net::SocketAddr::from_abstract_name(name).and_then(|address| net::UnixListener::bind_addr(&address)) {
            Ok(socket) => {
                let socket = Arc::new(socket);
                held.insert(name.to_owned(), Arc::downgrade(&socket));
                Ok(Some(socket))
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Taken),
            Err(error) => {
                tracing::warn!(
                    "no abstract socket ({error}); two processes on this host may register one id unnoticed"
                );
                Ok(None)
            }
        }
    }
}

impl Claim {
    /// Holds the ID, if no other process does. Returns whether it is held.
    pub(super) fn hold(&self) -> bool {
        let mut held = lock(&self.held);
        if held.len() < self.names.len() {
            let sockets = self.names.iter().map(|name| self.claims.socket(name));
            *held = sockets.collect::<Result<_, _>>().unwrap_or_default();
        }
        held.len() == self.names.len()
    }
}

/// Returns the servers of a registry, each with its path of services. Registries with a common one have the same IDs, whatever
/// the credentials.
fn servers(registry: &RegistryConfig) -> Vec<String> {
    match registry {
        RegistryConfig::Consul(consul) => vec![format!("consul {}", consul.address)],
        RegistryConfig::Etcd(etcd) => {
            let server = |endpoint: &String| format!("etcd {:?} {} {endpoint}", etcd.version, etcd.prefix);
            etcd.endpoints.iter().map(server).collect()
        }
        RegistryConfig::ZooKeeper(zookeeper) => {
            let chroot = zookeeper.chroot().unwrap_or_default();
            zookeeper.servers().iter().map(|(host, port)| format!("zookeeper {host}:{port}{chroot}")).collect()
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::HealthCheck;

    fn service(name: &str, port: u16) -> Service {
        Service {
            name: name.to_owned(),
            address: [10, 0, 0, 1].into(),
            port,
            poll: Duration::from_secs(1),
            ttl: Duration::from_secs(3),
            health: HealthCheck::Always,
            limit: Duration::from_secs(1),
            tags: Vec::new(),
            enable_tag_override: false,
            deregister_critical_service_after: None,
        }
    }

    fn zookeeper(address: &str) -> RegistryConfig {
        RegistryConfig::ZooKeeper(address.parse().unwrap())
    }

    /// Returns two processes that see each other, and no other test.
    fn two() -> [Claims; 2] {
        let scope = uuid::Uuid::new_v4().to_string();
        [Claims::within(&scope), Claims::within(&scope)]
    }

    #[test]
    fn second_process_uses_the_longer_id_until_the_first_one_exits() {
        let ([first, second], registry) = (two(), zookeeper("zk://a:1"));
        let one = first.choose(&service("app", 80), "h", &registry);
        assert_eq!((one.id.as_str(), one.hold()), ("app-h", true));
        let other = second.choose(&service("app", 81), "h", &registry);
        assert_eq!((other.id.as_str(), other.hold()), ("app-h-10.0.0.1-81", true));
        for (name, host) in [("app", "g"), ("web", "h")] {
            assert_eq!(second.choose(&service(name, 80), host, &registry).id, format!("{name}-{host}"));
        }
        drop(one);
        assert_eq!(second.choose(&service("app", 81), "h", &registry).id, "app-h");
    }

    #[test]
    fn address_and_port_are_held_by_one_process() {
        let ([first, second], registry) = (two(), zookeeper("zk://a:1"));
        let third = first.clone();
        let _usual = Claims::within(&first.scope).choose(&service("app", 1), "h", &registry);
        let one = first.choose(&service("app", 80), "h", &registry);
        assert!(one.hold());
        let other = second.choose(&service("app", 80), "h", &registry);
        assert_eq!((other.id.as_str(), other.hold()), ("app-h-10.0.0.1-80", false));
        let again = third.choose(&service("app", 80), "h", &registry);
        assert!(again.hold(), "one process may hold it twice, as during a reload");
        drop(one);
        assert!(!other.hold());
        drop(again);
        assert!(other.hold());
    }

    #[test]
    fn usual_id_includes_the_address_and_port() {
        let ([first, second], registry) = (two(), zookeeper("zk://a:1"));
        let one = first.choose(&service("app", 80), "h", &registry);
        assert_eq!((one.id.as_str(), one.hold()), ("app-h", true));
        let same = second.choose(&service("app", 80), "h", &registry);
        assert_eq!((same.id.as_str(), same.hold()), ("app-h-10.0.0.1-80", false));
        drop(one);
        assert!(same.hold());
        let again = first.choose(&service("app", 80), "h", &registry);
        assert_eq!((again.id.as_str(), again.hold()), ("app-h-10.0.0.1-80", false), "the usual ID is free");
        let other = first.choose(&service("app", 81), "h", &registry);
        assert_eq!((other.id.as_str(), other.hold()), ("app-h", true), "a rejected claim holds nothing");
    }

    #[test]
    fn registries_share_ids_if_they_share_a_server() {
        for (one, other, is_same) in [
            ("zk://a:1,b:1/x", "zk://b:1/x", true),
            ("zk://a:1/x", "zk://b:1/x", false),
            ("zk://a:1/x", "zk://a:1/y", false),
            ("zk://u:p@a:1/x", "zk://a:1/x", true),
        ] {
            let [first, second] = two();
            let _held = first.choose(&service("app", 80), "h", &zookeeper(one));
            let id = second.choose(&service("app", 80), "h", &zookeeper(other)).id.clone();
            assert_eq!(id != "app-h", is_same, "{one} {other}");
        }
    }
}
