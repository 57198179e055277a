//! HTTP request of a guest, sent to a checked address without another look-up of its name.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{
    Request, Response, Uri,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use ochopod_loopback::GUEST_SOURCE;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, Sleep, sleep, timeout},
};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::outgoing::IoFuture;

/// Limit of each step for which the guest sets none. Its callback ends long before.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(10);

/// Sends a request without TLS. The `Host` header is already set.
///
/// # Errors
/// If the server cannot be reached, does not respond with HTTP, or exceeds a limit of the guest.
pub(super) async fn send(
    address: SocketAddr,
    mut request: Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Result<(Response<WasiBody>, IoFuture), Error> {
    let limit = |given: fn(&RequestOptions) -> Option<Duration>| options.as_ref().and_then(given);
    let connecting = limit(|options| options.connect_timeout).unwrap_or(DEFAULT_TIMEOUT);
    let first_byte = limit(|options| options.first_byte_timeout).unwrap_or(DEFAULT_TIMEOUT);
    let between_bytes = limit(|options| options.between_bytes_timeout).unwrap_or(DEFAULT_TIMEOUT);

    let stream = timeout(connecting, connect(address)).await.map_err(|_| Error::ConnectionTimeout)?;
    let stream = TokioIo::new(stream.map_err(Error::Connect)?);
    let (mut sender, mut connection) = http1::handshake(stream).await.map_err(Error::from)?;
    // A server that is not a proxy expects the path alone.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>().map_err(|_| Error::HttpRequestUriInvalid)?;

    let mut sent = Box::pin(timeout(first_byte, sender.send_request(request)));
    let mut is_open = true;
    let response = loop {
        tokio::select! {
            biased;
            response = &mut sent => break response.map_err(|_| Error::ConnectionReadTimeout)?.map_err(Error::from)?,
            ended = &mut connection, if is_open => {
                ended.map_err(Error::from)?;
                is_open = false;
            }
        }
    };
    let response = response.map(|incoming| TimedBody::new(incoming, between_bytes).boxed_unsync());
    let ended = async move { if is_open { connection.await.map_err(Error::from) } else { Ok(()) } };
    Ok((response, Box::new(ended)))
}

/// Connects as a guest: on IPv4 loopback from the address reserved for guests.
async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    if !(address.is_ipv4() && address.ip().is_loopback()) {
        return TcpStream::connect(address).await;
    }
    let socket = TcpSocket::new_v4()?;
    socket.bind((GUEST_SOURCE, 0).into())?;
    socket.connect(address).await
}

/// Body with a limit on the time between two frames.
struct TimedBody {
    incoming: Incoming,
    limit: Duration,
    late: Pin<Box<Sleep>>,
}

impl TimedBody {
    fn new(incoming: Incoming, limit: Duration) -> Self {
        Self { incoming, limit, late: Box::pin(sleep(limit)) }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(context) {
            let next = Instant::now() + self.limit;
            self.late.as_mut().reset(next);
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::from)));
        }
        ready!(self.late.as_mut().poll(context));
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
