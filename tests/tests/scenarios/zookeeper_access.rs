//! Access to a pod's nodes in ZooKeeper, and credentials of pods.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use ochopod_tests::{
    CertificateAuthority, DEFAULT_TIMEOUT, Pod, PodBuilder, Result, TestEnv, ZooKeeper, consistently, eventually,
};
use zookeeper_client::{Acl, AuthId, Permission};

use crate::pod;

/// The password of all users here: must not be visible.
const PASSWORD: &str = "hunter2";

/// Address of the test's ZooKeeper for a user.
fn zk(env: &TestEnv, user: &str) -> String {
    format!("zk://{user}:{PASSWORD}@{}", env.store().connect_string())
}

/// Returns a pod with the credentials of a user.
fn pod_of(env: &TestEnv, user: &str) -> PodBuilder {
    pod(env).set("zk", zk(env, user))
}

/// Authenticates the kit as one of the users.
async fn know(env: &TestEnv, user: &str) -> Result {
    env.store().authenticate(&format!("{user}:{PASSWORD}")).await
}

/// Writes a file with a user's credentials, which no other user may read.
fn credentials_file(env: &TestEnv, user: &str) -> Result<String> {
    let file = env.scratch().join(format!("{user}.credentials"));
    fs::write(&file, format!("{user}:{PASSWORD}\n"))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    Ok(file.display().to_string())
}

async fn wait_formed(env: &TestEnv, pods: &[&Pod]) -> Result {
    env.cluster("default").wait_formed(pods).await.map(drop)
}

/// Returns the access lists of all nodes of the cluster `default` and above it, as long as they are the same for each
/// kind.
async fn lists(env: &TestEnv) -> Result<[Vec<String>; 3]> {
    let (cluster, store) = (env.cluster("default"), env.store());
    let same = async |paths: &[String]| -> Result<Vec<String>> {
        let first = store.access(&paths[0]).await?;
        for path in paths {
            let list = store.access(path).await?;
            ensure!(list == first, "{path} has {list:?}, {} has {first:?}", paths[0]);
        }
        Ok(first)
    };
    let registration = cluster.path(&format!("pods/{}", cluster.registered().await?[0]));
    let lock = cluster.path(&format!("coordinator/{}", cluster.contenders().await?[0]));
    let own = ["hash", "view", "coordinator", "states"].map(|node| cluster.path(node)).to_vec();
    let root = cluster.path("").trim_end_matches('/').to_owned();
    Ok([
        same(&["/ochopod".to_owned(), "/ochopod/clusters".to_owned()]).await?,
        same(&[cluster.path("pods"), cluster.path("snapshot"), registration]).await?,
        same(&[own, vec![root, lock]].concat()).await?,
    ])
}

#[tokio::test]
async fn without_credentials_everything_is_open() -> Result {
    let env = TestEnv::new().await?;
    let _pods = env.start_cluster(2, pod).await?;
    for list in lists(&env).await? {
        ensure!(list == ["world:anyone ALL"], "it is {list:?}");
    }
    Ok(())
}

#[tokio::test]
async fn with_credentials_the_cluster_is_private_and_other_clients_are_denied() -> Result {
    let env = TestEnv::new().await?;
    know(&env, "web").await?;
    let _pods = env.start_cluster(2, |env| pod_of(env, "web")).await?;
    let [shared, read, own] = lists(&env).await?;
    ensure!(shared == ["digest:web ALL", "world:anyone READ|CREATE"], "parents have {shared:?}");
    ensure!(read == ["digest:web ALL"], "what dependants read has {read:?}");
    ensure!(own == ["digest:web ALL"], "the cluster has {own:?}");

    let (stranger, cluster) = (env.store().another().await?, env.cluster("default"));
    ensure!(!stranger.children("/ochopod/clusters").await?.is_empty(), "clusters are listed");
    for node in ["pods", "coordinator"] {
        ensure!(stranger.children(&cluster.path(node)).await.is_err(), "a stranger lists {node}");
    }
    for node in ["snapshot", "hash", "view"] {
        ensure!(stranger.text(&cluster.path(node)).await.is_err(), "a stranger reads {node}");
        ensure!(stranger.set(&cluster.path(node), b"{}").await.is_err(), "a stranger writes {node}");
    }
    ensure!(stranger.delete(&cluster.path("hash")).await.is_err(), "a stranger deletes");
    Ok(())
}

#[tokio::test]
async fn nodes_of_dependants_can_be_opened_for_reading_but_not_for_writing() -> Result {
    let env = TestEnv::new().await?;
    know(&env, "web").await?;
    let pods = env.start_cluster(1, |env| pod_of(env, "web").set("zk_read", "world")).await?;
    let [_, read, own] = lists(&env).await?;
    ensure!(read == ["digest:web ALL", "world:anyone READ"], "what dependants read has {read:?}");
    ensure!(own == ["digest:web ALL"], "the cluster has {own:?}");

    let (stranger, cluster) = (env.store().another().await?, env.cluster("default"));
    let name = stranger.children(&cluster.path("pods")).await?.pop().context("no pod is registered")?;
    let key = pods[0].client().info().await?["key"].clone();
    ensure!(name.starts_with(key.as_str().context("no key")?), "registered is {name}, not {key}");
    ensure!(stranger.json(&cluster.path(&format!("pods/{name}"))).await?["seq"].is_u64(), "no registration");
    ensure!(stranger.json(&cluster.path("snapshot")).await?.is_object(), "no snapshot");
    ensure!(stranger.set(&cluster.path("snapshot"), b"{}").await.is_err(), "a stranger writes the snapshot");
    ensure!(stranger.delete(&cluster.path(&format!("pods/{name}"))).await.is_err(), "a stranger unregisters pods");
    ensure!(stranger.text(&cluster.path("hash")).await.is_err(), "a stranger reads the hash");
    Ok(())
}

#[tokio::test]
async fn credentials_are_read_from_a_file_and_never_shown() -> Result {
    let env = TestEnv::new().await?;
    know(&env, "web").await?;
    let file = credentials_file(&env, "web")?;
    let print = "env; tr '\\0' '\\n' < /proc/$$/cmdline; echo answer $((40 + 2)); exec sleep 86400";
    let secret = |env: &TestEnv| pod(env).set("zk_credentials", &file).set("debug", "true").command(print);
    let pods = env.start_cluster(1, secret).await?;
    let [_, _, own] = lists(&env).await?;
    ensure!(own == ["digest:web ALL"], "the cluster has {own:?}");
    let guest = pods[0].client().post_json("/control/signal", &serde_json::json!({ "try": "environment" })).await?;
    let registration = serde_json::to_string(&env.cluster("default").registrations().await?)?;
    let output = eventually("the sub-process prints its environment", DEFAULT_TIMEOUT, async || {
        let output = pods[0].output()?;
        ensure!(output.contains("ochopod_cluster") && output.contains("answer 42"), "unexpected output {output}");
        Ok(output)
    })
    .await?;
    let log = pods[0].client().post("/log").await?.json(200)?.to_string();
    let info = pods[0].client().info().await?.to_string();
    let places = [output, registration, log, info, guest.json(200)?.to_string(), pods[0].console()?];
    for (place, text) in places.iter().enumerate() {
        ensure!(!text.contains(PASSWORD), "output {place} shows the password: {text}");
        ensure!(!text.contains(&file), "output {place} shows the file of the password: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn credentials_in_two_settings_are_invalid_usage() -> Result {
    let env = TestEnv::new().await?;
    let mut pod = pod_of(&env, "web").set("zk_credentials", credentials_file(&env, "web")?).start()?;
    ensure!(pod.exit_code().await? == 64, "it did not exit with code 64");
    let console = pod.console()?;
    ensure!(console.contains("ochopod_zk_credentials: ") && !console.contains(PASSWORD), "unexpected output {console}");
    Ok(())
}

#[tokio::test]
async fn a_pod_that_an_access_list_denies_exits_and_names_the_node() -> Result {
    let env = TestEnv::new().await?;
    know(&env, "web").await?;
    let first = pod_of(&env, "web").start()?;
    wait_formed(&env, &[&first]).await?;
    for mut outsider in [pod_of(&env, "other").start()?, pod(&env).start()?] {
        let code = outsider.exit_code().await?;
        let console = outsider.console()?;
        ensure!(code == 69, "it left with code {code}: {console}");
        ensure!(console.contains("access to /ochopod/clusters/marathon.default/"), "unexpected output {console}");
        ensure!(!console.contains(PASSWORD), "unexpected output {console}");
    }
    wait_formed(&env, &[&first]).await
}

#[tokio::test]
async fn credentials_that_the_server_refuses_end_the_host() -> Result {
    let enforce = ["-Dzookeeper.enforce.auth.enabled=true", "-Dzookeeper.enforce.auth.schemes=digest"];
    let server = ZooKeeper::with(&enforce).await?;
    let scratch = tempfile::tempdir()?;
    let start = |zk: String| {
        PodBuilder::new(&ochopod_tests::artifacts::misbehaving()?, scratch.path())
            .set("zk", zk)
            .set("local", "true")
            .set("listen", "127.0.0.2:0")
            .start()
    };
    let mut stranger = start(server.address().to_string())?;
    let code = stranger.exit_code().await?;
    let console = stranger.console()?;
    ensure!(code == 69 && console.contains("authentication failed"), "it left with code {code}: {console}");
    let known = start(format!("zk://web:{PASSWORD}@{}", server.address()))?;
    known.wait_log("registered path=").await?;
    Ok(())
}

#[tokio::test]
async fn a_running_pod_outlives_an_access_list_that_shuts_it_out() -> Result {
    let env = TestEnv::new().await?;
    know(&env, "web").await?;
    let pods = env.start_cluster(1, |env| pod_of(env, "web").set("session", "2").set("zk_strict", "false")).await?;
    let (cluster, store) = (env.cluster("default"), env.store());
    let only_read = [Acl::new(Permission::READ | Permission::DELETE | Permission::ADMIN, AuthId::anyone())];
    store.set_access(&cluster.path("pods"), &only_read).await?;
    store.delete(&cluster.path(&format!("pods/{}", cluster.registered().await?[0]))).await?;
    pods[0].wait_log("access to /ochopod/clusters/marathon.default/pods/").await?;
    consistently("it runs on", Duration::from_secs(2), async || {
        ensure!(pods[0].client().info().await?["process"] == "running", "its sub-process does not run");
        Ok(())
    })
    .await?;
    store.set_access(&cluster.path("pods"), &[Acl::new(Permission::ALL, AuthId::anyone())]).await?;
    eventually("it is registered again", DEFAULT_TIMEOUT, async || {
        ensure!(cluster.registered().await?.len() == 1, "not one registration");
        Ok(())
    })
    .await?;
    ensure!(pods[0].starts()?.len() == 1, "it was started again");
    Ok(())
}

#[tokio::test]
async fn an_open_cluster_stays_open_for_pods_that_accept_it_and_new_pods_report_it() -> Result {
    let env = TestEnv::new().await?;
    know(&env, "web").await?;
    let first = pod(&env).start()?;
    wait_formed(&env, &[&first]).await?;
    let second = pod_of(&env, "web").set("zk_read", "world").set("zk_strict", "false").start()?;
    wait_formed(&env, &[&first, &second]).await?;
    let lines = eventually("the newcomer reports it", DEFAULT_TIMEOUT, async || {
        let console = second.console()?;
        let lines = console.lines().filter(|line| line.contains("existing node keeps an ACL")).map(str::to_owned);
        let lines: Vec<String> = lines.collect();
        ensure!(lines.len() == 5, "it reported {lines:?}");
        Ok(lines)
    })
    .await?;
    for node in ["default\"", "default/pods\"", "default/coordinator\"", "default/states\"", "default/hash\""] {
        ensure!(lines.iter().any(|line| line.contains(node)), "it did not name {node:?}: {lines:?}");
    }
    ensure!(first.count_log("existing node keeps an ACL")? == 0, "one without credentials reported it");
    Ok(())
}

#[tokio::test]
async fn parents_of_another_client_need_no_right_to_create_them() -> Result {
    let env = TestEnv::new().await?;
    let store = env.store();
    store.create("/ochopod/clusters", b"", ochopod_tests::NodeLifetime::Always).await?;
    let shared = Acl::new(Permission::READ | Permission::CREATE, AuthId::anyone());
    store.set_access("/ochopod/clusters", &[shared]).await?;
    // No user may create in the chroot any longer, nor in existing nodes.
    store.set_access("/", &[Acl::new(Permission::READ, AuthId::anyone())]).await?;
    store.set_access("/ochopod", &[Acl::new(Permission::READ, AuthId::anyone())]).await?;
    know(&env, "web").await?;
    let pod = pod_of(&env, "web").start()?;
    wait_formed(&env, &[&pod]).await
}

#[tokio::test]
async fn a_dependency_with_other_credentials_is_seen_when_it_opens_itself_to_the_world() -> Result {
    let env = TestEnv::new().await?;
    let db = |name: &str| pod_of(&env, name).set("cluster", name);
    let closed = db("db-closed").start()?;
    let open = db("db-open").set("zk_read", "world").start()?;
    for (pod, name) in [(&closed, "db-closed"), (&open, "db-open")] {
        know(&env, name).await?;
        env.cluster(name).wait_formed(&[pod]).await?;
    }
    know(&env, "web").await?;
    let web = pod_of(&env, "web").set("set_depends_on", "db-*").start()?;
    wait_formed(&env, &[&web]).await?;
    let cluster = env.cluster("default");
    let view = cluster.store().json(&cluster.path("view")).await?;
    let seen = view["dependencies"]["db-*"].as_object().context("no dependency")?;
    let key = open.client().info().await?["key"].as_str().unwrap_or_default().to_owned();
    ensure!(seen.keys().collect::<Vec<_>>() == [&key], "seen are {seen:?}, not {key}");
    web.wait_log("dependency not readable with this pod's credentials").await?;
    ensure!(web.count_log("dependency not readable with this pod's credentials")? == 1, "it does not say so once");
    Ok(())
}

/// Returns the commands for `zkCli.sh` in a line of a log.
fn repair(console: &str) -> Result<Vec<String>> {
    let (_, advice) = console.split_once("and enter: ").context("no command in the message")?;
    let (commands, _) = advice.split_once(" (or accept").context("the command does not end")?;
    Ok(commands.split("; ").map(|command| command.replace("USER:PASSWORD", &format!("web:{PASSWORD}"))).collect())
}

/// Runs commands in the real `zkCli.sh`.
async fn in_zkcli(env: &TestEnv, commands: &[String]) -> Result {
    let script = env.scratch().join("commands");
    fs::write(&script, format!("{}\nquit\n", commands.join("\n")))?;
    let address = env.zookeeper().address().to_string();
    let mut cli = std::process::Command::new("/usr/share/zookeeper/bin/zkCli.sh");
    cli.args(["-server", &address]).stdin(fs::File::open(script)?);
    let output = tokio::task::spawn_blocking(move || cli.output()).await??;
    ensure!(output.status.success(), "zkCli.sh said {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::test]
async fn nodes_of_other_clients_are_rejected_until_the_logged_command_has_repaired_them() -> Result {
    let env = TestEnv::new().await?;
    know(&env, "web").await?;
    let stranger = pod(&env).start()?;
    wait_formed(&env, &[&stranger]).await?;
    drop(stranger);
    let mut refused = pod_of(&env, "web").start()?;
    ensure!(refused.exit_code().await? == 69, "it did not exit with code 69");
    let console = refused.console()?;
    let root = env.store().chroot();
    for node in ["", "/clusters", "/clusters/marathon.default", "/clusters/marathon.default/hash"] {
        ensure!(console.contains(&format!("{root}/ochopod{node} grants ")), "{node:?} is not reported: {console}");
    }
    ensure!(!console.contains(PASSWORD), "unexpected output {console}");

    in_zkcli(&env, &repair(&console)?).await?;
    let accepted = pod_of(&env, "web").start()?;
    wait_formed(&env, &[&accepted]).await?;
    let [shared, _, own] = lists(&env).await?;
    ensure!(shared == ["digest:web ALL", "world:anyone READ|CREATE"], "parents have {shared:?}");
    ensure!(own == ["digest:web ALL"], "the cluster has {own:?}");
    Ok(())
}

#[tokio::test]
async fn a_pod_that_runs_is_not_registered_among_nodes_that_others_may_change_and_runs_on() -> Result {
    let env = TestEnv::new().await?;
    know(&env, "web").await?;
    let pods = env.start_cluster(1, |env| pod_of(env, "web").set("session", "2")).await?;
    let (cluster, store) = (env.cluster("default"), env.store());
    let everybodys = Acl::new(Permission::ALL, AuthId::anyone());
    store.set_access(&cluster.path("pods"), &[everybodys]).await?;
    store.delete(&cluster.path(&format!("pods/{}", cluster.registered().await?[0]))).await?;
    let console = pods[0].wait_log("marathon.default/pods grants ").await?;
    consistently("it runs on, unregistered", Duration::from_secs(2), async || {
        ensure!(pods[0].client().info().await?["process"] == "running", "its sub-process does not run");
        ensure!(cluster.registered().await?.is_empty(), "it is registered");
        Ok(())
    })
    .await?;
    in_zkcli(&env, &repair(&console)?).await?;
    eventually("it is registered again", DEFAULT_TIMEOUT, async || {
        ensure!(cluster.registered().await?.len() == 1, "not one registration");
        Ok(())
    })
    .await?;
    ensure!(pods[0].starts()?.len() == 1, "it was started again");
    Ok(())
}

/// Returns a server that uses TLS with clients certified by its authority, and an environment on it.
async fn secure() -> Result<(TestEnv, CertificateAuthority)> {
    let authority = CertificateAuthority::new()?;
    let env = TestEnv::with_zookeeper(Arc::new(ZooKeeper::secure(&authority).await?)).await?;
    Ok((env, authority))
}

/// Returns a pod that uses TLS, and trusts an authority.
fn secure_pod(env: &TestEnv, host: &str, authority: &Path) -> Result<PodBuilder> {
    let plain = env.zookeeper().address().to_string();
    let chroot = env.store().connect_string().trim_start_matches(&plain);
    let port = env.zookeeper().secure_address()?.port();
    let zk = format!("zk://web:{PASSWORD}@{host}:{port}{chroot}");
    Ok(pod(env).set("zk", zk).set("zk_tls_ca", authority.display()).set("session", "2"))
}

#[tokio::test]
async fn zookeeper_is_spoken_with_by_tls_and_only_with_those_that_can_be_trusted() -> Result {
    let (env, authority) = secure().await?;
    know(&env, "web").await?;
    let own = authority.certify("pod", &["pod"])?;
    let with_own =
        |pod: PodBuilder| pod.set("zk_tls_cert", own.certificate.display()).set("zk_tls_key", own.key.display());
    let trusting = with_own(secure_pod(&env, "127.0.0.1", &authority.certificate())?).start()?;
    wait_formed(&env, &[&trusting]).await?;

    let stranger = CertificateAuthority::new()?;
    let apart = |pod: PodBuilder| pod.set("cluster", "apart");
    let cases = [
        (with_own(secure_pod(&env, "127.0.0.1", &stranger.certificate())?), "UnknownIssuer"),
        (with_own(secure_pod(&env, "localhost", &authority.certificate())?), "not valid for name"),
        (secure_pod(&env, "127.0.0.1", &authority.certificate())?, "coordination store unreachable"),
    ];
    let mut pods = Vec::new();
    for (pod, complaint) in cases {
        pods.push((apart(pod).start()?, complaint));
    }
    for (pod, complaint) in &mut pods {
        let console = pod.wait_log(complaint).await?;
        ensure!(!console.contains(PASSWORD), "unexpected output {console}");
        ensure!(pod.client().info().await?["session"] == "lost", "it has a session");
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for (pod, complaint) in &mut pods {
        ensure!(pod.is_up()?, "it exited because of {complaint}");
        ensure!(
            pod.count_log("coordination store unreachable")? <= 3,
            "it says so again and again: {}",
            pod.console()?
        );
    }
    ensure!(env.store().children("/ochopod/clusters").await?.len() == 1, "another client registered");
    Ok(())
}

#[tokio::test]
async fn a_session_by_tls_outlives_a_short_outage() -> Result {
    let (env, authority) = secure().await?;
    know(&env, "web").await?;
    let own = authority.certify("pod", &["pod"])?;
    let pod = secure_pod(&env, "127.0.0.1", &authority.certificate())?.set("session", "20");
    let pod = pod.set("zk_tls_cert", own.certificate.display()).set("zk_tls_key", own.key.display()).start()?;
    wait_formed(&env, &[&pod]).await?;
    let written = env.cluster("default").hash_written().await?;
    env.zookeeper().stop()?;
    pod.wait_info("session", "suspended").await?;
    env.zookeeper().start().await?;
    pod.wait_info("session", "connected").await?;
    wait_formed(&env, &[&pod]).await?;
    ensure!(env.cluster("default").hash_written().await? == written, "it was configured again");
    Ok(())
}
