//! Certificates.

use std::{fs, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::Result;

/// Signs certificates. What it makes are PEM files, which go with it.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Certified {
    /// File with the certificate.
    pub certificate: PathBuf,
    /// File with the key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one, which nobody trusts yet.
    ///
    /// # Errors
    /// When no directory can be made.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, uuid::Uuid::new_v4().to_string());
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let directory = tempfile::Builder::new().prefix("ochopod-authority-").tempdir()?;
        fs::write(directory.path().join("authority.pem"), issuer.pem())?;
        Ok(Self { issuer, directory })
    }

    /// File with its own certificate: what whoever trusts it is given.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// A certificate for these hosts, by name or address, in files of that name.
    ///
    /// # Errors
    /// When the directory cannot be written to.
    pub fn certify(&self, name: &str, hosts: &[&str]) -> Result<Certified> {
        let mut params = CertificateParams::new(hosts.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let file = |kind: &str| self.directory.path().join(format!("{name}.{kind}.pem"));
        let certified = Certified { certificate: file("certificate"), key: file("key") };
        fs::write(&certified.certificate, params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(&certified.key, key.serialize_pem())?;
        Ok(certified)
    }
}
