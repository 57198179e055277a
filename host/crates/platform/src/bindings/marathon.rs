//! Tasks of Marathon: bridge, host and container networks.

use std::net::IpAddr;

use ochopod_environment::mapped_port;

use crate::{
    Value,
    values::{Inputs, Values},
};

/// Variable with the address of the container itself.
const CONTAINER_IP: &str = "MESOS_CONTAINER_IP";
/// Variable with the address of the agent.
const AGENT_IP: &str = "LIBPROCESS_IP";

/// Returns the agent's address, which maps ports in bridge networks and is that of the pod in host networks. In container
/// networks it is that of the container.
pub(crate) fn values(inputs: Inputs<'_>) -> Values {
    let host = inputs.variable(format!("{}HOST", inputs.prefix));
    let ip = container_address(inputs)
        .or_else(|| resolved_host(inputs))
        .or_else(|| agent_address(inputs))
        .or_else(|| host.clone())
        .or_else(|| inputs.own_address());
    Values {
        ip,
        node: host.or_else(|| inputs.host_name()),
        application: application(inputs),
        task: inputs.variable("MESOS_TASK_ID"),
        ..Values::default()
    }
}

/// Returns the application ID without the slash it starts with.
pub(crate) fn application(inputs: Inputs<'_>) -> Value {
    let id = inputs.variable("MARATHON_APP_ID");
    Value::new(id.text.trim_start_matches('/'), id.source)
}

/// Returns the address of the container if it has a network of its own: the address is on an interface of ours, and no
/// port is mapped to another one.
fn container_address(inputs: Inputs<'_>) -> Value {
    let is_own = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_loopback() && inputs.system.interfaces.contains(*ip);
    let ip = inputs.env.text(CONTAINER_IP).and_then(|text| text.parse().ok()).filter(is_own);
    let ip = ip.filter(|_| !has_mapped_ports(inputs));
    ip.map(|ip| Value::new(ip.to_string(), CONTAINER_IP)).unwrap_or_default()
}

fn has_mapped_ports(inputs: Inputs<'_>) -> bool {
    inputs.env.iter().any(|(name, value)| {
        let inner = name.to_str().and_then(|name| name.strip_prefix(inputs.prefix)).and_then(mapped_port);
        inner.is_some_and(|inner| value.to_str() != Some(&inner.to_string()))
    })
}

fn resolved_host(inputs: Inputs<'_>) -> Value {
    let name = format!("{}HOST, resolved", inputs.prefix);
    inputs.system.host.map(|host| Value::new(host.to_string(), name)).unwrap_or_default()
}

/// Returns the address of the Mesos agent, unless that is unspecified.
fn agent_address(inputs: Inputs<'_>) -> Value {
    let ip = inputs.env.text(AGENT_IP).and_then(|text| text.parse::<IpAddr>().ok());
    let ip = ip.filter(|ip| !ip.is_unspecified());
    ip.map(|ip| Value::new(ip.to_string(), AGENT_IP)).unwrap_or_default()
}
