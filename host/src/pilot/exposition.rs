//! The telemetry server: `GET /metrics` for Prometheus, `GET /status` for everybody else.

use std::{future, sync::Arc};

use bytes::Bytes;
use hyper::{
    Method, StatusCode,
    header::{ALLOW, HeaderValue},
};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::control::{self, Reply, reply_with};

const TEXT: &str = "text/plain; charset=utf-8";

/// Serves what `page` and `status` say at the moment of each request, until `shutdown`: that closes the listener at once, so
/// that its address can be bound again, and leaves a second to answers that are under way. Both are called on the thread that
/// serves and must not block.
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
        ("/metrics", "GET" | "HEAD") => reply_with(StatusCode::OK, page().into(), control::PROMETHEUS),
        ("/status", "GET" | "HEAD") => reply_with(StatusCode::OK, status().to_string().into(), control::JSON),
        ("/metrics" | "/status", _) => refuse_method(),
        _ => reply_with(StatusCode::NOT_FOUND, Bytes::from_static(b"there is only /metrics and /status\n"), TEXT),
    };
    let (answer, stop) = (Arc::new(answer), shutdown.clone());
    control::accept(listener, shutdown, move |stream, seat| {
        let (answer, stop) = (Arc::clone(&answer), stop.clone());
        async move {
            let reply = |request: hyper::Request<_>| {
                seat.heard();
                future::ready(answer(request.method(), request.uri().path()))
            };
            control::converse(stream, reply, stop).await;
        }
    })
    .await;
}

fn refuse_method() -> Reply {
    let text = Bytes::from_static(b"the method is not allowed here, expected GET or HEAD\n");
    let mut reply = reply_with(StatusCode::METHOD_NOT_ALLOWED, text, TEXT);
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
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
        let asked = AtomicU64::new(0);
        let page = move || format!("asked {}\n", asked.fetch_add(1, Ordering::Relaxed) + 1);
        let server = tokio::spawn(serve(listener, page, || json!({"services": []}), shutdown.clone()));
        (address, shutdown, server)
    }

    async fn asked(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn the_page_and_the_status_are_those_of_the_moment() {
        let (address, ..) = started().await;
        for count in 1..3 {
            let answer = asked(address, "GET /metrics").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
            assert!(answer.ends_with(&format!("\r\n\r\nasked {count}\n")), "{answer}");
        }
        let answer = asked(address, "GET /status?pretty").await;
        assert!(answer.contains("content-type: application/json"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n{\"services\":[]}"), "{answer}");
    }

    #[tokio::test]
    async fn heads_come_without_bodies() {
        let (address, ..) = started().await;
        for (path, length) in [("/metrics", 8), ("/status", 15)] {
            let answer = asked(address, &format!("HEAD {path}")).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
            assert!(answer.contains(&format!("content-length: {length}\r\n")), "{answer}");
        }
    }

    #[tokio::test]
    async fn everything_else_is_refused_in_plain_text() {
        let (address, ..) = started().await;
        for request in ["GET /", "GET /metrics/", "GET /Status", "POST /other", "OPTIONS *"] {
            let answer = asked(address, request).await;
            assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{request}: {answer}");
            assert!(answer.contains("content-type: text/plain"), "{request}: {answer}");
        }
        for request in ["POST /metrics", "DELETE /status", "get /metrics"] {
            let answer = asked(address, request).await;
            assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{request}: {answer}");
            assert!(answer.contains("allow: GET, HEAD\r\n"), "{request}: {answer}");
        }
    }

    #[tokio::test]
    async fn its_address_is_free_at_once_and_nobody_holds_it_up() {
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
        assert!(rest.ends_with("asked 1\n"), "{rest}");
    }
}
