//! Single requests: limited in time and size, no redirects, no proxy, one connection each.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri,
    client::conn::http1,
    header::{HOST, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::error::Failure;

/// Most bytes of a body.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Delay before the first repetition of a request that the server was too busy for; it doubles each time.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
const HTTP_PORT: u16 = 80;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("ochopod/", env!("CARGO_PKG_VERSION")));

/// A server and a path prefix.
#[derive(Clone)]
pub(crate) struct Server {
    authority: HeaderValue,
    host: String,
    port: u16,
    prefix: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// Status and body.
pub(crate) struct HttpReply {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    retry_after: Option<Duration>,
}

impl Server {
    /// Parses the URL of a server without TLS, with an optional path.
    pub(crate) fn plain(url: &str) -> Result<Self, Failure> {
        let uri: Uri = url.parse().map_err(|_| Failure::Address)?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.filter(|_| uri.scheme_str() == Some("http")).ok_or(Failure::Address)?;
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host).and_then(|rest| rest.strip_prefix(':')) {
            Some(port) => port.parse().map_err(|_| Failure::Address)?,
            None => HTTP_PORT,
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Self {
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| Failure::Address)?,
            host: host.to_owned(),
            port,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            tls: None,
        })
    }

    /// Creates a server with TLS, whose certificate is issued for `host`.
    pub(crate) fn tls(host: &str, port: u16, config: Arc<ClientConfig>) -> Result<Self, Failure> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Failure::Address)?;
        let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let authority = HeaderValue::from_str(&shown).map_err(|_| Failure::Address)?;
        Ok(Self { authority, host: host.to_owned(), port, prefix: String::new(), tls: Some((config, name)) })
    }

    /// Returns the URL of a path, for messages.
    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}{path}", self.authority.to_str().unwrap_or_default(), self.prefix)
    }

    /// Sends a request without a body until the server is not too busy for it, and returns the answer, whatever its status
    /// except redirects. `busy` decides which statuses are repeated.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        deadline: Instant,
        busy: impl Fn(StatusCode) -> bool,
    ) -> Result<HttpReply, Failure> {
        let mut delay = MIN_RETRY_DELAY;
        loop {
            let answer = within(deadline, Box::pin(self.exchange(method.clone(), path, headers.clone()))).await?;
            if !busy(answer.status) {
                return Ok(answer);
            }
            let next = Instant::now().checked_add(answer.retry_after.unwrap_or(delay));
            let Some(next) = next.filter(|next| *next < deadline) else { return Ok(answer) };
            sleep_until(next).await;
            delay *= 2;
        }
    }

    async fn exchange(&self, method: Method, path: &str, headers: HeaderMap) -> Result<HttpReply, Failure> {
        let path = format!("{}{path}", self.prefix);
        let uri: Uri = if path.is_empty() { "/" } else { &path }.parse().map_err(|_| Failure::Address)?;
        let mut request = Request::new(Empty::new());
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
        request.headers_mut().insert(HOST, self.authority.clone());
        request.headers_mut().insert(USER_AGENT, AGENT);
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(Failure::Connect)?;
        match &self.tls {
            None => request_over(stream, request).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name.clone(), stream).await.map_err(Failure::Connect)?;
                request_over(stream, request).await
            }
        }
    }
}

/// Sends a request over a connection, which is closed afterwards.
async fn request_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<HttpReply, Failure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Exchange)?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await.map_err(Failure::Exchange)?.into_parts();
        if head.status.is_redirection() {
            return Err(Failure::Redirect(head.status));
        }
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return Failure::TooLarge(MAX_BODY_BYTES);
            }
            match error.downcast::<hyper::Error>() {
                Ok(error) => Failure::Exchange(*error),
                Err(error) => Failure::Connect(io::Error::other(error)),
            }
        })?;
        let seconds = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(HttpReply { status: head.status, body: body.to_bytes(), retry_after: seconds.map(Duration::from_secs) })
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // Its error reaches the exchange too, which then completes.
        _ = connection => exchange.await,
    }
}

/// Waits for a result until the deadline.
async fn within<T>(deadline: Instant, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout_at(deadline, work).await.unwrap_or(Err(Failure::TimedOut))
}

/// Returns whether a server was too busy for a request.
pub(crate) fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_without_tls_are_parsed_with_port_and_path() {
        for (url, host, port, path) in [
            ("http://169.254.169.254", "169.254.169.254", 80, "http://169.254.169.254/x"),
            ("http://[fd00:ec2::254]/", "fd00:ec2::254", 80, "http://[fd00:ec2::254]/x"),
            ("http://169.254.170.2:51678/v4/id", "169.254.170.2", 51678, "http://169.254.170.2:51678/v4/id/x"),
        ] {
            let server = Server::plain(url).unwrap();
            assert_eq!((&*server.host, server.port, &*server.url("/x")), (host, port, path));
        }
        for url in [
            "",
            "169.254.169.254",
            "https://h",
            "ftp://h",
            "http://",
            "http://me:hunter2@h",
            "http://h:x",
            "http://h /",
        ] {
            assert!(Server::plain(url).is_err(), "{url}");
        }
    }

    #[test]
    fn server_with_tls_is_named_by_its_host() {
        let config = ochopod_tls::plain_client().unwrap();
        let server = Server::tls("fd00::1", 443, Arc::clone(&config)).unwrap();
        assert_eq!(server.url("/api"), "https://[fd00::1]:443/api");
        assert_eq!(Server::tls("10.0.0.1", 6443, config.clone()).unwrap().url(""), "https://10.0.0.1:6443");
        assert!(Server::tls("a b", 443, config).is_err());
    }
}
