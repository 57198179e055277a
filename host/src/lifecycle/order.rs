//! Whether a leadership's command may still begin when its turn comes: pure.

use super::{Command as Task, Outcome, Request};

/// What began last of the commands that leaderships number.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// The leadership and the number.
    latest: Option<(i64, u64)>,
}

impl Order {
    /// Takes a command that is about to begin; why it may not, if so. `admitted` is the leadership that is obeyed now.
    ///
    /// A message may be late: an `on` or `off` of a leadership does not begin once something has that it posted after.
    pub(super) fn take(&mut self, request: &Request, admitted: Option<i64>) -> Option<Outcome> {
        let asking = request.epoch?;
        match admitted {
            None => return Some(Outcome::Lapsed),
            Some(holder) if holder != asking => {
                return Some(Outcome::Superseded(format!("epoch {asking} is no more that of the lock holder")));
            }
            Some(_) => {}
        }
        let number = request.number?;
        let latest = self.latest.filter(|(epoch, _)| *epoch == asking).map(|(_, latest)| latest);
        let late = latest.filter(|latest| number < *latest);
        if let (Some(latest), Task::On(_) | Task::Off) = (late, &request.command) {
            let text =
                format!("it is late: epoch {asking} posted it as number {number}, and number {latest} has begun");
            return Some(Outcome::Superseded(text));
        }
        self.latest = Some((asking, latest.unwrap_or_default().max(number)));
        None
    }
}
