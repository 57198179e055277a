//! Certificates of a pod, and the TLS configurations that use them.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};

use crate::{
    peer_name::PeerVerifier,
    pem::{self, PemError},
};

/// Certificate chain and key that a pod presents.
pub struct TlsIdentity {
    /// Certificate chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Private key of the leaf.
    pub key: PrivateKeyDer<'static>,
}

impl TlsIdentity {
    /// Returns the configurations of server and client. Without a CA, a leader trusts the certificates in the pods' own
    /// file: the certificate itself if it is self-signed and all pods have it, else those that signed it.
    ///
    /// # Errors
    /// If certificates or key cannot be used.
    pub fn configure(
        &self,
        ca: Option<&[CertificateDer<'static>]>,
    ) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>), PemError> {
        let trusted = Arc::new(pem::roots(ca.unwrap_or(&self.chain))?);
        let server = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let server = match ca {
            Some(_) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&trusted), provider()).build();
                server.with_client_cert_verifier(verifier.map_err(|error| PemError::Malformed(error.to_string()))?)
            }
            None => server.with_no_client_auth(),
        };
        let server = server.with_single_cert(self.chain.clone(), self.key.clone_key())?;
        let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let client = client
            .dangerous()
            .with_custom_certificate_verifier(PeerVerifier::new(trusted, provider())?)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        Ok((Arc::new(server), Arc::new(client)))
    }
}

/// Returns a client configuration that trusts no certificate, for pods that do not use TLS.
///
/// # Errors
/// If no TLS client can be configured.
pub fn plain_client() -> Result<Arc<ClientConfig>, rustls::Error> {
    let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(Arc::new(client.with_root_certificates(RootCertStore::empty()).with_no_client_auth()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
