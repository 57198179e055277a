//! What the stand-in is asked, and what it answers.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Incoming};
use serde_json::Value;
use tokio::{sync::watch, time::sleep_until};

use super::catalog::{Catalog, Refusal, duration};

/// How long a query waits when it does not say.
const WAIT: Duration = Duration::from_mins(5);

/// One request that came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path, percent-encoded as it came.
    pub path: String,
    /// What follows the `?`, likewise.
    pub query: String,
    /// The body; null when it is no JSON.
    pub body: Value,
    /// The header `X-Consul-Token`.
    pub token: Option<String>,
}

/// A code, a body, and an index.
type Answer = (u16, Bytes, Option<u64>);

#[derive(Default)]
pub(super) struct Api {
    state: Mutex<State>,
    /// How often those who wait had to look again.
    changes: watch::Sender<u64>,
    stalled: watch::Sender<bool>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) catalog: Catalog,
    pub(super) asked: Vec<Asked>,
    pub(super) token: Option<String>,
    pub(super) old: bool,
    pub(super) always: Option<Answer>,
}

impl Api {
    /// What there is now.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.catalog.settle(Instant::now());
        state
    }

    /// Changes it, and lets those who wait know.
    pub(super) fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let done = act(&mut self.state());
        self.changes.send_modify(|count| *count += 1);
        done
    }

    /// Takes requests without answering, or goes on.
    pub(super) fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
        let asked = Asked {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            token: head.headers.get("x-consul-token").and_then(|token| Some(token.to_str().ok()?.to_owned())),
        };
        self.state().asked.push(asked.clone());
        self.until_resumed().await;
        let answer = match decoded(head.uri.path()).strip_prefix("/v1/health/service/") {
            Some(name) if head.method == Method::GET => self.query(name, &head.uri, asked.token.as_deref()).await,
            _ => self.change(|state| state.carry_out(&head.method, &head.uri, &asked)),
        };
        self.until_resumed().await;
        let (code, body, index) = answer.unwrap_or_else(|(code, text)| (code, Bytes::from(text), None));
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
        if let Some(index) = index {
            response.headers_mut().insert("x-consul-index", index.into());
        }
        response
    }

    async fn until_resumed(&self) {
        _ = self.stalled.subscribe().wait_for(|stalled| !stalled).await;
    }

    async fn query(&self, name: &str, uri: &Uri, token: Option<&str>) -> Result<Answer, Refusal> {
        let since: u64 = parameter(uri, "index").and_then(|index| index.parse().ok()).unwrap_or_default();
        let wait = parameter(uri, "wait").and_then(|wait| duration(&wait)).unwrap_or(WAIT);
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

impl State {
    /// Lets in whoever shows the token, if one is needed, and gives what is always answered, if something is.
    fn admit(&self, token: Option<&str>) -> Result<Option<Answer>, Refusal> {
        if self.token.as_deref().is_some_and(|needed| token != Some(needed)) {
            return Err((403, "Permission denied".to_owned()));
        }
        Ok(self.always.clone())
    }

    fn carry_out(&mut self, method: &Method, uri: &Uri, asked: &Asked) -> Result<Answer, Refusal> {
        if let Some(always) = self.admit(asked.token.as_deref())? {
            return Ok(always);
        }
        let path = decoded(uri.path());
        let now = Instant::now();
        let words: Vec<_> = path.splitn(6, '/').skip(1).collect();
        let answer = match (method, &*words) {
            (&Method::PUT, ["v1", "agent", "service", "register"]) => {
                let replace =
                    parameter(uri, "replace-existing-checks").is_some_and(|value| ["", "true"].contains(&&*value));
                self.catalog.register(&asked.body, replace, now)?;
                String::new()
            }
            (&Method::PUT, ["v1", "agent", "check", "register"]) => {
                self.catalog.register_check(&asked.body, now)?;
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

    fn unknown(&self, what: &str, id: &str) -> Refusal {
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
