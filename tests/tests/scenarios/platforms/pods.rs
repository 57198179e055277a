//! Pods in the environment of each platform: what they register, and where each value came from.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use ochopod_tests::{
    Client, DEFAULT_TIMEOUT, Pod, PodBuilder, Process, Result, TestEnv, artifacts, eventually, free_port, namespaces,
    platforms::{
        Behaviour, INSTANCE_ID, ScriptedServer, ServiceAccount, instance_metadata, kubernetes_api, task_metadata,
    },
};
use serde_json::{Value, json};

use crate::pod;

const SECRET: &str = "hunter2-of-the-platform";
const TOKEN: &str = "service-account-token";

/// Returns a pod that takes its addresses from its platform. It listens at its address.
fn platform_pod(env: &TestEnv, complete: impl Fn(PodBuilder, &str) -> PodBuilder) -> Result<Pod> {
    let address = env.address();
    let builder = env
        .pod_at(&artifacts::misbehaving()?, &address, &env.scratch().join(&address))
        .count_starts(crate::SLEEP)
        .set("set_grace", "5")
        .set("cluster", "default")
        .set("listen", format!("{address}:{}", env.port()));
    complete(["local", "ip", "public"].into_iter().fold(builder, PodBuilder::unset), &address).start()
}

/// Checks what the pod registered, and the sources in `/info`, of the values with these names.
async fn registered(env: &TestEnv, pod: &Pod, values: &[(&str, &str, &str)]) -> Result {
    let info = pod.wait_info("process", "running").await?;
    let registrations = env.cluster("default").registrations().await?;
    let registration = registrations.get(info["key"].as_str().unwrap_or_default()).context("not registered")?;
    for (name, value, source) in values {
        let found = registration[*name].as_str().context("no text")?;
        ensure!(found == *value, "{name} is {found}, not {value}");
        if *name != "binding" {
            let found = info["sources"][*name].as_str().unwrap_or_default();
            ensure!(found == *source, "{name} comes from {found:?}, not {source:?}");
        }
        ensure!(info[*name] == *value, "/info has {name} {}", info[*name]);
    }
    let line = pod.wait_log("platform detected").await?;
    ensure!(line.contains(values[0].1), "the log does not name the binding");
    Ok(())
}

#[tokio::test]
async fn marathon_task_registers_its_agent() -> Result {
    let env = TestEnv::new().await?;
    let pod = platform_pod(&env, |builder, address| {
        let builder = builder.env("MARATHON_APP_ID", "/shop/web").env("MESOS_TASK_ID", "shop_web.1");
        let builder = builder.env("MV_HOST", address).env("HOST", "ignored").set("env_vars_prefix", "MV_");
        builder.env(&format!("MV_PORT_{}", env.port()), env.port()).env("PORT_9", "1")
    })?;
    let values = [
        ("binding", "marathon", ""),
        ("ip", pod.address(), "MV_HOST, resolved"),
        ("node", pod.address(), "MV_HOST"),
        ("application", "shop/web", "MARATHON_APP_ID"),
        ("task", "shop_web.1", "MESOS_TASK_ID"),
        ("public", "", ""),
    ];
    registered(&env, &pod, &values).await?;
    let ports = pod.client().info().await?["ports"].clone();
    ensure!(ports == json!({ env.port().to_string(): env.port() }), "ports without the prefix are ignored: {ports}");
    Ok(())
}

#[tokio::test]
async fn marathon_task_on_ec2_registers_the_instance() -> Result {
    let env = TestEnv::new().await?;
    let address = env.address();
    let server = ScriptedServer::start(instance_metadata(&address, Some("54.0.0.1"))).await?;
    let directory = env.scratch().join("ec2");
    let builder = env.pod_at(&artifacts::misbehaving()?, &address, &directory).command(crate::SLEEP);
    let builder = ["local", "ip", "public"].into_iter().fold(builder, PodBuilder::unset);
    let pod = builder
        .set("cluster", "default")
        .set("binding", "marathon-ec2")
        .set("listen", format!("{address}:{}", env.port()))
        .env("MARATHON_APP_ID", "/web")
        .env("AWS_EC2_METADATA_DISABLED", "false")
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url())
        .start()?;
    let values = [
        ("binding", "marathon-ec2", ""),
        ("ip", &*address, "instance metadata"),
        ("node", INSTANCE_ID, "instance metadata"),
        ("public", "54.0.0.1", "instance metadata"),
    ];
    registered(&env, &pod, &values).await
}

#[tokio::test]
async fn kubernetes_pod_registers_what_variables_and_api_say() -> Result {
    let env = TestEnv::new().await?;
    let account = ServiceAccount::new(TOKEN)?;
    let address = env.address();
    let server = ScriptedServer::start_with_tls(&account.server()?, kubernetes_api(TOKEN, &address)).await?;
    let builder = env.pod_at(&artifacts::misbehaving()?, &address, &env.scratch().join("api")).command(crate::SLEEP);
    let builder = ["local", "ip", "public"].into_iter().fold(builder, PodBuilder::unset);
    let pod = builder
        .set("cluster", "default")
        .set("listen", format!("{address}:{}", env.port()))
        .set("service_account", account.path().display())
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT_HTTPS", server.address().port())
        .env("HOSTNAME", "web-7d4b9c-x2x")
        .env("NODE_NAME", "by-variable")
        .start()?;
    let values = [
        ("binding", "kubernetes", ""),
        ("ip", &*address, "Kubernetes API"),
        ("public", "54.0.0.3", "Kubernetes API"),
        ("node", "by-variable", "NODE_NAME"),
        ("application", "deployment/web", "Kubernetes API"),
        ("task", "web-7d4b9c-x2x", "Kubernetes API"),
    ];
    registered(&env, &pod, &values).await?;
    let log = pod.wait_log("stop_timeout fits into the kill delay").await?;
    ensure!(log.contains("kill_delay=90s"), "terminationGracePeriodSeconds is not read: {log}");
    ensure!(!log.contains(TOKEN), "the log has the token");
    Ok(())
}

#[tokio::test]
async fn nomad_task_registers_address_and_ports_of_the_machine() -> Result {
    let env = TestEnv::new().await?;
    let pod = platform_pod(&env, |builder, address| {
        let builder =
            builder.env("NOMAD_ALLOC_ID", "4f1b").env("NOMAD_JOB_ID", "shop").env("NOMAD_IP_control", address);
        builder.env("NOMAD_PORT_control", env.port()).env("NOMAD_HOST_PORT_control", env.port())
    })?;
    let values = [
        ("binding", "nomad", ""),
        ("ip", pod.address(), "NOMAD_IP_control"),
        ("application", "shop", "NOMAD_JOB_ID"),
        ("task", "4f1b", "NOMAD_ALLOC_ID"),
    ];
    registered(&env, &pod, &values).await
}

#[tokio::test]
async fn ecs_task_registers_what_its_metadata_say() -> Result {
    let env = TestEnv::new().await?;
    let address = env.address();
    let server = ScriptedServer::start(task_metadata("awsvpc", &address, &json!([]))).await?;
    let builder = env.pod_at(&artifacts::misbehaving()?, &address, &env.scratch().join("ecs")).command(crate::SLEEP);
    let builder = ["local", "ip", "public"].into_iter().fold(builder, PodBuilder::unset);
    let pod = builder
        .set("cluster", "default")
        .set("listen", format!("{address}:{}", env.port()))
        .env("ECS_CONTAINER_METADATA_URI_V4", format!("{}/v4/id", server.url()))
        .start()?;
    let values = [
        ("binding", "ecs", ""),
        ("ip", &*address, "task metadata"),
        ("application", "shop", "task metadata"),
        ("task", "0f1e2d", "task metadata"),
    ];
    registered(&env, &pod, &values).await
}

#[tokio::test]
async fn plain_machine_registers_the_address_of_an_interface() -> Result {
    let env = TestEnv::new().await?;
    let pod = platform_pod(&env, |builder, _| {
        let listen = format!("127.0.0.1:{}", env.port());
        builder.set("interface", "none9,lo:inet").set("binding", "generic").set("listen", listen).set("node", "box")
    })?;
    let registered = eventually("the pod registers", DEFAULT_TIMEOUT, async || {
        let all = env.cluster("default").registrations().await?;
        all.values().next().cloned().context("no registration")
    })
    .await?;
    let text = |key: &str| registered[key].as_str().unwrap_or_default();
    ensure!((text("ip"), text("binding"), text("node")) == ("127.0.0.1", "generic", "box"), "{registered}");
    let log = pod.wait_log("platform detected").await?;
    ensure!(log.contains("127.0.0.1 (interface none9,lo:inet)") && log.contains("box (ochopod_node)"), "{log}");
    Ok(())
}

#[tokio::test]
async fn public_address_found_late_is_published_without_a_new_registration() -> Result {
    let env = TestEnv::new().await?;
    let server = ScriptedServer::start(|_| Behaviour::Silent).await?;
    let pod = platform_pod(&env, |builder, address| {
        builder
            .set("binding", "generic")
            .set("interface", format!("static:{address}"))
            .set("node", "box")
            .env("AWS_EC2_METADATA_DISABLED", "false")
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url())
    })?;
    let info = pod.wait_info("process", "running").await?;
    ensure!(info["public"] == "" && info["sources"].get("public").is_none(), "/info: {info}");
    let log = pod.wait_log("platform look-up failed").await?;
    ensure!(log.contains("no answer in time") && log.contains("--public"), "{log}");

    server.change(instance_metadata("10.9.0.1", Some("54.0.0.1")));
    let late = pod.wait_info("public", "54.0.0.1").await?;
    ensure!(late["sources"]["public"] == "instance metadata, after the registration", "{}", late["sources"]);
    let key = info["key"].as_str().unwrap_or_default();
    let cluster = env.cluster("default");
    eventually("the state has the address", DEFAULT_TIMEOUT, async || {
        let state = cluster.store().json(&cluster.path(&format!("states/{key}"))).await?;
        ensure!(state["public"] == "54.0.0.1", "{state}");
        Ok(())
    })
    .await?;
    let registration = cluster.registrations().await?.remove(key).context("not registered")?;
    ensure!(registration["public"] == "" && registration["seq"] == info["seq"], "{registration}");
    ensure!(pod.starts()?.len() == 1, "the cluster was configured again");
    Ok(())
}

#[tokio::test]
async fn termination_ends_a_pod_whose_look_ups_hang() -> Result {
    let env = TestEnv::new().await?;
    let server = ScriptedServer::start(|_| Behaviour::Silent).await?;
    let mut pod = platform_pod(&env, |builder, _| {
        let builder = builder.set("binding", "generic").env("AWS_EC2_METADATA_DISABLED", "false");
        builder.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url())
    })?;
    eventually("it looks up", DEFAULT_TIMEOUT, async || {
        ensure!(!server.calls().is_empty(), "no request");
        Ok(())
    })
    .await?;
    let begin = Instant::now();
    pod.term()?;
    ensure!(pod.exit_code().await? == 0 && begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
    Ok(())
}

#[tokio::test]
async fn marathon_task_without_a_store_uses_that_of_the_masters() -> Result {
    let env = TestEnv::new().await?;
    let file = "/opt/mesosphere/etc/mesos-slave-common";
    let mount = format!(
        "mount -t tmpfs none /opt && mkdir -p /opt/mesosphere/etc && \
         echo 'MESOS_MASTER=zk://{}/mesos' > {file} && exec \"$@\"",
        env.zookeeper().address()
    );
    let within = [namespaces::mounts(), namespaces::shell(&mount)].concat();
    let pod = platform_pod(&env, |builder, address| {
        let builder = builder.unset("zk").set("cluster", "of-the-masters").within(within.clone());
        builder.env("MARATHON_APP_ID", "/web").env("HOST", address)
    })?;
    let info = pod.wait_info("session", "connected").await?;
    ensure!(info["sources"]["zk"] == file && info["cluster"] == "of-the-masters", "{info}");
    Ok(())
}

#[tokio::test]
async fn credentials_of_the_platform_reach_the_sub_process_only() -> Result {
    let env = TestEnv::new().await?;
    let names = ["VAULT_TOKEN", "NOMAD_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"];
    let write = "tr '\\0' '\\n' < /proc/self/environ > new; mv new seen; exec sleep 86400";
    let builder = names.iter().fold(pod(&env).command(write), |builder, name| builder.env(name, SECRET));
    let pod = builder.set("debug", "true").start()?;
    let info = pod.wait_info("process", "running").await?;
    let seen = eventually("the sub-process writes", DEFAULT_TIMEOUT, async || {
        Ok(fs::read_to_string(pod.directory().join("seen"))?)
    })
    .await?;
    for name in names {
        ensure!(seen.lines().any(|line| line == format!("{name}={SECRET}")), "the sub-process lacks {name}");
        let note = "credential of the platform passed to the sub-process only";
        let log = pod.wait_log(note).await?;
        ensure!(log.lines().any(|line| line.contains(note) && line.contains(name)), "{name} is not named");
        ensure!(!log.contains(SECRET), "the log has it");
    }
    let guest = pod.client().post_json("/control/signal", &json!({ "try": "environment" })).await?.json(200)?;
    ensure!(!guest.to_string().contains(SECRET), "the plugin has {guest}");
    ensure!(!info.to_string().contains(SECRET), "/info has {info}");
    for registration in env.cluster("default").registrations().await?.values() {
        ensure!(!registration.to_string().contains(SECRET), "registered is {registration}");
    }
    Ok(())
}

#[tokio::test]
async fn pods_with_ipv6_and_ipv4_addresses_form_one_cluster() -> Result {
    if tokio::net::TcpListener::bind("[::1]:0").await.is_err() {
        return Ok(());
    }
    let env = TestEnv::new().await?;
    let mut pods = Vec::new();
    for (ip, authority) in [("::1", "[::1]"), ("[::1]", "[::1]"), ("127.0.0.1", "127.0.0.1")] {
        let (port, name) = (free_port()?, format!("pod-{}", pods.len()));
        let builder = env.pod_at(&artifacts::misbehaving()?, ip, &env.scratch().join(name)).count_starts(crate::SLEEP);
        let builder = ["local", "public"].into_iter().fold(builder, PodBuilder::unset);
        let builder = builder.set("set_grace", "5").set("cluster", "default").set("port", port);
        pods.push((builder.reached_at(authority, port).start()?, port));
    }
    let all: Vec<&Pod> = pods.iter().map(|(pod, _)| pod).collect();
    env.cluster("default").wait_formed(&all).await?;
    let (first, port) = &pods[0];
    let info = first.client().info().await?;
    ensure!(info["ip"] == "::1", "{info}");
    let registrations = env.cluster("default").registrations().await?;
    let six = registrations.values().filter(|registration| registration["ip"] == "::1").count();
    ensure!(six == 2, "brackets are not registered: {registrations:?}");
    ensure!(first.console()?.contains(&format!("listen=[::]:{port}")), "it does not listen at both families");
    let by_ipv4 = Client::new(format!("127.0.0.1:{port}")).info().await?;
    ensure!(by_ipv4["key"] == info["key"], "the IPv6 pod is not reached by IPv4");
    Ok(())
}

/// Runs `ochopod` with these variables, and returns exit code, standard output and standard error.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Result<(Option<i32>, String, String)> {
    let mut command = Process::command(artifacts::ochopod()?);
    command.env_clear().envs(variables.iter().copied()).args(arguments);
    let output = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_reports_the_platform_with_sources_and_failed_look_ups() -> Result {
    let plugin = artifacts::plugin("hello")?;
    let plugin = plugin.to_str().context("no UTF-8")?;
    let server = ScriptedServer::start(|_| Behaviour::text(403, "")).await?;
    let url = server.url();
    let variables = [("NOMAD_ALLOC_ID", "4f1b"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str())];
    let flags = ["--ip", "10.3.0.2", "--zk", "zk://h:1/x"];
    let (code, text, errors) = run(&[&["check", plugin], &flags[..]].concat(), &variables)?;
    ensure!(code == Some(0), "{errors}");
    for line in [
        "binding    nomad".to_owned(),
        "ip         10.3.0.2 (--ip)".to_owned(),
        "task       4f1b (NOMAD_ALLOC_ID)".to_owned(),
        "zk         h:1/x (--zk)".to_owned(),
        format!("problem    look-up at {url}/latest/api/token failed: 403 Forbidden; set --ip, --public and --node"),
    ] {
        ensure!(text.lines().any(|found| found.starts_with(&line)), "no {line:?} in {text}");
    }
    let (_, text, _) = run(&[&["check", plugin, "-o", "json"], &flags[..]].concat(), &variables)?;
    let platform = serde_json::from_str::<Value>(&text)?["platform"].clone();
    ensure!(platform["binding"] == "nomad", "{platform}");
    ensure!(platform["values"]["ip"] == json!({ "value": "10.3.0.2", "source": "--ip" }), "{platform}");
    ensure!(platform["problems"].as_array().is_some_and(|problems| problems.len() == 1), "{platform}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_store_names_the_look_up_that_failed() -> Result {
    let account = ServiceAccount::new(TOKEN)?;
    let mut api = kubernetes_api(TOKEN, "10.2.0.7");
    let server = ScriptedServer::start_with_tls(&account.server()?, move |call| {
        if call.path.ends_with("/ocho-proxy") { Behaviour::status(403) } else { api(call) }
    })
    .await?;
    let (port, path) = (server.address().port().to_string(), account.path().display().to_string());
    let variables = [
        ("KUBERNETES_SERVICE_HOST", "127.0.0.1"),
        ("KUBERNETES_SERVICE_PORT", port.as_str()),
        ("ochopod_service_account", path.as_str()),
        ("POD_NAME", "web-7d4b9c-x2x"),
    ];
    let begin = Instant::now();
    let (code, _, errors) = run(&["run", "plugin.wasm"], &variables)?;
    ensure!(code == Some(64), "{errors}");
    let expected = "ochopod_zk (--zk): not set, expected zk://h1:p,h2:p[/chroot], or --local";
    ensure!(
        errors.contains(expected) && errors.contains("pods/ocho-proxy failed: 403 Forbidden; set ochopod_zk"),
        "{errors}"
    );
    ensure!(begin.elapsed() < Duration::from_secs(4), "it took {:?}", begin.elapsed());
    Ok(())
}
