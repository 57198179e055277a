//! Bursts of connections, stalled posts and bodies, during which other clients are served.

use std::net::{IpAddr, Ipv4Addr};

use tokio::net::TcpSocket;

use super::*;

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: pod\r\n\r\n";
const ELSEWHERE: u8 = 77;

/// Connects from 127.0.0.`host`.
async fn connect(served: &TestServer, host: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), 0)).unwrap();
    socket.connect(served.address).await.unwrap()
}

/// Requests `/healthz` on a connection that is kept. False if it was closed.
async fn is_served(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 1024];
    stream.write_all(HEALTH).await.is_ok()
        && timeout(TIMEOUT, stream.read(&mut answer)).await.expect("an answer, or an end").is_ok_and(|size| size > 0)
}

/// Sends the head of a post and a part of its body, and nothing more.
async fn stall(served: &TestServer, host: u8, path: &str, declared: usize, sent: usize) -> TcpStream {
    let mut stream = connect(served, host).await;
    let head = format!("POST {path} HTTP/1.1\r\nHost: pod\r\nContent-Length: {declared}\r\n\r\n");
    // The server may refuse and close before all is sent.
    _ = stream.write_all(head.as_bytes()).await;
    _ = stream.write_all(&vec![b'x'; sent]).await;
    stream
}

/// Posts from 127.0.0.`host`, and returns the reply.
async fn post(served: &TestServer, host: u8, path: &str, body: &str) -> ParsedReply {
    let mut stream = connect(served, host).await;
    let length = body.len();
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    _ = stream.write_all(request.as_bytes()).await;
    let mut bytes = Vec::new();
    timeout(TIMEOUT, stream.read_to_end(&mut bytes)).await.expect("the server closes").unwrap();
    ParsedReply::parse(&bytes)
}

#[tokio::test]
async fn connections_from_one_address_close_only_its_own() {
    let served = TestServer::start().await;
    let mut others = Vec::new();
    for host in 2..10 {
        let mut stream = connect(&served, host).await;
        assert!(is_served(&mut stream).await);
        others.push(stream);
    }
    let mut streams = Vec::new();
    for sent in 0..1500 {
        let mut stream = connect(&served, ELSEWHERE).await;
        // Some drip the head of a request.
        if sent % 3 == 0 {
            stream.write_all(b"GET /info HTTP/1.1\r\nX-Slow: ").await.unwrap();
        }
        streams.push(stream);
    }
    for stream in &mut others {
        assert!(is_served(stream).await, "a connection that was kept is closed");
    }
    assert!(is_served(&mut connect(&served, 10).await).await, "a newcomer is not served");
    assert!(is_served(&mut connect(&served, ELSEWHERE).await).await, "the flooding address is shut out");
    let first = streams.first_mut().unwrap();
    let end = timeout(TIMEOUT, first.read(&mut [0; 8])).await.expect("the oldest gave way");
    assert!(end.is_ok_and(|size| size == 0) || first.write_all(b"x").await.is_err());
}

#[tokio::test]
async fn connections_from_many_addresses_close_the_longest_idle() {
    let served = TestServer::start().await;
    let mut idle = Vec::new();
    for sent in 0..1024_u16 {
        idle.push(connect(&served, u8::try_from(sent % 200 + 2).unwrap()).await);
    }
    for host in 210..250 {
        assert!(is_served(&mut connect(&served, host).await).await, "127.0.0.{host} is not served");
    }
}

#[tokio::test]
async fn read_only_requests_are_answered_during_many_stalled_posts() {
    let mut served = TestServer::start().await;
    let mut streams = Vec::new();
    for _ in 0..1100 {
        streams.push(stall(&served, ELSEWHERE, "/control/kill", 2, 1).await);
    }
    for path in ["/healthz", "/info", "/log"] {
        assert_eq!(served.get(path).await.status, 200, "{path} is out of reach");
    }
    let answer = post(&served, ELSEWHERE, "/control/kill", "").await;
    assert_eq!((answer.status, answer.error()), (503, "too many requests: try again later".to_owned()));
    let (answer, _) = served.submitted("POST /control/kill", "", "", Outcome::Done(json!({}))).await;
    assert_eq!(answer.status, 200, "another address is not accepted");
    drop(streams);
    let freed = async { while post(&served, ELSEWHERE, "/control/kill/0.01", "").await.status == 503 {} };
    timeout(TIMEOUT, freed).await.expect("requests that ended make room");
}

#[tokio::test]
async fn post_in_progress_never_yields() {
    let mut served = TestServer::start().await;
    let mut post = connect(&served, ELSEWHERE).await;
    post.write_all(b"POST /control/off HTTP/1.1\r\nHost: pod\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let submission = timeout(TIMEOUT, served.submissions.recv()).await.unwrap().unwrap();
    let mut streams = Vec::new();
    for _ in 0..1100 {
        streams.push(connect(&served, ELSEWHERE).await);
    }
    submission.reply.send(Outcome::Done(json!({"done": true}))).unwrap();
    let mut answer = [0; 1024];
    let size = timeout(TIMEOUT, post.read(&mut answer)).await.unwrap().unwrap();
    assert_eq!(ParsedReply::parse(&answer[..size]).json(), json!({"done": true}));
}

#[tokio::test]
async fn bodies_share_bounded_buffers_and_no_address_takes_all() {
    let mut served = TestServer::start().await;
    let four = 4 * 1024 * 1024;
    let mut hoard = Vec::new();
    for _ in 0..4 {
        hoard.push(stall(&served, ELSEWHERE, "/control/signal", four, four - 1).await);
    }
    let small = "{".repeat(1000);
    let full = async {
        loop {
            let answer = post(&served, ELSEWHERE, "/control/signal/0.2", &small).await;
            if answer.status == 503 {
                return answer.error();
            }
            // There was room still. A body that took longer than its limit to arrive is 408.
            assert!([400, 408].contains(&answer.status), "{answer:?}");
        }
    };
    let error = timeout(TIMEOUT, full).await.expect("the room is full");
    assert_eq!(error, "body buffers full: try again later");
    let text = format!("\"{}\"", "x".repeat(1_000_000));
    let (answer, _) = served.submitted("POST /control/signal", "", &text, Outcome::Done(json!({}))).await;
    assert_eq!(answer.status, 200, "another address finds no room");
    drop(hoard);
    let freed = async { while post(&served, ELSEWHERE, "/control/signal/0.2", &small).await.status != 400 {} };
    timeout(TIMEOUT, freed).await.expect("bodies that ended make room");
}

#[tokio::test]
async fn slow_bodies_from_many_addresses_do_not_block_another_post() {
    let mut served = TestServer::start().await;
    let mut streams = Vec::new();
    for host in 2..9 {
        for _ in 0..128 {
            streams.push(stall(&served, host, "/control/signal", 4096, 2).await);
        }
    }
    for _ in 0..10 {
        let (answer, _) = served.submitted("POST /control/check", "", &view(), Outcome::Done(json!({}))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let mut answer = vec![0; 1024];
    let size = timeout(TIMEOUT, streams[0].read(&mut answer)).await.expect("the oldest is answered").unwrap();
    let answer = ParsedReply::parse(&answer[..size]);
    assert_eq!((answer.status, answer.error().contains("too slow")), (503, true), "{answer:?}");
}

#[tokio::test]
async fn slow_large_bodies_from_many_addresses_leave_buffers_for_another_post() {
    let mut served = TestServer::start().await;
    let four = 4 * 1024 * 1024;
    let mut hoard = Vec::new();
    for host in 2..9 {
        for _ in 0..4 {
            hoard.push(stall(&served, host, "/control/signal", four, four - 1).await);
        }
    }
    let text = format!("\"{}\"", "x".repeat(3_000_000));
    for _ in 0..5 {
        let (answer, _) = served.submitted("POST /control/signal", "", &text, Outcome::Done(json!({}))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// Sends a whole post and keeps the connection.
async fn send(served: &TestServer, host: u8, path: &str, body: &str) -> TcpStream {
    let mut stream = connect(served, host).await;
    let request = format!("POST {path} HTTP/1.1\r\nHost: pod\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn client_that_disconnects_withdraws_its_request() {
    let mut served = TestServer::start().await;
    for rest in ["", "GET /info HTTP/1.1\r\nHost: pod\r\n\r\n"] {
        let mut stream = send(&served, ELSEWHERE, "/control/check", &view()).await;
        stream.write_all(rest.as_bytes()).await.unwrap();
        let submission = timeout(TIMEOUT, served.submissions.recv()).await.unwrap().unwrap();
        assert!(!submission.withdrawn.is_cancelled());
        drop(stream);
        timeout(TIMEOUT, submission.withdrawn.cancelled()).await.expect("it is withdrawn");
    }
}

#[tokio::test]
async fn waiting_requests_are_limited_per_client_and_a_leader_is_not_kept_out() {
    let mut served = TestServer::start().await;
    let mut submissions = std::mem::replace(&mut served.submissions, mpsc::channel(1).1);
    let mut strangers = Vec::new();
    for host in 2..6 {
        for _ in 0..16 {
            strangers.push(send(&served, host, "/control/check", &view()).await);
        }
    }
    let mut waiting = Vec::new();
    while waiting.len() < 64 {
        waiting.push(timeout(TIMEOUT, submissions.recv()).await.expect("as many as are let in").unwrap());
    }
    let answer = post(&served, 2, "/control/check", &view()).await;
    assert_eq!((answer.status, answer.error().contains("of this client are pending")), (503, true), "{answer:?}");
    let _leader = send(&served, ELSEWHERE, "/control/check", &view()).await;
    let submission = timeout(TIMEOUT, submissions.recv()).await.expect("the leader's request arrives").unwrap();
    assert!(!submission.withdrawn.is_cancelled());
    assert_eq!(waiting.iter().filter(|waiting| waiting.withdrawn.is_cancelled()).count(), 1);
}

#[tokio::test]
async fn body_that_takes_too_much_memory_is_rejected_before_it_is_parsed() {
    let mut served = TestServer::start().await;
    let nested = format!("[{}0]", "{\"\":0},".repeat(400_000));
    let answer = served.post("/control/signal", &nested).await;
    assert_eq!((answer.status, answer.error().contains("too complex")), (413, true), "{answer:?}");
    served.assert_nothing_changed();
}
