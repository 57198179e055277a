//! Floods: of connections, of posts that stall, of bodies. Who asks something meanwhile is answered.

use std::net::{IpAddr, Ipv4Addr};

use tokio::net::TcpSocket;

use super::*;

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: pod\r\n\r\n";
const ELSEWHERE: u8 = 77;

/// A connection from 127.0.0.`host`.
async fn connect(served: &Served, host: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), 0)).unwrap();
    socket.connect(served.address).await.unwrap()
}

/// Asks for `/healthz` on a connection that is kept. False when it was closed.
async fn is_served(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 1024];
    stream.write_all(HEALTH).await.is_ok()
        && timeout(LONG, stream.read(&mut answer)).await.expect("an answer, or an end").is_ok_and(|size| size > 0)
}

/// Sends the head of a post and a part of its body, and nothing more.
async fn stall(served: &Served, host: u8, path: &str, declared: usize, sent: usize) -> TcpStream {
    let mut stream = connect(served, host).await;
    let head = format!("POST {path} HTTP/1.1\r\nHost: pod\r\nContent-Length: {declared}\r\n\r\n");
    // The server may refuse and close before all is sent.
    _ = stream.write_all(head.as_bytes()).await;
    _ = stream.write_all(&vec![b'x'; sent]).await;
    stream
}

/// The answer to a post from 127.0.0.`host`.
async fn post(served: &Served, host: u8, path: &str, body: &str) -> Answer {
    let mut stream = connect(served, host).await;
    let length = body.len();
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    _ = stream.write_all(request.as_bytes()).await;
    let mut bytes = Vec::new();
    timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the server closes").unwrap();
    Answer::parse(&bytes)
}

#[tokio::test]
async fn a_flood_from_one_address_closes_its_own_connections_only() {
    let served = Served::start().await;
    let mut others = Vec::new();
    for host in 2..10 {
        let mut stream = connect(&served, host).await;
        assert!(is_served(&mut stream).await);
        others.push(stream);
    }
    let mut flood = Vec::new();
    for sent in 0..1500 {
        let mut stream = connect(&served, ELSEWHERE).await;
        // Some drip the head of a request.
        if sent % 3 == 0 {
            stream.write_all(b"GET /info HTTP/1.1\r\nX-Slow: ").await.unwrap();
        }
        flood.push(stream);
    }
    for stream in &mut others {
        assert!(is_served(stream).await, "a connection that was kept is closed");
    }
    assert!(is_served(&mut connect(&served, 10).await).await, "a newcomer is not served");
    assert!(is_served(&mut connect(&served, ELSEWHERE).await).await, "the flooding address is shut out");
    let first = flood.first_mut().unwrap();
    let end = timeout(LONG, first.read(&mut [0; 8])).await.expect("the oldest gave way");
    assert!(end.is_ok_and(|size| size == 0) || first.write_all(b"x").await.is_err());
}

#[tokio::test]
async fn a_flood_from_many_addresses_closes_what_is_idle_for_longest() {
    let served = Served::start().await;
    let mut idle = Vec::new();
    for sent in 0..1024_u16 {
        idle.push(connect(&served, u8::try_from(sent % 200 + 2).unwrap()).await);
    }
    for host in 210..250 {
        assert!(is_served(&mut connect(&served, host).await).await, "127.0.0.{host} is not served");
    }
}

#[tokio::test]
async fn who_only_looks_is_answered_under_a_flood_of_stalled_posts() {
    let mut served = Served::start().await;
    let mut flood = Vec::new();
    for _ in 0..1100 {
        flood.push(stall(&served, ELSEWHERE, "/control/kill", 2, 1).await);
    }
    for path in ["/healthz", "/info", "/log"] {
        assert_eq!(served.get(path).await.status, 200, "{path} is out of reach");
    }
    let answer = post(&served, ELSEWHERE, "/control/kill", "").await;
    assert_eq!((answer.status, answer.error()), (503, "too many requests: try again".to_owned()));
    let (answer, _) = served.submitted("POST /control/kill", "", "", Outcome::Done(json!({}))).await;
    assert_eq!(answer.status, 200, "another address is not obeyed");
    drop(flood);
    let freed = async { while post(&served, ELSEWHERE, "/control/kill/0.01", "").await.status == 503 {} };
    timeout(LONG, freed).await.expect("requests that ended make room");
}

#[tokio::test]
async fn a_post_under_way_gives_way_to_nobody() {
    let mut served = Served::start().await;
    let mut post = connect(&served, ELSEWHERE).await;
    post.write_all(b"POST /control/off HTTP/1.1\r\nHost: pod\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let submission = timeout(LONG, served.submissions.recv()).await.unwrap().unwrap();
    let mut flood = Vec::new();
    for _ in 0..1100 {
        flood.push(connect(&served, ELSEWHERE).await);
    }
    submission.reply.send(Outcome::Done(json!({"done": true}))).unwrap();
    let mut answer = [0; 1024];
    let size = timeout(LONG, post.read(&mut answer)).await.unwrap().unwrap();
    assert_eq!(Answer::parse(&answer[..size]).json(), json!({"done": true}));
}

#[tokio::test]
async fn bodies_share_a_bounded_room_and_no_address_takes_all_of_it() {
    let mut served = Served::start().await;
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
            assert_eq!(answer.status, 400, "there was room still");
        }
    };
    let error = timeout(LONG, full).await.expect("the room is full");
    assert_eq!(error, "there is no room for the body: try again");
    let text = format!("\"{}\"", "x".repeat(1_000_000));
    let (answer, _) = served.submitted("POST /control/signal", "", &text, Outcome::Done(json!({}))).await;
    assert_eq!(answer.status, 200, "another address finds no room");
    drop(hoard);
    let freed = async { while post(&served, ELSEWHERE, "/control/signal/0.2", &small).await.status != 400 {} };
    timeout(LONG, freed).await.expect("bodies that ended make room");
}
