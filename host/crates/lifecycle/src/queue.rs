//! Requests that wait until the machine is free.

use std::{collections::VecDeque, time::Instant};

use serde_json::json;

use super::{Effect, Outcome, Request, RequestId, TimeoutResult, task_order::TaskOrder};

/// Id of a request that was answered before its job completed.
const ANSWERED: RequestId = 0;

/// A request that waits or is being executed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PendingRequest {
    id: RequestId,
    pub(super) request: Request,
    pub(super) expires: Instant,
}

impl PendingRequest {
    /// Returns its id, as long as it is not answered.
    pub(super) fn id(&self) -> Option<RequestId> {
        (self.id != ANSWERED).then_some(self.id)
    }

    /// Returns the effect that answers it, unless it was answered before.
    #[must_use]
    pub(super) fn reply(&self, outcome: Outcome) -> Option<Effect> {
        self.id().map(|id| Effect::Reply(id, outcome))
    }

    /// Returns the effect that answers it with success and no value.
    #[must_use]
    pub(super) fn done(&self) -> Option<Effect> {
        self.reply(Outcome::Done(json!({})))
    }

    /// Answers it although its job continues.
    #[must_use]
    pub(super) fn answer_early(&mut self, outcome: Outcome) -> Option<Effect> {
        let reply = self.reply(outcome);
        self.id = ANSWERED;
        reply
    }
}

/// Requests in order of arrival, and the order that leaders gave theirs.
#[derive(Debug, Default)]
pub(super) struct RequestQueue {
    waiting: VecDeque<PendingRequest>,
    order: TaskOrder,
}

impl RequestQueue {
    pub(super) fn push(&mut self, id: RequestId, request: Request, now: Instant) {
        let expires = now + request.limit;
        self.waiting.push_back(PendingRequest { id, request, expires });
    }

    /// Removes the next request, which is to start now: itself, or the reply if it must not. `epoch` is the leadership that is
    /// accepted now.
    pub(super) fn next(&mut self, epoch: Option<i64>) -> Option<Result<PendingRequest, Option<Effect>>> {
        let pending = self.waiting.pop_front()?;
        Some(match self.order.check(&pending.request, epoch) {
            Some(rejection) => Err(pending.reply(rejection)),
            None => Ok(pending),
        })
    }

    /// Accepts a request that starts immediately, ahead of the queue. Returns the rejection if it must not.
    pub(super) fn check(&mut self, request: &Request, epoch: Option<i64>) -> Option<Outcome> {
        self.order.check(request, epoch)
    }

    pub(super) fn contains(&self, id: RequestId) -> bool {
        self.waiting.iter().any(|pending| pending.id == id)
    }

    /// Drops a request that has not started.
    #[must_use]
    pub(super) fn withdraw(&mut self, id: RequestId) -> Option<Effect> {
        let at = self.waiting.iter().position(|pending| pending.id == id)?;
        self.waiting.remove(at)?.reply(Outcome::TimedOut(TimeoutResult::NotStarted))
    }

    /// Drops requests whose time limit is exceeded.
    #[must_use]
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.waiting.retain(|pending| {
            let waits = pending.expires > now;
            if !waits {
                effects.extend(pending.reply(Outcome::TimedOut(TimeoutResult::NotStarted)));
            }
            waits
        });
        effects
    }

    /// Drops all requests with this reply.
    #[must_use]
    pub(super) fn reject_all(&mut self, outcome: &Outcome) -> Vec<Effect> {
        self.waiting.drain(..).filter_map(|pending| pending.reply(outcome.clone())).collect()
    }

    /// Returns when the next request expires.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.waiting.iter().map(|pending| pending.expires).min()
    }
}
