//! Input of `onChange`: variables, JSON on standard input, and the data of its template. `backend_watcher` runs it.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    net::IpAddr,
};

use ochopod_discovery::ServiceInstance;
use ochopod_template::Data;
use serde::Serialize;

use super::config::Backend;

/// Longest list in a variable: the kernel rejects variables above 128 KiB.
const MAX_VARIABLE_BYTES: usize = 64 * 1024;
const BACKEND: &str = "OCHOPOD_BACKEND";
const ADDRESSES: &str = "OCHOPOD_ADDRESSES";
const ADDED: &str = "OCHOPOD_ADDED";
const REMOVED: &str = "OCHOPOD_REMOVED";

/// Variables that only `onChange` has.
pub(super) const VARIABLES: [&str; 4] = [BACKEND, ADDRESSES, ADDED, REMOVED];

/// Healthy instances of a backend, and the difference since the last `onChange` that succeeded. Lists are sorted by address,
/// then by port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    backend: String,
    tag: Option<String>,
    instances: Vec<ServiceInstance>,
    added: Vec<String>,
    removed: Vec<String>,
}

impl Change {
    /// Creates the change since the `known` endpoints.
    pub(super) fn new(backend: &Backend, mut instances: Vec<ServiceInstance>, known: &BTreeSet<Endpoint>) -> Self {
        instances.sort_by(|one, other| (endpoint(one), &one.id).cmp(&(endpoint(other), &other.id)));
        let present: BTreeSet<Endpoint> = instances.iter().map(endpoint).collect();
        Self {
            backend: backend.name.clone(),
            tag: backend.tag.clone(),
            instances,
            added: present.difference(known).map(ToString::to_string).collect(),
            removed: known.difference(&present).map(ToString::to_string).collect(),
        }
    }

    /// Returns the endpoints of the instances.
    pub(super) fn endpoints(&self) -> BTreeSet<Endpoint> {
        self.instances.iter().map(endpoint).collect()
    }

    /// Returns the variables, and the names of those left out: a list that is too long is never truncated.
    pub(super) fn variables(&self) -> (BTreeMap<OsString, OsString>, Vec<&'static str>) {
        let addresses = self.addresses().join(",");
        let lists = [(ADDRESSES, addresses), (ADDED, self.added.join(",")), (REMOVED, self.removed.join(","))];
        let mut variables = BTreeMap::from([(BACKEND.into(), self.backend.clone().into())]);
        let mut omitted = Vec::new();
        for (name, list) in lists {
            if list.len() > MAX_VARIABLE_BYTES {
                omitted.push(name);
            } else {
                variables.insert(name.into(), list.into());
            }
        }
        (variables, omitted)
    }

    /// Returns the change as JSON, on one line.
    pub(super) fn json(&self) -> Vec<u8> {
        // Strings and numbers always serialize.
        let mut json = serde_json::to_vec(self).unwrap_or_default();
        json.push(b'\n');
        json
    }

    /// Returns the change as data of a template.
    pub(super) fn data(&self) -> Data {
        let instance = |instance: &ServiceInstance| {
            Data::record([
                ("ID", Data::Text(instance.id.clone())),
                ("Address", Data::Text(instance.address.clone())),
                ("Port", Data::Number(instance.port.into())),
                ("Endpoint", Data::Text(endpoint(instance).to_string())),
            ])
        };
        Data::record([
            ("Backend", Data::Text(self.backend.clone())),
            ("Tag", Data::Text(self.tag.clone().unwrap_or_default())),
            ("Instances", Data::List(self.instances.iter().map(instance).collect())),
            ("Addresses", Data::Texts(self.addresses())),
            ("Added", Data::Texts(self.added.clone())),
            ("Removed", Data::Texts(self.removed.clone())),
        ])
    }

    /// Returns each endpoint once.
    fn addresses(&self) -> Vec<String> {
        self.endpoints().iter().map(ToString::to_string).collect()
    }
}

/// Address and port of an instance. IP addresses sort numerically, before names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    address: String,
    ip: Option<IpAddr>,
    port: u16,
}

fn endpoint(instance: &ServiceInstance) -> Endpoint {
    Endpoint { address: instance.address.clone(), ip: instance.address.parse().ok(), port: instance.port }
}

impl Ord for Endpoint {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |endpoint: &Self| (endpoint.ip.is_none(), endpoint.ip);
        key(self).cmp(&key(other)).then_with(|| self.address.cmp(&other.address)).then(self.port.cmp(&other.port))
    }
}

impl PartialOrd for Endpoint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Writes `10.0.0.1:80`, `[::1]:80` or `name:80`.
impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.ip {
            Some(IpAddr::V6(_)) => write!(f, "[{}]:{}", self.address, self.port),
            _ => write!(f, "{}:{}", self.address, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::CommandLine;

    fn backend() -> Backend {
        Backend {
            name: "db".to_owned(),
            tag: None,
            poll: Duration::from_secs(1),
            on_change: CommandLine { program: "true".to_owned(), arguments: Vec::new() },
            limit: Duration::from_secs(1),
            template: None,
        }
    }

    fn instance(id: &str, address: &str, port: u16) -> ServiceInstance {
        ServiceInstance { id: id.to_owned(), address: address.to_owned(), port }
    }

    fn text(change: &Change, name: &str) -> String {
        change.variables().0[&OsString::from(name)].to_str().unwrap().to_owned()
    }

    #[test]
    fn addresses_are_sorted_numerically_and_unique() {
        let instances = ["10.0.0.10", "name.example", "10.0.0.9", "::1", "10.0.0.9"];
        let instances = instances.iter().enumerate().map(|(id, address)| instance(&id.to_string(), address, 80));
        let change = Change::new(&backend(), instances.collect(), &BTreeSet::new());
        assert_eq!(text(&change, ADDRESSES), "10.0.0.9:80,10.0.0.10:80,[::1]:80,name.example:80");
        assert_eq!(text(&change, ADDED), text(&change, ADDRESSES));
        assert_eq!((text(&change, REMOVED).as_str(), text(&change, BACKEND).as_str()), ("", "db"));
        let ids: Vec<_> = change.instances.iter().map(|instance| instance.id.as_str()).collect();
        assert_eq!(ids, ["2", "4", "0", "3", "1"]);
    }

    #[test]
    fn added_and_removed_are_relative_to_the_known_endpoints() {
        let first = Change::new(&backend(), vec![instance("a", "h", 1), instance("b", "h", 2)], &BTreeSet::new());
        let second = Change::new(&backend(), vec![instance("c", "h", 2), instance("d", "h", 3)], &first.endpoints());
        assert_eq!((text(&second, ADDED).as_str(), text(&second, REMOVED).as_str()), ("h:3", "h:1"));
        let json: serde_json::Value = serde_json::from_slice(&second.json()).unwrap();
        let expected = serde_json::json!({
            "backend": "db", "tag": null, "added": ["h:3"], "removed": ["h:1"],
            "instances": [{"id": "c", "address": "h", "port": 2}, {"id": "d", "address": "h", "port": 3}],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn lists_too_long_for_a_variable_are_left_out_and_named() {
        let many: Vec<_> = (0..10_000).map(|id| instance(&format!("{id}"), "10.0.0.1", id)).collect();
        let (variables, omitted) = Change::new(&backend(), many, &BTreeSet::new()).variables();
        assert_eq!(omitted, [ADDRESSES, ADDED]);
        assert!(variables.values().all(|value| value.len() <= MAX_VARIABLE_BYTES));
        assert_eq!(variables.keys().collect::<Vec<_>>(), [BACKEND, REMOVED]);
    }
}
