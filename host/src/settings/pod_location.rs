//! Addresses and names of the pod: settings of the operator, or else values of the platform.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use ochopod_model::{ADDRESS_REQUIREMENT, PeerHost};
use ochopod_platform::Platform;
use ochopod_settings::SettingsReader;

use super::registration;

/// Addresses and names of the pod.
pub(super) struct PodLocation {
    pub(super) port: u16,
    pub(super) mapped_port: u16,
    pub(super) ports: BTreeMap<u16, u16>,
    /// None only after an error was recorded.
    pub(super) listen: Option<SocketAddr>,
    pub(super) ip: String,
    pub(super) public: String,
    pub(super) node: String,
    pub(super) application: String,
    pub(super) task: String,
}

impl PodLocation {
    pub(super) fn read(reader: &mut SettingsReader<'_>, platform: &Platform, local: bool) -> Self {
        let port = reader.parsed("port", "a port from 1 to 65535", ochopod_model::port).unwrap_or(8080);
        let ports = registration::mapped_ports(reader);
        let mapped_port = ports.get(&port).copied().unwrap_or(port);
        let ip = address(reader, "ip", platform, &platform.ip);
        let public = address(reader, "public", platform, &platform.public);
        let text = |name: &str, default: &str| reader.get(name).map_or_else(|| default.to_owned(), |raw| raw.text);
        let node = text("node", &platform.node);
        let application = text("application", &platform.application);
        let task = text("task", &platform.task);
        let listen = match reader.get("listen") {
            Some(raw) => {
                let address = raw.text.parse().ok();
                if address.is_none() {
                    reader.invalid(raw.name, &raw.text, "ADDRESS:PORT with an IP address");
                }
                address
            }
            None if local => local_address(reader, &ip).map(|ip| SocketAddr::new(ip, mapped_port)),
            None => Some(SocketAddr::from(([0, 0, 0, 0], port))),
        };
        Self { port, mapped_port, ports, listen, ip, public, node, application, task }
    }
}

/// Returns an address as it is registered: the setting, or else the value of the platform, which may be empty.
fn address(reader: &mut SettingsReader<'_>, name: &str, platform: &Platform, detected: &str) -> String {
    let raw = reader.get(name);
    let (named, text) = match &raw {
        Some(raw) => (raw.name.clone(), raw.text.as_str()),
        None if detected.is_empty() => return String::new(),
        None => (format!("ochopod_{name} (detected by the binding {})", platform.name), detected),
    };
    if let Some(host) = PeerHost::parse(text) {
        return host.to_string();
    }
    reader.invalid(named, text, ADDRESS_REQUIREMENT);
    text.to_owned()
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
