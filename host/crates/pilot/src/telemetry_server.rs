//! HTTP server of the telemetry: `GET /metrics` for Prometheus, `GET /status` for other clients.

use std::{future, sync::Arc};

use bytes::Bytes;
use hyper::{
    Method, StatusCode,
    header::{ALLOW, HeaderValue},
};
use ochopod_http::{JSON, PROMETHEUS, Reply, accept, allowed, body as reply_with, serve_http1};
use ochopod_telemetry::escape;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const TEXT: &str = "text/plain; charset=utf-8";
/// Methods of both pages.
const ALLOWED: &str = "GET, HEAD, OPTIONS";

/// Serves `page` and `status`, called for each request, until `shutdown`. That closes the listener immediately, so that its
/// address can be bound again, and leaves requests in progress a second. Both functions run on the server's thread and must not
/// block.
///
/// # Cancellation safety
/// Dropping the future closes every connection.
pub(super) async fn serve(
    listener: TcpListener,
    page: impl Fn() -> String + Send + Sync + 'static,
    status: impl Fn() -> Value + Send + Sync + 'static,
    shutdown: CancellationToken,
) {
    let answer = move |method: &Method, path: &str| match (path, method.as_str()) {
        ("/metrics", "GET" | "HEAD") => reply_with(StatusCode::OK, page().into(), PROMETHEUS),
        ("/status", "GET" | "HEAD") => reply_with(StatusCode::OK, escape::json(&status().to_string()).into(), JSON),
        ("/metrics" | "/status" | "*", "OPTIONS") => allowed(ALLOWED),
        ("/metrics" | "/status", _) => method_not_allowed(),
        _ => reply_with(StatusCode::NOT_FOUND, Bytes::from_static(b"not found: expected /metrics or /status\n"), TEXT),
    };
    let (answer, stop) = (Arc::new(answer), shutdown.clone());
    accept(listener, shutdown, move |stream, connection| {
        let (answer, stop) = (Arc::clone(&answer), stop.clone());
        async move {
            let reply = |request: hyper::Request<_>| {
                connection.touch();
                future::ready(answer(request.method(), request.uri().path()))
            };
            serve_http1(stream, &connection, reply, stop).await;
        }
    })
    .await;
}

fn method_not_allowed() -> Reply {
    let text = Bytes::from_static(b"method not allowed: expected GET or HEAD\n");
    let mut reply = reply_with(StatusCode::METHOD_NOT_ALLOWED, text, TEXT);
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(ALLOWED));
    reply
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        task::JoinHandle,
        time::timeout,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    async fn started() -> (SocketAddr, CancellationToken, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let requests = AtomicU64::new(0);
        let page = move || format!("requests {}\n", requests.fetch_add(1, Ordering::Relaxed) + 1);
        let server = tokio::spawn(serve(listener, page, || json!({"services": []}), shutdown.clone()));
        (address, shutdown, server)
    }

    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn page_and_status_are_current() {
        let (address, ..) = started().await;
        for count in 1..3 {
            let answer = exchange(address, "GET /metrics").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
            assert!(answer.ends_with(&format!("\r\n\r\nrequests {count}\n")), "{answer}");
        }
        let answer = exchange(address, "GET /status?pretty").await;
        assert!(answer.contains("content-type: application/json"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n{\"services\":[]}"), "{answer}");
    }

    #[tokio::test]
    async fn head_replies_have_no_body() {
        let (address, ..) = started().await;
        for (path, length) in [("/metrics", 11), ("/status", 15)] {
            let answer = exchange(address, &format!("HEAD {path}")).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
            assert!(answer.contains(&format!("content-length: {length}\r\n")), "{answer}");
        }
    }

    #[tokio::test]
    async fn options_returns_the_allowed_methods() {
        let (address, ..) = started().await;
        for path in ["/metrics", "/status", "*"] {
            let answer = exchange(address, &format!("OPTIONS {path}")).await;
            assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
            assert!(answer.contains("allow: GET, HEAD, OPTIONS\r\n"), "{answer}");
        }
    }

    #[tokio::test]
    async fn other_requests_are_rejected_in_plain_text() {
        let (address, ..) = started().await;
        for request in ["GET /", "GET /metrics/", "GET /Status", "POST /other", "OPTIONS /other"] {
            let answer = exchange(address, request).await;
            assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{request}: {answer}");
            assert!(answer.contains("content-type: text/plain"), "{request}: {answer}");
        }
        for request in ["POST /metrics", "DELETE /status", "get /metrics"] {
            let answer = exchange(address, request).await;
            assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{request}: {answer}");
            assert!(answer.contains("allow: GET, HEAD, OPTIONS\r\n"), "{request}: {answer}");
        }
    }

    #[tokio::test]
    async fn shutdown_frees_the_address_despite_open_connections() {
        let (address, shutdown, server) = started().await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        timeout(LONG, idle.read_exact(&mut first)).await.unwrap().unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET /metr").await.unwrap();
        shutdown.cancel();
        timeout(LONG, server).await.unwrap().unwrap();
        TcpListener::bind(address).await.unwrap();
        let mut rest = String::new();
        timeout(LONG, idle.read_to_string(&mut rest)).await.unwrap().unwrap();
        assert!(rest.ends_with("requests 1\n"), "{rest}");
    }
}
