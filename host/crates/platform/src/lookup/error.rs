//! Errors of look-ups.

use std::io;

use hyper::StatusCode;
use ochopod_model::status::single_line;

/// Longest part of an answer that an error repeats, in bytes.
const MAX_SHOWN_BYTES: usize = 200;

/// A look-up that failed: the address, the answer and the setting that replaces it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("look-up at {address} failed: {answer}; set {remedy}")]
pub struct LookUpError {
    /// URL or file.
    pub address: String,
    /// The answer, or the reason for which there is none.
    pub answer: String,
    /// Settings that make the look-up unnecessary.
    pub remedy: &'static str,
}

/// Reason for which a request has no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("invalid address: expected http://HOST[:PORT][/PATH]")]
    Address,
    #[error("no answer in time")]
    TimedOut,
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("connection failed: {0}")]
    Exchange(hyper::Error),
    #[error("body of more than {0} bytes")]
    TooLarge(usize),
    #[error("{0}")]
    Status(StatusCode),
    #[error("redirect ({0}), which is not followed")]
    Redirect(StatusCode),
    #[error("unexpected answer {0:?}, expected {1}")]
    Unexpected(String, &'static str),
    #[error("invalid JSON: {0}")]
    Json(serde_json::Error),
    #[error("cannot read {0}: {1}")]
    File(String, String),
}

impl Failure {
    /// Adds the address and the settings that replace the look-up.
    pub(crate) fn at(&self, address: impl Into<String>, remedy: &'static str) -> LookUpError {
        LookUpError { address: address.into(), answer: single_line(&self.to_string(), MAX_SHOWN_BYTES), remedy }
    }

    /// Creates the failure of an answer that is not what was expected.
    pub(crate) fn unexpected(answer: &[u8], expected: &'static str) -> Self {
        let head = answer.get(..MAX_SHOWN_BYTES).unwrap_or(answer);
        Self::Unexpected(single_line(&String::from_utf8_lossy(head), MAX_SHOWN_BYTES / 2), expected)
    }
}
