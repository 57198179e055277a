//! Who may ask for what.
//!
//! | | with a token | without one |
//! |---|---|---|
//! | `/info`, `/healthz`, `/readyz`, `/metrics` | everybody | everybody |
//! | `/log` | the token | everybody |
//! | `/control` | the token, or a leader's signature made with it | everybody |
//! | `/exec`, `/reset` | the token | this machine, by a loopback address |
//! | any request with the header `Origin`: a page in a browser | the same | nobody |
//!
//! A leader's signature is obeyed once, and for five minutes: clocks of the machines of a cluster may differ by no more.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{AUTHORIZATION, ORIGIN},
};

use super::{reply::Refusal, route::Route};
use crate::cluster::{PodId, Signed, Token, body_digest, wire};

/// How far the clocks of leader and pod may be apart, the way of the request included.
const SKEW: Duration = Duration::from_mins(5);

/// A request, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) route: &'a Route<'a>,
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) headers: &'a HeaderMap,
    /// Who asks.
    pub(super) peer: IpAddr,
    /// The time of the clock on the wall.
    pub(super) now: SystemTime,
}

/// By what right a request is obeyed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Authority {
    /// It needs nothing more.
    Granted,
    /// A leader has signed its head. Its body has to be the one that was signed, and it must not have been seen before.
    Signature(Signature),
}

/// A signature that is right.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Signature {
    /// Microseconds since 1970.
    pub(super) time: u64,
    pub(super) text: String,
    pub(super) body: String,
}

impl Signature {
    /// Whether this body was signed.
    ///
    /// # Errors
    /// 401 when it is another.
    pub(super) fn covers(&self, body: &[u8]) -> Result<(), Refusal> {
        let same = body_digest([body]) == self.body;
        same.then_some(()).ok_or_else(|| unauthorized("the body is not the one that was signed"))
    }
}

/// By what right the request is obeyed, if by any.
///
/// # Errors
/// 401 without the right credentials, where the pod has a token; 403 where it has none and the request may not be obeyed
/// therefore; 409 when a leader means another pod.
pub(super) fn judge(asked: Asked<'_>, own: &PodId, token: Option<&Token>) -> Result<Authority, Refusal> {
    let Some(token) = token else { return without_token(asked) };
    if matches!(asked.route, Route::Info | Route::Health | Route::Ready | Route::Metrics) {
        return Ok(Authority::Granted);
    }
    let presented = match single(asked.headers, AUTHORIZATION.as_str()) {
        Some("") => return Err(unauthorized("this needs a token, expected the header Authorization: Bearer TOKEN")),
        presented => presented.and_then(wire::Credentials::parse),
    };
    match presented {
        Some(wire::Credentials::Bearer(text)) if token.is(text) => Ok(Authority::Granted),
        Some(wire::Credentials::Bearer(_)) => Err(unauthorized("the token is wrong")),
        Some(wire::Credentials::Signature { key, time, body, signature }) => {
            let header = |name| single(asked.headers, name);
            let (Some(epoch), Some(number), Some(generation)) =
                (header(wire::EPOCH), header(wire::NUMBER), header(wire::GENERATION))
            else {
                return Err(unauthorized("a header that is signed is there twice, or is not plain text"));
            };
            let (method, path) = (asked.method.as_str(), asked.path);
            let signed = Signed { method, path, key, epoch, number, generation, time, body };
            judge_signed(asked, own, token, &signed, signature)
        }
        None => Err(unauthorized("the header Authorization makes no sense, expected Bearer TOKEN")),
    }
}

fn without_token(asked: Asked<'_>) -> Result<Authority, Refusal> {
    if asked.headers.contains_key(ORIGIN) {
        return Err(forbidden("requests with the header Origin come from browsers, and need a token"));
    }
    let here = asked.peer.to_canonical().is_loopback();
    if matches!(asked.route, Route::Exec | Route::Reset) && !here {
        return Err(forbidden("this needs a token, or a client on the pod's own machine (by a loopback address)"));
    }
    Ok(Authority::Granted)
}

fn judge_signed(
    asked: Asked<'_>,
    own: &PodId,
    token: &Token,
    signed: &Signed<'_>,
    signature: &str,
) -> Result<Authority, Refusal> {
    if !matches!(asked.route, Route::Control { .. }) {
        return Err(unauthorized(
            "a signature is good for /control only, expected the header Authorization: Bearer TOKEN",
        ));
    }
    let time = signed.time.parse::<u64>().ok().filter(|_| token.signed(signed, signature));
    let Some(time) = time else {
        return Err(unauthorized(
            "the signature is wrong: leader and pod have other tokens, or the request was changed",
        ));
    };
    let apart = micros(asked.now).abs_diff(time);
    if u128::from(apart) > SKEW.as_micros() {
        let (apart, most) = (Duration::from_micros(apart).as_secs(), SKEW.as_secs());
        let error = format!("the signature is {apart} s from the clock of this pod, expected {most} s at most");
        return Err(unauthorized(error));
    }
    if signed.key != own.as_str() {
        let error = format!("the request is meant for {:?}, this pod is {:?}", signed.key, own.as_str());
        return Err(Refusal::stranger(error, own));
    }
    Ok(Authority::Signature(Signature { time, text: signature.to_owned(), body: signed.body.to_owned() }))
}

/// Microseconds since 1970, as leaders sign them.
pub(super) fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Before when a signature is not obeyed any more.
pub(super) fn stale(now: SystemTime) -> u64 {
    now.checked_sub(SKEW).map_or(0, micros)
}

/// A header's text, empty when it is not there; none when it is there twice, or holds more than visible ASCII.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Some(""),
        (Some(only), None) => only.to_str().ok(),
        (Some(_), Some(_)) => None,
    }
}

fn unauthorized(error: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, error)
}

fn forbidden(error: &str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, error)
}
