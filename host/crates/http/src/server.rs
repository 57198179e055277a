//! Accepts connections and serves HTTP/1.1 on each.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Reply,
    connections::{ConnectionInfo, ConnectionSet},
    disconnect::ReadAhead,
};

/// Maximum size of the head of a request.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Time limit for a connection to send a head, idle time included. Longer than clients keep idle connections, so that none is
/// closed under a request.
const HEAD_READ_TIMEOUT: Duration = Duration::from_mins(2);
/// Delay after a connection could not be accepted, for lack of descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// Time limit for requests in progress once the server shuts down.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Passes every connection to `handle` until `shutdown`, which closes the listener. Connections with a request in progress have
/// one more second.
///
/// # Cancellation safety
/// Dropping the future closes every connection.
pub async fn accept<F>(
    listener: TcpListener,
    shutdown: CancellationToken,
    handle: impl Fn(TcpStream, Arc<ConnectionInfo>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut failing = false;
    let mut connections = ConnectionSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            () = connections.reap_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    failing = false;
                    _ = stream.set_nodelay(true);
                    connections.insert(peer.ip(), |connection| handle(stream, connection));
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "cannot accept connections");
                    }
                    sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }
    drop(listener);
    _ = timeout(DRAIN_TIMEOUT, connections.join_all()).await;
}

/// Serves the requests of one connection until its client closes it, or `shutdown` does after the current one. The token
/// [`gone`](ConnectionInfo::gone) is cancelled when the client disconnects while a request waits.
pub async fn serve_http1<F: Future<Output = Reply>>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: &ConnectionInfo,
    handle_request: impl Fn(Request<Incoming>) -> F,
    shutdown: CancellationToken,
) {
    let service = service_fn(|request| {
        let reply = handle_request(request);
        async { Ok::<_, Infallible>(reply.await) }
    });
    let stream = ReadAhead::new(stream);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_READ_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .half_close(true)
        .serve_connection(TokioIo::new(stream.clone()), service);
    let mut serving = pin!(serving);
    let (mut is_stopping, mut is_disconnected) = (false, false);
    loop {
        tokio::select! {
            biased;
            // A broken connection is not reported: its client caused it.
            _ = serving.as_mut() => return,
            () = stream.disconnected(connection), if !is_disconnected => {
                is_disconnected = true;
                connection.gone().cancel();
            }
            () = shutdown.cancelled(), if !is_stopping => {
                is_stopping = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}
