use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const LIMIT: Duration = Duration::from_secs(2);

fn http(address: &str) -> Http {
    Http::new(Scheme::Http, address, &TlsFiles::default()).unwrap()
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

/// A server that answers its connections with these bytes, one each.
async fn server(answers: Vec<Vec<u8>>) -> (Http, tokio::task::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = http(&listener.local_addr().unwrap().to_string());
    let serving = tokio::spawn(async move {
        let mut served = 0;
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            served += 1;
            _ = stream.read(&mut [0; 4096]).await;
            _ = stream.write_all(&answer).await;
            _ = stream.shutdown().await;
            _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
        served
    });
    (http, serving)
}

#[test]
fn addresses_are_hosts_and_ports_or_sockets() {
    let ways = [
        ("consul:8500", Scheme::Http, "consul", 8500),
        ("consul", Scheme::Http, "consul", 80),
        ("consul", Scheme::Https, "consul", 443),
        ("127.0.0.1:1", Scheme::Http, "127.0.0.1", 1),
        ("[::1]:8501", Scheme::Https, "::1", 8501),
        ("[::1]", Scheme::Http, "::1", 80),
    ];
    for (address, scheme, host, port) in ways {
        let way = host_and_port(address, scheme);
        assert_eq!(way, Some((host.to_owned(), port)), "{address}");
    }
    assert!(matches!(http("unix:///run/a b.sock").way, Way::Unix(path) if path.as_os_str() == "/run/a b.sock"));
    let none = [
        "",
        ":8500",
        "consul:",
        "consul:x",
        "consul:65536",
        "consul:8500/",
        "http://consul",
        "httpshttps://consul:8500",
        "consul:8500https://",
        "user:word@consul:8500",
        "a b:1",
        "::1",
        "unix://",
        "unix://relative",
        "consul\n:1",
    ];
    for address in none {
        let error = Http::new(Scheme::Http, address, &TlsFiles::default()).err();
        let shown = if address.contains("word@") { "(with an @)" } else { address };
        let expected = OpenError::Address { address: shown.to_owned(), expected: FORM };
        assert_eq!(error, Some(expected), "{address:?}");
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_plain_and_says_the_same(text in ".*") {
        let encoded = encoded(&text);
        prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
        let mut parts = encoded.split('%');
        let mut bytes = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
            bytes.extend(part[2..].bytes());
        }
        prop_assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }
}

#[tokio::test]
async fn what_is_no_answer_is_told_from_nobody_there() {
    let long = "x".repeat(1000);
    let unexpected = [
        b"\0\xff\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec(),
        b"HTTP/1.1 999999 OK\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(10_000)).into_bytes(),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{long}").into_bytes(),
        format!("HTTP/1.1 200 OK\r\n\r\n{long}").into_bytes(),
    ];
    let unavailable = [
        Vec::new(),
        b"HTTP/1.1 200".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{".to_vec(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
    ];
    let answers = unexpected.into_iter().map(|answer| (answer, true));
    for (answer, odd) in answers.chain(unavailable.into_iter().map(|answer| (answer, false))) {
        let shown = answer.get(..40).unwrap_or(&answer).escape_ascii().to_string();
        let (http, _serving) = server(vec![answer]).await;
        let error = http.call(get("/"), LIMIT, 999).await.unwrap_err();
        let fits = match &error {
            DiscoveryError::Unexpected(reason) => odd && reason.contains(http.address()),
            DiscoveryError::Unavailable(reason) => !odd && reason.contains(http.address()),
            _ => false,
        };
        assert!(fits, "{shown}: {error:?}");
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_made_anew() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let (http, serving) = server(vec![answer; 3]).await;
    for _ in 0..3 {
        let response = http.call(get("/"), LIMIT, SHORT).await.unwrap();
        assert_eq!(response.body(), "ok");
    }
    assert_eq!(serving.await.unwrap(), 3);
}

#[tokio::test]
async fn a_connection_serves_one_call_after_the_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = http(&listener.local_addr().unwrap().to_string());
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..3 {
            let read = stream.read(&mut [0; 4096]).await.unwrap();
            assert!(read > 0, "another connection");
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
    };
    let calling = async {
        for _ in 0..3 {
            http.call(get("/"), LIMIT, SHORT).await.unwrap();
        }
    };
    tokio::join!(serving, calling);
}

#[tokio::test]
async fn who_drops_a_call_hangs_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = http(&listener.local_addr().unwrap().to_string());
    let heard = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 8]).await.unwrap();
        stream
    };
    let mut stream = tokio::select! {
        answer = http.call(get("/"), LIMIT, SHORT) => panic!("{answer:?}"),
        stream = heard => stream,
    };
    let end = timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await;
    assert!(end.is_ok(), "the connection stands");
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let error = http(&address).call(get("/"), LIMIT, SHORT).await.unwrap_err();
    assert_eq!(error, DiscoveryError::Unavailable(format!("no answer from {address} within 2 s")));
}

#[test]
fn the_text_of_an_answer_is_short() {
    let shown = |body: &[u8]| text(&Response::new(Bytes::copy_from_slice(body)));
    assert_eq!(shown(b" Permission denied\n"), "Permission denied");
    assert_eq!(shown("ä".repeat(10_000).as_bytes()), "ä".repeat(LONGEST_TEXT));
    assert_eq!(shown(b"\xff"), "\u{fffd}");
}
