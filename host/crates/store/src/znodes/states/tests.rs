//! Publishing and observing states on the embedded store, with time paused.

use ochopod_model::{
    ClusterName, Registration,
    status::{LifecycleReport, ProcessState},
};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time};

use super::*;
use crate::{EmbeddedStore, MembershipHandle, StoreBackend};

const SESSION: Duration = Duration::from_secs(5);

fn layout() -> Layout {
    Layout::of("ns.web")
}

fn state(process: ProcessState, reason: Option<&str>) -> PodState {
    let reason = reason.map(str::to_owned);
    let report = LifecycleReport { process, configured: true, reason, ..LifecycleReport::default() };
    PodState::of(&report, false)
}

struct Started {
    member: MembershipHandle,
    actor: JoinHandle<()>,
}

fn start(store: &EmbeddedStore, id: &str) -> Started {
    let cluster = ClusterName::new("ns", "web").unwrap();
    let registration = json!({"ip": "127.0.0.1", "port": "8080"}).as_object().unwrap().clone();
    let backend = StoreBackend::embedded(store.clone());
    let (member, actor) = MembershipHandle::start(backend, &cluster, PodId::from(id), registration);
    Started { member, actor: tokio::spawn(actor) }
}

impl Started {
    fn session(&self) -> i64 {
        self.member.watch().borrow().session.unwrap()
    }
}

/// Reads the node of a pod: its content and the transaction that created it.
async fn published(store: &EmbeddedStore, id: &str) -> Option<(Value, i64)> {
    let node = store.connect().read(&layout().state(&PodId::from(id))).await.unwrap()?;
    Some((serde_json::from_slice(&node.data).unwrap(), node.created))
}

async fn process(store: &EmbeddedStore, id: &str) -> Option<String> {
    Some(published(store, id).await?.0["process"].as_str()?.to_owned())
}

async fn settle() {
    time::sleep(Duration::from_secs(2)).await;
}

/// Writes a node that another client made: the node of a pod is replaced if it exists.
async fn overwrite(store: &EmbeddedStore, session: &dyn Coordination, id: &str, data: &[u8]) {
    let path = layout().state(&PodId::from(id));
    let there = store.connect().read(&path).await.unwrap().is_some();
    let create =
        Op::Create { path: path.clone(), data: data.to_vec(), mode: Mode::Persistent, access: NodeAccess::Cluster };
    let operations = if there { vec![Op::Delete(path), create] } else { vec![create] };
    session.commit(operations).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn state_of_a_registered_pod_is_published_until_its_session_ends() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    settle().await;
    assert_eq!(published(&store, "a").await, None, "nothing is published yet");
    pod.member.publish(state(ProcessState::Stopped, Some("turned off")));
    settle().await;
    let keys = |content: &Value| ["process", "ready", "reason"].map(|key| content[key].clone());
    let (content, _) = published(&store, "a").await.unwrap();
    assert_eq!(keys(&content), [json!("stopped"), json!(false), json!("turned off")]);
    pod.member.publish(state(ProcessState::Running, None));
    settle().await;
    let (content, _) = published(&store, "a").await.unwrap();
    assert_eq!(keys(&content), [json!("running"), json!(true), Value::Null]);
    pod.member.leave().await;
    pod.actor.await.unwrap();
    assert_eq!(published(&store, "a").await, None);
}

#[tokio::test(start_paused = true)]
async fn state_changes_in_quick_succession_are_one_write() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    pod.member.publish(state(ProcessState::Running, None));
    settle().await;
    let session = store.connect();
    let path = layout().state(&PodId::from("a"));
    let writes = async |change: &dyn Fn()| {
        let mut count = 0;
        let (_, mut changed) = session.read_and_watch(&path).await.unwrap();
        change();
        let end = time::Instant::now() + 3 * RESYNC_INTERVAL;
        while time::timeout_at(end, &mut changed).await.is_ok() {
            count += 1;
            changed = session.read_and_watch(&path).await.unwrap().1;
        }
        count
    };
    assert_eq!(writes(&|| {}).await, 0, "an idle pod writes nothing");
    assert_eq!(
        writes(&|| pod.member.publish(state(ProcessState::Running, None))).await,
        0,
        "an unchanged state is not written again"
    );
    let restart = || {
        pod.member.publish(state(ProcessState::Terminating, None));
        pod.member.publish(state(ProcessState::Stopped, Some("stopped")));
        pod.member.publish(state(ProcessState::Dead, Some("killed")));
    };
    assert_eq!(writes(&restart).await, 1);
    assert_eq!(process(&store, "a").await.as_deref(), Some("dead"));
}

#[tokio::test(start_paused = true)]
async fn state_is_published_again_under_a_new_session() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    pod.member.publish(state(ProcessState::Running, None));
    settle().await;
    let (_, before) = published(&store, "a").await.unwrap();
    // The same node, owned by another session that has not expired yet.
    let older = store.connect();
    store.expire(pod.session());
    let path = layout().state(&PodId::from("a"));
    let leftover =
        Op::Create { path: path.clone(), data: b"{}".to_vec(), mode: Mode::Ephemeral, access: NodeAccess::Cluster };
    older.commit(vec![leftover]).await.unwrap();
    settle().await;
    let node = store.connect().read(&path).await.unwrap().unwrap();
    assert_eq!(node.owner, Some(pod.session()));
    assert_eq!(PodState::parse(&node.data), Some(state(ProcessState::Running, None)));
    assert!(node.created > before);
}

#[tokio::test(start_paused = true)]
async fn state_deleted_or_overwritten_by_another_client_is_restored() {
    let store = EmbeddedStore::new(SESSION);
    let other_client = store.connect();
    let pod = start(&store, "a");
    pod.member.publish(state(ProcessState::Running, None));
    settle().await;
    let path = layout().state(&PodId::from("a"));
    overwrite(&store, &*other_client, "a", b"junk").await;
    settle().await;
    assert_eq!(process(&store, "a").await.as_deref(), Some("running"));
    other_client.commit(vec![Op::Set { path: path.clone(), data: b"junk".to_vec() }]).await.unwrap();
    settle().await;
    assert_eq!(process(&store, "a").await.as_deref(), Some("running"));
    other_client.commit(vec![Op::Delete(path), Op::Delete(layout().states())]).await.unwrap();
    time::sleep(Duration::from_secs(10)).await;
    assert_eq!(process(&store, "a").await.as_deref(), Some("running"));
}

#[tokio::test(start_paused = true)]
async fn state_that_is_always_overwritten_is_restored_with_growing_delays() {
    let store = EmbeddedStore::new(SESSION);
    let other_client = store.connect();
    let pod = start(&store, "a");
    pod.member.publish(state(ProcessState::Running, None));
    settle().await;
    let path = layout().state(&PodId::from("a"));
    let (end, mut restored) = (time::Instant::now() + Duration::from_mins(10), 0);
    loop {
        other_client.commit(vec![Op::Set { path: path.clone(), data: b"junk".to_vec() }]).await.unwrap();
        let (_, changed) = other_client.read_and_watch(&path).await.unwrap();
        if time::timeout_at(end, changed).await.is_err() {
            break;
        }
        restored += 1;
    }
    assert!((5..60).contains(&restored), "{restored} times in 10 minutes");
    assert!(pod.member.watch().borrow().registered.is_some());
}

struct Observing {
    observation: watch::Sender<Option<Arc<Observation>>>,
    states: watch::Receiver<Option<Arc<States>>>,
    _task: JoinHandle<Infallible>,
}

fn observing(store: &EmbeddedStore) -> Observing {
    let (observation, observations) = watch::channel(None);
    let (publish, states) = watch::channel(None);
    let task = tokio::spawn(observe_states(store.connect(), layout(), observations, publish));
    Observing { observation, states, _task: task }
}

impl Observing {
    fn registered(&self, ids: &[&str]) {
        let fields = json!({"seq": 1}).as_object().unwrap().clone();
        let registration = Arc::new(Registration::from_fields(fields).unwrap());
        let pods = ids.iter().map(|id| (PodId::from(*id), registration.clone())).collect();
        self.observation.send_replace(Some(Arc::new(Observation { pods, ..Observation::default() })));
    }

    async fn states(&mut self) -> Vec<(String, ProcessState)> {
        settle().await;
        let states = self.states.borrow_and_update().clone().expect("states that were read");
        states.iter().map(|(id, state)| (id.to_string(), state.process)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn only_states_of_registered_pods_are_observed() {
    let store = EmbeddedStore::new(SESSION);
    let (first, second) = (start(&store, "a"), start(&store, "b"));
    let mut observing = observing(&store);
    settle().await;
    assert!(observing.states.borrow().is_none(), "no pods are known yet");
    observing.registered(&["a", "python"]);
    assert_eq!(observing.states().await, []);
    first.member.publish(state(ProcessState::Stopped, Some("turned off")));
    second.member.publish(state(ProcessState::Dead, Some("killed")));
    assert_eq!(observing.states().await, [("a".to_owned(), ProcessState::Stopped)]);
    observing.registered(&["a", "b", "python"]);
    let both = [("a".to_owned(), ProcessState::Stopped), ("b".to_owned(), ProcessState::Dead)];
    assert_eq!(observing.states().await, both);
    first.member.publish(state(ProcessState::Running, None));
    second.member.leave().await;
    assert_eq!(observing.states().await, [("a".to_owned(), ProcessState::Running)]);
    observing.registered(&[]);
    assert_eq!(observing.states().await, []);
}

#[tokio::test(start_paused = true)]
async fn invalid_state_counts_as_none_and_hides_no_other_state() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    pod.member.publish(state(ProcessState::Stopped, Some("turned off")));
    settle().await;
    let other_client = store.connect();
    let deep = "[".repeat(100_000);
    let junk: [&[u8]; 5] = [b"", b"\xff\x00", b"[1]", br#"{"process":"haunted"}"#, deep.as_bytes()];
    let ids: Vec<String> = (0..junk.len()).map(|id| format!("junk-{id}")).collect();
    for (id, data) in ids.iter().zip(junk) {
        overwrite(&store, &*other_client, id, data).await;
    }
    let mut observing = observing(&store);
    let all: Vec<&str> = ids.iter().map(String::as_str).chain(["a"]).collect();
    observing.registered(&all);
    assert_eq!(observing.states().await, [("a".to_owned(), ProcessState::Stopped)]);
    for id in &ids {
        overwrite(&store, &*other_client, id, br#"{"process":"dead"}"#).await;
    }
    assert_eq!(observing.states().await.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn state_changed_during_an_outage_is_observed_after_it() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    pod.member.publish(state(ProcessState::Running, None));
    settle().await;
    let session = store.connect();
    let id = session.id();
    let (observation, observations) = watch::channel(None);
    let (publish, states) = watch::channel(None);
    let task = tokio::spawn(observe_states(session, layout(), observations, publish));
    let mut observing = Observing { observation, states, _task: task };
    observing.registered(&["a"]);
    assert_eq!(observing.states().await, [("a".to_owned(), ProcessState::Running)]);
    store.suspend(id);
    pod.member.publish(state(ProcessState::Dead, Some("killed")));
    time::sleep(4 * SESSION).await;
    store.resume(id);
    time::sleep(Duration::from_mins(1)).await;
    assert_eq!(observing.states().await, [("a".to_owned(), ProcessState::Dead)]);
}

#[tokio::test(start_paused = true)]
async fn states_are_published_once_all_of_the_first_observation_were_read() {
    let store = EmbeddedStore::new(SESSION);
    let pod = start(&store, "a");
    pod.member.publish(state(ProcessState::Stopped, Some("turned off")));
    settle().await;
    let session = store.connect();
    let id = session.id();
    store.suspend(id);
    let (observation, observations) = watch::channel(None);
    let (publish, states) = watch::channel(None);
    let task = tokio::spawn(observe_states(session, layout(), observations, publish));
    let mut observing = Observing { observation, states, _task: task };
    observing.registered(&["a", "python"]);
    settle().await;
    assert!(observing.states.borrow().is_none(), "the store does not answer");
    store.resume(id);
    time::sleep(Duration::from_mins(1)).await;
    assert_eq!(observing.states().await, [("a".to_owned(), ProcessState::Stopped)]);
}
