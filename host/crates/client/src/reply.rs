//! Replies of the control API.

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ClientError;

/// Longest error text that is kept, in characters.
const MAX_ERROR_CHARS: usize = 400;

/// A reply, read as a whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// Returns the text of an error reply; empty if the body has none. It has a bounded length.
    #[must_use]
    pub fn error_text(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let text = json.get("error").and_then(Value::as_str).unwrap_or_default();
        text.chars().take(MAX_ERROR_CHARS).collect()
    }

    /// Parses the body of a 200 reply.
    ///
    /// # Errors
    /// If the status is another one, or the body is not valid JSON of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        self.ok()?;
        serde_json::from_slice(&self.body).map_err(ClientError::InvalidReply)
    }

    /// Checks that the status is 200.
    ///
    /// # Errors
    /// If it is another one.
    pub fn ok(&self) -> Result<(), ClientError> {
        if self.status == StatusCode::OK.as_u16() {
            return Ok(());
        }
        Err(ClientError::Status(self.status, self.error_text()))
    }
}

/// Readiness of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// The pod is ready.
    Ready,
    /// The pod is not ready, and the reason.
    NotReady(String),
}
