//! Stores of nodes, as ZooKeeper has them: sessions, ephemeral and sequential nodes, commits of several operations,
//! one-shot watches.
//!
//! Pods do not need this layer: see the interface in the [crate documentation](crate). It is public for what is itself made of
//! nodes: services registered in ZooKeeper (`ochopod-discovery`), the simulated store, and tests that read or damage nodes.
//!
//! [`Coordination`] is one session: few primitives, each with the guarantees of ZooKeeper. The interface is implemented once on top
//! of them, for every store of nodes:
//!
//! | module | owns |
//! |---|---|
//! | [`layout`] | paths and names of all nodes |
//! | [`parent_nodes`] | the persistent nodes above registrations, lock nodes and instances of services |
//! | `membership_actor` | one session after the other, and the requests of a [`MembershipHandle`](crate::MembershipHandle) |
//! | `registration_reconciler` | registration and lock node under one session |
//! | `member_state` | state of the pod that outlasts a session |
//! | [`election`] | order of the contenders |
//! | `configuration` | nodes of the last configuration: read, committed under the lock, watched |
//! | `observer`, `watch_cache` | registrations and dependencies: reads and watches, and what has to be read |
//! | `states` | states that pods publish: written and observed |
//! | `tree` | the nodes of a store in memory |

pub(crate) mod configuration;
pub mod election;
pub mod layout;
pub(crate) mod member_state;
pub(crate) mod membership_actor;
pub(crate) mod observer;
pub mod parent_nodes;
mod registration_reconciler;
pub(crate) mod states;
mod tree;
mod watch_cache;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

pub use self::{
    observer::observe,
    tree::{NodeTree, WatchKey},
};
use super::{CoordError, MAX_COMMIT_BYTES, SessionState};

/// A store of nodes: opens sessions.
pub trait NodeStore: fmt::Debug + Send + Sync {
    /// Returns the session timeout to request; the store may grant another.
    fn timeout(&self) -> Duration;

    /// Returns host and port of each server, if it has any.
    fn servers(&self) -> &[(String, u16)] {
        &[]
    }

    /// Opens a session.
    ///
    /// # Errors
    /// [`CoordError::Unavailable`] if no server answers (immediately, or within the session timeout) or no name resolves.
    /// [`CoordError::AuthFailed`] if the credentials are rejected, [`CoordError::AccessDenied`] if the chroot is missing and
    /// must not be created.
    ///
    /// # Cancellation safety
    /// Dropping the future leaves at most a session without nodes, which expires.
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Coordination>, CoordError>>;
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Content.
    pub data: Vec<u8>,
    /// Transaction that created it: grows over the life of a store.
    pub created: i64,
    /// Session that owns it, if it is ephemeral.
    pub owner: Option<i64>,
}

/// Lifetime of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Until it is deleted.
    Persistent,
    /// Until the session ends.
    Ephemeral,
    /// Until the session ends; the store appends a number of ten digits that grows within the parent.
    EphemeralSequential,
}

/// Permissions of clients that lack the credentials of the session that creates a node. Without credentials, and in a store
/// without users, every client has all permissions on each node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeAccess {
    /// Shared by all clusters: any client may list it and create nodes in it.
    Open,
    /// Read by dependants: any client may read it if [`ZooKeeperAddress::world_readable`](crate::ZooKeeperAddress::world_readable)
    /// is set; otherwise no other client may.
    Readable,
    /// No other client has any permission.
    Cluster,
}

/// A node that other clients may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// Whole path, including the chroot, and the permissions of others.
    pub finding: String,
    /// Command of `zkCli.sh` that sets the expected ACL.
    pub repair: String,
    /// Servers that accept the command.
    pub servers: String,
}

/// One operation of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Requires that the node exists.
    Check(String),
    /// Creates a node; its parent must exist and it must not.
    Create {
        /// Path, without the number of a sequential node.
        path: String,
        /// Content.
        data: Vec<u8>,
        /// Lifetime.
        mode: Mode,
        /// Permissions of other clients.
        access: NodeAccess,
    },
    /// Replaces the content of a node that exists.
    Set {
        /// Path.
        path: String,
        /// Content.
        data: Vec<u8>,
    },
    /// Deletes a node that exists.
    Delete(String),
}

impl Op {
    /// Returns the path of the node.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Check(path) | Self::Delete(path) | Self::Create { path, .. } | Self::Set { path, .. } => path,
        }
    }

    fn size(&self) -> usize {
        let data = match self {
            Self::Create { data, .. } | Self::Set { data, .. } => data.len(),
            Self::Check(_) | Self::Delete(_) => 0,
        };
        data + self.path().len() + OPERATION_OVERHEAD_BYTES
    }
}

/// Space for the header, ACL and chroot that surround path and data of an operation.
const OPERATION_OVERHEAD_BYTES: usize = 128;

/// Rejects a commit that exceeds [`MAX_COMMIT_BYTES`].
///
/// # Errors
/// [`CoordError::TooLarge`], which names the largest operation.
pub fn check_size(operations: &[Op]) -> Result<(), CoordError> {
    let size: usize = operations.iter().map(Op::size).sum();
    match operations.iter().max_by_key(|op| op.size()) {
        Some(largest) if size > MAX_COMMIT_BYTES => {
            Err(CoordError::TooLarge { path: largest.path().to_owned(), size, limit: MAX_COMMIT_BYTES })
        }
        _ => Ok(()),
    }
}

/// Returns a watch that completes with its event, or with any change of the session's state since `state` was read: changes
/// during an interruption may have been missed.
pub fn watch_until(
    event: impl Future<Output = ()> + Send + 'static,
    mut state: watch::Receiver<SessionState>,
) -> Watch {
    Box::pin(async move {
        tokio::select! {
            biased;
            // First: without a connection the event must not be polled again.
            _ = state.changed() => {}
            () = event => {}
        }
    })
}

/// Completes once, if the node (or its list of children) has changed since the watch was placed, or if the connection was
/// interrupted or restored since, so that a change may have been missed. Dropping it removes the watch.
pub type Watch = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Result of a read, none if there is no such node, and the watch on it.
pub type Watched<T> = (Option<T>, Watch);

/// One session with a store of nodes.
///
/// Each call times out with [`CoordError::Unavailable`] after the session timeout.
///
/// # Cancellation safety
/// Dropping a call leaves the session usable. The outcome of a dropped commit is unknown, as with `Unavailable`.
pub trait Coordination: Send + Sync + 'static {
    /// Returns the identity of the session: the owner of its ephemeral nodes.
    fn id(&self) -> i64;

    /// Returns the timeout that the store granted.
    fn timeout(&self) -> Duration;

    /// Returns the session's state and its changes. `Lost` is final.
    fn state(&self) -> watch::Receiver<SessionState>;

    /// Reads a node; none if it does not exist.
    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Node>, CoordError>>;

    /// Reads a node and watches its existence and content.
    fn read_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Node>, CoordError>>;

    /// Lists the names of a node's children in no order; none if the node does not exist.
    fn children<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Vec<String>>, CoordError>>;

    /// Lists the names of a node's children and watches its existence and that list.
    fn children_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Vec<String>>, CoordError>>;

    /// Executes all operations, or none. Returns the paths of the created nodes, in order.
    fn commit(&self, operations: Vec<Op>) -> BoxFuture<'_, Result<Vec<String>, CoordError>>;

    /// Returns the permissions of any client on a node, if they differ from those of a node that this session creates with
    /// `access`.
    fn acl_mismatch<'a>(
        &'a self,
        path: &'a str,
        access: NodeAccess,
    ) -> BoxFuture<'a, Result<Option<String>, CoordError>>;

    /// Returns the permissions of others beyond those that strict ACLs allow, and their repair. Returns none as well if there
    /// is no such node, or if ACLs need not be strict.
    fn exposure<'a>(&'a self, path: &'a str, access: NodeAccess)
    -> BoxFuture<'a, Result<Option<Exposure>, CoordError>>;

    /// Creates the node below which everything is (the chroot), and those above it, if they are missing.
    fn create_root(&self) -> BoxFuture<'_, Result<(), CoordError>>;

    /// Waits until reads of this session show at least the state of a node at the time of this call. Without it, a server
    /// that lags behind may still show an earlier state.
    fn sync<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), CoordError>>;

    /// Reads a node as [`sync`](Self::sync) and then [`read`](Self::read) do, without waiting in between.
    fn read_synced<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Node>, CoordError>>;

    /// Ends the session. When this returns, its ephemeral nodes are gone, or the store could not be reached within the session
    /// timeout. Calls in flight end with [`CoordError::SessionLost`]. A session whose last handle is dropped ends as well,
    /// some time later.
    fn close(&self) -> BoxFuture<'_, ()>;
}
