//! Guarantee 3, seen from a pod whose way to the store is faulted: it is never half alive. It says what it knows all along,
//! keeps its sub-process, and is whole soon after the fault: registered and contending once, under its present session.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ochopod_tests::{
    Pod, Proxy, Result, SOON, Site, eventually,
    proxy::{Caught, Kind, When},
    steadily,
};

use crate::{
    pod,
    witness::{Said, Witness, session, whole},
};

/// What a busy machine may add to a time.
const SLACK: Duration = Duration::from_secs(1);
/// How late a pod notices that the store is back: a second or two between attempts.
const NOTICED: Duration = Duration::from_secs(2);

/// A leader behind a proxy, and a follower that is not, or the other way round.
struct Pair {
    site: Site,
    proxy: Proxy,
    behind: Pod,
    other: Pod,
    seconds: u32,
}

impl Pair {
    async fn new(seconds: u32, leader_is_behind: bool) -> Result<Self> {
        let site = Site::new().await?;
        let (proxy, through) = site.proxy().await?;
        let behind = pod(&site).set("zk", through).set("session", seconds);
        let other = pod(&site).set("session", seconds);
        let (behind, other) = if leader_is_behind {
            let behind = behind.start()?;
            site.cluster("default").formed(&[&behind]).await?;
            (behind, other.start()?)
        } else {
            let other = other.start()?;
            site.cluster("default").formed(&[&other]).await?;
            (behind.start()?, other)
        };
        site.cluster("default").formed(&[&behind, &other]).await?;
        Ok(Self { site, proxy, behind, other, seconds })
    }

    /// How long the pod may believe in a connection that is gone: two fifths of the session.
    fn blindness(&self) -> Duration {
        Duration::from_secs(self.seconds.into()) * 2 / 5 + SLACK
    }

    async fn whole(&self) -> Result<usize> {
        let leader = whole(&self.site.cluster("default"), &[&self.behind, &self.other]).await?;
        for pod in [&self.behind, &self.other] {
            ensure!(pod.starts()?.len() == 1, "{} was started {} times", pod.address(), pod.starts()?.len());
        }
        Ok(leader)
    }
}

/// Between two moments it did not say that it is connected.
fn cut_off(said: &[Said], from: Instant, to: Instant) -> Result {
    let wrong = said.iter().find(|said| said.at > from && said.at < to && said.session == "connected");
    ensure!(wrong.is_none(), "it said {wrong:?} {:?} too late", wrong.map(|said| said.at - from));
    Ok(())
}

async fn a_leader_is_cut_off_past_its_session(fault: impl Fn(&Proxy)) -> Result {
    let pair = Pair::new(2, true).await?;
    let witness = Witness::of(&pair.behind);
    let begin = Instant::now();
    fault(&pair.proxy);
    pair.site.cluster("default").formed(&[&pair.other]).await?;
    pair.behind.shows("session", "lost").await?;
    pair.behind.client().get("/readyz").await?.error(503)?;
    let healed = Instant::now();
    pair.proxy.heal();
    pair.behind.shows("session", "connected").await?;
    ensure!(healed.elapsed() < NOTICED + SLACK, "it took {:?}", healed.elapsed());
    ensure!(pair.whole().await? == 1, "who came back leads");
    let said = witness.testifies().await?;
    cut_off(&said, begin + pair.blindness(), healed)?;
    let suspended = said.iter().any(|said| said.session == "suspended" && said.ready);
    ensure!(suspended, "it never said that it is suspended, and ready");
    Ok(())
}

#[tokio::test]
async fn guarantee_3_a_leader_whose_packets_are_dropped_is_replaced_and_comes_back() -> Result {
    a_leader_is_cut_off_past_its_session(Proxy::black_hole).await
}

#[tokio::test]
async fn guarantee_3_a_leader_whose_connections_are_refused_is_replaced_and_comes_back() -> Result {
    a_leader_is_cut_off_past_its_session(Proxy::refuse).await
}

#[tokio::test]
async fn guarantee_3_a_follower_that_is_cut_off_for_less_than_its_session_costs_nothing() -> Result {
    let pair = Pair::new(6, false).await?;
    let (written, before) = (pair.site.cluster("default").hash_written().await?, session(&pair.behind)?);
    let witness = Witness::of(&pair.behind);
    let begin = Instant::now();
    pair.proxy.black_hole();
    pair.behind.shows("session", "suspended").await?;
    let healed = Instant::now();
    pair.proxy.heal();
    pair.behind.shows("session", "connected").await?;
    ensure!(healed.elapsed() < NOTICED + SLACK, "it took {:?}", healed.elapsed());
    ensure!(session(&pair.behind)? == before, "it has another session");
    steadily("nothing is configured", Duration::from_secs(1), async || {
        ensure!(pair.site.cluster("default").hash_written().await? == written, "it was configured");
        Ok(())
    })
    .await?;
    pair.whole().await?;
    cut_off(&witness.testifies().await?, begin + pair.blindness(), healed)?;
    // Its watch on the leader's lock is live as well.
    pair.other.term()?;
    pair.site.cluster("default").formed(&[&pair.behind]).await?;
    Ok(())
}

#[tokio::test]
async fn a_leader_whose_connection_blinks_leads_on_with_the_same_epoch() -> Result {
    let pair = Pair::new(10, true).await?;
    let cluster = pair.site.cluster("default");
    let (written, epoch) = (cluster.hash_written().await?, pair.behind.client().info().await?["epoch"].clone());
    for _ in 0..5 {
        let resumes = pair.proxy.catch(When::Reply, |message| message.kind == Kind::Resume);
        pair.proxy.cut();
        resumes.caught().await?.pass();
    }
    pair.behind.shows("state", "leader").await?;
    ensure!(pair.behind.client().info().await?["epoch"] == epoch, "it leads with another epoch");
    ensure!(cluster.hash_written().await? == written, "it was configured");
    ensure!(pair.whole().await? == 0, "another leads");
    Ok(())
}

#[tokio::test]
async fn however_long_the_session_the_stores_return_is_noticed_soon() -> Result {
    let site = Site::new().await?;
    let (proxy, through) = site.proxy().await?;
    let pod = pod(&site).set("zk", through).set("session", 60).start()?;
    site.cluster("default").formed(&[&pod]).await?;
    let before = session(&pod)?;
    proxy.refuse();
    pod.shows("session", "suspended").await?;
    tokio::time::sleep(Duration::from_secs(7)).await;
    let healed = Instant::now();
    proxy.heal();
    pod.shows("session", "connected").await?;
    ensure!(healed.elapsed() < NOTICED + SLACK, "it took {:?}", healed.elapsed());

    // Nor is a connection that stays silent waited for.
    let answer = proxy.catch(When::Reply, |message| message.kind == Kind::Resume);
    proxy.cut();
    let silent = answer.caught().await?;
    let begin = Instant::now();
    pod.shows("session", "connected").await?;
    ensure!(begin.elapsed() < NOTICED + SLACK, "it took {:?}", begin.elapsed());
    drop(silent);
    ensure!(session(&pod)? == before, "it has another session");
    Ok(())
}

async fn a_reset_loses_its_close(how: fn(Caught)) -> Result {
    let pair = Pair::new(2, true).await?;
    let before = session(&pair.behind)?;
    let witness = Witness::of(&pair.behind);
    let close = pair.proxy.catch(When::Request, |message| message.kind == Kind::Close);
    pair.behind.client().post("/reset").await?.is(200)?;
    how(close.caught().await?);
    eventually("it has a new session", SOON, async || {
        ensure!(session(&pair.behind)? != before, "it has the old one");
        Ok(())
    })
    .await?;
    pair.whole().await?;
    witness.testifies().await?;
    Ok(())
}

#[tokio::test]
async fn a_reset_whose_connection_is_cut_leaves_nothing_behind() -> Result {
    a_reset_loses_its_close(Caught::cut).await
}

#[tokio::test]
async fn a_reset_whose_close_is_never_answered_leaves_nothing_behind() -> Result {
    a_reset_loses_its_close(Caught::swallow).await
}

#[tokio::test]
async fn what_a_session_left_in_the_store_goes_when_the_pod_registers_again() -> Result {
    let pair = Pair::new(2, true).await?;
    let cluster = pair.site.cluster("default");
    let registers = pair.proxy.catch(When::Reply, |message| message.creates("/pods/"));
    // The store hears that the session goes on, the pod never does: it gives up what the store still has.
    let unheard = async {
        loop {
            let answer = pair.proxy.catch(When::Reply, |message| message.kind == Kind::Resume);
            match answer.caught().await {
                Ok(answer) => answer.swallow(),
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
    pair.whole().await?;
    Ok(())
}

#[tokio::test]
async fn a_pod_that_is_killed_and_started_again_within_its_session_is_there_once() -> Result {
    let mut pair = Pair::new(2, true).await?;
    pair.behind.kill9().await?;
    let again = pod(&pair.site).set("session", 2).start()?;
    let begin = Instant::now();
    ensure!(whole(&pair.site.cluster("default"), &[&pair.other, &again]).await? == 0, "the newcomer leads");
    ensure!(begin.elapsed() < Duration::from_secs(6), "it took {:?}", begin.elapsed());
    ensure!(pair.other.starts()?.len() == 1, "the other one was started again");
    Ok(())
}

#[tokio::test]
async fn of_two_servers_a_silent_one_delays_nobody_for_long() -> Result {
    let site = Site::new().await?;
    let ((dead, through), (live, _)) = (site.proxy().await?, site.proxy().await?);
    dead.black_hole();
    let (_, chroot) = through.split_once('/').context("no chroot")?;
    let both = format!("{},{}/{chroot}", dead.address(), live.address());
    let begin = Instant::now();
    let pods = site.form(3, |site| pod(site).set("zk", &both).set("session", 5)).await?;
    ensure!(begin.elapsed() < Duration::from_secs(5), "it took {:?} to form", begin.elapsed());
    let cluster = site.cluster("default");
    let sessions = pods.iter().map(session).collect::<Result<Vec<_>>>()?;
    let (written, witness) = (cluster.hash_written().await?, Witness::of(&pods[0]));

    // All are with the live one: it dies, and the other one comes to life.
    live.black_hole();
    dead.heal();
    let begin = Instant::now();
    eventually("all go on with the other", SOON, async || {
        let resumed = dead.seen().iter().filter(|message| message.kind == Kind::Resume).count();
        ensure!(resumed == pods.len(), "{resumed} do");
        Ok(())
    })
    .await?;
    for pod in &pods {
        pod.shows("session", "connected").await?;
    }
    ensure!(begin.elapsed() < Duration::from_secs(6), "it took {:?} to go on", begin.elapsed());
    ensure!(sessions == pods.iter().map(session).collect::<Result<Vec<_>>>()?, "sessions were lost");
    ensure!(cluster.hash_written().await? == written, "it was configured");
    whole(&cluster, &pods.iter().collect::<Vec<_>>()).await?;
    witness.testifies().await?;
    Ok(())
}
