//! Which place services are registered in, and where it is: what a configuration says.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use super::{Consul, Discovery, Etcd, EtcdV2, ZooKeeper};
use crate::coord::{Ensemble, ZooKeeperAddress};

/// How long instances are found in ZooKeeper after their host died: what pods that are not told otherwise ask for, too.
const SESSION: Duration = Duration::from_secs(5);

/// Where services are registered and found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A Consul agent.
    Consul(ConsulAddress),
    /// An etcd cluster.
    Etcd(EtcdAddress),
    /// A ZooKeeper ensemble.
    ZooKeeper(ZooKeeperAddress),
}

impl Place {
    /// Whether what is registered at the one is found at the other: they differ in how they are reached, at most.
    #[must_use]
    pub fn is_same_store(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Consul(one), Self::Consul(other)) => one.address == other.address,
            (Self::Etcd(one), Self::Etcd(other)) => {
                let shared = one.endpoints.iter().any(|endpoint| other.endpoints.contains(endpoint));
                shared && (&one.prefix, one.version) == (&other.prefix, other.version)
            }
            (Self::ZooKeeper(one), Self::ZooKeeper(other)) => one == other,
            _ => false,
        }
    }

    /// A client of the place. Nothing is asked of it yet, but files are read.
    ///
    /// # Errors
    /// When something in the configuration cannot be used.
    pub fn open(&self) -> Result<Arc<dyn Discovery>, OpenError> {
        match self {
            Self::Consul(address) => Ok(Arc::new(Consul::new(address)?)),
            Self::Etcd(address) => match address.version {
                EtcdVersion::V2 => Ok(Arc::new(EtcdV2::new(address)?)),
                EtcdVersion::V3 => Ok(Arc::new(Etcd::new(address)?)),
            },
            Self::ZooKeeper(address) => {
                let ensemble = Ensemble::ZooKeeper { address: address.clone(), timeout: SESSION };
                Ok(Arc::new(ZooKeeper::new(ensemble)))
            }
        }
    }
}

/// Why a place cannot be used as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// An address is none.
    #[error("{address:?} is no address, expected {expected}")]
    Address {
        /// What was given.
        address: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// A file for TLS cannot be used.
    #[error("{}: {reason}, expected {expected}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// What was given for TLS does not suffice.
    #[error("TLS: {0}")]
    Tls(String),
    /// The token, which is not shown.
    #[error("the token has characters that no token may have, expected printable ASCII")]
    Token,
}

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// By TLS.
    Https,
}

/// A Consul agent. `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq)]
pub struct ConsulAddress {
    /// `host:port` or `unix://PATH`.
    pub address: String,
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Shown with every request, as `X-Consul-Token`.
    pub token: Option<String>,
    /// With [`Scheme::Https`].
    pub tls: TlsFiles,
}

impl fmt::Debug for ConsulAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, scheme, token: _, tls } = self;
        f.debug_struct("ConsulAddress")
            .field("address", address)
            .field("scheme", scheme)
            .field("tls", tls)
            .finish_non_exhaustive()
    }
}

/// Who is believed to be a server, and as whom a client presents itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the authorities that sign certificates of servers; those of the system when none.
    pub ca: Option<PathBuf>,
    /// PEM file with the own certificate.
    pub certificate: Option<PathBuf>,
    /// PEM file with the key of the own certificate.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate is made out to, when it is not the host's.
    pub server_name: Option<String>,
    /// Whether the server's certificate is looked at, at all.
    pub verify: bool,
}

impl Default for TlsFiles {
    fn default() -> Self {
        Self { ca: None, certificate: None, key: None, server_name: None, verify: true }
    }
}

/// Which of etcd's two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EtcdVersion {
    /// The v2 keys, as ContainerPilot wrote them.
    V2,
    /// The v3 API, with leases.
    #[default]
    V3,
}

/// An etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdAddress {
    /// URLs of its servers.
    pub endpoints: Vec<String>,
    /// What the keys begin with.
    pub prefix: String,
    /// Which of its ways.
    pub version: EtcdVersion,
    /// With `https` endpoints.
    pub tls: TlsFiles,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consul(address: &str, token: &str) -> Place {
        Place::Consul(ConsulAddress {
            address: address.to_owned(),
            scheme: Scheme::Http,
            token: Some(token.to_owned()),
            tls: TlsFiles::default(),
        })
    }

    fn etcd(endpoints: &[&str], prefix: &str) -> Place {
        Place::Etcd(EtcdAddress {
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            prefix: prefix.to_owned(),
            version: EtcdVersion::V3,
            tls: TlsFiles::default(),
        })
    }

    #[test]
    fn a_store_is_the_same_whatever_leads_to_it() {
        let zookeeper = |address: &str| Place::ZooKeeper(address.parse().unwrap());
        for (one, other, is_same) in [
            (consul("a:1", "x"), consul("a:1", "y"), true),
            (consul("a:1", "x"), consul("b:1", "x"), false),
            (etcd(&["http://a:1", "http://b:1"], "/p"), etcd(&["http://b:1"], "/p"), true),
            (etcd(&["http://a:1"], "/p"), etcd(&["http://b:1"], "/p"), false),
            (etcd(&["http://a:1"], "/p"), etcd(&["http://a:1"], "/q"), false),
            (zookeeper("zk://a:1/x"), zookeeper("zk://a:1/x"), true),
            (zookeeper("zk://a:1/x"), zookeeper("zk://a:1/y"), false),
            (consul("a:1", "x"), etcd(&["http://a:1"], "/p"), false),
        ] {
            assert_eq!(one.is_same_store(&other), is_same, "{one:?} {other:?}");
        }
    }
}
