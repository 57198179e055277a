//! etcd by its v2 keys, as ContainerPilot has them, so that both find each other's: an instance is a directory
//! `<prefix>/<name>/<id>` that lives for the `ttl`, with a file `service` in it.
//!
//! ContainerPilot cannot register what is still there from before; here the directory is kept and what is in it replaced.

use std::{iter, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode, Uri,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
    http::uri::Authority,
};
use serde::Deserialize;
use tokio::time;
use tracing::debug;

use super::{endpoints, seconds, servers::Servers};
use crate::{
    cluster::json,
    discovery::{
        Discovery, DiscoveryError, EtcdAddress, Found, Instance, Mark, OpenError, Registration, Scheme, Sought,
        entry::{Entry, segment},
        http::{self, Http, encoded},
    },
};

const INDEX: HeaderName = HeaderName::from_static("x-etcd-index");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// How often something is registered when its directory comes and goes meanwhile.
const ATTEMPTS: usize = 5;

/// An etcd cluster, spoken to by its v2 keys, which servers older than 3.6 have: those from 3.4 on when told so
/// (`--enable-v2`).
pub struct EtcdV2 {
    servers: Servers<Http>,
    /// The path of the prefix.
    root: String,
}

/// A node as etcd tells it, as far as it matters.
#[derive(Deserialize)]
struct Node {
    key: String,
    #[serde(default)]
    dir: bool,
    value: Option<String>,
    #[serde(default)]
    nodes: Vec<Node>,
}

/// What is kept at a key.
#[derive(Deserialize)]
struct Kept {
    node: Node,
}

/// Something that has happened.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    action: String,
    node: Changed,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    #[serde(default)]
    dir: bool,
    modified_index: u64,
}

/// Why something was not done.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    error_code: u64,
}

/// What was answered, and etcd's index by then.
struct Answer {
    outcome: Outcome,
    index: Option<u64>,
}

enum Outcome {
    Done(Bytes),
    /// There is nothing at that key.
    NotFound,
    /// There is a directory at that key.
    NotAFile,
    /// What happened since that index is not known any more.
    Cleared,
}

impl EtcdV2 {
    /// The cluster at this address, whether it is there or not.
    ///
    /// # Errors
    /// When something of the address cannot be used, files for TLS included.
    pub fn new(address: &EtcdAddress) -> Result<Self, OpenError> {
        let server = |(scheme, uri): (Scheme, Uri)| {
            Http::new(scheme, uri.authority().map_or("", Authority::as_str), &address.tls)
        };
        let servers = endpoints(address)?.into_iter().map(server).collect::<Result<_, _>>()?;
        let segments = address.prefix.split('/').filter(|segment| !segment.is_empty());
        let root: Vec<_> = iter::once("/v2/keys".to_owned()).chain(segments.map(encoded)).collect();
        Ok(Self { servers: Servers::new(servers), root: root.join("/") })
    }

    /// The path of a service's directory.
    fn service(&self, name: &str) -> String {
        format!("{}/{}", self.root, encoded(&segment(name)))
    }

    /// The path of an instance's directory.
    fn directory(&self, registration: &Registration) -> String {
        format!("{}/{}", self.service(&registration.name), encoded(&segment(&registration.id)))
    }

    async fn ask(&self, method: Method, path: &str, form: String) -> Result<Answer, DiscoveryError> {
        let request = request(method, path, form)?;
        self.servers.ask(|http, limit| ask(http, request.clone(), limit)).await
    }

    /// Lets an instance's directory live for the `ttl` from now on. Whether it was there.
    async fn refresh(&self, registration: &Registration) -> Result<bool, DiscoveryError> {
        let path = format!("{}?dir=true&prevExist=true", self.directory(registration));
        let answer = self.ask(Method::PUT, &path, form(registration)).await?;
        Ok(matches!(answer.outcome, Outcome::Done(_)))
    }

    async fn remove(&self, registration: &Registration) -> Result<(), DiscoveryError> {
        let path = format!("{}?dir=true&recursive=true", self.directory(registration));
        self.ask(Method::DELETE, &path, String::new()).await.map(drop)
    }

    /// The instances right now, and etcd's index.
    async fn list(&self, sought: &Sought) -> Result<(Vec<Instance>, Option<u64>), DiscoveryError> {
        let path = format!("{}?quorum=false&recursive=true&sorted=false", self.service(&sought.name));
        let answer = self.ask(Method::GET, &path, String::new()).await?;
        let Outcome::Done(body) = answer.outcome else { return Ok((Vec::new(), answer.index)) };
        let kept: Kept = json::read(&body).map_err(|error| {
            DiscoveryError::Unexpected(format!("what etcd keeps of {} cannot be read: {error}", sought.name))
        })?;
        let directories = kept.node.nodes.iter().filter(|node| node.dir);
        // Who does not tell tags, as ContainerPilot does not, may have any.
        let wanted = |entry: &Entry| entry.tells_no_tags() || entry.has_tag(sought);
        let mut instances: Vec<_> = directories.filter_map(Node::entry).filter(wanted).map(Instance::from).collect();
        instances.sort_unstable();
        Ok((instances, answer.index))
    }

    /// Waits until a service's instances may have changed since an index. False when that cannot be waited for.
    async fn changed(&self, name: &str, mut since: u64, limit: Duration) -> Result<bool, DiscoveryError> {
        let Some(http) = self.servers.current() else { return Ok(false) };
        let service = self.service(name);
        loop {
            let path = format!("{service}?wait=true&recursive=true&waitIndex={}", since.saturating_add(1));
            match ask(http, request(Method::GET, &path, String::new())?, limit).await?.outcome {
                Outcome::Done(body) => match json::read::<Event>(&body) {
                    Ok(event) if event.is_heartbeat() => since = event.node.modified_index,
                    event => return Ok(event.is_ok()),
                },
                Outcome::Cleared => return Ok(true),
                Outcome::NotFound | Outcome::NotAFile => return Ok(false),
            }
        }
    }
}

impl Node {
    /// The instance in a directory.
    fn entry(&self) -> Option<Entry> {
        let file = self.nodes.iter().find(|node| node.key.strip_prefix(&self.key) == Some("/service"))?;
        Entry::read(&file.key, file.value.as_ref()?.as_bytes())
    }
}

impl Event {
    /// Whether an instance did but say that it is healthy.
    fn is_heartbeat(&self) -> bool {
        self.action == "update" && self.node.dir
    }
}

impl Discovery for EtcdV2 {
    fn register<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        async move {
            let directory = self.directory(registration);
            for _ in 0..ATTEMPTS {
                let created = self.ask(Method::PUT, &format!("{directory}?dir=true"), form(registration)).await?;
                // It may still be there from before.
                if matches!(created.outcome, Outcome::Done(_)) || self.refresh(registration).await? {
                    let content = format!("value={}", encoded(&Entry::content(registration)));
                    return self.ask(Method::PUT, &format!("{directory}/service"), content).await.map(drop);
                }
            }
            Err(DiscoveryError::Unavailable(format!(
                "somebody else removes {} from etcd all the time",
                registration.id
            )))
        }
        .boxed()
    }

    fn pass<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        async move {
            let is_there = self.refresh(registration).await?;
            if is_there { Ok(()) } else { Err(DiscoveryError::Forgotten(registration.id.clone())) }
        }
        .boxed()
    }

    fn fail<'a>(&'a self, registration: &'a Registration, _: &'a str) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        self.remove(registration).boxed()
    }

    fn deregister<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        self.remove(registration).boxed()
    }

    fn instances<'a>(
        &'a self,
        sought: &'a Sought,
        since: Option<Mark>,
        patience: Duration,
    ) -> BoxFuture<'a, Result<Found, DiscoveryError>> {
        async move {
            let mut waited = true;
            if let Some(Mark(since)) = since {
                // A limit beyond the patience: that somebody waited for long says nothing about the server.
                let changed = self.changed(&sought.name, since, patience.saturating_mul(2));
                let changed = time::timeout(patience, changed).await.unwrap_or(Ok(true));
                waited = changed.unwrap_or_else(|error| {
                    debug!("etcd cannot be waited for: {error}");
                    false
                });
            }
            let (instances, index) = self.list(sought).await?;
            // Where waiting fails but questions are answered, it is not to be tried again at once.
            Ok(Found { instances, mark: index.filter(|_| waited).map(Mark) })
        }
        .boxed()
    }
}

fn form(registration: &Registration) -> String {
    format!("ttl={}", seconds(registration.ttl))
}

fn request(method: Method, path: &str, form: String) -> Result<Request<Full<Bytes>>, DiscoveryError> {
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, FORM).body(Full::from(form));
    request.map_err(|error| DiscoveryError::Refused(format!("{path}: {error}")))
}

async fn ask(http: &Http, request: Request<Full<Bytes>>, limit: Duration) -> Result<Answer, DiscoveryError> {
    let response = http.call(request, limit, http::LONG).await?;
    let index = response.headers().get(INDEX).and_then(|index| index.to_str().ok()?.parse().ok());
    let code = json::read(response.body()).ok().map(|Failure { error_code }| error_code);
    let outcome = match (response.status(), code) {
        (status, _) if status.is_success() => Outcome::Done(response.into_body()),
        (_, Some(100)) => Outcome::NotFound,
        (_, Some(102)) => Outcome::NotAFile,
        (_, Some(401)) => Outcome::Cleared,
        (status, _) => return Err(judged(status, http.address(), &http::text(&response))),
    };
    Ok(Answer { outcome, index })
}

/// What a code means that is no success.
fn judged(status: StatusCode, address: &str, text: &str) -> DiscoveryError {
    let told = format!("etcd at {address} answered {status}: {text}");
    match status {
        StatusCode::NOT_FOUND => DiscoveryError::Refused(format!("{told} (are its v2 keys enabled, --enable-v2?)")),
        _ if status.is_server_error() => DiscoveryError::Unavailable(told),
        _ if status.is_client_error() => DiscoveryError::Refused(told),
        _ => DiscoveryError::Unexpected(told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_none_of_a_store_says_what_to_do() {
        let judged = |code| judged(StatusCode::from_u16(code).unwrap(), "h:1", "text");
        let told = |error| format!("etcd at h:1 answered {error}: text");
        assert_eq!(judged(500), DiscoveryError::Unavailable(told("500 Internal Server Error")));
        assert_eq!(judged(401), DiscoveryError::Refused(told("401 Unauthorized")));
        assert_eq!(judged(302), DiscoveryError::Unexpected(told("302 Found")));
        assert!(matches!(judged(404), DiscoveryError::Refused(text) if text.contains("--enable-v2")));
    }
}
