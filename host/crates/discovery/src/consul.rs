//! Consul's agent API, with the ids, names and notes of ContainerPilot, so that both find and replace each other's
//! instances.

mod history;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::debug;

use self::history::History;
use super::{
    ChangeIndex, ConsulAddress, QueryResult, Registry, RegistryConfigError, RegistryError, ServiceQuery,
    ServiceRegistration,
    candidate::{Candidate, InstanceFilter},
    http_client::{self, HttpClient, encoded},
};

/// Timeout of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time that an agent waits for a change.
const MAX_WAIT: Duration = Duration::from_mins(10);
/// Most characters of a note.
const MAX_NOTE_CHARS: usize = 1000;
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const KNOWN_LEADER: HeaderName = HeaderName::from_static("x-consul-knownleader");
/// Texts of agents that do not answer 404 for an unknown check or service.
const UNKNOWN: [&str; 3] = ["Unknown check", "Unknown service", "does not have associated TTL"];

/// Client of a Consul agent.
pub struct Consul {
    http: HttpClient,
    token: Option<HeaderValue>,
    /// By query.
    history: Mutex<HashMap<ServiceQuery, History>>,
    filter: InstanceFilter,
}

/// A service, as it is registered.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AgentService<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    tags: &'a [String],
    port: u16,
    address: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    enable_tag_override: bool,
    check: AgentCheck<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AgentCheck<'a> {
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

/// An instance in a response, as far as it matters.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthEntry {
    node: HealthNode,
    service: HealthService,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthNode {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthService {
    #[serde(rename = "ID")]
    id: String,
    address: String,
    port: i64,
}

impl Consul {
    /// Creates a client of the agent at this address, whether it can be reached or not.
    ///
    /// # Errors
    /// If the address or the token is invalid, or a file for TLS cannot be used.
    pub fn new(address: &ConsulAddress) -> Result<Self, RegistryConfigError> {
        let ConsulAddress { address, scheme, token, tls } = address;
        let token = token.as_deref().map(self::token).transpose()?;
        Ok(Self {
            http: HttpClient::new(*scheme, address, tls)?,
            token,
            history: Mutex::default(),
            filter: InstanceFilter::default(),
        })
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        limit: Duration,
        max_bytes: usize,
    ) -> Result<Response<Bytes>, RegistryError> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = &self.token {
            request = request.header(TOKEN, token);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::from(body));
        let request = request.map_err(|error| RegistryError::Rejected(format!("{path}: {error}")))?;
        self.http.call(request, limit, max_bytes).await
    }

    /// Sends a command and returns whether the agent knew its subject.
    async fn put(&self, path: &str, body: Vec<u8>) -> Result<bool, RegistryError> {
        let response = self.request(Method::PUT, path, body, REQUEST_TIMEOUT, http_client::MAX_SMALL_BODY).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(true);
        }
        let text = http_client::text(&response);
        let unknown = status == StatusCode::NOT_FOUND
            || status == StatusCode::INTERNAL_SERVER_ERROR && UNKNOWN.iter().any(|unknown| text.contains(unknown));
        if unknown { Ok(false) } else { Err(self.error_for_status(status, path, &text)) }
    }

    /// Classifies a response that is not a success.
    fn error_for_status(&self, status: StatusCode, path: &str, text: &str) -> RegistryError {
        let path = path.split('?').next().unwrap_or_default();
        let message = format!("Consul at {} answered {status} to {path}: {text}", self.http.address());
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            RegistryError::Unavailable(message)
        } else if status.is_client_error() && status != StatusCode::NOT_FOUND {
            RegistryError::Rejected(message)
        } else {
            RegistryError::InvalidResponse(message)
        }
    }

    async fn update(&self, status: &str, registration: &ServiceRegistration, note: &str) -> Result<(), RegistryError> {
        let note: String = note.chars().take(MAX_NOTE_CHARS).collect();
        let path = format!("/v1/agent/check/{status}/{}?note={}", encoded(&registration.id), encoded(&note));
        if self.put(&path, Vec::new()).await? {
            Ok(())
        } else {
            Err(RegistryError::NotRegistered(registration.id.clone()))
        }
    }

    /// Returns whether a response may be trusted, given the earlier ones.
    fn is_trusted(&self, query: &ServiceQuery, index: u64, is_empty: bool) -> bool {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.entry(query.clone()).or_default().accept(index, is_empty, Instant::now())
    }

    /// Fails if the agent has an instance whose id differs only in case: the agent would know both, but its servers
    /// only the one that changed last.
    async fn reject_case_variant(&self, id: &str) -> Result<(), RegistryError> {
        let path = "/v1/agent/services";
        let response = self.request(Method::GET, path, Vec::new(), REQUEST_TIMEOUT, http_client::MAX_LIST_BODY).await?;
        if response.status() != StatusCode::OK {
            return match self.error_for_status(response.status(), path, &http_client::text(&response)) {
                error @ RegistryError::Unavailable(_) => Err(error),
                // Registering may be permitted nevertheless.
                error => {
                    debug!(id, %error, "cannot check for an instance id that differs only in case");
                    Ok(())
                }
            };
        }
        let address = self.http.address();
        match case_variant(response.body(), id) {
            Ok(None) => Ok(()),
            Ok(Some(other)) => Err(RegistryError::Rejected(format!(
                "invalid instance id {id:?}: Consul at {address} has {other:?} and ignores case, expected another service \
                 or host name"
            ))),
            Err(error) => {
                debug!(id, %error, "cannot check for an instance id that differs only in case");
                Ok(())
            }
        }
    }

    async fn list(
        &self,
        query: &ServiceQuery,
        since: Option<ChangeIndex>,
        max_wait: Duration,
    ) -> Result<QueryResult, RegistryError> {
        // Consul does not wait from 0 on.
        let since = since.map(|ChangeIndex(index)| index).filter(|index| *index > 0);
        // 0 s would mean five minutes.
        let wait = max_wait.min(MAX_WAIT).as_secs().max(1);
        let tag = query.tag.as_ref().map_or_else(String::new, |tag| format!("&tag={}", encoded(tag)));
        let index = since.map_or_else(String::new, |index| format!("&index={index}&wait={wait}s"));
        let path = format!("/v1/health/service/{}?passing=1{tag}{index}", encoded(&query.name));
        // The agent adds up to a sixteenth.
        let limit =
            if since.is_some() { REQUEST_TIMEOUT + Duration::from_secs(wait + wait / 16) } else { REQUEST_TIMEOUT };
        let response = self.request(Method::GET, &path, Vec::new(), limit, http_client::MAX_LIST_BODY).await?;
        if response.status() != StatusCode::OK {
            return Err(self.error_for_status(response.status(), &path, &http_client::text(&response)));
        }
        let candidates = candidates(response.body()).map_err(|error| {
            let address = self.http.address();
            RegistryError::InvalidResponse(format!("invalid instances from Consul at {address}: {error}"))
        })?;
        let instances = self.filter.instances(candidates);
        let address = self.http.address();
        if response.headers().get(KNOWN_LEADER).is_some_and(|known| known == "false") {
            let reason = format!("Consul at {address} has no leader: its instances of {} may be outdated", query.name);
            return Err(RegistryError::Unavailable(reason));
        }
        let index = response.headers().get(INDEX).and_then(|index| index.to_str().ok()?.parse().ok());
        if let Some(index) = index
            && !self.is_trusted(query, index, instances.is_empty())
        {
            let name = &query.name;
            let reason =
                format!("Consul at {address} went back to an earlier index and lists no instances of {name} yet");
            return Err(RegistryError::Unavailable(reason));
        }
        Ok(QueryResult { instances, index: index.map(|index| next_index(since, index)) })
    }
}

/// Converts a token to a header that no log shows.
pub(super) fn token(text: &str) -> Result<HeaderValue, RegistryConfigError> {
    let mut token = HeaderValue::from_str(text).map_err(|_| RegistryConfigError::Token)?;
    token.set_sensitive(true);
    Ok(token)
}

/// Reads the instances in a response, which are not validated yet.
fn candidates(body: &[u8]) -> Result<Vec<Candidate>, serde_json::Error> {
    let entries: Option<Vec<HealthEntry>> = serde_json::from_slice(body)?;
    let candidates = entries.into_iter().flatten().map(|HealthEntry { node, service }| {
        let address = if service.address.is_empty() { node.address } else { service.address };
        Candidate { id: service.id, address, port: service.port }
    });
    Ok(candidates.collect())
}

/// Finds the id in an agent's list of services that differs only in case.
fn case_variant(body: &[u8], id: &str) -> Result<Option<String>, serde_json::Error> {
    let services: Map<String, Value> = serde_json::from_slice(body)?;
    let lowercase = id.to_lowercase();
    Ok(services.into_iter().map(|(other, _)| other).find(|other| other != id && other.to_lowercase() == lowercase))
}

/// Returns the index to wait from next, by Consul's rules: start again if the index went back, and never wait from 0,
/// which some versions report by mistake.
fn next_index(since: Option<u64>, index: u64) -> ChangeIndex {
    let index = index.max(1);
    if since.is_some_and(|since| index < since) { ChangeIndex(0) } else { ChangeIndex(index) }
}

impl Registry for Consul {
    fn register<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(async move {
            let ServiceRegistration { id, name, address, port, tags, ttl, .. } = registration;
            self.reject_case_variant(id).await?;
            let service = AgentService {
                id,
                name,
                tags,
                port: *port,
                address: address.to_string(),
                enable_tag_override: registration.enable_tag_override,
                check: AgentCheck {
                    id,
                    name: id,
                    notes: format!("TTL for {name} set by containerpilot"),
                    ttl: format!("{}s", ttl.as_secs().max(1)),
                    status: "passing",
                    deregister_critical_service_after: registration.deregister_critical_service_after.as_deref(),
                },
            };
            let body = serde_json::to_vec(&service).map_err(|e| RegistryError::Rejected(format!("{id}: {e}")))?;
            // Checks of other ids stay: they are an operator's, who may have the service in maintenance by one.
            let path = "/v1/agent/service/register";
            if !self.put(path, body).await? {
                return Err(self.error_for_status(StatusCode::NOT_FOUND, path, "is this a Consul agent?"));
            }
            // A check of the same id that was there keeps its status, which may be critical.
            self.pass(registration).await
        })
    }

    fn pass<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(self.update("pass", registration, "ok"))
    }

    fn fail<'a>(
        &'a self,
        registration: &'a ServiceRegistration,
        note: &'a str,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(self.update("fail", registration, note))
    }

    fn keeps_leftovers(&self) -> bool {
        true
    }

    fn deregister<'a>(&'a self, registration: &'a ServiceRegistration) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(async move {
            let path = format!("/v1/agent/service/deregister/{}", encoded(&registration.id));
            self.put(&path, Vec::new()).await.map(|_known| ())
        })
    }

    fn instances<'a>(
        &'a self,
        query: &'a ServiceQuery,
        since: Option<ChangeIndex>,
        max_wait: Duration,
    ) -> BoxFuture<'a, Result<QueryResult, RegistryError>> {
        Box::pin(self.list(query, since, max_wait))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn instances_without_address_have_that_of_their_node() {
        let body = br#"[
            {"Node": {"Node": "n", "Address": "10.0.0.9"}, "Service": {"ID": "b", "Address": "", "Port": 1, "Tags": null}},
            {"Node": {"Address": "10.0.0.9"}, "Service": {"ID": "a", "Address": "10.0.0.1", "Port": 65535}, "Checks": []},
            {"Node": {"Address": "10.0.0.9"}, "Service": {"ID": "c", "Address": "10.0.0.1", "Port": 70000}}
        ]"#;
        let candidate =
            |id: &str, address: &str, port| Candidate { id: id.to_owned(), address: address.to_owned(), port };
        let expected =
            [candidate("b", "10.0.0.9", 1), candidate("a", "10.0.0.1", 65535), candidate("c", "10.0.0.1", 70000)];
        assert_eq!(candidates(body).unwrap(), expected);
        assert_eq!(candidates(b"[]").unwrap(), []);
        assert_eq!(candidates(b"null").unwrap(), []);
    }

    #[test]
    fn case_variant_is_another_id_that_differs_only_in_case() {
        for (services, expected) in [
            (r"{}", None),
            (r#"{"web-a": {"Port": 1}, "web-b": {}}"#, None),
            (r#"{"web-a": {}, "WEB-a": {}}"#, Some("WEB-a")),
            ("{\"\u{e4}-a\": null}", None),
        ] {
            assert_eq!(case_variant(services.as_bytes(), "web-a").unwrap().as_deref(), expected, "{services}");
        }
        assert_eq!(case_variant("{\"\u{c4}\": {}}".as_bytes(), "\u{e4}").unwrap().as_deref(), Some("\u{c4}"));
        assert!(case_variant(b"[]", "web-a").is_err());
    }

    #[test]
    fn next_index_follows_rules_of_consul() {
        assert_eq!(next_index(None, 7), ChangeIndex(7));
        assert_eq!(next_index(Some(7), 7), ChangeIndex(7), "nothing changed");
        assert_eq!(next_index(Some(7), 8), ChangeIndex(8));
        assert_eq!(next_index(Some(7), 6), ChangeIndex(0), "it went back");
        assert_eq!(next_index(Some(7), 0), ChangeIndex(0), "it went back");
        assert_eq!(next_index(None, 0), ChangeIndex(1), "0 would not wait");
        assert_eq!(next_index(Some(1), 0), ChangeIndex(1), "0 would not wait");
    }

    proptest! {
        #[test]
        fn any_response_is_read_or_rejected(body in prop::collection::vec(any::<u8>(), 0..200)) {
            _ = candidates(&body);
        }
    }
}
