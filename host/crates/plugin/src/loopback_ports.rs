//! Loopback ports that a pod's guests may use.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde_json::{Map, Value};

use crate::{Grants, NetworkGrant};

/// Addresses that every pod has, unless the pods of a machine share them.
const SHARED: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Loopback ports that a plugin declared, and their mapping for one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoopbackPorts {
    /// Ports of the container; none means all ports.
    pub declared: Vec<Option<u16>>,
    /// Ports of the container, and the ports they are mapped to.
    pub mapped: BTreeMap<u16, u16>,
    /// Loopback address that the pod registers, if it registers one.
    pub own: Option<IpAddr>,
}

impl LoopbackPorts {
    /// Creates the ports of a pod with this registration.
    #[must_use]
    pub fn new(declared: Vec<Option<u16>>, registration: &Map<String, Value>) -> Self {
        let ip = registration.get("ip").and_then(Value::as_str).and_then(|ip| ip.parse::<IpAddr>().ok());
        let ports = registration.get("ports").and_then(Value::as_object).into_iter().flatten();
        let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
        let mapped = ports.filter_map(|(inner, outer)| Some((inner.parse().ok()?, port(outer)?))).collect();
        Self { declared, mapped, own: ip.map(|ip| ip.to_canonical()).filter(IpAddr::is_loopback) }
    }

    /// Returns the ports that are open by declaration or by flag: those of the container, and those they are mapped to.
    pub(super) fn open(&self, grants: &Grants) -> BTreeSet<Option<u16>> {
        let granted = grants.network.iter().filter_map(|grant| match grant {
            NetworkGrant::Loopback { port } => Some(*port),
            NetworkGrant::Peers | NetworkGrant::Address { .. } => None,
        });
        let ports: BTreeSet<_> = self.declared.iter().copied().chain(granted).collect();
        let mapped = ports.iter().flatten().filter_map(|port| self.mapped.get(port).copied().map(Some));
        mapped.chain(ports.iter().copied()).collect()
    }

    /// Returns whether this loopback address is the pod's own. All are, unless the pod registers one of several.
    pub(super) fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback() && self.own.is_none_or(|own| own == ip || SHARED.contains(&ip))
    }
}

/// Returns whether all pods of a machine share this loopback address.
pub(super) fn is_shared(ip: IpAddr) -> bool {
    SHARED.contains(&ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ports(declared: &[Option<u16>], registration: &Value) -> LoopbackPorts {
        LoopbackPorts::new(declared.to_vec(), registration.as_object().unwrap())
    }

    #[test]
    fn declared_port_is_open_as_itself_and_as_what_it_is_mapped_to() {
        let mapped = json!({"ip": "10.0.0.1", "ports": {"6379": 7001, "8080": 31000}});
        let open = |declared: &[Option<u16>], network: &[NetworkGrant]| -> Vec<Option<u16>> {
            let grants = Grants { network: network.to_vec(), ..Grants::default() };
            ports(declared, &mapped).open(&grants).into_iter().collect()
        };
        assert_eq!(open(&[], &[]), []);
        assert_eq!(open(&[Some(6379), Some(9000)], &[]), [Some(6379), Some(7001), Some(9000)]);
        assert_eq!(open(&[], &[NetworkGrant::Loopback { port: Some(6379) }]), [Some(6379), Some(7001)]);
        assert_eq!(open(&[None], &[NetworkGrant::Peers]), [None]);
    }

    #[test]
    fn addresses_of_other_pods_on_the_machine_are_not_the_pods_own() {
        for (registered, ip, expected) in [
            ("10.0.0.1", "127.0.0.1", true),
            ("10.0.0.1", "127.0.1.1", true),
            ("10.0.0.1", "::1", true),
            ("10.0.0.1", "10.0.0.1", false),
            ("a-host", "127.0.1.1", true),
            ("127.0.0.3", "127.0.0.3", true),
            ("127.0.0.3", "127.0.0.1", true),
            ("127.0.0.3", "::1", true),
            ("127.0.0.3", "127.0.0.2", false),
        ] {
            let own = ports(&[], &json!({ "ip": registered }));
            assert_eq!(own.is_own(ip.parse().unwrap()), expected, "{registered} {ip}");
        }
    }
}
