//! `POST /reload`: the plugin of a running pod is replaced, and its sub-process keeps serving.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use hyper::Method;
use ochopod_tests::{
    CertificateAuthority, DEFAULT_TIMEOUT, Pod, PodBuilder, Process, Reply, Result, TestEnv, artifacts, eventually,
    free_port,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

const TOKEN: &str = "correct-horse-battery";
const WASM: (&str, &str) = ("content-type", "application/wasm");

/// Returns the misbehaving guest as another component: with a custom section of this content.
fn version(number: u8) -> Result<Bytes> {
    Ok([&fs::read(artifacts::misbehaving()?)?[..], &[0, 3, 1, b'v', number]].concat().into())
}

/// Returns a pod of the first version, from a file of its own that may be replaced.
fn pod(env: &TestEnv, command: &str) -> Result<(PodBuilder, PathBuf)> {
    let file = env.scratch().join("plugin.wasm");
    fs::write(&file, version(1)?)?;
    Ok((env.pod(&file).count_starts(command).set("set_grace", "5"), file))
}

async fn reload(pod: &Pod, body: Bytes) -> Result<Reply> {
    let bearer = format!("Bearer {TOKEN}");
    pod.client().send(Method::POST, "/reload", &[("authorization", &bearer), WASM], body).await
}

async fn status(pod: &Pod) -> Result<String> {
    Ok(pod.client().info().await?["status"].as_str().unwrap_or_default().to_owned())
}

/// Requests to a server, one after the other, until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
    task: JoinHandle<usize>,
}

impl Load {
    fn start(address: String) -> Self {
        let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, failures) = (Arc::clone(&stop), Arc::clone(&failed));
        let task = tokio::spawn(async move {
            let mut done = 0;
            while !stopped.load(Ordering::Relaxed) {
                if get(&address).await.is_err() {
                    failures.fetch_add(1, Ordering::Relaxed);
                }
                done += 1;
                sleep(Duration::from_millis(2)).await;
            }
            done
        });
        Self { stop, failed, task }
    }

    /// Returns the number of requests, and of those that failed.
    async fn end(self) -> Result<(usize, usize)> {
        self.stop.store(true, Ordering::Relaxed);
        Ok((self.task.await?, self.failed.load(Ordering::Relaxed)))
    }
}

async fn get(address: &str) -> Result {
    timeout(Duration::from_secs(2), async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await?;
        ensure!(reply.starts_with("HTTP/1.0 200"), "{reply}");
        Ok(())
    })
    .await?
}

async fn start(env: &TestEnv, complete: impl Fn(PodBuilder) -> PodBuilder, command: &str) -> Result<(Pod, PathBuf)> {
    let (pod, file) = pod(env, command)?;
    let pod = complete(pod).start()?;
    env.cluster("default").wait_formed(&[&pod]).await?;
    Ok((pod, file))
}

/// Returns the digest that the pod publishes.
async fn published(env: &TestEnv, pod: &Pod) -> Result<String> {
    let key = pod.client().info().await?["key"].as_str().context("no key")?.to_owned();
    let cluster = env.cluster("default");
    let state = cluster.store().json(&cluster.path(&format!("states/{key}"))).await?;
    Ok(state["plugin"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn plugin_is_replaced_twice_while_the_sub_process_serves() -> Result {
    let env = TestEnv::new().await?;
    let server = format!("127.0.0.1:{}", free_port()?);
    let port = server.split(':').next_back().unwrap_or_default();
    let command = format!("exec python3 -m http.server {port} --bind 127.0.0.1 >/dev/null 2>&1");
    let secured = |pod: PodBuilder| pod.set("token", TOKEN).set("set_check_every", "0.2");
    let (pod, file) = start(&env, secured, &command).await?;
    let pid = pod.started(1).await?;
    eventually("it serves", DEFAULT_TIMEOUT, async || get(&server).await).await?;
    let load = Load::start(server);
    sleep(Duration::from_millis(300)).await;

    let first = reload(&pod, version(2)?).await?.json(200)?;
    ensure!(first["changed"] == true && first.get("settings_changed").is_none(), "it said {first}");
    let again = reload(&pod, version(2)?).await?.json(200)?;
    ensure!(again == json!({"changed": false, "digest": first["digest"], "previous": first["digest"]}), "{again}");
    let calls = pod.count_log("callback sanity-check")?;
    eventually("the new one checks", DEFAULT_TIMEOUT, async || {
        let new = pod.count_log("callback sanity-check")?;
        ensure!(new > calls + 3, "{new} checks");
        Ok(())
    })
    .await?;
    pod.wait_log("plugin passed its first calls").await?;

    fs::write(&file, version(3)?)?;
    let second = reload(&pod, Bytes::new()).await?.json(200)?;
    ensure!(second["changed"] == true && second["previous"] == first["digest"], "it said {second}");
    sleep(Duration::from_millis(500)).await;
    let (requests, failed) = load.end().await?;
    ensure!(requests > 50 && failed == 0, "{failed} of {requests} requests failed");
    ensure!(pod.starts()? == [pid], "started {:?}", pod.starts()?);
    let digest = second["digest"].as_str().context("no digest")?.to_owned();
    eventually("its digest is published", DEFAULT_TIMEOUT, async || {
        let published = published(&env, &pod).await?;
        ensure!(published == digest[..12], "it is {published}");
        Ok(())
    })
    .await?;
    ensure!(status(&pod).await?.is_empty() || status(&pod).await?.contains("probed"), "{}", status(&pod).await?);
    Ok(())
}

#[tokio::test]
async fn bad_version_is_rolled_back_and_the_next_reload_clears_the_status() -> Result {
    let env = TestEnv::new().await?;
    let secured = |pod: PodBuilder| pod.set("token", TOKEN).set("set_checks", "1");
    let (pod, _) = start(&env, secured, crate::SLEEP).await?;
    let pid = pod.started(1).await?;
    pod.wait_log("callback sanity-check").await?;
    let bad: Bytes = fs::read(artifacts::plugin("sanity")?)?.into();
    let begin = Instant::now();
    let reply = reload(&pod, bad).await?.json(200)?;
    ensure!(reply["settings_changed"] == json!(["check_every"]), "it said {reply}");
    let short = reply["digest"].as_str().and_then(|digest| digest.get(..8)).context("no digest")?;
    let expected = format!("* plugin {short} rolled back: sanity-check: let us fail");
    eventually("it is rolled back", DEFAULT_TIMEOUT, async || {
        let status = status(&pod).await?;
        ensure!(status.contains(&expected), "the status is {status:?}");
        Ok(())
    })
    .await?;
    ensure!(begin.elapsed() < Duration::from_secs(30), "it took {:?}", begin.elapsed());
    let info = pod.client().info().await?;
    ensure!(info["process"] == "running" && info["metrics"]["pid"] == pid, "it is {info}");
    ensure!(pod.count_log("plugin rolled back")? == 1 && pod.count_log("sanity check failed")? == 0, "a check failed");
    ensure!(pod.starts()? == [pid], "started {:?}", pod.starts()?);
    let good = reload(&pod, version(2)?).await?.json(200)?;
    ensure!(good["previous"] == reply["previous"], "it said {good}");
    ensure!(!status(&pod).await?.contains("rolled back"), "{}", status(&pod).await?);
    Ok(())
}

#[tokio::test]
async fn trap_in_configure_of_a_new_version_neither_kills_the_pod_nor_stops_the_rollout() -> Result {
    let env = TestEnv::new().await?;
    let secured = |pod: PodBuilder| pod.set("token", TOKEN).set("set_strict", "true");
    let (first, _) = start(&env, secured, crate::SLEEP).await?;
    first.started(1).await?;
    first.wait_log("callback sanity-check").await?;
    reload(&first, version(2)?).await?.json(200)?;
    let bearer = format!("Bearer {TOKEN}");
    let body = json!({"behave": {"configure": "trap"}}).to_string();
    first.client().send(Method::POST, "/control/signal", &[("authorization", &bearer)], body.into()).await?.is(200)?;
    let (second, _) = pod(&env, crate::SLEEP)?;
    let second = secured(second).start()?;
    env.cluster("default").wait_formed(&[&first, &second]).await?;
    first.started(2).await?;
    let (info, log) = (first.client().info().await?, first.log()?);
    ensure!(info["process"] == "running", "it is {info}");
    let status = info["status"].as_str().unwrap_or_default();
    ensure!(status.contains("rolled back: configure: plugin trapped"), "the status is {status:?}");
    ensure!(!log.contains("callback finalize"), "it was finalized");
    Ok(())
}

#[tokio::test]
async fn component_is_accepted_from_a_client_with_a_certificate() -> Result {
    let env = TestEnv::new().await?;
    let authority = CertificateAuthority::new()?;
    let files = authority.certify("pods", &["ochopod", "127.0.0.2"])?;
    let (cert, key, ca) = (files.certificate.display(), files.key.display(), authority.certificate());
    let (pod, _) = pod(&env, crate::SLEEP)?;
    let pod = pod.set("tls_cert", &cert).set("tls_key", &key).set("tls_ca", ca.display()).start()?;
    pod.started(1).await?;
    let component = env.scratch().join("next.wasm");
    fs::write(&component, version(2)?)?;
    let mut curl = Process::command("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "60", "-H", "Content-Type: application/wasm"])
        .arg("--cacert")
        .arg(&ca)
        .args(["--cert", &cert.to_string(), "--key", &key.to_string()])
        .arg("--data-binary")
        .arg(format!("@{}", component.display()))
        .arg(format!("https://{}/reload", pod.client().authority()));
    let output = tokio::task::spawn_blocking(move || curl.output()).await??;
    let reply: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    ensure!(reply["changed"] == true, "it said {reply}");
    Ok(())
}

#[tokio::test]
async fn component_without_a_token_is_refused_and_an_invalid_file_leaves_the_plugin() -> Result {
    let env = TestEnv::new().await?;
    let (pod, file) = start(&env, |pod| pod, crate::SLEEP).await?;
    let refused = reload(&pod, version(2)?).await?.error(403)?;
    ensure!(refused.contains("token or client certificate"), "it said {refused}");
    let unchanged = pod.client().post("/reload").await?.json(200)?;
    ensure!(unchanged["changed"] == false, "it said {unchanged}");
    let long = Path::new(&file).display().to_string();
    for (content, reason) in [
        (fs::read(artifacts::guest("wrong-version")?)?, "was built for ochopod:pod@0.2.0"),
        (b"nonsense".to_vec(), "is not WebAssembly"),
    ] {
        fs::write(&file, content)?;
        let error: Value = pod.client().post("/reload").await?.json(406)?;
        let text = error["error"].as_str().unwrap_or_default();
        ensure!(error["blame"] == "plugin" && text.contains(reason) && text.contains(&long), "it said {error}");
    }
    fs::write(&file, version(2)?)?;
    let reloaded = pod.client().post("/reload").await?.json(200)?;
    ensure!(reloaded["changed"] == true && reloaded["previous"] == unchanged["digest"], "it said {reloaded}");
    ensure!(pod.starts()?.len() == 1, "it was started again");
    Ok(())
}
