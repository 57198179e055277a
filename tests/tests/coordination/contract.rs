//! What both stores promise, each promise held against each store.

use std::time::{Duration, Instant};

use ochopod::coord::{
    Access, COMMIT_LIMIT, CoordError, Coordination, Embedded, Ensemble, Mode, Op, SessionState, Watch,
};
use tokio::time;

use crate::{SOON, create, fires, session};

macro_rules! contract {
    ($($promise:ident)*) => {
        mod embedded {
            $(#[tokio::test] async fn $promise() {
                super::$promise(super::Ensemble::Embedded(super::Embedded::new(crate::SOON))).await;
            })*
        }
        mod zookeeper {
            $(#[tokio::test] async fn $promise() {
                let server = ochopod_tests::ZooKeeper::shared().await.unwrap();
                super::$promise(crate::ensemble(&server, concat!("/", stringify!($promise)), crate::SOON)).await;
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
    what_a_session_creates_is_as_accessible_as_it_wanted_it
    a_closed_session_says_so_and_ends_what_waits_for_it
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

async fn what_a_session_creates_is_as_accessible_as_it_wanted_it(store: Ensemble) {
    let session = session(&store).await;
    for (path, access) in [("/top/o", Access::Open), ("/top/r", Access::Readable), ("/top/c", Access::Cluster)] {
        let mode = Mode::Persistent;
        session.commit(vec![Op::Create { path: path.to_owned(), data: Vec::new(), mode, access }]).await.unwrap();
        assert_eq!(session.unlike(path, access).await, Ok(None), "{path}");
    }
    assert_eq!(session.unlike("/top/none", Access::Cluster).await, Ok(None));
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
