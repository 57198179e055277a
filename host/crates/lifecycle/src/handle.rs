//! Handle of the lifecycle actor.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Outcome, Request};

/// Connects a request with the client that waits for it. Clones share state.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    withdrawn: CancellationToken,
    started: Arc<AtomicBool>,
}

impl Claim {
    /// Returns a claim that is withdrawn when `gone` is cancelled.
    #[must_use]
    pub fn new(gone: &CancellationToken) -> Self {
        Self { withdrawn: gone.child_token(), started: Arc::default() }
    }

    /// Drops the request, unless it has started.
    pub fn withdraw(&self) {
        self.withdrawn.cancel();
    }

    /// Returns whether it was withdrawn.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.is_cancelled()
    }

    /// Marks the request as started: it cannot be withdrawn any longer.
    pub fn start(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Returns whether the request has started.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }
}

/// A request on its way to the actor.
#[derive(Debug)]
pub struct Submission {
    /// The request.
    pub request: Request,
    /// Receives the outcome.
    pub reply: oneshot::Sender<Outcome>,
    /// Marked when it starts.
    pub claim: Claim,
    /// Cancelled when its client is gone.
    pub withdrawn: CancellationToken,
}

/// Submits requests to one pod's lifecycle.
#[derive(Debug, Clone)]
pub struct LifecycleHandle {
    submissions: mpsc::Sender<Submission>,
    claim: Claim,
}

impl LifecycleHandle {
    /// Returns a handle of the actor at the other end of this channel.
    #[must_use]
    pub fn new(submissions: mpsc::Sender<Submission>) -> Self {
        Self { submissions, claim: Claim::default() }
    }

    /// Returns the same handle for requests of this claim.
    #[must_use]
    pub fn with_claim(&self, claim: Claim) -> Self {
        Self { submissions: self.submissions.clone(), claim }
    }

    /// Submits a request and waits for its outcome, at most until its time limit (408).
    ///
    /// # Cancellation safety
    /// Dropping the future withdraws the request, unless it has started.
    pub async fn submit(&self, request: Request) -> Outcome {
        let (reply, answer) = oneshot::channel();
        let withdrawn = self.claim.withdrawn.child_token();
        let _withdraw = withdrawn.clone().drop_guard();
        let submission = Submission { request, reply, claim: self.claim.clone(), withdrawn };
        if self.submissions.send(submission).await.is_err() {
            return shutting_down();
        }
        answer.await.unwrap_or_else(|_| shutting_down())
    }
}

fn shutting_down() -> Outcome {
    Outcome::Gone("pod is shutting down".to_owned())
}
