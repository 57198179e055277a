//! HTTP to one server of a place: by TCP, TLS or a unix socket.

use std::{
    error::Error,
    fmt::Write as _,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Request, Response,
    client::conn::http1::{self, SendRequest},
    header::{HOST, HeaderValue},
    http::uri::Authority,
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{DiscoveryError, OpenError, Scheme, TlsFiles, tls};

/// Most bytes of the answer to a command.
pub(super) const SHORT: usize = 64 * 1024;
/// Most bytes of an answer that lists something.
pub(super) const LONG: usize = 8 * 1024 * 1024;
/// Most characters of what a server says that are told on.
const LONGEST_TEXT: usize = 400;
const FORM: &str = "HOST:PORT or unix://PATH";

/// One server. A connection is kept between calls; calls at the same time have one each.
pub(super) struct Http {
    address: String,
    host: HeaderValue,
    way: Way,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    kept: Mutex<Option<Sender>>,
}

type Sender = SendRequest<Full<Bytes>>;

enum Way {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl Http {
    /// A server at `HOST:PORT` or `unix://PATH`. Files are read now, connections made when they are needed.
    pub(super) fn new(scheme: Scheme, address: &str, files: &TlsFiles) -> Result<Self, OpenError> {
        // Somebody's password may stand there.
        let shown = if address.contains('@') { "(with an @)" } else { address };
        let misformed = || OpenError::Address { address: shown.to_owned(), expected: FORM };
        let (way, host) = match address.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => (Way::Unix(PathBuf::from(path)), "localhost"),
            Some(_) => return Err(misformed()),
            None => {
                let (host, port) = host_and_port(address, scheme).ok_or_else(misformed)?;
                (Way::Tcp(host, port), address)
            }
        };
        let tls = match scheme {
            Scheme::Http => None,
            Scheme::Https => {
                let name = match (&files.server_name, &way) {
                    (Some(name), _) => name,
                    (None, Way::Tcp(host, _)) => host,
                    (None, Way::Unix(_)) => "localhost",
                };
                let name = ServerName::try_from(name.to_owned())
                    .map_err(|_| OpenError::Address { address: name.to_owned(), expected: "the name of a server" })?;
                Some((TlsConnector::from(Arc::new(tls::config(files)?)), name))
            }
        };
        let host = HeaderValue::from_str(host).map_err(|_| misformed())?;
        Ok(Self { address: address.to_owned(), host, way, tls, kept: Mutex::new(None) })
    }

    /// Where the server is, for messages.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request, whose target is a path, and gives the answer, whatever its code. `limit` is for all of it, `most` for
    /// the bytes of the answer's body. The request may reach the server twice.
    ///
    /// # Errors
    /// [`DiscoveryError::Unavailable`] without an answer, [`DiscoveryError::Refused`] when one side does not like the other's
    /// certificate, [`DiscoveryError::Unexpected`] when the answer is too large or no HTTP.
    ///
    /// # Cancellation safety
    /// Dropping the future closes the connection it used.
    pub(super) async fn call(
        &self,
        mut request: Request<Full<Bytes>>,
        limit: Duration,
        most: usize,
    ) -> Result<Response<Bytes>, DiscoveryError> {
        request.headers_mut().insert(HOST, self.host.clone());
        timeout(limit, self.exchange(request, most)).await.unwrap_or_else(|_| {
            let Self { address, .. } = self;
            Err(DiscoveryError::Unavailable(format!("no answer from {address} within {} s", limit.as_secs())))
        })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, most: usize) -> Result<Response<Bytes>, DiscoveryError> {
        let kept = self.kept().take();
        // Servers close what is idle, and may do so just when the request is on its way.
        if let Some(kept) = kept
            && let Ok(response) = self.converse(kept, request.clone(), most).await
        {
            return Ok(response);
        }
        let fresh = self.connect().await?;
        self.converse(fresh, request, most).await
    }

    async fn converse(
        &self,
        mut sender: Sender,
        request: Request<Full<Bytes>>,
        most: usize,
    ) -> Result<Response<Bytes>, DiscoveryError> {
        sender.ready().await.map_err(|error| self.failed(&error))?;
        let response = sender.send_request(request).await.map_err(|error| self.failed(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, most).collect().await.map_err(|error| self.failed(&*error))?;
        *self.kept() = Some(sender);
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    async fn connect(&self) -> Result<Sender, DiscoveryError> {
        let failed = |error| DiscoveryError::Unavailable(format!("cannot connect to {}: {error}", self.address));
        match &self.way {
            Way::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                _ = stream.set_nodelay(true);
                self.secure(stream).await
            }
            Way::Unix(path) => self.secure(UnixStream::connect(path).await.map_err(failed)?).await,
        }
    }

    async fn secure(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Sender, DiscoveryError> {
        let Some((connector, name)) = &self.tls else { return self.begin(stream).await };
        let stream = connector.connect(name.clone(), stream).await.map_err(|error| self.failed(&error))?;
        self.begin(stream).await
    }

    async fn begin(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Sender, DiscoveryError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.failed(&error))?;
        // It ends with its sender; what breaks it is told to whoever waits for an answer.
        tokio::spawn(async move { _ = connection.await });
        Ok(sender)
    }

    /// What became of a connection.
    fn failed(&self, error: &(dyn Error + 'static)) -> DiscoveryError {
        let Self { address, .. } = self;
        if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
            return DiscoveryError::Refused(format!("TLS with {address}: {error}"));
        }
        if error.is::<LengthLimitError>() {
            return DiscoveryError::Unexpected(format!("the answer of {address} is too large"));
        }
        let reason = causes(error).last().unwrap_or(error);
        match error.downcast_ref::<hyper::Error>() {
            Some(error) if error.is_parse() => {
                DiscoveryError::Unexpected(format!("the answer of {address} is no HTTP: {reason}"))
            }
            _ => DiscoveryError::Unavailable(format!("the connection to {address} broke: {reason}")),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Sender>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text of an answer, as far as people want to read it.
pub(super) fn text(response: &Response<Bytes>) -> String {
    let head = response.body().get(..LONGEST_TEXT * 4).unwrap_or(response.body());
    String::from_utf8_lossy(head).trim().chars().take(LONGEST_TEXT).collect()
}

/// A text as it may be part of a path or of a query.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn host_and_port(address: &str, scheme: Scheme) -> Option<(String, u16)> {
    let authority: Authority = address.parse().ok()?;
    // Anything before the host would be a user's name.
    let port = match authority.as_str().strip_prefix(authority.host())?.strip_prefix(':') {
        Some(port) => port.parse().ok()?,
        None if scheme == Scheme::Https => 443,
        None => 80,
    };
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// An error and what lies under it, what IO errors wrap included.
pub(super) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|error| error as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

#[cfg(test)]
mod tests;
