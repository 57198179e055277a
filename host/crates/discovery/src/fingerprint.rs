//! Fingerprints of files whose content may change under the same path.

use std::{fmt, path::Path};

use ochopod_tls::pem;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};

/// Fingerprint of the content of files: equal if the content is. The default is that of no file. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprint(Option<[u8; SHA256_OUTPUT_LEN]>);

impl Fingerprint {
    /// Reads files. One that cannot be read counts as none.
    pub(super) fn of<const N: usize>(files: [Option<&Path>; N]) -> Self {
        let contents = files.map(|file| pem::content(file?).ok());
        if contents.iter().all(Option::is_none) {
            return Self::default();
        }
        let mut hasher = Context::new(&SHA256);
        for content in &contents {
            hasher.update(&[u8::from(content.is_some())]);
            if let Some(content) = content {
                hasher.update(digest(&SHA256, content).as_ref());
            }
        }
        Self(hasher.finish().as_ref().try_into().ok())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "(read)" } else { "(not read)" })
    }
}
