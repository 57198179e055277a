//! Addresses and names of the pod: settings of the operator, or else values of the platform.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ochopod_interfaces::InterfaceTable;
use ochopod_model::{ADDRESS_REQUIREMENT, PeerHost};
use ochopod_platform::{Platform, Value};
use ochopod_settings::SettingsReader;

use super::{SettingsInput, platform, registration};

/// Addresses and names of the pod.
pub(super) struct PodLocation {
    pub(super) platform: Platform,
    pub(super) port: u16,
    pub(super) mapped_port: u16,
    pub(super) ports: BTreeMap<u16, u16>,
    /// None only after an error was recorded.
    pub(super) listen: Option<SocketAddr>,
    pub(super) ip: Value,
    pub(super) public: Value,
    pub(super) node: Value,
    pub(super) application: Value,
    pub(super) task: Value,
}

impl PodLocation {
    pub(super) fn read(reader: &mut SettingsReader<'_>, input: SettingsInput<'_>, local: bool) -> Self {
        let port = reader.parsed("port", "a port from 1 to 65535", ochopod_model::port).unwrap_or(8080);
        let platform = platform::read(reader, input, local, port);
        let ports = registration::mapped_ports(reader, &platform);
        let mapped_port = ports.get(&port).copied().unwrap_or(port);
        let values = &platform.values;
        let ip = address(reader, "ip", &platform, &values.ip);
        let public = address(reader, "public", &platform, &values.public);
        let text = |name: &str, detected: &Value| {
            reader.get(name).map_or_else(|| detected.clone(), |raw| Value::new(raw.text, raw.name))
        };
        let node = text("node", &values.node);
        let application = text("application", &values.application);
        let task = text("task", &values.task);
        let listen = match reader.get("listen") {
            Some(raw) => {
                let address = raw.text.parse().ok();
                if address.is_none() {
                    reader.invalid(raw.name, &raw.text, "ADDRESS:PORT with an IP address");
                }
                address
            }
            None if local => local_address(reader, &ip.text).map(|ip| SocketAddr::new(ip, mapped_port)),
            None => Some(SocketAddr::new(any_address(&ip.text, &input.system.interfaces), port)),
        };
        Self { platform, port, mapped_port, ports, listen, ip, public, node, application, task }
    }

    /// Returns the values that a setting or the platform provides.
    pub(super) fn named_values(&self) -> [(&'static str, &Value); 5] {
        let Self { ip, public, node, application, task, .. } = self;
        [("ip", ip), ("public", public), ("node", node), ("application", application), ("task", task)]
    }

    /// Returns the source of each known value, with that of the address of ZooKeeper.
    pub(super) fn sources(&self, zk: Option<&str>) -> BTreeMap<String, String> {
        let named = self.named_values().into_iter().filter(|(_, value)| !value.is_empty());
        let named = named.map(|(name, value)| (name, &*value.source));
        named
            .chain(zk.map(|source| ("zk", source)))
            .map(|(name, source)| (name.to_owned(), source.to_owned()))
            .collect()
    }
}

/// Returns an address as it is registered: the setting, or else the value of the platform, which may be empty.
fn address(reader: &mut SettingsReader<'_>, name: &str, platform: &Platform, detected: &Value) -> Value {
    let (named, value) = match reader.get(name) {
        Some(raw) => (raw.name.clone(), Value::new(raw.text, raw.name)),
        None if detected.is_empty() => return Value::default(),
        None => (format!("ochopod_{name} (detected by the binding {})", platform.binding), detected.clone()),
    };
    if let Some(host) = PeerHost::parse(&value.text) {
        return Value::new(host.to_string(), value.source);
    }
    reader.invalid(named, &value.text, ADDRESS_REQUIREMENT);
    value
}

/// Returns the bind address that stands for all addresses: of both families if this host has an IPv6 address that others
/// reach, or registers one.
fn any_address(registered: &str, interfaces: &InterfaceTable) -> IpAddr {
    let is_ipv6 = registered.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    if is_ipv6 || interfaces.has_routable_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// Returns the bind address in local mode, in which pods share a machine but not an address.
fn local_address(reader: &mut SettingsReader<'_>, ip: &str) -> Option<IpAddr> {
    let address = ip.parse().ok();
    if address.is_none()
        && PeerHost::parse(ip).is_some()
        && let Some(raw) = reader.get("ip")
    {
        reader.invalid(raw.name, &raw.text, "an IP address in local mode, unless --listen is set");
    }
    address
}
