//! The server: connections, and which handler answers what.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use hyper::{
    Request, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    Pod,
    body::{self, Bodies},
    exec, health,
    info::Info,
    log,
    reply::{self, Refusal, Reply},
    reset,
    route::Route,
    task,
};

/// Most connections at a time; who comes then is told so.
const CONNECTIONS: usize = 1024;
/// Most requests at a time that come with a body or have the pod do something. The connections that are left are for those
/// who only look.
const WORKING: usize = CONNECTIONS - 128;
/// Most bytes of a request's head.
const HEAD: usize = 64 * 1024;
/// How long a connection may take to send a head, idle time included. Longer than clients keep idle connections, so that
/// none is closed under a request.
const HEAD_LIMIT: Duration = Duration::from_mins(2);
/// Pause when no connection can be accepted, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// How long requests that are being answered may take once the server ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\n\
    Content-Length: 35\r\nConnection: close\r\n\r\n{\"error\": \"too many connections\"}\r\n";

struct Served {
    pod: Arc<Pod>,
    info: Info,
    bodies: Bodies,
    working: Semaphore,
}

/// Serves the control API of one pod until `shutdown`; requests that are being answered get a second more.
///
/// # Cancellation safety
/// Dropping the future closes every connection.
pub async fn serve(listener: TcpListener, pod: Arc<Pod>, shutdown: CancellationToken) {
    let working = Semaphore::new(WORKING);
    let served = Arc::new(Served { info: Info::new(&pod), pod, bodies: Bodies::new(), working });
    let mut failing = false;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() >= CONNECTIONS => _ = stream.try_write(FULL),
                Ok((stream, _)) => {
                    failing = false;
                    let connection = converse(stream, served.clone(), shutdown.clone());
                    connections.spawn(connection.in_current_span());
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!("cannot accept control connections: {error}");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    _ = timeout(LAST_ANSWERS, async { while connections.join_next().await.is_some() {} }).await;
}

async fn converse(stream: TcpStream, served: Arc<Served>, shutdown: CancellationToken) {
    _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let served = served.clone();
        async move { Ok::<_, Infallible>(answer(&served, request).await) }
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

async fn answer(served: &Served, request: Request<Incoming>) -> Reply {
    let (head, mut body) = request.into_parts();
    let pod = &*served.pod;
    let route = Route::find(&head.method, head.uri.path());
    let works = matches!(route, Ok(Route::Control { .. } | Route::Exec | Route::Reset));
    let working = works.then(|| served.working.try_acquire());
    if let Some(Err(_)) = working {
        // Its connection is worth more than what it still sends.
        let mut reply = Reply::from(Refusal::busy("too many requests: try again"));
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return reply;
    }
    let reply = match route {
        Ok(Route::Info) => Ok(reply::body(StatusCode::OK, served.info.body(), reply::JSON)),
        Ok(Route::Log) => log::log(pod).await,
        Ok(Route::Reset) => reset::reset(pod).await,
        Ok(Route::Control { task, limit }) => {
            task::control(pod, &served.bodies, task, limit, &head.headers, &mut body).await
        }
        Ok(Route::Exec) => exec::exec(pod, &served.bodies, &head.headers, &mut body).await,
        Ok(Route::Health) => Ok(reply::ok()),
        Ok(Route::Ready) => health::ready(pod),
        Ok(Route::Metrics) => Ok(health::metrics(pod)),
        Err(refusal) => Err(refusal),
    };
    body::discard(&head.headers, &mut body).await;
    reply.unwrap_or_else(Reply::from)
}
