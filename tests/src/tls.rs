//! Certificates.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::Result;

/// Signs certificates. What it makes are PEM files in a directory.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
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
    /// When the directory cannot be written to.
    pub fn new(directory: &Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, uuid::Uuid::new_v4().to_string());
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        fs::create_dir_all(directory)?;
        fs::write(directory.join("authority.pem"), issuer.pem())?;
        Ok(Self { issuer, directory: directory.to_owned() })
    }

    /// File with its own certificate: what whoever trusts it is given.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("authority.pem")
    }

    /// A certificate for these hosts, by name or address, in files of that name.
    ///
    /// # Errors
    /// When the directory cannot be written to.
    pub fn certify(&self, name: &str, hosts: &[&str]) -> Result<Certified> {
        let mut params = CertificateParams::new(hosts.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let file = |kind: &str| self.directory.join(format!("{name}.{kind}.pem"));
        let certified = Certified { certificate: file("certificate"), key: file("key") };
        fs::write(&certified.certificate, params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(&certified.key, key.serialize_pem())?;
        Ok(certified)
    }
}
