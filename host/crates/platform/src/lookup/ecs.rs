//! ECS task metadata, version 4.

use std::{collections::BTreeMap, net::IpAddr};

use hyper::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::Instant;

use super::{
    EcsContainer, LookUpError, NetworkMode,
    error::Failure,
    http::{Server, is_busy},
};

const REMEDY: &str = "--ip, --application, --task and PORT_<n>";
/// Longest name that is accepted, in bytes.
const MAX_NAME_BYTES: usize = 256;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    #[serde(default)]
    networks: Vec<Network>,
    #[serde(default)]
    ports: Vec<Port>,
}

#[derive(Deserialize)]
struct Network {
    #[serde(rename = "NetworkMode")]
    mode: String,
    #[serde(default, rename = "IPv4Addresses")]
    ipv4: Vec<IpAddr>,
    #[serde(default, rename = "IPv6Addresses")]
    ipv6: Vec<IpAddr>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    container_port: Option<u16>,
    host_port: Option<u16>,
}

#[derive(Deserialize)]
struct Task {
    #[serde(rename = "TaskARN")]
    arn: String,
    #[serde(rename = "Family")]
    family: Option<String>,
    #[serde(rename = "ServiceName")]
    service: Option<String>,
}

/// The task metadata service.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EcsRequest {
    /// URL of the container.
    pub(crate) uri: String,
    /// Whether the address is unknown.
    pub(crate) needs_ip: bool,
}

impl EcsRequest {
    /// Returns the problem of a container in a bridge network if the address of the machine is unknown.
    pub(crate) fn unreachable(&self, container: &EcsContainer, machine: Option<IpAddr>) -> Option<LookUpError> {
        let is_unreachable = self.needs_ip && container.mode == NetworkMode::Bridge && machine.is_none();
        let failure = Failure::unexpected(b"bridge", "instance metadata with the address of the machine");
        is_unreachable.then(|| failure.at(&self.uri, "--ip (ochopod_ip) to the address of the machine"))
    }

    /// Queries the container and its task concurrently.
    pub(crate) async fn query(&self, deadline: Instant) -> Result<EcsContainer, LookUpError> {
        query(&self.uri, deadline).await
    }
}

async fn query(uri: &str, deadline: Instant) -> Result<EcsContainer, LookUpError> {
    let server = Server::plain(uri).map_err(|failure| failure.at(uri, REMEDY))?;
    let (container, task) =
        tokio::try_join!(get::<Container>(&server, "", deadline), get::<Task>(&server, "/task", deadline))?;
    let network = container.networks.into_iter().next();
    let mode = match network.as_ref().map(|network| network.mode.as_str()) {
        Some("awsvpc") => NetworkMode::Awsvpc,
        Some("host") => NetworkMode::Host,
        Some("bridge" | "default") | None => NetworkMode::Bridge,
        Some(mode) => {
            let failure = Failure::unexpected(mode.as_bytes(), "a NetworkMode awsvpc, bridge or host");
            return Err(failure.at(server.url(""), REMEDY));
        }
    };
    let ip = network.and_then(|network| network.ipv4.into_iter().chain(network.ipv6).next());
    let ports =
        container.ports.into_iter().filter_map(|port| Some((nonzero(port.container_port)?, nonzero(port.host_port)?)));
    Ok(EcsContainer {
        mode,
        ip,
        ports: ports.collect::<BTreeMap<_, _>>(),
        application: task.service.and_then(name).or(task.family.and_then(name)),
        task: task.arn.rsplit('/').next().map(str::to_owned).and_then(name),
    })
}

/// Returns an object. Just after the start of a task, the service may not know it yet: the request is repeated.
async fn get<T: DeserializeOwned>(server: &Server, path: &str, deadline: Instant) -> Result<T, LookUpError> {
    let is_early = |status: StatusCode| {
        is_busy(status) || matches!(status, StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR)
    };
    let failed = |failure: &Failure| failure.at(server.url(path), REMEDY);
    let answer = server.send(Method::GET, path, HeaderMap::new(), deadline, is_early).await.map_err(|e| failed(&e))?;
    match answer.status {
        StatusCode::OK => serde_json::from_slice(&answer.body).map_err(|error| failed(&Failure::Json(error))),
        status => Err(failed(&Failure::Status(status))),
    }
}

fn nonzero(port: Option<u16>) -> Option<u16> {
    port.filter(|port| *port != 0)
}

fn name(text: String) -> Option<String> {
    let is_name = !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.bytes().all(|b| b.is_ascii_graphic());
    is_name.then_some(text)
}
