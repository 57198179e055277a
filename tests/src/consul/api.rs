//! Requests to the fake agent, and its replies.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Incoming, header::HeaderValue};
use serde_json::Value;
use tokio::{sync::watch, time::sleep_until};

use super::catalog::{ApiRejection, Catalog, duration};

/// Default time that a query waits.
const DEFAULT_WAIT: Duration = Duration::from_mins(5);

/// One received request.
#[derive(Debug, Clone)]
pub struct RecordedCall {
    /// The method.
    pub method: String,
    /// The path, percent-encoded as received.
    pub path: String,
    /// The query after the `?`, likewise.
    pub query: String,
    /// The body; null if it is not JSON.
    pub body: Value,
    /// The header `X-Consul-Token`.
    pub token: Option<String>,
}

/// A code, a body, and an index.
type CannedReply = (u16, Bytes, Option<u64>);

#[derive(Default)]
pub(super) struct Api {
    state: Mutex<FakeConsulState>,
    /// Number of wake-ups of waiting queries.
    changes: watch::Sender<u64>,
    stalled: watch::Sender<bool>,
}

#[derive(Default)]
pub(super) struct FakeConsulState {
    pub(super) catalog: Catalog,
    pub(super) calls: Vec<RecordedCall>,
    pub(super) token: Option<String>,
    pub(super) old: bool,
    pub(super) always: Option<CannedReply>,
    pub(super) leaderless: bool,
}

impl Api {
    /// Returns the catalogue.
    pub(super) fn state(&self) -> MutexGuard<'_, FakeConsulState> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.catalog.settle(Instant::now());
        state
    }

    /// Changes it, and notifies waiting queries.
    pub(super) fn change<T>(&self, act: impl FnOnce(&mut FakeConsulState) -> T) -> T {
        let done = act(&mut self.state());
        self.changes.send_modify(|count| *count += 1);
        done
    }

    /// Accepts requests without answering them, or answers again.
    pub(super) fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
        let call = RecordedCall {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            token: head.headers.get("x-consul-token").and_then(|token| Some(token.to_str().ok()?.to_owned())),
        };
        self.state().calls.push(call.clone());
        self.until_resumed().await;
        let answer = match decoded(head.uri.path()).strip_prefix("/v1/health/service/") {
            Some(name) if head.method == Method::GET => self.query(name, &head.uri, call.token.as_deref()).await,
            _ => self.change(|state| state.execute(&head.method, &head.uri, &call)),
        };
        self.until_resumed().await;
        let (code, body, index) = answer.unwrap_or_else(|(code, text)| (code, Bytes::from(text), None));
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
        if let Some(index) = index {
            let leader = HeaderValue::from_static(if self.state().leaderless { "false" } else { "true" });
            response.headers_mut().insert("x-consul-index", index.into());
            response.headers_mut().insert("x-consul-knownleader", leader);
        }
        response
    }

    async fn until_resumed(&self) {
        _ = self.stalled.subscribe().wait_for(|stalled| !stalled).await;
    }

    async fn query(&self, name: &str, uri: &Uri, token: Option<&str>) -> Result<CannedReply, ApiRejection> {
        let since: u64 = parameter(uri, "index").and_then(|index| index.parse().ok()).unwrap_or_default();
        let wait = parameter(uri, "wait").and_then(|wait| duration(&wait)).unwrap_or(DEFAULT_WAIT);
        let (tag, passing) = (parameter(uri, "tag"), parameter(uri, "passing").is_some());
        let end = Instant::now() + wait;
        let mut changes = self.changes.subscribe();
        if let Some(always) = self.state().admit(token)? {
            return Ok(always);
        }
        loop {
            let next = {
                let state = self.state();
                let (index, entries) = state.catalog.health(name, tag.as_deref(), passing);
                if since == 0 || index > since || Instant::now() >= end {
                    return Ok((200, Bytes::from(entries.to_string()), Some(index)));
                }
                state.catalog.next().unwrap_or(end).min(end)
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep_until(next.into()) => {}
            }
        }
    }
}

impl FakeConsulState {
    /// Admits requests with the token, if one is required, and returns the canned reply, if any.
    fn admit(&self, token: Option<&str>) -> Result<Option<CannedReply>, ApiRejection> {
        if self.token.as_deref().is_some_and(|needed| token != Some(needed)) {
            return Err((403, "Permission denied".to_owned()));
        }
        Ok(self.always.clone())
    }

    fn execute(&mut self, method: &Method, uri: &Uri, call: &RecordedCall) -> Result<CannedReply, ApiRejection> {
        if let Some(always) = self.admit(call.token.as_deref())? {
            return Ok(always);
        }
        let path = decoded(uri.path());
        let now = Instant::now();
        let words: Vec<_> = path.splitn(6, '/').skip(1).collect();
        let answer = match (method, &*words) {
            (&Method::PUT, ["v1", "agent", "service", "register"]) => {
                let replace =
                    parameter(uri, "replace-existing-checks").is_some_and(|value| ["", "true"].contains(&&*value));
                self.catalog.register(&call.body, replace, now)?;
                String::new()
            }
            (&Method::PUT, ["v1", "agent", "check", "register"]) => {
                self.catalog.register_check(&call.body, now)?;
                String::new()
            }
            (&Method::PUT, ["v1", "agent", "check", what @ ("pass" | "warn" | "fail"), id]) => {
                let status = match *what {
                    "pass" => "passing",
                    "warn" => "warning",
                    _ => "critical",
                };
                let note = parameter(uri, "note").unwrap_or_default();
                if !self.catalog.update(id, status, &note, now) {
                    return Err(self.unknown("check", id));
                }
                String::new()
            }
            (&Method::PUT, ["v1", "agent", "service", "deregister", id]) => {
                if !self.catalog.remove(id) {
                    return Err(self.unknown("service", id));
                }
                String::new()
            }
            (&Method::GET, ["v1", "agent", "services"]) => self.catalog.services().to_string(),
            (&Method::GET, ["v1", "agent", "checks"]) => self.catalog.checks().to_string(),
            _ => return Err((404, "404 page not found".to_owned())),
        };
        Ok((200, Bytes::from(answer), None))
    }

    fn unknown(&self, what: &str, id: &str) -> ApiRejection {
        match what {
            "check" if self.old => (500, format!("CheckID {id:?} does not have associated TTL")),
            _ if self.old => (500, format!("Unknown service {id:?}")),
            _ => (404, format!("Unknown {what} ID {id:?}. Ensure that the {what} ID is passed, not the {what} name.")),
        }
    }
}

fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let pairs = uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| decoded(&value.replace('+', " "))).next()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let byte = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = byte.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        rest = if byte.is_some() { &tail[2..] } else { tail };
        bytes.push(byte.unwrap_or(*first));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
