//! Every route of the control port, its codes, and the order of answers.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use hyper::Method;
use ochopod_tests::{Lead, Pod, Result, SOON, Site, eventually, steadily};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::pod;

/// A follower, registered and not yet configured, and the view that configures it.
struct Follower {
    pod: Pod,
    lead: Lead,
    view: Value,
    site: Site,
}

impl Follower {
    async fn new() -> Result<Self> {
        Self::with(|pod| pod).await
    }

    async fn with(complete: impl FnOnce(ochopod_tests::PodBuilder) -> ochopod_tests::PodBuilder) -> Result<Self> {
        let site = Site::new().await?;
        let lead = site.cluster("default").lead().await?;
        let pod = complete(pod(&site)).start()?;
        let view = eventually("the pod registers", SOON, async || view_of(&site).await).await?;
        Ok(Self { pod, lead, view, site })
    }

    async fn on(&self) -> Result<i32> {
        self.pod.client().post_json("/control/on", &self.view).await?.is(200)?;
        self.pod.started(1).await
    }
}

async fn view_of(site: &Site) -> Result<Value> {
    let pods = site.cluster("default").registrations().await?;
    let key = pods.keys().next().context("nobody is registered")?.clone();
    Ok(json!({ "key": key, "pods": pods, "dependencies": {} }))
}

#[tokio::test]
async fn info_tells_everything_that_is_documented() -> Result {
    let follower = Follower::with(|pod| pod.set("colour", "blue").env("PORT_6379", "31000")).await?;
    let client = follower.pod.client();
    let port = follower.site.port().to_string();
    for reply in [client.post("/info").await?, client.get("/info").await?] {
        let info = reply.json(200)?;
        for key in ["application", "ip", "node", "port", "process", "public", "state", "status", "task"] {
            ensure!(info[key].is_string(), "{key} is {}", info[key]);
        }
        for key in ["cluster", "namespace", "key", "session"] {
            ensure!(info[key].is_string(), "{key} is {}", info[key]);
        }
        ensure!(info["dependencies"] == json!([]), "dependencies are {}", info["dependencies"]);
        ensure!(info["metrics"] == json!({}), "metrics are {}", info["metrics"]);
        ensure!(info["ports"] == json!({ "6379": 31000 }), "ports are {}", info["ports"]);
        ensure!(info["ip"] == follower.pod.address(), "ip is {}", info["ip"]);
        ensure!(info["port"] == *port, "port is {}", info["port"]);
        ensure!(info["node"] == "local", "node is {}", info["node"]);
        ensure!(info["state"] == "follower", "state is {}", info["state"]);
        ensure!(info["process"] == "stopped", "process is {}", info["process"]);
        ensure!(info["session"] == "connected", "session is {}", info["session"]);
        ensure!(info["cluster"] == "default" && info["namespace"] == "marathon", "{info}");
        ensure!(info["key"] == follower.view["key"], "key is {}", info["key"]);
        let registered = &follower.view["pods"][follower.view["key"].as_str().unwrap_or_default()];
        ensure!(info["seq"] == registered["seq"] && info["seq"].is_u64(), "seq is {}", info["seq"]);
    }
    Ok(())
}

#[tokio::test]
async fn the_registration_is_what_the_python_sdk_would_read() -> Result {
    let follower = Follower::with(|pod| pod.set("colour", "blue").set("api_token", "hidden")).await?;
    let own = follower.view["pods"][follower.view["key"].as_str().unwrap_or_default()].clone();
    let texts = [
        ("cluster", "default"),
        ("namespace", "marathon"),
        ("port", &follower.site.port().to_string()),
        ("ip", follower.pod.address()),
        ("node", "local"),
        ("local", "true"),
        ("debug", "false"),
        ("start", "true"),
        ("status", ""),
        ("colour", "blue"),
        ("zk", follower.site.store().connect_string()),
    ];
    for (key, text) in texts {
        ensure!(own[key] == text, "{key} is {} instead of {text:?}", own[key]);
    }
    for key in ["binding", "application", "task", "public"] {
        ensure!(own[key].is_string(), "{key} is {}", own[key]);
    }
    ensure!(own["seq"].is_u64() && own["ports"].is_object(), "{own}");
    ensure!(own.get("api_token").is_none(), "a secret is registered: {own}");
    Ok(())
}

#[tokio::test]
async fn log_gives_the_newest_lines_and_stays_bounded() -> Result {
    let follower = Follower::with(|pod| pod.set("debug", "true")).await?;
    let client = follower.pod.client();
    for _ in 0..600 {
        client.post_json("/control/signal", &json!("x".repeat(100))).await?.is(200)?;
    }
    for reply in [client.post("/log").await?, client.get("/log").await?] {
        let lines = reply.json(200)?;
        let lines = lines.as_array().context("the log is no array")?;
        let size: usize = lines.iter().map(|line| line.as_str().unwrap_or_default().len()).sum();
        ensure!((1..=32 * 1024).contains(&size), "the log has {size} bytes");
    }
    let told = client.log().await?;
    eventually("the newest lines are told", SOON, async || {
        client.post("/control/signal").await?.is(200)?;
        let now = client.log().await?;
        let last = now.lines().last().context("the log is empty")?;
        ensure!(!told.contains(last), "the last line is the one of before: {last}");
        Ok(())
    })
    .await?;
    Ok(())
}

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
    }
    Ok(())
}

#[tokio::test]
async fn malformed_requests_are_refused_in_order_and_change_nothing() -> Result {
    let follower = Follower::new().await?;
    let pid = follower.on().await?;
    let client = follower.pod.client();
    let before = client.info().await?;
    let huge = "x".repeat(5 * 1024 * 1024);
    let view = follower.view.to_string();
    let mut foreign = follower.view.clone();
    foreign["key"] = json!("somebody-else");
    foreign["pods"]["somebody-else"] = json!({ "seq": 99, "ip": "127.0.0.99", "port": "1" });
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
async fn every_task_is_answered_and_may_carry_a_limit() -> Result {
    let follower = Follower::new().await?;
    let client = follower.pod.client();
    let view = &follower.view;
    client.post_json("/control/check/86400", view).await?.json(200)?;
    client.post_json("/control/on/0.5", view).await?.json(200)?;
    follower.pod.shows("process", "running").await?;
    client.post_json("/control/ok/60", view).await?.json(200)?;
    client.post("/control/signal/2.25").await?.json(200)?;
    client.post_json("/control/signal", &json!([1, "two", null, { "three": 3 }])).await?.json(200)?;
    client.post("/control/off").await?.json(200)?;
    ensure!(client.info().await?["process"] == "stopped", "it is not stopped");
    client.post("/control/on").await?.json(200)?;
    ensure!(client.info().await?["process"] == "running", "it was not started again");
    client.post_json("/control/off", &json!({})).await?.json(200)?;
    client.post_json("/control/kill", &json!({})).await?.json(200)?;
    ensure!(client.info().await?["process"] == "dead", "it is not dead");
    Ok(())
}

#[tokio::test]
async fn on_without_a_view_needs_an_earlier_configuration() -> Result {
    let follower = Follower::new().await?;
    let client = follower.pod.client();
    client.post("/control/on").await?.error(406)?;
    let info = client.info().await?;
    ensure!(info["process"] == "stopped", "a refusal that is nobody's fault changed it to {}", info["process"]);
    follower.on().await?;
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
async fn a_request_past_its_limit_is_408_and_says_whether_it_goes_on() -> Result {
    let follower = Follower::with(|pod| pod.misbehave("signaled", "sleep")).await?;
    let client = follower.pod.client();
    let begun = async { client.post("/control/signal/1").await?.error(408) };
    let waiting = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.post_json("/control/on/0.3", &follower.view).await?.error(408)
    };
    let (begun, waiting) = tokio::try_join!(begun, waiting)?;
    ensure!(begun != waiting, "both say {begun:?}");
    follower.pod.shows("process", "stopped").await?;
    steadily("what was dropped does not happen", Duration::from_secs(2), async || {
        ensure!(follower.pod.starts()?.is_empty(), "it was started");
        Ok(())
    })
    .await?;
    follower.on().await?;
    Ok(())
}

#[tokio::test]
async fn reset_registers_again_and_leaves_the_sub_process_alone() -> Result {
    let follower = Follower::new().await?;
    let pid = follower.on().await?;
    let client = follower.pod.client();
    let cluster = follower.site.cluster("default");
    let before = cluster.registered().await?;
    let owner = cluster.store().owner(&cluster.path(&format!("pods/{}", before[0]))).await?;
    client.post("/reset").await?.json(200)?;
    eventually("it is registered under another session", SOON, async || {
        let now = cluster.registered().await?;
        ensure!(now.len() == 1, "registered are {now:?}");
        let session = cluster.store().owner(&cluster.path(&format!("pods/{}", now[0]))).await?;
        ensure!(session != owner, "it still is the old session");
        Ok(())
    })
    .await?;
    let after = view_of(&follower.site).await?;
    ensure!(after == follower.view, "the registration changed: {after} was {}", follower.view);
    ensure!(follower.pod.starts()? == [pid] && ochopod_tests::alive(pid), "the sub-process did not stay");
    follower.pod.shows("session", "connected").await?;
    Ok(())
}

#[tokio::test]
async fn health_and_readiness_are_told_apart() -> Result {
    let follower = Follower::new().await?;
    let client = follower.pod.client();
    client.get("/healthz").await?.is(200)?;
    ensure!(client.get("/readyz").await?.status != 200, "it is ready before it was configured");
    follower.on().await?;
    eventually("it is ready", SOON, async || client.get("/readyz").await?.is(200)).await?;
    let metrics = client.get("/metrics").await?;
    metrics.is(200)?;
    let kind = metrics.headers.get("content-type").context("no content type")?.to_str()?;
    ensure!(kind.starts_with("text/plain"), "metrics are announced as {kind}");
    let text = String::from_utf8(metrics.body.to_vec())?;
    ensure!(text.lines().any(|line| line.starts_with("ochopod_")), "no metric of ours in {text}");
    Ok(())
}

#[tokio::test]
async fn clients_that_do_not_speak_http_bother_nobody() -> Result {
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
        _ = timeout(SOON, stream.write_all(bytes)).await?;
        let mut reply = Vec::new();
        _ = timeout(SOON, stream.read_to_end(&mut reply)).await?;
        let reply = String::from_utf8_lossy(&reply);
        ensure!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "noise was answered by {reply}");
    }
    ensure!(client.info().await?["process"] == "stopped", "noise changed it");
    Ok(())
}

#[tokio::test]
async fn many_clients_at_once_are_all_answered() -> Result {
    let follower = Follower::new().await?;
    let asks = (0..200).map(|_| {
        let client = ochopod_tests::Client::new(follower.pod.client().authority());
        tokio::spawn(async move { client.info().await })
    });
    for asked in asks.collect::<Vec<_>>() {
        asked.await??;
    }
    Ok(())
}

#[tokio::test]
async fn the_same_generation_is_started_once() -> Result {
    let follower = Follower::with(|pod| pod.set("set_strict", "true")).await?;
    let client = follower.pod.client();
    let post = |generation: &'static str| follower.lead.post(client, "on", generation, &follower.view);
    for _ in 0..3 {
        post("one").await?.is(200)?;
    }
    follower.pod.started(1).await?;
    ensure!(follower.pod.starts()?.len() == 1, "started {} times", follower.pod.starts()?.len());
    post("two").await?.is(200)?;
    follower.pod.started(2).await?;
    ensure!(follower.pod.starts()?.len() == 2, "started {} times", follower.pod.starts()?.len());
    Ok(())
}
