//! Guarantee 5: no plugin can stop the host, delay another callback past its deadline, or see what it was not granted.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use ochopod_tests::{DEFAULT_TIMEOUT, Pod, Result, TestEnv, artifacts, consistently, eventually};
use serde_json::json;

use crate::{monitoring::metric, pod, running};

const FATAL: [&str; 8] = ["trap", "panic", "exit", "spin", "sleep", "allocate", "stack", "huge"];

/// Longer than a busy machine delays a reply, and shorter than waiting for a guest would.
const SLOW: Duration = Duration::from_secs(3);

/// Requests `/info` continuously until the work is done; no reply may be slow.
async fn answering<T>(pod: &Pod, work: impl Future<Output = Result<T>>) -> Result<T> {
    let slow = async {
        loop {
            match tokio::time::timeout(SLOW, pod.client().info()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error,
                Err(_) => return anyhow!("/info took more than {SLOW:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        done = work => done,
        error = slow => Err(error),
    }
}

#[tokio::test]
async fn a_misbehaving_signal_fails_that_call_only() -> Result {
    let (_env, pod) = running(|pod| pod).await?;
    for how in FATAL {
        let begin = Instant::now();
        let body = json!({ "try": "act", "with": how });
        let work = async { pod.client().post_json("/control/signal/5", &body).await };
        let reply = answering(&pod, work).await.with_context(|| how.to_owned())?;
        ensure!([500, 408].contains(&reply.status), "{how} was answered {}", reply.status);
        let error = reply.error(reply.status)?;
        ensure!(begin.elapsed() < Duration::from_secs(20), "{how} took {:?}", begin.elapsed());
        if how == "panic" {
            pod.wait_log("panicked as requested")
                .await
                .with_context(|| format!("the panic's text is lost: {error}"))?;
        }
        let next = pod.client().post_json("/control/signal/20", &json!("next")).await?.json(200)?;
        // A sanity check may have run first.
        let rebuilt = next["calls"].as_u64().is_some_and(|calls| calls <= 2);
        ensure!(next["body"] == "next" && rebuilt, "after {how} the reply is {next}");
    }
    let info = pod.client().info().await?;
    ensure!(info["process"] == "running" && pod.starts()?.len() == 1, "the sub-process did not stay: {info}");
    Ok(())
}

#[tokio::test]
async fn errors_name_the_blame() -> Result {
    let (_env, pod) = running(|pod| pod).await?;
    let body = json!({ "try": "act", "with": "reject:no such luck" });
    let refused = pod.client().post_json("/control/signal", &body).await?.json(500)?;
    ensure!(refused["error"].to_string().contains("no such luck"), "unexpected output {refused}");
    ensure!(refused["callback"] == "signaled", "unexpected output {refused}");
    ensure!(refused["blame"] == "plugin", "unexpected output {refused}");
    Ok(())
}

#[tokio::test]
async fn a_fatal_can_configure_is_a_refusal() -> Result {
    let env = TestEnv::new().await?;
    for how in ["trap", "spin"] {
        let pod = pod(&env).set("cluster", how).misbehave("can_configure", how).set("set_grace", "2").start()?;
        eventually("the status reports it", DEFAULT_TIMEOUT, async || {
            let status = pod.client().info().await?["status"].as_str().unwrap_or_default().to_owned();
            ensure!(status.starts_with("* "), "the status is {status:?}");
            Ok(())
        })
        .await?;
        let info = pod.client().info().await?;
        ensure!(info["process"] == "stopped", "it is {}", info["process"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_fatal_configure_ends_that_pod_and_not_its_host() -> Result {
    let env = TestEnv::new().await?;
    for how in ["trap", "spin", "allocate"] {
        let pod = pod(&env).set("cluster", how).misbehave("configure", how).set("set_grace", "2").start()?;
        pod.wait_info("process", "dead").await.with_context(|| how.to_owned())?;
        pod.client().post("/log").await?.json(200)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_fatal_configured_changes_nothing() -> Result {
    let (_env, pod) = running(|pod| pod.misbehave("configured", "trap")).await?;
    consistently("it runs", Duration::from_secs(2), async || {
        let info = pod.client().info().await?;
        ensure!(info["process"] == "running" && info["state"] == "leader", "{info}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn sanity_checks_that_never_end_are_failed_checks() -> Result {
    for how in ["spin", "sleep"] {
        let env = TestEnv::new().await?;
        let pod =
            pod(&env).misbehave("sanity_check", how).set("set_check_every", "1").set("set_checks", "2").start()?;
        // It does not run for long: it may be off before that is seen.
        pod.wait_log("callback sanity-check").await?;
        answering(&pod, async { metric(&pod, "ochopod_off 1").await }).await?;
        metric(&pod, "ochopod_checks_failed_total 2").await.context("one failure was enough")?;
        pod.wait_info("process", "stopped").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_tear_down_that_never_ends_is_cut_at_the_grace() -> Result {
    let (_env, mut pod) = running(|pod| pod.misbehave("tear_down", "spin").set("set_grace", "5")).await?;
    let begin = Instant::now();
    answering(&pod, async { pod.client().post("/control/off/20").await?.json(200) }).await?;
    ensure!(begin.elapsed() < Duration::from_secs(15), "off took {:?}", begin.elapsed());
    pod.client().post("/control/on").await?.json(200)?;
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
    pod.assert_clean().await
}

#[tokio::test]
async fn a_tear_down_that_traps_is_followed_by_sigterm() -> Result {
    let (_env, pod) = running(|pod| pod.misbehave("tear_down", "trap").set("set_grace", "20")).await?;
    let begin = Instant::now();
    pod.client().post("/control/off/30").await?.json(200)?;
    ensure!(begin.elapsed() < Duration::from_secs(15), "off took {:?}", begin.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_finalize_that_never_ends_does_not_hold_the_host() -> Result {
    for how in ["spin", "sleep", "trap"] {
        let (_env, mut pod) = running(|pod| pod.misbehave("finalize", how).set("set_grace", "1")).await?;
        pod.term()?;
        let begin = Instant::now();
        ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
        ensure!(begin.elapsed() < Duration::from_secs(10), "the shutdown took {:?}", begin.elapsed());
        pod.assert_clean().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_probe_that_spins_does_not_hold_control() -> Result {
    let (_env, pod) = running(|pod| pod.misbehave("probe", "spin").set("set_probe_every", "10")).await?;
    pod.wait_log("callback probe").await?;
    let begin = Instant::now();
    pod.client().post("/control/off").await?.json(200)?;
    pod.client().post("/control/on").await?.json(200)?;
    ensure!(begin.elapsed() < Duration::from_secs(8), "control took {:?}", begin.elapsed());
    eventually("the status reports it", DEFAULT_TIMEOUT * 2, async || {
        let status = pod.client().info().await?["status"].as_str().unwrap_or_default().to_owned();
        ensure!(status.starts_with("* "), "the status is {status:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_plugin_that_cannot_describe_itself_is_invalid() -> Result {
    let env = TestEnv::new().await?;
    for callback in ["settings", "model_settings", "list"] {
        for how in ["trap", "spin", "sleep"] {
            let mut pod = pod(&env).misbehave(callback, how).start()?;
            let code = pod.exit_code().await.with_context(|| format!("{callback} {how}"))?;
            ensure!(code == 65, "{callback} {how}: it ended with {code}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_flood_of_log_lines_is_thinned_out() -> Result {
    let (_env, mut pod) = running(|pod| pod).await?;
    let body = json!({ "try": "act", "with": "flood-log:200000" });
    answering(&pod, async { pod.client().post_json("/control/signal/30", &body).await }).await?;
    pod.term()?;
    pod.exit_code().await?;
    let size = pod.console()?.len();
    ensure!(size < 8 << 20, "the console has {size} bytes");
    Ok(())
}

#[tokio::test]
async fn a_tool_that_misbehaves_affects_no_other_request() -> Result {
    let (_env, pod) = running(|pod| pod).await?;
    let run = async |how: &'static str| {
        let line = format!("act {how}");
        pod.client().send(hyper::Method::POST, "/exec", &[("x-shell", &line)], bytes::Bytes::new()).await
    };
    for how in ["trap", "panic", "allocate"] {
        let reply = run(how).await?;
        ensure!(reply.status != 200, "{how} was answered {}", reply.status);
        reply.error(reply.status)?;
    }
    let spinning = async {
        tokio::time::timeout(SLOW * 2, run("spin")).await.ok();
        Ok(())
    };
    answering(&pod, spinning).await?;
    pod.client().post("/control/signal/20").await?.json(200)?;
    Ok(())
}

#[tokio::test]
async fn guarantee_5_a_plugin_sees_only_what_it_was_granted() -> Result {
    let env = TestEnv::new().await?;
    let granted = env.scratch().join("granted");
    std::fs::create_dir(&granted)?;
    std::fs::write(granted.join("file"), "content")?;
    let pods = env
        .start_cluster(1, |env| {
            let dir = format!("{}::/granted:ro", granted.display());
            pod(env)
                .env("HIDDEN", "1")
                .env("SHOWN", "2")
                .set("api_token", "hush")
                .flags(["--dir", &dir, "--env", "SHOWN"])
        })
        .await?;
    let attempt = async |kind: &str, argument: &str| {
        let body = json!({ "try": kind, "with": argument });
        pods[0].client().post_json("/control/signal", &body).await
    };
    let zookeeper = env.zookeeper().address().to_string();
    let control = pods[0].client().authority().to_owned();
    let escape = format!("/granted/../{}/file", granted.display());
    let denied = [
        ("read", "/etc/passwd"),
        ("list", "/"),
        ("write", "/granted/new"),
        ("read", &escape),
        ("connect", "192.0.2.1:80"),
        ("connect", &zookeeper),
        ("connect", &control),
        ("exec", "/bin/true"),
    ];
    for (kind, argument) in denied {
        attempt(kind, argument).await?.error(500).with_context(|| format!("{kind} {argument}"))?;
    }
    let read = attempt("read", "/granted/file").await?.json(200)?;
    ensure!(read == "content", "it read {read}");
    let environment = attempt("environment", "").await?.json(200)?;
    ensure!(environment.get("HIDDEN").is_none() && environment["SHOWN"] == "2", "it has {environment}");
    ensure!(environment.get("ochopod_port").is_some(), "it has {environment}");
    ensure!(!environment.to_string().contains("hush"), "it has a secret: {environment}");
    Ok(())
}

#[tokio::test]
async fn guarantee_5_a_plugin_reaches_no_control_port_and_only_declared_loopback_ports() -> Result {
    let env = TestEnv::new().await?;
    let [open, other] =
        [tokio::net::TcpListener::bind("127.0.0.1:0").await?, tokio::net::TcpListener::bind("127.0.0.1:0").await?];
    let [port, closed] = [open.local_addr()?.port(), other.local_addr()?.port()];
    let victim = pod(&env).set("cluster", "victim").start()?;
    victim.wait_info("process", "running").await?;
    let everything = format!("{}:*", victim.address());
    let guest = pod(&env)
        .set("cluster", "guest")
        .set("test_network", "loopback:6379")
        .env("PORT_6379", port)
        .flags(["--net", &everything])
        .start()?;
    guest.wait_info("process", "running").await?;
    let attempt = async |kind: &str, argument: &str| {
        guest.client().post_json("/control/signal/20", &json!({ "try": kind, "with": argument })).await
    };
    attempt("connect", &format!("127.0.0.1:{port}")).await?.json(200)?;
    let (_, source) = open.accept().await?;
    ensure!(source.ip().to_string() == "127.255.255.1", "it came from {source}");
    let control = victim.client().authority().to_owned();
    for (kind, argument) in [
        ("connect", format!("127.0.0.1:{closed}")),
        ("connect", control.clone()),
        ("connect", guest.client().authority().to_owned()),
        ("act", format!("wait-request:{control}")),
        ("resolve", "example.com".to_owned()),
    ] {
        attempt(kind, &argument).await?.error(500).with_context(|| format!("{kind} {argument}"))?;
    }
    guest.wait_log("(control ports and ZooKeeper are never granted)").await?;
    guest.wait_log(&format!("(grant with --net loopback:{closed})")).await?;
    guest.wait_log("(grant with --net example.com:PORT)").await?;
    Ok(())
}

#[tokio::test]
async fn requests_from_the_addresses_of_guests_control_nothing() -> Result {
    let (_env, pod) = running(|pod| pod).await?;
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind("127.255.255.1:0".parse()?)?;
    let stream = socket.connect(pod.client().authority().parse()?).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    for (path, expected) in [("/info", 200), ("/exec", 403), ("/reset", 403), ("/control/off", 403)] {
        let request = hyper::Request::post(path).header("host", "pod").header("x-shell", "report");
        let reply = sender.send_request(request.body(http_body_util::Empty::<bytes::Bytes>::new())?).await?;
        ensure!(reply.status() == expected, "{path} was answered {}", reply.status());
        http_body_util::BodyExt::collect(reply.into_body()).await?;
    }
    connection.abort();
    ensure!(pod.client().info().await?["process"] == "running", "it was turned off");
    Ok(())
}

#[tokio::test]
async fn guests_that_are_compiled_concurrently_share_the_cache() -> Result {
    let env = TestEnv::new().await?;
    let cache = env.scratch().join("cache");
    let hello = artifacts::plugin("hello")?;
    let pods = env.start_cluster(4, |env| env.pod(&hello).set("cache", cache.display())).await?;
    drop(pods);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&cache)?.permissions()) & 0o777;
    ensure!(mode == 0o700, "the cache has mode {mode:o}");
    Ok(())
}
