//! The membership actor: one session after the other, and requests at any time.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};

use super::{
    CoordError, Coordination, Ensemble, SessionState,
    member::{Membership, Request, What},
    pod::Pod,
    tenure::Tenure,
};
use crate::backoff::Backoff;

/// The first wait after a failed attempt to connect, at most.
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// The longest: how late a pod may notice that the store is back.
const LAST_RETRY: Duration = Duration::from_secs(2);

/// Why a session, or the wait for one, is over.
enum End {
    /// It expired.
    Lost,
    /// A new one is asked for.
    Reset,
    /// The pod leaves; whom to tell.
    Left(Option<oneshot::Sender<()>>),
    /// The store does not let the pod in, and never did.
    Refused(String),
}

pub(super) struct Actor {
    ensemble: Ensemble,
    pod: Pod,
    requests: mpsc::Receiver<Request>,
    membership: watch::Sender<Membership>,
    session: watch::Sender<Option<Arc<dyn Coordination>>>,
}

impl Actor {
    pub(super) fn new(
        ensemble: Ensemble,
        pod: Pod,
        requests: mpsc::Receiver<Request>,
        membership: watch::Sender<Membership>,
        session: watch::Sender<Option<Arc<dyn Coordination>>>,
    ) -> Self {
        Self { ensemble, pod, requests, membership, session }
    }

    /// Runs until the pod has left.
    pub(super) async fn run(mut self) {
        loop {
            let end = match self.connect().await {
                Err(end) => end,
                Ok(session) => self.hold(&session).await,
            };
            match end {
                End::Lost => {
                    warn!("the session with the store is lost; registering again under a new one");
                    self.pod.after_loss = true;
                }
                End::Reset => {
                    info!("the session with the store was reset; registering again under a new one");
                    self.pod.after_loss = false;
                }
                End::Left(done) => {
                    info!("left the cluster");
                    drop(done);
                    return;
                }
                End::Refused(reason) => return self.refuse(reason).await,
            }
        }
    }

    /// Tries until there is a session, or until something else is asked for.
    async fn connect(&mut self) -> Result<Arc<dyn Coordination>, End> {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        let mut told = None;
        // Who was let in once is not sent away: what has changed since may be changed back.
        let known = self.pod.seq.is_some();
        loop {
            let attempt = async {
                let error = match self.ensemble.connect().await {
                    Err(error) if error.is_refusal() && !known => return Err(error),
                    Err(error) => error,
                    connected => return connected,
                };
                if told.as_ref() == Some(&error) {
                    debug!("still cannot reach the store: {error}");
                } else {
                    warn!("cannot reach the store, trying again until it answers: {error}");
                    told = Some(error.clone());
                }
                tokio::time::sleep(backoff.delay()).await;
                Err(error)
            };
            let request = tokio::select! {
                biased;
                request = self.requests.recv() => request,
                result = attempt => match result {
                    Ok(session) => return Ok(session),
                    Err(error) if error.is_refusal() && !known => return Err(End::Refused(error.to_string())),
                    Err(_) => continue,
                },
            };
            let Some(Request { what, done }) = request else { return Err(End::Left(None)) };
            match what {
                What::Leave => return Err(End::Left(Some(done))),
                What::Retire => self.pod.retire(),
                What::StepDown => self.pod.step_down(),
                What::Reset | What::Resign(_) => {}
            }
        }
    }

    /// Lives under one session; it is closed, or gone, afterwards.
    async fn hold(&mut self, session: &Arc<dyn Coordination>) -> End {
        info!(session = session.id(), "connected to the store");
        self.session.send_replace(Some(Arc::clone(session)));
        let end = self.live(session).await;
        self.session.send_replace(None);
        self.membership.send_replace(Membership::none());
        if !matches!(end, End::Lost) {
            session.close().await;
        }
        self.pod.leave_lock_behind();
        end
    }

    async fn live(&mut self, session: &Arc<dyn Coordination>) -> End {
        let mut state = session.state();
        let mut tenure = Tenure::new(&mut self.pod, Arc::clone(session), &self.membership);
        loop {
            let now = *state.borrow_and_update();
            tenure.turn(now);
            let request = match now {
                SessionState::Lost => return End::Lost,
                SessionState::Suspended => tokio::select! {
                    biased;
                    changed = state.changed() => if changed.is_ok() { continue } else { return End::Lost },
                    request = self.requests.recv() => request,
                },
                SessionState::Connected => tokio::select! {
                    biased;
                    changed = state.changed() => if changed.is_ok() { continue } else { return End::Lost },
                    request = self.requests.recv() => request,
                    error = tenure.work() => return match error {
                        CoordError::SessionLost => End::Lost,
                        refusal => End::Refused(refusal.to_string()),
                    },
                },
            };
            let Some(Request { what, done }) = request else { return End::Left(None) };
            match what {
                What::Leave => return End::Left(Some(done)),
                What::Reset => return End::Reset,
                What::Retire => tenure.retire(),
                What::StepDown => tenure.step_down(),
                What::Resign(epoch) => tenure.resign(epoch),
            }
            // While the store is away nothing can be done about it now.
            if now == SessionState::Connected {
                tenure.reply_when_settled(done);
            }
        }
    }

    /// Nothing can be done any more but leave.
    async fn refuse(mut self, reason: String) {
        error!("the store does not let this pod in: {reason}");
        self.membership.send_modify(|m| m.refused = Some(reason));
        while let Some(request) = self.requests.recv().await {
            if matches!(request.what, What::Leave) {
                return;
            }
        }
    }
}
