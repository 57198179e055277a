//! A client of the control API.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use ochopod_client::Auth;
use serde_json::Value;

use crate::Result;

const DEADLINE: Duration = Duration::from_secs(90);
const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

/// Client of one control port, over connections that are kept. It sends any request, valid or not.
#[derive(Debug, Clone)]
pub struct Client {
    authority: String,
    http: ochopod_client::Client,
}

/// A complete reply.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The code.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Client {
    /// Returns a client of `address:port`.
    #[must_use]
    pub fn new(authority: impl Into<String>) -> Self {
        let http = ochopod_client::Client::plain(Auth::None).with_max_reply_bytes(MAX_REPLY_BYTES);
        Self { authority: authority.into(), http }
    }

    /// Returns the address and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Sends a request.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Reply> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name)?, HeaderValue::try_from(*value)?);
        }
        let reply = self.http.send(method.clone(), &self.authority, path, map, body, DEADLINE).await;
        let ochopod_client::Reply { status, headers, body } =
            reply.with_context(|| format!("{method} {path} of {}", self.authority))?;
        Ok(Reply { status, headers, body })
    }

    /// Sends a GET.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Sends a POST without a body.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn post(&self, path: &str) -> Result<Reply> {
        self.send(Method::POST, path, &[], Bytes::new()).await
    }

    /// Sends a POST with JSON.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn post_json(&self, path: &str, body: &Value) -> Result<Reply> {
        self.post_bytes(path, body.to_string()).await
    }

    /// Sends a POST with any bytes, announced as JSON.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn post_bytes(&self, path: &str, body: impl Into<Bytes>) -> Result<Reply> {
        self.send(Method::POST, path, &[("content-type", "application/json; charset=utf-8")], body.into()).await
    }

    /// Returns the pod information.
    ///
    /// # Errors
    /// If it does not answer 200 with an object.
    pub async fn info(&self) -> Result<Value> {
        self.post("/info").await?.json(StatusCode::OK.as_u16())
    }

    /// Returns the newest log lines, as one text.
    ///
    /// # Errors
    /// If it does not answer 200 with an array of texts.
    pub async fn log(&self) -> Result<String> {
        let lines = self.post("/log").await?.json(StatusCode::OK.as_u16())?;
        let lines = lines.as_array().with_context(|| format!("invalid /log: expected an array, got {lines}"))?;
        let texts: Option<Vec<&str>> = lines.iter().map(Value::as_str).collect();
        Ok(texts.context("/log holds something else than texts")?.join("\n"))
    }
}

impl Reply {
    /// Returns the body as JSON, if the code is the expected one.
    ///
    /// # Errors
    /// If the code differs, or the body is not announced as JSON, or is not JSON.
    pub fn json(&self, status: u16) -> Result<Value> {
        let text = String::from_utf8_lossy(&self.body);
        ensure!(self.status == status, "answered {} instead of {status}: {text}", self.status);
        let kind = self.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        ensure!(kind == "application/json; charset=utf-8", "announced as {kind:?}: {text}");
        serde_json::from_str(&text).with_context(|| format!("the body is not JSON: {text:?}"))
    }

    /// Returns the text of an error, if the code is the expected one.
    ///
    /// # Errors
    /// If the code differs, or the body has no `error`, or an empty one.
    pub fn error(&self, status: u16) -> Result<String> {
        let body = self.json(status)?;
        let text = body.get("error").and_then(Value::as_str).unwrap_or_default();
        ensure!(!text.is_empty(), "an error without a text: {body}");
        Ok(text.to_owned())
    }

    /// Checks the code.
    ///
    /// # Errors
    /// If it differs.
    pub fn is(&self, status: u16) -> Result {
        let text = String::from_utf8_lossy(&self.body);
        ensure!(self.status == status, "answered {} instead of {status}: {text}", self.status);
        Ok(())
    }
}
