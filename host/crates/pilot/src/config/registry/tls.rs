//! `tls`: certificates that verify the server, and the client's certificate.

use std::path::PathBuf;

use ochopod_discovery::TlsFiles;

use super::super::{
    field::{Field, Object},
    value::{boolean, non_empty_text},
};

/// Reads the TLS files, with missing ones from `defaults`.
pub(super) fn tls(field: Field<'_, '_>, defaults: TlsFiles) -> Option<TlsFiles> {
    field.object(|keys| {
        let ca = path(keys, "cafile").or(defaults.ca);
        let certificate = path(keys, "clientcert").or(defaults.certificate);
        let key = path(keys, "clientkey").or(defaults.key);
        let server_name = keys.optional("servername", non_empty_text).or(defaults.server_name);
        let verify = keys.optional("verify", boolean).unwrap_or(defaults.verify);
        match (&certificate, &key) {
            (Some(_), None) => keys.error("clientkey", "missing, expected the key of clientcert"),
            (None, Some(_)) => keys.error("clientcert", "missing, expected the certificate for clientkey"),
            _ => {}
        }
        Some(TlsFiles { ca, certificate, key, server_name, verify, ..defaults })
    })
}

fn path(keys: &mut Object<'_, '_>, key: &'static str) -> Option<PathBuf> {
    keys.optional(key, non_empty_text).map(PathBuf::from)
}
