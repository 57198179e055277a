//! Access to the control API: a token shared by pods, and TLS.

use std::{fs, path::Path, process::Output};

use anyhow::{Context, ensure};
use bytes::Bytes;
use hyper::Method;
use ochopod_tests::{DEFAULT_TIMEOUT, Pod, PodBuilder, Process, Result, TestEnv, eventually};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;

use super::pod;

const TOKEN: &str = "correct-horse-battery";
const OTHER: &str = "another-horse-battery";

/// Returns the code of a post with or without the token.
async fn code(pod: &Pod, path: &str, token: Option<&str>) -> Result<u16> {
    let authorization = format!("Bearer {}", token.unwrap_or_default());
    let headers = [("authorization", authorization.as_str())];
    let headers = if token.is_some() { headers.as_slice() } else { &[] };
    Ok(pod.client().send(Method::POST, path, headers, Bytes::new()).await?.status)
}

#[tokio::test]
async fn a_cluster_with_a_token_forms_and_reconfigures_and_never_reveals_the_token() -> Result {
    let env = TestEnv::new().await?;
    let file = env.scratch().join("token");
    fs::write(&file, format!("{TOKEN}\n"))?;
    let with_file = |pod: PodBuilder| pod.flags(["--token-file", &*file.to_string_lossy()]);
    let mut pods = env.start_cluster(2, |env| with_file(pod(env)).set("debug", "true")).await?;
    pods.push(pod(&env).set("token", TOKEN).set("debug", "true").start()?);
    let cluster = env.cluster("default");
    cluster.wait_formed(&pods.iter().collect::<Vec<_>>()).await?;

    let pod = &pods[1];
    for path in ["/log", "/reset", "/exec", "/control/off", "/control/kill/5"] {
        ensure!(code(pod, path, None).await? == 401, "{path} needs no token");
        ensure!(code(pod, path, Some(OTHER)).await? == 401, "{path} takes any token");
    }
    ensure!(pod.client().info().await?["process"] == "running", "the request was accepted");
    ensure!(code(pod, "/log", Some(TOKEN)).await? == 200, "the token is not taken");
    ensure!(code(pod, "/control/off", Some(TOKEN)).await? == 200, "the token is not taken");
    pod.wait_info("process", "stopped").await?;

    for pod in &pods {
        let process = pod.started(1).await?;
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let bearer = format!("Bearer {TOKEN}");
        let log = pod.client().send(Method::POST, "/log", &[("authorization", &bearer)], Bytes::new()).await?;
        let shown = [
            pod.console()?,
            pod.output()?,
            pod.client().info().await?.to_string(),
            String::from_utf8_lossy(&log.body).into_owned(),
            String::from_utf8_lossy(&environment).into_owned(),
        ];
        ensure!(!shown.iter().any(|text| text.contains(TOKEN)), "the token is shown at {}", pod.address());
    }
    let stored = json!([cluster.registrations().await?, cluster.snapshot().await?]).to_string();
    let view = cluster.store().text(&cluster.path("view")).await?;
    ensure!(!stored.contains(TOKEN) && !view.contains(TOKEN), "the token is in the store");
    Ok(())
}

#[tokio::test]
async fn a_leader_signs_its_requests_and_never_sends_the_token() -> Result {
    let env = TestEnv::new().await?;
    let peer = env.cluster("default").fake_pod().await?;
    let pod = pod(&env).set("token", TOKEN).start()?;
    pod.wait_info("process", "running").await?;
    for request in peer.requests() {
        let authorization = request.headers["authorization"].to_str()?;
        let expected = format!("Ochopod-HMAC-SHA256 key={},time=", peer.key());
        ensure!(authorization.starts_with(&expected), "{} was requested with {authorization:?}", request.task);
        ensure!(!format!("{:?}", request.headers).contains(TOKEN), "{} was requested with the token", request.task);
    }
    Ok(())
}

/// Waits until the leader reports that another pod blocks its configuration, with this reason.
async fn held(leader: &Pod, by: &str, why: &str) -> Result {
    eventually("the leader names who holds it", DEFAULT_TIMEOUT, async || {
        let status = leader.client().info().await?["status"].as_str().unwrap_or_default().to_owned();
        ensure!(status.contains(by) && status.contains(why), "the status is {status:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_with_another_token_holds_the_configuration_and_is_named() -> Result {
    let env = TestEnv::new().await?;
    let leader = env.start_cluster(1, |env| pod(env).set("token", TOKEN)).await?.remove(0);
    let stranger = pod(&env).set("token", OTHER).start()?;
    let key = eventually("it answers", DEFAULT_TIMEOUT, async || stranger.client().info().await).await?["key"].clone();
    let short = key.as_str().and_then(|key| key.get(..4)).context("no key")?;
    held(&leader, short, "401").await?;
    held(&leader, short, "invalid signature").await?;
    leader.started(1).await?;
    ensure!(stranger.starts()?.is_empty() && leader.starts()?.len() == 1, "it continued");
    Ok(())
}

/// A certificate authority of the test, and its certificates.
struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl CertificateAuthority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Writes a certificate issued for these names, its key, and the authority's own certificate.
    fn sign(&self, directory: &Path, names: &[&str]) -> Result {
        fs::create_dir_all(directory)?;
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.issuer)?;
        fs::write(directory.join("cert"), certificate.pem())?;
        fs::write(directory.join("key"), key.serialize_pem())?;
        fs::write(directory.join("ca"), &self.pem)?;
        Ok(())
    }
}

/// Returns the pod with the certificate of a directory, and that of the authority.
fn mutual(pod: PodBuilder, directory: &Path) -> PodBuilder {
    let file = |name: &str| directory.join(name).display().to_string();
    pod.set("tls_cert", file("cert")).set("tls_key", file("key")).set("tls_ca", file("ca"))
}

async fn curl(arguments: &[&str]) -> Result<Output> {
    let mut curl = Process::command("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20"]).args(arguments);
    Ok(tokio::task::spawn_blocking(move || curl.output()).await??)
}

/// Waits until the snapshot has this number of pods.
async fn configured(env: &TestEnv, count: usize) -> Result {
    eventually("the pods form one cluster", DEFAULT_TIMEOUT * 2, async || {
        let pods = env.cluster("default").snapshot().await?.len();
        ensure!(pods == count, "configured are {pods}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_cluster_with_certificates_of_one_authority_forms_and_serves_only_who_has_one() -> Result {
    let env = TestEnv::new().await?;
    let authority = CertificateAuthority::new()?;
    let directory = env.scratch().join("certificates");
    authority.sign(&directory, &["127.0.0.2", "127.0.0.3", "127.0.0.4"])?;
    let _pods = [(); 3].map(|()| mutual(pod(&env), &directory).start());
    configured(&env, 3).await?;

    let file = |name: &str| directory.join(name).display().to_string();
    let (cert, key, ca) = (file("cert"), file("key"), file("ca"));
    let url = format!("https://127.0.0.2:{}/info", env.port());
    let shown = curl(&["--cacert", &ca, "--cert", &cert, "--key", &key, &url]).await?;
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(text.contains(r#""process":"running""#), "it answers {shown:?}");
    let anonymous = curl(&["--cacert", &ca, &url]).await?;
    ensure!(!anonymous.status.success() && anonymous.stdout.is_empty(), "it serves anybody: {anonymous:?}");
    let plain = curl(&[&url.replace("https", "http")]).await?;
    let text = String::from_utf8_lossy(&plain.stdout).into_owned();
    ensure!(text.contains("TLS required: use https"), "it answers {plain:?}");
    Ok(())
}

#[tokio::test]
async fn certificates_may_be_made_out_to_the_name_of_all_pods() -> Result {
    let env = TestEnv::new().await?;
    let authority = CertificateAuthority::new()?;
    let pods = (0..2).map(|number| {
        let directory = env.scratch().join(format!("certificates-{number}"));
        authority.sign(&directory, &["ochopod"])?;
        mutual(pod(&env), &directory).start()
    });
    let _pods = pods.collect::<Result<Vec<_>>>()?;
    configured(&env, 2).await
}

#[tokio::test]
async fn without_an_authority_pods_trust_the_certificate_that_they_share() -> Result {
    let env = TestEnv::new().await?;
    let certified = rcgen::generate_simple_self_signed(vec!["ochopod".to_owned(), "127.0.0.2".to_owned()])?;
    let (cert, key) = (env.scratch().join("cert"), env.scratch().join("key"));
    fs::write(&cert, certified.cert.pem())?;
    fs::write(&key, certified.signing_key.serialize_pem())?;
    let pods = (0..2).map(|_| pod(&env).set("tls_cert", cert.display()).set("tls_key", key.display()).start());
    let _pods = pods.collect::<Result<Vec<_>>>()?;
    configured(&env, 2).await?;
    let url = format!("https://127.0.0.2:{}/healthz", env.port());
    let healthy = curl(&["--fail", "--cacert", &cert.display().to_string(), &url]).await?;
    ensure!(healthy.status.success(), "a client without a certificate is not served: {healthy:?}");
    Ok(())
}

#[tokio::test]
async fn a_pod_with_a_certificate_of_another_authority_holds_the_configuration() -> Result {
    let env = TestEnv::new().await?;
    let (own, other) = (env.scratch().join("own"), env.scratch().join("other"));
    CertificateAuthority::new()?.sign(&own, &["ochopod"])?;
    CertificateAuthority::new()?.sign(&other, &["ochopod"])?;
    let leader = mutual(pod(&env), &own).start()?;
    configured(&env, 1).await?;
    let stranger = mutual(pod(&env), &other).start()?;
    let file = |name: &str| own.join(name).display().to_string();
    let (cert, key, ca) = (file("cert"), file("key"), file("ca"));
    let resolve = format!("ochopod:{}:127.0.0.2", env.port());
    let url = format!("https://ochopod:{}/info", env.port());
    eventually("the status reports it", DEFAULT_TIMEOUT, async || {
        let info = curl(&["--resolve", &resolve, "--cert", &cert, "--key", &key, "--cacert", &ca, &url]).await?;
        let info: serde_json::Value = serde_json::from_slice(&info.stdout)?;
        let status = info["status"].as_str().unwrap_or_default().to_owned();
        ensure!(status.contains("invalid peer certificate"), "the status is {status:?}");
        Ok(())
    })
    .await?;
    leader.started(1).await?;
    ensure!(stranger.starts()?.is_empty() && leader.starts()?.len() == 1, "it continued");
    Ok(())
}
