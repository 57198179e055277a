//! Connections of a guest by the SDK's `net::connect`: refused ports stay refused, and time limits are kept.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket};
use serde_json::json;

use crate::kit::{LONG_TIMEOUT, attempt, lifecycle, plain};

const TIMES: u32 = 100;

/// Returns a port that no other process can use while the socket is open, and that refuses connections: nothing
/// listens.
fn refusing() -> (SocketAddr, OwnedFd) {
    let server = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(server.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let port = getsockname::<SockaddrIn>(server.as_raw_fd()).unwrap().port();
    (SocketAddr::from(([127, 0, 0, 1], port)), server)
}

/// Starts a server whose queue is full: it neither accepts nor refuses. The connections fill the queue.
fn full() -> (SocketAddr, OwnedFd, Vec<TcpStream>) {
    let (address, server) = refusing();
    listen(&server, Backlog::new(0).unwrap()).unwrap();
    let mut queued = Vec::new();
    while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
        queued.push(connection);
    }
    (address, server, queued)
}

#[tokio::test]
async fn refused_connections_stay_refused_and_accepted_ones_are_connected() {
    let lifecycle = lifecycle(&plain()).await;
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    let (closed, _reserved) = refusing();
    let refused =
        attempt(&lifecycle, "connect-within", &format!("{closed} {TIMES} 20000"), LONG_TIMEOUT).await.unwrap();
    assert_eq!(refused, json!({ "ConnectionRefused": TIMES }));
    let address = open.local_addr().unwrap();
    let connected = attempt(&lifecycle, "connect-within", &format!("{address} 20 20000"), LONG_TIMEOUT).await.unwrap();
    assert_eq!(connected, json!({ "connected": 20 }));
}

#[tokio::test]
async fn the_time_limit_is_held_where_nothing_answers() {
    let lifecycle = lifecycle(&plain()).await;
    let (address, _server, _queued) = full();
    let begin = Instant::now();
    let outcomes = attempt(&lifecycle, "connect-within", &format!("{address} 3 300"), LONG_TIMEOUT).await.unwrap();
    assert_eq!(outcomes, json!({ "TimedOut": 3 }));
    assert!(begin.elapsed() >= Duration::from_millis(900), "it stopped after {:?}", begin.elapsed());
}
