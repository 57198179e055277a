//! Rejected requests: their codes, the order of checks, and no effects.

use anyhow::{Context, ensure};
use bytes::Bytes;
use hyper::Method;
use ochopod_tests::{DEFAULT_TIMEOUT, Result, eventually};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::follower::Follower;

#[tokio::test]
async fn unknown_paths_are_404_and_other_methods_405() -> Result {
    let follower = Follower::new().await?;
    let client = follower.pod.client();
    let missing =
        ["/", "/nothing", "/info/more", "/control", "/control/", "/control/on/1/2", "/../etc/passwd", "//info"];
    for path in missing {
        client.post(path).await?.error(404).with_context(|| path.to_owned())?;
    }
    for (method, path) in [
        (Method::PUT, "/info"),
        (Method::DELETE, "/log"),
        (Method::GET, "/control/on"),
        (Method::GET, "/control/kill/1"),
        (Method::GET, "/reset"),
        (Method::GET, "/exec"),
        (Method::POST, "/metrics"),
    ] {
        let reply = client.send(method.clone(), path, &[], Bytes::new()).await?;
        reply.error(405).with_context(|| format!("{method} {path}"))?;
        let allowed = reply.headers.get("allow").context("no header Allow")?.to_str()?.to_owned();
        let options = client.send(Method::OPTIONS, path, &[], Bytes::new()).await?;
        options.is(204).with_context(|| format!("OPTIONS {path}"))?;
        ensure!(
            options.headers.get("allow").context("no header Allow")?.to_str()? == allowed,
            "OPTIONS {path} differs"
        );
    }
    for path in ["/info", "/log", "/healthz", "/readyz", "/metrics"] {
        let (get, head) = (client.get(path).await?, client.send(Method::HEAD, path, &[], Bytes::new()).await?);
        ensure!(head.status == get.status && head.body.is_empty(), "HEAD {path} returned {head:?}");
        ensure!(head.headers.contains_key("content-length"), "HEAD {path} has no length");
    }
    Ok(())
}

#[tokio::test]
async fn malformed_requests_are_refused_in_order_and_change_nothing() -> Result {
    let follower = Follower::new().await?;
    let pid = follower.on().await?;
    let client = follower.pod.client();
    let before = eventually("the first sanity check is done", DEFAULT_TIMEOUT, async || {
        let info = client.info().await?;
        ensure!(info["metrics"] != json!({}), "no metrics");
        Ok(info)
    })
    .await?;
    let huge = "x".repeat(5 * 1024 * 1024);
    let view = follower.view.to_string();
    let mut foreign = follower.view.clone();
    foreign["key"] = json!("another-pod");
    foreign["pods"]["another-pod"] = json!({ "seq": 99, "ip": "127.0.0.99", "port": "1" });
    let foreign = foreign.to_string();
    let without_own = json!({ "key": follower.view["key"], "pods": {}, "dependencies": {} }).to_string();
    let no_seq = view.replace("\"seq\"", "\"sea\"");
    let rows = [
        ("frobnicate", view.as_str(), 400),
        ("ON", &view, 400),
        ("on/abc", &view, 400),
        ("on/0", &view, 400),
        ("on/-1", &view, 400),
        ("on/86401", &view, 400),
        ("on/inf", &view, 400),
        ("on/nan", &view, 400),
        ("on/1e9", &view, 400),
        ("off/%31", "", 400),
        ("kill/soon", "", 400),
        ("on/abc", &huge, 400),
        ("on", &huge, 413),
        ("signal", &huge, 413),
        ("check", "", 400),
        ("ok", "", 400),
        ("on", "{", 400),
        ("on", "[]", 400),
        ("on", "{}", 400),
        ("on", "null", 400),
        ("on", "\u{0}", 400),
        ("on", r#"{"key":1,"pods":{},"dependencies":{}}"#, 400),
        ("on", &no_seq, 400),
        ("check", &without_own, 400),
        ("off", "{", 400),
        ("kill", "{", 400),
        ("kill", "\u{1b}[0m", 400),
        ("signal", "{\"a\":", 400),
        ("on", &foreign, 409),
        ("check", &foreign, 409),
        ("ok", &foreign, 409),
    ];
    for (task, body, code) in rows {
        let reply = client.post_bytes(&format!("/control/{task}"), body.to_owned()).await?;
        let shown: String = body.chars().take(60).collect();
        reply.error(code).with_context(|| format!("{task} with {shown:?}"))?;
    }
    ensure!(client.info().await? == before, "something changed: {}", client.info().await?);
    ensure!(follower.pod.starts()? == [pid], "the sub-process was started again");
    Ok(())
}

#[tokio::test]
async fn malformed_headers_of_a_leader_are_refused() -> Result {
    let follower = Follower::new().await?;
    let client = follower.pod.client();
    for epoch in ["abc", "", "1.5", "99999999999999999999999"] {
        let headers = [("x-ochopod-epoch", epoch), ("content-type", "application/json")];
        let body = Bytes::from(follower.view.to_string());
        let reply = client.send(Method::POST, "/control/on", &headers, body).await?;
        reply.error(400).with_context(|| format!("epoch {epoch:?}"))?;
    }
    ensure!(client.info().await?["process"] == "stopped", "it was configured");
    Ok(())
}

#[tokio::test]
async fn a_dead_pod_answers_questions_and_refuses_commands() -> Result {
    let follower = Follower::new().await?;
    let client = follower.pod.client();
    client.post("/control/kill").await?.json(200)?;
    for task in ["check", "on", "ok"] {
        client.post_json(&format!("/control/{task}"), &follower.view).await?.error(410)?;
    }
    for task in ["off", "on", "signal", "kill"] {
        client.post(&format!("/control/{task}")).await?.error(410)?;
    }
    client.post_bytes("/control/on", "{").await?.error(400)?;
    client.post("/control/on/abc").await?.error(400)?;
    client.post("/log").await?.json(200)?;
    let info = client.info().await?;
    ensure!(info["process"] == "dead" && info["state"] == "follower", "{info}");
    Ok(())
}

#[tokio::test]
async fn clients_that_do_not_use_http_affect_no_other_client() -> Result {
    let follower = Follower::new().await?;
    let client = follower.pod.client();
    let mut open = Vec::new();
    for bytes in [&b""[..], b"POST /info", b"POST /control/kill HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"] {
        let mut stream = TcpStream::connect(client.authority()).await?;
        stream.write_all(bytes).await?;
        open.push(stream);
    }
    let noise: Vec<u8> =
        (0..4096_u32).map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap_or(0)).collect();
    let endless = [b"GET /info HTTP/1.1\r\nX: ".as_slice(), &vec![b'a'; 2 << 20]].concat();
    for bytes in [&noise[..], b"GET /info HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &endless]
    {
        let mut stream = TcpStream::connect(client.authority()).await?;
        _ = timeout(DEFAULT_TIMEOUT, stream.write_all(bytes)).await?;
        let mut reply = Vec::new();
        _ = timeout(DEFAULT_TIMEOUT, stream.read_to_end(&mut reply)).await?;
        let reply = String::from_utf8_lossy(&reply);
        ensure!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "noise was answered by {reply}");
    }
    ensure!(client.info().await?["process"] == "stopped", "noise changed it");
    Ok(())
}

#[tokio::test]
async fn many_concurrent_clients_are_all_answered() -> Result {
    let follower = Follower::new().await?;
    let requests = (0..200).map(|_| {
        let client = ochopod_tests::Client::new(follower.pod.client().authority());
        tokio::spawn(async move { client.info().await })
    });
    for request in requests.collect::<Vec<_>>() {
        request.await??;
    }
    Ok(())
}
