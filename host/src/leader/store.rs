//! What a leader reads from and writes to the store. Every write is one commit with a check on the lock.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    cluster::{Stored, View},
    coord::{Access, CoordError, Coordination, Leadership, Mode, Op, layout::Layout},
};

use super::{Write, Written};

/// How often a commit is tried again when nodes came or went between looking and committing.
const TRIES: usize = 5;

/// The nodes of the last configuration: `hash` and `view`. A view that is missing or unreadable is empty.
pub(super) async fn last_configuration(leadership: &Leadership, layout: &Layout) -> Result<(Stored, View), CoordError> {
    let hash = leadership.session.read(&layout.hash()).await?.map(|node| node.data).unwrap_or_default();
    let view = leadership.session.read(&layout.view()).await?.map(|node| node.data).unwrap_or_default();
    Ok((Stored::parse(&hash), serde_json::from_slice(&view).unwrap_or_default()))
}

/// Writes, unless the lock is gone.
pub(crate) async fn write(leadership: Leadership, layout: Layout, write: Write) -> Written {
    let mut last = String::new();
    for _ in 0..TRIES {
        let result = match operations(&leadership, &layout, &write).await {
            Ok(operations) => leadership.session.commit(operations).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(_) => return Written::Done,
            Err(CoordError::Conflict { index: 0, .. } | CoordError::SessionLost) => return Written::Fenced,
            Err(error @ CoordError::Conflict { .. }) => last = error.to_string(),
            Err(error) => return Written::Unknown(error.to_string()),
        }
    }
    Written::Unknown(last)
}

async fn operations(leadership: &Leadership, layout: &Layout, write: &Write) -> Result<Vec<Op>, CoordError> {
    let session = &leadership.session;
    let lock = Op::Check(leadership.lock.clone());
    Ok(match write {
        Write::Pending(generation) => {
            let pending = Stored::Pending(generation.clone()).content();
            vec![lock, put(session, layout.hash(), pending.into_bytes()).await?]
        }
        Write::Commit(digest, view) => {
            let done = Stored::Done(digest.clone()).content();
            let mut operations = vec![lock];
            operations.extend(replace_snapshot(session, layout.snapshot(), json(&view.pods)?).await?);
            operations.push(put(session, layout.hash(), done.into_bytes()).await?);
            operations.push(put(session, layout.view(), json(view)?).await?);
            operations
        }
        Write::Snapshot(view) => {
            let mut operations = vec![lock];
            operations.extend(replace_snapshot(session, layout.snapshot(), json(&view.pods)?).await?);
            operations
        }
    })
}

/// Sets a persistent node, or creates it.
async fn put(session: &Arc<dyn Coordination>, path: String, data: Vec<u8>) -> Result<Op, CoordError> {
    Ok(match session.read(&path).await? {
        Some(_) => Op::Set { path, data },
        None => Op::Create { path, data, mode: Mode::Persistent, access: Access::Cluster },
    })
}

/// The snapshot is ephemeral: an earlier leader's has to go before the own one can be created.
async fn replace_snapshot(session: &Arc<dyn Coordination>, path: String, data: Vec<u8>) -> Result<Vec<Op>, CoordError> {
    let before = session.read(&path).await?;
    if before.as_ref().is_some_and(|node| node.owner == Some(session.id())) {
        return Ok(vec![Op::Set { path, data }]);
    }
    let create = Op::Create { path: path.clone(), data, mode: Mode::Ephemeral, access: Access::Readable };
    Ok(if before.is_some() { vec![Op::Delete(path), create] } else { vec![create] })
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, CoordError> {
    serde_json::to_vec(value).map_err(|e| CoordError::Unexpected(e.to_string()))
}
