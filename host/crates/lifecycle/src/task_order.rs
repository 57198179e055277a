//! Order of the requests of a leadership.

use super::{ControlTask, Outcome, Request};

/// The last request that started among those which leaderships number.
#[derive(Debug, Default)]
pub(super) struct TaskOrder {
    /// Epoch and number.
    latest: Option<(i64, u64)>,
}

impl TaskOrder {
    /// Records a request that is about to start. Returns the rejection if it must not; `admitted` is the leadership that is
    /// accepted now.
    ///
    /// Messages may be late: no request of a leadership starts after one that it sent later. An `ok` may: another
    /// configuration may be at its check before the last one is confirmed, and never reach its own.
    pub(super) fn check(&mut self, request: &Request, admitted: Option<i64>) -> Option<Outcome> {
        let requested = request.epoch?;
        match admitted {
            None => return Some(Outcome::EpochUnknown),
            Some(holder) if holder != requested => {
                return Some(Outcome::Superseded(format!("stale epoch {requested}: no longer the lock holder's")));
            }
            Some(_) => {}
        }
        let number = request.number?;
        let latest = self.latest.filter(|(epoch, _)| *epoch == requested).map(|(_, latest)| latest);
        let late = latest.filter(|latest| number <= *latest && !matches!(request.task, ControlTask::Ok(_)));
        if let Some(latest) = late {
            let text =
                format!("out of order: request {number} of epoch {requested} arrived after request {latest} started");
            return Some(Outcome::Late(latest, text));
        }
        self.latest = Some((requested, latest.unwrap_or_default().max(number)));
        None
    }
}
