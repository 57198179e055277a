//! Guarantee 3, observed on a pod whose connection to the store is faulty: its state is always consistent. It reports
//! its state throughout, keeps its sub-process, and recovers soon after the fault: registered and contending once,
//! under its current session.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ochopod_tests::{
    DEFAULT_TIMEOUT, Pod, Proxy, Result, TestEnv, consistently, eventually,
    proxy::{CatchPoint, Intercepted, MessageKind},
};

use crate::{
    pod,
    status_monitor::{StatusMonitor, StatusSample, session, wait_recovered},
};

/// Tolerance for a busy machine.
const TOLERANCE: Duration = Duration::from_secs(5);
/// Maximum delay until a pod notices that the store is back: a second or two between attempts.
const NOTICE_DELAY: Duration = Duration::from_secs(2);

/// Returns a leader behind a proxy, and a follower that is not, or the reverse.
struct Pair {
    env: TestEnv,
    proxy: Proxy,
    behind: Pod,
    other: Pod,
    seconds: u32,
}

impl Pair {
    async fn new(seconds: u32, leader_is_behind: bool) -> Result<Self> {
        let env = TestEnv::new().await?;
        let (proxy, through) = env.proxy().await?;
        let behind = pod(&env).set("zk", through).set("session", seconds);
        let other = pod(&env).set("session", seconds);
        let (behind, other) = if leader_is_behind {
            let behind = behind.start()?;
            env.cluster("default").wait_formed(&[&behind]).await?;
            (behind, other.start()?)
        } else {
            let other = other.start()?;
            env.cluster("default").wait_formed(&[&other]).await?;
            (behind.start()?, other)
        };
        env.cluster("default").wait_formed(&[&behind, &other]).await?;
        Ok(Self { env, proxy, behind, other, seconds })
    }

    /// Returns the time for which the pod may assume a lost connection: two fifths of the session.
    fn blindness(&self) -> Duration {
        Duration::from_secs(self.seconds.into()) * 2 / 5 + TOLERANCE
    }

    async fn wait_recovered(&self) -> Result<usize> {
        let leader = wait_recovered(&self.env.cluster("default"), &[&self.behind, &self.other]).await?;
        for pod in [&self.behind, &self.other] {
            ensure!(pod.starts()?.len() == 1, "{} was started {} times", pod.address(), pod.starts()?.len());
        }
        Ok(leader)
    }
}

/// Checks that it was not reported as connected between two times.
fn cut_off(said: &[StatusSample], from: Instant, to: Instant) -> Result {
    let wrong = said.iter().find(|said| said.at > from && said.at < to && said.session == "connected");
    ensure!(wrong.is_none(), "unexpected output {wrong:?} {:?} too late", wrong.map(|said| said.at - from));
    Ok(())
}

async fn a_leader_is_cut_off_past_its_session(fault: impl Fn(&Proxy)) -> Result {
    let pair = Pair::new(10, true).await?;
    let monitor = StatusMonitor::of(&pair.behind);
    let begin = Instant::now();
    fault(&pair.proxy);
    pair.env.cluster("default").wait_formed(&[&pair.other]).await?;
    pair.behind.wait_info("session", "lost").await?;
    pair.behind.client().get("/readyz").await?.is(200)?;
    let healed = Instant::now();
    pair.proxy.heal();
    pair.behind.wait_info("session", "connected").await?;
    ensure!(healed.elapsed() < NOTICE_DELAY + TOLERANCE, "it took {:?}", healed.elapsed());
    ensure!(pair.wait_recovered().await? == 1, "the recovered pod leads");
    let said = monitor.verify().await?;
    cut_off(&said, begin + pair.blindness(), healed)?;
    let suspended = said.iter().any(|said| said.session == "suspended" && said.ready);
    ensure!(suspended, "it never said that it is suspended, and ready");
    Ok(())
}

#[tokio::test]
async fn guarantee_3_a_leader_whose_packets_are_dropped_is_replaced_and_returns() -> Result {
    a_leader_is_cut_off_past_its_session(Proxy::black_hole).await
}

#[tokio::test]
async fn guarantee_3_a_leader_whose_connections_are_refused_is_replaced_and_returns() -> Result {
    a_leader_is_cut_off_past_its_session(Proxy::refuse).await
}

#[tokio::test]
async fn guarantee_3_a_follower_that_is_cut_off_for_less_than_its_session_costs_nothing() -> Result {
    let pair = Pair::new(10, false).await?;
    let (written, before) = (pair.env.cluster("default").hash_written().await?, session(&pair.behind)?);
    let monitor = StatusMonitor::of(&pair.behind);
    let begin = Instant::now();
    pair.proxy.black_hole();
    pair.behind.wait_info("session", "suspended").await?;
    let healed = Instant::now();
    pair.proxy.heal();
    pair.behind.wait_info("session", "connected").await?;
    ensure!(healed.elapsed() < NOTICE_DELAY + TOLERANCE, "it took {:?}", healed.elapsed());
    ensure!(session(&pair.behind)? == before, "it has another session");
    consistently("nothing is configured", Duration::from_secs(1), async || {
        ensure!(pair.env.cluster("default").hash_written().await? == written, "it was configured");
        Ok(())
    })
    .await?;
    pair.wait_recovered().await?;
    cut_off(&monitor.verify().await?, begin + pair.blindness(), healed)?;
    // Its watch on the leader's lock is live as well.
    pair.other.term()?;
    pair.env.cluster("default").wait_formed(&[&pair.behind]).await?;
    Ok(())
}

#[tokio::test]
async fn a_leader_whose_connection_blinks_leads_on_with_the_same_epoch() -> Result {
    let pair = Pair::new(20, true).await?;
    let cluster = pair.env.cluster("default");
    let (written, epoch) = (cluster.hash_written().await?, pair.behind.client().info().await?["epoch"].clone());
    for _ in 0..5 {
        let resumes = pair.proxy.intercept(CatchPoint::Reply, |message| message.kind == MessageKind::Resume);
        pair.proxy.cut();
        resumes.caught().await?.pass();
    }
    pair.behind.wait_info("state", "leader").await?;
    ensure!(pair.behind.client().info().await?["epoch"] == epoch, "it leads with another epoch");
    ensure!(cluster.hash_written().await? == written, "it was configured");
    ensure!(pair.wait_recovered().await? == 0, "another leads");
    Ok(())
}

#[tokio::test]
async fn however_long_the_session_the_stores_return_is_noticed_soon() -> Result {
    let env = TestEnv::new().await?;
    let (proxy, through) = env.proxy().await?;
    let pod = pod(&env).set("zk", through).set("session", 60).start()?;
    env.cluster("default").wait_formed(&[&pod]).await?;
    let before = session(&pod)?;
    proxy.refuse();
    pod.wait_info("session", "suspended").await?;
    tokio::time::sleep(Duration::from_secs(7)).await;
    let healed = Instant::now();
    proxy.heal();
    pod.wait_info("session", "connected").await?;
    ensure!(healed.elapsed() < NOTICE_DELAY + TOLERANCE, "it took {:?}", healed.elapsed());

    // A silent connection is not awaited either.
    let answer = proxy.intercept(CatchPoint::Reply, |message| message.kind == MessageKind::Resume);
    proxy.cut();
    let silent = answer.caught().await?;
    let begin = Instant::now();
    pod.wait_info("session", "connected").await?;
    ensure!(begin.elapsed() < NOTICE_DELAY + TOLERANCE, "it took {:?}", begin.elapsed());
    drop(silent);
    ensure!(session(&pod)? == before, "it has another session");
    Ok(())
}

async fn a_reset_loses_its_close(how: fn(Intercepted)) -> Result {
    let pair = Pair::new(2, true).await?;
    let before = session(&pair.behind)?;
    let monitor = StatusMonitor::of(&pair.behind);
    let close = pair.proxy.intercept(CatchPoint::Request, |message| message.kind == MessageKind::Close);
    pair.behind.client().post("/reset").await?.is(200)?;
    how(close.caught().await?);
    eventually("it has a new session", DEFAULT_TIMEOUT, async || {
        ensure!(session(&pair.behind)? != before, "it has the old one");
        Ok(())
    })
    .await?;
    pair.wait_recovered().await?;
    monitor.verify().await?;
    Ok(())
}

#[tokio::test]
async fn a_reset_whose_connection_is_cut_leaves_nothing_behind() -> Result {
    a_reset_loses_its_close(Intercepted::cut).await
}

#[tokio::test]
async fn a_reset_whose_close_is_never_answered_leaves_nothing_behind() -> Result {
    a_reset_loses_its_close(Intercepted::drop_message).await
}

#[tokio::test]
async fn nodes_of_an_earlier_session_are_removed_when_the_pod_registers_again() -> Result {
    let pair = Pair::new(6, true).await?;
    let cluster = pair.env.cluster("default");
    let registers = pair.proxy.intercept(CatchPoint::Reply, |message| message.creates("/pods/"));
    // The store receives the pings, the pod never gets a reply: it abandons a session that the store still has.
    let unheard = async {
        loop {
            let answer = pair.proxy.intercept(CatchPoint::Reply, |message| message.kind == MessageKind::Resume);
            match answer.caught().await {
                Ok(answer) => answer.drop_message(),
                Err(error) => return error,
            }
        }
    };
    pair.proxy.cut();
    let caught = tokio::select! {
        caught = registers.caught() => caught?,
        error = unheard => return Err(error),
    };
    let (registered, contenders) = (cluster.registered().await?, cluster.contenders().await?);
    ensure!(registered.len() == 2, "registered are {registered:?}");
    ensure!(contenders.len() == 1, "contenders are {contenders:?}");
    caught.pass();
    pair.wait_recovered().await?;
    Ok(())
}

#[tokio::test]
async fn a_pod_that_is_killed_and_started_again_within_its_session_is_there_once() -> Result {
    let mut pair = Pair::new(2, true).await?;
    pair.behind.kill9().await?;
    let again = pod(&pair.env).set("session", 2).start()?;
    let begin = Instant::now();
    ensure!(wait_recovered(&pair.env.cluster("default"), &[&pair.other, &again]).await? == 0, "the newcomer leads");
    ensure!(begin.elapsed() < Duration::from_secs(12), "it took {:?}", begin.elapsed());
    ensure!(pair.other.starts()?.len() == 1, "the other one was started again");
    Ok(())
}

#[tokio::test]
async fn of_two_servers_a_silent_one_delays_no_pod_for_long() -> Result {
    let env = TestEnv::new().await?;
    let ((dead, through), (live, _)) = (env.proxy().await?, env.proxy().await?);
    dead.black_hole();
    let (_, chroot) = through.split_once('/').context("no chroot")?;
    let both = format!("{},{}/{chroot}", dead.address(), live.address());
    let begin = Instant::now();
    let pods = env.start_cluster(3, |env| pod(env).set("zk", &both).set("session", 15)).await?;
    ensure!(begin.elapsed() < Duration::from_secs(12), "it took {:?} to form", begin.elapsed());
    let cluster = env.cluster("default");
    let sessions = pods.iter().map(session).collect::<Result<Vec<_>>>()?;
    let (written, monitor) = (cluster.hash_written().await?, StatusMonitor::of(&pods[0]));

    // All sessions are on the live server: it stops, and the other one starts.
    live.black_hole();
    dead.heal();
    let begin = Instant::now();
    eventually("all continue with the other", DEFAULT_TIMEOUT, async || {
        let resumed = dead.seen().iter().filter(|message| message.kind == MessageKind::Resume).count();
        ensure!(resumed >= pods.len(), "{resumed} do");
        Ok(())
    })
    .await?;
    for pod in &pods {
        pod.wait_info("session", "connected").await?;
    }
    ensure!(begin.elapsed() < Duration::from_secs(14), "it took {:?} to continue", begin.elapsed());
    ensure!(sessions == pods.iter().map(session).collect::<Result<Vec<_>>>()?, "sessions were lost");
    ensure!(cluster.hash_written().await? == written, "it was configured");
    wait_recovered(&cluster, &pods.iter().collect::<Vec<_>>()).await?;
    monitor.verify().await?;
    Ok(())
}
