//! The etcd plugin with real etcd servers: the cluster grows, is restarted, and loses pods, and its quorum is never lost.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ochopod_tests::{Pod, PodBuilder, Result, TestEnv, artifacts, consistently, eventually, free_port};
use serde_json::Value;
use tokio::task::JoinHandle;

/// Time for a configuration of all pods, one after the other. etcd accepts a change of its members only some seconds after
/// the last one.
const LIMIT: Duration = Duration::from_mins(2);
/// Time in which a write is repeated: etcd may elect another leader meanwhile.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// Pods of one test have these addresses.
const ADDRESSES: std::ops::Range<u8> = 2..12;

/// An environment whose etcd servers have ports and a directory of their own.
struct Members {
    env: TestEnv,
    client_port: u16,
    peer_port: u16,
    directory: PathBuf,
}

impl Members {
    async fn new() -> Result<Self> {
        let env = TestEnv::new().await?;
        let directory = env.scratch().join("etcd");
        fs::create_dir_all(&directory)?;
        Ok(Self { env, client_port: free_port()?, peer_port: free_port()?, directory })
    }

    /// Returns a pod at the next address, without its directory.
    fn bare(&self) -> Result<PodBuilder> {
        Ok(self.with_ports(self.env.pod(&artifacts::plugin("etcd")?)))
    }

    fn pod(&self) -> Result<PodBuilder> {
        Ok(self.with_directory(self.bare()?))
    }

    /// Returns the same at the address of a pod that has ended, whose data it uses.
    fn again(&self, pod: &Pod) -> Result<PodBuilder> {
        let builder = self.env.pod_at(&artifacts::plugin("etcd")?, pod.address(), pod.directory());
        Ok(self.with_directory(self.with_ports(builder)))
    }

    /// Starts these pods again once they are registered no more. The first one leads, their `seq` has this order, and all of
    /// them are in the first view.
    async fn again_in_order(&self, old: &[Pod]) -> Result<Vec<Pod>> {
        let cluster = self.env.cluster("default");
        eventually("the old pods are registered no more", LIMIT, async || {
            let left = [cluster.registered().await?, cluster.contenders().await?].concat();
            ensure!(left.is_empty(), "{left:?} are left");
            Ok(())
        })
        .await?;
        let mut pods: Vec<Pod> = Vec::new();
        for (position, pod) in old.iter().enumerate() {
            pods.push(self.again(pod)?.set("set_damper", "8").start()?);
            eventually("it is registered", LIMIT, async || {
                let info = pods[position].client().info().await?;
                ensure!(info["seq"].is_u64(), "it is not registered: {info}");
                ensure!(position > 0 || info["state"] != "follower", "it does not lead: {info}");
                Ok(())
            })
            .await?;
        }
        Ok(pods)
    }

    /// Removes all files of the etcd of a pod that has ended.
    fn lose_data(&self, pod: &Pod) -> Result {
        let name = format!("etcd-{}-{}", pod.address(), self.peer_port);
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let rest = path.file_name().and_then(|file| file.to_str()?.strip_prefix(&name));
            match rest {
                Some("") => fs::remove_dir_all(&path)?,
                Some(rest) if rest.starts_with('.') => fs::remove_file(&path)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn with_ports(&self, pod: PodBuilder) -> PodBuilder {
        let pod = pod.flags(["--net", "peers", "--run", "etcdctl"]);
        let pod = pod.set("etcd_client_port", self.client_port).set("etcd_peer_port", self.peer_port);
        pod.set("session", "5").set("set_probe_every", "5")
    }

    fn with_directory(&self, pod: PodBuilder) -> PodBuilder {
        let directory = self.directory.display().to_string();
        pod.set("etcd_dir", &directory).flags(["--dir", &format!("{directory}::/data")])
    }

    async fn start(&self, count: usize, complete: impl Fn(PodBuilder) -> PodBuilder) -> Result<Vec<Pod>> {
        let pods = (0..count).map(|_| complete(self.pod()?).start()).collect::<Result<Vec<Pod>>>()?;
        self.healthy(&pods).await?;
        Ok(pods)
    }

    /// Waits until these pods are configured and all of their members are healthy. Returns the position of the leader.
    async fn healthy(&self, pods: &[Pod]) -> Result<usize> {
        let expected = format!("{0} of {0} members healthy", pods.len());
        eventually(&expected, LIMIT, async || {
            let mut leader = None;
            for (position, pod) in pods.iter().enumerate() {
                let info = pod.client().info().await?;
                ensure!(info["process"] == "running", "{} is {}: {}", pod.address(), info["process"], info["status"]);
                if info["state"] == "leader" {
                    ensure!(info["status"] == *expected, "the status is {}", info["status"]);
                    leader = Some(position);
                }
            }
            leader.context("no pod leads a configured cluster")
        })
        .await
    }

    /// Waits until the leader's status has these texts.
    async fn status(&self, pods: &[Pod], texts: &[&str]) -> Result {
        eventually(&format!("the status has {texts:?}"), LIMIT, async || {
            let mut statuses = Vec::new();
            for pod in pods {
                statuses.push(status(pod).await.unwrap_or_default());
            }
            let found = statuses.iter().any(|status| texts.iter().all(|text| status.contains(text)));
            ensure!(found, "the statuses are {statuses:?}");
            Ok(())
        })
        .await
    }

    fn etcdctl(&self, words: &[&str]) -> Result<String> {
        let addresses: Vec<String> =
            ADDRESSES.map(|host| format!("http://127.0.0.{host}:{}", self.client_port)).collect();
        etcdctl(&addresses.join(","), words)
    }

    fn members(&self) -> Result<usize> {
        Ok(self.identities()?.len())
    }

    /// Ids of all members.
    fn identities(&self) -> Result<BTreeSet<u64>> {
        let list: Value = serde_json::from_str(&self.etcdctl(&["member", "list", "-w", "json"])?)?;
        let members = list["members"].as_array().context("no members")?;
        members.iter().map(|member| member["ID"].as_u64().context("no ID")).collect()
    }

    /// Starts to write numbers, and to record statuses of all pods that exist.
    fn observe(&self) -> Observer {
        let endpoints: Vec<String> =
            ADDRESSES.map(|host| format!("http://127.0.0.{host}:{}", self.client_port)).collect();
        let endpoints = endpoints.join(",");
        let record = Arc::new(Mutex::new(Record::default()));
        let shared = Arc::clone(&record);
        let writer = tokio::task::spawn_blocking(move || write(&endpoints, &shared));
        Observer { record, writer }
    }
}

async fn status(pod: &Pod) -> Result<String> {
    Ok(pod.client().info().await?["status"].as_str().unwrap_or_default().to_owned())
}

fn etcdctl(endpoints: &str, words: &[&str]) -> Result<String> {
    let flags = [&format!("--endpoints={endpoints}"), "--command-timeout=1s", "--dial-timeout=1s"];
    let output = Command::new("etcdctl").args(flags).args(words).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "etcdctl {words:?}: {}", text(&output.stderr));
    Ok(text(&output.stdout))
}

#[derive(Default)]
struct Record {
    written: u64,
    /// Writes that did not succeed in time.
    failures: Vec<String>,
    longest: Duration,
    stop: bool,
}

/// Writes without a pause, until stopped.
struct Observer {
    record: Arc<Mutex<Record>>,
    writer: JoinHandle<()>,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.record().stop = true;
    }
}

fn write(endpoints: &str, record: &Mutex<Record>) {
    let locked = || record.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for number in 1_u64.. {
        if locked().stop {
            return;
        }
        let begin = Instant::now();
        let result = loop {
            match etcdctl(endpoints, &["put", "number", &number.to_string()]) {
                Err(_) if begin.elapsed() < WRITE_LIMIT => {}
                result => break result,
            }
        };
        let mut record = locked();
        record.longest = record.longest.max(begin.elapsed());
        match result {
            Ok(_) => record.written = number,
            Err(error) => record.failures.push(format!("write {number}: {error}")),
        }
    }
}

impl Observer {
    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Checks that writes succeeded so far, and continue to.
    async fn writes_on(&self, step: &str) -> Result {
        let before = self.record().written;
        eventually("writes continue", WRITE_LIMIT * 2, async || {
            ensure!(self.record().written > before + 2, "none succeeded");
            Ok(())
        })
        .await
        .context(step.to_owned())?;
        let record = self.record();
        eprintln!("{step}: {} writes, the longest took {:?}", record.written, record.longest);
        ensure!(record.failures.is_empty(), "{step}: {:?}", record.failures);
        Ok(())
    }

    /// Ends the writes and checks that none was lost.
    async fn finish(&mut self, members: &Members) -> Result {
        self.record().stop = true;
        (&mut self.writer).await?;
        let record = self.record();
        ensure!(record.failures.is_empty(), "{:?}", record.failures);
        let found: u64 = members.etcdctl(&["get", "number", "--print-value-only"])?.trim().parse()?;
        ensure!(found == record.written, "{found} was read and {} was written last", record.written);
        Ok(())
    }
}

/// Process ids of the etcd servers.
async fn pids(pods: &[Pod]) -> Result<BTreeSet<i64>> {
    let mut found = BTreeSet::new();
    for pod in pods {
        found.insert(pod.client().info().await?["pid"].as_i64().context("no pid")?);
    }
    Ok(found)
}

/// Issue ROLLOUTS, "done when".
#[tokio::test]
async fn a_quorum_survives_growth_strict_configurations_losses_and_bad_pods() -> Result {
    let members = Members::new().await?;
    let strict = |pod: PodBuilder| pod.set("set_strict", "true");
    let mut pods = members.start(3, strict).await?;
    let mut observer = members.observe();
    observer.writes_on("three members").await?;

    let before = pids(&pods).await?;
    for _ in 0..2 {
        pods.push(strict(members.pod()?).start()?);
    }
    members.status(&pods, &["failed on with 503", "members not changed: etcdserver: unhealthy cluster"]).await?;
    members.healthy(&pods).await?;
    ensure!(members.members()? == 5, "there are {} members", members.members()?);
    ensure!(pids(&pods).await?.is_disjoint(&before), "strict did not restart all members");
    observer.writes_on("five members").await?;

    let leader = members.healthy(&pods).await?;
    let mut killed = pods.remove(leader);
    killed.kill9().await?;
    members.healthy(&pods).await.context("without the leader pod")?;
    ensure!(members.members()? == 4, "there are {} members", members.members()?);
    observer.writes_on("without the leader pod").await?;

    let leader = members.healthy(&pods).await?;
    let mut killed = pods.remove(usize::from(leader == 0));
    killed.kill9().await?;
    members.healthy(&pods).await.context("without another pod")?;
    ensure!(members.members()? == 3, "there are {} members", members.members()?);
    observer.writes_on("without another pod").await?;

    let refusing = strict(members.bare()?).start()?;
    members.status(&pods, &["left out, #", refusing.address(), "ochopod_etcd_dir is not set"]).await?;
    observer.writes_on("with a pod that refuses").await?;

    let mut unready = strict(members.pod()?).env("PATH", fake_etcd(&members)?).start()?;
    let text = format!("etcd does not listen at {}", unready.address());
    members.status(&pods, &["waiting until ready", &text]).await?;
    consistently("it holds", Duration::from_secs(5), async || {
        ensure!(pids(&pods).await?.len() == 3, "a member is down");
        Ok(())
    })
    .await?;
    observer.writes_on("with a pod that is never ready").await?;
    unready.kill9().await?;
    members.status(&pods, &["left out, #"]).await?;
    eventually("its member is removed", LIMIT, async || {
        ensure!(members.members()? == 3, "there are {} members", members.members()?);
        Ok(())
    })
    .await?;
    observer.writes_on("without it").await?;
    drop(refusing);
    members.healthy(&pods).await?;
    observer.finish(&members).await
}

/// Returns a PATH with an etcd that does nothing.
fn fake_etcd(members: &Members) -> Result<String> {
    let directory = members.env.scratch().join("bin");
    fs::create_dir_all(&directory)?;
    let program = directory.join("etcd");
    fs::write(&program, "#!/bin/sh\nexec sleep 86400\n")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(format!("{}:{}", directory.display(), std::env::var("PATH")?))
}

#[tokio::test]
async fn members_that_all_stopped_form_their_cluster_again() -> Result {
    let members = Members::new().await?;
    let mut pods = members.start(3, |pod| pod).await?;
    members.etcdctl(&["put", "key", "kept"])?;
    for pod in &mut pods {
        pod.kill9().await?;
    }
    let pods = pods.iter().map(|pod| members.again(pod)?.start()).collect::<Result<Vec<Pod>>>()?;
    members.healthy(&pods).await?;
    ensure!(members.etcdctl(&["get", "key", "--print-value-only"])?.trim() == "kept", "the data is lost");
    ensure!(members.members()? == 3, "there are {} members", members.members()?);
    Ok(())
}

/// The new pod is registered before the session of the one that crashed has expired.
#[tokio::test]
async fn a_pod_at_a_new_address_takes_the_place_of_one_that_crashed() -> Result {
    let members = Members::new().await?;
    let mut pods = members.start(3, |pod| pod).await?;
    let mut observer = members.observe();
    let leader = members.healthy(&pods).await?;
    let mut crashed = pods.remove(usize::from(leader == 0));
    crashed.kill9().await?;
    pods.push(members.pod()?.start()?);
    members.healthy(&pods).await?;
    ensure!(members.members()? == 3, "there are {} members", members.members()?);
    observer.finish(&members).await
}

#[tokio::test]
async fn a_pod_that_lost_its_data_before_all_start_again_is_replaced_and_nothing_is_lost() -> Result {
    let members = Members::new().await?;
    let mut pods = members.start(3, |pod| pod).await?;
    members.etcdctl(&["put", "key", "kept"])?;
    for pod in &mut pods {
        pod.kill9().await?;
    }
    members.lose_data(&pods[1])?;
    // The leader is configured last, so that the pod without data is the first one.
    let mut pods = members.again_in_order(&pods).await?;
    let lost = format!("not {}:{} (it lost its data", pods[1].address(), members.peer_port);
    members.status(&pods, &["2 of 3 members healthy", &lost]).await?;
    ensure!(members.etcdctl(&["get", "key", "--print-value-only"])?.trim() == "kept", "the data is lost");
    let mut second = pods.remove(1);
    second.term()?;
    second.wait(LIMIT).await?;
    pods.push(members.again(&second)?.start()?);
    members.healthy(&pods).await?;
    ensure!(members.etcdctl(&["get", "key", "--print-value-only"])?.trim() == "kept", "the data is lost");
    Ok(())
}

#[tokio::test]
async fn pods_without_data_form_no_cluster_while_a_member_with_data_runs() -> Result {
    let members = Members::new().await?;
    let mut pods = members.start(3, |pod| pod).await?;
    members.etcdctl(&["put", "key", "kept"])?;
    for pod in &mut pods {
        pod.kill9().await?;
    }
    for lost in [0, 1] {
        members.lose_data(&pods[lost])?;
    }
    let pods = members.again_in_order(&pods).await?;
    members.status(&pods, &["no quorum"]).await?;
    consistently("no cluster is formed", Duration::from_secs(10), async || {
        ensure!(members.etcdctl(&["get", "key"]).is_err(), "a cluster answers");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_cluster_is_formed_once_enough_pods_are_there() -> Result {
    let members = Members::new().await?;
    let mut pods = vec![members.pod()?.start()?];
    members.status(&pods, &["1 of 3 pods to form a cluster"]).await?;
    ensure!(pods[0].client().info().await?["process"] == "stopped", "it was started");
    for _ in 0..2 {
        pods.push(members.pod()?.start()?);
    }
    let leader = members.healthy(&pods).await?;
    eventually("one member leads, the others follow", LIMIT, async || {
        let mut roles = Vec::new();
        for pod in &pods {
            roles.push(pod.client().info().await?["metrics"]["role"].as_str().unwrap_or_default().to_owned());
        }
        roles.sort();
        ensure!(roles == ["follower", "follower", "leader"], "the roles are {roles:?}");
        Ok(())
    })
    .await?;
    let pid = pods[leader].client().info().await?["pid"].as_i64().context("no pid")?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    eventually("a crashed member is started again", LIMIT, async || {
        let now = pods[leader].client().info().await?["pid"].as_i64();
        ensure!(now.is_some_and(|now| now != pid), "the process is the same");
        Ok(())
    })
    .await?;
    members.healthy(&pods).await.map(drop)
}

#[tokio::test]
async fn members_are_added_and_removed_as_pods_come_and_go_and_a_crashed_one_rejoins() -> Result {
    let members = Members::new().await?;
    let mut pods = members.start(3, |pod| pod).await?;
    let mut observer = members.observe();

    for _ in 0..2 {
        pods.push(members.pod()?.start()?);
    }
    members.healthy(&pods).await?;
    ensure!(members.members()? == 5, "there are {} members", members.members()?);
    observer.writes_on("five members").await?;

    // Two leave together. Their members are removed one after the other.
    let mut gone = pods.split_off(3);
    for pod in &gone {
        pod.term()?;
    }
    for pod in &mut gone {
        pod.wait(LIMIT).await?;
    }
    members.healthy(&pods).await?;
    ensure!(members.members()? == 3, "there are {} members", members.members()?);
    observer.writes_on("three members again").await?;

    // A pod crashes and is back before its session ends: it is the same member, with its data.
    let before = members.identities()?;
    let mut crashed = pods.remove(2);
    crashed.kill9().await?;
    pods.push(members.again(&crashed)?.start()?);
    members.healthy(&pods).await?;
    ensure!(members.identities()? == before, "the members changed to {:?}", members.identities()?);
    observer.writes_on("with the pod that crashed").await?;

    // One that left earlier is back: it joins with empty data.
    pods.push(members.again(&gone[0])?.start()?);
    members.healthy(&pods).await?;
    ensure!(members.members()? == 4, "there are {} members", members.members()?);
    observer.finish(&members).await
}
