//! Guarantee 5: no plugin can stop the host, hold another callback kind past its deadline, or see what it was not granted.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use ochopod_tests::{Pod, Result, SOON, Site, artifacts, eventually, steadily};
use serde_json::json;

use crate::{pod, running};

const FATAL: [&str; 8] = ["trap", "panic", "exit", "spin", "sleep", "allocate", "stack", "huge"];

/// Asks `/info` all the time until the work is done; no answer may be slow.
async fn answering<T>(pod: &Pod, work: impl Future<Output = Result<T>>) -> Result<T> {
    let slow = async {
        loop {
            let begin = Instant::now();
            if let Err(error) = pod.client().info().await {
                return error;
            }
            if begin.elapsed() > Duration::from_millis(500) {
                return anyhow!("/info took {:?}", begin.elapsed());
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
async fn whatever_a_signal_does_costs_that_call_and_no_more() -> Result {
    let (_site, pod) = running(|pod| pod).await?;
    for how in FATAL {
        let begin = Instant::now();
        let body = json!({ "try": "act", "with": how });
        let work = async { pod.client().post_json("/control/signal/2", &body).await };
        let reply = answering(&pod, work).await.with_context(|| how.to_owned())?;
        ensure!([500, 408].contains(&reply.status), "{how} was answered {}", reply.status);
        let told = reply.error(reply.status)?;
        ensure!(begin.elapsed() < Duration::from_secs(6), "{how} took {:?}", begin.elapsed());
        ensure!(how != "panic" || pod.console()?.contains("panicked as told"), "the panic's text is lost: {told}");
        let next = pod.client().post_json("/control/signal/5", &json!("next")).await?.json(200)?;
        // A sanity check may have come first.
        let anew = next["calls"].as_u64().is_some_and(|calls| calls <= 2);
        ensure!(next["body"] == "next" && anew, "after {how} it said {next}");
    }
    let info = pod.client().info().await?;
    ensure!(info["process"] == "running" && pod.starts()?.len() == 1, "the sub-process did not stay: {info}");
    Ok(())
}

#[tokio::test]
async fn errors_say_who_is_to_blame() -> Result {
    let (_site, pod) = running(|pod| pod).await?;
    let body = json!({ "try": "act", "with": "reject:no such luck" });
    let refused = pod.client().post_json("/control/signal", &body).await?.json(500)?;
    ensure!(refused["error"].to_string().contains("no such luck"), "it said {refused}");
    ensure!(refused["callback"] == "signaled", "it said {refused}");
    ensure!(refused["blame"] == "plugin", "it said {refused}");
    Ok(())
}

#[tokio::test]
async fn a_fatal_can_configure_is_a_refusal() -> Result {
    let site = Site::new().await?;
    for how in ["trap", "spin"] {
        let pod = pod(&site).set("cluster", how).misbehave("can_configure", how).set("set_grace", "2").start()?;
        eventually("the status tells", SOON, async || {
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
    let site = Site::new().await?;
    for how in ["trap", "spin", "allocate"] {
        let pod = pod(&site).set("cluster", how).misbehave("configure", how).set("set_grace", "2").start()?;
        pod.shows("process", "dead").await.with_context(|| how.to_owned())?;
        pod.client().post("/log").await?.json(200)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_fatal_configured_changes_nothing() -> Result {
    let (_site, pod) = running(|pod| pod.misbehave("configured", "trap")).await?;
    steadily("it runs", Duration::from_secs(2), async || {
        let info = pod.client().info().await?;
        ensure!(info["process"] == "running" && info["state"] == "leader", "{info}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn sanity_checks_that_never_end_are_failed_checks() -> Result {
    for how in ["spin", "sleep"] {
        let (_site, pod) =
            running(|pod| pod.misbehave("sanity_check", how).set("set_check_every", "1").set("set_checks", "2"))
                .await?;
        let begin = Instant::now();
        answering(&pod, async { pod.shows("process", "stopped").await }).await?;
        ensure!(begin.elapsed() > Duration::from_secs(1), "one failure was enough");
    }
    Ok(())
}

#[tokio::test]
async fn a_tear_down_that_never_ends_is_cut_at_the_grace() -> Result {
    let (_site, mut pod) = running(|pod| pod.misbehave("tear_down", "spin").set("set_grace", "1")).await?;
    let begin = Instant::now();
    answering(&pod, async { pod.client().post("/control/off/20").await?.json(200) }).await?;
    ensure!(begin.elapsed() < Duration::from_secs(5), "off took {:?}", begin.elapsed());
    pod.client().post("/control/on").await?.json(200)?;
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not leave with code 0");
    pod.leaves_nothing().await
}

#[tokio::test]
async fn a_tear_down_that_traps_is_followed_by_sigterm() -> Result {
    let (_site, pod) = running(|pod| pod.misbehave("tear_down", "trap").set("set_grace", "20")).await?;
    let begin = Instant::now();
    pod.client().post("/control/off/30").await?.json(200)?;
    ensure!(begin.elapsed() < Duration::from_secs(5), "off took {:?}", begin.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_finalize_that_never_ends_does_not_hold_the_host() -> Result {
    for how in ["spin", "sleep", "trap"] {
        let (_site, mut pod) = running(|pod| pod.misbehave("finalize", how).set("set_grace", "1")).await?;
        pod.term()?;
        let begin = Instant::now();
        ensure!(pod.exit_code().await? == 0, "it did not leave with code 0");
        ensure!(begin.elapsed() < Duration::from_secs(5), "leaving took {:?}", begin.elapsed());
        pod.leaves_nothing().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_probe_that_spins_does_not_hold_control() -> Result {
    let (_site, pod) = running(|pod| pod.misbehave("probe", "spin").set("set_probe_every", "2")).await?;
    pod.logs("callback probe").await?;
    let begin = Instant::now();
    pod.client().post("/control/off").await?.json(200)?;
    pod.client().post("/control/on").await?.json(200)?;
    ensure!(begin.elapsed() < Duration::from_secs(2), "control took {:?}", begin.elapsed());
    eventually("the status tells", SOON, async || {
        let status = pod.client().info().await?["status"].as_str().unwrap_or_default().to_owned();
        ensure!(status.starts_with("* "), "the status is {status:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_plugin_that_cannot_say_what_it_is_is_a_bad_plugin() -> Result {
    let site = Site::new().await?;
    for callback in ["settings", "model_settings", "list"] {
        for how in ["trap", "spin", "sleep"] {
            let mut pod = pod(&site).misbehave(callback, how).start()?;
            let code = pod.exit_code().await.with_context(|| format!("{callback} {how}"))?;
            ensure!(code == 65, "{callback} {how}: it ended with {code}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_flood_of_log_lines_is_thinned_out() -> Result {
    let (_site, pod) = running(|pod| pod).await?;
    let body = json!({ "try": "act", "with": "flood-log:200000" });
    answering(&pod, async { pod.client().post_json("/control/signal/30", &body).await }).await?;
    let size = pod.console()?.len();
    ensure!(size < 8 << 20, "the console has {size} bytes");
    Ok(())
}

#[tokio::test]
async fn a_tool_that_misbehaves_bothers_nobody() -> Result {
    let (_site, pod) = running(|pod| pod).await?;
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
        tokio::time::timeout(Duration::from_secs(3), run("spin")).await.ok();
        Ok(())
    };
    answering(&pod, spinning).await?;
    pod.client().post("/control/signal/3").await?.json(200)?;
    Ok(())
}

#[tokio::test]
async fn guarantee_5_a_plugin_sees_only_what_it_was_granted() -> Result {
    let site = Site::new().await?;
    let granted = site.scratch().join("granted");
    std::fs::create_dir(&granted)?;
    std::fs::write(granted.join("file"), "content")?;
    let pods = site
        .form(1, |site| {
            let dir = format!("{}::/granted:ro", granted.display());
            pod(site)
                .env("HIDDEN", "1")
                .env("SHOWN", "2")
                .set("api_token", "hush")
                .flags(["--dir", &dir, "--env", "SHOWN"])
        })
        .await?;
    let attempt = async |wish: &str, argument: &str| {
        let body = json!({ "try": wish, "with": argument });
        pods[0].client().post_json("/control/signal", &body).await
    };
    let zookeeper = site.zookeeper().address().to_string();
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
    for (wish, argument) in denied {
        attempt(wish, argument).await?.error(500).with_context(|| format!("{wish} {argument}"))?;
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
async fn guests_that_are_compiled_at_once_share_the_cache() -> Result {
    let site = Site::new().await?;
    let cache = site.scratch().join("cache");
    let hello = artifacts::plugin("hello")?;
    let pods = site.form(4, |site| site.pod(&hello).set("cache", cache.display())).await?;
    drop(pods);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&cache)?.permissions()) & 0o777;
    ensure!(mode == 0o700, "the cache has mode {mode:o}");
    Ok(())
}
