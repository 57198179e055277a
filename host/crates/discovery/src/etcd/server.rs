//! One server, through its JSON gateway (`--enable-grpc-gateway`, the default): HTTP/1.1 without generated code.
//!
//! A watch is a response that does not end. HTTP/1.1 has no pings, so a server with a pending watch is queried for its
//! version from time to time.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use ochopod_model::json;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::{
    clients,
    gateway::{
        Authenticate, DeleteRange, GatewayError, Lease, LeaseGrant, LeaseId, LeaseKeepAlive, Login, Put, Range,
        RangeRequest, StreamMessage, Watch, WatchEvent,
    },
};
use crate::{
    EtcdAddress, RegistryConfigError, RegistryError,
    credentials::CredentialsFile,
    http_client::{self, HttpClient, ResponseLines},
};

/// Interval of liveness checks while a watch is open.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(10);
/// Timeout of a liveness check.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(5);

/// A server that has lost the others must report that: a change that is waited for would never arrive.
const REQUIRE_LEADER: (&str, &str) = ("grpc-metadata-hasleader", "true");

pub(super) struct EtcdServer {
    http: HttpClient,
    credentials: Option<CredentialsFile>,
    /// None before the first request, and after the server did not know the token.
    cached_login: Mutex<Option<ClientLogin>>,
}

/// Authentication of requests.
#[derive(Clone)]
enum ClientLogin {
    /// Without a user: no credentials are set, or authentication is disabled.
    Anonymous,
    /// By a token of the server.
    Token(HeaderValue),
}

/// Cause of a failed request.
enum RequestError {
    /// There was no usable response.
    Registry(RegistryError),
    /// The server reported an error.
    Gateway(GatewayError),
}

/// Changes below a prefix, as they happen. Dropping it closes its connection.
pub(super) struct WatchStream {
    lines: ResponseLines,
    /// The confirmation, which is read when the watch is opened.
    first: Option<WatchEvent>,
}

impl EtcdServer {
    /// Returns all servers of a cluster. Files are read now, connections made when they are needed.
    pub(super) fn all(address: &EtcdAddress) -> Result<Vec<Self>, RegistryConfigError> {
        let credentials = address.credentials.as_deref().map(CredentialsFile::new).transpose()?;
        let server = |http| Self { http, credentials: credentials.clone(), cached_login: Mutex::default() };
        Ok(clients(address)?.into_iter().map(server).collect())
    }

    /// Waits for requests that belong together, at most for `limit`. Their connections are closed when it has passed:
    /// they may be dead.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        requests: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        timeout(limit, requests).await.unwrap_or_else(|_| {
            Err(RegistryError::Unavailable(format!(
                "no response from etcd at {} within {limit:.1?}",
                self.http.address()
            )))
        })
    }

    /// Grants a lease for so many seconds and returns its id.
    pub(super) async fn grant(&self, ttl: u64) -> Result<LeaseId, RegistryError> {
        let lease: Lease = self.post("/v3/lease/grant", &LeaseGrant { ttl }).await?;
        Ok(lease.id)
    }

    /// Keeps a lease alive. Returns whether it is.
    pub(super) async fn keep_alive(&self, id: LeaseId) -> Result<bool, RegistryError> {
        let renewed: StreamMessage<Lease> = self.post("/v3/lease/keepalive", &LeaseKeepAlive { id }).await?;
        Ok(renewed.result.ttl > 0)
    }

    pub(super) async fn put(&self, key: &str, value: &str, lease: LeaseId) -> Result<(), RegistryError> {
        let put = Put { key: key.into(), value: value.into(), lease };
        self.post::<serde::de::IgnoredAny>("/v3/kv/put", &put).await.map(drop)
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), RegistryError> {
        let delete = DeleteRange { key: key.into() };
        self.post::<serde::de::IgnoredAny>("/v3/kv/deleterange", &delete).await.map(drop)
    }

    pub(super) async fn range(&self, range: &RangeRequest) -> Result<Range, RegistryError> {
        self.post("/v3/kv/range", range).await
    }

    /// Opens a watch from a revision on.
    pub(super) async fn watch(&self, range: RangeRequest, start_revision: i64) -> Result<WatchStream, RegistryError> {
        let body = body(&Watch::new(range, start_revision))?;
        let opened = match self.open_watch(&body).await {
            Err(error) if self.needs_login(&error) => self.open_watch(&body).await,
            opened => opened,
        };
        opened.map_err(|error| self.registry_error(error))
    }

    async fn open_watch(&self, body: &Bytes) -> Result<WatchStream, RequestError> {
        let request = request("/v3/watch", body, self.login().await?)?;
        let mut lines = self.http.open(request, http_client::MAX_LIST_BODY).await?;
        let line = lines.next().await?.unwrap_or_default();
        if let Some(error) = GatewayError::read(lines.status(), &line) {
            return Err(RequestError::Gateway(error));
        }
        let first = self.read::<StreamMessage<WatchEvent>>(&line)?.result;
        match first.cancellation().filter(GatewayError::is_login_required) {
            Some(error) if self.credentials.is_some() => Err(RequestError::Gateway(error)),
            _ => Ok(WatchStream { lines, first: Some(first) }),
        }
    }

    /// Ends once the server no longer answers.
    pub(super) async fn until_silent(&self) {
        loop {
            sleep(LIVENESS_INTERVAL).await;
            let version = Request::get("/version").body(Full::default());
            let Ok(version) = version else { return };
            if let Err(error) = self.http.call(version, LIVENESS_TIMEOUT, http_client::MAX_SMALL_BODY).await {
                debug!(%error, "etcd watch abandoned, server no longer answers");
                return;
            }
        }
    }

    /// Sends a request; a second time with a new token if the server does not know the present one. Tokens expire, and
    /// a restarted server knows no earlier ones.
    async fn post<T: DeserializeOwned>(&self, path: &str, message: &impl Serialize) -> Result<T, RegistryError> {
        let body = body(message)?;
        let response = match self.try_post(path, &body).await {
            Err(error) if self.needs_login(&error) => self.try_post(path, &body).await,
            response => response,
        };
        response.and_then(|body| self.read(&body)).map_err(|error| self.registry_error(error))
    }

    async fn try_post(&self, path: &str, body: &Bytes) -> Result<Bytes, RequestError> {
        let login = self.login().await?;
        self.post_as(path, body, login).await
    }

    async fn post_as(&self, path: &str, body: &Bytes, login: ClientLogin) -> Result<Bytes, RequestError> {
        let response = self.http.send(request(path, body, login)?, http_client::MAX_LIST_BODY).await?;
        match GatewayError::read(response.status(), response.body()) {
            Some(error) => Err(RequestError::Gateway(error)),
            None => Ok(Response::into_body(response)),
        }
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, RequestError> {
        // A stream of one message ends its line.
        json::parse(body.trim_ascii()).map_err(|error| {
            let address = self.http.address();
            RequestError::Registry(RegistryError::InvalidResponse(format!(
                "invalid response of etcd at {address}: {error}"
            )))
        })
    }

    /// Returns whether the request failed because the token is invalid; the token is then dropped.
    fn needs_login(&self, error: &RequestError) -> bool {
        let RequestError::Gateway(error) = error else { return false };
        let is_needed = self.credentials.is_some() && error.is_login_required();
        if is_needed {
            debug!(server = self.http.address(), error = error.message, "etcd token rejected, authenticating again");
            *self.cached_login() = None;
        }
        is_needed
    }

    /// Authenticates at the first request, with the credentials that the file holds then.
    async fn login(&self) -> Result<ClientLogin, RequestError> {
        if let Some(login) = &*self.cached_login() {
            return Ok(login.clone());
        }
        let login = self.authenticate().await?;
        *self.cached_login() = Some(login.clone());
        Ok(login)
    }

    async fn authenticate(&self) -> Result<ClientLogin, RequestError> {
        let Some(file) = &self.credentials else { return Ok(ClientLogin::Anonymous) };
        let address = self.http.address();
        let user = file.read().map_err(|error| RegistryError::Rejected(format!("etcd at {address}: {error}")))?;
        let body = body(&Authenticate { name: &user.name, password: &user.password })?;
        match self.post_as("/v3/auth/authenticate", &body, ClientLogin::Anonymous).await {
            // So that users can be given before authentication is enabled.
            Err(RequestError::Gateway(error)) if error.is_authentication_disabled() => {
                warn!(
                    server = address,
                    "etcd authentication is disabled, connecting without user; run etcdctl auth enable"
                );
                Ok(ClientLogin::Anonymous)
            }
            Err(error) => Err(error),
            Ok(body) => {
                let Login { token } = self.read(&body)?;
                let token = HeaderValue::from_str(&token).map(|mut token| {
                    token.set_sensitive(true);
                    token
                });
                let invalid = |_| RegistryError::InvalidResponse(format!("invalid token of etcd at {address}"));
                Ok(ClientLogin::Token(token.map_err(invalid)?))
            }
        }
    }

    fn cached_login(&self) -> MutexGuard<'_, Option<ClientLogin>> {
        self.cached_login.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn registry_error(&self, error: RequestError) -> RegistryError {
        match error {
            RequestError::Registry(error) => error,
            RequestError::Gateway(error) => error.into_registry_error(self.http.address()),
        }
    }
}

impl WatchStream {
    /// Returns the next message. None when the stream ended, whatever the cause.
    pub(super) async fn next(&mut self) -> Option<WatchEvent> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let line = match self.lines.next().await {
            Ok(line) => line?,
            Err(error) => {
                debug!(%error, "etcd watch failed");
                return None;
            }
        };
        match json::parse::<StreamMessage<WatchEvent>>(&line) {
            Ok(message) => Some(message.result),
            Err(error) => {
                debug!(error, "etcd watch failed");
                None
            }
        }
    }
}

impl From<RegistryError> for RequestError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

fn body(message: &impl Serialize) -> Result<Bytes, RegistryError> {
    let body =
        serde_json::to_vec(message).map_err(|error| RegistryError::Rejected(format!("etcd request: {error}")))?;
    Ok(body.into())
}

fn request(path: &str, body: &Bytes, login: ClientLogin) -> Result<Request<Full<Bytes>>, RegistryError> {
    let (leader, required) = REQUIRE_LEADER;
    let mut request = Request::post(path).header(CONTENT_TYPE, "application/json").header(leader, required);
    if let ClientLogin::Token(token) = login {
        request = request.header(AUTHORIZATION, token);
    }
    let request = request.body(Full::from(body.clone()));
    request.map_err(|error| RegistryError::Rejected(format!("{path}: {error}")))
}
