//! `tls`: who is believed to be a server, and as whom one comes.

use std::path::PathBuf;

use super::super::{
    field::{Field, Object},
    value::{boolean, some_text},
};
use crate::discovery::TlsFiles;

/// What is named, the rest as `otherwise` has it.
pub(super) fn tls(field: Field<'_, '_>, otherwise: TlsFiles) -> Option<TlsFiles> {
    field.object(|keys| {
        let ca = path(keys, "cafile").or(otherwise.ca);
        let certificate = path(keys, "clientcert").or(otherwise.certificate);
        let key = path(keys, "clientkey").or(otherwise.key);
        let server_name = keys.optional("servername", some_text).or(otherwise.server_name);
        let verify = keys.optional("verify", boolean).unwrap_or(otherwise.verify);
        match (&certificate, &key) {
            (Some(_), None) => keys.fail("clientkey", "is missing, expected the key of clientcert"),
            (None, Some(_)) => keys.fail("clientcert", "is missing, expected the certificate for clientkey"),
            _ => {}
        }
        Some(TlsFiles { ca, certificate, key, server_name, verify })
    })
}

fn path(keys: &mut Object<'_, '_>, key: &'static str) -> Option<PathBuf> {
    keys.optional(key, some_text).map(PathBuf::from)
}
