//! Whose certificates a leader takes for those of its peers.

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

use super::pem::PemError;

/// What a certificate may be made out to instead of an address: pods get theirs when they are started.
const ANY_POD: &str = "ochopod";

/// Takes a certificate that is signed as it should be, and made out to the peer's address or to the name `ochopod`.
#[derive(Debug)]
pub(super) struct PeerVerifier(Arc<WebPkiServerVerifier>);

impl PeerVerifier {
    pub(super) fn new(roots: Arc<RootCertStore>, provider: Arc<CryptoProvider>) -> Result<Arc<Self>, PemError> {
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
            let any_pod = ServerName::try_from(ANY_POD).map_err(|_| error.clone())?;
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
