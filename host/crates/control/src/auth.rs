//! Authorization of requests.
//!
//! | | with a token | without one |
//! |---|---|---|
//! | `/info`, `/healthz`, `/readyz`, `/metrics`, `OPTIONS` | any client | any client |
//! | `/log` | the token | any client |
//! | `/control` | the token, or a leader's signature | any client |
//! | `/exec`, `/reset`, `/reload` without a body | the token | loopback clients |
//! | `/reload` with a body | the token | clients with a certificate |
//! | `/control`, `/exec`, `/reset`, `/reload` from the addresses of plugins ([`is_guest_source`]) | the token | no client |
//! | any request with the header `Origin`, as browsers send it | the same | no client |
//!
//! A leader's signature is valid once and for five minutes: clocks of a cluster's machines may differ by at most that.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{AUTHORIZATION, ORIGIN},
};
use ochopod_loopback::is_guest_source;
use ochopod_model::{PodId, SignedRequest, Token, body_digest, wire};

use super::{reply::ApiError, route::Route};

/// Maximum difference between the clocks of leader and pod, transmission included.
const MAX_CLOCK_SKEW: Duration = Duration::from_mins(5);

/// The parts of a request that authorization depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct AuthRequest<'a> {
    pub(super) route: &'a Route<'a>,
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) headers: &'a HeaderMap,
    /// Address of the client.
    pub(super) peer: IpAddr,
    /// Whether it presented a certificate.
    pub(super) has_certificate: bool,
    /// Whether the request has a body.
    pub(super) has_body: bool,
    /// Wall-clock time.
    pub(super) now: SystemTime,
}

/// Authorization of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Authorization {
    /// Granted.
    Granted,
    /// The head is signed by a leader. The body has to be the signed one, and the signature must not have been seen before.
    Signature(RequestSignature),
}

/// A valid signature of a request.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RequestSignature {
    /// Microseconds since 1970.
    pub(super) time: u64,
    pub(super) text: String,
    pub(super) body: String,
}

impl RequestSignature {
    /// Verifies that this body was signed.
    ///
    /// # Errors
    /// 401 if another was.
    pub(super) fn verify_body(&self, body: &[u8]) -> Result<(), ApiError> {
        let same = body_digest([body]) == self.body;
        same.then_some(()).ok_or_else(|| unauthorized("body does not match signature"))
    }
}

/// Authorizes a request.
///
/// # Errors
/// 401 without valid credentials if the pod has a token; 403 if it has none and the request requires one; 409 for a request
/// that a leader signed for another pod.
pub(super) fn authorize(
    request: AuthRequest<'_>,
    own: &PodId,
    token: Option<&Token>,
) -> Result<Authorization, ApiError> {
    let Some(token) = token else { return without_token(request) };
    if matches!(request.route, Route::Info | Route::Health | Route::Ready | Route::Metrics | Route::Options(_)) {
        return Ok(Authorization::Granted);
    }
    let presented = match single_value(request.headers, AUTHORIZATION.as_str()) {
        Some("") => return Err(unauthorized("missing token: expected header Authorization: Bearer TOKEN")),
        presented => presented.and_then(wire::Credentials::parse),
    };
    match presented {
        Some(wire::Credentials::Bearer(text)) if token.matches(text) => Ok(Authorization::Granted),
        Some(wire::Credentials::Bearer(_)) => Err(unauthorized("invalid token")),
        Some(wire::Credentials::Signature { key, time, body, signature }) => {
            let header = |name| single_value(request.headers, name);
            let headers = [wire::EPOCH, wire::NUMBER, wire::GENERATION, wire::VIEW, wire::TARGET].map(header);
            let [Some(epoch), Some(number), Some(generation), Some(view), Some(target)] = headers else {
                return Err(unauthorized("duplicate or non-ASCII signed header"));
            };
            let (method, path) = (request.method.as_str(), request.path);
            let signed = SignedRequest { method, path, key, epoch, number, generation, view, target, time, body };
            verify_signature(request, own, token, &signed, signature)
        }
        None => Err(unauthorized("malformed Authorization header: expected Bearer TOKEN")),
    }
}

fn without_token(request: AuthRequest<'_>) -> Result<Authorization, ApiError> {
    if request.headers.contains_key(ORIGIN) {
        return Err(forbidden("browser requests (Origin header) require a token"));
    }
    let is_restricted = matches!(request.route, Route::Exec | Route::Reset | Route::Reload);
    if is_guest_source(request.peer) && (is_restricted || matches!(request.route, Route::Control { .. })) {
        return Err(forbidden("requests from plugins are not accepted: expected an operator or a leader"));
    }
    if *request.route == Route::Reload && request.has_body {
        let error = "token or client certificate required for a body: without a body, the plugin's file is read again";
        return if request.has_certificate { Ok(Authorization::Granted) } else { Err(forbidden(error)) };
    }
    let is_local = request.peer.to_canonical().is_loopback();
    if is_restricted && !is_local {
        return Err(forbidden("token required: no token is set, so only loopback clients are accepted"));
    }
    Ok(Authorization::Granted)
}

fn verify_signature(
    request: AuthRequest<'_>,
    own: &PodId,
    token: &Token,
    signed: &SignedRequest<'_>,
    signature: &str,
) -> Result<Authorization, ApiError> {
    if !matches!(request.route, Route::Control { .. }) {
        return Err(unauthorized(
            "signatures are valid for /control only: expected header Authorization: Bearer TOKEN",
        ));
    }
    let time = signed.time.parse::<u64>().ok().filter(|_| token.verify(signed, signature));
    let Some(time) = time else {
        return Err(unauthorized("invalid signature: tokens differ or the request was modified"));
    };
    let apart = micros(request.now).abs_diff(time);
    if u128::from(apart) > MAX_CLOCK_SKEW.as_micros() {
        let (apart, most) = (Duration::from_micros(apart).as_secs(), MAX_CLOCK_SKEW.as_secs());
        let error = format!("signature time is {apart} s off this pod's clock: expected at most {most} s");
        return Err(unauthorized(error));
    }
    if signed.key != own.as_str() {
        let error = format!("wrong pod: request is for {:?}, this is {:?}", signed.key, own.as_str());
        return Err(ApiError::wrong_pod(error, own));
    }
    Ok(Authorization::Signature(RequestSignature { time, text: signature.to_owned(), body: signed.body.to_owned() }))
}

/// Returns microseconds since 1970, as leaders sign them.
pub(super) fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Returns the time before which signatures are not valid any longer.
pub(super) fn oldest_valid(now: SystemTime) -> u64 {
    now.checked_sub(MAX_CLOCK_SKEW).map_or(0, micros)
}

/// Returns a header's text, empty if it is missing; none if it is duplicate or not visible ASCII.
fn single_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Some(""),
        (Some(only), None) => only.to_str().ok(),
        (Some(_), Some(_)) => None,
    }
}

fn unauthorized(error: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, error)
}

fn forbidden(error: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, error)
}
