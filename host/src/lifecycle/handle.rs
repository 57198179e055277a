//! How the rest of the host reaches the lifecycle actor.

use tokio::sync::{mpsc, oneshot};

use super::{Outcome, Request};

/// A request on its way to the actor.
#[derive(Debug)]
pub struct Submission {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Outcome>,
}

/// Submits requests to one pod's lifecycle.
#[derive(Debug, Clone)]
pub struct LifecycleHandle {
    submissions: mpsc::Sender<Submission>,
}

impl LifecycleHandle {
    /// A handle on the actor at the other end of this channel.
    #[must_use]
    pub fn new(submissions: mpsc::Sender<Submission>) -> Self {
        Self { submissions }
    }

    /// Submits a request and waits for what comes of it, at most its limit (408 past it).
    ///
    /// # Cancellation safety
    /// Dropping the future does not cancel a request that was submitted.
    pub async fn submit(&self, request: Request) -> Outcome {
        let (reply, answer) = oneshot::channel();
        if self.submissions.send(Submission { request, reply }).await.is_err() {
            return gone();
        }
        answer.await.unwrap_or_else(|_| gone())
    }
}

fn gone() -> Outcome {
    Outcome::Gone("the pod is leaving".to_owned())
}
