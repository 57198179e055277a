//! TLS to the ensemble: accepted authorities and the certificate of the pod.
//!
//! The client encrypts, but reports no cause if it cannot connect. A handshake of our own finds the cause.

use std::{fmt, io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zookeeper_client::TlsOptions;

use super::CoordError;

/// Invalid certificate or key. Never shows the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZooKeeperTlsError {
    /// The certificates of the authorities are invalid.
    #[error("PEM CA certificates ({0})")]
    Authorities(String),
    /// The certificate of the pod, or its key, is invalid.
    #[error("PEM certificate and its key ({0})")]
    Identity(String),
}

/// Validated PEM certificates for the connections to an ensemble.
///
/// `Debug` shows none of them.
#[derive(Clone, PartialEq, Eq)]
pub struct ZooKeeperTls {
    authorities: String,
    identity: Option<ClientIdentity>,
}

#[derive(Clone, PartialEq, Eq)]
struct ClientIdentity {
    certificate: String,
    key: String,
}

impl fmt::Debug for ZooKeeperTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperTls").finish_non_exhaustive()
    }
}

impl ZooKeeperTls {
    /// Requires a certificate for the host of each server, signed by one of these authorities.
    ///
    /// # Errors
    /// [`ZooKeeperTlsError::Authorities`].
    pub fn new(authorities: String) -> Result<Self, ZooKeeperTlsError> {
        let tls = Self { authorities, identity: None };
        tls.config()?;
        Ok(tls)
    }

    /// Presents this certificate, followed by intermediate ones if any, to servers.
    ///
    /// # Errors
    /// [`ZooKeeperTlsError::Identity`].
    pub fn with_identity(mut self, certificate: String, key: String) -> Result<Self, ZooKeeperTlsError> {
        self.identity = Some(ClientIdentity { certificate, key });
        self.config()?;
        Ok(self)
    }

    /// Returns the options of the client, which uses the cryptography provider of the process.
    pub(super) fn options(&self) -> Result<TlsOptions, CoordError> {
        let unusable = |error| CoordError::Unexpected(format!("invalid certificates: {error}"));
        let options = TlsOptions::new().with_pem_ca(&self.authorities).map_err(unusable)?;
        match &self.identity {
            Some(ClientIdentity { certificate, key }) => options.with_pem_identity(certificate, key).map_err(unusable),
            None => Ok(options),
        }
    }

    fn config(&self) -> Result<ClientConfig, ZooKeeperTlsError> {
        let authorities = |reason: &dyn fmt::Display| ZooKeeperTlsError::Authorities(reason.to_string());
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.authorities).map_err(|e| authorities(&e))? {
            roots.add(authority).map_err(|e| authorities(&e))?;
        }
        if roots.is_empty() {
            return Err(authorities(&"no certificate found"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| authorities(&e))?
            .with_root_certificates(roots);
        let Some(ClientIdentity { certificate, key }) = &self.identity else { return Ok(config.with_no_client_auth()) };
        let own = |reason: &dyn fmt::Display| ZooKeeperTlsError::Identity(reason.to_string());
        let chain = certificates(certificate).map_err(|e| own(&e))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| own(&e))?;
        config.with_client_auth_cert(chain, key).map_err(|e| own(&e))
    }

    /// Returns the cause if the TLS handshake with a server fails.
    ///
    /// # Cancellation safety
    /// Dropping the future closes the connection.
    pub(super) async fn diagnose_handshake(&self, servers: &[(String, u16)]) -> Option<String> {
        let connector = TlsConnector::from(Arc::new(self.config().ok()?));
        for (host, port) in servers {
            let name = server_name(host)?;
            let Ok(stream) = TcpStream::connect((host.as_str(), *port)).await else { continue };
            if let Err(error) = connector.connect(name, stream).await {
                return Some(format!("TLS with {host}:{port}: {}", reason(&error)));
            }
        }
        None
    }
}

/// Returns the name that the certificate of a host must match; none if no certificate can match it.
pub(super) fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).ok()
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect()
}

fn reason(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "connection closed during the TLS handshake: is this a TLS port?".to_owned();
    }
    error.to_string()
}
