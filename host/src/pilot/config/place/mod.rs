//! Where services are registered and found: `consul`, `etcd` or `zookeeper`.

mod consul;
mod etcd;
mod tls;

use self::{consul::consul, etcd::etcd};
use super::{
    field::{Field, Object},
    read::Reading,
};
use crate::{coord::ZooKeeperAddress, discovery::Place};

/// The one place that is named, or the default. None after a mistake was noted.
pub(super) fn place(keys: &mut Object<'_, '_>, reading: &Reading<'_>) -> Option<Place> {
    let consul = keys.optional("consul", |field| consul(field, reading.env)).map(Place::Consul);
    let etcd = keys.optional("etcd", etcd).map(Place::Etcd);
    let zookeeper = keys.optional("zookeeper", zookeeper).map(Place::ZooKeeper);
    let named: Vec<&str> = ["consul", "etcd", "zookeeper"].into_iter().filter(|key| keys.has(key)).collect();
    match (&*named, &reading.default_place) {
        ([_], _) => consul.or(etcd).or(zookeeper),
        ([], Some(default)) => Some(default.clone()),
        ([], None) => {
            keys.mistake("No discovery backend defined, expected one of consul, etcd and zookeeper");
            None
        }
        _ => {
            let places: Vec<String> = named.iter().map(|key| format!("{key} at {}", keys.at(key))).collect();
            let places = places.join(" and ");
            keys.mistake(&format!("More than one discovery backend defined, expected one: there are {places}"));
            None
        }
    }
}

/// What is wrong with an address does not tell its credentials; the address itself would.
fn zookeeper(field: Field<'_, '_>) -> Option<ZooKeeperAddress> {
    let expected = "expected a text like \"zk://h1:2181,h2:2181/chroot\"";
    match field.as_text().map(str::parse) {
        Some(Ok(address)) => Some(address),
        Some(Err(error)) => field.fail(format_args!("is no address ({error}), {expected}")),
        None => field.fail(format_args!("is no address, {expected}")),
    }
}
