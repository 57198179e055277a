//! Guarantee 3 at each message of a pod's to the store: lost on its way, answered in vain, or never answered, once. Whichever
//! it is, the pod ends whole.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use ochopod_tests::{
    Result, Site,
    proxy::{Caught, Kind, Message, When},
};

use crate::{pod, witness::whole};

type Matching = fn(&Message) -> bool;

/// Each kind of call that a pod makes until it has configured its cluster.
const CALLS: [(&str, Matching); 15] = [
    ("open a session", |message| message.kind == Kind::Open),
    ("catch up", |message| message.kind == Kind::Sync),
    ("look for the chroot", |message| message.kind == Kind::Exists),
    ("list the pods", |message| message.is(&Kind::Children, "/pods")),
    ("create the cluster", |message| message.creates("/coordinator")),
    ("register", |message| message.creates("/pods/")),
    ("write the number", |message| message.steps.iter().any(|step| step.is(&Kind::Set, "/pods/"))),
    ("create the lock node", |message| message.creates("/coordinator/")),
    ("read the lock node", |message| message.is(&Kind::Get, "/coordinator/")),
    ("read the registration", |message| message.is(&Kind::Get, "/pods/")),
    ("find out who leads", |message| message.is(&Kind::Sync, "/coordinator")),
    ("read the digest", |message| message.is(&Kind::Get, "/hash")),
    ("write that it is pending", |message| message.writes("hash", "pending:")),
    ("write what was configured", |message| message.writes("view", "{")),
    ("ping", |message| message.kind == Kind::Ping),
];

/// One after the other costs too much time, all at once too much of the machine.
const AT_ONCE: usize = 5;

async fn lose(when: When, how: fn(Caught), within: Duration) -> Result {
    let site = Site::new().await?;
    let rows = stream::iter(CALLS).map(async |(call, matching)| {
        let lost = lose_one(&site, call, when, matching, how, within).await;
        lost.with_context(|| format!("{when:?} to {call}"))
    });
    rows.buffer_unordered(AT_ONCE).try_collect().await
}

async fn lose_one(
    site: &Site,
    call: &str,
    when: When,
    matching: Matching,
    how: fn(Caught),
    within: Duration,
) -> Result {
    let name = call.replace(' ', "-");
    let (proxy, through) = site.proxy().await?;
    let catch = proxy.catch(when, matching);
    let pod = pod(site).set("cluster", &name).set("zk", through).set("session", 2).start()?;
    let caught = catch.caught().await?;
    let begin = Instant::now();
    how(caught);
    whole(&site.cluster(&name), &[&pod]).await?;
    ensure!(begin.elapsed() < within, "it took {:?}", begin.elapsed());
    ensure!(pod.starts()?.len() == 1, "it was started {} times", pod.starts()?.len());
    Ok(())
}

/// A call may wait as long as the session lasts, 2 s here, and is made again a moment later. A leader that could not be
/// verified tries again after another.
const NEVER_ANSWERED: Duration = Duration::from_secs(8);
/// A connection that is cut is noticed at once.
const CUT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn guarantee_3_a_connection_that_is_cut_before_a_call_arrives() -> Result {
    lose(When::Request, Caught::cut, CUT).await
}

#[tokio::test]
async fn guarantee_3_a_connection_that_is_cut_before_the_answer_arrives() -> Result {
    lose(When::Reply, Caught::cut, CUT).await
}

#[tokio::test]
async fn guarantee_3_a_call_that_is_never_answered() -> Result {
    lose(When::Reply, Caught::swallow, NEVER_ANSWERED).await
}
