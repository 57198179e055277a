//! Pods of Ochopod and of the Python SDK in one cluster: one leader, of either kind, and all pods accept its tasks.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use ochopod_tests::{
    ClusterNodes, DEFAULT_TIMEOUT, Pod, PodBuilder, PythonPod, RecordedRequest, Result, TestEnv, consistently,
    eventually, python,
};
use serde_json::{Value, json};

use crate::{leader_with_fakes::header, pod};

/// Returns a pod that maps its control port: leaders of the SDK locate it only by that.
fn ours(env: &TestEnv) -> PodBuilder {
    pod(env).env(&format!("PORT_{}", env.port()), env.port()).set("set_grace", "60").set("session", "4")
}

async fn state(of: &ochopod_tests::Client) -> Result<String> {
    Ok(of.info().await?["state"].as_str().context("no state")?.to_owned())
}

/// Checks that all pods are configured and one of them leads, continuously.
async fn one_leads(cluster: &ClusterNodes<'_>, leader: &str, pods: &[&Pod], python: &[&PythonPod]) -> Result {
    let clients: Vec<_> = pods.iter().map(|pod| pod.client()).chain(python.iter().map(|pod| pod.client())).collect();
    let whole = async || {
        let hash = cluster.hash().await?;
        ensure!(!hash.is_empty() && !hash.starts_with("pending:"), "the hash is {hash:?}");
        let mut keys: Vec<String> = Vec::new();
        for pod in pods {
            let info = pod.client().info().await?;
            ensure!(info["process"] == "running", "{} is {}", pod.address(), info["process"]);
            keys.push(info["key"].as_str().unwrap_or_default().to_owned());
        }
        keys.extend(python.iter().map(|pod| pod.fake_pod().key().to_owned()));
        keys.sort();
        let configured: Vec<String> = cluster.snapshot().await?.keys().cloned().collect();
        ensure!(configured == keys, "configured are {configured:?} instead of {keys:?}");
        let mut leaders = Vec::new();
        for client in &clients {
            if state(client).await? == "leader" {
                leaders.push(client.authority());
            }
        }
        ensure!(leaders == [leader], "leaders are {leaders:?} instead of {leader}");
        Ok(())
    };
    eventually("one leads and all are configured", DEFAULT_TIMEOUT * 2, whole).await?;
    consistently("one leads", Duration::from_millis(500), whole).await
}

/// Checks that the registration has the keys of the recorded one, with the same types. `fwk` is called `binding` here.
fn is_like_the_recorded_one(registration: &Value, recorded: &Value) -> Result {
    for (key, value) in recorded.as_object().context("no object")? {
        let own = &registration[if key == "fwk" { "binding" } else { key }];
        let alike = match value {
            Value::String(_) => own.is_string(),
            Value::Number(_) => own.is_u64(),
            Value::Object(_) => own.as_object().is_some_and(|ports| ports.values().all(Value::is_u64)),
            other => bail!("recorded is {other}"),
        };
        ensure!(alike, "{key} is {own}, recorded is {value}");
    }
    Ok(())
}

fn is_like_the_recorded_post(request: &RecordedRequest, recorded: &Value, sender: &str) -> Result {
    let line = recorded["request_line"].as_str().context("no request line")?;
    ensure!(
        line == format!("POST /control/{}/{} HTTP/1.1", request.task, request.limit),
        "{request:?} instead of {line}"
    );
    let keys = |body: &Value| body.as_object().map(|body| body.keys().cloned().collect::<Vec<_>>());
    ensure!(keys(&request.body) == keys(&recorded["body"]), "{} instead of {}", request.body, recorded["body"]);
    let pods = recorded["body"]["pods"].as_object().context("no pods")?;
    let real = pods.values().find(|pod| pod["fwk"].is_string()).context("no real pod")?;
    is_like_the_recorded_one(&request.body["pods"][sender], real)
}

#[tokio::test]
async fn our_leader_sends_a_python_pod_the_requests_of_its_own_leader() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let pods = env.start_cluster(1, ours).await?;
    let python = cluster.python_pod().await?;
    one_leads(&cluster, pods[0].client().authority(), &[&pods[0]], &[&python]).await?;
    let trace = python::leader_posts()?;
    let recorded = trace["plain_1real_2fakes"]["posts_received_by_fake_pods"].as_array().context("no posts")?;
    let recorded: Vec<&Value> = recorded.iter().filter(|post| post["fake"] == 0).collect();
    let sender = pods[0].client().info().await?["key"].as_str().unwrap_or_default().to_owned();
    eventually("ok arrived", DEFAULT_TIMEOUT, async || python.fake_pod().last("ok")).await?;
    let requests = python.fake_pod().requests();
    ensure!(requests.len() == recorded.len(), "it received {:?}", python.fake_pod().tasks());
    let registered = &cluster.registrations().await?[python.fake_pod().key()];
    for (request, recorded) in requests.iter().zip(recorded) {
        is_like_the_recorded_post(request, recorded, &sender)?;
        ensure!(request.body["key"] == python.fake_pod().key(), "the key is {}", request.body["key"]);
        ensure!(
            &request.body["pods"][python.fake_pod().key()] == registered,
            "its registration became {}",
            request.body
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_full_shutdown_of_ours_turns_a_python_pod_off_as_its_own_leader_would() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let pods = env.start_cluster(1, |env| ours(env).set("set_full_shutdown", "true")).await?;
    let python = cluster.python_pod().await?;
    one_leads(&cluster, pods[0].client().authority(), &[&pods[0]], &[&python]).await?;
    let trace = python::leader_posts()?;
    let recorded = trace["full_shutdown"]["posts_received_by_fake_pods"].as_array().context("no posts")?;
    let sender = pods[0].client().info().await?["key"].as_str().unwrap_or_default().to_owned();
    eventually("ok arrived", DEFAULT_TIMEOUT, async || python.fake_pod().last("ok")).await?;
    ensure!(python.fake_pod().requests().len() == recorded.len(), "it received {:?}", python.fake_pod().tasks());
    for (request, recorded) in python.fake_pod().requests().iter().zip(recorded) {
        is_like_the_recorded_post(request, recorded, &sender)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_python_pod_leads_first_and_other_pods_accept_its_tasks() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let python = cluster.python_pod().await?;
    let pods = (0..2).map(|_| ours(&env).start()).collect::<Result<Vec<Pod>>>()?;
    let leader = python.client().authority();
    one_leads(&cluster, leader, &[&pods[0], &pods[1]], &[&python]).await?;
    ensure!(!header(&python.fake_pod().last("on")?, "user-agent").is_empty(), "another leader configured it");
    for pod in &pods {
        pod.wait_log("callback configured").await?;
        pod.started(1).await?;
        ensure!(pod.starts()?.len() == 1, "it was started {} times", pod.starts()?.len());
    }
    pods[0].client().post("/control/kill").await?.json(200)?;
    let newcomer = ours(&env).start()?;
    one_leads(&cluster, leader, &[&pods[1], &newcomer], &[&python]).await
}

#[tokio::test]
async fn a_python_pod_takes_over_from_ours_that_was_killed() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let mut pods = env.start_cluster(1, ours).await?;
    let python = cluster.python_pod().await?;
    one_leads(&cluster, pods[0].client().authority(), &[&pods[0]], &[&python]).await?;
    pods[0].kill9().await?;
    let newcomer = ours(&env).start()?;
    one_leads(&cluster, python.client().authority(), &[&newcomer], &[&python]).await
}

#[tokio::test]
async fn ours_take_over_from_a_python_pod_whatever_it_left_in_the_store() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    for view in [None, Some("rubbish"), Some(r#"{"pods":{"gone":{"seq":0}},"dependencies":{"gone":{"x":{"seq":0}}}}"#)]
    {
        // Its last configuration is not in `view`, which leaders of the SDK do not write.
        if let Some(view) = view {
            cluster.store().set(&cluster.path("view"), view.as_bytes()).await?;
        }
        let python = cluster.python_pod().await?;
        let pods = [ours(&env).start()?, ours(&env).start()?];
        one_leads(&cluster, python.client().authority(), &[&pods[0], &pods[1]], &[&python]).await?;
        ensure!(cluster.hash().await?.split(':').count() == 16, "the hash is {}", cluster.hash().await?);
        drop(python);
        cluster.wait_formed(&[&pods[0], &pods[1]]).await?;
        ensure!(cluster.hash().await?.starts_with("1:"), "the hash is {}", cluster.hash().await?);
        ensure!(cluster.store().json(&cluster.path("view")).await?["pods"] == Value::Object(cluster.snapshot().await?));
        for pod in &pods {
            pod.started(1).await?;
            ensure!(pod.starts()?.len() == 1, "it was started {} times", pod.starts()?.len());
            pod.term()?;
        }
        for mut pod in pods {
            pod.exit_code().await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn our_leader_steps_down_past_a_python_pod_and_sends_it_nothing() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let pods = env.start_cluster(2, ours).await?;
    let (first, other) = if state(pods[0].client()).await? == "leader" { (0, 1) } else { (1, 0) };
    let python = cluster.python_pod().await?;
    one_leads(&cluster, pods[first].client().authority(), &[&pods[0], &pods[1]], &[&python]).await?;
    eventually("ok arrived", DEFAULT_TIMEOUT, async || python.fake_pod().last("ok")).await?;
    let tasks = python.fake_pod().tasks();
    let to = pods[other].client().info().await?["key"].clone();
    let reply = pods[first].client().post_json("/control/step-down", &json!({"to": to})).await?.json(200)?;
    ensure!(reply == json!({"skipped": [python.fake_pod().key()]}), "{reply}");
    one_leads(&cluster, pods[other].client().authority(), &[&pods[0], &pods[1]], &[&python]).await?;
    ensure!(python.fake_pod().tasks() == tasks, "it received {:?}", python.fake_pod().tasks());
    Ok(())
}
