//! Errors of the client.

use std::{error::Error, time::Duration};

use hyper::http;
use hyper_util::client::legacy;

/// Cause of a request without a usable reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address, the path or a header is invalid. Nothing was sent.
    #[error("invalid request: {0}")]
    InvalidRequest(#[from] http::Error),
    /// The server cannot be connected to, or the exchange failed.
    #[error("{}", root_cause(.0))]
    Exchange(legacy::Error),
    /// The reply ended early, or exceeds the limit.
    #[error("{0}")]
    Body(Box<dyn Error + Send + Sync>),
    /// There was no complete reply within the time limit.
    #[error("no reply within {:.1} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The connection was closed without a reply.
    #[error("connection closed")]
    Closed,
    /// The status is not the expected one: the code, and the text of the error.
    #[error("failed with {0}: {1}")]
    Status(u16, String),
    /// The body is not the expected JSON.
    #[error("invalid reply: {0}")]
    InvalidReply(serde_json::Error),
}

fn root_cause(error: &dyn Error) -> String {
    std::iter::successors(Some(error), |error| (**error).source()).last().map(ToString::to_string).unwrap_or_default()
}
