//! `etcd`.

use hyper::Uri;

use super::{
    super::{
        field::Field,
        json5::Value,
        value::{one_of, some_text},
    },
    tls::tls,
};
use crate::discovery::{EtcdAddress, EtcdVersion, TlsFiles};

const PREFIX: &str = "/containerpilot";
const VERSIONS: [(&str, EtcdVersion); 2] = [("2", EtcdVersion::V2), ("3", EtcdVersion::V3)];
const URL: &str = "a URL like \"http://etcd:2379\"";

pub(super) fn etcd(field: Field<'_, '_>) -> Option<EtcdAddress> {
    field.object(|keys| {
        let endpoints = keys.required("endpoints", endpoints);
        let prefix = keys.optional("prefix", some_text);
        let version = keys.optional("version", |field| one_of(field, "a version", str::eq, &VERSIONS));
        let tls = keys.optional("tls", |field| tls(field, TlsFiles::default()));
        Some(EtcdAddress {
            endpoints: endpoints?,
            prefix: prefix.as_deref().unwrap_or(PREFIX).trim_end_matches('/').to_owned(),
            version: version.unwrap_or_default(),
            tls: tls.unwrap_or_default(),
        })
    })
}

fn endpoints(field: Field<'_, '_>) -> Option<Vec<String>> {
    match field.value() {
        Value::Text(_) => endpoint(field).map(|endpoint| vec![endpoint]),
        Value::List(items) if !items.is_empty() => field.list(URL, endpoint),
        _ => field.refuse(format_args!("{URL}, or a list of such")),
    }
}

fn endpoint(field: Field<'_, '_>) -> Option<String> {
    let text = field.as_text().unwrap_or_default().trim_end_matches('/');
    if text.contains('@') {
        return field.fail(format_args!("has credentials in it, expected {URL}, without"));
    }
    let fits = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.query().is_none();
    let url = text.parse().ok().filter(fits).map(|_| text.to_owned());
    field.judge(url, URL)
}
