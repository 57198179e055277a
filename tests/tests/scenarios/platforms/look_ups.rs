//! Look-ups against servers of platforms, well-behaved and hostile.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ochopod_environment::Env;
use ochopod_platform::{Binding, LookUpResults, LookUps, NetworkMode, OperatorSettings, TOTAL_TIMEOUT};
use ochopod_tests::{
    Result,
    platforms::{
        Behaviour, INSTANCE_ID, RecordedCall, ScriptedServer, ServiceAccount, instance_metadata, kubernetes_api,
        task_metadata,
    },
};
use serde_json::json;

/// Time that a loaded machine may add to the bound.
const TOLERANCE: Duration = Duration::from_secs(1);
const TOKEN: &str = "service-account-token-1";
const POD: &str = "/api/v1/namespaces/shop/pods/web-7d4b9c-x2x";

type Script = Box<dyn FnMut(&RecordedCall) -> Behaviour + Send>;

/// Runs the look-ups of these variables, and checks that they end in time.
async fn look_up(variables: &[(&str, &str)], settings: OperatorSettings<'_>) -> Result<LookUpResults> {
    let env: Env = variables.iter().copied().collect();
    let binding = Binding::detect(&env, false);
    let begin = Instant::now();
    let results = LookUps::plan(binding, &env, "box", &settings, false).run().await;
    ensure!(begin.elapsed() < TOTAL_TIMEOUT + TOLERANCE, "it took {:?}", begin.elapsed());
    Ok(results)
}

async fn instance(server: &ScriptedServer) -> Result<LookUpResults> {
    look_up(
        &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &server.url())],
        OperatorSettings { zk: true, ..OperatorSettings::default() },
    )
    .await
}

/// Returns the only problem, with the settings that it names.
fn problem(results: &LookUpResults) -> Result<String> {
    ensure!(results.problems.len() == 1, "problems: {:?}", results.problems);
    Ok(results.problems.first().context("no problem")?.to_string())
}

#[tokio::test]
async fn instance_metadata_yields_id_and_addresses() -> Result {
    for public in [Some("54.0.0.1"), None] {
        let server = ScriptedServer::start(instance_metadata("10.9.0.1", public)).await?;
        let results = instance(&server).await?;
        let instance = results.instance.context("no instance")?;
        ensure!(instance.id == INSTANCE_ID && instance.local == "10.9.0.1".parse().ok(), "{instance:?}");
        ensure!(instance.public == public.and_then(|ip| ip.parse().ok()), "{instance:?}");
        ensure!(results.problems.is_empty(), "a missing public address is not a problem: {:?}", results.problems);
    }
    Ok(())
}

#[tokio::test]
async fn instance_metadata_token_is_renewed_once_and_busy_service_is_repeated() -> Result {
    let mut service = instance_metadata("10.9.0.1", None);
    let (mut expired, mut busy) = (false, false);
    let server = ScriptedServer::start(move |call| {
        if call.method == "GET" && !std::mem::replace(&mut expired, true) {
            return Behaviour::text(401, "");
        }
        if call.path.ends_with("local-ipv4") && !std::mem::replace(&mut busy, true) {
            return Behaviour::text(503, "");
        }
        service(call)
    })
    .await?;
    let results = instance(&server).await?;
    ensure!(results.instance.is_some(), "{:?}", results.problems);
    let renewals = server.calls().iter().filter(|call| call.method == "PUT").count();
    ensure!(renewals == 2, "{renewals} tokens");

    let server =
        ScriptedServer::start(|call| Behaviour::text(if call.method == "PUT" { 200 } else { 401 }, "t")).await?;
    ensure!(problem(&instance(&server).await?)?.contains("401 Unauthorized"), "a service that accepts no token");
    ensure!(server.calls().len() == 4, "two tokens, two items");
    Ok(())
}

#[tokio::test]
async fn hostile_instance_metadata_costs_its_bound_only() -> Result {
    const HTML: &str = "<html>captive portal</html>";
    let redirect = || Behaviour::Answer(302, vec![("Location", "http://127.0.0.1:1/".to_owned())], Vec::new());
    let item = |body: &'static str| {
        move |call: &RecordedCall| Behaviour::text(200, if call.method == "PUT" { "t" } else { body })
    };
    let cases: Vec<(&str, Script)> = vec![
        // The hop limit of the instance: the answer never arrives.
        ("no answer in time", Box::new(|_| Behaviour::Silent)),
        (
            "no answer in time",
            Box::new(|call| if call.method == "PUT" { Behaviour::text(200, "t") } else { Behaviour::Silent }),
        ),
        ("404 Not Found", Box::new(|_| Behaviour::text(404, HTML))),
        ("403 Forbidden", Box::new(|_| Behaviour::text(403, ""))),
        ("redirect (302 Found), which is not followed", Box::new(move |_| redirect())),
        ("body of more than 1048576 bytes", Box::new(|_| Behaviour::text(200, " ".repeat(10 << 20)))),
        ("body of more than 1048576 bytes", Box::new(|_| Behaviour::Endless)),
        ("captive portal", Box::new(item(HTML))),
        ("expected an instance ID", Box::new(item("i-XYZ"))),
        ("expected a token", Box::new(|_| Behaviour::text(200, ""))),
        ("expected a token", Box::new(|_| Behaviour::text(200, "a\r\nb"))),
    ];
    for (expected, script) in cases {
        let server = ScriptedServer::start(script).await?;
        let results = instance(&server).await?;
        ensure!(results.instance.is_none(), "{expected}: {results:?}");
        let problem = problem(&results)?;
        ensure!(problem.contains(expected) && problem.contains(&server.url()), "{expected}: {problem}");
        ensure!(problem.contains("set --ip, --public and --node") && problem.len() < 600, "{problem}");
    }
    Ok(())
}

async fn task(server: &ScriptedServer) -> Result<LookUpResults> {
    look_up(
        &[("ECS_CONTAINER_METADATA_URI_V4", &format!("{}/v4/id", server.url()))],
        OperatorSettings { zk: true, ..OperatorSettings::default() },
    )
    .await
}

#[tokio::test]
async fn task_metadata_yields_network_ports_and_names() -> Result {
    let ports = json!([{ "ContainerPort": 8080, "Protocol": "tcp", "HostPort": 32768 }, { "ContainerPort": 9 }]);
    for (name, mode) in [("awsvpc", NetworkMode::Awsvpc), ("bridge", NetworkMode::Bridge), ("host", NetworkMode::Host)]
    {
        let mut service = task_metadata(name, "10.0.2.61", &ports);
        let mut early = true;
        // Just after its start, the task is unknown.
        let server =
            ScriptedServer::start(
                move |call| {
                    if std::mem::take(&mut early) { Behaviour::text(404, "") } else { service(call) }
                },
            )
            .await?;
        let results = task(&server).await?;
        let container = results.container.with_context(|| format!("{:?}", results.problems))?;
        ensure!(container.mode == mode && container.ip == "10.0.2.61".parse().ok(), "{container:?}");
        ensure!(container.ports == [(8080, 32768)].into(), "{container:?}");
        let names = (container.application.as_deref(), container.task.as_deref());
        ensure!(names == (Some("shop"), Some("0f1e2d")), "{names:?}");
    }
    let server = ScriptedServer::start(task_metadata("bridge", "172.17.0.2", &ports)).await?;
    let problem = problem(&task(&server).await?)?;
    let expected = "unexpected answer \"bridge\", expected instance metadata with the address of the machine; set --ip";
    ensure!(problem.contains(expected), "the address of the machine is unknown: {problem}");
    let machine = ScriptedServer::start(instance_metadata("10.9.0.1", None)).await?;
    let uri = format!("{}/v4/id", server.url());
    let variables =
        [("ECS_CONTAINER_METADATA_URI_V4", uri.as_str()), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &machine.url())];
    let results = look_up(&variables, OperatorSettings { zk: true, ..OperatorSettings::default() }).await?;
    ensure!(results.problems.is_empty() && results.instance.is_some(), "{results:?}");
    Ok(())
}

#[tokio::test]
async fn hostile_task_metadata_costs_its_bound_only() -> Result {
    let typed = json!({ "Networks": "none", "TaskARN": 7 });
    let mode = json!({ "Networks": [{ "NetworkMode": "teapot" }], "TaskARN": "x" });
    let port = json!({ "Ports": [{ "ContainerPort": 99_999 }], "TaskARN": "x" });
    for (expected, behaviour) in [
        ("invalid JSON", Behaviour::json(&typed)),
        ("invalid JSON", Behaviour::json(&port)),
        ("invalid JSON", Behaviour::text(200, "[".repeat(100_000))),
        ("teapot", Behaviour::json(&mode)),
        ("404 Not Found", Behaviour::text(404, "")),
        ("redirect", Behaviour::text(307, "")),
        ("body of more than", Behaviour::text(200, " ".repeat(10 << 20))),
        ("body of more than", Behaviour::Endless),
        ("no answer in time", Behaviour::Silent),
    ] {
        let server = ScriptedServer::start(move |_| behaviour.clone()).await?;
        let results = task(&server).await?;
        ensure!(results.container.is_none(), "{expected}: {results:?}");
        let problem = problem(&results)?;
        ensure!(problem.contains(expected) && problem.contains("set --ip, --application, --task"), "{problem}");
    }
    Ok(())
}

/// Runs the look-ups of the pod `web-7d4b9c-x2x` with an account.
async fn pod(server: &ScriptedServer, account: &ServiceAccount, zk: bool) -> Result<LookUpResults> {
    pod_with(server, account, zk, &[]).await
}

/// Returns the same with further variables.
async fn pod_with(
    server: &ScriptedServer,
    account: &ServiceAccount,
    zk: bool,
    further: &[(&str, &str)],
) -> Result<LookUpResults> {
    let (port, path) = (server.address().port().to_string(), account.path());
    let variables = [
        ("KUBERNETES_SERVICE_HOST", "127.0.0.1"),
        ("KUBERNETES_SERVICE_PORT_HTTPS", &port),
        ("HOSTNAME", "web-7d4b9c-x2x"),
    ];
    let variables = [&variables[..], further].concat();
    look_up(&variables, OperatorSettings { zk, service_account: path.to_str(), ..OperatorSettings::default() }).await
}

#[tokio::test]
async fn kubernetes_api_yields_pod_owner_node_and_store() -> Result {
    let account = ServiceAccount::new(TOKEN)?;
    let server = ScriptedServer::start_with_tls(&account.server()?, kubernetes_api(TOKEN, "10.2.0.7")).await?;
    let results = pod(&server, &account, false).await?;
    ensure!(results.problems.is_empty(), "{:?}", results.problems);
    let found = results.pod.context("no pod")?;
    ensure!(found.ip == "10.2.0.7".parse().ok() && found.node.as_deref() == Some("node-3"), "{found:?}");
    ensure!(found.grace == Some(Duration::from_secs(90)), "{found:?}");
    ensure!(results.owner.as_deref() == Some("deployment/web"), "{:?}", results.owner);
    ensure!(results.node_address == "54.0.0.3".parse().ok(), "{:?}", results.node_address);
    let store = results.store.context("no store")?;
    ensure!((&*store.text, &*store.source) == ("zk://10.2.0.99:2181", "pod ocho-proxy"), "{store:?}");

    let calls = server.calls().len();
    let results = pod(&server, &account, true).await?;
    ensure!(results.store.is_none() && server.calls().len() == calls + 3, "three requests if ochopod_zk is set");
    ensure!(server.calls().iter().all(|call| call.headers["accept"] == "application/json"));
    Ok(())
}

#[tokio::test]
async fn kubernetes_owner_of_other_kinds_is_final() -> Result {
    let account = ServiceAccount::new(TOKEN)?;
    for (references, expected) in [
        (json!([{ "kind": "StatefulSet", "name": "kafka", "controller": true }]), Some("statefulset/kafka")),
        (
            json!([{ "kind": "Node", "name": "n" }, { "kind": "Job", "name": "once", "controller": true }]),
            Some("job/once"),
        ),
        (json!([{ "kind": "ReplicaSet", "name": "../../../secrets", "controller": true }]), None),
        (json!([]), None),
    ] {
        let body = json!({ "metadata": { "name": "web", "ownerReferences": references }, "spec": {}, "status": {} });
        let server = ScriptedServer::start_with_tls(&account.server()?, move |_| Behaviour::json(&body)).await?;
        let results = pod(&server, &account, true).await?;
        ensure!(results.owner.as_deref() == expected && results.problems.is_empty(), "{results:?}");
        ensure!(server.calls().len() == 1, "{:?}", server.calls());
    }
    Ok(())
}

#[tokio::test]
async fn kubernetes_look_ups_continue_after_rejected_ones() -> Result {
    let account = ServiceAccount::new(TOKEN)?;
    let rejecting = |part: &'static str, code: u16| {
        let mut api = kubernetes_api(TOKEN, "10.2.0.7");
        move |call: &RecordedCall| if call.path.contains(part) { Behaviour::status(code) } else { api(call) }
    };
    let run = async |part, code| {
        let server = ScriptedServer::start_with_tls(&account.server()?, rejecting(part, code)).await?;
        pod(&server, &account, false).await
    };
    let results = run("/nodes/", 403).await?;
    ensure!(
        results.problems.is_empty() && results.node_address.is_none(),
        "reading nodes is rarely allowed: {results:?}"
    );
    ensure!(results.owner.as_deref() == Some("deployment/web"), "{results:?}");

    let results = run("/replicasets/", 403).await?;
    ensure!(results.owner.as_deref() == Some("deployment/web") && results.problems.is_empty(), "by label: {results:?}");

    let results = run("ocho-proxy", 404).await?;
    ensure!(problem(&results)?.contains("404 Not Found; set ochopod_zk") && results.pod.is_some(), "{results:?}");

    let results = run("web-7d4b9c-x2x", 403).await?;
    let expected = format!("{POD} failed: 403 Forbidden; set POD_NAME, POD_IP and NODE_NAME by the downward API");
    ensure!(problem(&results)?.contains(&expected) && results.store.is_some(), "{results:?}");
    let server = ScriptedServer::start_with_tls(&account.server()?, |_| Behaviour::status(403)).await?;
    let located = [("POD_NAME", "web-7d4b9c-x2x"), ("POD_IP", "10.2.0.7"), ("NODE_NAME", "node-3")];
    let results = pod_with(&server, &account, true, &located).await?;
    ensure!(results == LookUpResults::default(), "an account without permissions is not a problem there: {results:?}");
    Ok(())
}

#[tokio::test]
async fn kubernetes_token_is_read_again_after_401() -> Result {
    let account = ServiceAccount::new(TOKEN)?;
    let rotate = account.rotation("service-account-token-2");
    let mut api = kubernetes_api("service-account-token-2", "10.2.0.7");
    let mut first = true;
    let server = ScriptedServer::start_with_tls(&account.server()?, move |call| {
        if std::mem::take(&mut first) {
            rotate();
        }
        api(call)
    })
    .await?;
    let results = pod(&server, &account, true).await?;
    ensure!(results.pod.is_some() && results.problems.is_empty(), "{results:?}");
    ensure!(server.calls().len() == 4, "one request is repeated: {:?}", server.calls());

    server.change(kubernetes_api("another", "10.2.0.7"));
    let results = pod(&server, &account, true).await?;
    let problem = problem(&results)?;
    ensure!(problem.contains("401 Unauthorized") && !problem.contains("service-account-token"), "{problem}");
    Ok(())
}

#[tokio::test]
async fn busy_kubernetes_api_is_repeated_within_the_bound() -> Result {
    let account = ServiceAccount::new(TOKEN)?;
    let mut api = kubernetes_api(TOKEN, "10.2.0.7");
    let mut busy = 3;
    let server = ScriptedServer::start_with_tls(&account.server()?, move |call| {
        if busy > 0 {
            busy -= 1;
            let headers = if busy == 2 { vec![("Retry-After", "0".to_owned())] } else { Vec::new() };
            return Behaviour::Answer(429, headers, b"{}".to_vec());
        }
        api(call)
    })
    .await?;
    let results = pod(&server, &account, true).await?;
    ensure!(results.pod.is_some() && results.problems.is_empty(), "{results:?}");

    for seconds in ["3600".to_owned(), u64::MAX.to_string()] {
        server.change(move |_| Behaviour::Answer(429, vec![("Retry-After", seconds.clone())], Vec::new()));
        let results = pod(&server, &account, true).await?;
        ensure!(problem(&results)?.contains("429 Too Many Requests"), "{results:?}");
    }

    let mut api = kubernetes_api(TOKEN, "10.2.0.7");
    server.change(move |call| match api(call) {
        Behaviour::Answer(status, _, body) => {
            Behaviour::Answer(status, vec![("Retry-After", u64::MAX.to_string())], body)
        }
        other => other,
    });
    let results = pod(&server, &account, true).await?;
    ensure!(results.pod.is_some() && results.problems.is_empty(), "{results:?}");
    Ok(())
}

#[tokio::test]
async fn hostile_kubernetes_api_costs_its_bound_only() -> Result {
    let account = ServiceAccount::new(TOKEN)?;
    for (expected, behaviour) in [
        ("invalid JSON", Behaviour::text(200, "<html>proxy</html>")),
        ("invalid JSON", Behaviour::json(&json!({ "metadata": { "name": 7 } }))),
        ("invalid JSON", Behaviour::json(&json!({ "metadata": { "name": "x" }, "status": { "podIP": "nowhere" } }))),
        ("redirect", Behaviour::Answer(301, vec![("Location", "https://127.0.0.1:1/".to_owned())], Vec::new())),
        ("body of more than", Behaviour::text(200, " ".repeat(10 << 20))),
        ("body of more than", Behaviour::Endless),
        ("no answer in time", Behaviour::Silent),
    ] {
        let server = ScriptedServer::start_with_tls(&account.server()?, move |_| behaviour.clone()).await?;
        let results = pod(&server, &account, true).await?;
        let problem = problem(&results)?;
        ensure!(results.pod.is_none() && problem.contains(expected), "{expected}: {results:?}");
        ensure!(problem.contains(&format!("{}{POD}", server.url())), "{problem}");
    }
    Ok(())
}

#[tokio::test]
async fn kubernetes_api_needs_a_certificate_of_the_accounts_authority() -> Result {
    let (account, other) = (ServiceAccount::new(TOKEN)?, ServiceAccount::new(TOKEN)?);
    let server = ScriptedServer::start_with_tls(&other.server()?, kubernetes_api(TOKEN, "10.2.0.7")).await?;
    let results = pod(&server, &account, true).await?;
    ensure!(problem(&results)?.contains("invalid peer certificate"), "{results:?}");
    ensure!(server.calls().is_empty(), "the token is not sent");

    let missing = OperatorSettings { zk: true, service_account: Some("/nonexistent"), ..OperatorSettings::default() };
    let port = server.address().port().to_string();
    let variables = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", port.as_str())];
    let results = look_up(&variables, missing).await?;
    ensure!(results == LookUpResults::default(), "a pod without an account uses its variables: {results:?}");
    Ok(())
}
