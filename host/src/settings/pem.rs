//! Files with secrets, certificates and keys.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// Most bytes of such a file.
const LIMIT: u64 = 1024 * 1024;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PemError {
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error("it is too large")]
    Large,
    #[error("{0}")]
    Malformed(String),
    #[error("there is none in it")]
    Empty,
    #[error("{0}")]
    Certificate(#[from] rustls::Error),
}

/// A file's content.
pub(super) fn content(path: &Path) -> Result<Vec<u8>, PemError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT { Err(PemError::Large) } else { Ok(bytes) }
}

/// The text in a file.
pub(super) fn text(path: &Path) -> Result<String, PemError> {
    String::from_utf8(content(path)?).map_err(|_| PemError::Malformed("it is not text".to_owned()))
}

/// Whether others than owner and group may read a file.
pub(super) fn is_exposed(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// The certificates in a file, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let bytes = content(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| PemError::Malformed(error.to_string()))?;
    if found.is_empty() { Err(PemError::Empty) } else { Ok(found) }
}

/// The first private key in a file: PKCS 8, PKCS 1 or SEC 1, not encrypted.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let bytes = content(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => PemError::Empty,
        error => PemError::Malformed(error.to_string()),
    })
}

/// Certificates as those that are trusted.
pub(crate) fn roots(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone())?;
    }
    Ok(roots)
}
