//! Coordination of the pods of a cluster through a store: ZooKeeper or, for development, one inside this process.
//!
//! # Guarantees
//!
//! - A pod is registered under at most one session, with the same `seq` for its whole life.
//! - At most one [`Leadership`] of a cluster can write. Epochs grow with every leadership.
//! - Each write of a leader is atomic and fenced: once another pod holds the leader lock, it has no effect.
//! - An [`Observation`] is published only if all of it was read, and again after each change.
//! - An outage ends neither registration nor leadership unless the session is lost. A leadership is not reported while the
//!   connection is interrupted, and is reported with the same epoch after it.
//!
//! # Interface
//!
//! Other crates coordinate in these terms only:
//!
//! | to | call |
//! |---|---|
//! | register a pod, contend for leadership | [`MembershipHandle::start`], then watch its [`Membership`] |
//! | publish the state of a pod | [`MembershipHandle::publish`] |
//! | mark a pod dead, resign, deregister | [`MembershipHandle::retire`], [`resign`](MembershipHandle::resign), [`step_down`](MembershipHandle::step_down), [`leave`](MembershipHandle::leave) |
//! | let other pods lead | [`MembershipHandle::yield_lock`], [`set_contending`](MembershipHandle::set_contending) |
//! | pause configurations | [`MembershipHandle::pause`], [`resume`](MembershipHandle::resume), observed as [`Observation::paused`] |
//! | verify the epoch of a request | [`MembershipHandle::read_lock`], [`MembershipHandle::is_current`] |
//! | observe the cluster and its dependencies | [`Leadership::observe`], [`Leadership::observe_states`] |
//! | read, write and restore the configuration | [`ConfigurationKeeper`], on top of [`Leadership::read_configuration`] and [`Leadership::commit`] |
//!
//! This crate owns sessions, registrations, lock nodes and the nodes of the last configuration. It knows neither plugins nor
//! HTTP, and does not decide when and what to configure: `ochopod-leader` does.
//!
//! # Modules
//!
//! | module | owns |
//! |---|---|
//! | `store_backend` | choice of the store |
//! | `membership` | handle of one pod's session, registration and position in the queue for the leader lock |
//! | `leadership` | reads and fenced writes of the leader |
//! | `stored_view` | content of `view` and `snapshot`, compressed if it is large |
//! | `pause` | pause of the configurations of a cluster |
//! | `configuration_keeper` | writes of the leader in order, and nodes that other clients changed |
//! | [`znodes`] | the interface, implemented for stores of nodes in ZooKeeper's sense; layout of the nodes |
//! | `zookeeper`, `embedded` | the two stores of nodes; session loss: `zookeeper::reconnector`, the reaction: `znodes::membership_actor` |
//!
//! # Other stores
//!
//! A store without nodes implements what is behind [`MembershipHandle`] and [`Leadership`] in its own terms; their callers and
//! the contract suite (`tests/tests/coordination/contract.rs`) stay unchanged.
//!
//! - **etcd**: a session is a lease, registration and lock are keys attached to it. The `seq` comes from a counter key that
//!   is incremented in the transaction that registers; the epoch is the revision that created the lock key. A commit is a
//!   transaction that compares that revision. Observation is a range read and a watch from its revision.
//! - **Kubernetes API**, where only one object at a time can be compared and swapped, and there are no sessions and no
//!   sequences: each pod renews a `Lease` object of its own, whose labels and annotations are its registration and state; an
//!   expired one counts as absent. One `Lease` per cluster is the lock; its `leaseTransitions`, incremented by each
//!   acquisition, is the epoch. One object per cluster contains hash, snapshot, view, the next `seq` and the epoch of its last
//!   writer. A new leader writes its epoch there first, so that the `resourceVersion` of every earlier leader's commit is
//!   stale. The snapshot counts as absent unless its epoch is that of the lock holder, as an ephemeral node of a lost session
//!   would be.

mod configuration_keeper;
mod embedded;
mod leadership;
mod membership;
mod pause;
mod store_backend;
mod stored_view;
pub mod znodes;
mod zookeeper;

use std::{fmt, time::Duration};

pub use configuration_keeper::{ConfigurationEvent, ConfigurationKeeper};
pub use embedded::EmbeddedStore;
pub use leadership::{LastConfiguration, Leadership, StoreWrite, WriteResult};
pub use membership::{ActiveRegistration, LockHolder, LockReading, Membership, MembershipHandle};
pub use pause::Pause;
pub use store_backend::StoreBackend;
pub use stored_view::{StoredView, StoredViewFormat};
pub use znodes::{
    observer::{Observation, ObservedDependency},
    states::States,
};
pub use zookeeper::{
    address::{ZooKeeperAddress, ZooKeeperAddressError},
    tls::{ZooKeeperTls, ZooKeeperTlsError},
};

/// Bytes that one commit may carry: a little less than ZooKeeper accepts by default (1 MiB). ZooKeeper drops the connection
/// on anything larger.
pub const MAX_COMMIT_BYTES: usize = (1 << 20) - 4096;

/// Interval at which everything watched is read again, in case a change was missed.
const RESYNC_INTERVAL: Duration = Duration::from_mins(5);

/// State of a session, as `/info` reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// The store answers.
    Connected,
    /// The connection is interrupted. The registration still stands, but another pod may soon hold the lock: start nothing.
    Suspended,
    /// The session has ended (expired or closed), or none was established yet. Its nodes are gone or soon will be. Final.
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

/// Failure of an operation on the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoordError {
    /// The connection was lost or the deadline passed. The outcome of the operation is unknown; it can be retried.
    #[error("coordination store unavailable: {0}")]
    Unavailable(String),
    /// The session has ended. Every further operation on it fails.
    #[error("session lost")]
    SessionLost,
    /// The store rejected the credentials. A retry does not help.
    #[error("authentication failed: {0}")]
    AuthFailed(String),
    /// An ACL denies access to this client. A retry helps only after another client changed the ACL.
    #[error("access to {0} denied: its ACL allows neither world nor the configured credentials (--zk-credentials)")]
    AccessDenied(String),
    /// Other clients may change nodes that the pod relies on, which `zk_strict` forbids. A retry helps only after another
    /// client changed their ACLs.
    #[error("{0}")]
    Exposed(String),
    /// An operation of a commit found another state than it expects (`Check`, `Delete`, `Set`: no such node;
    /// `Create`: it exists, or its parent does not). No operation of the commit took effect.
    #[error("conflict in operation {index} on {path}: {reason}")]
    Conflict {
        /// Position of the operation within the commit.
        index: usize,
        /// Path of the operation.
        path: String,
        /// Reason that the store returned.
        reason: String,
    },
    /// The data exceeds the limit of one commit.
    #[error("data of {path} too large: {size} bytes, limit is {limit}")]
    TooLarge {
        /// Path of the largest node.
        path: String,
        /// Size of the commit in bytes.
        size: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The store violated its protocol, or the request was malformed.
    #[error("unexpected response of the coordination store: {0}")]
    Unexpected(String),
}

impl CoordError {
    /// Returns whether the store denies access to this client, because of its credentials, their absence, or ACLs that let
    /// other clients change nodes that it relies on.
    #[must_use]
    pub fn is_auth_error(&self) -> bool {
        matches!(self, Self::AuthFailed(_) | Self::AccessDenied(_) | Self::Exposed(_))
    }
}
