//! Membership on the embedded store, with time paused: nothing here waits for real.

use serde_json::json;
use tokio::task::JoinHandle;

use super::*;
use crate::{
    cluster::Registration,
    coord::{Access, Embedded, Mode, Op, layout::parse_registration},
};

const SESSION: Duration = Duration::from_secs(5);

struct Started {
    member: Member,
    actor: JoinHandle<()>,
}

fn cluster() -> ClusterName {
    ClusterName::new("ns", "web").unwrap()
}

fn layout() -> Layout {
    Layout::new(&cluster())
}

fn start(store: &Embedded, id: &str) -> Started {
    let registration = json!({"ip": "127.0.0.1", "port": "8080", "status": ""}).as_object().unwrap().clone();
    let ensemble = Ensemble::Embedded(store.clone());
    let (member, actor) = Member::start(ensemble, &cluster(), PodId::from(id), registration);
    Started { member, actor: tokio::spawn(actor) }
}

impl Started {
    /// Waits for a membership that fulfils the condition.
    async fn until(&self, what: &str, condition: impl FnMut(&Membership) -> bool) -> Membership {
        let mut watch = self.member.watch();
        let reached = time::timeout(Duration::from_mins(1), watch.wait_for(condition)).await;
        reached.unwrap_or_else(|_| panic!("not within a minute: {what}")).unwrap().clone()
    }

    async fn registered(&self) -> Registered {
        self.until("registered", |m| m.registered.is_some()).await.registered.unwrap()
    }

    async fn leading(&self) -> Leadership {
        self.until("leading", |m| m.leadership.is_some()).await.leadership.unwrap()
    }

    fn session(&self) -> i64 {
        self.member.watch().borrow().session.unwrap()
    }

    fn leads(&self) -> bool {
        self.member.watch().borrow().leadership.is_some()
    }
}

/// The registrations in the store: name and content.
async fn registrations(store: &Embedded) -> Vec<(String, Registration)> {
    let session = store.connect();
    let mut found = Vec::new();
    for name in session.children(&layout().pods()).await.unwrap().unwrap_or_default() {
        let node = session.read(&format!("{}/{name}", layout().pods())).await.unwrap().unwrap();
        found.push((name, Registration::parse(&node.data).unwrap()));
    }
    found
}

async fn locks(store: &Embedded) -> Vec<String> {
    store.connect().children(&layout().coordinator()).await.unwrap().unwrap_or_default()
}

/// Lets everything happen that happens by itself.
async fn settle() {
    time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_the_other_follows_as_soon_as_it_leaves() {
    let store = Embedded::new(SESSION);
    let first = start(&store, "a");
    let epoch = first.leading().await.epoch;
    let second = start(&store, "b");
    assert_eq!(first.registered().await.seq, 0);
    assert_eq!(second.registered().await.seq, 1);
    settle().await;
    assert!(!second.leads());
    assert_eq!(second.member.holder().await.unwrap(), Some(epoch));

    let before = time::Instant::now();
    first.member.leave().await;
    first.actor.await.unwrap();
    assert!(second.leading().await.epoch > epoch);
    assert_eq!(before.elapsed(), Duration::ZERO, "no timer was needed");
    assert_eq!(registrations(&store).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_registration_is_what_was_given_with_the_number_of_its_node() {
    let store = Embedded::new(SESSION);
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
async fn the_number_is_kept_over_a_lost_session_and_over_a_reset() {
    let store = Embedded::new(SESSION);
    let (_other, pod) = (start(&store, "a"), start(&store, "b"));
    let first = pod.registered().await;
    assert!(!first.after_loss);

    let session = pod.session();
    store.expire(session);
    let lost = pod.until("back", |m| m.registered.is_some() && m.session != Some(session)).await;
    assert_eq!(lost.registered.map(|r| (r.seq, r.after_loss)), Some((first.seq, true)));
    assert_eq!(lost.back_since, lost.registered.map(|r| r.at));

    let session = pod.session();
    pod.member.reset().await;
    let reset = pod.until("back", |m| m.registered.is_some() && m.session != Some(session)).await;
    assert_eq!(reset.registered.map(|r| (r.seq, r.after_loss)), Some((first.seq, false)));
    assert_eq!(reset.back_since, None);
    assert_eq!(registrations(&store).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn leftovers_of_an_earlier_session_go_in_the_commit_that_registers_again() {
    let store = Embedded::new(SESSION);
    let pod = start(&store, "a");
    let lock = pod.leading().await.lock;
    // What outlives a session: the same nodes, held by another one that has not expired yet.
    let session = pod.session();
    let older = store.connect();
    let create = |path: String| {
        let data = br#"{"seq":0}"#.to_vec();
        Op::Create { path, data, mode: Mode::Ephemeral, access: Access::Cluster }
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
async fn a_newcomer_to_an_emptied_store_gets_a_number_above_those_that_pods_have_kept() {
    let store = Embedded::new(SESSION);
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
async fn a_suspended_session_does_not_lead_and_leads_with_the_same_epoch_once_resumed() {
    let store = Embedded::new(SESSION);
    let pod = start(&store, "a");
    let epoch = pod.leading().await.epoch;
    let registered = pod.registered().await;
    assert_eq!(pod.member.watch().borrow().back_since, None);
    store.suspend(pod.session());
    let suspended = pod.until("suspended", |m| m.state == SessionState::Suspended).await;
    assert!(suspended.leadership.is_none());
    assert_eq!(suspended.registered, Some(registered), "the registration still stands");
    let before = time::Instant::now();
    assert!(matches!(pod.member.holder().await, Err(CoordError::Unavailable(_))));
    assert_eq!(before.elapsed(), Duration::ZERO, "at once");

    store.resume(pod.session());
    assert_eq!(pod.leading().await.epoch, epoch);
    assert_eq!(pod.registered().await, registered);
    assert!(pod.member.watch().borrow().back_since.is_some(), "others may still be on their way back");
}

#[tokio::test(start_paused = true)]
async fn who_resumes_after_another_took_the_lock_does_not_lead() {
    let store = Embedded::new(SESSION);
    let first = start(&store, "a");
    let lock = first.leading().await.lock;
    let second = start(&store, "b");
    second.registered().await;
    settle().await;
    store.suspend(first.session());
    store.connect().commit(vec![Op::Delete(lock)]).await.unwrap();
    second.leading().await;
    store.resume(first.session());
    first.until("connected", |m| m.state == SessionState::Connected).await;
    settle().await;
    assert!(!first.leads() && second.leads());
    assert_eq!(locks(&store).await.len(), 2, "it waits for its turn");
}

#[tokio::test(start_paused = true)]
async fn a_retired_pod_says_so_and_never_contends_again_not_even_under_another_session() {
    let store = Embedded::new(SESSION);
    let pod = start(&store, "a");
    pod.leading().await;
    pod.member.retire().await;
    let says = |found: Vec<(String, Registration)>| found.iter().map(|(_, r)| r.is_dead()).collect::<Vec<_>>();
    assert_eq!(says(registrations(&store).await), [true]);
    assert_eq!(locks(&store).await, Vec::<String>::new());
    assert!(!pod.leads());

    let session = pod.session();
    store.expire(session);
    pod.until("back", |m| m.registered.is_some() && m.session != Some(session)).await;
    settle().await;
    assert_eq!(says(registrations(&store).await), [true]);
    assert_eq!(locks(&store).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn who_resigns_stands_behind_the_others_and_only_the_present_leadership_is_resigned() {
    let store = Embedded::new(SESSION);
    let first = start(&store, "a");
    let epoch = first.leading().await.epoch;
    let second = start(&store, "b");
    second.registered().await;
    settle().await;
    first.member.resign(epoch - 1).await;
    assert!(first.leads());
    first.member.resign(epoch).await;
    assert!(!first.leads());
    let next = second.leading().await.epoch;
    assert_eq!(first.member.holder().await.unwrap(), Some(next));
    second.member.resign(next).await;
    assert!(first.leading().await.epoch > next);
}

#[tokio::test(start_paused = true)]
async fn who_steps_down_stays_registered_and_nobody_holds_the_lock() {
    let store = Embedded::new(SESSION);
    let pod = start(&store, "a");
    pod.leading().await;
    pod.member.step_down().await;
    assert_eq!(locks(&store).await, Vec::<String>::new());
    assert_eq!(pod.member.holder().await.unwrap(), None);
    settle().await;
    assert_eq!(locks(&store).await, Vec::<String>::new());
    assert_eq!(registrations(&store).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_while_the_store_is_away_returns_and_is_done_when_it_is_back() {
    let store = Embedded::new(SESSION);
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
async fn a_node_deleted_by_somebody_else_is_made_again() {
    let store = Embedded::new(SESSION);
    let pod = start(&store, "a");
    let leadership = pod.leading().await;
    let (name, _) = registrations(&store).await.remove(0);
    let deletions = vec![Op::Delete(leadership.lock), Op::Delete(format!("{}/{name}", layout().pods()))];
    store.connect().commit(deletions).await.unwrap();
    pod.until("leading anew", |m| m.leadership.as_ref().is_some_and(|l| l.epoch > leadership.epoch)).await;
    let again = registrations(&store).await;
    assert_eq!(again.iter().map(|(_, r)| r.seq()).collect::<Vec<_>>(), [0]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_leaves() {
    let store = Embedded::new(SESSION);
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
    let store = Embedded::new(SESSION);
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
        assert!(pods.iter().filter(|pod| pod.leads()).count() <= 1);
    }
    for pod in &pods {
        let session = pod.member.watch().borrow().session;
        if let Some(session) = session {
            store.resume(session);
        }
    }
    time::sleep(Duration::from_mins(1)).await;
    assert_eq!(pods.iter().filter(|pod| pod.leads()).count(), 1);
    assert_eq!(registrations(&store).await.len(), 8);
    assert_eq!(locks(&store).await.len(), 8);
    let mut seqs: Vec<u64> = registrations(&store).await.iter().map(|(_, r)| r.seq()).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (0..8).collect::<Vec<_>>());
}
