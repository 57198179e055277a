//! TLS with the servers of a registry.

use std::{path::Path, sync::Arc};

use ochopod_tls::{pem, pem::PemError};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{Part, RegistryConfigError, TlsFiles};

const CERTIFICATES: &str = "PEM certificates";
const KEY: &str = "a PEM private key, not encrypted";
/// Expected form of a server's name.
pub(super) const SERVER_NAME: &str = "the name of a server";

/// Builds the TLS configuration. Reads the files now.
pub(super) fn config(files: &TlsFiles) -> Result<ClientConfig, RegistryConfigError> {
    let unusable = |error: Error| RegistryConfigError::Tls(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
    let builder = if files.verify {
        builder.with_root_certificates(roots(files.ca.as_deref())?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAnyServerCert(provider)))
    };
    match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => {
            let chain = pem::certificates(certificate).map_err(file_error(certificate, CERTIFICATES))?;
            let key = pem::private_key(key).map_err(file_error(key, KEY))?;
            let expected = "the certificate of the key";
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| file_error(certificate, expected)(PemError::Certificate(error)))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(path), None) => Err(missing_counterpart(path, "certificate", "key")),
        (None, Some(path)) => Err(missing_counterpart(path, "key", "certificate")),
    }
}

/// Returns everything that is invalid in the files.
pub(super) fn errors(files: &TlsFiles) -> Vec<(Part, RegistryConfigError)> {
    let TlsFiles { ca, certificate, key, server_name, verify, .. } = files;
    let ca = if *verify { roots(ca.as_deref()).err() } else { None };
    let chain =
        certificate.as_deref().and_then(|path| pem::certificates(path).map_err(file_error(path, CERTIFICATES)).err());
    let own_key = key.as_deref().and_then(|path| pem::private_key(path).map_err(file_error(path, KEY)).err());
    let name = server_name.as_ref().filter(|name| ServerName::try_from(name.as_str()).is_err());
    let name = name.map(|name| RegistryConfigError::Address { address: name.clone(), expected: SERVER_NAME });
    let found = [(Part::Ca, ca), (Part::Certificate, chain), (Part::Key, own_key), (Part::ServerName, name)];
    let mut errors: Vec<_> = found.into_iter().filter_map(|(part, error)| Some((part, error?))).collect();
    if errors.is_empty()
        && let Err(error) = config(files)
    {
        let is_pair = certificate.is_some() == key.is_some();
        errors.push((if is_pair { Part::Certificate } else { Part::Pair }, error));
    }
    errors
}

/// Loads the CA certificates of servers.
fn roots(file: Option<&Path>) -> Result<RootCertStore, RegistryConfigError> {
    if let Some(file) = file {
        let certificates = pem::certificates(file);
        return certificates.and_then(|found| pem::roots(&found)).map_err(file_error(file, CERTIFICATES));
    }
    let mut roots = RootCertStore::empty();
    // Systems have some that are outdated or odd: they are not missed.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(RegistryConfigError::Tls("system without CA certificates: set a CA file".to_owned()));
    }
    Ok(roots)
}

fn file_error(path: &Path, expected: &'static str) -> impl FnOnce(PemError) -> RegistryConfigError {
    move |error| RegistryConfigError::File { path: path.to_owned(), reason: error.to_string(), expected }
}

fn missing_counterpart(path: &Path, what: &str, other: &str) -> RegistryConfigError {
    RegistryConfigError::Tls(format!("{what} {} without {other}", path.display()))
}

/// Accepts any certificate of a server.
#[derive(Debug)]
struct AcceptAnyServerCert(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyServerCert {
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
