//! A client of the control API.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, header::CONTENT_TYPE};
use hyper_util::{client::legacy, rt::TokioExecutor};
use serde_json::Value;

use crate::Result;

const DEADLINE: Duration = Duration::from_secs(90);

/// Speaks to one control port, over connections that are kept.
#[derive(Debug, Clone)]
pub struct Client {
    authority: String,
    http: legacy::Client<legacy::connect::HttpConnector, Full<Bytes>>,
}

/// An answer, read whole.
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
    /// For `address:port`.
    #[must_use]
    pub fn new(authority: impl Into<String>) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new()).build_http();
        Self { authority: authority.into(), http }
    }

    /// The address and port that it speaks to.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Reply> {
        let mut request = Request::builder().method(&method).uri(format!("http://{}{path}", self.authority));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let exchange = async {
            let response = self.http.request(request).await?;
            let (parts, body) = response.into_parts();
            anyhow::Ok(Reply {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body: body.collect().await?.to_bytes(),
            })
        };
        let asked = || format!("{method} {path} of {}", self.authority);
        tokio::time::timeout(DEADLINE, exchange).await.with_context(asked)?.with_context(asked)
    }

    /// Sends a GET.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Sends a POST without a body.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post(&self, path: &str) -> Result<Reply> {
        self.send(Method::POST, path, &[], Bytes::new()).await
    }

    /// Sends a POST with JSON.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post_json(&self, path: &str, body: &Value) -> Result<Reply> {
        self.post_bytes(path, body.to_string()).await
    }

    /// Sends a POST with whatever bytes, announced as JSON.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post_bytes(&self, path: &str, body: impl Into<Bytes>) -> Result<Reply> {
        self.send(Method::POST, path, &[("content-type", "application/json; charset=utf-8")], body.into()).await
    }

    /// What the pod says about itself.
    ///
    /// # Errors
    /// When it does not answer 200 with an object.
    pub async fn info(&self) -> Result<Value> {
        self.post("/info").await?.json(StatusCode::OK.as_u16())
    }

    /// The newest log lines, as one text.
    ///
    /// # Errors
    /// When it does not answer 200 with an array of texts.
    pub async fn log(&self) -> Result<String> {
        let lines = self.post("/log").await?.json(StatusCode::OK.as_u16())?;
        let lines = lines.as_array().with_context(|| format!("/log is no array: {lines}"))?;
        let texts: Option<Vec<&str>> = lines.iter().map(Value::as_str).collect();
        Ok(texts.context("/log holds something else than texts")?.join("\n"))
    }
}

impl Reply {
    /// The body as JSON, when the code is the expected one.
    ///
    /// # Errors
    /// When the code is another, or the body is not announced as JSON, or is none.
    pub fn json(&self, status: u16) -> Result<Value> {
        let text = String::from_utf8_lossy(&self.body);
        ensure!(self.status == status, "answered {} instead of {status}: {text}", self.status);
        let kind = self.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        ensure!(kind == "application/json; charset=utf-8", "announced as {kind:?}: {text}");
        serde_json::from_str(&text).with_context(|| format!("the body is no JSON: {text:?}"))
    }

    /// The text of an error, when the code is the expected one.
    ///
    /// # Errors
    /// When the code is another, or the body has no `error` that says something.
    pub fn error(&self, status: u16) -> Result<String> {
        let body = self.json(status)?;
        let text = body.get("error").and_then(Value::as_str).unwrap_or_default();
        ensure!(!text.is_empty(), "an error without a text: {body}");
        Ok(text.to_owned())
    }

    /// Checks the code.
    ///
    /// # Errors
    /// When it is another.
    pub fn is(&self, status: u16) -> Result {
        let text = String::from_utf8_lossy(&self.body);
        ensure!(self.status == status, "answered {} instead of {status}: {text}", self.status);
        Ok(())
    }
}
