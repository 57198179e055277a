//! Effects of the step in progress, and the callback that runs.

use std::time::Duration;

use super::{Callback, Effect};

/// Collects effects in order, and numbers the callbacks among them. At most one callback runs.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    effects: Vec<Effect>,
    running: Option<u64>,
    calls: u64,
}

impl Outbox {
    /// Adds an effect. Callbacks are added by [`call`](Self::call), whatever number they have here.
    pub(super) fn push(&mut self, effect: Effect) {
        match effect {
            Effect::Call(_, callback, limit) => self.call(callback, limit),
            Effect::CancelCall => self.cancel_call(),
            effect => self.effects.push(effect),
        }
    }

    pub(super) fn extend(&mut self, effects: impl IntoIterator<Item = Effect>) {
        effects.into_iter().for_each(|effect| self.push(effect));
    }

    pub(super) fn call(&mut self, callback: Callback, limit: Duration) {
        self.calls += 1;
        self.running = Some(self.calls);
        self.effects.push(Effect::Call(self.calls, callback, limit));
    }

    /// Stops the running callback, if there is one.
    pub(super) fn cancel_call(&mut self) {
        if self.running.take().is_some() {
            self.effects.push(Effect::CancelCall);
        }
    }

    /// Returns whether this is the running callback, which has returned.
    pub(super) fn finish_call(&mut self, number: u64) -> bool {
        self.running.take_if(|running| *running == number).is_some()
    }

    /// Takes the effects of the step.
    pub(super) fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}
