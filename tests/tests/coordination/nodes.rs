//! Contract of stores of nodes, verified against each of them.

use std::time::{Duration, Instant};

use ochopod_model::{
    PodId,
    status::{LifecycleReport, PodState, ProcessState},
};
use ochopod_store::{
    CoordError, MAX_COMMIT_BYTES, SessionState, StoreBackend,
    znodes::{Coordination, Mode, NodeAccess, Op, Watch, layout::Layout},
};
use tokio::time;

use crate::{DEFAULT_TIMEOUT, Pod, create, fires, session};

contract! {
    closed_session_has_deleted_its_ephemeral_nodes
    dropped_session_deletes_its_ephemeral_nodes
    sequential_numbers_grow_within_the_parent_over_all_sessions
    node_has_its_creation_transaction_and_owner
    commit_executes_in_order_and_returns_created_paths
    rejected_commit_changes_nothing_and_names_the_operation
    watch_completes_when_its_node_changes_and_not_before
    watch_of_children_completes_when_the_list_changes_and_not_before
    absent_node_can_be_watched
    too_large_commit_is_rejected_and_the_session_continues
    commit_just_below_the_limit_is_accepted
    created_node_has_the_requested_access
    closed_session_is_lost_and_completes_its_watches
    missing_parent_of_states_is_created
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

async fn names(session: &dyn Coordination, path: &str) -> Vec<String> {
    let mut names = session.children(path).await.unwrap().unwrap();
    names.sort_unstable();
    names
}

async fn is_quiet(what: &str, watch: &mut Watch) {
    let completed = time::timeout(Duration::from_millis(100), watch).await.is_ok();
    assert!(!completed, "the watch should not have completed: {what}");
}

async fn closed_session_has_deleted_its_ephemeral_nodes(store: StoreBackend) {
    let (closing, other) = (session(&store).await, session(&store).await);
    let nodes = vec![create("/top/e", "x", Mode::Ephemeral), create("/top/n", "", Mode::EphemeralSequential)];
    closing.commit(nodes).await.unwrap();
    assert_eq!(names(&*other, "/top").await.len(), 2);
    let before = Instant::now();
    closing.close().await;
    assert!(before.elapsed() < DEFAULT_TIMEOUT, "{:?}", before.elapsed());
    assert_eq!(names(&*other, "/top").await, Vec::<String>::new());
    assert!(other.read("/top").await.unwrap().is_some(), "a persistent node stays");
}

async fn dropped_session_deletes_its_ephemeral_nodes(store: StoreBackend) {
    let (dropped, other) = (session(&store).await, session(&store).await);
    dropped.commit(vec![create("/top/e", "", Mode::Ephemeral)]).await.unwrap();
    let (_, mut watch) = other.read_and_watch("/top/e").await.unwrap();
    drop(dropped);
    fires("the node of a dropped session", &mut watch).await;
    assert_eq!(other.read("/top/e").await.unwrap(), None);
}

async fn sequential_numbers_grow_within_the_parent_over_all_sessions(store: StoreBackend) {
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

async fn node_has_its_creation_transaction_and_owner(store: StoreBackend) {
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

async fn commit_executes_in_order_and_returns_created_paths(store: StoreBackend) {
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

async fn rejected_commit_changes_nothing_and_names_the_operation(store: StoreBackend) {
    let session = session(&store).await;
    let setup = vec![
        create("/top/full", "", Mode::Persistent),
        create("/top/full/x", "", Mode::Persistent),
        create("/top/e", "", Mode::Ephemeral),
    ];
    session.commit(setup).await.unwrap();
    let rejected = [
        check("/top/none"),
        delete("/top/none"),
        delete("/top/full"),
        set("/top/none", "x"),
        create("/top/full", "", Mode::Persistent),
        create("/top/none/x", "", Mode::Ephemeral),
        create("/top/e/x", "", Mode::Ephemeral),
    ];
    for bad in rejected {
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

async fn watch_completes_when_its_node_changes_and_not_before(store: StoreBackend) {
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

async fn watch_of_children_completes_when_the_list_changes_and_not_before(store: StoreBackend) {
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

async fn absent_node_can_be_watched(store: StoreBackend) {
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

async fn too_large_commit_is_rejected_and_the_session_continues(store: StoreBackend) {
    let session = session(&store).await;
    let half = "x".repeat(MAX_COMMIT_BYTES / 2);
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

async fn commit_just_below_the_limit_is_accepted(store: StoreBackend) {
    let session = session(&store).await;
    let large = "x".repeat(MAX_COMMIT_BYTES - 200);
    session.commit(vec![create("/top/a", &large, Mode::Ephemeral)]).await.unwrap();
    assert_eq!(session.read("/top/a").await.unwrap().unwrap().data.len(), large.len());
    let many: Vec<Op> = (0..2000)
        .map(|_| create("/top/n", &"y".repeat(MAX_COMMIT_BYTES / 2000 - 150), Mode::EphemeralSequential))
        .collect();
    assert_eq!(session.commit(many).await.unwrap().len(), 2000);
}

async fn created_node_has_the_requested_access(store: StoreBackend) {
    let session = session(&store).await;
    for (path, access) in
        [("/top/o", NodeAccess::Open), ("/top/r", NodeAccess::Readable), ("/top/c", NodeAccess::Cluster)]
    {
        let mode = Mode::Persistent;
        session.commit(vec![Op::Create { path: path.to_owned(), data: Vec::new(), mode, access }]).await.unwrap();
        assert_eq!(session.acl_mismatch(path, access).await, Ok(None), "{path}");
    }
    assert_eq!(session.acl_mismatch("/top/none", NodeAccess::Cluster).await, Ok(None));
}

async fn closed_session_is_lost_and_completes_its_watches(store: StoreBackend) {
    let session = session(&store).await;
    assert_eq!(*session.state().borrow(), SessionState::Connected);
    let (_, mut watch) = session.read_and_watch("/top").await.unwrap();
    let mut state = session.state();
    session.close().await;
    fires("the session's end", &mut watch).await;
    let lost = time::timeout(DEFAULT_TIMEOUT, state.wait_for(|state| *state == SessionState::Lost)).await;
    assert!(lost.is_ok_and(|state| state.is_ok()));
    assert_eq!(session.read("/top").await, Err(CoordError::SessionLost));
    assert_eq!(session.commit(vec![check("/top")]).await, Err(CoordError::SessionLost));
    time::timeout(DEFAULT_TIMEOUT, session.close()).await.expect("closing twice is harmless");
}

async fn missing_parent_of_states_is_created(store: StoreBackend) {
    let session = session(&store).await;
    // As created by pods of an earlier version.
    let layout = Layout::of("ns.web");
    for (path, access) in layout.parents().into_iter().filter(|(path, _)| *path != layout.states()) {
        session.commit(vec![Op::Create { path, data: Vec::new(), mode: Mode::Persistent, access }]).await.unwrap();
    }
    let (_, mut created) = session.children_and_watch(&layout.states()).await.unwrap();
    let pod = Pod::start(&store, "web", "a");
    pod.member.publish(PodState::of(&LifecycleReport::default(), false));
    fires("the parent of states is made", &mut created).await;
    let path = layout.state(&PodId::from("a"));
    let node = loop {
        let (node, changed) = session.read_and_watch(&path).await.unwrap();
        if let Some(node) = node {
            break node;
        }
        time::timeout(DEFAULT_TIMEOUT, changed).await.expect("the state is published");
    };
    assert_eq!(PodState::parse(&node.data).unwrap().process, ProcessState::Stopped);
    assert!(node.owner.is_some(), "it goes with its session");
    pod.member.leave().await;
    assert_eq!(names(&*session, &layout.states()).await, Vec::<String>::new());
}
