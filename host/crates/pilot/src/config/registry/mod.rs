//! The service registry: `consul`, `etcd` or `zookeeper`.

mod consul;
mod diagnostic;
mod etcd;
mod tls;

use ochopod_discovery::RegistryConfig;
use ochopod_json5::Value;
use ochopod_store::ZooKeeperAddress;

use self::{consul::consul, etcd::etcd};
use super::{
    field::{Field, Object},
    read::ReadContext,
    value::boolean,
};

/// Reads the only registry that is defined, or returns the default. `None` after an error was recorded.
pub(super) fn registry(keys: &mut Object<'_, '_>, context: &ReadContext<'_>) -> Option<RegistryConfig> {
    let consul = keys.optional("consul", |field| consul(field, context)).map(RegistryConfig::Consul);
    let etcd = keys.optional("etcd", |field| etcd(field, context)).map(RegistryConfig::Etcd);
    let zookeeper = keys.optional("zookeeper", zookeeper).map(RegistryConfig::ZooKeeper);
    let named: Vec<&str> = ["consul", "etcd", "zookeeper"].into_iter().filter(|key| keys.has(key)).collect();
    match (&*named, &context.default_registry) {
        ([_], _) => consul.or(etcd).or(zookeeper),
        ([], Some(default)) => Some(default.clone()),
        ([], None) => {
            keys.add_error("No discovery backend defined, expected one of consul, etcd and zookeeper");
            None
        }
        _ => {
            let found: Vec<String> = named.iter().map(|key| format!("{key} at {}", keys.at(key))).collect();
            let found = found.join(", ");
            keys.add_error(&format!("More than one discovery backend defined, expected one: found {found}"));
            None
        }
    }
}

/// Reads an address, or an object of an address and whether to reject nodes that other clients may change.
fn zookeeper(field: Field<'_, '_>) -> Option<ZooKeeperAddress> {
    if !matches!(field.value(), Value::Object(_)) {
        return address(field);
    }
    field.object(|keys| {
        let address = keys.required("address", address);
        let strict = keys.optional("strict", boolean);
        Some(strict.into_iter().fold(address?, ZooKeeperAddress::strict))
    })
}

/// Reads an address. Errors do not repeat it, because it may contain credentials.
fn address(field: Field<'_, '_>) -> Option<ZooKeeperAddress> {
    let expected = "expected a text like \"zk://h1:2181,h2:2181/chroot\"";
    match field.as_text().map(str::parse) {
        Some(Ok(address)) => Some(address),
        Some(Err(error)) => field.error(format_args!("invalid address ({error}), {expected}")),
        None => field.error(format_args!("invalid address, {expected}")),
    }
}
