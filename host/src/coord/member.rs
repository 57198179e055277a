//! One pod's membership of its cluster: session, registration and lock.

use std::{
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time,
};

use super::{CoordError, Coordination, Ensemble, SessionState, actor::Actor, election, layout::Layout, pod::Pod};
use crate::cluster::{ClusterName, PodId};

/// Requests that may wait for the actor.
const QUEUE: usize = 16;

/// How often a holder that vanishes while it is read is looked for anew.
const HOLDER_READS: usize = 5;

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

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leadership").field("epoch", &self.epoch).field("lock", &self.lock).finish_non_exhaustive()
    }
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
#[derive(Debug, Clone)]
pub struct Membership {
    /// The session's state.
    pub state: SessionState,
    /// The session's identity, when there is one.
    pub session: Option<i64>,
    /// The registration under that session, when there is one.
    pub registered: Option<Registered>,
    /// Since when the pod is back, after a lost session or an interrupted connection. The store may have been away for all,
    /// and others still be on their way back.
    pub back_since: Option<Instant>,
    /// The right to lead. None while the session is suspended: it comes back, with the same epoch, when the lock node was
    /// seen again with the own session as its owner.
    pub leadership: Option<Leadership>,
    /// The store did not let the pod in from the beginning: the reason. Final.
    pub refused: Option<String>,
}

impl Membership {
    /// No session yet, or none any more.
    pub(super) fn none() -> Self {
        Self {
            state: SessionState::Lost,
            session: None,
            registered: None,
            back_since: None,
            leadership: None,
            refused: None,
        }
    }
}

/// What the actor is asked. The reply is sent when it is done, or dropped or sent early when the store is away.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) what: What,
    pub(super) done: oneshot::Sender<()>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Reset,
    Retire,
    Resign(i64),
    StepDown,
    Leave,
}

/// Handle on the membership actor. Clones are handles on the same; when the last is dropped, the pod leaves.
#[derive(Clone)]
pub struct Member {
    membership: watch::Receiver<Membership>,
    session: watch::Receiver<Option<Arc<dyn Coordination>>>,
    requests: mpsc::Sender<Request>,
    coordinator: Arc<str>,
    bound: Duration,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("membership", &*self.membership.borrow()).finish_non_exhaustive()
    }
}

impl Member {
    /// A member of `cluster` and the actor that makes it one: to be spawned and owned by the caller. It ends when the
    /// member has left.
    ///
    /// The actor connects (retrying for ever), registers `registration`, to which it adds the `seq`, and contends for the
    /// lock, and does so again under a new session whenever it loses one.
    pub fn start(
        ensemble: Ensemble,
        cluster: &ClusterName,
        id: PodId,
        registration: Map<String, Value>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let layout = Layout::new(cluster);
        let (requests, queue) = mpsc::channel(QUEUE);
        let member = watch::Sender::new(Membership::none());
        let session = watch::Sender::new(None);
        let handle = Self {
            membership: member.subscribe(),
            session: session.subscribe(),
            requests,
            coordinator: layout.coordinator().into(),
            bound: ensemble.timeout(),
        };
        let pod = Pod::new(layout, id, registration);
        (handle, Actor::new(ensemble, pod, queue, member, session).run())
    }

    /// A membership that is only watched, with no actor behind it.
    #[cfg(test)]
    pub(crate) fn from_watch(membership: watch::Receiver<Membership>) -> Self {
        let (requests, session) = (mpsc::channel(QUEUE).0, watch::channel(None).1);
        Self { membership, session, requests, coordinator: Arc::from(""), bound: Duration::ZERO }
    }

    /// What is known, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Membership> {
        self.membership.clone()
    }

    /// The session under which the pod is registered; one that is about to register it is waited for.
    ///
    /// # Errors
    /// When there is no session, or it is suspended before it has registered the pod.
    ///
    /// # Cancellation safety
    /// Nothing is lost when it is dropped.
    pub async fn registered(&self) -> Result<Arc<dyn Coordination>, CoordError> {
        let mut membership = self.membership.clone();
        let over = |m: &Membership| m.registered.is_some() || m.state != SessionState::Connected;
        let registered = membership.wait_for(over).await.is_ok_and(|m| m.registered.is_some());
        let session = self.session.borrow().clone();
        session.filter(|_| registered).ok_or(CoordError::SessionLost)
    }

    /// Whether this is the pod's present session, as far as it knows.
    #[must_use]
    pub fn is_under(&self, session: i64) -> bool {
        let present = self.session.borrow();
        present.as_ref().is_some_and(|s| s.id() == session && *s.state().borrow() != SessionState::Lost)
    }

    /// The epoch of the present lock holder, read from the store; none when nobody holds it.
    ///
    /// # Errors
    /// When there is no session, it is suspended, or the store does not answer.
    pub async fn holder(&self) -> Result<Option<i64>, CoordError> {
        let session = self.session.borrow().clone().ok_or(CoordError::SessionLost)?;
        let mut state = session.state();
        tokio::select! {
            biased;
            // An error would say that the session is gone, which is no better.
            away = state.wait_for(|state| *state != SessionState::Connected) => match away.map(|state| *state) {
                Ok(SessionState::Suspended) => Err(CoordError::Unavailable("the session is suspended".to_owned())),
                _ => Err(CoordError::SessionLost),
            },
            holder = self.read_holder(&*session) => holder,
        }
    }

    async fn read_holder(&self, session: &dyn Coordination) -> Result<Option<i64>, CoordError> {
        session.sync(&self.coordinator).await?;
        for _ in 0..HOLDER_READS {
            let names = session.children(&self.coordinator).await?.unwrap_or_default();
            let Some(name) = election::holder(&names) else { return Ok(None) };
            if let Some(node) = session.read(&format!("{}/{name}", self.coordinator)).await? {
                return Ok(Some(node.created));
            }
        }
        Err(CoordError::Unavailable("the lock changes hands faster than it can be read".to_owned()))
    }

    /// Drops the session and registers again, keeping identity and `seq`. Returns when the request was taken.
    pub async fn reset(&self) {
        self.ask(What::Reset).await;
    }

    /// The pod is dead: its registration says so, it gives up the lock and never contends again. Lasts over sessions.
    /// Returns when the store knows, or is away.
    pub async fn retire(&self) {
        self.ask(What::Retire).await;
    }

    /// Gives up this leadership, if it still is the present one, and contends anew, behind those who wait. Returns when the
    /// lock is released, or the store is away.
    pub async fn resign(&self, epoch: i64) {
        self.ask(What::Resign(epoch)).await;
    }

    /// Gives up the lock; the registration stays. Nothing is contended for any more. Returns when the lock is released, or
    /// the store is away.
    pub async fn step_down(&self) {
        self.ask(What::StepDown).await;
    }

    /// Leaves: lock, registration and session are gone when this returns, or the store could not be reached within the
    /// session timeout.
    pub async fn leave(&self) {
        self.ask(What::Leave).await;
    }

    /// Waits for the reply, at most the session timeout. What was asked stays asked.
    async fn ask(&self, what: What) {
        let (done, reply) = oneshot::channel();
        let asked = async {
            if self.requests.send(Request { what, done }).await.is_ok() {
                // A reply that is dropped says that the actor has ended: nothing is left to wait for.
                let _ = reply.await;
            }
        };
        if time::timeout(self.bound, asked).await.is_err() {
            tracing::debug!("{what:?}: the store did not answer within {:?}", self.bound);
        }
    }
}

#[cfg(test)]
mod tests;
