//! Membership actor: runs one session after the other, and accepts requests at any time.

use std::{pin::pin, sync::Arc, time::Duration};

use ochopod_model::status::PodState;
use ochopod_timing::Backoff;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tracing::{debug, error, info, warn};

use super::{
    CoordError, Coordination, SessionState, member_state::MemberState, registration_reconciler::RegistrationReconciler,
    states,
};
use crate::{
    StoreBackend,
    membership::{Membership, MembershipRequest, RequestKind, set_last_error},
};

/// Upper bound of the first delay after a failed attempt to connect.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Upper bound of all delays: the longest delay until a recovered store is noticed.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// Cause of the end of a session, or of the wait for one.
enum SessionEnd {
    /// The session expired.
    Lost,
    /// A new session was requested.
    Reset,
    /// The pod deregisters; the reply is sent when it is done.
    Deregistered(Option<oneshot::Sender<()>>),
    /// The store denied access before the first registration.
    Rejected(String),
}

pub(crate) struct MembershipActor {
    store: StoreBackend,
    pod: MemberState,
    requests: mpsc::Receiver<MembershipRequest>,
    state: watch::Receiver<Option<PodState>>,
    membership: watch::Sender<Membership>,
    session: watch::Sender<Option<Arc<dyn Coordination>>>,
}

impl MembershipActor {
    pub(crate) fn new(
        store: StoreBackend,
        pod: MemberState,
        requests: mpsc::Receiver<MembershipRequest>,
        state: watch::Receiver<Option<PodState>>,
        membership: watch::Sender<Membership>,
        session: watch::Sender<Option<Arc<dyn Coordination>>>,
    ) -> Self {
        Self { store, pod, requests, state, membership, session }
    }

    /// Runs until the pod has deregistered.
    pub(crate) async fn run(mut self) {
        loop {
            let end = match self.connect().await {
                Err(end) => end,
                Ok(session) => self.run_session(&session).await,
            };
            match end {
                SessionEnd::Lost => {
                    warn!("session lost, registering again");
                    self.pod.after_loss = true;
                }
                SessionEnd::Reset => {
                    info!("session reset, registering again");
                    self.pod.after_loss = false;
                }
                SessionEnd::Deregistered(done) => {
                    info!("deregistered from cluster");
                    drop(done);
                    return;
                }
                SessionEnd::Rejected(reason) => return self.reject_requests(reason).await,
            }
        }
    }

    /// Retries until a session is open, or until a request ends the wait.
    async fn connect(&mut self) -> Result<Arc<dyn Coordination>, SessionEnd> {
        let mut backoff = Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY);
        let mut reported = None;
        // A pod that was registered once keeps retrying: changed ACLs or credentials may be changed back.
        let was_admitted = self.pod.seq.is_some();
        loop {
            let attempt = async {
                let error = match self.store.nodes().connect().await {
                    Err(error) if error.is_auth_error() && !was_admitted => return Err(error),
                    Err(error) => error,
                    connected => return connected,
                };
                set_last_error(&self.membership, &error);
                if reported.as_ref() == Some(&error) {
                    debug!(%error, "coordination store still unreachable");
                } else {
                    warn!(%error, "coordination store unreachable, retrying");
                    reported = Some(error.clone());
                }
                tokio::time::sleep(backoff.delay()).await;
                Err(error)
            };
            let request = tokio::select! {
                biased;
                request = self.requests.recv() => request,
                result = attempt => match result {
                    Ok(session) => return Ok(session),
                    Err(error) if error.is_auth_error() && !was_admitted => return Err(SessionEnd::Rejected(error.to_string())),
                    Err(_) => continue,
                },
            };
            let Some(MembershipRequest { kind, done }) = request else { return Err(SessionEnd::Deregistered(None)) };
            match kind {
                RequestKind::Leave => return Err(SessionEnd::Deregistered(Some(done))),
                RequestKind::Retire => self.pod.mark_dead(),
                RequestKind::Revive => self.pod.revive(),
                RequestKind::StepDown => self.pod.step_down(),
                RequestKind::Yield(duration) => self.pod.yield_until(Instant::now() + duration),
                RequestKind::StopYielding => self.pod.stop_yielding(),
                RequestKind::SetContending(contending) => _ = self.pod.set_contending(contending),
                RequestKind::Reset | RequestKind::Resign(_) => {}
            }
        }
    }

    /// Runs under one session, which is closed or lost afterwards.
    async fn run_session(&mut self, session: &Arc<dyn Coordination>) -> SessionEnd {
        info!(session = session.id(), "session established");
        self.session.send_replace(Some(Arc::clone(session)));
        let end = self.serve_session(session).await;
        self.session.send_replace(None);
        self.membership.send_replace(Membership::none());
        if !matches!(end, SessionEnd::Lost) {
            session.close().await;
        }
        self.pod.rotate_lock_token();
        end
    }

    async fn serve_session(&mut self, session: &Arc<dyn Coordination>) -> SessionEnd {
        let mut state = session.state();
        let node = (self.pod.layout.clone(), self.pod.id.clone());
        let publishing = states::publish(Arc::clone(session), node, self.state.clone(), self.membership.subscribe());
        let mut publishing = pin!(publishing);
        let mut reconciler = RegistrationReconciler::new(&mut self.pod, Arc::clone(session), &self.membership);
        loop {
            let now = *state.borrow_and_update();
            reconciler.on_session_state(now);
            let request = match now {
                SessionState::Lost => return SessionEnd::Lost,
                SessionState::Suspended => tokio::select! {
                    biased;
                    changed = state.changed() => if changed.is_ok() { continue } else { return SessionEnd::Lost },
                    request = self.requests.recv() => request,
                },
                SessionState::Connected => tokio::select! {
                    biased;
                    changed = state.changed() => if changed.is_ok() { continue } else { return SessionEnd::Lost },
                    request = self.requests.recv() => request,
                    error = reconciler.run() => return match error {
                        CoordError::SessionLost => SessionEnd::Lost,
                        refusal => SessionEnd::Rejected(refusal.to_string()),
                    },
                    never = &mut publishing => match never {},
                },
            };
            let Some(MembershipRequest { kind, done }) = request else { return SessionEnd::Deregistered(None) };
            match kind {
                RequestKind::Leave => return SessionEnd::Deregistered(Some(done)),
                RequestKind::Reset => return SessionEnd::Reset,
                RequestKind::Retire => reconciler.mark_dead(),
                RequestKind::Revive => reconciler.revive(),
                RequestKind::StepDown => reconciler.step_down(),
                RequestKind::Yield(duration) => reconciler.yield_lock(duration),
                RequestKind::StopYielding => reconciler.stop_yielding(),
                RequestKind::SetContending(contending) => reconciler.set_contending(contending),
                RequestKind::Resign(epoch) => reconciler.resign(epoch),
            }
            // While the store is unreachable the request cannot be executed yet.
            if now == SessionState::Connected {
                reconciler.notify_when_reconciled(done);
            }
        }
    }

    /// Serves requests after the store denied access: only the end of the membership is possible.
    async fn reject_requests(mut self, reason: String) {
        error!(reason, "coordination store denied access");
        self.membership.send_modify(|m| m.rejected = Some(reason));
        while let Some(request) = self.requests.recv().await {
            if matches!(request.kind, RequestKind::Leave) {
                return;
            }
        }
    }
}
