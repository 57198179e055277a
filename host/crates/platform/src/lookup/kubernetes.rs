//! The Kubernetes API server, by the service account of the pod: pod, `ReplicaSet` and node.

mod objects;

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, HeaderValue},
};
use ochopod_tls::pem;
use rustls::{ClientConfig, crypto::ring};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use self::objects::{Ignored, Metadata, NodeStatus, Object, Pod, controller, display, is_name};
use super::{
    KubernetesPod, LookUpError, LookUpResults,
    error::Failure,
    http::{Server, is_busy},
};
use crate::Value;

/// Largest file of a service account that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Label of pods whose value ends the name of their `ReplicaSet`.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// Pod with the `ZooKeeper` of ochonetes, in the namespace of the pod.
const STORE_POD: &str = "ocho-proxy";
const STORE_PORT: u16 = 2181;
/// Longest kill delay that is accepted.
const MAX_GRACE: Duration = Duration::from_hours(24);
const POD_REMEDY: &str = "POD_NAME, POD_IP and NODE_NAME by the downward API, and ochopod_application";
const OWNER_REMEDY: &str = "ochopod_application";
const NODE_REMEDY: &str = "ochopod_public";
const STORE_REMEDY: &str = "ochopod_zk";

/// Requests to the API server.
#[derive(Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is one need")]
pub(crate) struct KubernetesRequest {
    /// Host and port of the API server.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Directory of the service account.
    pub(crate) service_account: PathBuf,
    /// Namespace, if a variable has it.
    pub(crate) namespace: Option<String>,
    /// Name of the pod.
    pub(crate) pod: String,
    /// Whether address, node or name of the pod is unknown.
    pub(crate) needs_pod: bool,
    /// Whether the application is unknown.
    pub(crate) needs_owner: bool,
    /// Whether the public address is unknown.
    pub(crate) needs_public: bool,
    /// Whether the address of `ZooKeeper` is unknown.
    pub(crate) needs_store: bool,
}

impl KubernetesRequest {
    /// Returns what the API server answers. A request that fails ends none of the others. Without a service account there
    /// are no requests.
    pub(crate) async fn query(self, deadline: Instant) -> LookUpResults {
        let mut results = LookUpResults::default();
        if !self.service_account.join("token").exists() {
            tracing::debug!(path = %self.service_account.display(), "no service account");
            return results;
        }
        let api = match Api::new(&self, deadline) {
            Ok(api) => api,
            Err(error) => {
                results.problems.push(error);
                return results;
            }
        };
        let path = format!("/api/v1/namespaces/{}/pods/{}", api.namespace, self.pod);
        let pod = api.get::<Pod>(&path, POD_REMEDY);
        let store = async { if self.needs_store { Some(api.store().await) } else { None } };
        let (pod, store) = tokio::join!(pod, store);
        match store.transpose() {
            Ok(store) => results.store = store,
            Err(error) => results.problems.push(error),
        }
        let pod = match pod {
            Ok(pod) => pod,
            Err(error) => {
                // A service account without permissions is common, and then no error where variables locate the pod.
                if self.needs_pod || !is_forbidden(&error) {
                    results.problems.push(error);
                }
                return results;
            }
        };
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|name| is_name(name));
        let owner = async { if self.needs_owner { api.owner(&pod.metadata).await } else { Ok(None) } };
        let public = async {
            match &node {
                Some(node) if self.needs_public => api.external_address(node).await,
                _ => Ok(None),
            }
        };
        let (owner, public) = tokio::join!(owner, public);
        results.owner = owner.unwrap_or_else(|error| keep(&mut results.problems, error));
        results.node_address = public.unwrap_or_else(|error| keep(&mut results.problems, error));
        let grace = pod.spec.and_then(|spec| spec.termination_grace_period_seconds).map(Duration::from_secs);
        let grace = grace.filter(|grace| *grace <= MAX_GRACE);
        let ip = pod.status.and_then(|status| status.ip);
        results.pod = Some(KubernetesPod { name: pod.metadata.name, node, ip, grace });
        results
    }
}

fn keep<T>(problems: &mut Vec<LookUpError>, error: LookUpError) -> Option<T> {
    problems.push(error);
    None
}

/// The API server, as the service account may use it.
struct Api {
    server: Server,
    token_file: PathBuf,
    namespace: String,
    deadline: Instant,
}

impl Api {
    fn new(request: &KubernetesRequest, deadline: Instant) -> Result<Self, LookUpError> {
        let address = format!("https://{}:{}", request.host, request.port);
        let failed = |failure: Failure| failure.at(&address, POD_REMEDY);
        let directory = &request.service_account;
        let authorities = directory.join("ca.crt");
        let unreadable = |error: &dyn fmt::Display| failed(unreadable(&authorities, error));
        let certificates = pem::certificates(&authorities).map_err(|error| unreadable(&error))?;
        let roots = pem::roots(&certificates).map_err(|error| unreadable(&error))?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().map_err(|error| unreadable(&error))?;
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        let server = Server::tls(&request.host, request.port, config).map_err(failed)?;
        let namespace = match &request.namespace {
            Some(namespace) => namespace.clone(),
            None => text(&directory.join("namespace")).map_err(failed)?,
        };
        for name in [&namespace, &request.pod] {
            if !is_name(name) {
                return Err(failed(Failure::unexpected(name.as_bytes(), "the name of a namespace or a pod")));
            }
        }
        Ok(Self { server, token_file: directory.join("token"), namespace, deadline })
    }

    /// Returns an object. The token is read for each request: it is replaced while the pod runs.
    async fn get<T: DeserializeOwned>(&self, path: &str, remedy: &'static str) -> Result<T, LookUpError> {
        let failed = |failure: Failure| failure.at(self.server.url(path), remedy);
        let token = text(&self.token_file).map_err(failed)?;
        let mut answer = self.send(path, &token).await.map_err(failed)?;
        if answer.status == StatusCode::UNAUTHORIZED {
            let current = text(&self.token_file).map_err(failed)?;
            if current != token {
                answer = self.send(path, &current).await.map_err(failed)?;
            }
        }
        match answer.status {
            StatusCode::OK => serde_json::from_slice(&answer.body).map_err(|error| failed(Failure::Json(error))),
            status => Err(failed(Failure::Status(status))),
        }
    }

    async fn send(&self, path: &str, token: &str) -> Result<super::http::HttpReply, Failure> {
        let credentials = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut credentials = credentials.map_err(|_| unreadable(&self.token_file, &"not a token"))?;
        credentials.set_sensitive(true);
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(ACCEPT, json), (AUTHORIZATION, credentials)]);
        self.server.send(Method::GET, path, headers, self.deadline, is_busy).await
    }

    /// Returns kind and name of the owner: that of the `ReplicaSet` if this is the owner of the pod.
    async fn owner(&self, pod: &Metadata) -> Result<Option<String>, LookUpError> {
        let Some(owner) = controller(pod) else { return Ok(None) };
        if owner.kind != "ReplicaSet" {
            return Ok(Some(display(&owner)));
        }
        let path = format!("/apis/apps/v1/namespaces/{}/replicasets/{}", self.namespace, owner.name);
        match self.get::<Object<Ignored, Ignored>>(&path, OWNER_REMEDY).await {
            Ok(set) => Ok(Some(controller(&set.metadata).map_or_else(|| display(&owner), |owner| display(&owner)))),
            Err(error) => {
                let hash = pod.labels.get(TEMPLATE_HASH).map(|hash| format!("-{hash}"));
                let name = hash.and_then(|hash| owner.name.strip_suffix(&hash));
                match name {
                    Some(name) => Ok(Some(format!("deployment/{name}"))),
                    None => Err(error),
                }
            }
        }
    }

    /// Returns the external address of a node. Most service accounts may not read nodes: 403 is not an error.
    async fn external_address(&self, node: &str) -> Result<Option<IpAddr>, LookUpError> {
        match self.get::<Object<Ignored, NodeStatus>>(&format!("/api/v1/nodes/{node}"), NODE_REMEDY).await {
            Ok(node) => {
                let addresses = node.status.map(|status| status.addresses).unwrap_or_default();
                let mut external = addresses.into_iter().filter(|address| address.kind == "ExternalIP");
                Ok(external.find_map(|address| address.address.parse().ok()))
            }
            Err(error) if is_forbidden(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the address of `ZooKeeper` in the pod `ocho-proxy`.
    async fn store(&self) -> Result<Value, LookUpError> {
        let path = format!("/api/v1/namespaces/{}/pods/{STORE_POD}", self.namespace);
        let pod = self.get::<Pod>(&path, STORE_REMEDY).await?;
        let ip = pod.status.and_then(|status| status.ip);
        let failed = || Failure::unexpected(b"", "a podIP").at(self.server.url(&path), STORE_REMEDY);
        let address = match ip.ok_or_else(failed)? {
            IpAddr::V4(ip) => format!("zk://{ip}:{STORE_PORT}"),
            IpAddr::V6(ip) => format!("zk://[{ip}]:{STORE_PORT}"),
        };
        Ok(Value::new(address, format!("pod {STORE_POD}")))
    }
}

fn is_forbidden(error: &LookUpError) -> bool {
    error.answer.starts_with(StatusCode::FORBIDDEN.as_str())
}

/// Reads a text without the spaces around it.
fn text(file: &Path) -> Result<String, Failure> {
    let bytes = ochopod_files::read(file, MAX_FILE_BYTES).map_err(|error| unreadable(file, &error))?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable(file, &"not UTF-8"))?;
    Ok(text.trim().to_owned())
}

fn unreadable(file: &Path, error: &dyn fmt::Display) -> Failure {
    Failure::File(file.display().to_string(), error.to_string())
}
