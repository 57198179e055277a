//! Services at a Consul agent, as ContainerPilot has them: same ids, names and notes, so that both find and replace each
//! other's.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};

use super::{
    ConsulAddress, Discovery, DiscoveryError, Found, Instance, Mark, OpenError, Registration, Sought,
    http::{self, Http, encoded},
};

/// How long the agent may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// The longest that an agent waits for a change.
const LONGEST_WAIT: Duration = Duration::from_mins(10);
/// Most characters of a note.
const LONGEST_NOTE: usize = 1000;
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
/// What agents that do not answer 404 say of a check or a service that they do not know (any more).
const UNKNOWN: [&str; 3] = ["Unknown check", "Unknown service", "does not have associated TTL"];

/// A Consul agent.
pub struct Consul {
    http: Http,
    token: Option<HeaderValue>,
}

/// What an agent is told of a service.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Service<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    tags: &'a [String],
    port: u16,
    address: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    enable_tag_override: bool,
    check: Check<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Check<'a> {
    #[serde(rename = "CheckID")]
    id: &'a str,
    name: &'a str,
    notes: String,
    #[serde(rename = "TTL")]
    ttl: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deregister_critical_service_after: Option<&'a str>,
}

/// What an agent tells of an instance, as far as it matters.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Listed,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(rename = "ID")]
    id: String,
    address: String,
    port: i64,
}

impl Consul {
    /// An agent at an address, which is asked for the first time when something is asked of it.
    ///
    /// # Errors
    /// When the address is none, or a file for TLS cannot be used.
    pub fn new(address: &ConsulAddress) -> Result<Self, OpenError> {
        let ConsulAddress { address, scheme, token, tls } = address;
        let token = token.as_deref().map(|token| {
            let mut token = HeaderValue::from_str(token).map_err(|_| OpenError::Token)?;
            token.set_sensitive(true);
            Ok(token)
        });
        Ok(Self { http: Http::new(*scheme, address, tls)?, token: token.transpose()? })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        limit: Duration,
        most: usize,
    ) -> Result<Response<Bytes>, DiscoveryError> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = &self.token {
            request = request.header(TOKEN, token);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::from(body));
        let request = request.map_err(|error| DiscoveryError::Refused(format!("{path}: {error}")))?;
        self.http.call(request, limit, most).await
    }

    /// Commands the agent, and says whether it knew what the command is about.
    async fn put(&self, path: &str, body: Vec<u8>) -> Result<bool, DiscoveryError> {
        let response = self.ask(Method::PUT, path, body, LIMIT, http::SHORT).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(true);
        }
        let text = http::text(&response);
        let unknown = status == StatusCode::NOT_FOUND
            || status == StatusCode::INTERNAL_SERVER_ERROR && UNKNOWN.iter().any(|unknown| text.contains(unknown));
        if unknown { Ok(false) } else { Err(self.judged(status, path, &text)) }
    }

    /// What a code means that is no success.
    fn judged(&self, status: StatusCode, path: &str, text: &str) -> DiscoveryError {
        let path = path.split('?').next().unwrap_or_default();
        let message = format!("Consul at {} answered {status} to {path}: {text}", self.http.address());
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            DiscoveryError::Unavailable(message)
        } else if status.is_client_error() && status != StatusCode::NOT_FOUND {
            DiscoveryError::Refused(message)
        } else {
            DiscoveryError::Unexpected(message)
        }
    }

    async fn update(&self, status: &str, registration: &Registration, note: &str) -> Result<(), DiscoveryError> {
        let note: String = note.chars().take(LONGEST_NOTE).collect();
        let path = format!("/v1/agent/check/{status}/{}?note={}", encoded(&registration.id), encoded(&note));
        if self.put(&path, Vec::new()).await? {
            Ok(())
        } else {
            Err(DiscoveryError::Forgotten(registration.id.clone()))
        }
    }

    async fn list(&self, sought: &Sought, since: Option<Mark>, patience: Duration) -> Result<Found, DiscoveryError> {
        // From 0 on nothing is waited for.
        let since = since.map(|mark| mark.0).filter(|index| *index > 0);
        // No seconds would be five minutes.
        let wait = patience.min(LONGEST_WAIT).as_secs().max(1);
        let tag = sought.tag.as_ref().map_or_else(String::new, |tag| format!("&tag={}", encoded(tag)));
        let index = since.map_or_else(String::new, |index| format!("&index={index}&wait={wait}s"));
        let path = format!("/v1/health/service/{}?passing=1{tag}{index}", encoded(&sought.name));
        // The agent adds up to a sixteenth of its own.
        let limit = if since.is_some() { LIMIT + Duration::from_secs(wait + wait / 16) } else { LIMIT };
        let response = self.ask(Method::GET, &path, Vec::new(), limit, http::LONG).await?;
        if response.status() != StatusCode::OK {
            return Err(self.judged(response.status(), &path, &http::text(&response)));
        }
        let instances = instances(response.body()).map_err(|error| {
            let address = self.http.address();
            DiscoveryError::Unexpected(format!("the instances that Consul at {address} tells cannot be read: {error}"))
        })?;
        let index = response.headers().get(INDEX).and_then(|index| index.to_str().ok()?.parse().ok());
        Ok(Found { instances, mark: index.map(|index| mark(since, index)) })
    }
}

/// The instances in an answer. Ones at a port that cannot be are left out: ContainerPilot registered such, too.
fn instances(body: &[u8]) -> Result<Vec<Instance>, serde_json::Error> {
    let entries: Option<Vec<Entry>> = serde_json::from_slice(body)?;
    let instances = entries.into_iter().flatten().filter_map(|Entry { node, service }| {
        let address = if service.address.is_empty() { node.address } else { service.address };
        Some(Instance { id: service.id, address, port: u16::try_from(service.port).ok()? })
    });
    let mut instances: Vec<_> = instances.collect();
    instances.sort();
    Ok(instances)
}

/// What to wait from next, as Consul wants it done: from anew when its index went back, and never from 0, which some versions
/// tell by mistake.
fn mark(since: Option<u64>, index: u64) -> Mark {
    let index = index.max(1);
    if since.is_some_and(|since| index < since) { Mark(0) } else { Mark(index) }
}

impl Discovery for Consul {
    fn register<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        Box::pin(async move {
            let Registration { id, name, address, port, tags, ttl, .. } = registration;
            let service = Service {
                id,
                name,
                tags,
                port: *port,
                address: address.to_string(),
                enable_tag_override: registration.enable_tag_override,
                check: Check {
                    id,
                    name: id,
                    notes: format!("TTL for {name} set by containerpilot"),
                    ttl: format!("{}s", ttl.as_secs().max(1)),
                    status: "passing",
                    deregister_critical_service_after: registration.deregister_critical_service_after.as_deref(),
                },
            };
            let body = serde_json::to_vec(&service).map_err(|e| DiscoveryError::Refused(format!("{id}: {e}")))?;
            // Checks of other ids stay: they are an operator's, who may have the service in maintenance by one.
            let path = "/v1/agent/service/register";
            if !self.put(path, body).await? {
                return Err(self.judged(StatusCode::NOT_FOUND, path, "it does not seem to be a Consul agent"));
            }
            // A check of the same id that was there keeps its status, which may be critical.
            self.pass(registration).await
        })
    }

    fn pass<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        Box::pin(self.update("pass", registration, "ok"))
    }

    fn fail<'a>(&'a self, registration: &'a Registration, note: &'a str) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        Box::pin(self.update("fail", registration, note))
    }

    fn deregister<'a>(&'a self, registration: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        Box::pin(async move {
            let path = format!("/v1/agent/service/deregister/{}", encoded(&registration.id));
            self.put(&path, Vec::new()).await.map(|_known| ())
        })
    }

    fn instances<'a>(
        &'a self,
        sought: &'a Sought,
        since: Option<Mark>,
        patience: Duration,
    ) -> BoxFuture<'a, Result<Found, DiscoveryError>> {
        Box::pin(self.list(sought, since, patience))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn instances_without_an_address_are_at_their_node_s() {
        let body = br#"[
            {"Node": {"Node": "n", "Address": "10.0.0.9"}, "Service": {"ID": "b", "Address": "", "Port": 1, "Tags": null}},
            {"Node": {"Address": "10.0.0.9"}, "Service": {"ID": "a", "Address": "10.0.0.1", "Port": 65535}, "Checks": []},
            {"Node": {"Address": "10.0.0.9"}, "Service": {"ID": "c", "Address": "10.0.0.1", "Port": 70000}}
        ]"#;
        let instance =
            |id: &str, address: &str, port| Instance { id: id.to_owned(), address: address.to_owned(), port };
        assert_eq!(instances(body).unwrap(), [instance("a", "10.0.0.1", 65535), instance("b", "10.0.0.9", 1)]);
        assert_eq!(instances(b"[]").unwrap(), []);
        assert_eq!(instances(b"null").unwrap(), []);
    }

    #[test]
    fn the_index_to_wait_from_follows_consul_s_rules() {
        assert_eq!(mark(None, 7), Mark(7));
        assert_eq!(mark(Some(7), 7), Mark(7), "nothing changed");
        assert_eq!(mark(Some(7), 8), Mark(8));
        assert_eq!(mark(Some(7), 6), Mark(0), "it went back");
        assert_eq!(mark(Some(7), 0), Mark(0), "it went back");
        assert_eq!(mark(None, 0), Mark(1), "0 would not wait");
        assert_eq!(mark(Some(1), 0), Mark(1), "0 would not wait");
    }

    proptest! {
        #[test]
        fn whatever_is_answered_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            _ = instances(&body);
        }
    }
}
