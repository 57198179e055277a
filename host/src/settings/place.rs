//! Where the pod is, and as what: the platform's word, unless the operator has another.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::{Flags, binding::Binding, parse, registration, source::Source};

const ADDRESS: &str = "an address or a host name";

pub(super) struct Place {
    pub(super) port: u16,
    pub(super) mapped_port: u16,
    pub(super) ports: BTreeMap<u16, u16>,
    /// None only after an error was noted.
    pub(super) listen: Option<SocketAddr>,
    pub(super) ip: String,
    pub(super) public: String,
    pub(super) node: String,
    pub(super) application: String,
    pub(super) task: String,
}

impl Place {
    pub(super) fn read(source: &mut Source<'_>, flags: &Flags, binding: &Binding, local: bool) -> Self {
        let port = source.parsed("port", flags.port.as_deref(), "a port from 1 to 65535", parse::port).unwrap_or(8080);
        let ports = registration::mapped_ports(source);
        let mapped_port = ports.get(&port).copied().unwrap_or(port);
        let address = |text: &str| parse::is_address(text).then(|| text.to_owned());
        let ip = source.parsed("ip", flags.ip.as_deref(), ADDRESS, address).unwrap_or_else(|| binding.ip.clone());
        let public = source.parsed("public", flags.public.as_deref(), ADDRESS, address);
        let public = public.unwrap_or_else(|| binding.public.clone());
        let mut text = |name: &str, flag: Option<&str>, default: &str| {
            source.given(name, flag).map_or_else(|| default.to_owned(), |given| given.text)
        };
        let node = text("node", flags.node.as_deref(), &binding.node);
        let application = text("application", flags.application.as_deref(), &binding.application);
        let task = text("task", flags.task.as_deref(), &binding.task);
        let listen = match source.given("listen", flags.listen.as_deref()) {
            Some(given) => {
                let address = given.text.parse().ok();
                if address.is_none() {
                    source.bad(given.name, &given.text, "ADDRESS:PORT with an IP address");
                }
                address
            }
            None if local => own_address(source, flags, &ip).map(|ip| SocketAddr::new(ip, mapped_port)),
            None => Some(SocketAddr::from(([0, 0, 0, 0], port))),
        };
        Self { port, mapped_port, ports, listen, ip, public, node, application, task }
    }
}

/// The address to bind in local mode, where pods share a machine but not an address.
fn own_address(source: &mut Source<'_>, flags: &Flags, ip: &str) -> Option<IpAddr> {
    let address = ip.parse().ok();
    if address.is_none()
        && let Some(given) = source.given("ip", flags.ip.as_deref())
    {
        source.bad(given.name, &given.text, "an IP address in local mode, or a listen address besides it");
    }
    address
}
