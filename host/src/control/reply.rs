//! From what happened to status codes and JSON bodies.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};

use crate::{
    cluster::{PodId, wire},
    lifecycle::{Blame, Failure, Outcome, Overrun},
};

pub(crate) const JSON: &str = "application/json; charset=utf-8";
/// The page for Prometheus.
pub(crate) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Longest error of a refusal, in bytes.
const LONGEST: usize = 1000;

/// A whole reply.
pub(crate) type Reply = Response<Full<Bytes>>;

/// A request that is answered before anything was done.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: String,
    allow: Option<&'static str>,
    key: Option<HeaderValue>,
}

impl Refusal {
    /// The error is cut where it repeats something very long.
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        let mut error = error.into();
        error.truncate(error.floor_char_boundary(LONGEST));
        Self { status, error, allow: None, key: None }
    }

    pub(super) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn busy(error: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    pub(super) fn late(limit: Duration, what: &str) -> Self {
        let error = format!("the limit of {} s has passed: {what}", limit.as_secs_f64());
        Self::new(StatusCode::REQUEST_TIMEOUT, error)
    }

    pub(super) fn method(allow: &'static str) -> Self {
        let error = format!("the method is not allowed here, expected {allow}");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, error) }
    }

    /// The request is meant for another pod than this one.
    pub(super) fn stranger(error: impl Into<String>, own: &PodId) -> Self {
        Self { key: HeaderValue::from_str(own.as_str()).ok(), ..Self::new(StatusCode::CONFLICT, error) }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let mut reply = value(refusal.status, &json!({"error": refusal.error}));
        if refusal.status == StatusCode::UNAUTHORIZED {
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = refusal.allow {
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(key) = refusal.key {
            reply.headers_mut().insert(wire::KEY, key);
        }
        reply
    }
}

/// A reply with a body that is of its kind already.
pub(crate) fn body(status: StatusCode, body: Bytes, kind: &'static str) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

pub(super) fn value(status: StatusCode, json: &Value) -> Reply {
    body(status, Bytes::from(json.to_string()), JSON)
}

pub(super) fn ok() -> Reply {
    body(StatusCode::OK, Bytes::from_static(b"{}"), JSON)
}

/// What came of a control request.
pub(super) fn outcome(outcome: Outcome, limit: Duration) -> Reply {
    match outcome {
        Outcome::Done(json) => value(StatusCode::OK, &json),
        Outcome::Refused(failure) => failed(StatusCode::NOT_ACCEPTABLE, &failure),
        Outcome::Failed(failure) => failed(StatusCode::INTERNAL_SERVER_ERROR, &failure),
        Outcome::TimedOut(overrun) => {
            let what = match overrun {
                Overrun::Dropped => "it was dropped before it began",
                Overrun::GoesOn => "it had begun and goes on",
                Overrun::Stopped => "the plugin was stopped in it",
            };
            Refusal::late(limit, what).into()
        }
        Outcome::Superseded(error) => Refusal::new(StatusCode::CONFLICT, error).into(),
        Outcome::Lapsed => Refusal::busy("who holds the lock has to be found out anew").into(),
        Outcome::Gone(error) => Refusal::new(StatusCode::GONE, error).into(),
    }
}

pub(super) fn failed(status: StatusCode, failure: &Failure) -> Reply {
    let blame = match failure.blame {
        Blame::Plugin => "plugin",
        Blame::Host => "host",
    };
    let mut json = json!({"error": failure.message, "blame": blame});
    if let (Some(callback), Value::Object(fields)) = (failure.callback, &mut json) {
        fields.insert("callback".to_owned(), callback.into());
    }
    value(status, &json)
}
