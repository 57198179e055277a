//! Steps of each job of a [`LifecycleMachine`].

use std::time::Instant;

use ochopod_init::Exit;
use ochopod_model::{Digest, PostedView, status::Blame};
use ochopod_plugin::{Command, OnChange};
use serde_json::{Map, json};

use super::{
    super::{
        Callback, CallbackError, CallbackErrorKind, CallbackValue, Cordon, Failure, TimeoutResult, jobs::Termination,
        queue::PendingRequest, sub_process::ExitCause,
    },
    ControlTask, Effect, Initialization, Job, LastConfiguration, LifecycleMachine, OnStage, Outcome, PodPhase, Reason,
    RequestId, StartFailure,
};

impl LifecycleMachine {
    pub(super) fn begin(&mut self, pending: PendingRequest, now: Instant) {
        match pending.request.task.clone() {
            ControlTask::Check(view) => self.begin_call(pending, Callback::CanConfigure(view), now),
            ControlTask::Ok(view) => self.begin_call(pending, Callback::Configured(view), now),
            ControlTask::Signal(body) => {
                let pid = self.supervisor.pid();
                self.begin_call(pending, Callback::Signaled(body, pid), now);
            }
            ControlTask::On(_) => self.begin_on(pending, now),
            ControlTask::Off if self.is_current(&pending) => self.outbox.extend(pending.done()),
            ControlTask::Off => {
                // A sub-process that a leader stops for a configuration may have been off before, for another reason.
                if pending.request.epoch.is_none() {
                    self.reason = Some(Reason::TurnedOff);
                } else if self.supervisor.is_wanted() {
                    self.reason = Some(Reason::Configuration);
                }
                self.begin_off(Some(pending), now);
            }
            ControlTask::Kill => self.terminate(pending.id(), now),
            ControlTask::Restart => self.begin_restart(pending, now),
            ControlTask::Cordon(cordon) => self.begin_cordon(pending, cordon, now),
            ControlTask::Uncordon => {
                self.uncordon();
                self.outbox.extend(pending.done());
            }
            // Handled on arrival.
            ControlTask::Revive => self.outbox.extend(pending.done()),
        }
    }

    /// Stops the sub-process if it runs, and starts the last configuration.
    fn begin_restart(&mut self, pending: PendingRequest, now: Instant) {
        let Some(command) = self.configured.as_ref().map(|configured| configured.command.clone()) else {
            self.outbox.extend(pending.reply(host_rejection("pod never configured")));
            return;
        };
        if self.supervisor.is_running() {
            self.reason = Some(Reason::Restart);
            self.job = Job::On(pending, OnStage::Stopping(Some(Box::new(command))), now);
            self.begin_stop(now);
        } else {
            self.supervisor.cancel_restart();
            self.spawn_for(pending, &command, now);
        }
    }

    /// Returns the pod to the view.
    pub(super) fn uncordon(&mut self) {
        if self.cordon.take().is_some() {
            tracing::info!("pod uncordoned");
        }
    }

    /// Excludes the pod from the view, and stops the sub-process if that is requested.
    fn begin_cordon(&mut self, pending: PendingRequest, cordon: Cordon, now: Instant) {
        tracing::info!(reason = cordon.reason, stop = cordon.stop, "pod cordoned");
        self.cordon = Some(cordon.reason.clone());
        if cordon.stop {
            if self.configured.is_some() {
                self.reason = Some(Reason::Cordoned(cordon.reason));
            }
            self.begin_off(Some(pending), now);
        } else {
            self.outbox.extend(pending.done());
        }
    }

    /// Runs the one callback that answers the request, within the rest of its time limit.
    fn begin_call(&mut self, pending: PendingRequest, callback: Callback, now: Instant) {
        let limit = pending.expires.saturating_duration_since(now);
        self.job = Job::Call(pending);
        self.outbox.call(callback, limit);
    }

    /// Returns whether the sub-process runs as this configuration requires, ready or not: a process that was started for it is
    /// neither stopped nor started again for it, and a leadership that resumes changes nothing.
    fn is_current(&self, pending: &PendingRequest) -> bool {
        let Some(generation) = &pending.request.generation else { return false };
        let started_for = self.configured.as_ref().map(|last| &last.generation);
        let is_known = self.completed.as_ref() == Some(generation) || started_for == Some(generation);
        is_known && self.supervisor.is_running()
    }

    /// Returns whether the sub-process was started for this very view and is not ready, which a leader without generations
    /// requests again and again.
    fn is_started_for(&self, pending: &PendingRequest) -> bool {
        let Some((_, generation)) = posted(pending) else { return false };
        let started_for = self.configured.as_ref().map(|last| &last.generation);
        self.supervisor.is_running() && !self.readiness.is_ready() && started_for == Some(&generation)
    }

    fn begin_on(&mut self, pending: PendingRequest, now: Instant) {
        let ControlTask::On(view) = &pending.request.task else { return };
        let is_running = self.supervisor.is_running();
        match view {
            None if is_running => self.complete_when_ready(pending),
            None => match self.configured.as_ref().map(|configured| configured.command.clone()) {
                Some(command) => self.spawn_for(pending, &command, now),
                None => self.outbox.extend(pending.reply(host_rejection("pod never configured"))),
            },
            Some(_) if self.is_current(&pending) || self.is_started_for(&pending) => self.complete_when_ready(pending),
            Some(view) if is_running => {
                let last = self.configured.as_ref();
                let is_same = last.is_some_and(|last| last.view.view.has_same_dependencies(&view.view));
                if self.settings.strict || (!is_same && self.settings.on_change == OnChange::Restart) {
                    self.stop_for(pending, None, now);
                } else if is_same {
                    self.complete_when_ready(pending);
                } else {
                    let (view, limit) = (view.clone(), pending.request.limit);
                    self.job = Job::On(pending, OnStage::Comparing, now);
                    self.outbox.call(Callback::Configure(view), limit);
                }
            }
            Some(_) => self.begin_configure(pending, now),
        }
    }

    /// Stops the sub-process for a configuration, whose command may be known.
    fn stop_for(&mut self, pending: PendingRequest, command: Option<Box<Command>>, now: Instant) {
        self.reason = Some(Reason::Configuration);
        self.job = Job::On(pending, OnStage::Stopping(command), now);
        self.begin_stop(now);
    }

    /// Applies the command that `configure` returned while the sub-process was running: the same one keeps it running.
    fn compared(&mut self, pending: PendingRequest, command: Command, now: Instant) {
        if !self.supervisor.is_running() {
            self.supervisor.cancel_restart();
            self.on_configured(pending, &command, now);
            return;
        }
        let last = self.configured.as_ref();
        if !last.is_some_and(|last| !last.is_outdated && last.command.is_same(&command)) {
            self.stop_for(pending, Some(Box::new(command)), now);
            return;
        }
        if let (Some(signal), Some(pid)) = (command.reload, self.supervisor.pid()) {
            tracing::info!(pid, signal, "configuration changed, reloading sub-process");
            self.outbox.push(Effect::Signal(pid, signal));
        }
        self.set_configured(&pending, command);
        self.complete_when_ready(pending);
    }

    /// Calls `initialize` (until it succeeds once), then `configure`. The sub-process does not run.
    fn begin_configure(&mut self, pending: PendingRequest, now: Instant) {
        let limit = pending.request.limit;
        self.supervisor.cancel_restart();
        if self.initialization == Initialization::Done {
            self.configure(pending, now, now);
        } else {
            self.initialization = Initialization::Called;
            self.job = Job::On(pending, OnStage::Initializing, now);
            self.outbox.call(Callback::Initialize, limit);
        }
    }

    fn configure(&mut self, pending: PendingRequest, started: Instant, now: Instant) {
        let ControlTask::On(Some(view)) = pending.request.task.clone() else { return };
        let left = pending.request.limit.saturating_sub(now.saturating_duration_since(started));
        self.job = Job::On(pending, OnStage::Configuring, started);
        self.outbox.call(Callback::Configure(view), left);
    }

    fn on_configured(&mut self, pending: PendingRequest, command: &Command, now: Instant) {
        self.set_configured(&pending, command.clone());
        if self.start || self.supervisor.has_started() {
            self.spawn_for(pending, command, now);
        } else {
            tracing::info!("configured, sub-process not started (start=false): POST /control/on starts it");
            self.reason = Some(Reason::NotStarted);
            self.complete_on(&pending);
        }
    }

    /// Records the configuration that the sub-process is started from, or left running with.
    fn set_configured(&mut self, pending: &PendingRequest, command: Command) {
        if let Some((view, generation)) = posted(pending) {
            let view = view.clone();
            self.completed.take_if(|completed| *completed != generation);
            self.configured = Some(LastConfiguration { command, view, generation, is_outdated: false });
        }
    }

    fn spawn_for(&mut self, pending: PendingRequest, command: &Command, now: Instant) {
        self.job = Job::On(pending, OnStage::Spawning, now);
        self.outbox.push(self.supervisor.spawn(command));
    }

    /// Completes an `on`: now if the sub-process is ready, else once it is.
    fn complete_when_ready(&mut self, pending: PendingRequest) {
        if self.readiness.is_ready() {
            self.complete_on(&pending);
        } else {
            self.readiness.wait(pending);
        }
    }

    fn complete_on(&mut self, pending: &PendingRequest) {
        if let Some((_, generation)) = posted(pending) {
            (self.completed, self.was_completed) = (Some(generation), true);
        }
        self.outbox.extend(pending.done());
    }

    /// Answers an `on` whose callback cannot succeed yet. The pod stays alive, and a running sub-process keeps running.
    fn hold_on(&mut self, pending: &PendingRequest, failure: Failure) {
        tracing::info!(reason = %failure, "configuration not possible yet");
        if !self.supervisor.is_running() {
            self.reason = Some(Reason::NotYet(failure.to_string()));
        }
        self.outbox.extend(pending.reply(Outcome::Unavailable(failure)));
    }

    /// Ends the pod, which cannot be configured, and reports why.
    fn fail_on(&mut self, pending: &PendingRequest, outcome: Outcome, now: Instant) {
        tracing::warn!(%outcome, "configuration failed, terminating pod");
        self.reason = Some(Reason::ConfigurationFailed(outcome.to_string()));
        self.failed = true;
        self.outbox.extend(pending.reply(outcome));
        self.begin_termination(Vec::new(), now);
    }

    /// Answers an `on` whose time limit is exceeded while the machine lacks resources. The pod stays alive, and the request may
    /// be repeated.
    pub(super) fn fail_start_if_expired(&mut self, now: Instant) {
        let Job::On(pending, OnStage::Spawning, _) = &self.job else { return };
        let is_expired = pending.id().is_none() || pending.expires <= now;
        if !is_expired || !self.supervisor.is_stopped() {
            return;
        }
        let reason = self.supervisor.cancel_restart().unwrap_or_default();
        tracing::warn!(reason, "sub-process not started within the time limit of the request");
        let failure = host_failure(&format!("{reason}; the machine lacks resources, try again later"));
        self.outbox.extend(pending.reply(Outcome::Unavailable(failure)));
        if self.is_draining() {
            // It is not started any longer.
        } else if pending.request.task == ControlTask::Restart {
            self.reason = Some(Reason::StartFailed(reason.clone()));
            self.supervisor.restart_later(reason, now);
        } else {
            // The client may repeat its request.
            self.reason = Some(Reason::LacksResources(reason));
        }
        self.job = Job::None;
    }

    pub(super) fn spawned(&mut self, result: Result<u32, StartFailure>, now: Instant) {
        match self.supervisor.spawned(result, now) {
            None => {}
            Some(Ok(())) => {
                self.checks.process_started(now);
                self.readiness.process_started(now);
                let keeps_reason = self.phase != PodPhase::Alive || self.is_draining();
                self.reason = self.reason.take().filter(|_| keeps_reason);
                if !matches!(self.job, Job::On(..) | Job::End(_)) {
                    self.supervisor.count_restart();
                    self.outbox.push(Effect::Restarted);
                }
                match self.job.take() {
                    Job::On(pending, ..) => self.complete_when_ready(pending),
                    Job::End(termination) => {
                        self.job = Job::End(termination);
                        self.begin_stop(now);
                    }
                    job => self.job = job,
                }
            }
            Some(Err(failure)) => self.start_failed(failure, now),
        }
    }

    fn start_failed(&mut self, failure: StartFailure, now: Instant) {
        match self.job.take() {
            Job::On(pending, stage, started) if failure.transient => {
                self.job = Job::On(pending, stage, started);
                self.supervisor.retry_later(failure.reason, now);
            }
            Job::On(pending, ..) => self.fail_on(&pending, host_rejection(&failure.reason), now),
            Job::End(termination) => {
                self.job = Job::End(termination);
                self.after_stop(now);
            }
            job => {
                self.job = job;
                self.restart_failed(failure, now);
            }
        }
    }

    fn restart_failed(&mut self, failure: StartFailure, now: Instant) {
        if self.is_draining() {
            self.supervisor.cancel_restart();
            return;
        }
        self.reason = Some(Reason::StartFailed(failure.reason.clone()));
        if failure.transient {
            self.supervisor.restart_later(failure.reason, now);
            return;
        }
        tracing::warn!(reason = failure.reason, "sub-process restart failed");
        self.outbox.push(Effect::EndedUnexpectedly);
        let how = format!("not started: {}", failure.reason);
        self.readiness.process_ended(how.clone());
        self.checks.process_ended(how);
        self.supervisor.restart_after(std::time::Duration::ZERO, now);
    }

    pub(super) fn exited(&mut self, pid: u32, exit: Exit, now: Instant) {
        match self.supervisor.exited(pid, exit, now) {
            ExitCause::Ignored => {}
            ExitCause::Stopped => self.after_stop(now),
            ExitCause::Unexpected(uptime) => {
                self.readiness.process_ended(exit.description());
                self.role = None;
                if self.job.yields() {
                    // The process of the check is gone: it has no result.
                    self.outbox.cancel_call();
                    self.job = Job::None;
                }
                if exit == Exit::Code(0) {
                    tracing::info!(pid, "sub-process exited with code 0, pod is done");
                    self.checks.stop();
                    self.phase = PodPhase::Terminating;
                    self.reason = Some(Reason::Completed);
                    let gone = self.gone();
                    if matches!(self.job, Job::On(_, OnStage::Comparing, _)) {
                        self.outbox.cancel_call();
                        if let Job::On(pending, ..) = self.job.take() {
                            self.outbox.extend(pending.reply(gone.clone()));
                        }
                    }
                    self.outbox.extend(self.readiness.reject_all(&gone));
                    return;
                }
                self.outbox.push(Effect::EndedUnexpectedly);
                self.checks.process_ended(exit.description());
                let text = exit.description();
                if self.is_draining() {
                    tracing::warn!(pid, exit = text, "sub-process exited unexpectedly, not restarted during shutdown");
                } else {
                    tracing::warn!(pid, exit = text, "sub-process exited unexpectedly, restarting");
                    self.reason = Some(Reason::Exited(exit));
                    self.supervisor.restart_after(uptime, now);
                }
            }
        }
    }

    /// Starts to stop the sub-process. False if it does not run.
    fn begin_stop(&mut self, now: Instant) -> bool {
        self.checks.stop();
        if self.supervisor.is_running() {
            self.role = None;
            self.readiness.process_stopped();
        }
        let reason = self.reason.as_ref().map(ToString::to_string).unwrap_or_default();
        let stopped = host_failure(&format!("sub-process stopped before it was ready: {reason}"));
        self.outbox.extend(self.readiness.reject_all(&Outcome::Unavailable(stopped)));
        let Some(progress) = self.supervisor.stop(self.is_forced(), now) else { return false };
        self.apply(progress, now);
        true
    }

    pub(super) fn begin_off(&mut self, pending: Option<PendingRequest>, now: Instant) {
        if self.begin_stop(now) {
            self.job = Job::Off(pending);
        } else if let Some(pending) = pending {
            self.outbox.extend(pending.done());
        }
    }

    /// Continues the job that waited for the stop of the sub-process.
    pub(super) fn after_stop(&mut self, now: Instant) {
        match self.job.take() {
            Job::On(pending, OnStage::Stopping(None), _) => self.begin_configure(pending, now),
            Job::On(pending, OnStage::Stopping(Some(command)), _) => match pending.request.task {
                ControlTask::On(Some(_)) => self.on_configured(pending, &command, now),
                _ => self.spawn_for(pending, &command, now),
            },
            Job::Off(Some(pending)) => self.outbox.extend(pending.done()),
            Job::End(termination) => {
                self.job = Job::End(termination);
                self.finalize(now);
            }
            Job::Off(None) => {}
            job => self.job = job,
        }
    }

    /// Ends the pod: whatever is in progress or waits is answered, and waits no longer. A stop in progress keeps the rest of
    /// its grace.
    pub(super) fn terminate(&mut self, id: Option<RequestId>, now: Instant) {
        self.phase = PodPhase::Terminating;
        let gone = self.gone();
        self.outbox.extend(self.queue.reject_all(&gone));
        self.outbox.extend(self.readiness.reject_all(&gone));
        let requests: Vec<RequestId> = id.into_iter().collect();
        let job =
            std::mem::replace(&mut self.job, Job::End(Termination { requests: requests.clone(), finalizing: false }));
        match job {
            Job::Call(pending) | Job::On(pending, ..) | Job::Off(Some(pending)) => {
                self.outbox.extend(pending.reply(gone));
            }
            Job::End(mut termination) => {
                termination.requests.extend(requests);
                self.job = Job::End(termination);
                return;
            }
            Job::None | Job::Sanity | Job::Ready | Job::Off(None) => {}
        }
        if self.supervisor.is_stopping() {
            return;
        }
        self.outbox.cancel_call();
        // A process that is being started has to exist before it can be stopped.
        if !self.supervisor.is_spawning() {
            self.begin_termination(requests, now);
        }
    }

    pub(super) fn begin_termination(&mut self, requests: Vec<RequestId>, now: Instant) {
        self.phase = PodPhase::Terminating;
        self.job = Job::End(Termination { requests, finalizing: false });
        if !self.begin_stop(now) {
            self.finalize(now);
        }
    }

    fn finalize(&mut self, now: Instant) {
        let schedule = self.schedule.filter(|_| self.is_stopping());
        let left = schedule.map(|schedule| schedule.finalize.saturating_duration_since(now));
        let limit = left.unwrap_or(self.settings.grace).min(self.settings.grace);
        if self.initialization == Initialization::None || self.is_forced() {
            self.finish_termination();
            return;
        }
        if left.is_some_and(|left| left.is_zero()) {
            tracing::warn!("finalize skipped, no time left before the shutdown deadline");
            self.finish_termination();
            return;
        }
        if let Job::End(termination) = &mut self.job {
            termination.finalizing = true;
        }
        self.outbox.call(Callback::Finalize, limit);
    }

    pub(super) fn finish_termination(&mut self) {
        let Job::End(termination) = self.job.take() else { return };
        self.phase = PodPhase::Dead;
        self.supervisor.cancel_restart();
        self.checks.stop();
        self.outbox.push(Effect::Died);
        self.outbox.extend(termination.requests.into_iter().map(|id| Effect::Reply(id, Outcome::Done(json!({})))));
        let gone = self.gone();
        self.outbox.extend(self.queue.reject_all(&gone));
        if self.is_stopping() {
            self.outbox.push(Effect::Finished);
        }
    }

    /// Continues with the result of the running callback.
    pub(super) fn returned(&mut self, result: Result<CallbackValue, CallbackError>, now: Instant) {
        if self.supervisor.is_stopping() {
            if let Err(failed) = &result {
                tracing::warn!(reason = failed.failure.message, "tear-down failed");
            }
            let progress = self.supervisor.tear_down_returned(result.is_err());
            self.apply(progress, now);
            return;
        }
        match self.job.take() {
            Job::Call(pending) => {
                if let Ok(CallbackValue::Role(role)) = &result {
                    self.set_role(role.clone());
                }
                self.outbox.extend(pending.reply(call_outcome(&pending, result)));
            }
            Job::On(pending, OnStage::Initializing, started) => match result {
                Ok(_) => {
                    self.initialization = Initialization::Done;
                    self.configure(pending, started, now);
                }
                Err(failed) if failed.kind == CallbackErrorKind::NotYet => self.hold_on(&pending, failed.failure),
                Err(failed) => self.fail_on(&pending, Outcome::Rejected(failed.failure), now),
            },
            Job::On(pending, stage, _) => match result {
                Ok(CallbackValue::Command(command)) if stage == OnStage::Comparing => {
                    self.compared(pending, command, now);
                }
                Err(failed) if failed.kind == CallbackErrorKind::NotYet => self.hold_on(&pending, failed.failure),
                Ok(CallbackValue::Command(command)) => self.on_configured(pending, &command, now),
                Ok(_) => self.fail_on(&pending, host_rejection("configure returned no command"), now),
                // One that exceeded the time limit was stopped, and failed like any other.
                Err(failed) => self.fail_on(&pending, Outcome::Rejected(failed.failure), now),
            },
            Job::Sanity => match result {
                Ok(CallbackValue::Health(metrics, role)) => {
                    self.checks.passed(metrics, self.supervisor.is_running());
                    self.set_role(role);
                }
                Ok(_) => self.checks.passed(Map::new(), self.supervisor.is_running()),
                Err(failed) => self.check_failed(&failed.failure.message, now),
            },
            Job::Ready => match result {
                Ok(_) => {
                    self.checks.process_started(now);
                    for pending in self.readiness.passed() {
                        self.complete_on(&pending);
                    }
                }
                Err(failed) => self.readiness.failed(&failed.failure.message, now),
            },
            Job::End(termination) => {
                if let Err(failed) = result {
                    tracing::warn!(reason = failed.failure.message, "finalize failed");
                }
                self.job = Job::End(termination);
                self.finish_termination();
            }
            job => self.job = job,
        }
    }

    /// Records the role that the plugin named; none leaves the last one. A process that does not run has none.
    fn set_role(&mut self, named: Option<String>) {
        if let Some(role) = named.filter(|_| self.supervisor.is_running()) {
            self.role = (!role.is_empty()).then_some(role);
        }
    }
}

/// Returns the view that a request carries, and its generation.
fn posted(pending: &PendingRequest) -> Option<(&PostedView, Digest)> {
    let ControlTask::On(Some(view)) = &pending.request.task else { return None };
    Some((view, pending.request.generation.clone().unwrap_or_else(|| Digest::of(&view.view))))
}

/// Returns the reply to a request that one callback answers.
fn call_outcome(pending: &PendingRequest, result: Result<CallbackValue, CallbackError>) -> Outcome {
    let task = &pending.request.task;
    if let Err(failed) = &result {
        let (callback, reason) = (failed.failure.callback, &failed.failure.message);
        tracing::warn!(task = task.name(), callback, reason, "control request failed");
    }
    match result {
        Ok(CallbackValue::Json(json)) => Outcome::Done(json),
        Ok(_) => Outcome::Done(json!({})),
        Err(failed) if failed.kind == CallbackErrorKind::Overrun => Outcome::TimedOut(TimeoutResult::Aborted),
        Err(failed) if matches!(task, ControlTask::Check(_)) => Outcome::Rejected(failed.failure),
        Err(failed) => Outcome::Failed(failed.failure),
    }
}

fn host_failure(message: &str) -> Failure {
    Failure { callback: None, blame: Blame::Host, message: message.to_owned() }
}

fn host_rejection(message: &str) -> Outcome {
    Outcome::Rejected(host_failure(message))
}
