//! Observing the embedded store, with time paused.

use tokio::task::JoinHandle;

use super::*;
use crate::{
    EmbeddedStore,
    znodes::{
        Mode, NodeAccess, Op,
        layout::{CLUSTERS, Layout},
    },
};

const SESSION: Duration = Duration::from_secs(5);

fn create(path: &str, content: &str, mode: Mode) -> Op {
    Op::Create { path: path.to_owned(), data: content.as_bytes().to_vec(), mode, access: NodeAccess::Cluster }
}

/// Returns a store with empty clusters of these names, and a session to change it.
async fn store(clusters: &[&str]) -> (EmbeddedStore, Arc<dyn Coordination>) {
    let store = EmbeddedStore::new(SESSION);
    let session = store.connect();
    let above = vec![create("/ochopod", "", Mode::Persistent), create(CLUSTERS, "", Mode::Persistent)];
    session.commit(above).await.unwrap();
    for name in clusters {
        add_cluster(&*session, name).await;
    }
    (store, session)
}

async fn add_cluster(session: &dyn Coordination, name: &str) {
    let layout = Layout::of(name);
    let nodes = [layout.root().to_owned(), layout.pods()];
    session.commit(nodes.iter().map(|path| create(path, "", Mode::Persistent)).collect()).await.unwrap();
}

async fn register(session: &dyn Coordination, cluster: &str, id: &str, content: &str) -> String {
    let path = format!("{}/{id}.", Layout::of(cluster).pods());
    session.commit(vec![create(&path, content, Mode::EphemeralSequential)]).await.unwrap().remove(0)
}

struct Observing {
    observations: watch::Receiver<Option<Arc<Observation>>>,
    reading: watch::Receiver<bool>,
    session: i64,
    task: JoinHandle<CoordError>,
}

fn observing(store: &EmbeddedStore, dependencies: &[&str]) -> Observing {
    let own = ClusterName::new("ns", "web").unwrap();
    let dependencies = dependencies.iter().map(|d| Dependency::new(d, &own).unwrap()).collect();
    let (publish, observations) = watch::channel(None);
    let (publish_reading, reading) = watch::channel(false);
    let session = store.connect();
    let id = session.id();
    let task = tokio::spawn(observe(session, own, dependencies, publish, publish_reading));
    Observing { observations, reading, session: id, task }
}

impl Observing {
    /// Returns the observation once nothing is left to be read.
    async fn observation(&mut self) -> Arc<Observation> {
        time::sleep(Duration::from_millis(1)).await;
        self.observations.borrow_and_update().clone().expect("nothing was published")
    }

    async fn pods(&mut self) -> Vec<(String, u64)> {
        self.observation().await.pods.iter().map(|(id, pod)| (id.to_string(), pod.seq())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn registered_changed_and_deregistered_pods_are_observed_immediately() {
    let (store, session) = store(&["ns.web"]).await;
    let mut observing = observing(&store, &[]);
    assert_eq!(observing.pods().await, []);
    let path = register(&*session, "ns.web", "a", "{}").await;
    assert_eq!(observing.pods().await, [], "it has no number yet");
    session.commit(vec![Op::Set { path: path.clone(), data: br#"{"seq":7}"#.to_vec() }]).await.unwrap();
    assert_eq!(observing.pods().await, [("a".to_owned(), 7)]);
    register(&*session, "ns.web", "b", r#"{"seq":8}"#).await;
    session.commit(vec![Op::Set { path: path.clone(), data: br#"{"seq":7,"status":"dead"}"#.to_vec() }]).await.unwrap();
    let observation = observing.observation().await;
    assert_eq!(observation.pods.values().map(|pod| pod.is_dead()).collect::<Vec<_>>(), [true, false]);
    session.commit(vec![Op::Delete(path)]).await.unwrap();
    assert_eq!(observing.pods().await, [("b".to_owned(), 8)]);
}

#[tokio::test(start_paused = true)]
async fn cluster_is_observed_once_it_exists() {
    let (store, session) = store(&[]).await;
    let mut observing = observing(&store, &["db", "cache-*"]);
    let observation = observing.observation().await;
    assert_eq!(observation.dependencies.keys().collect::<Vec<_>>(), ["cache-*", "db"]);
    for name in ["ns.web", "ns.db", "ns.cache-1", "ns.other"] {
        add_cluster(&*session, name).await;
        register(&*session, name, "x", r#"{"seq":1}"#).await;
    }
    let observation = observing.observation().await;
    assert_eq!(observation.pods.len(), 1);
    assert!(
        observation.dependencies.values().all(|observed| observed.unsettled.len() == 1 && observed.snapshot.is_empty())
    );
    for name in ["ns.db", "ns.cache-1"] {
        let snapshot = create(&Layout::of(name).snapshot(), r#"{"x":{"seq":1}}"#, Mode::Ephemeral);
        session.commit(vec![snapshot]).await.unwrap();
    }
    let observation = observing.observation().await;
    assert!(
        observation.dependencies.values().all(|observed| observed.unsettled.is_empty() && observed.snapshot.len() == 1)
    );
    session.close().await;
    let observation = observing.observation().await;
    assert!(observation.pods.is_empty());
    assert!(observation.dependencies.values().all(|observed| *observed == ObservedDependency::default()));
}

#[tokio::test(start_paused = true)]
async fn changes_during_an_outage_are_published_after_it() {
    let (store, session) = store(&["ns.web", "ns.db"]).await;
    register(&*session, "ns.web", "a", r#"{"seq":1}"#).await;
    let mut observing = observing(&store, &["db"]);
    assert_eq!(observing.pods().await.len(), 1);
    store.suspend(observing.session);
    register(&*session, "ns.web", "b", r#"{"seq":2}"#).await;
    assert!(!*observing.reading.borrow());
    time::sleep(10 * SESSION).await;
    assert!(!observing.observations.has_changed().unwrap());
    assert!(*observing.reading.borrow(), "what has changed is not known yet");
    store.resume(observing.session);
    assert_eq!(observing.pods().await.len(), 2);
    assert!(!*observing.reading.borrow());
    store.expire(observing.session);
    assert_eq!(observing.task.await.unwrap(), CoordError::SessionLost);
}

#[tokio::test(start_paused = true)]
async fn unchanged_cluster_is_not_published_again() {
    let (store, session) = store(&["ns.web"]).await;
    for id in 0..1000 {
        register(&*session, "ns.web", &format!("pod-{id}"), &format!(r#"{{"seq":{id}}}"#)).await;
    }
    let mut observing = observing(&store, &["*"]);
    assert_eq!(observing.pods().await.len(), 1000);
    time::sleep(10 * RESYNC_INTERVAL).await;
    assert!(!observing.observations.has_changed().unwrap());
    register(&*session, "ns.web", "last", r#"{"seq":1000}"#).await;
    assert_eq!(observing.pods().await.len(), 1001);
}
