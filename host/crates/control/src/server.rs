//! Serves connections and dispatches requests to their handlers.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use hyper::{
    Request, StatusCode,
    body::{Body as _, Incoming},
    http::request::Parts,
};
use ochopod_http::{ConnectionInfo, Reply, accept, serve_http1};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    ApiContext,
    auth::{self, AuthRequest, Authorization},
    body, exec,
    info::InfoCache,
    log, monitoring,
    pending_requests::PendingRequests,
    reload,
    replay_guard::ReplayGuard,
    reply::{self, ApiError},
    request_limiter::RequestLimiter,
    reset,
    route::Route,
    task,
};

/// Time limit for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// First byte of TLS: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
const TLS_REQUIRED_RESPONSE: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json; charset=utf-8\r\n\
    Content-Length: 36\r\nConnection: close\r\n\r\n{\"error\": \"TLS required: use https\"}";

/// State shared by all connections.
pub(super) struct ServerState {
    pub(super) context: Arc<ApiContext>,
    pub(super) pending_requests: PendingRequests,
    pub(super) replay_guard: ReplayGuard,
    info: InfoCache,
    limiter: RequestLimiter,
    tls: Option<TlsAcceptor>,
}

/// Serves the control API of one pod until `shutdown`, with TLS if it is given. Requests in progress have one more second.
///
/// # Cancellation safety
/// Dropping the future closes every connection.
pub async fn serve(
    listener: TcpListener,
    context: Arc<ApiContext>,
    tls: Option<Arc<rustls::ServerConfig>>,
    shutdown: CancellationToken,
) {
    let state = Arc::new(ServerState {
        info: InfoCache::new(&context),
        context,
        pending_requests: PendingRequests::default(),
        replay_guard: ReplayGuard::default(),
        limiter: RequestLimiter::default(),
        tls: tls.map(TlsAcceptor::from),
    });
    let stop = shutdown.clone();
    accept(listener, shutdown, move |stream, connection| {
        handle_connection(stream, connection, state.clone(), stop.clone())
    })
    .await;
}

async fn handle_connection(
    mut stream: TcpStream,
    connection: Arc<ConnectionInfo>,
    state: Arc<ServerState>,
    shutdown: CancellationToken,
) {
    let Some(tls) = &state.tls else { return serve_requests(stream, connection, false, state, shutdown).await };
    let handshake = timeout(HANDSHAKE_TIMEOUT, async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first != [TLS_HANDSHAKE] {
            // Unread bytes would reset the connection, and drop the reply.
            _ = stream.read(&mut vec![0; 4096]).await?;
            stream.write_all(TLS_REQUIRED_RESPONSE).await?;
            return Ok(None);
        }
        tls.accept(stream).await.map(Some)
    });
    match handshake.await {
        Ok(Ok(Some(stream))) => {
            let has_certificate = stream.get_ref().1.peer_certificates().is_some();
            serve_requests(stream, connection, has_certificate, state, shutdown).await;
        }
        Ok(Ok(None)) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(peer = %connection.address, %error, "TLS handshake failed"),
    }
}

async fn serve_requests(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: Arc<ConnectionInfo>,
    has_certificate: bool,
    state: Arc<ServerState>,
    shutdown: CancellationToken,
) {
    let handle_request = |request| {
        let (state, connection) = (state.clone(), connection.clone());
        async move { handle_request(&state, &connection, has_certificate, request).await }
    };
    serve_http1(stream, &connection, handle_request, shutdown).await;
}

async fn handle_request(
    state: &ServerState,
    connection: &ConnectionInfo,
    has_certificate: bool,
    request: Request<Incoming>,
) -> Reply {
    connection.touch();
    let (head, mut body) = request.into_parts();
    let reply = match Route::parse(&head.method, head.uri.path()) {
        Ok(route) => dispatch(state, (connection, has_certificate), &route, &head, &mut body).await,
        Err(error) => Err(error),
    };
    body::discard(&head.headers, &mut body).await;
    reply.unwrap_or_else(Reply::from)
}

async fn dispatch(
    state: &ServerState,
    (connection, has_certificate): (&ConnectionInfo, bool),
    route: &Route<'_>,
    head: &Parts,
    body: &mut Incoming,
) -> Result<Reply, ApiError> {
    let context = &*state.context;
    let auth_request = AuthRequest {
        route,
        method: &head.method,
        path: head.uri.path(),
        headers: &head.headers,
        peer: connection.address,
        has_certificate,
        has_body: !body.is_end_stream(),
        now: SystemTime::now(),
    };
    let authorization = auth::authorize(auth_request, &context.id, context.token.as_ref())?;
    if let Authorization::Signature(signature) = &authorization {
        state.replay_guard.expect_unused(signature)?;
    }
    let signed = matches!(authorization, Authorization::Signature(_));
    let permit = || {
        state
            .limiter
            .acquire(connection, signed)
            .ok_or_else(|| ApiError::unavailable("too many requests: try again later"))
    };
    match *route {
        Route::Info => Ok(ochopod_http::body(StatusCode::OK, state.info.body(), ochopod_http::JSON)),
        Route::Log => log::log(context).await,
        Route::Reset => {
            let permit = permit()?;
            permit.complete();
            reset::reset(context).await
        }
        Route::Control { task, limit } => {
            task::control(state, &permit()?, task, limit, authorization, (&head.headers, body)).await
        }
        Route::Reload => reload::reload(context, &permit()?, &head.headers, body).await,
        Route::Exec => exec::exec(context, &permit()?, &head.headers, body).await,
        Route::Health => Ok(reply::ok()),
        Route::Ready => monitoring::ready(context),
        Route::Metrics => Ok(monitoring::metrics(context)),
        Route::Options(allow) => Ok(ochopod_http::allowed(allow)),
    }
}
