//! Both stores keep the same promises, and pods coordinate through a real ZooKeeper.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of it is test"
)]

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use ochopod::{
    cluster::{ClusterName, PodId, Registration},
    coord::{
        COMMIT_LIMIT, CoordError, Coordination, Embedded, Ensemble, Leadership, Member, Membership, Mode, Op,
        SessionState, Watch, layout,
    },
};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time};

/// How long anything may take that does not wait for a timeout of ZooKeeper.
const SOON: Duration = Duration::from_secs(5);

// ---- a private server

/// A ZooKeeper server. It ends with this value, or with the test process.
struct Server {
    shell: Child,
    port: u16,
}

impl Server {
    /// Starts a server on this port that keeps its data here; without a directory, in one that goes with it. Java is the
    /// child of a shell that waits for the end of its input, which comes with the end of the test process at the latest.
    #[expect(clippy::disallowed_methods, reason = "tests own their servers; `init` is for the pods' children")]
    fn start(port: u16, data: Option<&Path>, options: &[&str]) -> Self {
        let script = r#"
            data=$1; shift
            if [ -z "$data" ]; then data=$(mktemp -d); trap 'rm -rf "$data"' EXIT; fi
            java "$@" "$data" 500 >"$data/log" 2>&1 &
            cat; kill -9 $!; wait"#;
        let shell = Command::new("sh")
            .args(["-c", script, "zookeeper"])
            .arg(data.unwrap_or(Path::new("")))
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.admin.enableServer=false"])
            .args(options)
            .args(["-cp", "/etc/zookeeper/conf:/usr/share/java/*"])
            .args(["org.apache.zookeeper.server.ZooKeeperServerMain", &port.to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("cannot start sh");
        Self { shell, port }
    }

    /// Kills the server without any chance to say good-bye.
    fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().expect("the server's shell is ours to wait for");
    }

    fn ensemble(&self, chroot: &str, session: Duration) -> Ensemble {
        let address = format!("zk://127.0.0.1:{}{chroot}", self.port).parse().unwrap();
        Ensemble::ZooKeeper { address, timeout: session }
    }

    /// Waits until it serves.
    async fn ready(self) -> Self {
        let ensemble = self.ensemble("", Duration::from_secs(4));
        eventually("the server answers", async || match ensemble.connect().await {
            Ok(session) => {
                session.close().await;
                true
            }
            Err(error) => matches!(error, CoordError::AuthFailed(_)),
        })
        .await;
        self
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The server that all tests of the contract share, each under its own chroot.
async fn shared_server() -> &'static Server {
    static SHARED: tokio::sync::OnceCell<Server> = tokio::sync::OnceCell::const_new();
    SHARED.get_or_init(async || Server::start(free_port(), None, &[]).ready().await).await
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        time::sleep(Duration::from_millis(20)).await;
    }
}

// ---- the contract of both stores

macro_rules! contract {
    ($($promise:ident)*) => {
        mod embedded {
            $(#[tokio::test] async fn $promise() {
                super::$promise(super::Ensemble::Embedded(super::Embedded::new(super::SOON))).await;
            })*
        }
        mod zookeeper {
            $(#[tokio::test] async fn $promise() {
                let server = super::shared_server().await;
                super::$promise(server.ensemble(concat!("/", stringify!($promise)), super::SOON)).await;
            })*
        }
    };
}

contract! {
    ephemeral_nodes_are_gone_when_the_close_of_their_session_returns_which_is_soon
    ephemeral_nodes_go_when_the_last_handle_on_their_session_is_dropped
    numbers_grow_within_the_parent_over_all_sessions
    a_node_tells_its_creation_and_its_owner
    a_commit_is_carried_out_in_order_and_tells_what_it_created
    a_refused_commit_changes_nothing_and_names_the_operation
    a_watch_completes_when_its_node_changes_and_not_before
    a_watch_of_children_completes_when_the_list_changes_and_not_before
    what_is_absent_can_be_watched
    what_is_too_large_is_refused_and_the_session_lives_on
    what_is_just_small_enough_is_taken
    a_closed_session_says_so_and_ends_what_waits_for_it
}

fn create(path: &str, data: &str, mode: Mode) -> Op {
    Op::Create { path: path.to_owned(), data: data.as_bytes().to_vec(), mode }
}

fn set(path: &str, data: &str) -> Op {
    Op::Set { path: path.to_owned(), data: data.as_bytes().to_vec() }
}

fn check(path: &str) -> Op {
    Op::Check(path.to_owned())
}

fn delete(path: &str) -> Op {
    Op::Delete(path.to_owned())
}

/// A session, and the persistent node `/top`.
async fn session(store: &Ensemble) -> Arc<dyn Coordination> {
    let session = store.connect().await.unwrap();
    if session.read("/top").await.unwrap().is_none() {
        session.commit(vec![create("/top", "", Mode::Persistent)]).await.unwrap();
    }
    session
}

async fn names(session: &dyn Coordination, path: &str) -> Vec<String> {
    let mut names = session.children(path).await.unwrap().unwrap();
    names.sort_unstable();
    names
}

async fn fires(what: &str, watch: &mut Watch) {
    assert!(time::timeout(SOON, watch).await.is_ok(), "the watch should have completed: {what}");
}

async fn is_quiet(what: &str, watch: &mut Watch) {
    let completed = time::timeout(Duration::from_millis(100), watch).await.is_ok();
    assert!(!completed, "the watch should not have completed: {what}");
}

async fn ephemeral_nodes_are_gone_when_the_close_of_their_session_returns_which_is_soon(store: Ensemble) {
    let (closing, other) = (session(&store).await, session(&store).await);
    let nodes = vec![create("/top/e", "x", Mode::Ephemeral), create("/top/n", "", Mode::EphemeralSequential)];
    closing.commit(nodes).await.unwrap();
    assert_eq!(names(&*other, "/top").await.len(), 2);
    let before = Instant::now();
    closing.close().await;
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    assert_eq!(names(&*other, "/top").await, Vec::<String>::new());
    assert!(other.read("/top").await.unwrap().is_some(), "a persistent node stays");
}

async fn ephemeral_nodes_go_when_the_last_handle_on_their_session_is_dropped(store: Ensemble) {
    let (dropped, other) = (session(&store).await, session(&store).await);
    dropped.commit(vec![create("/top/e", "", Mode::Ephemeral)]).await.unwrap();
    let (_, mut watch) = other.read_and_watch("/top/e").await.unwrap();
    drop(dropped);
    fires("the node of a dropped session", &mut watch).await;
    assert_eq!(other.read("/top/e").await.unwrap(), None);
}

async fn numbers_grow_within_the_parent_over_all_sessions(store: Ensemble) {
    let mut before = None;
    for _ in 0..3 {
        let session = session(&store).await;
        for _ in 0..3 {
            let created = session.commit(vec![create("/top/a.", "", Mode::EphemeralSequential)]).await.unwrap();
            let digits = created[0].strip_prefix("/top/a.").unwrap().to_owned();
            assert_eq!(digits.len(), 10, "{digits}");
            assert!(before.as_ref().is_none_or(|before| *before < digits));
            before = Some(digits);
        }
        session.close().await;
    }
}

async fn a_node_tells_its_creation_and_its_owner(store: Ensemble) {
    let session = session(&store).await;
    session.commit(vec![create("/top/p", "one", Mode::Persistent)]).await.unwrap();
    session.commit(vec![create("/top/e", "two", Mode::Ephemeral)]).await.unwrap();
    let persistent = session.read("/top/p").await.unwrap().unwrap();
    let ephemeral = session.read("/top/e").await.unwrap().unwrap();
    assert_eq!((persistent.data.as_slice(), persistent.owner), (b"one".as_slice(), None));
    assert_eq!((ephemeral.data.as_slice(), ephemeral.owner), (b"two".as_slice(), Some(session.id())));
    assert!(persistent.created < ephemeral.created);
    session.commit(vec![set("/top/p", "three")]).await.unwrap();
    assert_eq!(session.read("/top/p").await.unwrap().unwrap().created, persistent.created);
    session.commit(vec![delete("/top/e")]).await.unwrap();
    session.commit(vec![create("/top/e", "", Mode::Ephemeral)]).await.unwrap();
    assert!(session.read("/top/e").await.unwrap().unwrap().created > ephemeral.created);
}

async fn a_commit_is_carried_out_in_order_and_tells_what_it_created(store: Ensemble) {
    let session = session(&store).await;
    session.commit(vec![create("/top/old", "", Mode::Ephemeral)]).await.unwrap();
    let created = session
        .commit(vec![
            check("/top/old"),
            create("/top/dir", "", Mode::Persistent),
            create("/top/dir/n", "a", Mode::EphemeralSequential),
            set("/top/dir", "b"),
            delete("/top/old"),
            create("/top/old", "c", Mode::Ephemeral),
            create("/top/dir/n", "d", Mode::EphemeralSequential),
        ])
        .await
        .unwrap();
    assert_eq!(created, ["/top/dir", "/top/dir/n0000000000", "/top/old", "/top/dir/n0000000001"]);
    assert_eq!(session.read("/top/old").await.unwrap().unwrap().data, b"c");
    assert_eq!(session.read("/top/dir").await.unwrap().unwrap().data, b"b");
    assert_eq!(session.commit(Vec::new()).await.unwrap(), Vec::<String>::new());
}

async fn a_refused_commit_changes_nothing_and_names_the_operation(store: Ensemble) {
    let session = session(&store).await;
    let setup = vec![
        create("/top/full", "", Mode::Persistent),
        create("/top/full/x", "", Mode::Persistent),
        create("/top/e", "", Mode::Ephemeral),
    ];
    session.commit(setup).await.unwrap();
    let refused = [
        check("/top/none"),
        delete("/top/none"),
        delete("/top/full"),
        set("/top/none", "x"),
        create("/top/full", "", Mode::Persistent),
        create("/top/none/x", "", Mode::Ephemeral),
        create("/top/e/x", "", Mode::Ephemeral),
    ];
    for bad in refused {
        for index in 0..3 {
            let mut ops = vec![create("/top/new", "", Mode::Ephemeral), set("/top", "changed")];
            ops.insert(index, bad.clone());
            let error = session.commit(ops).await.unwrap_err();
            let expected = (index, bad.path());
            assert!(
                matches!(&error, CoordError::Conflict { index, path, .. } if (*index, path.as_str()) == expected),
                "{bad:?} at {index}: {error}"
            );
            assert_eq!(names(&*session, "/top").await, ["e", "full"]);
            assert_eq!(session.read("/top").await.unwrap().unwrap().data, b"");
        }
    }
}

async fn a_watch_completes_when_its_node_changes_and_not_before(store: Ensemble) {
    let (watching, other) = (session(&store).await, session(&store).await);
    let (node, mut created) = watching.read_and_watch("/top/x").await.unwrap();
    assert_eq!(node, None);
    other.commit(vec![create("/top/y", "", Mode::Ephemeral), set("/top/y", "1")]).await.unwrap();
    is_quiet("another node", &mut created).await;
    other.commit(vec![create("/top/x", "", Mode::Persistent)]).await.unwrap();
    fires("creation", &mut created).await;

    let (_, mut changed) = watching.read_and_watch("/top/x").await.unwrap();
    let (_, mut again) = watching.read_and_watch("/top/x").await.unwrap();
    other.commit(vec![create("/top/x/child", "", Mode::Ephemeral)]).await.unwrap();
    is_quiet("a child", &mut changed).await;
    other.commit(vec![set("/top/x", "new")]).await.unwrap();
    fires("content", &mut changed).await;
    fires("content, second watch", &mut again).await;

    let (node, mut deleted) = watching.read_and_watch("/top/x").await.unwrap();
    assert_eq!(node.unwrap().data, b"new");
    let (_, dropped) = watching.read_and_watch("/top/x").await.unwrap();
    drop(dropped);
    is_quiet("another watch was dropped", &mut deleted).await;
    other.commit(vec![delete("/top/x/child"), delete("/top/x")]).await.unwrap();
    fires("deletion", &mut deleted).await;
}

async fn a_watch_of_children_completes_when_the_list_changes_and_not_before(store: Ensemble) {
    let (watching, other) = (session(&store).await, session(&store).await);
    let (list, mut added) = watching.children_and_watch("/top").await.unwrap();
    assert_eq!(list, Some(Vec::new()));
    other.commit(vec![set("/top", "content")]).await.unwrap();
    is_quiet("content", &mut added).await;
    other.commit(vec![create("/top/x", "", Mode::Persistent)]).await.unwrap();
    fires("a new child", &mut added).await;

    let (list, mut removed) = watching.children_and_watch("/top").await.unwrap();
    assert_eq!(list, Some(vec!["x".to_owned()]));
    let (_, mut parent) = watching.children_and_watch("/top/x").await.unwrap();
    other.commit(vec![set("/top/x", "content")]).await.unwrap();
    is_quiet("content of a child", &mut removed).await;
    other.commit(vec![delete("/top/x")]).await.unwrap();
    fires("a child less", &mut removed).await;
    fires("the node itself is deleted", &mut parent).await;
}

async fn what_is_absent_can_be_watched(store: Ensemble) {
    let (watching, other) = (session(&store).await, session(&store).await);
    assert_eq!(watching.children("/top/x").await.unwrap(), None);
    let (list, mut watch) = watching.children_and_watch("/top/x").await.unwrap();
    assert_eq!(list, None);
    let (node, mut deep) = watching.read_and_watch("/top/x/y/z").await.unwrap();
    assert_eq!(node, None);
    other.commit(vec![create("/top/x", "", Mode::Persistent)]).await.unwrap();
    fires("creation of the parent to be", &mut watch).await;
    is_quiet("the parent's creation is not the node's", &mut deep).await;
    let parents = vec![create("/top/x/y", "", Mode::Persistent), create("/top/x/y/z", "", Mode::Persistent)];
    other.commit(parents).await.unwrap();
    fires("creation deep down", &mut deep).await;
}

async fn what_is_too_large_is_refused_and_the_session_lives_on(store: Ensemble) {
    let session = session(&store).await;
    let half = "x".repeat(COMMIT_LIMIT / 2);
    let whole = vec![create("/top/a", "", Mode::Ephemeral), create("/top/b", &half.repeat(2), Mode::Ephemeral)];
    let halves = vec![create("/top/a", &half, Mode::Ephemeral), create("/top/b", &(half + "x"), Mode::Ephemeral)];
    for ops in [whole, halves] {
        match session.commit(ops).await.unwrap_err() {
            CoordError::TooLarge { path, size, limit } => assert!(path == "/top/b" && size > limit),
            other => panic!("{other}"),
        }
    }
    assert_eq!(names(&*session, "/top").await, Vec::<String>::new());
    assert_eq!(*session.state().borrow(), SessionState::Connected);
}

async fn what_is_just_small_enough_is_taken(store: Ensemble) {
    let session = session(&store).await;
    let large = "x".repeat(COMMIT_LIMIT - 200);
    session.commit(vec![create("/top/a", &large, Mode::Ephemeral)]).await.unwrap();
    assert_eq!(session.read("/top/a").await.unwrap().unwrap().data.len(), large.len());
    let many: Vec<Op> = (0..2000)
        .map(|_| create("/top/n", &"y".repeat(COMMIT_LIMIT / 2000 - 150), Mode::EphemeralSequential))
        .collect();
    assert_eq!(session.commit(many).await.unwrap().len(), 2000);
}

async fn a_closed_session_says_so_and_ends_what_waits_for_it(store: Ensemble) {
    let session = session(&store).await;
    assert_eq!(*session.state().borrow(), SessionState::Connected);
    let (_, mut watch) = session.read_and_watch("/top").await.unwrap();
    let mut state = session.state();
    session.close().await;
    fires("the session's end", &mut watch).await;
    let lost = time::timeout(SOON, state.wait_for(|state| *state == SessionState::Lost)).await;
    assert!(lost.is_ok_and(|state| state.is_ok()));
    assert_eq!(session.read("/top").await, Err(CoordError::SessionLost));
    assert_eq!(session.commit(vec![check("/top")]).await, Err(CoordError::SessionLost));
    time::timeout(SOON, session.close()).await.expect("closing twice is harmless");
}

// ---- ZooKeeper alone

#[tokio::test]
async fn a_server_that_is_not_there_is_told_of_within_the_session_timeout() {
    for host in [format!("127.0.0.1:{}", free_port()), "does-not-exist.invalid:2181".to_owned()] {
        let timeout = Duration::from_secs(2);
        let ensemble = Ensemble::ZooKeeper { address: host.parse().unwrap(), timeout };
        let before = Instant::now();
        let error = ensemble.connect().await.map(|session| session.id()).unwrap_err();
        assert!(matches!(error, CoordError::Unavailable(_)), "{error}");
        assert!(before.elapsed() < timeout + Duration::from_millis(500), "{:?}", before.elapsed());
    }
}

#[tokio::test]
async fn a_chroot_is_created_and_everything_lives_below_it() {
    let server = shared_server().await;
    let inside = server.ensemble("/over/the/hills", SOON).connect().await.unwrap();
    inside.commit(vec![create("/x", "deep", Mode::Ephemeral)]).await.unwrap();
    let outside = server.ensemble("", SOON).connect().await.unwrap();
    assert_eq!(outside.read("/over/the/hills/x").await.unwrap().unwrap().data, b"deep");
    assert_eq!(outside.read("/x").await.unwrap(), None);
}

#[tokio::test]
async fn a_session_outlives_a_short_outage_and_its_watches_tell_of_it() {
    let (data, port) = (TempDir::new().unwrap(), free_port());
    let server = Server::start(port, Some(data.path()), &[]).ready().await;
    let ensemble = server.ensemble("", Duration::from_secs(10));
    let session = session(&ensemble).await;
    session.commit(vec![create("/top/e", "", Mode::Ephemeral)]).await.unwrap();
    let mut state = session.state();
    let (_, mut watch) = session.read_and_watch("/top/e").await.unwrap();
    server.kill();
    fires("the connection is gone", &mut watch).await;
    state.wait_for(|state| *state == SessionState::Suspended).await.unwrap();

    let _server = Server::start(port, Some(data.path()), &[]);
    let back = time::timeout(Duration::from_secs(14), state.wait_for(|state| *state != SessionState::Suspended)).await;
    assert_eq!(*back.expect("neither restored nor lost").unwrap(), SessionState::Connected);
    assert_eq!(session.read("/top/e").await.unwrap().unwrap().owner, Some(session.id()));
}

// ---- members on ZooKeeper

struct Pod {
    member: Member,
    actor: JoinHandle<()>,
}

fn start(ensemble: &Ensemble, id: &str) -> Pod {
    let registration = serde_json::json!({"ip": "127.0.0.1", "port": "8080"}).as_object().unwrap().clone();
    let cluster = ClusterName::new("ns", "web").unwrap();
    let (member, actor) = Member::start(ensemble.clone(), &cluster, PodId::from(id), registration);
    Pod { member, actor: tokio::spawn(actor) }
}

impl Pod {
    async fn until(&self, what: &str, condition: impl FnMut(&Membership) -> bool) -> Membership {
        let mut watch = self.member.watch();
        let reached = time::timeout(Duration::from_secs(30), watch.wait_for(condition)).await;
        reached.unwrap_or_else(|_| panic!("not within 30 s: {what}")).unwrap().clone()
    }

    async fn registered(&self) -> u64 {
        self.until("registered", |m| m.registered.is_some()).await.registered.unwrap().seq
    }

    async fn leading(&self) -> Leadership {
        self.until("leading", |m| m.leadership.is_some()).await.leadership.unwrap()
    }
}

/// Identity and `seq` of everything that is registered.
async fn registrations(ensemble: &Ensemble) -> Vec<(String, u64)> {
    let session = ensemble.connect().await.unwrap();
    let pods = layout::Layout::of("ns.web").pods();
    let mut found = Vec::new();
    for name in session.children(&pods).await.unwrap().unwrap_or_default() {
        let Some(node) = session.read(&format!("{pods}/{name}")).await.unwrap() else { continue };
        let (id, _) = layout::parse_registration(&name).unwrap();
        found.push((id.to_string(), Registration::parse(&node.data).unwrap().seq()));
    }
    session.close().await;
    found.sort_unstable();
    found
}

#[tokio::test]
async fn pods_register_one_leads_and_hands_over_when_it_leaves() {
    let ensemble = shared_server().await.ensemble("/members", SOON);
    let first = start(&ensemble, "a");
    let epoch = first.leading().await.epoch;
    let second = start(&ensemble, "b");
    assert_eq!((first.registered().await, second.registered().await), (0, 1));
    assert_eq!(second.member.holder().await.unwrap(), Some(epoch));
    assert_eq!(registrations(&ensemble).await, [("a".to_owned(), 0), ("b".to_owned(), 1)]);

    let before = Instant::now();
    first.member.leave().await;
    assert!(second.leading().await.epoch > epoch);
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    first.actor.await.unwrap();
    assert_eq!(registrations(&ensemble).await, [("b".to_owned(), 1)]);

    let epoch = second.leading().await.epoch;
    second.member.resign(epoch).await;
    second.until("leading anew", |m| m.leadership.as_ref().is_some_and(|l| l.epoch > epoch)).await;
    second.member.retire().await;
    assert_eq!(second.member.holder().await.unwrap(), None);
    second.member.leave().await;
    assert_eq!(registrations(&ensemble).await, []);
}

#[tokio::test]
async fn after_a_short_outage_the_same_pod_leads_with_the_same_epoch() {
    let (data, port) = (TempDir::new().unwrap(), free_port());
    let server = Server::start(port, Some(data.path()), &[]).ready().await;
    let ensemble = server.ensemble("", Duration::from_secs(10));
    let pods = [start(&ensemble, "a"), start(&ensemble, "b")];
    pods[1].registered().await;
    pods[0].until("settled", |m| m.registered.is_some()).await;
    let holder = pods[0].member.holder().await.unwrap();
    let before = registrations(&ensemble).await;
    server.kill();
    for pod in &pods {
        let away = pod.until("suspended", |m| m.state == SessionState::Suspended).await;
        assert!(away.leadership.is_none());
        let asked = Instant::now();
        assert!(pod.member.holder().await.is_err());
        assert!(asked.elapsed() < Duration::from_millis(100));
    }
    let _server = Server::start(port, Some(data.path()), &[]);
    for pod in &pods {
        pod.until("connected", |m| m.state == SessionState::Connected).await;
    }
    eventually("somebody leads", async || pods.iter().any(|pod| pod.member.watch().borrow().leadership.is_some()))
        .await;
    assert_eq!(pods[1].member.holder().await.unwrap(), holder);
    assert_eq!(registrations(&ensemble).await, before);
}

#[tokio::test]
async fn after_an_outage_longer_than_the_session_every_pod_is_registered_exactly_once() {
    let (data, port) = (TempDir::new().unwrap(), free_port());
    let server = Server::start(port, Some(data.path()), &[]).ready().await;
    let ensemble = server.ensemble("", Duration::from_secs(1));
    let pods = [start(&ensemble, "a"), start(&ensemble, "b")];
    for pod in &pods {
        pod.registered().await;
    }
    let before = registrations(&ensemble).await;
    server.kill();
    for pod in &pods {
        pod.until("lost", |m| m.state == SessionState::Lost).await;
    }
    // The server still has the nodes of the lost sessions when it is back.
    let _server = Server::start(port, Some(data.path()), &[]);
    for pod in &pods {
        let back = pod.until("registered again", |m| m.registered.is_some()).await;
        assert!(back.registered.unwrap().after_loss);
    }
    assert_eq!(registrations(&ensemble).await, before);
    time::sleep(Duration::from_secs(3)).await;
    assert_eq!(registrations(&ensemble).await, before, "and still once the old sessions have expired");
    assert_eq!(pods.iter().filter(|pod| pod.member.watch().borrow().leadership.is_some()).count(), 1);
}

#[tokio::test]
async fn refused_credentials_are_final_and_say_so() {
    let enforce = ["-Dzookeeper.enforce.auth.enabled=true", "-Dzookeeper.enforce.auth.schemes=digest"];
    let server = Server::start(free_port(), None, &enforce).ready().await;
    let pod = start(&server.ensemble("", SOON), "a");
    assert!(pod.until("refused", |m| m.refused.is_some()).await.registered.is_none());
    pod.member.leave().await;
    pod.actor.await.unwrap();

    let address = format!("zk://user:secret@127.0.0.1:{}", server.port).parse().unwrap();
    let known = start(&Ensemble::ZooKeeper { address, timeout: SOON }, "b");
    assert_eq!(known.registered().await, 0);
}
