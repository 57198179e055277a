//! Connections and requests.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue},
    http,
};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use ochopod_model::{ContentDigest, Digest, PodId, wire};
use ochopod_tls::ControlSecurity;
use rustls::ClientConfig;
use serde_json::{Map, Value, json};

use super::{Auth, ClientError, Readiness, Reply, RequestBody};

/// Bytes of a reply that are read unless [`Client::with_max_reply_bytes`] sets another limit.
const MAX_REPLY_BYTES: usize = 64 * 1024;
/// Connections of a leader to each of its pods, which may be a thousand. The head of a pod's reply has a few hundred bytes.
const PEER_CONNECTIONS: ConnectionLimits = ConnectionLimits { max_idle: 1, read_bytes: 2048 };
const JSON: &str = "application/json; charset=utf-8";

/// Limits of the connections to one address.
#[derive(Clone, Copy)]
struct ConnectionLimits {
    /// Number of idle connections that are kept.
    max_idle: usize,
    /// Size of the buffer for replies, and maximum size of their heads.
    read_bytes: usize,
}

#[derive(Debug, Clone)]
enum Transport {
    Plain(legacy::Client<HttpConnector, RequestBody>),
    Tls(legacy::Client<HttpsConnector<HttpConnector>, RequestBody>),
}

/// Client of the control APIs of pods. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Transport,
    auth: Auth,
    max_reply_bytes: usize,
}

/// A request of a leader to `POST /control/{task}/{limit}`.
#[derive(Debug, Clone)]
pub struct ControlRequest {
    /// Address and port of the control API.
    pub address: String,
    /// The intended pod.
    pub pod: PodId,
    /// Name of the task.
    pub task: &'static str,
    /// Time limit that the pod observes, in seconds.
    pub limit_seconds: u64,
    /// Epoch of the leadership.
    pub epoch: i64,
    /// Number of the request within the leadership.
    pub number: u64,
    /// The configuration it belongs to.
    pub generation: Digest,
    /// How the body describes the view.
    pub content: ControlContent,
    /// The view with the pod's key, or what `content` says.
    pub body: RequestBody,
}

/// Content of the body of a request of a leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlContent {
    /// The whole view, with the pod's key.
    Whole,
    /// The difference to this view from one that the pod holds. The pod is named by a header.
    Difference(ContentDigest),
    /// Nothing: the task needs no view. The pod is named by a header.
    Nothing,
}

/// A request of a leader, as it is signed.
pub(crate) struct LeaderRequest<'a> {
    pub(crate) path: String,
    pub(crate) pod: &'a PodId,
    pub(crate) epoch: i64,
    pub(crate) number: Option<u64>,
    pub(crate) generation: Option<&'a Digest>,
    pub(crate) view: Option<&'a ContentDigest>,
    /// Whether a header names the pod.
    pub(crate) is_targeted: bool,
    pub(crate) body: RequestBody,
}

impl Client {
    /// Creates a client that uses HTTP without TLS.
    #[must_use]
    pub fn plain(auth: Auth) -> Self {
        Self::build(None, auth, None)
    }

    /// Creates a client that uses HTTPS.
    #[must_use]
    pub fn tls(config: Arc<ClientConfig>, auth: Auth) -> Self {
        Self::build(Some(config), auth, None)
    }

    /// Creates the client that a pod uses for the other pods of its cluster: it signs its requests if there is a token, and
    /// uses HTTPS if the pod's own control server does.
    #[must_use]
    pub fn for_peers(security: &ControlSecurity) -> Self {
        let auth = security.token.clone().map_or(Auth::None, |token| Auth::Signed(Box::new(token)));
        let config = security.server.as_ref().map(|_| Arc::clone(&security.client));
        Self::build(config, auth, Some(PEER_CONNECTIONS))
    }

    fn build(config: Option<Arc<ClientConfig>>, auth: Auth, limits: Option<ConnectionLimits>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        if let Some(ConnectionLimits { max_idle, read_bytes }) = limits {
            builder.pool_max_idle_per_host(max_idle).http1_read_buf_exact_size(read_bytes);
        }
        let transport = match config {
            None => Transport::Plain(builder.build(connector)),
            Some(config) => {
                connector.enforce_http(false);
                Transport::Tls(builder.build(HttpsConnector::from((connector, config))))
            }
        };
        Self { transport, auth, max_reply_bytes: MAX_REPLY_BYTES }
    }

    /// Sets how many bytes of a reply are read. Longer replies are errors.
    #[must_use]
    pub fn with_max_reply_bytes(self, max_reply_bytes: usize) -> Self {
        Self { max_reply_bytes, ..self }
    }

    /// Posts a control request and waits for its reply, whatever its status is.
    ///
    /// # Errors
    /// If there is no complete reply within the time limit.
    pub async fn control(&self, request: ControlRequest, timeout: Duration) -> Result<Reply, ClientError> {
        let signed = LeaderRequest {
            path: format!("/control/{}/{}", request.task, request.limit_seconds),
            pod: &request.pod,
            epoch: request.epoch,
            number: Some(request.number),
            generation: Some(&request.generation),
            view: match &request.content {
                ControlContent::Difference(view) => Some(view),
                ControlContent::Whole | ControlContent::Nothing => None,
            },
            is_targeted: request.content != ControlContent::Whole,
            body: request.body,
        };
        self.lead(&request.address, signed, timeout).await
    }

    /// Requests a pod, as the leader of this epoch, to let the pod `to` lead: `POST /control/step-down`. Returns the reply,
    /// whatever its status is.
    ///
    /// # Errors
    /// If there is no complete reply within the time limit.
    pub async fn step_down(
        &self,
        address: &str,
        pod: &PodId,
        epoch: i64,
        to: &PodId,
        timeout: Duration,
    ) -> Result<Reply, ClientError> {
        let body = Bytes::from(json!({"to": to}).to_string()).into();
        let path = "/control/step-down".to_owned();
        let signed =
            LeaderRequest { path, pod, epoch, number: None, generation: None, view: None, is_targeted: false, body };
        self.lead(address, signed, timeout).await
    }

    /// Posts a request of a leader.
    async fn lead(&self, address: &str, request: LeaderRequest<'_>, timeout: Duration) -> Result<Reply, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        if request.body.is_compressed() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(wire::GZIP));
        }
        headers.insert(wire::EPOCH, request.epoch.into());
        if let Some(number) = request.number {
            headers.insert(wire::NUMBER, number.into());
        }
        if let Some(generation) = request.generation {
            headers.insert(wire::GENERATION, header(generation.as_str())?);
        }
        if let Some(view) = request.view {
            headers.insert(wire::VIEW, header(view.as_str())?);
        }
        if request.is_targeted {
            headers.insert(wire::TARGET, header(request.pod.as_str())?);
        }
        if let Some(credentials) = self.auth.control(&request) {
            headers.insert(AUTHORIZATION, header(&credentials)?);
        }
        self.exchange(Method::POST, address, &request.path, headers, request.body, timeout).await
    }

    /// Returns the pod's information, as `GET /info` reports it.
    ///
    /// # Errors
    /// If there is no complete reply within the time limit, or it is not 200 with a JSON object.
    pub async fn info(&self, address: &str, timeout: Duration) -> Result<Map<String, Value>, ClientError> {
        self.get(address, "/info", timeout).await?.json()
    }

    /// Checks that the control server answers, by `GET /healthz`.
    ///
    /// # Errors
    /// If there is no complete reply within the time limit, or it is not 200.
    pub async fn healthz(&self, address: &str, timeout: Duration) -> Result<(), ClientError> {
        self.get(address, "/healthz", timeout).await?.ok()
    }

    /// Returns the readiness of the pod, as `GET /readyz` reports it.
    ///
    /// # Errors
    /// If there is no complete reply within the time limit, or it is neither 200 nor 503.
    pub async fn readyz(&self, address: &str, timeout: Duration) -> Result<Readiness, ClientError> {
        let reply = self.get(address, "/readyz", timeout).await?;
        if reply.status == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
            return Ok(Readiness::NotReady(reply.error_text()));
        }
        reply.ok().map(|()| Readiness::Ready)
    }

    /// Sends any request and returns its reply, whatever its status is. A bearer token is added unless `headers` has
    /// credentials.
    ///
    /// # Errors
    /// If there is no complete reply within the time limit.
    pub async fn send(
        &self,
        method: Method,
        address: &str,
        path: &str,
        mut headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Reply, ClientError> {
        if let Some(credentials) = self.auth.bearer()
            && !headers.contains_key(AUTHORIZATION)
        {
            headers.insert(AUTHORIZATION, header(&credentials)?);
        }
        self.exchange(method, address, path, headers, body.into(), timeout).await
    }

    async fn get(&self, address: &str, path: &str, timeout: Duration) -> Result<Reply, ClientError> {
        self.send(Method::GET, address, path, HeaderMap::new(), Bytes::new(), timeout).await
    }

    async fn exchange(
        &self,
        method: Method,
        address: &str,
        path: &str,
        headers: HeaderMap,
        body: RequestBody,
        timeout: Duration,
    ) -> Result<Reply, ClientError> {
        let scheme = match self.transport {
            Transport::Plain(_) => "http",
            Transport::Tls(_) => "https",
        };
        let uri: Uri = format!("{scheme}://{address}{path}").try_into().map_err(http::Error::from)?;
        let mut request = Request::builder().method(method).uri(uri).body(body)?;
        *request.headers_mut() = headers;
        let exchange = async {
            let (head, body) = self.request(request).await?.into_parts();
            let body = Limited::new(body, self.max_reply_bytes).collect().await.map_err(ClientError::Body)?;
            Ok(Reply { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(ClientError::TimedOut(timeout)))
    }

    async fn request(&self, request: Request<RequestBody>) -> Result<Response<Incoming>, ClientError> {
        let response = match &self.transport {
            Transport::Plain(client) => client.request(request).await,
            Transport::Tls(client) => client.request(request).await,
        };
        response.map_err(ClientError::Exchange)
    }
}

fn header(text: &str) -> Result<HeaderValue, ClientError> {
    Ok(HeaderValue::from_str(text).map_err(http::Error::from)?)
}

#[cfg(test)]
mod tests;
