//! Membership of one pod in its cluster: session, registration and position in the queue for the leader lock.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use ochopod_model::{ClusterName, PodId, Pods, status::PodState};
use ochopod_timing::Backoff;
use serde_json::{Map, Value};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{self, Instant},
};

use super::{
    CoordError, Leadership, Pause, SessionState, StoreBackend,
    znodes::{
        Coordination, configuration, election, layout::Layout, member_state::MemberState,
        membership_actor::MembershipActor, observer,
    },
};

/// Requests that may wait for the actor.
const QUEUE_LEN: usize = 16;

/// Bounds of the delays after failed reads of the last configuration.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Registration of the pod under the current session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveRegistration {
    /// Sequence number of the pod, the same for its whole life.
    pub seq: u64,
    /// Time of the registration under the current session.
    pub at: std::time::Instant,
    /// Whether an earlier session of this pod was lost (not reset on request).
    pub after_loss: bool,
}

/// Known state of the membership, published as a whole.
#[derive(Debug, Clone)]
pub struct Membership {
    /// State of the session.
    pub state: SessionState,
    /// Identity of the session, if there is one.
    pub session: Option<i64>,
    /// Registration under that session, if there is one.
    pub registered: Option<ActiveRegistration>,
    /// Time of the latest reconnection, after a lost session or an interrupted connection. The store may have been unreachable
    /// for all pods, and others may still be reconnecting.
    pub reconnected_at: Option<std::time::Instant>,
    /// The leadership, if the pod holds the leader lock. None while the session is suspended; it is reported again, with the
    /// same epoch, once the pod has confirmed that it still holds the lock.
    pub leadership: Option<Leadership>,
    /// Reason why the store denied access before the first registration. Final.
    pub rejected: Option<String>,
    /// Last error while connecting or registering; none once registered.
    pub last_error: Option<String>,
}

impl Membership {
    /// Returns membership without a session.
    pub(super) fn none() -> Self {
        Self {
            state: SessionState::Lost,
            session: None,
            registered: None,
            reconnected_at: None,
            leadership: None,
            rejected: None,
            last_error: None,
        }
    }

    /// Returns the reason why the pod is not registered, if known; none while it is registered.
    #[must_use]
    pub fn unregistered_reason(&self) -> Option<&str> {
        let reason = self.rejected.as_deref().or(self.last_error.as_deref());
        reason.filter(|_| self.registered.is_none())
    }
}

/// Publishes the last error, unless the pod is registered.
pub(super) fn set_last_error(membership: &watch::Sender<Membership>, error: &CoordError) {
    let error = Some(error.to_string());
    membership
        .send_if_modified(|m| m.registered.is_none() && std::mem::replace(&mut m.last_error, error.clone()) != error);
}

/// The pod that holds the leader lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// Epoch of its leadership.
    pub epoch: i64,
    /// The pod, unless it belongs to the Python SDK.
    pub pod: Option<PodId>,
    /// Its lock node.
    pub(crate) path: String,
}

/// A reading of the leader lock, made while the pod was registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockReading {
    /// The holder; none if no pod holds the lock.
    pub holder: Option<LockHolder>,
    /// Session under which the pod was registered.
    session: i64,
    /// The session cannot have expired before.
    expires: Instant,
}

/// Request to the actor. The reply is sent when it is executed, or dropped if the store is unreachable.
#[derive(Debug)]
pub(super) struct MembershipRequest {
    pub(super) kind: RequestKind,
    pub(super) done: oneshot::Sender<()>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum RequestKind {
    Reset,
    Retire,
    Revive,
    Resign(i64),
    StepDown,
    Yield(Duration),
    StopYielding,
    SetContending(bool),
    Leave,
}

impl RequestKind {
    /// Returns the name of the request for logs.
    fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Retire => "retire",
            Self::Revive => "revive",
            Self::Resign(_) => "resign",
            Self::StepDown => "step down",
            Self::Yield(_) => "yield",
            Self::StopYielding => "stop yielding",
            Self::SetContending(_) => "set contending",
            Self::Leave => "leave",
        }
    }
}

/// Handle of the membership actor. Clones refer to the same actor; when the last is dropped, the pod deregisters.
#[derive(Clone)]
pub struct MembershipHandle {
    membership: watch::Receiver<Membership>,
    session: watch::Receiver<Option<Arc<dyn Coordination>>>,
    state: Arc<watch::Sender<Option<PodState>>>,
    requests: mpsc::Sender<MembershipRequest>,
    id: PodId,
    layout: Arc<Layout>,
    timeout: Duration,
}

impl fmt::Debug for MembershipHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MembershipHandle").field("membership", &*self.membership.borrow()).finish_non_exhaustive()
    }
}

impl MembershipHandle {
    /// Returns a handle and its actor, which the caller must spawn. The actor ends when the pod has deregistered.
    ///
    /// The actor connects (retrying indefinitely), registers `registration`, to which it adds the `seq`, and contends for the
    /// leader lock. It does so again under a new session whenever it loses one.
    pub fn start(
        store: StoreBackend,
        cluster: &ClusterName,
        id: PodId,
        registration: Map<String, Value>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (requests, queue) = mpsc::channel(QUEUE_LEN);
        let member = watch::Sender::new(Membership::none());
        let session = watch::Sender::new(None);
        let (publish, state) = watch::channel(None);
        let handle = Self {
            membership: member.subscribe(),
            session: session.subscribe(),
            state: Arc::new(publish),
            requests,
            id: id.clone(),
            layout: Arc::new(Layout::new(cluster)),
            timeout: store.timeout(),
        };
        let pod = MemberState::new(cluster.clone(), id, registration);
        (handle, MembershipActor::new(store, pod, queue, state, member, session).run())
    }

    /// Returns a handle without an actor, which only reports this membership.
    #[must_use]
    pub fn from_watch(membership: watch::Receiver<Membership>) -> Self {
        let (requests, session) = (mpsc::channel(QUEUE_LEN).0, watch::channel(None).1);
        let state = Arc::new(watch::Sender::new(None));
        let (id, layout) = (PodId::from(""), Arc::new(Layout::of("")));
        Self { membership, session, state, requests, id, layout, timeout: Duration::ZERO }
    }

    /// Returns the session timeout: the one that the store granted, or else the requested one.
    #[must_use]
    pub fn session_timeout(&self) -> Duration {
        self.session.borrow().as_ref().map_or(self.timeout, |session| session.timeout())
    }

    /// Returns the membership and its changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Membership> {
        self.membership.clone()
    }

    /// Sets the state that the pod publishes while it is registered. Returns immediately; of several changes in quick
    /// succession only the last one is written.
    pub fn publish(&self, state: PodState) {
        self.state.send_if_modified(|published| {
            let state = Some(state);
            let is_changed = *published != state;
            *published = state;
            is_changed
        });
    }

    /// Reads the leader lock while the pod is registered; waits for a registration in progress. While the holder is that of an
    /// earlier reading, this costs one short exchange with the store, whatever the number of pods.
    ///
    /// # Errors
    /// Fails if there is no session, if it is or becomes suspended, or if the store does not answer.
    ///
    /// # Cancellation safety
    /// Dropping the future has no effect.
    pub async fn read_lock(&self, earlier: Option<&LockReading>) -> Result<LockReading, CoordError> {
        let session = self.registered_session().await?;
        let expires = Instant::now() + session.timeout();
        let known = earlier.and_then(|reading| reading.holder.as_ref());
        let holder = match known {
            Some(known) if while_connected(&*session, election::still_holds(&*session, known)).await? => {
                Some(known.clone())
            }
            _ => self.lock_holder().await?,
        };
        Ok(LockReading { holder, session: session.id(), expires })
    }

    /// Returns whether the pod is certain to have been registered ever since a reading: under the same session, and for no
    /// longer than a session lasts without contact to the store.
    #[must_use]
    pub fn is_current(&self, reading: &LockReading) -> bool {
        let session = self.session.borrow();
        let is_same = |session: &Arc<dyn Coordination>| {
            session.id() == reading.session && *session.state().borrow() != SessionState::Lost
        };
        session.as_ref().is_some_and(is_same) && Instant::now() < reading.expires
    }

    async fn registered_session(&self) -> Result<Arc<dyn Coordination>, CoordError> {
        let mut membership = self.membership.clone();
        let is_settled = |m: &Membership| m.registered.is_some() || m.state != SessionState::Connected;
        let is_registered = membership.wait_for(is_settled).await.is_ok_and(|m| m.registered.is_some());
        let session = self.session.borrow().clone();
        session.filter(|_| is_registered).ok_or(CoordError::SessionLost)
    }

    /// Reads the current lock holder from the store; none if no pod holds the lock.
    ///
    /// # Errors
    /// Fails if there is no session, if it is or becomes suspended, or if the store does not answer.
    pub async fn lock_holder(&self) -> Result<Option<LockHolder>, CoordError> {
        let session = self.current_session()?;
        while_connected(&*session, election::read_holder(&*session, &self.layout.coordinator())).await
    }

    /// Waits until this pod no longer holds the lock, or the session is lost. A store that does not answer is queried again.
    ///
    /// # Cancellation safety
    /// Dropping the future removes the watch.
    pub async fn until_released(&self, holder: &LockHolder) {
        let Some(session) = self.session.borrow().clone() else { return };
        let mut backoff = Backoff::new(RETRY_DELAY.0, RETRY_DELAY.1);
        loop {
            let is_settled = |state: &SessionState| *state != SessionState::Suspended;
            if session.state().wait_for(is_settled).await.is_ok_and(|state| *state == SessionState::Lost) {
                return;
            }
            match while_connected(&*session, election::until_released(&*session, holder)).await {
                Ok(()) | Err(CoordError::SessionLost) => return,
                Err(error) => {
                    tracing::debug!(%error, "cannot watch the leader lock, retrying");
                    time::sleep(backoff.delay()).await;
                }
            }
        }
    }

    /// Reads the registered pods of the cluster, dead ones included.
    ///
    /// # Errors
    /// Fails if there is no session, if it is or becomes suspended, or if the store does not answer.
    pub async fn registered_pods(&self) -> Result<Pods, CoordError> {
        let session = self.current_session()?;
        while_connected(&*session, observer::read_pods(&*session, &self.layout)).await
    }

    /// Pauses the configurations of the cluster, or replaces the pause. It lasts until [`resume`](Self::resume), whatever
    /// happens to this pod.
    ///
    /// # Errors
    /// Fails if there is no session, if it is or becomes suspended, or if the store does not answer or denies access.
    ///
    /// # Cancellation safety
    /// The result of a dropped call is unknown. It can be repeated.
    pub async fn pause(&self, pause: &Pause) -> Result<(), CoordError> {
        let session = self.current_session()?;
        while_connected(&*session, configuration::pause(&*session, &self.layout, pause)).await
    }

    /// Ends the pause of the configurations of the cluster. Returns whether there was one.
    ///
    /// # Errors
    /// Fails if there is no session, if it is or becomes suspended, or if the store does not answer or denies access.
    ///
    /// # Cancellation safety
    /// The result of a dropped call is unknown. It can be repeated.
    pub async fn resume(&self) -> Result<bool, CoordError> {
        let session = self.current_session()?;
        while_connected(&*session, configuration::resume(&*session, &self.layout)).await
    }

    /// Waits until the last configuration of the cluster does not contain this pod. A store that does not answer is queried
    /// again, without end.
    ///
    /// # Cancellation safety
    /// Dropping the future removes the watches.
    pub async fn until_excluded(&self) {
        let mut sessions = self.session.clone();
        let mut backoff = Backoff::new(RETRY_DELAY.0, RETRY_DELAY.1);
        loop {
            let session = sessions.wait_for(Option::is_some).await.ok().and_then(|session| session.clone());
            // Without an actor there is no session any longer.
            let Some(session) = session else { return std::future::pending().await };
            match configuration::until_without(&*session, &self.layout, &self.id).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(%error, "cannot read last configuration, retrying");
                    time::sleep(backoff.delay()).await;
                }
            }
        }
    }

    fn current_session(&self) -> Result<Arc<dyn Coordination>, CoordError> {
        self.session.borrow().clone().ok_or(CoordError::SessionLost)
    }

    /// Drops the session and registers again, keeping identity and `seq`. Returns when the request was accepted.
    pub async fn reset(&self) {
        self.request(RequestKind::Reset).await;
    }

    /// Marks the registration as dead and releases the leader lock. The pod never contends again, also under later sessions.
    /// Returns when the store confirmed it, or is unreachable.
    pub async fn retire(&self) {
        self.request(RequestKind::Retire).await;
    }

    /// Undoes [`retire`](Self::retire): registers the pod as alive, and contends for the leader lock again unless something else
    /// prevents it. Returns when that is done, or the store is unreachable.
    pub async fn revive(&self) {
        self.request(RequestKind::Revive).await;
    }

    /// Ends this leadership, if it is the current one, and contends again, behind all waiting pods. Returns when the lock is
    /// released, or the store is unreachable.
    pub async fn resign(&self, epoch: i64) {
        self.request(RequestKind::Resign(epoch)).await;
    }

    /// Lets other pods lead for this time: releases the leader lock, does not contend for it meanwhile, also under later
    /// sessions, and contends again afterwards. The later end counts if the pod yields already. Returns when the lock is
    /// released, or the store is unreachable.
    pub async fn yield_lock(&self, duration: Duration) {
        self.request(RequestKind::Yield(duration)).await;
    }

    /// Ends the time of [`yield_lock`](Self::yield_lock): the pod contends again. Returns when it does, or the store is
    /// unreachable.
    pub async fn stop_yielding(&self) {
        self.request(RequestKind::StopYielding).await;
    }

    /// Sets whether the pod contends for the leader lock, also under later sessions. A pod that does not releases the lock. One
    /// that is dead, yields or has stepped down does not contend either way. Returns when that is done, or the store is
    /// unreachable.
    pub async fn set_contending(&self, contending: bool) {
        self.request(RequestKind::SetContending(contending)).await;
    }

    /// Releases the leader lock and stops contending for good; the registration stays. Returns when the lock is released, or
    /// the store is unreachable.
    pub async fn step_down(&self) {
        self.request(RequestKind::StepDown).await;
    }

    /// Deregisters. When this returns, lock, registration and session are gone, or the store could not be reached within the
    /// session timeout.
    pub async fn leave(&self) {
        self.request(RequestKind::Leave).await;
    }

    /// Sends a request and waits for its reply, at most the session timeout. A request without a reply stays in the queue.
    async fn request(&self, kind: RequestKind) {
        let (done, reply) = oneshot::channel();
        let sent = async {
            if self.requests.send(MembershipRequest { kind, done }).await.is_ok() {
                // A dropped reply means that the actor has ended.
                let _ = reply.await;
            }
        };
        if time::timeout(self.timeout, sent).await.is_err() {
            tracing::debug!(request = kind.name(), limit = self.timeout.as_secs_f64(), "membership request timed out");
        }
    }
}

/// Runs an operation while its session is connected.
async fn while_connected<T>(
    session: &dyn Coordination,
    operation: impl Future<Output = Result<T, CoordError>>,
) -> Result<T, CoordError> {
    let mut state = session.state();
    tokio::select! {
        biased;
        // An error means that the session is gone, as if it were lost.
        state = state.wait_for(|state| *state != SessionState::Connected) => match state.map(|state| *state) {
            Ok(SessionState::Suspended) => Err(CoordError::Unavailable("session suspended".to_owned())),
            _ => Err(CoordError::SessionLost),
        },
        result = operation => result,
    }
}

#[cfg(test)]
mod tests;
