//! The haproxy plugin with real servers behind it: web servers that join and leave, and a primary that changes.

use anyhow::{Context, ensure};
use ochopod_tests::redis;

use super::{load::Load, web::Web, *};

struct Balancer {
    port: u16,
    pods: Vec<Pod>,
}

impl Balancer {
    /// Starts a pod with this route: what follows the port.
    fn start(clusters: &Clusters, depends_on: &str, route: &str) -> Result<Self> {
        let port = free_port()?;
        let pod = clusters.pod("haproxy", "balancer")?.set("haproxy_routes", format!("{port}={route}"));
        let pod = pod.set("haproxy_runtime_port", free_port()?).set("haproxy_master_port", free_port()?);
        // HAProxy may wait for an idle connection when it stops: it is killed within the time that a test waits.
        let pod = pod.set("set_depends_on", depends_on).set("set_grace", 10);
        Ok(Self { port, pods: vec![pod.start()?] })
    }

    fn address(&self) -> String {
        format!("{}:{}", self.pods[0].address(), self.port)
    }

    async fn has_servers(&self, count: usize) -> Result {
        has_status(&self.pods, &format!("port {}: {count} of {count} servers up", self.port)).await
    }

    async fn pid(&self) -> Result<i64> {
        self.pods[0].client().info().await?["pid"].as_i64().context("no pid")
    }
}

/// Waits until so many different pods have answered.
async fn answer(load: &Load, count: usize) -> Result {
    load.forget_pods();
    eventually(&format!("{count} pods answer"), LIMIT, async || {
        let pods = load.record().by_pod.len();
        ensure!(pods == count, "{pods} answered");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn no_request_fails_while_web_pods_come_and_leave() -> Result {
    let web = Web::new().await?;
    let balancer = Balancer::start(&web.clusters, "web*", &format!("http://web*:{}?check=/health", web.port))?;
    let start =
        |count| (0..count).map(|_| web.pod("web-a")?.set("leave_delay", "10").start()).collect::<Result<Vec<_>>>();
    let mut pods = start(2)?;
    balancer.has_servers(2).await?;
    let pid = balancer.pid().await?;

    let load = Load::start(&balancer.address(), 6);
    answer(&load, 2).await?;
    pods.extend(start(3)?);
    // The glob finds a new cluster too.
    let other = web.start("web-b", 1)?;
    balancer.has_servers(6).await?;
    answer(&load, 6).await?;
    load.check("6 pods")?;

    leave(pods.split_off(2)).await?;
    // This one has no delay: its health check says that it leaves.
    leave(other).await?;
    balancer.has_servers(2).await?;
    answer(&load, 2).await?;
    load.check("2 pods again")?;

    // One pod at a time is replaced.
    for _ in 0..2 {
        pods.extend(start(1)?);
        balancer.has_servers(3).await?;
        leave(vec![pods.remove(0)]).await?;
        balancer.has_servers(2).await?;
    }
    answer(&load, 2).await?;
    load.check("2 other pods")?;
    ensure!(balancer.pid().await? == pid, "haproxy was restarted");
    leave(pods).await?;
    leave(balancer.pods).await
}

#[tokio::test]
async fn connections_follow_the_role_of_the_route() -> Result {
    let clusters = Clusters::new().await?;
    let port = free_port()?;
    let store = || {
        let pod = clusters.env.pod(&artifacts::plugin("redis")?).set("cluster", "store").env("PORT_6379", port);
        pod.set("session", "5").set("set_check_every", "1").start()
    };
    let mut pods = (0..3).map(|_| store()).collect::<Result<Vec<_>>>()?;
    let balancer = Balancer::start(&clusters, "store", "tcp://store:6379?role=primary")?;
    let pid = balancer.pid();
    let primary = async || {
        let info = redis::info(&balancer.address(), "replication").await?;
        ensure!(info.get("role").is_some_and(|role| role == "master"), "reached {info:?}");
        ensure!(redis::request(&balancer.address(), &["SET", "key", "value"]).await? == "OK", "not written");
        let server = redis::info(&balancer.address(), "server").await?;
        Ok(server.get("process_id").context("no process id")?.parse::<i64>()?)
    };
    let first = eventually("the primary is reached", LIMIT, primary).await?;
    balancer.has_servers(1).await?;
    let pid = pid.await?;
    let mut position = None;
    for (index, pod) in pods.iter().enumerate() {
        if pod.client().info().await?["pid"].as_i64() == Some(first) {
            position = Some(index);
        }
    }
    pods.remove(position.context("no pod runs the primary")?).kill9().await?;
    eventually("another primary is reached", LIMIT, async || {
        let now = primary().await?;
        ensure!(now != first, "it is the first one");
        Ok(())
    })
    .await?;
    balancer.has_servers(1).await?;
    ensure!(balancer.pid().await? == pid, "haproxy was restarted");
    Ok(())
}

#[tokio::test]
async fn invalid_routes_and_undeclared_dependencies_are_named() -> Result {
    let clusters = Clusters::new().await?;
    let mut balancer = Balancer::start(&clusters, "web*", "udp://web*:80")?;
    has_status(&balancer.pods, "invalid route").await?;
    balancer.pods[0].kill9().await?;
    let balancer = Balancer::start(&clusters, "web*", "http://api:80")?;
    has_status(&balancer.pods, "requires --set depends_on=web*,api").await
}
