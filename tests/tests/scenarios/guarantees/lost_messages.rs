//! Guarantee 3 at each message of a pod to the store: the request, or its reply, is lost once, or the reply never
//! arrives. In each case the pod recovers.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use ochopod_tests::{
    Result, TestEnv,
    proxy::{CatchPoint, Intercepted, Message, MessageKind},
};

use crate::{pod, status_monitor::wait_recovered};

type Matching = fn(&Message) -> bool;

/// Each kind of call that a pod sends until it has configured its cluster.
const CALLS: [(&str, Matching); 15] = [
    ("open a session", |message| message.kind == MessageKind::Open),
    ("catch up", |message| message.kind == MessageKind::Sync),
    ("look for the chroot", |message| message.kind == MessageKind::Exists),
    ("list the pods", |message| message.is(&MessageKind::Children, "/pods")),
    ("create the cluster", |message| message.creates("/coordinator")),
    ("register", |message| message.creates("/pods/")),
    ("write the number", |message| message.steps.iter().any(|step| step.is(&MessageKind::Set, "/pods/"))),
    ("create the lock node", |message| message.creates("/coordinator/")),
    ("read the lock node", |message| message.is(&MessageKind::Get, "/coordinator/")),
    ("read the registration", |message| message.is(&MessageKind::Get, "/pods/")),
    ("find out who leads", |message| message.is(&MessageKind::Sync, "/coordinator")),
    ("read the digest", |message| message.is(&MessageKind::Get, "/hash")),
    ("write that it is pending", |message| message.writes("hash", "pending:")),
    ("write what was configured", |message| message.writes("view", "{")),
    ("ping", |message| message.kind == MessageKind::Ping),
];

/// One at a time takes too long, all concurrently too many resources.
const MAX_CONCURRENT_CLUSTERS: usize = 5;

async fn intercept_each_call(when: CatchPoint, how: fn(Intercepted), within: Duration) -> Result {
    let env = TestEnv::new().await?;
    let rows = stream::iter(CALLS).map(async |(call, matching)| {
        let lost = lose_one(&env, call, when, matching, how, within).await;
        lost.with_context(|| format!("{when:?} to {call}"))
    });
    rows.buffer_unordered(MAX_CONCURRENT_CLUSTERS).try_collect().await
}

async fn lose_one(
    env: &TestEnv,
    call: &str,
    when: CatchPoint,
    matching: Matching,
    how: fn(Intercepted),
    within: Duration,
) -> Result {
    let name = call.replace(' ', "-");
    let (proxy, through) = env.proxy().await?;
    let catch = proxy.intercept(when, matching);
    let pod = pod(env).set("cluster", &name).set("zk", through).set("session", 2).start()?;
    let caught = catch.caught().await?;
    let begin = Instant::now();
    how(caught);
    wait_recovered(&env.cluster(&name), &[&pod]).await?;
    ensure!(begin.elapsed() < within, "it took {:?}", begin.elapsed());
    ensure!(pod.starts()?.len() == 1, "it was started {} times", pod.starts()?.len());
    Ok(())
}

/// A call may wait as long as the session lasts, 2 s here, and is repeated a moment later. A leader that could not be
/// verified retries after another.
const NEVER_ANSWERED: Duration = Duration::from_secs(15);
/// A connection that is cut is noticed immediately. A leader that returns may have to settle for two sessions, 4 s
/// here.
const CUT: Duration = Duration::from_secs(15);

#[tokio::test]
async fn guarantee_3_a_connection_that_is_cut_before_a_call_arrives() -> Result {
    intercept_each_call(CatchPoint::Request, Intercepted::cut, CUT).await
}

#[tokio::test]
async fn guarantee_3_a_connection_that_is_cut_before_the_answer_arrives() -> Result {
    intercept_each_call(CatchPoint::Reply, Intercepted::cut, CUT).await
}

#[tokio::test]
async fn guarantee_3_a_call_that_is_never_answered() -> Result {
    intercept_each_call(CatchPoint::Reply, Intercepted::drop_message, NEVER_ANSWERED).await
}
