//! HAProxy's configuration, and the servers in it.

use std::{collections::BTreeMap, fmt::Write};

use ochopod_sdk::{Cluster, Pod, Result, bail};

use crate::{
    balancer::Balancer,
    route::{Mode, Route},
};

const HEAD: &str = "\
    # Written by the plugin haproxy, which replaces it. Time limits are short where a retry helps.\n\
    defaults\n    \
        timeout connect 2s\n    \
        timeout check 1s\n    \
        timeout queue 10s\n    \
        retries 3\n    \
        option redispatch 1\n    \
        default-server inter 500ms fall 2 rise 1 init-addr last,libc,none\n\n";

/// A server in one of the proxies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerName {
    pub(crate) proxy: String,
    pub(crate) server: String,
}

/// A pod behind a route.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    name: String,
    address: String,
    /// Whether the pod has the role of the route.
    serves: bool,
}

/// Returns the configuration for a view, and a text for each pod that is not reachable.
pub(crate) fn render(balancer: &Balancer, cluster: &Cluster) -> Result<(String, Vec<String>)> {
    let api = balancer.runtime().worker;
    let family = if api.is_ipv4() { "ipv4" } else { "ipv6" };
    let mut text = format!(
        "global\n    stats socket {family}@{api} level admin expose-fd listeners\n    mworker-max-reloads 50\n\n{HEAD}"
    );
    let mut skipped = Vec::new();
    for route in balancer.routes() {
        section(&mut text, balancer, route)?;
        for server in servers(route, cluster, &mut skipped)? {
            let Server { name, address, serves } = server;
            writeln!(text, "    server {name} {address} check{}", if serves { "" } else { " disabled" })?;
        }
        text.push('\n');
    }
    Ok((text, skipped))
}

fn section(text: &mut String, balancer: &Balancer, route: &Route) -> Result<()> {
    let Route { mode, role, check, .. } = route;
    writeln!(text, "listen {}\n    bind {}", route.name(), balancer.bind(route))?;
    match mode {
        // Clients that keep a connection get one more response from a worker that ends. Only reads are retried.
        Mode::Http => text.push_str(
            "    mode http\n    balance roundrobin\n    timeout client 60s\n    timeout server 60s\n    \
             timeout http-request 10s\n    option idle-close-on-response\n    option forwardfor\n    \
             retry-on conn-failure empty-response\n    http-request disable-l7-retry unless METH_GET\n",
        ),
        Mode::Tcp => text.push_str(
            "    mode tcp\n    balance leastconn\n    timeout client 24h\n    timeout server 24h\n    \
             option clitcpka\n    option srvtcpka\n",
        ),
    }
    if let Some(path) = check {
        writeln!(text, "    option httpchk GET {path}\n    http-check disable-on-404")?;
    }
    if role.is_some() {
        // What remains connected to a server that no longer has the role would do harm.
        text.push_str("    default-server on-marked-down shutdown-sessions\n");
    }
    Ok(())
}

fn servers(route: &Route, cluster: &Cluster, skipped: &mut Vec<String>) -> Result<Vec<Server>> {
    let Ok(mut pods) = cluster.dependency(&route.cluster) else {
        bail!(
            "route of port {} leads to {:?}, not a dependency: requires --set depends_on={}",
            route.port,
            route.cluster,
            [cluster.dependencies(), vec![route.cluster.clone()]].concat().join(",")
        );
    };
    let key = |pod: &Pod| (text(pod, "namespace"), text(pod, "cluster"), pod.seq);
    pods.sort_by_key(key);
    let mut servers = Vec::new();
    for pod in pods {
        match pod.address(route.target, false) {
            Ok(address) => servers.push(Server {
                name: server_name(route, &pod),
                address,
                serves: route.role.as_ref().is_none_or(|role| *role == pod.role),
            }),
            Err(error) => skipped.push(format!("{}: {error}", server_name(route, &pod))),
        }
    }
    Ok(servers)
}

/// Returns `CLUSTER-SEQ`, which never names another pod. Where clusters of several namespaces may match, with the namespace.
fn server_name(route: &Route, pod: &Pod) -> String {
    let name = format!("{}-{}", text(pod, "cluster"), pod.seq);
    let name = if route.cluster.starts_with('/') { format!("{}.{name}", text(pod, "namespace")) } else { name };
    name.replace(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c), "-")
}

fn text(pod: &Pod, key: &str) -> String {
    pod.settings.get(key).cloned().unwrap_or_default()
}

/// Returns the servers of a configuration that was rendered, and whether each serves.
pub(crate) fn servers_in(configuration: &str) -> BTreeMap<ServerName, bool> {
    let mut proxy = "";
    let mut found = BTreeMap::new();
    for line in configuration.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("listen"), Some(name)) => proxy = name,
            (Some("server"), Some(name)) => {
                let name = ServerName { proxy: proxy.to_owned(), server: name.to_owned() };
                found.insert(name, !line.ends_with(" disabled"));
            }
            _ => {}
        }
    }
    found
}
