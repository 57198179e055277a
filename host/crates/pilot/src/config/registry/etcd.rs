//! `etcd`: the endpoints of an etcd cluster.

use std::path::PathBuf;

use ochopod_discovery::{EtcdAddress, EtcdVersion, Fingerprint, Part, RegistryConfig, TlsFiles, is_endpoint};
use ochopod_json5::Value;

use super::{
    super::{
        field::Field,
        read::ReadContext,
        value::{non_empty_text, one_of},
    },
    diagnostic,
    tls::tls,
};

const PREFIX: &str = "/containerpilot";
const VERSIONS: [(&str, EtcdVersion); 2] = [("2", EtcdVersion::V2), ("3", EtcdVersion::V3)];
const URL: &str = "a URL like \"http://etcd:2379\"";

pub(super) fn etcd(field: Field<'_, '_>, context: &ReadContext<'_>) -> Option<EtcdAddress> {
    field.object(|keys| {
        let endpoints = keys.required("endpoints", endpoints);
        let prefix = keys.optional("prefix", non_empty_text);
        let version = keys.optional("version", |field| one_of(field, "a version", str::eq, &VERSIONS));
        let tls = keys.optional("tls", |field| tls(field, TlsFiles::default()));
        let credentials = keys.optional("credentials", non_empty_text).map(PathBuf::from);
        // Files are checked even if the endpoints are invalid.
        let etcd = EtcdAddress {
            endpoints: endpoints.clone().unwrap_or_default(),
            prefix: prefix.as_deref().unwrap_or(PREFIX).trim_end_matches('/').to_owned(),
            version: version.unwrap_or_default(),
            tls: tls.unwrap_or_default(),
            credentials,
            credentials_fingerprint: Fingerprint::default(),
        };
        let mut errors = (context.check)(&RegistryConfig::Etcd(etcd.clone()));
        errors.retain(|(part, _)| endpoints.is_some() || *part != Part::Address);
        diagnostic::etcd(keys, &errors);
        endpoints.map(|_| etcd)
    })
}

fn endpoints(field: Field<'_, '_>) -> Option<Vec<String>> {
    match field.value() {
        Value::Text(_) => endpoint(field).map(|endpoint| vec![endpoint]),
        Value::List(items) if !items.is_empty() => field.list(URL, endpoint),
        _ => field.invalid(format_args!("{URL}, or a list of URLs")),
    }
}

fn endpoint(field: Field<'_, '_>) -> Option<String> {
    let text = field.as_text().unwrap_or_default().trim_end_matches('/');
    if text.contains('@') {
        return field.error(format_args!("credentials in the URL, expected {URL} and a file in credentials"));
    }
    field.require(is_endpoint(text).then(|| text.to_owned()), URL)
}
