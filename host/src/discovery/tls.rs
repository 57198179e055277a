//! TLS with the servers of a place.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{OpenError, TlsFiles};
use crate::settings::pem::{self, PemError};

/// What is made of the files, which are read now.
pub(super) fn config(files: &TlsFiles) -> Result<ClientConfig, OpenError> {
    let unusable = |error: Error| OpenError::Tls(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
    let builder = if files.verify {
        builder.with_root_certificates(roots(files.ca.as_deref())?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    };
    match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => {
            let chain = pem::certificates(certificate).map_err(unread(certificate, "PEM certificates"))?;
            let key = pem::private_key(key).map_err(unread(key, "a PEM private key, not encrypted"))?;
            let expected = "the certificate of the key";
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| unread(certificate, expected)(PemError::Certificate(error)))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(path), None) => Err(alone(path, "certificate", "key")),
        (None, Some(path)) => Err(alone(path, "key", "certificate")),
    }
}

/// Those who sign certificates of servers.
fn roots(file: Option<&Path>) -> Result<RootCertStore, OpenError> {
    if let Some(file) = file {
        let certificates = pem::certificates(file);
        return certificates.and_then(|found| pem::roots(&found)).map_err(unread(file, "PEM certificates"));
    }
    let mut roots = RootCertStore::empty();
    // Systems have some that are outdated or odd: they are not missed.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(OpenError::Tls("this system has no certificates of authorities: name a file with some".to_owned()));
    }
    Ok(roots)
}

fn unread(path: &Path, expected: &'static str) -> impl FnOnce(PemError) -> OpenError {
    move |error| OpenError::File { path: path.to_owned(), reason: error.to_string(), expected }
}

fn alone(path: &Path, what: &str, other: &str) -> OpenError {
    OpenError::Tls(format!("there is a {what}, {}, but no {other}", path.display()))
}

/// Takes any certificate, whoever it is made out to.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
