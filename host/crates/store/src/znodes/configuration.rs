//! Nodes of the last configuration: read, committed under the lock, watched.

use std::future::pending;

use futures_util::future::select_all;
use ochopod_model::{PodId, Pods, View};
use tokio::time;
use tracing::warn;

use super::{CoordError, Coordination, Mode, NodeAccess, Op, layout::Layout};
use crate::{
    Pause, RESYNC_INTERVAL,
    leadership::{Contents, WriteResult},
    stored_view,
};

/// Attempts of a commit if nodes are created or deleted between read and commit.
const MAX_ATTEMPTS: usize = 5;

/// Reads `hash` (empty if missing) and `view`.
pub(crate) async fn read(
    session: &dyn Coordination,
    layout: &Layout,
) -> Result<(Vec<u8>, Option<Vec<u8>>), CoordError> {
    let hash = session.read(&layout.hash()).await?.map(|node| node.data).unwrap_or_default();
    let view = session.read(&layout.view()).await?.map(|node| node.data);
    Ok((hash, view))
}

/// Writes contents in one commit with a check on the lock node.
pub(crate) async fn put(session: &dyn Coordination, layout: &Layout, lock: &str, contents: &Contents) -> WriteResult {
    let mut last = String::new();
    for _ in 0..MAX_ATTEMPTS {
        let result = match operations(session, layout, lock, contents).await {
            Ok(operations) => session.commit(operations).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(_) => return WriteResult::Done,
            Err(CoordError::Conflict { index: 0, .. } | CoordError::SessionLost) => return WriteResult::Fenced,
            Err(error @ CoordError::Conflict { .. }) => last = error.to_string(),
            Err(error) => return WriteResult::Unknown(error.to_string()),
        }
    }
    WriteResult::Unknown(last)
}

async fn operations(
    session: &dyn Coordination,
    layout: &Layout,
    lock: &str,
    contents: &Contents,
) -> Result<Vec<Op>, CoordError> {
    let mut operations = vec![Op::Check(lock.to_owned())];
    if let Some(snapshot) = &contents.snapshot {
        operations.extend(replace_snapshot(session, layout.snapshot(), snapshot.clone()).await?);
    }
    for (path, content) in [(layout.hash(), &contents.hash), (layout.view(), &contents.view)] {
        if let Some(content) = content {
            operations.push(set_or_create(session, path, content.clone()).await?);
        }
    }
    Ok(operations)
}

/// Sets a persistent node, or creates it.
async fn set_or_create(session: &dyn Coordination, path: String, data: Vec<u8>) -> Result<Op, CoordError> {
    Ok(match session.read(&path).await? {
        Some(_) => Op::Set { path, data },
        None => Op::Create { path, data, mode: Mode::Persistent, access: NodeAccess::Cluster },
    })
}

/// Sets or creates the node that pauses configurations.
pub(crate) async fn pause(session: &dyn Coordination, layout: &Layout, pause: &Pause) -> Result<(), CoordError> {
    let mut attempts = 1;
    loop {
        let operation = set_or_create(session, layout.paused(), pause.to_json()).await?;
        match session.commit(vec![operation]).await {
            Err(CoordError::Conflict { .. }) if attempts < MAX_ATTEMPTS => attempts += 1,
            result => return result.map(|_| ()),
        }
    }
}

/// Deletes the node that pauses configurations. Returns whether it existed.
pub(crate) async fn resume(session: &dyn Coordination, layout: &Layout) -> Result<bool, CoordError> {
    match session.commit(vec![Op::Delete(layout.paused())]).await {
        Err(CoordError::Conflict { .. }) => Ok(false),
        result => result.map(|_| true),
    }
}

/// Waits until neither `view` nor `snapshot` contains this pod. Missing and invalid content contains none.
pub(crate) async fn until_without(session: &dyn Coordination, layout: &Layout, id: &PodId) -> Result<(), CoordError> {
    loop {
        let (view_path, snapshot_path) = (layout.view(), layout.snapshot());
        let (view, snapshot) =
            tokio::try_join!(session.read_and_watch(&view_path), session.read_and_watch(&snapshot_path))?;
        let ((view, view_watch), (snapshot, snapshot_watch)) = (view, snapshot);
        let view = view.and_then(|node| stored_view::parse::<View>(&node.data).ok()).unwrap_or_default();
        let snapshot = snapshot.and_then(|node| stored_view::parse::<Pods>(&node.data).ok()).unwrap_or_default();
        if !view.pods.contains_key(id) && !snapshot.contains_key(id) {
            return Ok(());
        }
        _ = time::timeout(RESYNC_INTERVAL, select_all([view_watch, snapshot_watch])).await;
    }
}

/// Sets the snapshot, or creates it. It is ephemeral: one of an earlier leader must be deleted first.
async fn replace_snapshot(session: &dyn Coordination, path: String, data: Vec<u8>) -> Result<Vec<Op>, CoordError> {
    let before = session.read(&path).await?;
    if before.as_ref().is_some_and(|node| node.owner == Some(session.id())) {
        return Ok(vec![Op::Set { path, data }]);
    }
    let create = Op::Create { path: path.clone(), data, mode: Mode::Ephemeral, access: NodeAccess::Readable };
    Ok(if before.is_some() { vec![Op::Delete(path), create] } else { vec![create] })
}

/// Waits until a node differs from the expected contents; returns the expected contents of all nodes that differ.
pub(crate) async fn changed(
    session: &dyn Coordination,
    layout: &Layout,
    expected: &Contents,
) -> Result<Contents, CoordError> {
    loop {
        let (mut changed, mut watches) = (Contents::default(), Vec::new());
        let is_own = |owner: Option<i64>| owner == Some(session.id());
        let Contents { snapshot, hash, view } = &mut changed;
        for (path, expected, change, is_ephemeral) in [
            (layout.snapshot(), &expected.snapshot, snapshot, true),
            (layout.hash(), &expected.hash, hash, false),
            (layout.view(), &expected.view, view, false),
        ] {
            let Some(expected) = expected else { continue };
            let (node, watch) = session.read_and_watch(&path).await?;
            watches.push(watch);
            let cause = match node {
                None => "deleted",
                Some(node) if node.data != *expected => "overwritten",
                Some(node) if is_ephemeral && !is_own(node.owner) => "replaced",
                Some(_) => continue,
            };
            warn!(path, cause, "node changed by another client, restoring it");
            *change = Some(expected.clone());
        }
        if changed != Contents::default() {
            return Ok(changed);
        }
        if watches.is_empty() {
            return pending().await;
        }
        // After a timeout all nodes are read again.
        _ = time::timeout(RESYNC_INTERVAL, select_all(watches)).await;
    }
}
