//! The v2 keys, as ContainerPilot writes them, so that both find each other's instances: an instance is a directory
//! `<prefix>/<name>/<id>` that lives for the `ttl` and contains the file `service`.
//!
//! ContainerPilot cannot register an instance whose directory still exists. Here the directory is kept and its content
//! replaced.

use std::{iter, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http_body_util::Full;
use hyper::{
    Method, Request,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue},
};
use ochopod_model::json;
use serde::Deserialize;
use tokio::time;
use tracing::debug;

use super::{clients, error_for_status, seconds, server_pool::ServerPool};
use crate::{
    ChangeIndex, EtcdAddress, QueryResult, Registry, RegistryConfigError, RegistryError, ServiceInstance, ServiceQuery,
    ServiceRegistration,
    candidate::{Candidate, InstanceFilter},
    credentials::CredentialsFile,
    http_client::{self, HttpClient, encoded},
    stored_instance::{StoredInstance, segment},
};

const INDEX: HeaderName = HeaderName::from_static("x-etcd-index");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// Attempts to register an instance whose directory others create or remove meanwhile.
const MAX_ATTEMPTS: usize = 5;

/// Client of an etcd cluster through its v2 keys. Servers before 3.6 have them: those from 3.4 on with `--enable-v2`.
pub struct EtcdV2 {
    servers: ServerPool<HttpClient>,
    /// Path of the prefix.
    root: String,
    /// Sent with every request.
    user: Option<HeaderValue>,
    filter: InstanceFilter,
}

/// A node, as far as it matters.
#[derive(Deserialize)]
struct V2Node {
    key: String,
    #[serde(default)]
    dir: bool,
    value: Option<String>,
    #[serde(default)]
    nodes: Vec<V2Node>,
}

#[derive(Deserialize)]
struct V2Response {
    node: V2Node,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct V2Event {
    action: String,
    node: V2EventNode,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct V2EventNode {
    #[serde(default)]
    dir: bool,
    modified_index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct V2Error {
    error_code: u64,
}

/// Outcome of a request, and etcd's index at that time.
struct V2Reply {
    outcome: V2Outcome,
    index: Option<u64>,
}

enum V2Outcome {
    Done(Bytes),
    /// The key does not exist.
    NotFound,
    /// The key is a directory.
    NotAFile,
    /// The history since that index is gone.
    Cleared,
}

impl EtcdV2 {
    /// Creates a client of the cluster at this address, whether it can be reached or not.
    ///
    /// # Errors
    /// If something of the address cannot be used, files for TLS included.
    pub fn new(address: &EtcdAddress) -> Result<Self, RegistryConfigError> {
        let servers = clients(address)?;
        let segments = address.prefix.split('/').filter(|segment| !segment.is_empty());
        let root: Vec<_> = iter::once("/v2/keys".to_owned()).chain(segments.map(encoded)).collect();
        let file = address.credentials.as_deref().map(CredentialsFile::new).transpose()?;
        let user = file.map(|file| file.read()).transpose()?.and_then(|user| user.basic());
        Ok(Self { servers: ServerPool::new(servers), root: root.join("/"), user, filter: InstanceFilter::default() })
    }

    /// Returns the path of a service's directory.
    fn service(&self, name: &str) -> String {
        format!("{}/{}", self.root, encoded(&segment(name)))
    }

    /// Returns the path of an instance's directory.
    fn directory(&self, registration: &ServiceRegistration) -> String {
        format!("{}/{}", self.service(&registration.name), encoded(&segment(&registration.id)))
    }

    async fn request(&self, method: Method, path: &str, form: String) -> Result<V2Reply, RegistryError> {
        let request = self.build_request(method, path, form)?;
        self.servers.request(|http, limit| send(http, request.clone(), limit)).await
    }

    fn build_request(&self, method: Method, path: &str, form: String) -> Result<Request<Full<Bytes>>, RegistryError> {
        let mut request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, FORM);
        if let Some(user) = &self.user {
            request = request.header(AUTHORIZATION, user);
        }
        request.body(Full::from(form)).map_err(|error| RegistryError::Rejected(format!("{path}: {error}")))
    }

    /// Returns whether an instance's directory still has its file.
    async fn has_content(&self, registration: &ServiceRegistration) -> Result<bool, RegistryError> {
        let path = format!("{}/service", self.directory(registration));
        let answer = self.request(Method::GET, &path, String::new()).await?;
        Ok(matches!(answer.outcome, V2Outcome::Done(_)))
    }

    /// Renews the `ttl` of an instance's directory. Returns whether it exists.
    async fn refresh(&self, registration: &ServiceRegistration) -> Result<bool, RegistryError> {
        let path = format!("{}?dir=true&prevExist=true", self.directory(registration));
        let answer = self.request(Method::PUT, &path, form(registration)).await?;
        Ok(matches!(answer.outcome, V2Outcome::Done(_)))
    }

    async fn delete(&self, registration: &ServiceRegistration) -> Result<(), RegistryError> {
        let path = format!("{}?dir=true&recursive=true", self.directory(registration));
        self.request(Method::DELETE, &path, String::new()).await.map(drop)
    }

    /// Returns the current instances and etcd's index.
    async fn list(&self, query: &ServiceQuery) -> Result<(Vec<ServiceInstance>, Option<u64>), RegistryError> {
        let path = format!("{}?quorum=false&recursive=true&sorted=false", self.service(&query.name));
        let answer = self.request(Method::GET, &path, String::new()).await?;
        let V2Outcome::Done(body) = answer.outcome else { return Ok((Vec::new(), answer.index)) };
        let stored: V2Response = json::parse(&body).map_err(|error| {
            RegistryError::InvalidResponse(format!("invalid etcd response for {}: {error}", query.name))
        })?;
        let directories = stored.node.nodes.iter().filter(|node| node.dir);
        // Entries without tags may have any: ContainerPilot never writes them.
        let wanted = |entry: &StoredInstance| entry.has_no_tags() || entry.has_tag(query);
        let instances =
            self.filter.instances(directories.filter_map(V2Node::entry).filter(wanted).map(Candidate::from));
        Ok((instances, answer.index))
    }

    /// Waits until a service's instances may have changed since an index. False if etcd cannot wait for that.
    async fn wait_for_change(&self, name: &str, mut since: u64, limit: Duration) -> Result<bool, RegistryError> {
        let Some(http) = self.servers.current() else { return Ok(false) };
        let service = self.service(name);
        loop {
            let path = format!("{service}?wait=true&recursive=true&waitIndex={}", since.saturating_add(1));
            match send(http, self.build_request(Method::GET, &path, String::new())?, limit).await?.outcome {
                V2Outcome::Done(body) => match json::parse::<V2Event>(&body) {
                    Ok(event) if event.is_heartbeat() => since = event.node.modified_index,
                    event => return Ok(event.is_ok()),
                },
                V2Outcome::Cleared => return Ok(true),
                V2Outcome::NotFound | V2Outcome::NotAFile => return Ok(false),
            }
        }
    }
}

impl V2Node {
    /// Reads the instance in a directory.
    fn entry(&self) -> Option<StoredInstance> {
        let file = self.nodes.iter().find(|node| node.key.strip_prefix(&self.key) == Some("/service"))?;
        StoredInstance::read(&file.key, file.value.as_ref()?.as_bytes())
    }
}

impl V2Event {
    /// Returns whether an instance only renewed its `ttl`.
    fn is_heartbeat(&self) -> bool {
        self.action == "update" && self.node.dir
    }
}

impl Registry for EtcdV2 {
    fn register<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>> {
        async move {
            let directory = self.directory(registration);
            for _ in 0..MAX_ATTEMPTS {
                let created = self.request(Method::PUT, &format!("{directory}?dir=true"), form(registration)).await?;
                // The directory may exist already.
                if matches!(created.outcome, V2Outcome::Done(_)) || self.refresh(registration).await? {
                    let content = format!("value={}", encoded(&StoredInstance::content(registration)));
                    return self.request(Method::PUT, &format!("{directory}/service"), content).await.map(drop);
                }
            }
            Err(RegistryError::Unavailable(format!(
                "registration of {} keeps being removed from etcd",
                registration.id
            )))
        }
        .boxed()
    }

    fn pass<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>> {
        async move {
            let is_registered = self.refresh(registration).await? && self.has_content(registration).await?;
            if is_registered { Ok(()) } else { Err(RegistryError::NotRegistered(registration.id.clone())) }
        }
        .boxed()
    }

    fn deregister<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.delete(registration).boxed()
    }

    fn instances<'a>(
        &'a self,
        query: &'a ServiceQuery,
        since: Option<ChangeIndex>,
        max_wait: Duration,
    ) -> BoxFuture<'a, Result<QueryResult, RegistryError>> {
        async move {
            let mut waited = true;
            if let Some(ChangeIndex(since)) = since {
                // A limit above the longest wait: a wait that lasts long does not mean that the server is dead.
                let wait_for_change = self.wait_for_change(&query.name, since, max_wait.saturating_mul(2));
                let wait_for_change = time::timeout(max_wait, wait_for_change).await.unwrap_or(Ok(true));
                waited = wait_for_change.unwrap_or_else(|error| {
                    debug!(%error, "waiting for a change in etcd failed");
                    false
                });
            }
            let (instances, index) = self.list(query).await?;
            // If waiting fails although requests succeed, it is not to be retried immediately.
            Ok(QueryResult { instances, index: index.filter(|_| waited).map(ChangeIndex) })
        }
        .boxed()
    }
}

fn form(registration: &ServiceRegistration) -> String {
    format!("ttl={}", seconds(registration.ttl))
}

async fn send(http: &HttpClient, request: Request<Full<Bytes>>, limit: Duration) -> Result<V2Reply, RegistryError> {
    let response = http.call(request, limit, http_client::MAX_LIST_BODY).await?;
    let index = response.headers().get(INDEX).and_then(|index| index.to_str().ok()?.parse().ok());
    let code = json::parse(response.body()).ok().map(|V2Error { error_code }| error_code);
    let outcome = match (response.status(), code) {
        (status, _) if status.is_success() => V2Outcome::Done(response.into_body()),
        (_, Some(100)) => V2Outcome::NotFound,
        (_, Some(102)) => V2Outcome::NotAFile,
        (_, Some(401)) => V2Outcome::Cleared,
        (status, _) => {
            let text = http_client::text(&response);
            return Err(error_for_status(status, http.address(), &text, "are its v2 keys enabled (--enable-v2)?"));
        }
    };
    Ok(V2Reply { outcome, index })
}
