//! On the embedded store, with time paused.

use std::sync::Arc;

use ochopod_model::{ClusterName, Digest, StoredHash, View};
use tokio::time::timeout;

use super::*;
use crate::{
    EmbeddedStore,
    znodes::{Mode, NodeAccess, Op, layout::Layout},
};

const TIMEOUT: Duration = Duration::from_secs(10);

struct Leading {
    store: EmbeddedStore,
    layout: Layout,
    leadership: Leadership,
    keeper: ConfigurationKeeper,
}

fn create(path: String, data: &[u8], mode: Mode) -> Op {
    Op::Create { path, data: data.to_vec(), mode, access: NodeAccess::Cluster }
}

/// Starts a leadership that has committed a configuration.
async fn leading() -> Leading {
    let cluster = ClusterName::new("ns", "web").unwrap();
    let (store, layout) = (EmbeddedStore::new(Duration::from_secs(5)), Layout::new(&cluster));
    let session = store.connect();
    let parents = layout.parents().map(|(path, _)| create(path, b"", Mode::Persistent)).to_vec();
    session.commit(parents).await.unwrap();
    let lock = create(layout.lock("token"), b"", Mode::EphemeralSequential);
    let lock = session.commit(vec![lock]).await.unwrap().remove(0);
    let leadership = Leadership::new(1, lock, session, cluster);
    let keeper = ConfigurationKeeper::new(leadership.clone());
    let mut leading = Leading { store, layout, leadership, keeper };
    assert_eq!(leading.reads().await.hash, StoredHash::parse(b""));
    leading.writes(StoreWrite::Commit(Digest::from("1:a"), Arc::default())).await;
    leading
}

impl Leading {
    async fn reads(&mut self) -> LastConfiguration {
        match self.keeper.next().await {
            ConfigurationEvent::Read(last) => last,
            ConfigurationEvent::Written(result) => panic!("{result:?}"),
        }
    }

    async fn writes(&mut self, write: StoreWrite) {
        self.keeper.submit(write);
        let event = self.keeper.next().await;
        assert!(matches!(event, ConfigurationEvent::Written(WriteResult::Done)), "{event:?}");
    }

    async fn runs_for(&mut self, limit: Duration) {
        assert!(timeout(limit, self.keeper.next()).await.is_err(), "unexpected event");
    }

    async fn read(&self, path: &str) -> Option<(String, bool)> {
        let own = self.leadership.session();
        let node = self.store.connect().read(path).await.unwrap()?;
        Some((String::from_utf8(node.data).unwrap(), node.owner == Some(own)))
    }

    async fn assert_hash(&self, hash: &str) {
        let view = serde_json::to_string(&View::default()).unwrap();
        assert_eq!(self.read(&self.layout.snapshot()).await, Some(("{}".to_owned(), true)));
        assert_eq!(self.read(&self.layout.hash()).await, Some((hash.to_owned(), false)));
        assert_eq!(self.read(&self.layout.view()).await, Some((view, false)));
    }
}

#[tokio::test(start_paused = true)]
async fn deleted_overwritten_and_replaced_nodes_are_restored() {
    let mut leading = leading().await;
    let (snapshot, hash, view) = (leading.layout.snapshot(), leading.layout.hash(), leading.layout.view());
    let other_client = leading.store.connect();
    let set = |path: &String| Op::Set { path: path.clone(), data: b"garbage".to_vec() };
    let delete = |path: &String| Op::Delete(path.clone());
    for change in [
        vec![delete(&snapshot)],
        vec![set(&snapshot)],
        vec![delete(&snapshot), create(snapshot.clone(), b"{}", Mode::Persistent)],
        vec![delete(&snapshot), create(snapshot.clone(), b"{}", Mode::Ephemeral)],
        vec![delete(&hash)],
        vec![set(&hash)],
        vec![delete(&view)],
        vec![set(&view)],
        vec![delete(&view), delete(&hash), delete(&snapshot)],
    ] {
        leading.runs_for(TIMEOUT).await;
        other_client.commit(change.clone()).await.unwrap();
        leading.runs_for(TIMEOUT).await;
        leading.assert_hash("1:a").await;
    }
}

#[tokio::test(start_paused = true)]
async fn own_writes_are_not_undone() {
    let mut leading = leading().await;
    leading.writes(StoreWrite::Pending(Digest::from("1:b"))).await;
    leading.runs_for(TIMEOUT).await;
    leading.assert_hash("pending:1:b").await;
    leading.writes(StoreWrite::Commit(Digest::from("1:b"), Arc::default())).await;
    leading.runs_for(TIMEOUT).await;
    leading.assert_hash("1:b").await;
    // The content after a write of unknown result is not restored.
    let restorer = &mut leading.keeper.restorer;
    let contents = restorer.prepare(&StoreWrite::Pending(Digest::from("1:c"))).unwrap();
    restorer.written(contents, &WriteResult::Unknown(String::new()));
    let session = leading.store.connect();
    session.commit(vec![Op::Set { path: leading.layout.hash(), data: b"pending:1:c".to_vec() }]).await.unwrap();
    leading.runs_for(TIMEOUT).await;
    leading.assert_hash("pending:1:c").await;
}

#[tokio::test(start_paused = true)]
async fn node_that_is_always_changed_is_restored_with_growing_delays() {
    let mut leading = leading().await;
    let (other_client, hash) = (leading.store.connect(), leading.layout.hash());
    let changing = tokio::spawn(async move {
        let mut restored = 0;
        loop {
            let (node, watch) = other_client.read_and_watch(&hash).await.unwrap();
            if node.is_some_and(|node| node.data == b"1:a") {
                restored += 1;
                other_client.commit(vec![Op::Set { path: hash.clone(), data: b"x".to_vec() }]).await.unwrap();
                assert!(restored < 30, "restored {restored} times");
                continue;
            }
            watch.await;
        }
    });
    leading.runs_for(Duration::from_mins(5)).await;
    assert!(!changing.is_finished(), "it was restored without delays");
    changing.abort();
    leading.runs_for(Duration::from_mins(1)).await;
    leading.assert_hash("1:a").await;
}

#[tokio::test(start_paused = true)]
async fn unreadable_view_is_written_with_the_next_snapshot() {
    for garbage in [Some("{"), None] {
        let mut leading = leading().await;
        let view = leading.layout.view();
        let change = garbage.map_or(Op::Delete(view.clone()), |data| Op::Set { path: view, data: data.into() });
        leading.store.connect().commit(vec![change]).await.unwrap();
        leading.keeper = ConfigurationKeeper::new(leading.leadership.clone());
        assert_eq!(leading.reads().await.hash, StoredHash::parse(b"1:a"));
        leading.writes(StoreWrite::Snapshot(Arc::default())).await;
        leading.assert_hash("1:a").await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_restored_without_the_lock() {
    let mut leading = leading().await;
    leading.runs_for(TIMEOUT).await;
    let other_client = leading.store.connect();
    let lock = leading.leadership.lock().to_owned();
    let set = Op::Set { path: leading.layout.hash(), data: b"1:of the next".to_vec() };
    other_client.commit(vec![Op::Delete(lock), set]).await.unwrap();
    leading.runs_for(Duration::from_mins(10)).await;
    leading.assert_hash("1:of the next").await;
}
