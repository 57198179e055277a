//! Tests of the kit itself.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use ochopod_tests::{
    Client, DEFAULT_TIMEOUT, Ensemble, NodeLifetime, Process, Result, TestEnv, ZkClient, ZooKeeper, alive,
    consistently, eventually, proxy::CatchPoint, redis,
};
use serde_json::json;

use crate::pod;

#[tokio::test]
async fn a_server_of_ones_own_keeps_its_data_until_it_is_wiped_and_leaves_nothing_behind() -> Result {
    let zookeeper = ZooKeeper::own().await?;
    let store = ZkClient::connect(&zookeeper.address().to_string(), "/kit").await?;
    store.create("/a/b", b"kept", NodeLifetime::Always).await?;
    zookeeper.stop()?;
    ensure!(zookeeper.four_letter("ruok").await.is_err(), "it answers when stopped");
    zookeeper.start().await?;
    ensure!(store.text("/a/b").await? == "kept", "the data is gone");
    zookeeper.freeze()?;
    eventually("it freezes", DEFAULT_TIMEOUT, async || {
        ensure!(zookeeper.four_letter("ruok").await.is_err(), "it answers");
        Ok(())
    })
    .await?;
    zookeeper.thaw()?;
    eventually("it continues", DEFAULT_TIMEOUT, async || store.text("/a/b").await).await?;
    zookeeper.stop()?;
    zookeeper.wipe()?;
    zookeeper.start().await?;
    let store = ZkClient::connect(&zookeeper.address().to_string(), "/kit").await?;
    ensure!(store.text("/a/b").await?.is_empty(), "the data is still there");
    let directory = zookeeper.directory().to_owned();
    drop(zookeeper);
    ensure!(!directory.exists(), "{} is left behind", directory.display());
    Ok(())
}

#[tokio::test]
async fn an_ensemble_serves_with_two_members_and_not_with_one() -> Result {
    let ensemble = Ensemble::start().await?;
    let [first, second, third] = ensemble.members() else { bail!("it has another size") };
    let store = ZkClient::connect(&ensemble.addresses(), "/kit").await?;
    store.create("/a", b"kept", NodeLifetime::Always).await?;
    first.stop()?;
    eventually("two serve", DEFAULT_TIMEOUT, async || store.set("/a", b"by two").await).await?;
    second.stop()?;
    eventually("one does not", DEFAULT_TIMEOUT, async || {
        let reply = third.four_letter("srvr").await?;
        ensure!(!reply.contains("\nMode: "), "it says {reply}");
        Ok(())
    })
    .await?;
    first.launch()?;
    second.launch()?;
    ensemble.serves().await?;
    eventually("all serve", DEFAULT_TIMEOUT, async || ensure_text(&store, "/a", "by two").await).await?;
    let directories: Vec<_> = ensemble.members().iter().map(|member| member.directory().to_owned()).collect();
    drop(ensemble);
    ensure!(directories.iter().all(|directory| !directory.exists()), "something is left in {directories:?}");
    Ok(())
}

async fn ensure_text(store: &ZkClient, path: &str, text: &str) -> Result {
    let found = store.text(path).await?;
    ensure!(found == text, "{path} holds {found:?}");
    Ok(())
}

#[tokio::test]
async fn tests_do_not_see_each_others_nodes() -> Result {
    let (one, other) = (TestEnv::new().await?, TestEnv::new().await?);
    one.store().create("/node", b"mine", NodeLifetime::Session).await?;
    ensure!(other.store().text("/node").await?.is_empty(), "it is seen from elsewhere");
    ensure!(one.port() != other.port(), "two tests have one port");
    Ok(())
}

#[tokio::test]
async fn a_fake_pod_registers_answers_and_records_requests() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let (first, second) = (cluster.fake_pod().await?, cluster.fake_pod().await?);
    ensure!(first.seq() < second.seq(), "{} is not before {}", first.seq(), second.seq());
    let registered = cluster.registrations().await?;
    ensure!(registered[first.key()]["seq"] == first.seq(), "registered is {registered:?}");
    let client = Client::new(format!("127.0.0.2:{}", env.port()));
    first.answer("check", 406);
    first.answer_next("check", 408);
    for code in [408, 406, 406] {
        client.post_json("/control/check/7", &json!({ "key": "k" })).await?.error(code)?;
    }
    client.post("/control/on").await?.json(200)?;
    let request = first.last("check")?;
    ensure!(request.limit == "7" && request.body["key"] == "k", "it remembers {request:?}");
    ensure!(second.tasks().is_empty(), "the other one received a request");
    first.leave().await?;
    ensure!(cluster.registered().await?.len() == 1, "it is still registered");
    drop(second);
    eventually("a dropped one is not registered", DEFAULT_TIMEOUT, async || {
        let left = cluster.registered().await?;
        ensure!(left.is_empty(), "registered are {left:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn leaders_made_of_the_kit_have_growing_epochs() -> Result {
    let env = TestEnv::new().await?;
    let cluster = env.cluster("default");
    let (first, second) = (cluster.lead().await?, cluster.lead().await?);
    ensure!(first.epoch() < second.epoch(), "{} is not before {}", first.epoch(), second.epoch());
    ensure!(cluster.contenders().await?.len() == 2, "contenders are {:?}", cluster.contenders().await?);
    first.resign().await?;
    ensure!(cluster.contenders().await?.len() == 1, "contenders are {:?}", cluster.contenders().await?);
    Ok(())
}

#[tokio::test]
async fn a_dropped_process_takes_its_group_along() -> Result {
    let scratch = tempfile::tempdir()?;
    let mut command = Process::command("sh");
    command.args(["-c", "sleep 1000 & echo $! > child; wait"]).current_dir(scratch.path());
    let process = Process::spawn("a shell", command)?;
    let child = eventually("the child is there", DEFAULT_TIMEOUT, async || {
        Ok(std::fs::read_to_string(scratch.path().join("child"))?.trim().parse()?)
    })
    .await?;
    ensure!(alive(process.pid()) && alive(child), "they do not live");
    drop(process);
    eventually("both end", DEFAULT_TIMEOUT, async || {
        ensure!(!alive(child), "the child lives");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn waiting_reports_the_condition_and_the_last_error() -> Result {
    let waited = eventually("the moon is blue", Duration::from_millis(50), async || -> Result { bail!("it is white") });
    let text = format!("{:#}", waited.await.err().context("no error")?);
    ensure!(text.contains("the moon is blue") && text.contains("it is white"), "unexpected error {text}");
    let mut times = 0;
    let held = consistently("three times", DEFAULT_TIMEOUT, async || {
        times += 1;
        ensure!(times < 3, "it is the third time");
        Ok(())
    });
    ensure!(held.await.is_err(), "it held");
    Ok(())
}

#[tokio::test]
async fn replies_of_redis_are_read() -> Result {
    let port = ochopod_tests::free_port()?;
    let mut command = Process::command("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]);
    command.stdout(std::process::Stdio::null());
    let _server = Process::spawn("redis", command)?;
    let address = format!("127.0.0.1:{port}");
    eventually("it answers", DEFAULT_TIMEOUT, async || redis::request(&address, &["PING"]).await).await?;
    ensure!(redis::request(&address, &["SET", "k", "a b"]).await? == "OK", "SET");
    ensure!(redis::request(&address, &["GET", "k"]).await? == "a b", "GET");
    ensure!(redis::request(&address, &["GET", "none"]).await?.is_empty(), "GET of nothing");
    ensure!(redis::request(&address, &["NONSENSE"]).await.is_err(), "an error");
    ensure!(redis::info(&address, "replication").await?["role"] == "master", "INFO");
    Ok(())
}

#[tokio::test]
async fn pods_go_through_proxies_to_the_store_and_to_each_other() -> Result {
    let env = TestEnv::new().await?;
    let (store, through) = env.proxy().await?;
    let (proxied, control) = pod(&env).set("zk", through).proxied().await?;
    let committed = store.intercept(CatchPoint::Request, |message| message.creates("/pods/"));
    let configured = control.intercept(CatchPoint::Reply, |message| message.posts("on"));
    let one = proxied.start()?;
    let caught = committed.caught().await?;
    ensure!(env.cluster("default").registered().await?.is_empty(), "it is registered");
    caught.pass();
    let caught = configured.caught().await?;
    one.started(1).await?;
    ensure!(env.cluster("default").hash().await?.starts_with("pending:"), "the rollout is done");
    caught.pass();
    env.cluster("default").wait_formed(&[&one]).await?;
    Ok(())
}

#[tokio::test]
async fn a_server_is_shared_by_all_tests() -> Result {
    let (one, other) = (ZooKeeper::shared().await?, ZooKeeper::shared().await?);
    ensure!(Arc::ptr_eq(&one, &other), "there are two");
    Ok(())
}
