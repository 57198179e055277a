//! Membership on the embedded store, with time paused.

use ochopod_model::{
    Registration,
    status::{LifecycleReport, ProcessState},
};
use serde_json::json;
use tokio::task::JoinHandle;

use super::*;
use crate::{
    EmbeddedStore,
    znodes::{Mode, NodeAccess, Op, layout::parse_registration},
};

const SESSION: Duration = Duration::from_secs(5);

struct Started {
    member: MembershipHandle,
    actor: JoinHandle<()>,
}

fn cluster() -> ClusterName {
    ClusterName::new("ns", "web").unwrap()
}

fn layout() -> Layout {
    Layout::new(&cluster())
}

fn start(store: &EmbeddedStore, id: &str) -> Started {
    let registration = json!({"ip": "127.0.0.1", "port": "8080", "status": ""}).as_object().unwrap().clone();
    let backend = StoreBackend::embedded(store.clone());
    let (member, actor) = MembershipHandle::start(backend, &cluster(), PodId::from(id), registration);
    Started { member, actor: tokio::spawn(actor) }
}

impl Started {
    /// Waits for a membership that fulfils the condition.
    async fn until(&self, what: &str, condition: impl FnMut(&Membership) -> bool) -> Membership {
        let mut watch = self.member.watch();
        let reached = time::timeout(Duration::from_mins(1), watch.wait_for(condition)).await;
        reached.unwrap_or_else(|_| panic!("not within a minute: {what}")).unwrap().clone()
    }

    async fn registered(&self) -> ActiveRegistration {
        self.until("registered", |m| m.registered.is_some()).await.registered.unwrap()
    }

    async fn leading(&self) -> Leadership {
        self.until("leading", |m| m.leadership.is_some()).await.leadership.unwrap()
    }

    fn session(&self) -> i64 {
        self.member.watch().borrow().session.unwrap()
    }

    fn is_leader(&self) -> bool {
        self.member.watch().borrow().leadership.is_some()
    }
}

/// Returns the registrations in the store: name and content.
async fn registrations(store: &EmbeddedStore) -> Vec<(String, Registration)> {
    let session = store.connect();
    let mut found = Vec::new();
    for name in session.children(&layout().pods()).await.unwrap().unwrap_or_default() {
        let node = session.read(&format!("{}/{name}", layout().pods())).await.unwrap().unwrap();
        found.push((name, Registration::parse(&node.data).unwrap()));
    }
    found
}

async fn locks(store: &EmbeddedStore) -> Vec<String> {
    store.connect().children(&layout().coordinator()).await.unwrap().unwrap_or_default()
}

/// Lets all pending work finish.
async fn settle() {
    time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn second_pod_leads_immediately_after_the_first_deregistered() {
    let store = EmbeddedStore::new(SESSION);
    let first = start(&store, "a");
    let epoch = first.leading().await.epoch;
    let second = start(&store, "b");
    assert_eq!(first.registered().await.seq, 0);
    assert_eq!(second.registered().await.seq, 1);
    settle().await;
    assert!(!second.is_leader());
    assert_eq!(second.member.lock_holder().await.unwrap().map(|holder| holder.epoch), Some(epoch));

    let before = time::Instant::now();
    first.member.leave().await;
    first.actor.await.unwrap();
    assert!(second.leading().await.epoch > epoch);
    assert_eq!(before.elapsed(), Duration::ZERO, "no timer was needed");
    assert_eq!(registrations(&store).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn registration_contains_the_given_fields_and_the_number_of_its_node() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    let seq = pod.registered().await.seq;
    let (name, registration) = registrations(&store).await.remove(0);
    assert_eq!(parse_registration(&name), Some((PodId::from("a"), seq)));
    assert_eq!(registration.text("port"), "8080");
    assert_eq!(registration.seq(), seq);
    let hash = store.connect().read(&layout().hash()).await.unwrap().unwrap();
    assert_eq!((hash.data, hash.owner), (Vec::new(), None));
}

#[tokio::test(start_paused = true)]
async fn seq_is_kept_over_a_lost_session_and_a_reset() {
    let store = EmbeddedStore::new(SESSION);
    let (_other, pod) = (start(&store, "a"), start(&store, "b"));
    let first = pod.registered().await;
    assert!(!first.after_loss);

    let session = pod.session();
    store.expire(session);
    let lost = pod.until("back", |m| m.registered.is_some() && m.session != Some(session)).await;
    assert_eq!(lost.registered.map(|r| (r.seq, r.after_loss)), Some((first.seq, true)));
    assert_eq!(lost.reconnected_at, lost.registered.map(|r| r.at));

    let session = pod.session();
    pod.member.reset().await;
    let reset = pod.until("back", |m| m.registered.is_some() && m.session != Some(session)).await;
    assert_eq!(reset.registered.map(|r| (r.seq, r.after_loss)), Some((first.seq, false)));
    assert_eq!(reset.reconnected_at, None);
    assert_eq!(registrations(&store).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn nodes_of_an_earlier_session_are_deleted_in_the_commit_that_registers_again() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    let lock = pod.leading().await.lock().to_owned();
    // The same nodes, owned by another session that has not expired yet.
    let session = pod.session();
    let older = store.connect();
    let create = |path: String| {
        let data = br#"{"seq":0}"#.to_vec();
        Op::Create { path, data, mode: Mode::Ephemeral, access: NodeAccess::Cluster }
    };
    store.suspend(session);
    pod.until("suspended", |m| m.state == SessionState::Suspended).await;
    store.expire(session);
    let registration = format!("{}0000000000", layout().registration(&PodId::from("a")));
    older.commit(vec![create(lock.clone()), create(registration)]).await.unwrap();

    pod.leading().await;
    assert_eq!(registrations(&store).await.len(), 1);
    let locks = locks(&store).await;
    assert_eq!(locks.len(), 1);
    assert!(!lock.ends_with(&locks[0]));
}

#[tokio::test(start_paused = true)]
async fn new_pod_in_an_emptied_store_gets_a_seq_above_all_registered_ones() {
    let store = EmbeddedStore::new(SESSION);
    for id in 0..200 {
        let passing = start(&store, &format!("passing-{id}"));
        passing.registered().await;
        passing.member.leave().await;
    }
    let old = start(&store, "old");
    assert_eq!(old.registered().await.seq, 200);
    let session = old.session();
    store.wipe();
    old.until("back", |m| m.registered.is_some() && m.session != Some(session)).await;
    assert_eq!(start(&store, "new").registered().await.seq, 201);
    let mut seqs: Vec<u64> = registrations(&store).await.iter().map(|(_, r)| r.seq()).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, [200, 201], "nothing else is left");
}

#[tokio::test(start_paused = true)]
async fn new_pods_among_many_that_return_to_an_emptied_store_get_seqs_of_their_own() {
    let store = EmbeddedStore::new(SESSION);
    let old: Vec<_> = (0..100).map(|id| start(&store, &format!("old-{id}"))).collect();
    for pod in &old {
        pod.registered().await;
    }
    let sessions: Vec<_> = old.iter().map(Started::session).collect();
    store.wipe();
    for (pod, session) in old.iter().zip(sessions) {
        pod.until("back", |m| m.registered.is_some() && m.session != Some(session)).await;
    }
    let new: Vec<_> = (0..20).map(|id| start(&store, &format!("new-{id}"))).collect();
    for pod in &new {
        pod.registered().await;
    }
    let mut seqs: Vec<u64> = registrations(&store).await.iter().map(|(_, r)| r.seq()).collect();
    seqs.sort_unstable();
    assert_eq!(seqs[..100], (0..100).collect::<Vec<_>>()[..]);
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]) && seqs.len() == 120, "{seqs:?}");
}

#[tokio::test(start_paused = true)]
async fn suspended_session_does_not_lead_and_resumes_with_the_same_epoch() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    let epoch = pod.leading().await.epoch;
    let registered = pod.registered().await;
    assert_eq!(pod.member.watch().borrow().reconnected_at, None);
    store.suspend(pod.session());
    let suspended = pod.until("suspended", |m| m.state == SessionState::Suspended).await;
    assert!(suspended.leadership.is_none());
    assert_eq!(suspended.registered, Some(registered), "the registration still stands");
    let before = time::Instant::now();
    assert!(matches!(pod.member.lock_holder().await, Err(CoordError::Unavailable(_))));
    assert_eq!(before.elapsed(), Duration::ZERO, "immediately");

    store.resume(pod.session());
    assert_eq!(pod.leading().await.epoch, epoch);
    assert_eq!(pod.registered().await, registered);
    assert!(pod.member.watch().borrow().reconnected_at.is_some(), "others may still be on their way back");
}

#[tokio::test(start_paused = true)]
async fn pod_that_resumes_after_another_acquired_the_lock_does_not_lead() {
    let store = EmbeddedStore::new(SESSION);
    let first = start(&store, "a");
    let lock = first.leading().await.lock().to_owned();
    let second = start(&store, "b");
    second.registered().await;
    settle().await;
    store.suspend(first.session());
    store.connect().commit(vec![Op::Delete(lock)]).await.unwrap();
    second.leading().await;
    store.resume(first.session());
    first.until("connected", |m| m.state == SessionState::Connected).await;
    settle().await;
    assert!(!first.is_leader() && second.is_leader());
    assert_eq!(locks(&store).await.len(), 2, "it waits for its turn");
}

#[tokio::test(start_paused = true)]
async fn retired_pod_is_registered_as_dead_and_never_contends_again() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    pod.leading().await;
    pod.member.retire().await;
    let says = |found: Vec<(String, Registration)>| found.iter().map(|(_, r)| r.is_dead()).collect::<Vec<_>>();
    assert_eq!(says(registrations(&store).await), [true]);
    assert_eq!(locks(&store).await, Vec::<String>::new());
    assert!(!pod.is_leader());

    let session = pod.session();
    store.expire(session);
    pod.until("back", |m| m.registered.is_some() && m.session != Some(session)).await;
    settle().await;
    assert_eq!(says(registrations(&store).await), [true]);
    assert_eq!(locks(&store).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn resignation_of_the_current_leadership_queues_the_pod_behind_all_others() {
    let store = EmbeddedStore::new(SESSION);
    let first = start(&store, "a");
    let epoch = first.leading().await.epoch;
    let second = start(&store, "b");
    second.registered().await;
    settle().await;
    first.member.resign(epoch - 1).await;
    assert!(first.is_leader());
    first.member.resign(epoch).await;
    assert!(!first.is_leader());
    let next = second.leading().await.epoch;
    assert_eq!(first.member.lock_holder().await.unwrap().map(|holder| holder.epoch), Some(next));
    second.member.resign(next).await;
    assert!(first.leading().await.epoch > next);
}

#[tokio::test(start_paused = true)]
async fn pod_that_steps_down_stays_registered_and_releases_the_lock() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    pod.leading().await;
    pod.member.step_down().await;
    assert_eq!(locks(&store).await, Vec::<String>::new());
    assert_eq!(pod.member.lock_holder().await.unwrap(), None);
    settle().await;
    assert_eq!(locks(&store).await, Vec::<String>::new());
    assert_eq!(registrations(&store).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn pod_that_yields_contends_again_after_the_time_also_under_another_session() {
    let store = EmbeddedStore::new(SESSION);
    let first = start(&store, "a");
    let epoch = first.leading().await.epoch;
    let second = start(&store, "b");
    second.registered().await;
    settle().await;
    let before = time::Instant::now();
    first.member.yield_lock(2 * SESSION).await;
    assert!(!first.is_leader());
    let next = second.leading().await.epoch;
    assert!(next > epoch && before.elapsed() < SESSION);
    // A shorter time does not end the longer one.
    first.member.yield_lock(Duration::from_secs(1)).await;
    store.expire(first.session());
    second.member.retire().await;
    assert_eq!(second.member.lock_holder().await.unwrap(), None);
    assert!(first.leading().await.epoch > next);
    assert_eq!(before.elapsed(), 2 * SESSION);

    first.member.yield_lock(2 * SESSION).await;
    let before = time::Instant::now();
    first.member.stop_yielding().await;
    first.leading().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn pod_contends_only_while_it_may_and_a_dead_or_leaving_one_never() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    pod.leading().await;
    pod.member.set_contending(false).await;
    assert!(!pod.is_leader());
    pod.member.stop_yielding().await;
    let session = pod.session();
    store.expire(session);
    pod.until("back", |m| m.registered.is_some() && m.session != Some(session)).await;
    settle().await;
    assert_eq!(locks(&store).await, Vec::<String>::new());
    pod.member.set_contending(true).await;
    pod.leading().await;

    pod.member.retire().await;
    pod.member.yield_lock(Duration::from_secs(1)).await;
    pod.member.set_contending(true).await;
    time::sleep(4 * SESSION).await;
    assert_eq!(locks(&store).await, Vec::<String>::new());
    pod.member.revive().await;
    pod.leading().await;
    assert!(!registrations(&store).await[0].1.is_dead());

    pod.member.step_down().await;
    pod.member.revive().await;
    pod.member.yield_lock(Duration::from_secs(1)).await;
    pod.member.set_contending(true).await;
    time::sleep(4 * SESSION).await;
    assert_eq!(locks(&store).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn pod_waits_until_neither_view_nor_snapshot_contains_it() {
    let store = EmbeddedStore::new(SESSION);
    let (leader, pod) = (start(&store, "a"), start(&store, "b"));
    let leadership = leader.leading().await;
    pod.registered().await;
    time::timeout(SESSION, pod.member.until_excluded()).await.expect("no configuration contains it");
    let commit = async |pods: Value| {
        let view = serde_json::from_value(json!({"pods": pods, "dependencies": {}})).unwrap();
        let write = crate::StoreWrite::Commit(ochopod_model::Digest::from("1:x"), Arc::new(view));
        assert_eq!(leadership.commit(&write).await, crate::WriteResult::Done);
    };
    commit(json!({"a": {"seq": 0}, "b": {"seq": 1}})).await;
    let member = pod.member.clone();
    let waiting = tokio::spawn(async move { member.until_excluded().await });
    settle().await;
    store.expire(pod.session());
    time::sleep(4 * SESSION).await;
    assert!(!waiting.is_finished());
    commit(json!({"a": {"seq": 0}})).await;
    time::timeout(SESSION, waiting).await.expect("it is no longer configured").unwrap();
}

#[tokio::test(start_paused = true)]
async fn store_that_does_not_answer_fails_a_pause_immediately() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    pod.leading().await;
    assert_eq!(pod.member.resume().await, Ok(false));
    store.suspend(pod.session());
    pod.until("suspended", |m| m.state == SessionState::Suspended).await;
    let pause = Pause { by: "x".to_owned(), since: 5, reason: "move".to_owned() };
    assert!(matches!(pod.member.pause(&pause).await, Err(CoordError::Unavailable(_))));
    assert!(matches!(pod.member.resume().await, Err(CoordError::Unavailable(_))));
    assert!(matches!(pod.member.registered_pods().await, Err(CoordError::Unavailable(_))));
    pod.member.leave().await;
    pod.until("left", |m| m.state == SessionState::Lost).await;
    assert_eq!(pod.member.pause(&pause).await, Err(CoordError::SessionLost));
}

#[tokio::test(start_paused = true)]
async fn request_during_an_outage_returns_and_is_executed_after_it() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    pod.leading().await;
    store.suspend(pod.session());
    pod.until("suspended", |m| m.state == SessionState::Suspended).await;
    let before = time::Instant::now();
    pod.member.retire().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    store.resume(pod.session());
    settle().await;
    assert!(registrations(&store).await[0].1.is_dead());
    assert_eq!(locks(&store).await, Vec::<String>::new());

    store.suspend(pod.session());
    let before = time::Instant::now();
    pod.member.leave().await;
    assert!(before.elapsed() <= SESSION);
}

#[tokio::test(start_paused = true)]
async fn node_deleted_by_another_client_is_created_again() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    let leadership = pod.leading().await;
    let (name, _) = registrations(&store).await.remove(0);
    let deletions = vec![Op::Delete(leadership.lock().to_owned()), Op::Delete(format!("{}/{name}", layout().pods()))];
    store.connect().commit(deletions).await.unwrap();
    pod.until("leading again", |m| m.leadership.as_ref().is_some_and(|l| l.epoch > leadership.epoch)).await;
    let again = registrations(&store).await;
    assert_eq!(again.iter().map(|(_, r)| r.seq()).collect::<Vec<_>>(), [0]);
}

#[tokio::test(start_paused = true)]
async fn pod_deregisters_when_its_last_handle_is_dropped() {
    let store = EmbeddedStore::new(SESSION);
    let Started { member, actor } = start(&store, "a");
    let pod = Started { member, actor };
    pod.leading().await;
    drop(pod.member);
    pod.actor.await.unwrap();
    assert_eq!(registrations(&store).await.len(), 0);
    assert_eq!(locks(&store).await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn exactly_one_of_many_leads_whatever_happens_to_their_sessions() {
    let store = EmbeddedStore::new(SESSION);
    let pods: Vec<Started> = (0..8).map(|id| start(&store, &format!("pod-{id}"))).collect();
    for pod in &pods {
        pod.registered().await;
    }
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let pod = &pods[random.usize(..pods.len())];
        let session = pod.member.watch().borrow().session;
        match (session, random.u8(..5)) {
            (Some(session), 0) => store.expire(session),
            (Some(session), 1) => store.suspend(session),
            (Some(session), 2) => store.resume(session),
            (_, 3) => pod.member.reset().await,
            _ => time::sleep(Duration::from_millis(random.u64(..50))).await,
        }
        assert!(pods.iter().filter(|pod| pod.is_leader()).count() <= 1);
    }
    for pod in &pods {
        let session = pod.member.watch().borrow().session;
        if let Some(session) = session {
            store.resume(session);
        }
    }
    time::sleep(Duration::from_mins(1)).await;
    assert_eq!(pods.iter().filter(|pod| pod.is_leader()).count(), 1);
    assert_eq!(registrations(&store).await.len(), 8);
    assert_eq!(locks(&store).await.len(), 8);
    let mut seqs: Vec<u64> = registrations(&store).await.iter().map(|(_, r)| r.seq()).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (0..8).collect::<Vec<_>>());
}

/// Deletes a node and everything below it.
async fn delete_all(session: &dyn Coordination, path: &str) {
    let mut stack = vec![path.to_owned()];
    let mut found = Vec::new();
    while let Some(path) = stack.pop() {
        let names = session.children(&path).await.unwrap().unwrap_or_default();
        stack.extend(names.into_iter().map(|name| format!("{path}/{name}")));
        found.push(Op::Delete(path));
    }
    found.reverse();
    session.commit(found).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deleted_parent_nodes_are_created_again() {
    let store = EmbeddedStore::new(SESSION);
    let (pod, other) = (start(&store, "a"), start(&store, "b"));
    pod.leading().await;
    other.registered().await;
    for pod in [&pod, &other] {
        let running = LifecycleReport { process: ProcessState::Running, ..LifecycleReport::default() };
        pod.member.publish(PodState::of(&running, false));
    }
    let other_client = store.connect();
    let parents = layout().parents().map(|(path, _)| path);
    for path in parents.into_iter().chain([layout().root().to_owned()]) {
        settle().await;
        delete_all(&*other_client, &path).await;
        time::sleep(Duration::from_secs(5)).await;
        assert_eq!(registrations(&store).await.len(), 2, "{path}");
        assert_eq!(locks(&store).await.len(), 2, "{path}");
        assert_eq!(u8::from(pod.is_leader()) + u8::from(other.is_leader()), 1, "{path}");
        for (parent, _) in layout().parents() {
            // A hash is created again by a pod that registers, or by the leader that writes it.
            let is_needed = parent != layout().hash() || path != layout().hash();
            assert!(!is_needed || other_client.read(&parent).await.unwrap().is_some(), "{parent} after {path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn overwritten_registration_is_restored_with_growing_delays() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    let seq = pod.registered().await.seq;
    let (name, before) = registrations(&store).await.remove(0);
    let overwrite = async |name: &str| {
        let set = Op::Set { path: format!("{}/{name}", layout().pods()), data: br#"{"seq":99}"#.to_vec() };
        store.connect().commit(vec![set]).await
    };
    overwrite(&name).await.unwrap();
    settle().await;
    let (_, after) = registrations(&store).await.remove(0);
    assert_eq!((after.seq(), after.text("port")), (seq, before.text("port")));

    let (begin, mut times) = (time::Instant::now(), 0);
    while begin.elapsed() < Duration::from_mins(2) {
        if let Some((name, _)) = registrations(&store).await.into_iter().find(|(_, pod)| pod.seq() == seq) {
            overwrite(&name).await.unwrap();
            times += 1;
        }
        time::sleep(Duration::from_millis(1)).await;
    }
    assert!(times < 50, "it was written {times} times");
}

#[tokio::test(start_paused = true)]
async fn deleted_registration_is_reported_until_the_pod_is_registered_again() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    pod.registered().await;
    let delete = async || {
        let (name, _) = registrations(&store).await.remove(0);
        store.connect().commit(vec![Op::Delete(format!("{}/{name}", layout().pods()))]).await.unwrap();
    };
    // The first one is restored immediately, the next one after a delay.
    delete().await;
    settle().await;
    delete().await;
    let missing = pod.until("missing", |m| m.registered.is_none()).await;
    assert_eq!(missing.unregistered_reason(), Some("registration deleted by another client"));
    assert_eq!(pod.registered().await.seq, 0);
    assert_eq!(pod.member.watch().borrow().unregistered_reason(), None);
}
