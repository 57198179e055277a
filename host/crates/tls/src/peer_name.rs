//! Verification of the certificates of peers.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::pem::PemError;

/// Name that a certificate may be issued for instead of an address, which pods get when they start.
const ANY_POD_NAME: &str = "ochopod";

/// Accepts a certificate that is signed by a trusted one, and issued for the peer's address or for the name `ochopod`.
#[derive(Debug)]
pub(crate) struct PeerVerifier(Arc<WebPkiServerVerifier>);

impl PeerVerifier {
    pub(crate) fn new(roots: Arc<RootCertStore>, provider: Arc<CryptoProvider>) -> Result<Arc<Self>, PemError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        Ok(Arc::new(Self(verifier.map_err(|error| PemError::Malformed(error.to_string()))?)))
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify =
            |name: &ServerName<'_>| self.0.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        verify(server_name).or_else(|error| {
            let any_pod = ServerName::try_from(ANY_POD_NAME).map_err(|_| error.clone())?;
            verify(&any_pod).map_err(|_| error)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
