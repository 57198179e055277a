//! TLS to the ensemble: who is believed to be a server, and as whom a pod presents itself.
//!
//! The client does the encrypting, but only says that it could not connect. Why not is found out by a handshake of one's own.

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

/// What is wrong with a certificate or a key. Never shows the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The authorities cannot be used.
    #[error("PEM with the certificates of authorities ({0})")]
    Authorities(String),
    /// The own certificate, or the key for it, cannot be used.
    #[error("PEM with a certificate and the key for it ({0})")]
    Identity(String),
}

/// Certificates for the connections to an ensemble, as PEM, known to be usable.
///
/// `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    authorities: String,
    identity: Option<Identity>,
}

#[derive(Clone, PartialEq, Eq)]
struct Identity {
    certificate: String,
    key: String,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Servers must have a certificate for their host, signed by one of these authorities.
    ///
    /// # Errors
    /// [`TlsError::Authorities`].
    pub fn new(authorities: String) -> Result<Self, TlsError> {
        let tls = Self { authorities, identity: None };
        tls.config()?;
        Ok(tls)
    }

    /// Presents this certificate (followed by those between it and its authority, if any) to servers.
    ///
    /// # Errors
    /// [`TlsError::Identity`].
    pub fn with_identity(mut self, certificate: String, key: String) -> Result<Self, TlsError> {
        self.identity = Some(Identity { certificate, key });
        self.config()?;
        Ok(self)
    }

    /// For the client, which takes the cryptography that was chosen for the process.
    pub(super) fn options(&self) -> Result<TlsOptions, CoordError> {
        let unusable = |error| CoordError::Unexpected(format!("the certificates: {error}"));
        let options = TlsOptions::new().with_pem_ca(&self.authorities).map_err(unusable)?;
        match &self.identity {
            Some(Identity { certificate, key }) => options.with_pem_identity(certificate, key).map_err(unusable),
            None => Ok(options),
        }
    }

    fn config(&self) -> Result<ClientConfig, TlsError> {
        let authorities = |reason: &dyn fmt::Display| TlsError::Authorities(reason.to_string());
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.authorities).map_err(|e| authorities(&e))? {
            roots.add(authority).map_err(|e| authorities(&e))?;
        }
        if roots.is_empty() {
            return Err(authorities(&"there is none"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| authorities(&e))?
            .with_root_certificates(roots);
        let Some(Identity { certificate, key }) = &self.identity else { return Ok(config.with_no_client_auth()) };
        let own = |reason: &dyn fmt::Display| TlsError::Identity(reason.to_string());
        let chain = certificates(certificate).map_err(|e| own(&e))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| own(&e))?;
        config.with_client_auth_cert(chain, key).map_err(|e| own(&e))
    }

    /// What keeps a server from being spoken with, if it is a matter of certificates.
    ///
    /// # Cancellation safety
    /// Dropping the future closes the connection.
    pub(super) async fn complaint(&self, servers: &[(String, u16)]) -> Option<String> {
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

/// What the certificate of a host must be for; none for what can have none.
pub(super) fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).ok()
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect()
}

fn reason(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "the server hung up: it does not seem to speak TLS there".to_owned();
    }
    error.to_string()
}
