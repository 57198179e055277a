//! HTTP/1.1 client of one server: by TCP, TLS or a unix socket.

use std::{
    error::Error,
    io, mem,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{HOST, HeaderValue},
    http::uri::Authority,
};
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{RegistryConfigError, RegistryError, Scheme, TlsFiles, tls};

/// Most bytes of the response to a command.
pub(super) const MAX_SMALL_BODY: usize = 64 * 1024;
/// Most bytes of the response to a query.
pub(super) const MAX_LIST_BODY: usize = 8 * 1024 * 1024;
/// Most characters of a response that errors repeat.
const MAX_TEXT_CHARS: usize = 400;
/// Seconds between probes of an idle connection.
const KEEP_ALIVE_SECONDS: u32 = 10;
/// Unanswered probes after which a connection counts as broken.
const KEEP_ALIVE_PROBES: u32 = 3;
/// All characters but the unreserved ones of RFC 3986, which are percent-encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const ADDRESS_FORM: &str = "HOST:PORT or unix://PATH";

/// Client of one server. It keeps one idle connection; concurrent calls have one each. hyper-util's pooling client is
/// not used: it neither repeats a request on a kept connection that broke nor connects to unix sockets.
pub(super) struct HttpClient {
    address: String,
    host: HeaderValue,
    transport: Transport,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle_connection: Mutex<Option<Sender>>,
}

type Sender = SendRequest<Full<Bytes>>;

/// The lines of a response, which may take any time to end.
pub(super) struct ResponseLines {
    address: String,
    status: StatusCode,
    body: Incoming,
    buffer: Vec<u8>,
    max_bytes: usize,
}

enum Transport {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl HttpClient {
    /// Creates a client of the server at `HOST:PORT` or `unix://PATH`. Files are read now, connections made when
    /// needed.
    pub(super) fn new(scheme: Scheme, address: &str, files: &TlsFiles) -> Result<Self, RegistryConfigError> {
        // It may contain a password.
        let excerpt = if address.contains('@') { "(with an @)" } else { address };
        let invalid = || RegistryConfigError::Address { address: excerpt.to_owned(), expected: ADDRESS_FORM };
        let (transport, host) = match address.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => (Transport::Unix(PathBuf::from(path)), "localhost"),
            Some(_) => return Err(invalid()),
            None => {
                let (host, port) = host_and_port(address, scheme).ok_or_else(invalid)?;
                (Transport::Tcp(host, port), address)
            }
        };
        let tls = match scheme {
            Scheme::Http => None,
            Scheme::Https => {
                let name = match (&files.server_name, &transport) {
                    (Some(name), _) => name,
                    (None, Transport::Tcp(host, _)) => host,
                    (None, Transport::Unix(_)) => "localhost",
                };
                let name = ServerName::try_from(name.to_owned()).map_err(|_| RegistryConfigError::Address {
                    address: name.to_owned(),
                    expected: tls::SERVER_NAME,
                })?;
                Some((TlsConnector::from(Arc::new(tls::config(files)?)), name))
            }
        };
        let host = HeaderValue::from_str(host).map_err(|_| invalid())?;
        Ok(Self { address: address.to_owned(), host, transport, tls, idle_connection: Mutex::new(None) })
    }

    /// Returns the address of the server, for messages.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request ([`send`](Self::send)) and waits for its response, at most for `limit`.
    ///
    /// # Cancellation safety
    /// Dropping the future closes the connection it used.
    pub(super) async fn call(
        &self,
        request: Request<Full<Bytes>>,
        limit: Duration,
        max_bytes: usize,
    ) -> Result<Response<Bytes>, RegistryError> {
        timeout(limit, self.send(request, max_bytes)).await.unwrap_or_else(|_| {
            let Self { address, .. } = self;
            Err(RegistryError::Unavailable(format!("no response from {address} within {} s", limit.as_secs())))
        })
    }

    /// Sends a request, whose target is a path, and returns the response, whatever its code, with a body of at most
    /// `max_bytes`. The request may reach the server twice.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] without a response, [`RegistryError::Rejected`] if one side rejects the
    /// certificate of the other, [`RegistryError::InvalidResponse`] if the response is too large or not HTTP.
    ///
    /// # Cancellation safety
    /// Dropping the future closes the connection it used.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        max_bytes: usize,
    ) -> Result<Response<Bytes>, RegistryError> {
        request.headers_mut().insert(HOST, self.host.clone());
        let idle = self.idle_connection().take();
        // Servers close idle connections, and may do so while the request is on its way.
        if let Some(idle) = idle
            && let Ok(response) = self.send_request(idle, request.clone(), max_bytes).await
        {
            return Ok(response);
        }
        let fresh = self.connect().await?;
        self.send_request(fresh, request, max_bytes).await
    }

    /// Sends a request over a connection of its own and returns the lines of the response as they arrive, each of at
    /// most `max_bytes`.
    ///
    /// # Errors
    /// Those of [`Self::send`].
    ///
    /// # Cancellation safety
    /// Dropping the future or the lines closes the connection.
    pub(super) async fn open(
        &self,
        mut request: Request<Full<Bytes>>,
        max_bytes: usize,
    ) -> Result<ResponseLines, RegistryError> {
        request.headers_mut().insert(HOST, self.host.clone());
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(|error| self.failed(&error))?;
        let (head, body) = response.into_parts();
        Ok(ResponseLines { address: self.address.clone(), status: head.status, body, buffer: Vec::new(), max_bytes })
    }

    async fn send_request(
        &self,
        mut sender: Sender,
        request: Request<Full<Bytes>>,
        max_bytes: usize,
    ) -> Result<Response<Bytes>, RegistryError> {
        sender.ready().await.map_err(|error| self.failed(&error))?;
        let response = sender.send_request(request).await.map_err(|error| self.failed(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, max_bytes).collect().await.map_err(|error| self.failed(&*error))?;
        *self.idle_connection() = Some(sender);
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    async fn connect(&self) -> Result<Sender, RegistryError> {
        let failed = |error| RegistryError::Unavailable(format!("cannot connect to {}: {error}", self.address));
        match &self.transport {
            Transport::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                _ = stream.set_nodelay(true);
                keep_alive(&stream);
                self.secure(stream).await
            }
            Transport::Unix(path) => self.secure(UnixStream::connect(path).await.map_err(failed)?).await,
        }
    }

    async fn secure(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Sender, RegistryError> {
        let Some((connector, name)) = &self.tls else { return self.handshake(stream).await };
        let stream = connector.connect(name.clone(), stream).await.map_err(|error| self.failed(&error))?;
        self.handshake(stream).await
    }

    async fn handshake(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Sender, RegistryError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.failed(&error))?;
        // It ends with its sender. Errors are reported to the caller that waits for the response.
        tokio::spawn(async move { _ = connection.await });
        Ok(sender)
    }

    fn failed(&self, error: &(dyn Error + 'static)) -> RegistryError {
        connection_error(&self.address, error)
    }

    fn idle_connection(&self) -> MutexGuard<'_, Option<Sender>> {
        self.idle_connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResponseLines {
    /// Returns the status code of the response.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the next line without its end. None at the end of the response.
    ///
    /// # Errors
    /// Those of [`HttpClient::send`].
    ///
    /// # Cancellation safety
    /// No line is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, RegistryError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let mut line = mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(Some(line));
            }
            if self.buffer.len() > self.max_bytes {
                return Err(RegistryError::InvalidResponse(format!("response from {} too large", self.address)));
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(mem::take(&mut self.buffer))),
                Some(frame) => {
                    let frame = frame.map_err(|error| connection_error(&self.address, &error))?;
                    self.buffer.extend(frame.data_ref().into_iter().flatten());
                }
            }
        }
    }
}

/// Classifies what ended a connection.
fn connection_error(address: &str, error: &(dyn Error + 'static)) -> RegistryError {
    if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
        return RegistryError::Rejected(format!("TLS with {address}: {error}"));
    }
    if error.is::<LengthLimitError>() {
        return RegistryError::InvalidResponse(format!("response from {address} too large"));
    }
    let reason = causes(error).last().unwrap_or(error);
    match error.downcast_ref::<hyper::Error>() {
        Some(error) if error.is_parse() => {
            RegistryError::InvalidResponse(format!("invalid HTTP response from {address}: {reason}"))
        }
        _ => RegistryError::Unavailable(format!("connection to {address} failed: {reason}")),
    }
}

/// Lets the system notice a peer whose machine or network is gone, for responses that may take long.
fn keep_alive(stream: &TcpStream) {
    // Without it, connections work as well.
    _ = setsockopt(stream, sockopt::KeepAlive, &true);
    _ = setsockopt(stream, sockopt::TcpKeepIdle, &KEEP_ALIVE_SECONDS);
    _ = setsockopt(stream, sockopt::TcpKeepInterval, &KEEP_ALIVE_SECONDS);
    _ = setsockopt(stream, sockopt::TcpKeepCount, &KEEP_ALIVE_PROBES);
}

/// Returns the text of a response, cut where it is very long.
pub(super) fn text(response: &Response<Bytes>) -> String {
    let head = response.body().get(..MAX_TEXT_CHARS * 4).unwrap_or(response.body());
    String::from_utf8_lossy(head).trim().chars().take(MAX_TEXT_CHARS).collect()
}

/// Percent-encodes a text for a path or a query.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
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

/// Iterates over an error and its causes, those that IO errors wrap included.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|error| error as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

#[cfg(test)]
mod tests;
