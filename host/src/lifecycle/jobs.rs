//! What each command does, step by step.

use std::time::Instant;

use super::{
    Blame, Command as Task, Failure, Outcome, Overrun,
    machine::{
        CallFailure, Callback, Configured, Effect, Ending, Job, Life, Machine, OnStage, Pending, Returned, Ticket,
    },
};
use crate::{cluster::Digest, plugin::Command, status::ProcessState};

impl Machine {
    pub(super) fn begin(&mut self, pending: Pending, now: Instant, effects: &mut Vec<Effect>) {
        match pending.request.command.clone() {
            Task::Check(view) => self.begin_call(pending, Callback::CanConfigure(view), now, effects),
            Task::Ok(view) => self.begin_call(pending, Callback::Configured(view), now, effects),
            Task::Signal(body) => {
                let pid = self.supervision.pid();
                self.begin_call(pending, Callback::Signaled(body, pid), now, effects);
            }
            Task::On(_) => self.begin_on(pending, now, effects),
            Task::Off if self.already_on(&pending) => Self::done(&pending, effects),
            Task::Off => self.begin_off(Some(pending), now, effects),
            Task::Kill => self.doom(Some(pending.ticket), now, effects),
        }
    }

    /// One callback answers the request. It may take what is left of the limit.
    fn begin_call(&mut self, pending: Pending, callback: Callback, now: Instant, effects: &mut Vec<Effect>) {
        let limit = pending.expires.saturating_duration_since(now);
        self.job = Job::Call(pending);
        self.call(callback, limit, effects);
    }

    /// Whether the pod runs as this very configuration wants it: a leadership that resumes changes nothing.
    fn already_on(&self, pending: &Pending) -> bool {
        pending.request.generation.is_some()
            && pending.request.generation == self.completed
            && self.supervision.is_running()
    }

    fn begin_on(&mut self, pending: Pending, now: Instant, effects: &mut Vec<Effect>) {
        let Task::On(view) = &pending.request.command else { return };
        let running = self.supervision.is_running();
        match view {
            None if running => Self::done(&pending, effects),
            None => match self.configured.as_ref().map(|configured| configured.command.clone()) {
                Some(command) => self.spawn_for(pending, &command, now, effects),
                None => Self::reply(&pending, Outcome::Refused(host_failure("the pod was never configured")), effects),
            },
            Some(_) if self.already_on(&pending) => Self::done(&pending, effects),
            Some(view) if running => {
                let same = self
                    .configured
                    .as_ref()
                    .is_some_and(|configured| configured.view.view.dependencies == view.view.dependencies);
                if same && !self.settings.strict {
                    self.completed_on(&pending, effects);
                } else {
                    self.job = Job::On(pending, OnStage::Stopping, now);
                    self.begin_stop(now, effects);
                }
            }
            Some(_) => self.prepare(pending, now, effects),
        }
    }

    /// Not running: `initialize` (once per pod), then `configure`.
    fn prepare(&mut self, pending: Pending, now: Instant, effects: &mut Vec<Effect>) {
        let limit = pending.request.limit;
        self.supervision.cancel_restart();
        if self.initialized {
            self.configure(pending, now, now, effects);
        } else {
            self.initialized = true;
            self.job = Job::On(pending, OnStage::Initializing, now);
            self.call(Callback::Initialize, limit, effects);
        }
    }

    fn configure(&mut self, pending: Pending, began: Instant, now: Instant, effects: &mut Vec<Effect>) {
        let Task::On(Some(view)) = pending.request.command.clone() else { return };
        let left = pending.request.limit.saturating_sub(now.saturating_duration_since(began));
        self.job = Job::On(pending, OnStage::Configuring, began);
        self.call(Callback::Configure(view), left, effects);
    }

    fn spawn_for(&mut self, pending: Pending, command: &Command, now: Instant, effects: &mut Vec<Effect>) {
        self.job = Job::On(pending, OnStage::Spawning, now);
        self.supervision.spawn(command, effects);
    }

    pub(super) fn on_spawned(&mut self, result: Result<(), String>, now: Instant, effects: &mut Vec<Effect>) {
        match (std::mem::replace(&mut self.job, Job::None), result) {
            (Job::On(pending, ..), Ok(())) => self.completed_on(&pending, effects),
            (Job::On(pending, ..), Err(reason)) => self.failed_on(&pending, host_refusal(&reason), now, effects),
            (Job::End(ending), Ok(())) => {
                self.job = Job::End(ending);
                self.begin_stop(now, effects);
            }
            (job, _) => self.job = job,
        }
    }

    fn completed_on(&mut self, pending: &Pending, effects: &mut Vec<Effect>) {
        if let Task::On(Some(view)) = &pending.request.command {
            let generation = pending.request.generation.clone();
            self.completed = Some(generation.unwrap_or_else(|| Digest::of(&view.view)));
        }
        Self::done(pending, effects);
    }

    /// The pod cannot be configured: it ends, and says why.
    fn failed_on(&mut self, pending: &Pending, outcome: Outcome, now: Instant, effects: &mut Vec<Effect>) {
        tracing::warn!(?outcome, "the pod cannot be configured: it ends");
        Self::reply(pending, outcome, effects);
        self.begin_end(Vec::new(), now, effects);
    }

    pub(super) fn begin_off(&mut self, pending: Option<Pending>, now: Instant, effects: &mut Vec<Effect>) {
        if self.begin_stop(now, effects) {
            self.job = Job::Off(pending);
        } else if let Some(pending) = pending {
            Self::done(&pending, effects);
        }
    }

    /// The pod is to end: whatever is under way or waits hears so, whatever waits for time waits no longer.
    ///
    /// A stop that is under way loses its patience.
    pub(super) fn doom(&mut self, ticket: Option<Ticket>, now: Instant, effects: &mut Vec<Effect>) {
        self.life = Life::Doomed;
        let gone = self.gone();
        for pending in std::mem::take(&mut self.queue) {
            effects.push(Effect::Reply(pending.ticket, gone.clone()));
        }
        let tickets: Vec<Ticket> = ticket.into_iter().collect();
        match std::mem::replace(&mut self.job, Job::End(Ending { tickets: tickets.clone(), finalizing: false })) {
            Job::Call(pending) | Job::On(pending, ..) | Job::Off(Some(pending)) => Self::reply(&pending, gone, effects),
            Job::End(mut ending) => {
                ending.tickets.extend(tickets);
                self.job = Job::End(ending);
                return;
            }
            Job::None | Job::Sanity | Job::Off(None) => {}
        }
        if self.supervision.state() == ProcessState::Terminating {
            self.lose_patience(now, effects);
            return;
        }
        self.cancel_call(effects);
        // While a process is being started, it has to be there before it can be stopped.
        if !self.supervision.is_spawning() {
            self.begin_end(tickets, now, effects);
        }
    }

    pub(super) fn begin_end(&mut self, tickets: Vec<Ticket>, now: Instant, effects: &mut Vec<Effect>) {
        self.life = Life::Doomed;
        self.job = Job::End(Ending { tickets, finalizing: false });
        if !self.begin_stop(now, effects) {
            self.finalize(effects);
        }
    }

    fn finalize(&mut self, effects: &mut Vec<Effect>) {
        if !self.initialized || self.forced {
            self.died(effects);
            return;
        }
        if let Job::End(ending) = &mut self.job {
            ending.finalizing = true;
        }
        self.call(Callback::Finalize, self.settings.grace, effects);
    }

    pub(super) fn died(&mut self, effects: &mut Vec<Effect>) {
        let Job::End(ending) = std::mem::replace(&mut self.job, Job::None) else { return };
        self.life = Life::Dead;
        self.supervision.cancel_restart();
        self.sanity.stop();
        effects.push(Effect::Died);
        for ticket in ending.tickets {
            effects.push(Effect::Reply(ticket, Outcome::Done(serde_json::json!({}))));
        }
        for pending in std::mem::take(&mut self.queue) {
            effects.push(Effect::Reply(pending.ticket, self.gone()));
        }
        if self.leaving {
            effects.push(Effect::Left);
        }
    }

    /// The sub-process is stopped: goes on with the job that wanted that.
    pub(super) fn after_stop(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        match std::mem::replace(&mut self.job, Job::None) {
            Job::On(pending, OnStage::Stopping, _) => self.prepare(pending, now, effects),
            Job::Off(Some(pending)) => Self::done(&pending, effects),
            Job::End(ending) => {
                self.job = Job::End(ending);
                self.finalize(effects);
            }
            Job::Off(None) => {}
            job => self.job = job,
        }
    }

    /// The callback under way ended.
    pub(super) fn returned(&mut self, result: Result<Returned, CallFailure>, now: Instant, effects: &mut Vec<Effect>) {
        if self.supervision.state() == ProcessState::Terminating {
            if let Err(failed) = &result {
                tracing::warn!(reason = failed.failure.message, "tear-down failed");
            }
            self.torn_down(result.is_err(), now, effects);
            return;
        }
        match std::mem::replace(&mut self.job, Job::None) {
            Job::Call(pending) => Self::answered(&pending, result, effects),
            Job::On(pending, OnStage::Initializing, began) => match result {
                Ok(_) => self.configure(pending, began, now, effects),
                Err(failed) => self.failed_on(&pending, refusal(failed), now, effects),
            },
            Job::On(pending, ..) => match result {
                Ok(Returned::Command(command)) => self.configured_on(pending, &command, now, effects),
                Ok(_) => self.failed_on(&pending, host_refusal("configure returned no command"), now, effects),
                Err(failed) => self.failed_on(&pending, refusal(failed), now, effects),
            },
            Job::Sanity => match result {
                Ok(Returned::Metrics(metrics)) => self.check_passed(metrics),
                Ok(_) => self.check_passed(serde_json::Map::new()),
                Err(failed) => self.check_failed(&failed.failure.message, now, effects),
            },
            Job::End(ending) => {
                if let Err(failed) = result {
                    tracing::warn!(reason = failed.failure.message, "finalize failed");
                }
                self.job = Job::End(ending);
                self.died(effects);
            }
            job => self.job = job,
        }
    }

    fn answered(pending: &Pending, result: Result<Returned, CallFailure>, effects: &mut Vec<Effect>) {
        if let Err(failed) = &result {
            let (callback, reason) = (failed.failure.callback, &failed.failure.message);
            tracing::warn!(callback, reason, "/control/{} failed", pending.request.command.task());
        }
        let outcome = match result {
            Ok(Returned::Json(json)) => Outcome::Done(json),
            Ok(_) => Outcome::Done(serde_json::json!({})),
            Err(failed) if failed.overrun => Outcome::TimedOut(Overrun::Stopped),
            Err(failed) => match pending.request.command {
                Task::Check(_) => Outcome::Refused(failed.failure),
                _ => Outcome::Failed(failed.failure),
            },
        };
        Self::reply(pending, outcome, effects);
    }

    fn configured_on(&mut self, pending: Pending, command: &Command, now: Instant, effects: &mut Vec<Effect>) {
        let Task::On(Some(view)) = &pending.request.command else { return };
        self.configured = Some(Configured { command: command.clone(), view: view.clone() });
        if self.start || self.supervision.has_started() {
            self.spawn_for(pending, command, now, effects);
        } else {
            tracing::info!("configured, but not started: waiting for an \"on\" without a view");
            self.completed_on(&pending, effects);
        }
    }
}

fn host_failure(message: &str) -> Failure {
    Failure { callback: None, blame: Blame::Host, message: message.to_owned() }
}

fn host_refusal(message: &str) -> Outcome {
    Outcome::Refused(host_failure(message))
}

/// A callback of `on` that failed: 408 when it ran past the limit, 406 else.
fn refusal(failed: CallFailure) -> Outcome {
    if failed.overrun { Outcome::TimedOut(Overrun::Stopped) } else { Outcome::Refused(failed.failure) }
}
