//! Replies whose body is sent in parts.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::{StatusCode, body::Frame};
use ochopod_http::{accept, serve_http1};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Serves one reply whose body consists of the parts sent to the channel.
async fn serve() -> (SocketAddr, mpsc::Sender<&'static str>) {
    let (send, parts) = mpsc::channel::<&'static str>(1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let parts = std::sync::Mutex::new(Some(parts));
    tokio::spawn(async move {
        let shutdown = CancellationToken::new();
        accept(listener, shutdown.clone(), |stream, connection| {
            let (parts, shutdown) = (parts.lock().unwrap().take(), shutdown.clone());
            async move {
                let parts = std::sync::Mutex::new(parts);
                let reply = |_| {
                    let parts = parts.lock().unwrap().take().unwrap();
                    let frames = stream::unfold(parts, async |mut parts| {
                        let part = parts.recv().await?;
                        Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(part.as_bytes()))), parts))
                    });
                    std::future::ready(ochopod_http::stream(
                        StatusCode::OK,
                        StreamBody::new(frames),
                        ochopod_http::JSON,
                    ))
                };
                serve_http1(stream, &connection, reply, shutdown).await;
            }
        })
        .await;
    });
    (address, send)
}

async fn get(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").await.unwrap();
    stream
}

/// Reads until the text has arrived, and returns all that was read.
async fn read_until(stream: &mut TcpStream, expected: &str) -> String {
    let mut text = String::new();
    while !text.contains(expected) {
        let mut bytes = [0; 1024];
        let size = timeout(TIMEOUT, stream.read(&mut bytes)).await.expect("a part arrives").unwrap();
        assert!(size > 0, "connection closed after {text:?}");
        text.push_str(std::str::from_utf8(&bytes[..size]).unwrap());
    }
    text
}

#[tokio::test]
async fn parts_of_a_body_arrive_as_they_are_sent() {
    let (address, parts) = serve().await;
    let mut stream = get(address).await;
    parts.send("{\"line\":1}\n").await.unwrap();
    let head = read_until(&mut stream, "{\"line\":1}\n").await.to_lowercase();
    assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"), "{head}");
    parts.send("{\"line\":2}\n").await.unwrap();
    read_until(&mut stream, "{\"line\":2}\n").await;
    drop(parts);
    read_until(&mut stream, "0\r\n\r\n").await;
}

#[tokio::test]
async fn body_is_dropped_when_its_client_disconnects() {
    let (address, parts) = serve().await;
    let mut stream = get(address).await;
    parts.send("first").await.unwrap();
    read_until(&mut stream, "first").await;
    drop(stream);
    timeout(TIMEOUT, async { while parts.send("more").await.is_ok() {} }).await.expect("the body is dropped");
}
