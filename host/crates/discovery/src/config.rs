//! Type and address of a service registry, as configured.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use ochopod_store::{StoreBackend, ZooKeeperAddress};

use super::{Consul, Fingerprint, Registry, ZooKeeper, credentials::CredentialsFile, http_client::HttpClient, tls};

/// Time for which instances in ZooKeeper outlive their host: the default session timeout of pods, too.
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Configuration of a service registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryConfig {
    /// A Consul agent.
    Consul(ConsulAddress),
    /// An etcd cluster.
    Etcd(EtcdAddress),
    /// A ZooKeeper ensemble.
    ZooKeeper(ZooKeeperAddress),
}

impl RegistryConfig {
    /// Returns whether both name the same registry: they differ at most in how it is reached, and each client may remove what the
    /// other one registered.
    #[must_use]
    pub fn is_same_registry(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Consul(one), Self::Consul(other)) => one.address == other.address,
            (Self::Etcd(one), Self::Etcd(other)) => {
                let shared = one.endpoints.iter().any(|endpoint| other.endpoints.contains(endpoint));
                shared && (&one.prefix, one.version) == (&other.prefix, other.version)
            }
            (Self::ZooKeeper(one), Self::ZooKeeper(other)) => {
                let shared = one.servers().iter().any(|server| other.servers().contains(server));
                // Nodes are removed with the credentials that created them.
                shared && (one.chroot(), one.credentials()) == (other.chroot(), other.credentials())
            }
            _ => false,
        }
    }

    /// Creates a client of the registry. It sends nothing yet, but reads files.
    ///
    /// # Errors
    /// If part of the configuration is invalid, or this build does not support the registry.
    pub fn open(&self) -> Result<Arc<dyn Registry>, RegistryConfigError> {
        match self {
            Self::Consul(address) => Ok(Arc::new(Consul::new(address)?)),
            Self::Etcd(address) => open_etcd(address),
            Self::ZooKeeper(address) => {
                let backend = StoreBackend::zookeeper(address.clone(), SESSION_TIMEOUT);
                Ok(Arc::new(ZooKeeper::new(backend)))
            }
        }
    }

    /// Returns it with the fingerprints of the files that its client reads, so that a later one differs if the files do. Reads
    /// them; one that cannot be read counts as none.
    #[must_use]
    pub fn with_fingerprints(mut self) -> Self {
        match &mut self {
            Self::Consul(ConsulAddress { scheme, tls, .. }) if *scheme == Scheme::Https => tls.fingerprint(),
            Self::Etcd(EtcdAddress { endpoints, tls, credentials, credentials_fingerprint, .. }) => {
                if is_secure(endpoints) {
                    tls.fingerprint();
                }
                *credentials_fingerprint = Fingerprint::of([credentials.as_deref()]);
            }
            Self::Consul(_) | Self::ZooKeeper(_) => {}
        }
        self
    }

    /// Returns everything that is invalid in the configuration. Reads files for that.
    #[must_use]
    pub fn errors(&self) -> Vec<(Part, RegistryConfigError)> {
        match self {
            Self::Consul(ConsulAddress { address, scheme, token, tls }) => {
                let token = token.as_deref().and_then(|token| super::consul::token(token).err());
                let address = HttpClient::new(Scheme::Http, address, &TlsFiles::default()).err();
                let is_secure = *scheme == Scheme::Https;
                let mut errors: Vec<_> = address.map(|error| (Part::Address, error)).into_iter().collect();
                errors.extend(token.map(|error| (Part::Token, error)));
                errors.extend(is_secure.then(|| tls::errors(tls)).into_iter().flatten());
                // For errors of no single part, such as the name of the server.
                if errors.is_empty()
                    && let Self::Consul(address) = self
                    && let Err(error) = Consul::new(address)
                {
                    errors.push((Part::Address, error));
                }
                errors
            }
            Self::Etcd(EtcdAddress { endpoints, tls, credentials, .. }) => {
                let credentials = credentials.as_deref().and_then(|path| CredentialsFile::new(path).err());
                let is_secure = is_secure(endpoints);
                let mut errors: Vec<_> = credentials.map(|error| (Part::Credentials, error)).into_iter().collect();
                errors.extend(is_secure.then(|| tls::errors(tls)).into_iter().flatten());
                if errors.is_empty()
                    && let Err(error) = self.open()
                {
                    errors.push((Part::Address, error));
                }
                errors
            }
            Self::ZooKeeper(_) => Vec::new(),
        }
    }
}

fn is_secure(endpoints: &[String]) -> bool {
    endpoints.iter().any(|endpoint| endpoint.starts_with("https:"))
}

#[cfg(feature = "etcd")]
fn open_etcd(address: &EtcdAddress) -> Result<Arc<dyn Registry>, RegistryConfigError> {
    use super::{Etcd, EtcdV2};
    match address.version {
        EtcdVersion::V2 => Ok(Arc::new(EtcdV2::new(address)?)),
        EtcdVersion::V3 => Ok(Arc::new(Etcd::new(address)?)),
    }
}

#[cfg(not(feature = "etcd"))]
fn open_etcd(_: &EtcdAddress) -> Result<Arc<dyn Registry>, RegistryConfigError> {
    Err(RegistryConfigError::Unsupported("etcd"))
}

/// Part of a registry's configuration that an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Addresses of its servers.
    Address,
    /// The token.
    Token,
    /// The file with a user's name and password.
    Credentials,
    /// The name that the server's certificate must be issued for.
    ServerName,
    /// The file with CA certificates.
    Ca,
    /// The file with the client certificate.
    Certificate,
    /// The file with its key.
    Key,
    /// A certificate without a key, or a key without a certificate.
    Pair,
}

/// Error in the configuration of a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryConfigError {
    /// An address is invalid.
    #[error("invalid address {address:?}: expected {expected}")]
    Address {
        /// Its text.
        address: String,
        /// Its expected form.
        expected: &'static str,
    },
    /// A file cannot be used.
    #[error("{}: {reason}, expected {expected}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Cause.
        reason: String,
        /// Its expected content.
        expected: &'static str,
    },
    /// The TLS settings are incomplete.
    #[error("TLS: {0}")]
    Tls(String),
    /// The token, which is not shown.
    #[error("invalid token: expected printable ASCII")]
    Token,
    /// This build cannot use the registry.
    #[error("{0} not supported by this build: expected a build with the feature {0}")]
    Unsupported(&'static str),
}

/// Scheme of a server's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// HTTP without TLS.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
}

/// A Consul agent. `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq)]
pub struct ConsulAddress {
    /// `host:port` or `unix://PATH`.
    pub address: String,
    /// Scheme of the agent.
    pub scheme: Scheme,
    /// Sent with every request, as `X-Consul-Token`.
    pub token: Option<String>,
    /// TLS files, for [`Scheme::Https`].
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

/// Files that verify servers and identify the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the CA certificates of servers; those of the system if not set.
    pub ca: Option<PathBuf>,
    /// PEM file with the client certificate.
    pub certificate: Option<PathBuf>,
    /// PEM file with the key of the client certificate.
    pub key: Option<PathBuf>,
    /// Name that the server's certificate is issued for, if not the host.
    pub server_name: Option<String>,
    /// Whether the server's certificate is verified.
    pub verify: bool,
    /// Content of the files, if it was read: see [`RegistryConfig::with_fingerprints`].
    pub fingerprint: Fingerprint,
}

impl TlsFiles {
    fn fingerprint(&mut self) {
        let Self { ca, certificate, key, .. } = &*self;
        self.fingerprint = Fingerprint::of([ca, certificate, key].map(Option::as_deref));
    }
}

impl Default for TlsFiles {
    fn default() -> Self {
        let fingerprint = Fingerprint::default();
        Self { ca: None, certificate: None, key: None, server_name: None, verify: true, fingerprint }
    }
}

/// API of etcd.
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
    /// Prefix of all keys.
    pub prefix: String,
    /// API to use.
    pub version: EtcdVersion,
    /// TLS files, for `https` endpoints.
    pub tls: TlsFiles,
    /// File with a user's name and password, `user:password`.
    pub credentials: Option<PathBuf>,
    /// Its content, if it was read: see [`RegistryConfig::with_fingerprints`].
    pub credentials_fingerprint: Fingerprint,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consul(address: &str, token: &str) -> RegistryConfig {
        RegistryConfig::Consul(ConsulAddress {
            address: address.to_owned(),
            scheme: Scheme::Http,
            token: Some(token.to_owned()),
            tls: TlsFiles::default(),
        })
    }

    fn etcd(endpoints: &[&str], prefix: &str) -> RegistryConfig {
        RegistryConfig::Etcd(EtcdAddress {
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            prefix: prefix.to_owned(),
            version: EtcdVersion::V3,
            tls: TlsFiles::default(),
            credentials: None,
            credentials_fingerprint: Fingerprint::default(),
        })
    }

    #[cfg(not(feature = "etcd"))]
    #[test]
    fn etcd_is_a_configuration_error_without_its_feature() {
        let config = etcd(&["http://a:1"], "/p");
        let error = RegistryConfigError::Unsupported("etcd");
        assert_eq!(config.errors(), [(Part::Address, error.clone())]);
        assert_eq!(config.open().err(), Some(error));
    }

    #[test]
    fn registry_is_the_same_whatever_way_it_is_reached() {
        let zookeeper = |address: &str| RegistryConfig::ZooKeeper(address.parse().unwrap());
        let strict = |address: &str| {
            let address: ZooKeeperAddress = address.parse().unwrap();
            RegistryConfig::ZooKeeper(address.strict(true))
        };
        for (one, other, is_same) in [
            (consul("a:1", "x"), consul("a:1", "y"), true),
            (consul("a:1", "x"), consul("b:1", "x"), false),
            (etcd(&["http://a:1", "http://b:1"], "/p"), etcd(&["http://b:1"], "/p"), true),
            (etcd(&["http://a:1"], "/p"), etcd(&["http://b:1"], "/p"), false),
            (etcd(&["http://a:1"], "/p"), etcd(&["http://a:1"], "/q"), false),
            (zookeeper("zk://a:1/x"), zookeeper("zk://a:1/x"), true),
            (zookeeper("zk://a:1,b:1/x"), zookeeper("zk://b:1/x"), true),
            (zookeeper("zk://a:1/x"), zookeeper("zk://b:1/x"), false),
            (zookeeper("zk://a:1/x"), zookeeper("zk://a:1/y"), false),
            (zookeeper("zk://a:1/x"), zookeeper("zk://a:1"), false),
            (zookeeper("zk://u:p@a:1/x"), zookeeper("zk://u:p@a:1/x"), true),
            (zookeeper("zk://u:p@a:1/x"), zookeeper("zk://u:q@a:1/x"), false),
            (zookeeper("zk://a:1/x"), strict("zk://a:1/x"), true),
            (consul("a:1", "x"), etcd(&["http://a:1"], "/p"), false),
        ] {
            assert_eq!(one.is_same_registry(&other), is_same, "{one:?} {other:?}");
        }
    }

    #[test]
    fn registry_with_other_files_is_the_same_but_not_equal() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let tls = || TlsFiles {
            ca: Some(file("ca")),
            certificate: Some(file("certificate")),
            key: Some(file("key")),
            ..TlsFiles::default()
        };
        let with_files = |config: RegistryConfig, url: &str| match config {
            RegistryConfig::Consul(address) if url.starts_with("https:") => {
                RegistryConfig::Consul(ConsulAddress { scheme: Scheme::Https, tls: tls(), ..address })
            }
            RegistryConfig::Consul(address) => RegistryConfig::Consul(ConsulAddress { tls: tls(), ..address }),
            RegistryConfig::Etcd(address) => {
                RegistryConfig::Etcd(EtcdAddress { tls: tls(), credentials: Some(file("credentials")), ..address })
            }
            RegistryConfig::ZooKeeper(address) => RegistryConfig::ZooKeeper(address),
        };
        let files = ["ca", "certificate", "key", "credentials"];
        for (config, url, used) in [
            (consul("a:1", "x"), "https://a:1", &files[..3]),
            (consul("a:1", "x"), "http://a:1", &[]),
            (etcd(&["http://b:1", "https://a:1"], "/p"), "", &files),
            (etcd(&["http://a:1"], "/p"), "", &files[3..]),
        ] {
            let config = with_files(config, url);
            for name in files {
                std::fs::write(file(name), "one").unwrap();
            }
            let read = || config.clone().with_fingerprints();
            for name in files {
                let before = read();
                assert_eq!(before, read());
                std::fs::write(file(name), "another").unwrap();
                assert_eq!(before != read(), used.contains(&name), "{name}: {config:?}");
                std::fs::remove_file(file(name)).unwrap();
                assert_eq!(before != read(), used.contains(&name), "{name} removed: {config:?}");
                assert!(before.is_same_registry(&read()));
            }
        }
    }
}
