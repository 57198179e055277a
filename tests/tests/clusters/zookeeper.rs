//! The zookeeper plugin with real servers: an ensemble of pods forms, grows, shrinks, loses servers, and keeps its data.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use ochopod_tests::{NodeLifetime, ZkClient};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use super::*;

/// Time for pods that start one after the other, each with a Java machine of its own.
const LIMIT: Duration = Duration::from_mins(3);
/// Time in which a write is repeated: the servers may elect another leader meanwhile.
const WRITE_LIMIT: Duration = Duration::from_secs(20);
const JAVA: &str = "-Xmx96m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData";
const JAAS: &str = "\
    Server { org.apache.zookeeper.server.auth.DigestLoginModule required user_super=\"of-the-test\"; };\n\
    Client { org.apache.zookeeper.server.auth.DigestLoginModule required username=\"super\" password=\"of-the-test\"; };\n";

/// The pods of one ensemble.
struct Servers {
    clusters: Clusters,
    client: u16,
    quorum: u16,
    election: u16,
}

impl Servers {
    async fn new() -> Result<Self> {
        let clusters = Clusters::new().await?;
        fs::write(clusters.env.scratch().join("jaas.conf"), JAAS)?;
        Ok(Self { clusters, client: free_port()?, quorum: free_port()?, election: free_port()? })
    }

    /// Completes a pod.
    fn complete(&self, pod: PodBuilder) -> PodBuilder {
        let jaas = self.clusters.env.scratch().join("jaas.conf");
        let pod = pod.set("zookeeper_jaas", jaas.display()).set("zookeeper_java", JAVA).set("zookeeper_tick", "500");
        let ports = [("PORT_2181", self.client), ("PORT_2888", self.quorum), ("PORT_3888", self.election)];
        let pod = ports.into_iter().fold(pod, |pod, (name, port)| pod.env(name, port));
        pod.set("session", "5").set("set_probe_every", "10").flags(["--net", "peers", "--run", "java"])
    }

    fn start(&self, count: usize) -> Result<Vec<Pod>> {
        (0..count).map(|_| self.complete(self.clusters.pod("zookeeper", "ensemble")?).start()).collect()
    }

    /// Starts a pod at the address of an earlier one, with its data.
    fn start_again(&self, address: &str, home: &Path) -> Result<Pod> {
        self.again(address, home)?.start()
    }

    fn again(&self, address: &str, home: &Path) -> Result<PodBuilder> {
        let directory = self.clusters.directory("zookeeper")?.display().to_string();
        let plugin = artifacts::plugin("zookeeper")?;
        let again = self.clusters.env.pod_at(&plugin, address, home).set("cluster", "ensemble");
        let again = again.set("zookeeper_dir", &directory).flags(["--dir", &format!("{directory}::/data")]);
        Ok(self.complete(again.set("set_check_every", "1")))
    }

    /// Returns the directory of a pod's server.
    fn files(&self, pod: &Pod) -> Result<PathBuf> {
        Ok(self.clusters.directory("zookeeper")?.join(format!("zookeeper-{}-{}", pod.address(), self.quorum)))
    }

    /// Forms an ensemble with data, and kills all of its pods.
    async fn killed(&self) -> Result<(Vec<Pod>, Vec<u64>)> {
        let mut pods = self.start(3)?;
        self.serve(&pods).await?;
        let voters = self.voters(&pods[0]).await?;
        self.store(&pods[0]).await?.create("/number", b"7", NodeLifetime::Always).await?;
        for pod in &mut pods {
            pod.kill9().await?;
        }
        Ok((pods, voters))
    }

    async fn store(&self, pod: &Pod) -> Result<ZkClient> {
        ZkClient::connect(&format!("{}:{}", pod.address(), self.client), "/test").await
    }

    /// Starts the last pod again, which becomes the leader, and then the others. Its server is started last.
    async fn restart(&self, pods: &[Pod]) -> Result<Vec<Pod>> {
        // All of them are configured together.
        let start = |pod: &Pod| self.again(pod.address(), pod.directory())?.set("set_damper", "5").start();
        let (last, others) = pods.split_last().context("no pods")?;
        let mut again = vec![start(last)?];
        has_status(&again, "view has 1 of 3 servers").await?;
        for (position, pod) in others.iter().enumerate() {
            again.insert(position, start(pod)?);
        }
        Ok(again)
    }

    /// Asks a server one of its words.
    async fn word(&self, pod: &Pod, word: &str) -> Result<String> {
        let exchange = async {
            let mut stream = TcpStream::connect((pod.address(), self.client)).await?;
            stream.write_all(word.as_bytes()).await?;
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await?;
            anyhow::Ok(reply)
        };
        tokio::time::timeout(Duration::from_secs(2), exchange).await?
    }

    /// Waits until these pods are the ensemble: all run and vote, and one leads.
    async fn serve(&self, pods: &[Pod]) -> Result {
        let size = pods.len();
        let begin = format!("{size} of {size} servers, leader #");
        let end = format!(", {} follower{} synced", size - 1, if size == 2 { "" } else { "s" });
        eventually(&format!("{size} servers are the ensemble"), LIMIT, async || {
            let mut states = Vec::new();
            let mut texts = Vec::new();
            for pod in pods {
                let mntr = self.word(pod, "mntr").await?;
                let value = |key: &str| {
                    mntr.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned())
                };
                let state = value("zk_server_state").with_context(|| format!("{}: {mntr}", pod.address()))?;
                let info = pod.client().info().await?;
                ensure!(info["metrics"]["role"] == *state, "{} is {state}: {}", pod.address(), info["metrics"]);
                ensure!(
                    value("zk_quorum_size") == Some(size.to_string()),
                    "{:?} servers vote",
                    value("zk_quorum_size")
                );
                states.push(state);
                texts.push(info["status"].as_str().unwrap_or_default().to_owned());
            }
            states.sort();
            ensure!(states.last().is_some_and(|state| state == "leader"), "the states are {states:?}");
            ensure!(
                states.iter().filter(|state| *state == "follower").count() == size - 1,
                "the states are {states:?}"
            );
            let expected = |text: &String| text.starts_with(&begin) && text.ends_with(&end);
            ensure!(texts.iter().any(expected), "the statuses are {texts:?}");
            Ok(())
        })
        .await
    }

    /// Ids of the voters, as one server has them.
    async fn voters(&self, pod: &Pod) -> Result<Vec<u64>> {
        let client = ZkClient::connect(&format!("{}:{}", pod.address(), self.client), "/test").await?;
        let (data, _) = client
            .client()
            .clone()
            .chroot("/".to_owned())
            .ok()
            .context("no root")?
            .get_data("/zookeeper/config")
            .await?;
        let text = String::from_utf8(data)?;
        let id = |line: &str| line.strip_prefix("server.")?.split_once('=')?.0.parse().ok();
        let mut ids: Vec<u64> = text.lines().filter_map(id).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Waits until these are the ids of the voters: a server counts them a moment before its clients see them.
    async fn vote(&self, pod: &Pod, expected: &[u64]) -> Result {
        eventually(&format!("the voters are {expected:?}"), WRITE_LIMIT, async || {
            let voters = self.voters(pod).await?;
            ensure!(voters == expected, "they are {voters:?}");
            Ok(())
        })
        .await
    }

    /// Starts to write numbers, through any of the first pods.
    async fn write(&self) -> Result<Writer> {
        let addresses: Vec<String> = (2..10).map(|host| format!("127.0.0.{host}:{}", self.client)).collect();
        let store = ZkClient::connect(&addresses.join(","), "/test").await?;
        store.create("/number", b"0", NodeLifetime::Always).await?;
        let record = Arc::new(Mutex::new(Record::default()));
        let task = tokio::spawn(write(store.clone(), Arc::clone(&record)));
        Ok(Writer { store, record, task })
    }
}

#[derive(Debug, Default)]
struct Record {
    written: u64,
    longest: Duration,
    failures: Vec<String>,
    stop: bool,
}

struct Writer {
    store: ZkClient,
    record: Arc<Mutex<Record>>,
    task: JoinHandle<()>,
}

fn locked(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write(store: ZkClient, record: Arc<Mutex<Record>>) {
    for number in 1_u64.. {
        let begin = Instant::now();
        let result = loop {
            match store.set("/number", number.to_string().as_bytes()).await {
                Err(_) if begin.elapsed() < WRITE_LIMIT => tokio::time::sleep(Duration::from_millis(20)).await,
                result => break result,
            }
        };
        let mut record = locked(&record);
        record.longest = record.longest.max(begin.elapsed());
        match result {
            Ok(()) => record.written = number,
            Err(error) => record.failures.push(format!("write {number}: {error:#}")),
        }
        if record.stop {
            return;
        }
    }
}

impl Writer {
    /// Checks that writes succeeded so far, and continue to.
    async fn continues(&self, step: &str) -> Result {
        let before = locked(&self.record).written;
        eventually("writes continue", WRITE_LIMIT, async || {
            ensure!(locked(&self.record).written > before + 2, "none succeeded");
            Ok(())
        })
        .await
        .context(step.to_owned())?;
        let record = locked(&self.record);
        eprintln!("{step}: {} writes, the longest took {:?}", record.written, record.longest);
        ensure!(record.failures.is_empty(), "{step}: {:?}", record.failures);
        Ok(())
    }

    /// Ends the writes, and checks that the last one is there.
    async fn finish(self) -> Result {
        locked(&self.record).stop = true;
        self.task.await?;
        let written = locked(&self.record).written;
        let found = self.store.text("/number").await?;
        ensure!(found == written.to_string(), "{found} was read and {written} was written last");
        Ok(())
    }
}

#[tokio::test]
async fn ensemble_forms_grows_shrinks_and_loses_servers_without_losing_data() -> Result {
    let servers = Servers::new().await?;
    let mut pods = servers.start(3)?;
    servers.serve(&pods).await?;
    let first = servers.voters(&pods[0]).await?;
    let writer = servers.write().await?;
    writer.continues("3 servers").await?;

    pods.extend(servers.start(2)?);
    servers.serve(&pods).await?;
    let grown = servers.voters(&pods[4]).await?;
    ensure!(grown.len() == 5 && first.iter().all(|id| grown.contains(id)), "{first:?} became {grown:?}");
    writer.continues("5 servers").await?;

    leave(pods.split_off(3)).await?;
    servers.serve(&pods).await?;
    servers.vote(&pods[0], &first).await?;
    writer.continues("3 servers again").await?;

    // A pod that crashes and returns with its data keeps its id; one that does not return is replaced by another.
    let leader = {
        let mut leader = None;
        for (position, pod) in pods.iter().enumerate() {
            if servers.word(pod, "srvr").await?.contains("Mode: leader") {
                leader = Some(position);
            }
        }
        leader.context("no server leads")?
    };
    let mut crashed = pods.remove(leader);
    crashed.kill9().await?;
    let (address, home) = (crashed.address().to_owned(), crashed.directory().to_owned());
    drop(crashed);
    pods.insert(leader, servers.start_again(&address, &home)?);
    servers.serve(&pods).await?;
    servers.vote(&pods[0], &first).await?;
    writer.continues("the leader crashed").await?;
    pods.remove(leader).kill9().await?;
    pods.extend(servers.start(1)?);
    servers.serve(&pods).await?;
    let replaced = servers.voters(&pods[0]).await?;
    ensure!(replaced.len() == 3 && replaced != first, "{first:?} became {replaced:?}");
    writer.continues("a server was replaced").await?;
    writer.finish().await
}

#[tokio::test]
async fn ensemble_that_stopped_completely_has_its_data_again_and_bad_pods_do_not_stop_it() -> Result {
    let servers = Servers::new().await?;
    let mut pods = servers.start(2)?;
    has_status(&pods, "2 of 3 pods to form an ensemble (ochopod_zookeeper_size)").await?;
    pods.extend(servers.start(1)?);
    servers.serve(&pods).await?;
    let voters = servers.voters(&pods[0]).await?;
    let writer = servers.write().await?;
    writer.continues("3 servers").await?;
    writer.finish().await?;
    for pod in &mut pods {
        pod.kill9().await?;
    }
    let mut again = Vec::new();
    for pod in &pods {
        again.push(servers.start_again(pod.address(), pod.directory())?);
    }
    servers.serve(&again).await?;
    servers.vote(&again[0], &voters).await?;
    let store = servers.store(&again[1]).await?;
    ensure!(store.text("/number").await?.parse::<u64>()? > 0, "the data is lost");
    again.push(servers.complete(servers.clusters.pod("zookeeper", "ensemble")?).unset("zookeeper_jaas").start()?);
    has_status(&again, "ochopod_zookeeper_jaas is not set").await?;
    store.set("/number", b"after").await
}

#[tokio::test]
async fn server_that_lost_its_data_while_all_were_down_is_replaced() -> Result {
    let servers = Servers::new().await?;
    let (killed, voters) = servers.killed().await?;
    fs::remove_dir_all(servers.files(&killed[0])?)?;
    let pods = servers.restart(&killed).await?;
    servers.serve(&pods).await?;
    let replaced = servers.voters(&pods[0]).await?;
    let kept = replaced.iter().filter(|id| voters.contains(id)).count();
    ensure!(replaced.len() == 3 && kept == 2, "{voters:?} became {replaced:?}");
    for pod in &pods {
        ensure!(servers.store(pod).await?.text("/number").await? == "7", "{} has other data", pod.address());
    }
    Ok(())
}

#[tokio::test]
async fn last_copy_of_the_data_is_kept_and_the_ensemble_restored_from_it() -> Result {
    let servers = Servers::new().await?;
    let (killed, _) = servers.killed().await?;
    for pod in &killed[..2] {
        fs::remove_dir_all(servers.files(pod)?)?;
    }
    let mut pods = servers.restart(&killed).await?;
    has_status(&pods, "kept, because the ensemble that serves has its address as server").await?;
    let files = servers.files(&pods[2])?;
    ensure!(files.join("data/version-2").exists(), "the data was moved");

    // As the README describes it.
    let last = pods.split_off(2);
    leave(pods).await?;
    for pod in &killed[..2] {
        fs::remove_dir_all(servers.files(pod)?)?;
    }
    let configuration = fs::read_to_string(files.join("zoo.cfg"))?;
    let ensemble = configuration.lines().find_map(|line| line.strip_prefix("dynamicConfigFile="));
    let ensemble = ensemble.context("no ensemble")?;
    let own = format!("={}:", last[0].address());
    let line = fs::read_to_string(ensemble)?.lines().find(|line| line.contains(&own)).map(str::to_owned);
    fs::write(ensemble, line.context("no line of the server")? + "\n")?;
    servers.serve(&last).await?;
    ensure!(servers.store(&last[0]).await?.text("/number").await? == "7", "it has other data");
    let mut pods = last;
    for pod in &killed[..2] {
        pods.push(servers.start_again(pod.address(), pod.directory())?);
    }
    servers.serve(&pods).await?;
    ensure!(servers.store(&pods[2]).await?.text("/number").await? == "7", "it has other data");
    Ok(())
}
