//! The server: connections, and which handler answers what.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration, time::SystemTime};

use hyper::{Request, StatusCode, body::Incoming, http::request::Parts, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    Pod,
    access::{self, Asked},
    body::{self, Bodies},
    crowd::{Crowd, Places, Seat},
    exec, health,
    info::Info,
    log,
    replay::Obeyed,
    reply::{self, Refusal, Reply},
    reset,
    route::Route,
    task,
};

/// Most bytes of a request's head.
const HEAD: usize = 64 * 1024;
/// How long a connection may take to send a head, idle time included. Longer than clients keep idle connections, so that
/// none is closed under a request.
const HEAD_LIMIT: Duration = Duration::from_mins(2);
/// Pause when no connection can be accepted, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// How long requests that are being answered may take once the server ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How long a client may take to show that it speaks TLS, and to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What the first byte of TLS is: a handshake.
const TLS: u8 = 0x16;
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json; charset=utf-8\r\n\
    Content-Length: 49\r\nConnection: close\r\n\r\n{\"error\": \"this port speaks TLS, expected https\"}";

/// What all connections share.
pub(super) struct Served {
    pub(super) pod: Arc<Pod>,
    pub(super) bodies: Bodies,
    pub(super) obeyed: Obeyed,
    info: Info,
    places: Places,
    tls: Option<TlsAcceptor>,
}

/// Serves the control API of one pod until `shutdown`, by TLS if it is given; requests that are being answered get a second
/// more.
///
/// # Cancellation safety
/// Dropping the future closes every connection.
pub async fn serve(
    listener: TcpListener,
    pod: Arc<Pod>,
    tls: Option<Arc<rustls::ServerConfig>>,
    shutdown: CancellationToken,
) {
    let served = Arc::new(Served {
        info: Info::new(&pod),
        pod,
        bodies: Bodies::new(),
        obeyed: Obeyed::default(),
        places: Places::default(),
        tls: tls.map(TlsAcceptor::from),
    });
    let stop = shutdown.clone();
    accept(listener, shutdown, move |stream, seat| welcome(stream, seat, served.clone(), stop.clone())).await;
}

/// Has every connection welcomed until `shutdown`, which closes the listener; those that are still answering get a second
/// more.
///
/// # Cancellation safety
/// Dropping the future closes every connection.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    shutdown: CancellationToken,
    welcome: impl Fn(TcpStream, Arc<Seat>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut failing = false;
    let mut crowd = Crowd::default();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            () = crowd.ended() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    failing = false;
                    _ = stream.set_nodelay(true);
                    crowd.admit(peer.ip(), |seat| welcome(stream, seat));
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!("cannot accept connections: {error}");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    _ = timeout(LAST_ANSWERS, crowd.dispersed()).await;
}

async fn welcome(mut stream: TcpStream, seat: Arc<Seat>, served: Arc<Served>, shutdown: CancellationToken) {
    let Some(tls) = &served.tls else { return obey_all(stream, seat, served, shutdown).await };
    let handshake = timeout(HANDSHAKE, async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first != [TLS] {
            // What is left unread would reset the connection, and the answer with it.
            _ = stream.read(&mut vec![0; 4096]).await?;
            stream.write_all(PLAIN).await?;
            return Ok(None);
        }
        tls.accept(stream).await.map(Some)
    });
    match handshake.await {
        Ok(Ok(Some(stream))) => obey_all(stream, seat, served, shutdown).await,
        Ok(Ok(None)) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(peer = %seat.address, "no TLS: {error}"),
    }
}

async fn obey_all(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    seat: Arc<Seat>,
    served: Arc<Served>,
    shutdown: CancellationToken,
) {
    let answer = |request| {
        let (served, seat) = (served.clone(), seat.clone());
        async move { answer(&served, &seat, request).await }
    };
    converse(stream, answer, shutdown).await;
}

/// Answers the requests of one connection until its client ends it, or `shutdown` does after the present one.
pub(crate) async fn converse<F: Future<Output = Reply>>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: impl Fn(Request<Incoming>) -> F,
    shutdown: CancellationToken,
) {
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // What breaks a connection is its client's affair.
        _ = connection.as_mut() => return,
        () = shutdown.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    _ = connection.await;
}

async fn answer(served: &Served, seat: &Seat, request: Request<Incoming>) -> Reply {
    seat.heard();
    let (head, mut body) = request.into_parts();
    let reply = match Route::find(&head.method, head.uri.path()) {
        Ok(route) => obey(served, seat, &route, &head, &mut body).await,
        Err(refusal) => Err(refusal),
    };
    body::discard(&head.headers, &mut body).await;
    reply.unwrap_or_else(Reply::from)
}

async fn obey(
    served: &Served,
    seat: &Seat,
    route: &Route<'_>,
    head: &Parts,
    body: &mut Incoming,
) -> Result<Reply, Refusal> {
    let pod = &*served.pod;
    let asked = Asked {
        route,
        method: &head.method,
        path: head.uri.path(),
        headers: &head.headers,
        peer: seat.address,
        now: SystemTime::now(),
    };
    let authority = access::judge(asked, &pod.id, pod.token.as_ref())?;
    let place = || served.places.take(seat).ok_or_else(|| Refusal::busy("too many requests: try again"));
    match *route {
        Route::Info => Ok(reply::body(StatusCode::OK, served.info.body(), reply::JSON)),
        Route::Log => log::log(pod).await,
        Route::Reset => {
            let _place = place()?;
            reset::reset(pod).await
        }
        Route::Control { task, limit } => {
            task::control(served, &place()?, task, limit, authority, (&head.headers, body)).await
        }
        Route::Exec => exec::exec(pod, &served.bodies, &place()?, &head.headers, body).await,
        Route::Health => Ok(reply::ok()),
        Route::Ready => health::ready(pod),
        Route::Metrics => Ok(health::metrics(pod)),
    }
}
