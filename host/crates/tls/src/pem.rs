//! Files with secrets, certificates and keys.

use std::{io, os::unix::fs::PermissionsExt as _, path::Path};

use ochopod_files as files;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// Maximum size of such a file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Error of a file.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// The file is too large.
    #[error("file too large")]
    Large,
    /// The content is malformed.
    #[error("{0}")]
    Malformed(String),
    /// The file contains no such item.
    #[error("no PEM block found")]
    Empty,
    /// The certificates or the key cannot be used.
    #[error("{0}")]
    Certificate(#[from] rustls::Error),
}

/// Reads a file.
///
/// # Errors
/// If it cannot be read or is too large.
pub fn content(path: &Path) -> Result<Vec<u8>, PemError> {
    files::read(path, MAX_FILE_BYTES).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => PemError::Large,
        _ => PemError::Read(error),
    })
}

/// Reads a text file.
///
/// # Errors
/// If it cannot be read, is too large or is not UTF-8.
pub fn text(path: &Path) -> Result<String, PemError> {
    String::from_utf8(content(path)?).map_err(|_| PemError::Malformed("not valid UTF-8".to_owned()))
}

/// Returns whether a file is world-readable.
#[must_use]
pub fn is_exposed(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// Reads the certificates in a file, at least one.
///
/// # Errors
/// If it cannot be read, or contains none or malformed ones.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let bytes = content(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| PemError::Malformed(error.to_string()))?;
    if found.is_empty() { Err(PemError::Empty) } else { Ok(found) }
}

/// Reads the first private key in a file: PKCS 8, PKCS 1 or SEC 1, not encrypted.
///
/// # Errors
/// If it cannot be read, or contains none or a malformed one.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let bytes = content(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => PemError::Empty,
        error => PemError::Malformed(error.to_string()),
    })
}

/// Returns a store that trusts these certificates.
///
/// # Errors
/// If one of them cannot be used.
pub fn roots(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone())?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipe_is_rejected_without_waiting_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("token");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(content(&pipe).unwrap_err().to_string(), "not a regular file but a pipe");
        assert!(!is_exposed(&pipe));
    }
}
