//! Who may read and write what a pod has in ZooKeeper, and how a pod is let in.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use ochopod_tests::{Authority, Pod, PodBuilder, Result, SOON, Site, ZooKeeper, eventually, steadily};
use zookeeper_client::{Acl, AuthId, Permission};

use crate::pod;

/// The password of everybody here: to be seen nowhere.
const PASSWORD: &str = "hunter2";

/// Where a user finds the site's ZooKeeper.
fn zk(site: &Site, user: &str) -> String {
    format!("zk://{user}:{PASSWORD}@{}", site.store().connect_string())
}

/// A pod with the credentials of a user.
fn pod_of(site: &Site, user: &str) -> PodBuilder {
    pod(site).set("zk", zk(site, user))
}

/// Makes the kit one of the users.
async fn know(site: &Site, user: &str) -> Result {
    site.store().authenticate(&format!("{user}:{PASSWORD}")).await
}

/// A file with a user's credentials, which nobody else may read.
fn credentials_file(site: &Site, user: &str) -> Result<String> {
    let file = site.scratch().join(format!("{user}.credentials"));
    fs::write(&file, format!("{user}:{PASSWORD}\n"))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    Ok(file.display().to_string())
}

async fn formed(site: &Site, pods: &[&Pod]) -> Result {
    site.cluster("default").formed(pods).await.map(drop)
}

/// The access lists of all nodes of the cluster `default` and above it, as long as they are the same for each kind.
async fn lists(site: &Site) -> Result<[Vec<String>; 3]> {
    let (cluster, store) = (site.cluster("default"), site.store());
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
    let own = ["hash", "view", "coordinator"].map(|node| cluster.path(node)).to_vec();
    let root = cluster.path("").trim_end_matches('/').to_owned();
    Ok([
        same(&["/ochopod".to_owned(), "/ochopod/clusters".to_owned()]).await?,
        same(&[cluster.path("pods"), cluster.path("snapshot"), registration]).await?,
        same(&[own, vec![root, lock]].concat()).await?,
    ])
}

#[tokio::test]
async fn without_credentials_everything_is_open() -> Result {
    let site = Site::new().await?;
    site.form(2, pod).await?;
    for list in lists(&site).await? {
        ensure!(list == ["world:anyone ALL"], "it is {list:?}");
    }
    Ok(())
}

#[tokio::test]
async fn with_credentials_the_cluster_is_its_own_and_a_stranger_gets_nowhere() -> Result {
    let site = Site::new().await?;
    know(&site, "web").await?;
    let _pods = site.form(2, |site| pod_of(site, "web")).await?;
    let [shared, read, own] = lists(&site).await?;
    ensure!(shared == ["digest:web ALL", "world:anyone READ|CREATE"], "parents have {shared:?}");
    ensure!(read == ["digest:web ALL"], "what dependants read has {read:?}");
    ensure!(own == ["digest:web ALL"], "the cluster has {own:?}");

    let (stranger, cluster) = (site.store().another().await?, site.cluster("default"));
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
async fn what_dependants_read_can_be_opened_to_the_world_but_not_for_writing() -> Result {
    let site = Site::new().await?;
    know(&site, "web").await?;
    let pods = site.form(1, |site| pod_of(site, "web").set("zk_read", "world")).await?;
    let [_, read, own] = lists(&site).await?;
    ensure!(read == ["digest:web ALL", "world:anyone READ"], "what dependants read has {read:?}");
    ensure!(own == ["digest:web ALL"], "the cluster has {own:?}");

    let (stranger, cluster) = (site.store().another().await?, site.cluster("default"));
    let name = stranger.children(&cluster.path("pods")).await?.pop().context("nobody is registered")?;
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
async fn credentials_come_from_a_file_and_are_seen_nowhere() -> Result {
    let site = Site::new().await?;
    know(&site, "web").await?;
    let file = credentials_file(&site, "web")?;
    let tell = "env; tr '\\0' '\\n' < /proc/$$/cmdline; exec sleep 86400";
    let secret = |site: &Site| pod(site).set("zk_credentials", &file).set("debug", "true").command(tell);
    let pods = site.form(1, secret).await?;
    let [_, _, own] = lists(&site).await?;
    ensure!(own == ["digest:web ALL"], "the cluster has {own:?}");
    let guest = pods[0].client().post_json("/control/signal", &serde_json::json!({ "try": "environment" })).await?;
    let registration = serde_json::to_string(&site.cluster("default").registrations().await?)?;
    let output = eventually("the sub-process tells its environment", SOON, async || {
        let output = pods[0].output()?;
        ensure!(output.contains("ochopod_cluster"), "it says {output}");
        Ok(output)
    })
    .await?;
    let log = pods[0].client().post("/log").await?.json(200)?.to_string();
    let info = pods[0].client().info().await?.to_string();
    let places = [output, registration, log, info, guest.json(200)?.to_string(), pods[0].console()?];
    for (place, text) in places.iter().enumerate() {
        ensure!(!text.contains(PASSWORD), "place {place} shows the password: {text}");
        ensure!(!text.contains(&file), "place {place} shows where the password is: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn credentials_in_two_places_are_bad_usage() -> Result {
    let site = Site::new().await?;
    let mut pod = pod_of(&site, "web").set("zk_credentials", credentials_file(&site, "web")?).start()?;
    ensure!(pod.exit_code().await? == 64, "it did not leave with code 64");
    let console = pod.console()?;
    ensure!(console.contains("ochopod_zk_credentials is ") && !console.contains(PASSWORD), "it said {console}");
    Ok(())
}

#[tokio::test]
async fn a_pod_that_an_access_list_keeps_out_leaves_and_says_where() -> Result {
    let site = Site::new().await?;
    know(&site, "web").await?;
    let first = pod_of(&site, "web").start()?;
    formed(&site, &[&first]).await?;
    for mut outsider in [pod_of(&site, "other").start()?, pod(&site).start()?] {
        let code = outsider.exit_code().await?;
        let console = outsider.console()?;
        ensure!(code == 69, "it left with code {code}: {console}");
        ensure!(console.contains("no access to /ochopod/clusters/marathon.default/"), "it said {console}");
        ensure!(!console.contains(PASSWORD), "it said {console}");
    }
    formed(&site, &[&first]).await
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
    ensure!(code == 69 && console.contains("refused the credentials"), "it left with code {code}: {console}");
    let known = start(format!("zk://web:{PASSWORD}@{}", server.address()))?;
    known.logs("registered as").await?;
    Ok(())
}

#[tokio::test]
async fn a_running_pod_outlives_an_access_list_that_shuts_it_out() -> Result {
    let site = Site::new().await?;
    know(&site, "web").await?;
    let pods = site.form(1, |site| pod_of(site, "web").set("session", "2")).await?;
    let (cluster, store) = (site.cluster("default"), site.store());
    let only_read = [Acl::new(Permission::READ | Permission::DELETE | Permission::ADMIN, AuthId::anyone())];
    store.set_access(&cluster.path("pods"), &only_read).await?;
    store.delete(&cluster.path(&format!("pods/{}", cluster.registered().await?[0]))).await?;
    pods[0].logs("no access to /ochopod/clusters/marathon.default/pods/").await?;
    steadily("it runs on", Duration::from_secs(2), async || {
        ensure!(pods[0].client().info().await?["process"] == "running", "its sub-process does not run");
        Ok(())
    })
    .await?;
    store.set_access(&cluster.path("pods"), &[Acl::new(Permission::ALL, AuthId::anyone())]).await?;
    eventually("it is registered again", SOON, async || {
        ensure!(cluster.registered().await?.len() == 1, "it is not");
        Ok(())
    })
    .await?;
    ensure!(pods[0].starts()?.len() == 1, "it was started again");
    Ok(())
}

#[tokio::test]
async fn a_cluster_that_was_open_before_stays_open_and_newcomers_say_so() -> Result {
    let site = Site::new().await?;
    know(&site, "web").await?;
    let first = pod(&site).start()?;
    formed(&site, &[&first]).await?;
    let second = pod_of(&site, "web").set("zk_read", "world").start()?;
    formed(&site, &[&first, &second]).await?;
    let console = second.console()?;
    let told: Vec<&str> = console.lines().filter(|line| line.contains("was there before")).collect();
    ensure!(told.len() == 4, "it told of {told:?}");
    for node in ["default ", "default/pods ", "default/coordinator ", "default/hash "] {
        ensure!(told.iter().any(|line| line.contains(node)), "it did not tell of {node:?}: {told:?}");
    }
    ensure!(first.logged("was there before")? == 0, "one without credentials has nothing to tell");
    Ok(())
}

#[tokio::test]
async fn parents_that_somebody_else_made_need_no_right_to_create_them() -> Result {
    let site = Site::new().await?;
    let store = site.store();
    store.create("/ochopod/clusters", b"", ochopod_tests::Kept::Always).await?;
    // Nobody may create in the chroot any more, nor in what is there already.
    store.set_access("/", &[Acl::new(Permission::READ, AuthId::anyone())]).await?;
    store.set_access("/ochopod", &[Acl::new(Permission::READ, AuthId::anyone())]).await?;
    know(&site, "web").await?;
    let pod = pod_of(&site, "web").start()?;
    formed(&site, &[&pod]).await
}

#[tokio::test]
async fn a_dependency_with_other_credentials_is_seen_when_it_opens_itself_to_the_world() -> Result {
    let site = Site::new().await?;
    let db = |name: &str| pod_of(&site, name).set("cluster", name);
    let closed = db("db-closed").start()?;
    let open = db("db-open").set("zk_read", "world").start()?;
    for (pod, name) in [(&closed, "db-closed"), (&open, "db-open")] {
        know(&site, name).await?;
        site.cluster(name).formed(&[pod]).await?;
    }
    know(&site, "web").await?;
    let web = pod_of(&site, "web").set("set_depends_on", "db-*").start()?;
    formed(&site, &[&web]).await?;
    let cluster = site.cluster("default");
    let view = cluster.store().json(&cluster.path("view")).await?;
    let seen = view["dependencies"]["db-*"].as_object().context("no dependency")?;
    let key = open.client().info().await?["key"].as_str().unwrap_or_default().to_owned();
    ensure!(seen.keys().collect::<Vec<_>>() == [&key], "seen are {seen:?}, not {key}");
    ensure!(web.logged("no access to /ochopod/clusters/marathon.db-closed/snapshot")? == 1, "it does not say so once");
    Ok(())
}

/// A server that speaks TLS with those whom its authority knows, and a site on it.
async fn secure() -> Result<(Site, Authority)> {
    let authority = Authority::new()?;
    let site = Site::on(Arc::new(ZooKeeper::secure(&authority).await?)).await?;
    Ok((site, authority))
}

/// A pod that speaks TLS, and trusts an authority.
fn secure_pod(site: &Site, host: &str, authority: &Path) -> Result<PodBuilder> {
    let plain = site.zookeeper().address().to_string();
    let chroot = site.store().connect_string().trim_start_matches(&plain);
    let port = site.zookeeper().secure_address()?.port();
    let zk = format!("zk://web:{PASSWORD}@{host}:{port}{chroot}");
    Ok(pod(site).set("zk", zk).set("zk_tls_ca", authority.display()).set("session", "2"))
}

#[tokio::test]
async fn zookeeper_is_spoken_with_by_tls_and_only_with_those_that_can_be_trusted() -> Result {
    let (site, authority) = secure().await?;
    know(&site, "web").await?;
    let own = authority.certify("pod", &["pod"])?;
    let with_own =
        |pod: PodBuilder| pod.set("zk_tls_cert", own.certificate.display()).set("zk_tls_key", own.key.display());
    let trusting = with_own(secure_pod(&site, "127.0.0.1", &authority.certificate())?).start()?;
    formed(&site, &[&trusting]).await?;

    let stranger = Authority::new()?;
    let apart = |pod: PodBuilder| pod.set("cluster", "apart");
    let cases = [
        (with_own(secure_pod(&site, "127.0.0.1", &stranger.certificate())?), "UnknownIssuer"),
        (with_own(secure_pod(&site, "localhost", &authority.certificate())?), "not valid for name"),
        (secure_pod(&site, "127.0.0.1", &authority.certificate())?, "cannot reach the store"),
    ];
    let mut pods = Vec::new();
    for (pod, complaint) in cases {
        pods.push((apart(pod).start()?, complaint));
    }
    for (pod, complaint) in &mut pods {
        let console = pod.logs(complaint).await?;
        ensure!(!console.contains(PASSWORD), "it said {console}");
        ensure!(pod.client().info().await?["session"] == "lost", "it has a session");
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for (pod, complaint) in &mut pods {
        ensure!(pod.is_up()?, "it gave up because of {complaint}");
        ensure!(pod.logged("cannot reach the store")? <= 3, "it says so again and again: {}", pod.console()?);
    }
    ensure!(site.store().children("/ochopod/clusters").await?.len() == 1, "somebody else got in");
    Ok(())
}

#[tokio::test]
async fn a_session_by_tls_outlives_a_short_outage() -> Result {
    let (site, authority) = secure().await?;
    know(&site, "web").await?;
    let own = authority.certify("pod", &["pod"])?;
    let pod = secure_pod(&site, "127.0.0.1", &authority.certificate())?.set("session", "20");
    let pod = pod.set("zk_tls_cert", own.certificate.display()).set("zk_tls_key", own.key.display()).start()?;
    formed(&site, &[&pod]).await?;
    let written = site.cluster("default").hash_written().await?;
    site.zookeeper().stop()?;
    pod.shows("session", "suspended").await?;
    site.zookeeper().start().await?;
    pod.shows("session", "connected").await?;
    formed(&site, &[&pod]).await?;
    ensure!(site.cluster("default").hash_written().await? == written, "it was configured again");
    Ok(())
}
