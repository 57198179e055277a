use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(20);

fn http(address: &str) -> HttpClient {
    HttpClient::new(Scheme::Http, address, &TlsFiles::default()).unwrap()
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

/// Starts a server that answers its connections with these bytes, one each.
async fn server(answers: Vec<Vec<u8>>) -> (HttpClient, tokio::task::JoinHandle<usize>) {
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
fn addresses_are_hosts_with_ports_or_sockets() {
    let ways = [
        ("consul:8500", Scheme::Http, "consul", 8500),
        ("consul", Scheme::Http, "consul", 80),
        ("consul", Scheme::Https, "consul", 443),
        ("127.0.0.1:1", Scheme::Http, "127.0.0.1", 1),
        ("[::1]:8501", Scheme::Https, "::1", 8501),
        ("[::1]", Scheme::Http, "::1", 80),
    ];
    for (address, scheme, host, port) in ways {
        let transport = host_and_port(address, scheme);
        assert_eq!(transport, Some((host.to_owned(), port)), "{address}");
    }
    assert!(
        matches!(http("unix:///run/a b.sock").transport, Transport::Unix(path) if path.as_os_str() == "/run/a b.sock")
    );
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
        let error = HttpClient::new(Scheme::Http, address, &TlsFiles::default()).err();
        let excerpt = if address.contains("word@") { "(with an @)" } else { address };
        let expected = RegistryConfigError::Address { address: excerpt.to_owned(), expected: ADDRESS_FORM };
        assert_eq!(error, Some(expected), "{address:?}");
    }
}

proptest! {
    #[test]
    fn encoded_text_is_plain_and_decodes_to_the_same(text in ".*") {
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
async fn invalid_responses_differ_from_unavailable_servers() {
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
        let excerpt = answer.get(..40).unwrap_or(&answer).escape_ascii().to_string();
        let (http, _serving) = server(vec![answer]).await;
        let error = http.call(get("/"), TIMEOUT, 999).await.unwrap_err();
        let fits = match &error {
            RegistryError::InvalidResponse(reason) => odd && reason.contains(http.address()),
            RegistryError::Unavailable(reason) => !odd && reason.contains(http.address()),
            _ => false,
        };
        assert!(fits, "{excerpt}: {error:?}");
    }
}

#[tokio::test]
async fn closed_idle_connection_is_replaced() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let (http, serving) = server(vec![answer; 3]).await;
    for _ in 0..3 {
        let response = http.call(get("/"), TIMEOUT, MAX_SMALL_BODY).await.unwrap();
        assert_eq!(response.body(), "ok");
    }
    assert_eq!(serving.await.unwrap(), 3);
}

#[tokio::test]
async fn connection_serves_consecutive_calls() {
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
            http.call(get("/"), TIMEOUT, MAX_SMALL_BODY).await.unwrap();
        }
    };
    tokio::join!(serving, calling);
}

#[tokio::test]
async fn dropped_call_closes_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = http(&listener.local_addr().unwrap().to_string());
    let heard = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 8]).await.unwrap();
        stream
    };
    let mut stream = tokio::select! {
        answer = http.call(get("/"), TIMEOUT, MAX_SMALL_BODY) => panic!("{answer:?}"),
        stream = heard => stream,
    };
    let end = timeout(TIMEOUT, stream.read_to_end(&mut Vec::new())).await;
    assert!(end.is_ok(), "the connection stands");
}

#[tokio::test(start_paused = true)]
async fn call_ends_at_its_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let error = http(&address).call(get("/"), TIMEOUT, MAX_SMALL_BODY).await.unwrap_err();
    assert_eq!(error, RegistryError::Unavailable(format!("no response from {address} within 20 s")));
}

#[tokio::test]
async fn lines_arrive_whole_before_the_response_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = http(&listener.local_addr().unwrap().to_string());
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        _ = stream.read(&mut [0; 4096]).await.unwrap();
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}{}{}", chunk("one\ntw"), chunk("o\n\nthr")).as_bytes()).await.unwrap();
        stream
    };
    let (mut stream, lines) = tokio::join!(serving, http.open(get("/"), 10));
    let mut lines = lines.unwrap();
    assert_eq!(lines.status(), StatusCode::OK);
    for expected in ["one", "two", ""] {
        assert_eq!(timeout(TIMEOUT, lines.next()).await.unwrap(), Ok(Some(expected.into())));
    }
    assert!(timeout(Duration::from_millis(50), lines.next()).await.is_err(), "the line has not ended");
    stream.write_all(format!("{}0\r\n\r\n", chunk("ee")).as_bytes()).await.unwrap();
    assert_eq!(lines.next().await, Ok(Some("three".into())));
    assert_eq!(lines.next().await, Ok(None));
}

#[tokio::test]
async fn lines_are_limited_and_broken_connections_are_errors() {
    let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(100)).into_bytes();
    let (http, _serving) = server(vec![long, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\none\ntwo".to_vec()]).await;
    let mut lines = http.open(get("/"), 99).await.unwrap();
    assert!(matches!(lines.next().await, Err(RegistryError::InvalidResponse(_))));
    let mut lines = http.open(get("/"), 99).await.unwrap();
    assert_eq!(lines.next().await, Ok(Some("one".into())));
    assert!(matches!(lines.next().await, Err(RegistryError::Unavailable(_))));
}

#[test]
fn text_of_a_response_is_cut() {
    let excerpt = |body: &[u8]| text(&Response::new(Bytes::copy_from_slice(body)));
    assert_eq!(excerpt(b" Permission denied\n"), "Permission denied");
    assert_eq!(excerpt("ä".repeat(10_000).as_bytes()), "ä".repeat(MAX_TEXT_CHARS));
    assert_eq!(excerpt(b"\xff"), "\u{fffd}");
}
