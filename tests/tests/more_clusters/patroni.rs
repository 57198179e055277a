//! The patroni plugin with real PostgreSQL servers and a real ZooKeeper ensemble, each pod as in a container.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::{sys::signal::Signal, unistd};
use ochopod_tests::{
    Ensemble, Pod, PodBuilder, Proxy, Result, TestEnv, artifacts, consistently, eventually, free_port, namespaces,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_mins(3);
const USER: &str = "postgres";
const PASSWORD: &str = "of-the-superuser";

/// PostgreSQL servers on ports of their own, and the pods of the cluster `zookeeper`.
struct Servers {
    env: TestEnv,
    ensemble: Ensemble,
    database_port: u16,
    api_port: u16,
    directory: TempDir,
}

impl Servers {
    async fn new() -> Result<Self> {
        let (env, ensemble) = tokio::try_join!(TestEnv::new(), Ensemble::start())?;
        // The user of PostgreSQL may enter it.
        let directory = tempfile::Builder::new().prefix("ochopod-patroni-").tempdir()?;
        let user = unistd::User::from_name(USER)?.context("no user postgres: run `make setup-clusters`")?;
        unistd::chown(directory.path(), Some(user.uid), Some(user.gid))?;
        Ok(Self { env, ensemble, database_port: free_port()?, api_port: free_port()?, directory })
    }

    /// Starts a pod of the cluster `zookeeper`, whose server is reached at this port.
    fn zookeeper(&self, port: u16) -> Result<Pod> {
        let (control, address) = (free_port()?, "127.0.0.1");
        let directory = self.env.scratch().join(format!("zookeeper-{port}"));
        let pod = self.env.pod_at(&artifacts::plugin("hello")?, address, &directory).set("port", control);
        pod.reached_at(address, control).set("cluster", "zookeeper").set("session", "5").env("PORT_2181", port).start()
    }

    fn complete(&self, pod: PodBuilder) -> Result<PodBuilder> {
        let directory = self.directory.path().display().to_string();
        let programs = programs()?;
        let path = format!("{}:{}", programs.display(), std::env::var("PATH")?);
        let pod = pod.within(namespaces::init()).env("PATH", path).set("session", "5");
        let pod = pod.env("PORT_5432", self.database_port).env("PORT_8008", self.api_port);
        let pod = pod.set("patroni_dir", &directory).set("patroni_ttl", 12).set("user", USER);
        let pod = pod.set("secret_PATRONI_SUPERUSER_PASSWORD", PASSWORD);
        let pod = pod.set("secret_PATRONI_REPLICATION_PASSWORD", "of-replicas");
        Ok(pod.flags(["--net", "peers", "--run", "pg_ctl", "--dir", &format!("{directory}::/data")]))
    }

    fn pod(&self) -> Result<Pod> {
        self.complete(self.env.pod(&artifacts::plugin("patroni")?))?.start()
    }

    fn member(&self, pod: &Pod) -> String {
        format!("postgres-{}-{}", pod.address(), self.database_port)
    }

    /// Waits until these pods are configured and replicate. Returns the position of the primary.
    async fn replicating(&self, pods: &[Pod]) -> Result<usize> {
        eventually("the servers replicate", LIMIT, async || {
            let (mut primary, mut leads) = (None, false);
            for (position, pod) in pods.iter().enumerate() {
                let info = pod.client().info().await?;
                ensure!(info["process"] == "running", "{} is {}: {}", pod.address(), info["process"], info["status"]);
                match info["role"].as_str() {
                    Some("primary") => ensure!(primary.replace(position).is_none(), "two primaries"),
                    Some("replica") => {}
                    other => anyhow::bail!("{} has the role {other:?}", pod.address()),
                }
                if info["state"] == "leader" {
                    let (status, replicas) = (info["status"].as_str().unwrap_or_default(), pods.len() - 1);
                    let good = status.starts_with("primary 127.0.0.") && status.contains(&format!(", {replicas} of "));
                    ensure!(good, "the status is {status}");
                    leads = true;
                }
            }
            ensure!(leads, "no pod leads a configured cluster");
            primary.context("no primary")
        })
        .await
    }

    async fn status(&self, pods: &[Pod], text: &str) -> Result {
        eventually(&format!("the status has {text:?}"), LIMIT, async || {
            let mut statuses = Vec::new();
            for pod in pods {
                statuses.push(pod.client().info().await?["status"].as_str().unwrap_or_default().to_owned());
            }
            ensure!(statuses.iter().any(|status| status.contains(text)), "the statuses are {statuses:?}");
            Ok(())
        })
        .await
    }

    fn sql(&self, pod: &Pod, text: &str) -> Result<String> {
        let psql = programs()?.join("psql");
        let connection = format!("host={} port={} user=postgres connect_timeout=2", pod.address(), self.database_port);
        let arguments = ["-tA", "-v", "ON_ERROR_STOP=1", &connection, "-c", text];
        run(Command::new(psql).args(arguments).env("PGPASSWORD", PASSWORD))
    }

    /// Waits until a statement succeeds with this result.
    async fn eventually_sql(&self, pod: &Pod, text: &str, expected: &str) -> Result {
        eventually(&format!("{} has {expected:?}", pod.address()), LIMIT, async || {
            let found = self.sql(pod, text)?;
            ensure!(found == expected, "it has {found:?}");
            Ok(())
        })
        .await
    }

    /// Process id and start time of each PostgreSQL, by member, and the state in which a stopped one left its data.
    fn postmasters(&self, pods: &[Pod]) -> Result<BTreeMap<String, String>> {
        let file = |pod: &Pod| self.directory.path().join(self.member(pod)).join("postmaster.pid");
        let identity = |text: String| text.lines().step_by(2).take(2).collect::<Vec<_>>().join(" ");
        pods.iter().map(|pod| Ok((self.member(pod), identity(fs::read_to_string(file(pod))?)))).collect()
    }

    fn stopped_state(&self, pod: &Pod) -> Result<String> {
        let data = self.directory.path().join(self.member(pod));
        let output = run(Command::new(programs()?.join("pg_controldata")).arg("-D").arg(data).env("LC_ALL", "C"))?;
        let line = output.lines().find_map(|line| line.strip_prefix("Database cluster state:"));
        Ok(line.context("no state")?.trim().to_owned())
    }
}

/// Returns the directory of the newest PostgreSQL's programs.
fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("no PostgreSQL: run `make setup-clusters`")?;
    let newest = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).max();
    Ok(Path::new("/usr/lib/postgresql").join(newest.context("no PostgreSQL")?.to_string()).join("bin"))
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let program = command.get_program().to_owned();
    ensure!(output.status.success(), "{}: {}", OsStr::display(&program), text(&output.stderr));
    Ok(text(&output.stdout))
}

#[tokio::test]
async fn postgresql_waits_for_its_ensemble_follows_it_and_fails_over() -> Result {
    let servers = Servers::new().await?;
    let members = servers.ensemble.members();

    // The first addresses of the ensemble are those of proxies.
    let mut proxies = Vec::new();
    for member in members {
        proxies.push(Proxy::zookeeper(member.address()).await?);
    }
    let mut first: Vec<Pod> = Vec::new();
    for proxy in &proxies[..2] {
        first.push(servers.zookeeper(proxy.address().port())?);
    }
    let mut pods = (0..3).map(|_| servers.pod()).collect::<Result<Vec<Pod>>>()?;
    servers.status(&pods, "2 of 3 pods of the cluster zookeeper").await?;
    for pod in &pods {
        ensure!(pod.client().info().await?["process"] == "stopped", "{} was started", pod.address());
    }
    first.push(servers.zookeeper(proxies[2].address().port())?);
    let primary = servers.replicating(&pods).await?;
    servers.sql(&pods[primary], "create table kept (number int); insert into kept values (1)")?;
    for pod in &pods {
        servers.eventually_sql(pod, "select count(*) from kept", "1").await?;
    }

    // The ensemble moves: new pods join, the first ones leave, and their addresses are closed.
    let before = servers.postmasters(&pods)?;
    let seen = |proxies: &[Proxy]| proxies.iter().map(|proxy| proxy.seen().len()).sum::<usize>();
    ensure!(seen(&proxies) > 0, "PostgreSQL does not use the ensemble");
    let second = members.iter().map(|member| servers.zookeeper(member.address().port())).collect::<Result<Vec<_>>>()?;
    drop(first);
    let new: BTreeSet<String> = members.iter().map(|member| member.address().to_string()).collect();
    eventually("Patroni reads the new addresses", LIMIT, async || {
        for pod in &pods {
            let file = servers.directory.path().join(format!("{}.yml", servers.member(pod)));
            let value: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
            let hosts = value["zookeeper"]["hosts"].as_array().context("no hosts")?.iter();
            let hosts: BTreeSet<String> = hosts.filter_map(|host| Some(host.as_str()?.to_owned())).collect();
            ensure!(hosts == new, "the servers are {hosts:?}");
        }
        Ok(())
    })
    .await?;
    for proxy in &proxies {
        proxy.refuse();
        proxy.cut();
    }
    consistently("the primary stays", Duration::from_secs(10), async || {
        servers.sql(&pods[primary], "insert into kept values (2)").map(drop)
    })
    .await?;
    ensure!(servers.replicating(&pods).await? == primary, "the primary changed");
    ensure!(servers.postmasters(&pods)? == before, "PostgreSQL was restarted");

    // An operator chooses the next primary.
    let next = (primary + 1) % pods.len();
    let body = json!({"switchover": servers.member(&pods[next])});
    let reply = pods[primary].client().post_json("/control/signal", &body).await?.json(200)?;
    ensure!(reply["switchover"].as_str().is_some_and(|text| text.contains("uccessfully")), "it replied {reply}");
    eventually("the chosen one is the primary", LIMIT, async || {
        let found = servers.replicating(&pods).await?;
        ensure!(found == next, "{found} is the primary");
        Ok(())
    })
    .await?;

    // The ensemble loses a member, and then the cluster its primary.
    members[0].stop()?;
    servers.sql(&pods[next], "insert into kept values (3)")?;
    for pod in &pods {
        servers.eventually_sql(pod, "select count(*) from kept where number = 3", "1").await?;
    }
    let (lost, directory) = (pods[next].address().to_owned(), pods[next].directory().to_owned());
    pods.remove(next).kill9().await?;
    let primary = servers.replicating(&pods).await?;
    servers.sql(&pods[primary], "insert into kept values (4)")?;
    let again = servers.env.pod_at(&artifacts::plugin("patroni")?, &lost, &directory);
    pods.push(servers.complete(again)?.start()?);
    servers.replicating(&pods).await?;
    servers.eventually_sql(&pods[2], "select count(*) from kept where number > 2", "2").await?;

    stop_after_a_crash(&servers, pods).await?;
    drop(second);
    Ok(())
}

/// Stops all pods, one of them just after its Patroni was killed: PostgreSQL stops cleanly in each.
async fn stop_after_a_crash(servers: &Servers, mut pods: Vec<Pod>) -> Result {
    let crashed = pods.last().context("no pods")?;
    let pid = crashed.client().info().await?["pid"].as_i64().context("no pid")?;
    let inside = crashed.descendants().into_iter().find(|process| is_at(*process, pid)).context("no Patroni")?;
    nix::sys::signal::kill(unistd::Pid::from_raw(inside), Signal::SIGKILL)?;
    for pod in pods.iter().rev() {
        pod.term()?;
    }
    for pod in &mut pods {
        pod.wait(LIMIT).await?;
    }
    for pod in &pods {
        let state = servers.stopped_state(pod)?;
        ensure!(state.starts_with("shut down"), "{} left its data {state:?}: {}", pod.address(), pod.log()?);
    }
    Ok(())
}

/// Returns whether a process has this id in its own namespace.
fn is_at(process: i32, inner: i64) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    ids.and_then(|ids| ids.split_whitespace().next_back()?.parse().ok()) == Some(inner)
}
