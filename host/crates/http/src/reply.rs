//! Replies with a complete body, and replies whose body is streamed.

use std::error::Error;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode,
    body::Body,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};

/// The content type of JSON.
pub const JSON: &str = "application/json; charset=utf-8";

/// The content type of metrics for Prometheus.
pub const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Error of a body, which closes its connection.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// Body of a reply: complete, or sent in parts as they become available.
pub type ReplyBody = UnsyncBoxBody<Bytes, BodyError>;

/// Reply to a request.
pub type Reply = Response<ReplyBody>;

/// Returns a reply with a complete body of this content type.
pub fn body(status: StatusCode, body: Bytes, kind: &'static str) -> Reply {
    stream(status, Full::new(body), kind)
}

/// Returns a reply whose body is sent part by part, each as soon as it is available. The body is dropped when the client
/// disconnects.
pub fn stream<B>(status: StatusCode, body: B, kind: &'static str) -> Reply
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    let mut reply = Response::new(body.map_err(Into::into).boxed_unsync());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// Returns the reply to `OPTIONS`: 204 with the allowed methods.
pub fn allowed(allow: &'static str) -> Reply {
    let mut reply = Response::new(Full::default().map_err(Into::into).boxed_unsync());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    reply
}
