//! Certificates.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::Result;

/// Signs certificates. What it makes are PEM files, which go with it.
#[derive(Debug)]
pub struct CertificateAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// File with the certificate.
    pub certificate: PathBuf,
    /// File with the key.
    pub key: PathBuf,
}

impl CertificateAuthority {
    /// Creates an authority that no client trusts yet.
    ///
    /// # Errors
    /// If no directory can be made.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, uuid::Uuid::new_v4().to_string());
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let directory = tempfile::Builder::new().prefix("ochopod-authority-").tempdir()?;
        fs::write(directory.path().join("authority.pem"), issuer.pem())?;
        Ok(Self { issuer, directory })
    }

    /// Returns the file with its own certificate, for clients that trust it.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// Creates a certificate for these hosts, by name or address, in files of that name.
    ///
    /// # Errors
    /// If the directory cannot be written to.
    pub fn certify(&self, name: &str, hosts: &[&str]) -> Result<CertificateFiles> {
        let mut params = CertificateParams::new(hosts.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let file = |kind: &str| self.directory.path().join(format!("{name}.{kind}.pem"));
        let certified = CertificateFiles { certificate: file("certificate"), key: file("key") };
        fs::write(&certified.certificate, params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(&certified.key, key.serialize_pem())?;
        Ok(certified)
    }
}

/// Returns a server's side of TLS. With an authority, clients need a certificate of it.
pub(crate) fn acceptor(certified: &CertificateFiles, clients: Option<&CertificateAuthority>) -> Result<TlsAcceptor> {
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(authority.certificate())?)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            config.with_client_cert_verifier(verifier.context("no verifier")?)
        }
    };
    let chain = vec![CertificateDer::from_pem_file(&certified.certificate)?];
    let config = config.with_single_cert(chain, PrivateKeyDer::from_pem_file(&certified.key)?)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
