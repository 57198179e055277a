//! Hostile requests: the server continues, and nothing changes.

use super::*;

#[tokio::test]
async fn unknown_path_is_404_and_wrong_method_is_405_with_allow() {
    let served = TestServer::start().await;
    for path in
        ["/", "/control", "/control/", "/control/on/", "/control/on/5/6", "/info/", "/%2e%2e/etc/passwd", "//info"]
    {
        assert_eq!(served.post(path, "").await.status, 404, "{path}");
    }
    let cases = [
        ("PUT /info", "get, head, options, post"),
        ("GET /control/on", "options, post"),
        ("HEAD /control/on", "options, post"),
        ("HEAD /reset", "options, post"),
        ("DELETE /exec", "options, post"),
        ("POST /metrics", "get, head, options"),
        ("PATCH /log", "get, head, options, post"),
        ("BREW /readyz", "get, head, options"),
        ("options /readyz", "get, head, options"),
    ];
    for (line, allow) in cases {
        let answer = served.send(line, "", "").await;
        assert_eq!(answer.status, 405, "{line}");
        assert!(answer.head.contains(&format!("allow: {allow}\r\n")), "{answer:?}");
        assert!(line.starts_with("HEAD") || !answer.error().is_empty(), "{answer:?}");
    }
}

#[tokio::test]
async fn unusual_but_valid_http_is_accepted() {
    let served = TestServer::start().await;
    let requests = [
        "GET /info HTTP/1.0\r\n\r\n",
        "GET http://somewhere.else:1/info HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n",
        "GET /info#x HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n",
        "\r\nGET /info HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n",
        "GET /info HTTP/1.1\nHost: pod\nConnection: close\n\n",
        "GET /info HTTP/1.1\r\nHost: pod\r\nConnection: upgrade, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        "POST /info HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    for request in requests {
        assert_eq!(served.raw(request).await.json()["key"], ID, "{request:?}");
    }
}

#[tokio::test]
async fn requests_in_one_packet_are_answered_in_their_order() {
    let served = TestServer::start().await;
    let close = "Connection: close\r\n";
    let requests = [("GET /healthz", ""), ("GET /nothing", ""), ("GET /info", close), ("POST /control/kill", "")];
    let requests = requests.map(|(line, headers)| format!("{line} HTTP/1.1\r\nHost: pod\r\n{headers}\r\n"));
    let answers = served.raw(requests.concat()).await;
    let text = format!("{}\r\n\r\n{}", answers.head, answers.body);
    let statuses: Vec<&str> = text.split("http/1.1 ").flat_map(|part| part.split("HTTP/1.1 ")).skip(1).collect();
    let statuses: Vec<&str> = statuses.iter().map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "404", "200"], "{text}");
}

#[tokio::test]
async fn request_may_arrive_byte_by_byte() {
    let mut served = TestServer::start().await;
    let request = b"POST /control/off HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in request {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let submission = timeout(TIMEOUT, served.submissions.recv()).await.unwrap().unwrap();
    submission.reply.send(Outcome::Done(json!({"slow": true}))).unwrap();
    let mut bytes = Vec::new();
    timeout(TIMEOUT, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(ParsedReply::parse(&bytes).json(), json!({"slow": true}));
}

#[tokio::test]
async fn trailers_are_not_headers() {
    let mut served = TestServer::start().await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let head = "POST /control/off HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nTrailer: X-Ochopod-Epoch\r\n";
    let body = "Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nX-Ochopod-Epoch: 99\r\n\r\n";
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let submission = timeout(TIMEOUT, served.submissions.recv()).await.unwrap().unwrap();
    assert_eq!(submission.request.epoch, None);
}

#[tokio::test]
async fn error_does_not_repeat_long_input() {
    let mut served = TestServer::start().await;
    let long = "x".repeat(30_000);
    let file = format!("--B\r\nContent-Disposition: form-data; name=\"{long}\"; filename=\"a\"\r\n\r\n\r\n--B--");
    let multipart = "X-Shell: echo\r\nContent-Type: multipart/form-data; boundary=B\r\n";
    let answers = [
        served.post(&format!("/control/{long}"), "").await,
        served.post(&format!("/control/on/{long}"), "").await,
        served.post("/control/on", format!("{{\"key\":\"{long}\",\"pods\":{{}},\"dependencies\":{{}}}}")).await,
        served.post("/control/on", format!("{{\"key\":\"a\",\"pods\":\"{long}\"}}")).await,
        served.send("POST /exec", &format!("X-Shell: {long}\r\n"), "").await,
        served.send("POST /exec", multipart, file).await,
    ];
    for answer in answers {
        assert!([400, 404].contains(&answer.status), "{answer:?}");
        assert!(answer.error().len() <= 1000, "{}", answer.error().len());
    }
    served.assert_nothing_changed();
}

#[tokio::test]
async fn client_that_closed_its_sending_side_still_receives_the_reply() {
    let mut served = TestServer::start().await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"POST /control/off HTTP/1.1\r\nHost: pod\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let submission = timeout(TIMEOUT, served.submissions.recv()).await.unwrap().unwrap();
    submission.reply.send(Outcome::Done(json!({"late": true}))).unwrap();
    let mut bytes = Vec::new();
    timeout(TIMEOUT, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(ParsedReply::parse(&bytes).json(), json!({"late": true}));
}

#[tokio::test]
async fn invalid_http_closes_its_connection_only() {
    let mut served = TestServer::start().await;
    let mut requests: Vec<Vec<u8>> = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        b"GET /\xff\xfe HTTP/1.1\r\nHost: pod\r\n\r\n",
        b"GET /info HTTP/9.9\r\n\r\n",
        b"GET  /info\r\n\r\n",
        b"POST /control/kill HTTP/1.1\r\nHost: pod\r\nContent-Length: -1\r\n\r\n",
        b"POST /control/kill HTTP/1.1\r\nHost: pod\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /control/kill HTTP/1.1\r\nHost: pod\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /control/kill HTTP/1.1\r\nHost: pod\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"GET /info HTTP/1.1\r\nNo colon here\r\n\r\n",
        b"GET /info HTTP/1.1\r\nHost: pod\r\nX: a\0b\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /in\0fo HTTP/1.1\r\nHost: pod\r\n\r\n",
        b"POST /control/kill HTTP/1.1\r\nHost: pod\r\nContent-Length : 0\r\n\r\n",
        b"POST /control/kill HTTP/1.1\r\nHost: pod\r\nContent-Length: 18446744073709551615\r\n\r\n",
        b"POST /control/kill HTTP/1.1\r\nHost: pod\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /control/kill HTTP/1.1\r\nHost: pod\r\nContent-Length: 0x0\r\n\r\n",
        b"POST /control/kill HTTP/1.1\r\nHost: pod\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /control/kill HTTP/1.1\r\nHost: pod\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nno colon\r\n\r\n",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    requests.push(format!("GET /info HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)).into_bytes());
    requests.push(format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)).into_bytes());
    requests.push(format!("GET /info HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(10_000)).into_bytes());
    for request in requests {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        _ = stream.write_all(&request).await;
        _ = stream.shutdown().await;
        let mut bytes = Vec::new();
        // A reset is as good an end as any.
        _ = timeout(TIMEOUT, stream.read_to_end(&mut bytes)).await.expect("the connection ends");
        let status = String::from_utf8_lossy(&bytes).split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
        assert!(
            status.is_none_or(|code| (400..500).contains(&code)),
            "{status:?} {:?}",
            String::from_utf8_lossy(&request)
        );
    }
    served.assert_nothing_changed();
    assert_eq!(served.get("/info").await.status, 200);
}

#[tokio::test]
async fn body_above_the_limit_is_413_whether_its_size_is_declared_or_not() {
    let mut served = TestServer::start().await;
    let four = 4 * 1024 * 1024;
    let json = |size: usize| format!("\"{}\"", "x".repeat(size - 2));
    let answer = served.post("/control/signal", json(four + 1)).await;
    assert_eq!((answer.status, answer.error()), (413, "body too large: limit is 4194304 bytes".to_owned()));
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    let head = "POST /control/signal HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(served.raw(format!("{head}{}0\r\n\r\n", chunk.repeat(6))).await.status, 413);
    served.assert_nothing_changed();
    let (answer, _) = served.submitted("POST /control/signal", "", &json(four), Outcome::Done(json!({}))).await;
    assert_eq!(answer.status, 200, "exactly the limit is fine");
}

#[tokio::test]
async fn client_that_expects_100_is_answered_before_it_sends() {
    let served = TestServer::start().await;
    let head = "POST /control/signal HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nExpect: 100-continue\r\n";
    let answer = served.raw(format!("{head}Content-Length: 99999999\r\n\r\n")).await;
    assert_eq!(answer.status, 413);
}

/// Sends the head of a post and a part of its body, and nothing more.
async fn stall(served: &TestServer, path: &str, declared: usize, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: pod\r\nContent-Length: {declared}\r\n\r\n");
    // The server may refuse and close before all is sent.
    _ = stream.write_all(head.as_bytes()).await;
    _ = stream.write_all(&vec![b'x'; sent]).await;
    stream
}

#[tokio::test]
async fn body_is_not_awaited_longer_than_30_s() {
    let served = TestServer::start().await;
    let mut stream = stall(&served, "/control/kill", 2, 1).await;
    // The body is awaited by the time that a later request is answered. Only then may the clock jump ahead.
    assert_eq!(served.get("/healthz").await.status, 200);
    tokio::time::pause();
    let started = tokio::time::Instant::now();
    let mut bytes = [0; 1024];
    let size = stream.read(&mut bytes).await.unwrap();
    let answer = ParsedReply::parse(&bytes[..size]);
    assert_eq!((answer.status, answer.error()), (408, "time limit of 30 s exceeded: request not started".to_owned()));
    assert!(started.elapsed() < Duration::from_secs(35), "{:?}", started.elapsed());
}
