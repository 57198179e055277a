//! The rabbitmq plugin with real RabbitMQ servers: the cluster forms, nodes crash and return, leave for good and join again.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ochopod_tests::{Pod, PodBuilder, Process, Result, TestEnv, artifacts, eventually, free_port};

const LIMIT: Duration = Duration::from_mins(3);
/// Programs without the wrappers of the system's service.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

/// RabbitMQ servers with a port mapper and a cookie of their own.
struct Servers {
    env: TestEnv,
    port: u16,
    mapper_port: u16,
    /// Home of the servers, with the cookie.
    home: PathBuf,
    data: PathBuf,
    _mapper: Process,
}

impl Servers {
    async fn new() -> Result<Self> {
        let env = TestEnv::new().await?;
        let (home, data, mapper_port) = (env.scratch().join("home"), env.scratch().join("data"), free_port()?);
        fs::create_dir(&home)?;
        fs::create_dir(&data)?;
        let cookie = home.join(".erlang.cookie");
        fs::write(&cookie, "OFTHISTEST")?;
        fs::set_permissions(cookie, fs::Permissions::from_mode(0o400))?;
        let mut epmd = Process::command("epmd");
        epmd.args(["-port", &mapper_port.to_string()]);
        let mapper = Process::spawn("epmd", epmd).context("cannot start epmd: run `make setup-clusters`")?;
        Ok(Self { env, port: free_port()?, mapper_port, home, data, _mapper: mapper })
    }

    fn path() -> Result<String> {
        Ok(format!("{PROGRAMS}:{}", std::env::var("PATH")?))
    }

    fn complete(&self, pod: PodBuilder) -> Result<Pod> {
        let data = self.data.display().to_string();
        let pod =
            pod.env("PATH", Self::path()?).env("HOME", self.home.display()).env("ERL_EPMD_PORT", self.mapper_port);
        let pod = pod.env("PORT_5672", self.port).env("PORT_25672", free_port()?).set("session", "5");
        let pod = pod.set("set_probe_every", "5");
        let pod = pod.set("rabbitmq_dir", &data).set("rabbitmq_forget_after", 60);
        pod.flags(["--net", "peers", "--run", "rabbitmqctl", "--dir", &format!("{data}::/data")]).start()
    }

    fn pod(&self) -> Result<Pod> {
        self.complete(self.env.pod(&artifacts::plugin("rabbitmq")?))
    }

    /// Starts a pod again that has ended.
    fn again(&self, pod: &Pod) -> Result<Pod> {
        self.complete(self.env.pod_at(&artifacts::plugin("rabbitmq")?, pod.address(), pod.directory()))
    }

    fn node(&self, pod: &Pod) -> String {
        format!("rabbitmq-{}-{}@{}", pod.address().replace('.', "-"), self.port, pod.address())
    }

    /// Waits until these pods are ready, and the status of their leader has this text.
    async fn status(&self, pods: &[Pod], text: &str) -> Result {
        eventually(&format!("the status has {text:?}"), LIMIT, async || {
            let (mut statuses, mut ready) = (Vec::new(), 0);
            for pod in pods {
                let info = pod.client().info().await?;
                ready += usize::from(info["ready"] == true);
                statuses.push(info["status"].as_str().unwrap_or_default().to_owned());
            }
            ensure!(statuses.iter().any(|status| status.contains(text)), "the statuses are {statuses:?}");
            ensure!(!text.ends_with("running") || ready == pods.len(), "{ready} pods are ready");
            Ok(())
        })
        .await
    }

    fn rabbitmqctl(&self, pod: &Pod, words: &[&str]) -> Result<String> {
        let mut command = Command::new(format!("{PROGRAMS}/rabbitmqctl"));
        command.args(["--longnames", "--quiet", "--node", &self.node(pod)]).args(words);
        let command = command.env("HOME", &self.home).env("ERL_EPMD_PORT", self.mapper_port.to_string());
        let output = command.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(output.status.success(), "rabbitmqctl {words:?}: {}", text(&output.stderr));
        Ok(text(&output.stdout))
    }

    fn has_vhost(&self, pod: &Pod) -> Result<bool> {
        Ok(self.rabbitmqctl(pod, &["list_vhosts"])?.lines().any(|line| line == "kept"))
    }

    /// Removes all files of a pod's node, as an empty disk has none.
    fn lose(&self, pod: &Pod) -> Result {
        for entry in fs::read_dir(&self.data)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&self.node(pod))) {
                if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
            }
        }
        Ok(())
    }

    fn was_set_aside(&self, pod: &Pod) -> bool {
        self.data.join(format!("{}.removed", self.node(pod))).exists()
    }
}

#[tokio::test]
async fn nodes_form_a_cluster_rejoin_after_a_crash_and_are_removed_for_good() -> Result {
    let servers = Servers::new().await?;
    let mut pods = vec![servers.pod()?, servers.pod()?];
    servers.status(&pods, "2 of 3 pods to form a cluster").await?;
    pods.push(servers.pod()?);
    servers.status(&pods, "3 of 3 nodes running").await?;
    servers.rabbitmqctl(&pods[0], &["add_vhost", "kept"])?;
    for pod in &pods {
        ensure!(servers.has_vhost(pod)?, "{} is not in the cluster", pod.address());
    }

    // A server crashes: its pod starts it again.
    let pid = pods[1].client().info().await?["pid"].as_i64().context("no pid")?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    eventually("the server is started again", LIMIT, async || {
        let info = pods[1].client().info().await?;
        ensure!(
            info["pid"].as_i64().is_some_and(|now| now != pid) && info["ready"] == true,
            "the same process, or not ready"
        );
        Ok(())
    })
    .await?;
    servers.status(&pods, "3 of 3 nodes running").await?;

    // A pod crashes and returns in time: it has its data.
    let mut crashed = pods.remove(2);
    crashed.kill9().await?;
    servers.status(&pods, &format!("node {} left, removed in", servers.node(&crashed))).await?;
    pods.push(servers.again(&crashed)?);
    servers.status(&pods, "3 of 3 nodes running").await?;
    ensure!(servers.has_vhost(&pods[2])? && !servers.was_set_aside(&pods[2]), "it did not rejoin with its data");

    // The leader pod leaves for good: its node is removed.
    let mut gone = pods.remove(0);
    gone.kill9().await?;
    servers.status(&pods, "2 of 2 nodes running").await?;
    ensure!(servers.has_vhost(&pods[0])?, "the data is lost");

    // It returns after all: it joins with empty data.
    pods.push(servers.again(&gone)?);
    servers.status(&pods, "3 of 3 nodes running").await?;
    ensure!(servers.was_set_aside(&pods[2]), "its data was used again");
    ensure!(servers.has_vhost(&pods[2])?, "it is not in the cluster");

    // All stop, and form the cluster again.
    for pod in &pods {
        pod.term()?;
    }
    for pod in &mut pods {
        pod.wait(LIMIT).await?;
    }
    let pods = pods.iter().map(|pod| servers.again(pod)).collect::<Result<Vec<Pod>>>()?;
    servers.status(&pods, "3 of 3 nodes running").await?;
    ensure!(servers.has_vhost(&pods[0])?, "the data is lost");
    Ok(())
}

#[tokio::test]
async fn data_is_kept_if_a_pod_that_lost_its_own_forms_a_new_cluster() -> Result {
    let servers = Servers::new().await?;
    let mut pods = (0..3).map(|_| servers.pod()).collect::<Result<Vec<Pod>>>()?;
    servers.status(&pods, "3 of 3 nodes running").await?;
    servers.rabbitmqctl(&pods[0], &["add_vhost", "kept"])?;
    // The first node stops first: the others need not wait for it.
    for pod in &mut pods {
        pod.term()?;
        pod.wait(LIMIT).await?;
    }

    // Its disk is empty, and it is the oldest pod.
    servers.lose(&pods[0])?;
    let mut again = vec![servers.again(&pods[0])?];
    servers.status(&again, "1 of 3 pods to form a cluster").await?;
    again.push(servers.again(&pods[1])?);
    again.push(servers.again(&pods[2])?);
    servers.status(&again, "data of this pod belongs to another cluster than").await?;
    for pod in &pods[1..] {
        ensure!(!servers.was_set_aside(pod), "the data of {} was put aside", pod.address());
        ensure!(servers.data.join(servers.node(pod)).join("schema.DAT").exists(), "{} has no data", pod.address());
    }

    // As the README describes it.
    let mut empty = again.remove(0);
    empty.term()?;
    empty.wait(LIMIT).await?;
    servers.status(&again, "2 of 3 nodes running").await?;
    ensure!(servers.has_vhost(&again[0])?, "the data is lost");
    servers.lose(&empty)?;
    again.push(servers.again(&empty)?);
    servers.status(&again, "3 of 3 nodes running").await?;
    ensure!(servers.has_vhost(&again[2])?, "it is not in the cluster");
    Ok(())
}
