//! Coordination: what pods know of each other, through ZooKeeper or, for development, inside one process.
//!
//! [`Coordination`] is one session with the store: few primitives, each with the guarantees of ZooKeeper. What a pod does
//! with them is written once and runs on either store:
//!
//! | module | owns |
//! |---|---|
//! | [`Ensemble`], [`ZooKeeperAddress`], [`Tls`] | which store, where, and how a pod is let in |
//! | `zookeeper`, [`Embedded`] | the two stores; `access` what nodes are created with in the first, `tree` the second |
//! | [`layout`] | where everything lives in the store |
//! | [`Member`] | one pod's session, registration and lock: `actor` over sessions, `tenure` within one, `pod` what lasts; `parents` the nodes above |
//! | [`observe`] | what a leader watches: `world` reads, `picture` knows what has to be read |

mod access;
mod actor;
mod address;
mod election;
mod embedded;
mod ensemble;
pub mod layout;
mod member;
pub(crate) mod parents;
mod picture;
mod pod;
mod tenure;
mod tls;
mod tree;
mod world;
mod zookeeper;

#[cfg(test)]
pub(crate) use {
    election::holder,
    tree::{Subject, Tree},
};

pub use address::{AddressError, ZooKeeperAddress};
pub use embedded::Embedded;
pub use ensemble::Ensemble;
pub use member::{Leadership, Member, Membership, Registered};
pub use tls::{Tls, TlsError};
pub use world::{Observed, World, observe};

use std::{fmt, future::Future, pin::Pin, time::Duration};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

/// State of a session, as `/info` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// The store answers.
    Connected,
    /// The connection is gone; ephemeral nodes still stand, but another may soon hold the lock. Begin nothing.
    Suspended,
    /// The session is over for good (expired or closed), or there never was one. Ephemeral nodes are gone or will be.
    Lost,
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connected => "connected",
            Self::Suspended => "suspended",
            Self::Lost => "lost",
        })
    }
}

/// Why an operation on the store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoordError {
    /// The connection was lost or the deadline passed: the operation may or may not have been carried out. Try again.
    #[error("the store did not answer: {0}")]
    Unavailable(String),
    /// The session is over; nothing can be done with it any more.
    #[error("the session with the store is over")]
    SessionLost,
    /// The store refused the credentials. Trying again is of no use.
    #[error("the store refused the credentials: {0}")]
    AuthFailed(String),
    /// An access list keeps this client out. Trying again is of use only once somebody has changed the list.
    #[error(
        "no access to {0}: the access list there admits neither everybody nor the credentials given, if any \
        (--zk-credentials)"
    )]
    Denied(String),
    /// An operation of a commit found another state than it expects (`Check`, `Delete`, `Set`: no such node;
    /// `Create`: it exists, or its parent does not). Nothing of the commit was carried out.
    #[error("operation {index} of a commit on {path} was refused: {reason}")]
    Conflict {
        /// Position of the operation within the commit.
        index: usize,
        /// Its path.
        path: String,
        /// What the store said.
        reason: String,
    },
    /// The data exceeds what a node may hold.
    #[error("{size} bytes for {path} exceed the limit of {limit}")]
    TooLarge {
        /// The node.
        path: String,
        /// Bytes offered.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The store does not do what it promises, or what we ask for is malformed.
    #[error("the store answered unexpectedly: {0}")]
    Unexpected(String),
}

impl CoordError {
    /// Whether the store keeps this client out: for its credentials, or for the lack of some.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::AuthFailed(_) | Self::Denied(_))
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its content.
    pub data: Vec<u8>,
    /// Transaction that created it: grows over the life of a store.
    pub created: i64,
    /// The session that owns it, when it is ephemeral.
    pub owner: Option<i64>,
}

/// How long a created node lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Until it is deleted.
    Persistent,
    /// Until the session ends.
    Ephemeral,
    /// Until the session ends; the store appends a number of ten digits that grows within the parent.
    EphemeralSequential,
}

/// Who may use a node besides those who have the credentials of the session that creates it. Without credentials, and in
/// a store that knows no users, everybody may do everything with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Shared by all clusters: everybody may list it and create nodes in it.
    Open,
    /// What dependants read: everybody may, if that is asked for ([`ZooKeeperAddress::world_readable`]); else nobody.
    Readable,
    /// Nobody.
    Cluster,
}

/// One operation of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The node exists.
    Check(String),
    /// Creates a node; its parent must exist and it must not.
    Create {
        /// Where, without the number of a sequential node.
        path: String,
        /// Content.
        data: Vec<u8>,
        /// How long it lives.
        mode: Mode,
        /// Who may use it.
        access: Access,
    },
    /// Replaces the content of a node that exists.
    Set {
        /// Where.
        path: String,
        /// Content.
        data: Vec<u8>,
    },
    /// Deletes a node that exists.
    Delete(String),
}

impl Op {
    /// The node that it is about.
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
        data + self.path().len() + OPERATION_OVERHEAD
    }
}

/// Bytes that one commit may carry: a little less than ZooKeeper accepts by default (1 MiB), which answers anything
/// larger by dropping the connection.
pub const COMMIT_LIMIT: usize = (1 << 20) - 4096;

/// How often what is watched is read anew, should a change have been missed.
const REREAD: Duration = Duration::from_mins(5);

/// Room for what surrounds path and data of an operation: header, access list, chroot.
const OPERATION_OVERHEAD: usize = 128;

/// Refuses what the store would not take.
pub(crate) fn check_size(operations: &[Op]) -> Result<(), CoordError> {
    let size: usize = operations.iter().map(Op::size).sum();
    match operations.iter().max_by_key(|op| op.size()) {
        Some(largest) if size > COMMIT_LIMIT => {
            Err(CoordError::TooLarge { path: largest.path().to_owned(), size, limit: COMMIT_LIMIT })
        }
        _ => Ok(()),
    }
}

/// A watch that ends with its event, or with any change of the session's state since `state` was taken: what happened
/// while the connection was gone may have been missed.
pub(crate) fn watch_until(
    event: impl Future<Output = ()> + Send + 'static,
    mut state: watch::Receiver<SessionState>,
) -> Watch {
    Box::pin(async move {
        tokio::select! {
            biased;
            // First: once the connection is gone the event may never be asked for again.
            _ = state.changed() => {}
            () = event => {}
        }
    })
}

/// Completes once, when the node it was placed on (or its list of children) has changed since, or when the connection
/// was restored or lost meanwhile so that a change may have been missed. Dropping it is fine.
pub type Watch = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What was read, or none when there is no such node, and the watch on it.
pub type Watched<T> = (Option<T>, Watch);

/// One session with the store.
///
/// Every call has a deadline of its own (the session timeout) and ends with [`CoordError::Unavailable`] past it. All
/// calls are cancellation safe in that dropping them leaves the session usable; whether a dropped commit was carried out
/// is unknown, as with `Unavailable`.
pub trait Coordination: Send + Sync + 'static {
    /// Identity of the session: the owner of its ephemeral nodes.
    fn id(&self) -> i64;

    /// The timeout that the store granted.
    fn timeout(&self) -> Duration;

    /// The session's state. `Lost` is final.
    fn state(&self) -> watch::Receiver<SessionState>;

    /// A node's content, or none when it does not exist.
    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Node>, CoordError>>;

    /// The same, and a watch on its existence and content.
    fn read_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Node>, CoordError>>;

    /// Names of a node's children in no order, or none when it does not exist.
    fn children<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Vec<String>>, CoordError>>;

    /// The same, and a watch on its existence and list of children.
    fn children_and_watch<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Watched<Vec<String>>, CoordError>>;

    /// Carries out all operations, or none. Returns the paths of the created nodes, in order.
    fn commit(&self, operations: Vec<Op>) -> BoxFuture<'_, Result<Vec<String>, CoordError>>;

    /// What everybody may do with a node, when that is not what they could, had this session created it as `access`.
    fn unlike<'a>(&'a self, path: &'a str, access: Access) -> BoxFuture<'a, Result<Option<String>, CoordError>>;

    /// Waits until reads of this session show at least what was true of a node when this was called. Without it, a server
    /// that lags behind may still show what was true before.
    fn sync<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), CoordError>>;

    /// Ends the session; its ephemeral nodes are gone when this returns, or the store could not be reached within the
    /// session timeout. Calls under way end with [`CoordError::SessionLost`]. A session whose last handle is dropped ends
    /// as well, some time later.
    fn close(&self) -> BoxFuture<'_, ()>;
}
