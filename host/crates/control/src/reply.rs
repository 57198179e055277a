//! Replies: status codes, headers and typed JSON bodies.

use std::time::Duration;

use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{ALLOW, HeaderValue, WWW_AUTHENTICATE},
};
use ochopod_http::{JSON, Reply, body};
use ochopod_lifecycle::{Failure, Outcome};
use ochopod_model::{PodId, reply::ErrorReply, wire};
use ochopod_telemetry::escape;
use serde::Serialize;

/// Maximum length of the text of an error.
const MAX_ERROR_BYTES: usize = 1000;

/// A request that is rejected before anything was done.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    error: String,
    allow: Option<&'static str>,
    key: Option<HeaderValue>,
    number: Option<u64>,
}

impl ApiError {
    /// Returns an error, whose text is cut if it is very long.
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        let mut error = error.into();
        error.truncate(error.floor_char_boundary(MAX_ERROR_BYTES));
        Self { status, error, allow: None, key: None, number: None }
    }

    pub(super) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn unavailable(error: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    pub(super) fn timed_out(limit: Duration, consequence: &str) -> Self {
        let error = format!("time limit of {} s exceeded: {consequence}", limit.as_secs_f64());
        Self::new(StatusCode::REQUEST_TIMEOUT, error)
    }

    pub(super) fn method(allow: &'static str) -> Self {
        let error = format!("method not allowed: expected {allow}");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, error) }
    }

    /// Creates the reply to a request whose number is not above this one.
    fn out_of_order(number: u64, error: impl Into<String>) -> Self {
        Self { number: Some(number), ..Self::new(StatusCode::CONFLICT, error) }
    }

    /// Creates the reply to a request for another pod.
    pub(super) fn wrong_pod(error: impl Into<String>, own: &PodId) -> Self {
        Self { key: HeaderValue::from_str(own.as_str()).ok(), ..Self::new(StatusCode::CONFLICT, error) }
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        let mut reply = json(error.status, &ErrorReply { number: error.number, ..ErrorReply::new(error.error) });
        if error.status == StatusCode::UNAUTHORIZED {
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = error.allow {
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(key) = error.key {
            reply.headers_mut().insert(wire::KEY, key);
        }
        if let Some(number) = error.number {
            reply.headers_mut().insert(wire::NUMBER, number.into());
        }
        reply
    }
}

/// Returns a reply with this value as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    body(status, encode(value), JSON)
}

/// Encodes a value as JSON in which control characters are escaped.
pub(super) fn encode(value: &impl Serialize) -> Bytes {
    // Only a map with keys other than strings cannot be encoded, and no reply has one.
    Bytes::from(escape::json(&serde_json::to_string(value).unwrap_or_default()))
}

pub(super) fn ok() -> Reply {
    body(StatusCode::OK, Bytes::from_static(b"{}"), JSON)
}

/// Returns the reply for the outcome of a control request.
pub(super) fn outcome(outcome: Outcome, limit: Duration) -> Reply {
    match outcome {
        Outcome::Done(value) => json(StatusCode::OK, &value),
        Outcome::Rejected(failure) => failed(StatusCode::NOT_ACCEPTABLE, failure),
        Outcome::Failed(failure) => failed(StatusCode::INTERNAL_SERVER_ERROR, failure),
        Outcome::TimedOut(result) => ApiError::timed_out(limit, &result.to_string()).into(),
        Outcome::Superseded(error) => ApiError::new(StatusCode::CONFLICT, error).into(),
        Outcome::Late(number, error) => ApiError::out_of_order(number, error).into(),
        Outcome::Unavailable(failure) => failed(StatusCode::SERVICE_UNAVAILABLE, failure),
        Outcome::EpochUnknown => ApiError::unavailable("lock holder unknown: try again later").into(),
        Outcome::Gone(error) => ApiError::new(StatusCode::GONE, error).into(),
        Outcome::Cordoned(reason) => {
            let error = ErrorReply::new(format!("pod is cordoned: {reason}"));
            json(StatusCode::GONE, &ErrorReply { cordon: Some(reason), ..error })
        }
    }
}

/// Returns the reply for a failure of the plugin or of the host.
pub(super) fn failed(status: StatusCode, failure: Failure) -> Reply {
    let Failure { callback, blame, message } = failure;
    let (callback, blame) = (callback.map(str::to_owned), Some(blame));
    json(status, &ErrorReply { callback, blame, ..ErrorReply::new(message) })
}
