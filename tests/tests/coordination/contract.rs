//! Contract of the store: registration, leadership, observation and fenced commits. No assertion depends on the layer of nodes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ochopod_model::{
    ClusterName, Dependency, Digest, PodId, StoredHash, View,
    status::{LifecycleReport, PodState, ProcessState},
};
use ochopod_store::{
    ConfigurationEvent, ConfigurationKeeper, Leadership, LockReading, MAX_COMMIT_BYTES, Observation, Pause, States,
    StoreBackend, StoreWrite, WriteResult, znodes::layout::Layout,
};
use serde_json::json;
use tokio::{sync::watch, task::AbortHandle, time};

use crate::{DEFAULT_TIMEOUT, Pod};

contract! {
    pods_get_ascending_seqs_and_the_first_one_leads
    next_pod_leads_soon_after_the_leader_deregistered
    pod_that_resigns_leads_again_after_all_others
    retired_pod_is_observed_as_dead_and_never_leads
    pod_that_steps_down_stays_registered
    pod_that_yields_leads_again_after_the_time
    pod_contends_only_while_it_may
    pause_is_observed_until_it_is_resumed
    registered_pods_are_read_by_every_pod
    reset_pod_keeps_its_seq
    lock_reading_is_current_until_the_session_ends
    lock_that_was_read_before_is_read_again
    observation_follows_registrations
    dependency_is_observed_by_its_snapshot
    published_state_is_observed_until_the_pod_deregisters
    commit_is_read_by_the_next_leader
    interrupted_configuration_is_read_as_pending
    commit_of_an_ended_leadership_is_fenced
    view_of_thousands_of_pods_is_read_by_dependants_and_by_the_next_leader
    too_large_commit_has_no_effect_and_the_leadership_continues
    keeper_reads_once_and_writes_in_order
}

/// Returns an observation of a leadership.
struct Observer {
    observations: watch::Receiver<Option<Arc<Observation>>>,
    task: AbortHandle,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Observer {
    fn new(leadership: &Leadership, dependencies: &[&str]) -> Self {
        let cluster = ClusterName::new("ns", "web").unwrap();
        let dependencies = dependencies.iter().map(|name| Dependency::new(name, &cluster).unwrap()).collect();
        let (publish, observations) = watch::channel(None);
        let task = tokio::spawn(leadership.observe(dependencies, publish, watch::Sender::new(false))).abort_handle();
        Self { observations, task }
    }

    async fn until(&mut self, what: &str, condition: impl Fn(&Observation) -> bool) -> Arc<Observation> {
        let reached = self.observations.wait_for(|seen| seen.as_deref().is_some_and(&condition));
        let reached = time::timeout(DEFAULT_TIMEOUT, reached).await.unwrap_or_else(|_| panic!("not observed: {what}"));
        reached.unwrap().clone().unwrap()
    }

    /// Waits until exactly these pods are registered.
    async fn until_registered(&mut self, ids: &[&str]) -> Arc<Observation> {
        let what = format!("{ids:?}");
        self.until(&what, |seen| seen.pods.keys().map(PodId::as_str).eq(ids.iter().copied())).await
    }
}

fn view(pods: &serde_json::Value) -> Arc<View> {
    Arc::new(serde_json::from_value(json!({"pods": pods, "dependencies": {}})).unwrap())
}

fn done(digest: &str, pods: &serde_json::Value) -> StoreWrite {
    StoreWrite::Commit(Digest::from(digest), view(pods))
}

async fn pods_get_ascending_seqs_and_the_first_one_leads(store: StoreBackend) {
    let first = Pod::start(&store, "web", "a");
    let epoch = first.leading().await.epoch;
    let second = Pod::start(&store, "web", "b");
    assert_eq!((first.registered().await, second.registered().await), (0, 1));
    assert_eq!(second.member.lock_holder().await.unwrap().map(|holder| holder.epoch), Some(epoch));
    assert!(second.member.watch().borrow().leadership.is_none());
}

async fn next_pod_leads_soon_after_the_leader_deregistered(store: StoreBackend) {
    let first = Pod::start(&store, "web", "a");
    let epoch = first.leading().await.epoch;
    let second = Pod::start(&store, "web", "b");
    second.registered().await;
    let before = Instant::now();
    first.member.leave().await;
    assert!(second.leading().await.epoch > epoch);
    assert!(before.elapsed() < DEFAULT_TIMEOUT, "{:?}", before.elapsed());
    first.actor.await.unwrap();
}

async fn pod_that_resigns_leads_again_after_all_others(store: StoreBackend) {
    let first = Pod::start(&store, "web", "a");
    let epoch = first.leading().await.epoch;
    first.member.resign(epoch).await;
    let alone = first.leading_after(epoch).await.epoch;

    let second = Pod::start(&store, "web", "b");
    second.registered().await;
    first.member.resign(epoch).await;
    assert!(first.member.watch().borrow().leadership.is_some(), "an ended leadership cannot be resigned");
    // The second pod contends right after its registration.
    let session = store.nodes().connect().await.unwrap();
    let coordinator = Layout::of("ns.web").coordinator();
    ochopod_tests::eventually("the second pod contends", DEFAULT_TIMEOUT, async || {
        let contenders = session.children(&coordinator).await.unwrap().unwrap_or_default();
        anyhow::ensure!(contenders.len() == 2, "there are {contenders:?}");
        Ok(())
    })
    .await
    .unwrap();
    session.close().await;
    first.member.resign(alone).await;
    let next = second.leading_after(alone).await.epoch;
    assert_eq!(first.member.lock_holder().await.unwrap().map(|holder| holder.epoch), Some(next));
    second.member.resign(next).await;
    first.leading_after(next).await;
}

async fn retired_pod_is_observed_as_dead_and_never_leads(store: StoreBackend) {
    let (first, second) = (Pod::start(&store, "web", "a"), Pod::start(&store, "web", "b"));
    first.registered().await;
    second.registered().await;
    first.member.retire().await;
    let leadership = second.leading().await;
    let mut observer = Observer::new(&leadership, &[]);
    let is_dead = |seen: &Observation, id: &str| seen.pods.get(&PodId::from(id)).is_some_and(|pod| pod.is_dead());
    observer.until("one dead pod of two", |seen| is_dead(seen, "a") && !is_dead(seen, "b")).await;
    second.member.retire().await;
    assert_eq!(second.member.lock_holder().await, Ok(None));
}

async fn pod_that_steps_down_stays_registered(store: StoreBackend) {
    let (first, second) = (Pod::start(&store, "web", "a"), Pod::start(&store, "web", "b"));
    first.registered().await;
    second.registered().await;
    first.member.step_down().await;
    let mut observer = Observer::new(&second.leading().await, &[]);
    observer.until_registered(&["a", "b"]).await;
}

async fn pod_that_yields_leads_again_after_the_time(store: StoreBackend) {
    let first = Pod::start(&store, "web", "a");
    let epoch = first.leading().await.epoch;
    let second = Pod::start(&store, "web", "b");
    second.registered().await;
    let (before, duration) = (Instant::now(), Duration::from_secs(2));
    first.member.yield_lock(duration).await;
    let next = second.leading().await;
    assert!(next.epoch > epoch);
    second.member.yield_lock(2 * DEFAULT_TIMEOUT).await;
    first.leading_after(next.epoch).await;
    assert!(before.elapsed() >= duration, "{:?}", before.elapsed());
}

async fn pod_contends_only_while_it_may(store: StoreBackend) {
    let pod = Pod::start(&store, "web", "a");
    let epoch = pod.leading().await.epoch;
    pod.member.set_contending(false).await;
    assert_eq!(pod.member.lock_holder().await, Ok(None));
    assert!(pod.member.watch().borrow().leadership.is_none());
    pod.member.set_contending(true).await;
    pod.leading_after(epoch).await;
}

async fn pause_is_observed_until_it_is_resumed(store: StoreBackend) {
    let first = Pod::start(&store, "web", "a");
    let mut observer = Observer::new(&first.leading().await, &[]);
    let second = Pod::start(&store, "web", "b");
    observer.until("no pause", |seen| seen.paused.is_none()).await;
    second.registered().await;
    for reason in ["move", "still moving"] {
        let pause = Pause { by: "10.0.0.7".to_owned(), since: 1_800_000_000, reason: reason.to_owned() };
        assert_eq!(second.member.pause(&pause).await, Ok(()));
        observer.until(reason, |seen| seen.paused.as_ref() == Some(&pause)).await;
    }
    second.member.leave().await;
    observer.until("the pause outlasts its author", |seen| seen.pods.len() == 1 && seen.paused.is_some()).await;
    assert_eq!(first.member.resume().await, Ok(true));
    observer.until("no pause again", |seen| seen.paused.is_none()).await;
    assert_eq!(first.member.resume().await, Ok(false));
}

async fn registered_pods_are_read_by_every_pod(store: StoreBackend) {
    let (first, second) = (Pod::start(&store, "web", "a"), Pod::start(&store, "web", "b"));
    first.registered().await;
    second.registered().await;
    for pod in [&first, &second] {
        let pods = pod.member.registered_pods().await.unwrap();
        assert!(pods.keys().map(PodId::as_str).eq(["a", "b"]), "{pods:?}");
    }
}

async fn reset_pod_keeps_its_seq(store: StoreBackend) {
    let (_first, second) = (Pod::start(&store, "web", "a"), Pod::start(&store, "web", "b"));
    let seq = second.registered().await;
    let session = second.member.watch().borrow().session;
    second.member.reset().await;
    let again = second.until("registered again", |m| m.registered.is_some() && m.session != session).await;
    let registered = again.registered.unwrap();
    assert_eq!((registered.seq, registered.after_loss), (seq, false));
}

async fn lock_reading_is_current_until_the_session_ends(store: StoreBackend) {
    let (first, second) = (Pod::start(&store, "web", "a"), Pod::start(&store, "web", "b"));
    first.registered().await;
    let reading = second.member.read_lock(None).await.unwrap();
    assert!(second.member.is_current(&reading));
    let session = second.member.watch().borrow().session;
    second.member.reset().await;
    second.until("registered again", |m| m.registered.is_some() && m.session != session).await;
    assert!(!second.member.is_current(&reading));
    let again = second.member.read_lock(None).await.unwrap();
    assert!(again.holder.is_some() && second.member.is_current(&again));
    second.member.leave().await;
    assert!(!second.member.is_current(&again));
    assert!(second.member.read_lock(None).await.is_err());
}

async fn lock_that_was_read_before_is_read_again(store: StoreBackend) {
    let first = Pod::start(&store, "web", "a");
    first.leading().await;
    let second = Pod::start(&store, "web", "b");
    second.registered().await;
    let reading = second.member.read_lock(None).await.unwrap();
    let again = second.member.read_lock(Some(&reading)).await.unwrap();
    assert!(again.holder.is_some() && again.holder == reading.holder, "{again:?} after {reading:?}");
    first.member.leave().await;
    second.leading().await;
    let epoch = |reading: &LockReading| reading.holder.as_ref().map(|holder| holder.epoch);
    let next = second.member.read_lock(Some(&reading)).await.unwrap();
    assert!(epoch(&next) > epoch(&reading));
}

async fn observation_follows_registrations(store: StoreBackend) {
    let first = Pod::start(&store, "web", "a");
    let mut observer = Observer::new(&first.leading().await, &[]);
    observer.until_registered(&["a"]).await;
    let second = Pod::start(&store, "web", "b");
    let seen = observer.until_registered(&["a", "b"]).await;
    let pod = &seen.pods[&PodId::from("b")];
    assert_eq!((pod.seq(), pod.text("port"), pod.is_dead()), (1, "8080", false));
    second.member.leave().await;
    observer.until_registered(&["a"]).await;
}

async fn dependency_is_observed_by_its_snapshot(store: StoreBackend) {
    let web = Pod::start(&store, "web", "a");
    let mut observer = Observer::new(&web.leading().await, &["db", "*"]);
    observer.until("no dependency", |seen| seen.dependencies["db"].live.is_empty()).await;
    let (db, standby) = (Pod::start(&store, "db", "x"), Pod::start(&store, "db", "y"));
    db.registered().await;
    standby.registered().await;
    let unsettled = |seen: &Observation| {
        ["db", "*"].iter().all(|name| {
            let dependency = &seen.dependencies[*name];
            dependency.snapshot.is_empty() && dependency.unsettled.contains("ns.db")
        })
    };
    observer
        .until("two pods without a snapshot", |seen| unsettled(seen) && seen.dependencies["db"].live.len() == 2)
        .await;

    let leader = time::timeout(DEFAULT_TIMEOUT, async {
        tokio::select! { leadership = db.leading() => (leadership, &db), leadership = standby.leading() => (leadership, &standby) }
    });
    let (leadership, leader) = leader.await.unwrap();
    assert_eq!(leadership.commit(&done("1:x", &json!({"x": {"seq": 0}}))).await, WriteResult::Done);
    let settled = |seen: &Observation| seen.dependencies["*"].snapshot.keys().map(PodId::as_str).eq(["x"]);
    let seen = observer.until("a snapshot", settled).await;
    assert!(seen.dependencies["db"].unsettled.is_empty());
    leader.member.leave().await;
    observer.until("the snapshot ends with its leader", unsettled).await;
}

async fn published_state_is_observed_until_the_pod_deregisters(store: StoreBackend) {
    let (first, second) = (Pod::start(&store, "web", "a"), Pod::start(&store, "web", "b"));
    let publish = |pod: &Pod, process| {
        let reason = Some("for the test".to_owned());
        pod.member.publish(PodState::of(&LifecycleReport { process, reason, ..LifecycleReport::default() }, false));
    };
    publish(&first, ProcessState::Stopped);
    publish(&second, ProcessState::Dead);
    second.registered().await;
    second.member.step_down().await;
    let leadership = first.leading().await;
    let (observer, (sender, mut states)) = (Observer::new(&leadership, &[]), watch::channel(None));
    let observing = tokio::spawn(leadership.observe_states(observer.observations.clone(), sender));
    let mut until = async |expected: &[(&str, ProcessState)]| {
        let reached = states.wait_for(|states: &Option<Arc<States>>| {
            let states = states.iter().flat_map(|states| states.iter());
            states.map(|(id, state)| (id.as_str(), state.process)).eq(expected.iter().copied())
        });
        assert!(time::timeout(DEFAULT_TIMEOUT, reached).await.is_ok(), "not observed: {expected:?}");
    };
    until(&[("a", ProcessState::Stopped), ("b", ProcessState::Dead)]).await;
    publish(&first, ProcessState::Running);
    until(&[("a", ProcessState::Running), ("b", ProcessState::Dead)]).await;
    second.member.leave().await;
    until(&[("a", ProcessState::Running)]).await;
    observing.abort();
}

async fn commit_is_read_by_the_next_leader(store: StoreBackend) {
    let pod = Pod::start(&store, "web", "a");
    let leadership = pod.leading().await;
    let last = leadership.read_configuration().await.unwrap();
    assert_eq!((last.hash, last.view), (StoredHash::parse(b""), View::default()));
    let pods = json!({"a": {"seq": 0}});
    for digest in ["1:a", "1:b"] {
        assert_eq!(leadership.commit(&done(digest, &pods)).await, WriteResult::Done);
    }
    pod.member.resign(leadership.epoch).await;
    let last = pod.leading_after(leadership.epoch).await.read_configuration().await.unwrap();
    assert_eq!((last.hash, &last.view), (StoredHash::Done(Digest::from("1:b")), &*view(&pods)));
}

async fn interrupted_configuration_is_read_as_pending(store: StoreBackend) {
    let pod = Pod::start(&store, "web", "a");
    let leadership = pod.leading().await;
    let pods = json!({"a": {"seq": 0}});
    for write in [done("1:a", &pods), StoreWrite::Pending(Digest::from("1:b")), StoreWrite::Snapshot(view(&pods))] {
        assert_eq!(leadership.commit(&write).await, WriteResult::Done);
    }
    let last = leadership.read_configuration().await.unwrap();
    assert_eq!((last.hash, &last.view), (StoredHash::Pending(Digest::from("1:b")), &*view(&pods)));
}

async fn commit_of_an_ended_leadership_is_fenced(store: StoreBackend) {
    let pod = Pod::start(&store, "web", "a");
    let stale = pod.leading().await;
    assert_eq!(stale.commit(&done("1:a", &json!({}))).await, WriteResult::Done);
    pod.member.resign(stale.epoch).await;
    let current = pod.leading_after(stale.epoch).await;
    for write in
        [StoreWrite::Pending(Digest::from("1:b")), done("1:b", &json!({})), StoreWrite::Snapshot(view(&json!({})))]
    {
        assert_eq!(stale.commit(&write).await, WriteResult::Fenced);
    }
    assert_eq!(current.read_configuration().await.unwrap().hash, StoredHash::Done(Digest::from("1:a")));
    pod.member.leave().await;
    assert_eq!(current.commit(&done("1:c", &json!({}))).await, WriteResult::Fenced);
}

async fn view_of_thousands_of_pods_is_read_by_dependants_and_by_the_next_leader(store: StoreBackend) {
    let registration = |seq: u64| {
        json!({
            "application": "shop/web", "binding": "kubernetes", "cluster": "db", "debug": "false", "local": "false",
            "ip": format!("10.{}.{}.7", seq / 250, seq % 250), "namespace": "ns", "node": "agent", "port": "8080", "seq": seq,
            "ports": {"8080": 31000}, "public": "", "start": "true", "status": "", "task": "", "zk": "10.0.0.1:2181",
        })
    };
    let pods: serde_json::Value =
        (0..5000).map(|seq| (PodId::random().to_string(), registration(seq))).collect::<serde_json::Map<_, _>>().into();
    let pod = Pod::start(&store, "db", "a");
    let leadership = pod.leading().await;
    assert_eq!(leadership.commit(&done("1:a", &pods)).await, WriteResult::Done);
    let web = Pod::start(&store, "web", "w");
    let mut observer = Observer::new(&web.leading().await, &["db"]);
    let seen = observer.until("the snapshot", |seen| seen.dependencies["db"].snapshot.len() == 5000).await;
    assert_eq!(seen.dependencies["db"].snapshot, view(&pods).pods);
    pod.member.resign(leadership.epoch).await;
    let last = pod.leading_after(leadership.epoch).await.read_configuration().await.unwrap();
    assert_eq!(&last.view, &*view(&pods));
}

async fn too_large_commit_has_no_effect_and_the_leadership_continues(store: StoreBackend) {
    let pod = Pod::start(&store, "web", "a");
    let leadership = pod.leading().await;
    // Random text, which cannot be compressed to less.
    let text: String = (0..MAX_COMMIT_BYTES / 16).map(|_| PodId::random().to_string()).collect();
    let large = json!({"a": {"seq": 0, "text": text}});
    let result = leadership.commit(&done("1:a", &large)).await;
    assert!(matches!(&result, WriteResult::Unknown(reason) if reason.contains("too large")), "{result:?}");
    assert_eq!(leadership.commit(&done("1:b", &json!({}))).await, WriteResult::Done);
    assert_eq!(leadership.read_configuration().await.unwrap().hash, StoredHash::Done(Digest::from("1:b")));
}

async fn keeper_reads_once_and_writes_in_order(store: StoreBackend) {
    let pod = Pod::start(&store, "web", "a");
    let leadership = pod.leading().await;
    let mut keeper = ConfigurationKeeper::new(leadership.clone());
    assert!(matches!(keeper.next().await, ConfigurationEvent::Read(last) if last.hash == StoredHash::parse(b"")));
    keeper.submit(StoreWrite::Pending(Digest::from("1:a")));
    keeper.submit(done("1:a", &json!({})));
    for expected in [StoredHash::Pending(Digest::from("1:a")), StoredHash::Done(Digest::from("1:a"))] {
        let event = time::timeout(DEFAULT_TIMEOUT, keeper.next()).await.unwrap();
        assert!(matches!(event, ConfigurationEvent::Written(WriteResult::Done)), "{event:?}");
        assert_eq!(leadership.read_configuration().await.unwrap().hash, expected);
    }
    assert!(time::timeout(Duration::from_millis(100), keeper.next()).await.is_err(), "no event is left");
}
