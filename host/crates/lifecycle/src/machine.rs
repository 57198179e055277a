//! The pure machine of one pod: `(state, event, now) -> effects`.
//!
//! It decides everything and does nothing: the actor carries its effects out and feeds back their results. One [job](Job) is
//! in progress at a time; the sub-process has its own state, so that a restart does not wait for a slow callback and a stop
//! can be part of several jobs.
//!
//! The machine is composed of parts that own their state and return effects:
//!
//! | part | owns |
//! |---|---|
//! | [`RequestQueue`] | requests that wait, and the order of those that leaders number |
//! | [`Job`] | the request in progress and its stage |
//! | [`Supervisor`] | the sub-process: start, stop, restart, shortages |
//! | [`Readiness`] | schedule of `ready`, and the requests that wait for it |
//! | [`SanityChecks`] | schedule and score of the checks |
//! | [`Outbox`] | effects of the step in progress, and the callback that runs |
//!
//! This file has the queue and the shutdown; [`steps`] has the steps of each job.

mod steps;

use std::time::Instant;

use ochopod_init::Exit;
use ochopod_model::{
    Digest, PostedView,
    status::{CommandReport, LifecycleReport, ProcessState},
};
use ochopod_plugin::{Command, LifecycleSettings};
use ochopod_timing::shutdown::Schedule;

use super::{
    Callback, ControlTask, Effect, Event, Outcome, Request, RequestId, StartFailure,
    jobs::{Job, OnStage},
    outbox::Outbox,
    queue::RequestQueue,
    readiness::{READY_TIMEOUT, Readiness},
    reason::Reason,
    sanity::{Checked, NextCheck, SanityChecks},
    sub_process::{StopProgress, Supervisor},
};

/// Phase of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PodPhase {
    Alive,
    /// It ends as soon as the job in progress allows.
    Terminating,
    Dead,
}

/// Progress of `initialize` in the life of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Initialization {
    None,
    /// It was called and has not succeeded.
    Called,
    Done,
}

/// Progress of a shutdown, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ShutdownStage {
    None,
    /// Requests are rejected, nothing is started or checked.
    Draining,
    /// The sub-process has to be stopped.
    Stopping,
    /// The host has to exit immediately.
    Forced,
}

/// Last configuration.
#[derive(Debug, Clone, PartialEq)]
struct LastConfiguration {
    command: Command,
    view: PostedView,
    generation: Digest,
    /// Whether the plugin was replaced by one that launches the command otherwise.
    is_outdated: bool,
}

/// State of one pod's lifecycle.
#[derive(Debug)]
pub struct LifecycleMachine {
    settings: LifecycleSettings,
    /// Whether the first configuration starts the sub-process.
    start: bool,
    phase: PodPhase,
    shutdown: ShutdownStage,
    /// Deadlines of the shutdown.
    schedule: Option<Schedule>,
    /// The pod ends because it could not be configured.
    failed: bool,
    initialization: Initialization,
    /// Reason for which the pod is out of the view.
    cordon: Option<String>,
    /// Role that the plugin named last.
    role: Option<String>,
    configured: Option<LastConfiguration>,
    /// The generation of the last `on` that was answered with 200, unless the sub-process was configured for another one since.
    completed: Option<Digest>,
    /// Whether an `on` with a view was answered with 200 in this life.
    was_completed: bool,
    /// Cause for which the sub-process does not run, once the pod was configured.
    reason: Option<Reason>,
    queue: RequestQueue,
    job: Job,
    supervisor: Supervisor,
    readiness: Readiness,
    checks: SanityChecks,
    outbox: Outbox,
}

impl LifecycleMachine {
    /// Returns a stopped pod.
    #[must_use]
    pub fn new(settings: LifecycleSettings, start: bool) -> Self {
        Self {
            start,
            phase: PodPhase::Alive,
            shutdown: ShutdownStage::None,
            schedule: None,
            failed: false,
            initialization: Initialization::None,
            cordon: None,
            role: None,
            configured: None,
            completed: None,
            was_completed: false,
            reason: None,
            queue: RequestQueue::default(),
            job: Job::None,
            supervisor: Supervisor::new(&settings),
            readiness: Readiness::new(&settings),
            checks: SanityChecks::new(&settings),
            outbox: Outbox::default(),
            settings,
        }
    }

    /// Sets the deadlines of the shutdown: to be called before [`Event::Stop`] or [`Event::Force`]. Without them its steps
    /// take as long as the plugin's settings allow.
    pub fn set_schedule(&mut self, schedule: Schedule) {
        self.schedule = Some(schedule);
    }

    /// Applies the settings of a plugin that replaced the last one. The sub-process keeps running; the next
    /// [`step`](Self::step) calls the first sanity check.
    pub fn plugin_replaced(&mut self, settings: LifecycleSettings, now: Instant) {
        self.supervisor.set_settings(&settings);
        self.readiness.set_settings(&settings);
        self.checks.set_settings(&settings, now);
        if let Some(last) = &mut self.configured {
            last.is_outdated |= !settings.launches_alike(&self.settings);
        }
        self.settings = settings;
    }

    /// Handles an event; `epoch` is the leadership that is accepted now, as far as that is known. Returns the effects, in order.
    pub fn step(&mut self, event: Event, now: Instant, epoch: Option<i64>) -> Vec<Effect> {
        match event {
            Event::Submitted(id, request) => self.submitted(id, request, now, epoch),
            Event::Withdrawn(id) => self.outbox.extend(self.queue.withdraw(id)),
            Event::CallbackValue(call, result) if self.outbox.finish_call(call) => self.returned(result, now),
            Event::CallbackValue(..) | Event::Tick => {}
            Event::Spawned(result) => self.spawned(result, now),
            Event::Exited(pid, exit) => self.exited(pid, exit, now),
            Event::Drain => self.drain(),
            Event::Stop => self.stop(now),
            Event::Force => self.force(now),
        }
        self.expire(now);
        self.advance(now, epoch);
        self.outbox.take()
    }

    /// Returns when the machine needs a `Tick`, at the latest.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        let may_check = self.job == Job::None && !self.is_draining() && !self.supervisor.is_spawning();
        let times = [
            self.queue.wake(),
            self.job.wake(),
            self.supervisor.wake(self.may_restart()),
            self.checks.due().filter(|_| may_check && self.supervisor.is_wanted()),
            self.readiness.wake(may_check && self.supervisor.is_running()),
            self.overdue_at(),
        ];
        times.into_iter().flatten().min()
    }

    /// Returns the report of the pod, without the time of its last change and a signal that stopped the sub-process.
    #[must_use]
    pub fn report(&self) -> LifecycleReport {
        let is_dead = self.phase == PodPhase::Dead;
        let process = if is_dead { ProcessState::Dead } else { self.supervisor.state() };
        LifecycleReport {
            process,
            metrics: self.checks.metrics().clone(),
            last_check_passed: self.checks.last_check_passed(),
            configured: self.was_completed && !self.is_left_off(),
            pid: self.supervisor.pid(),
            released: self.supervisor.released().to_vec(),
            reason: self.reason.as_ref().map(ToString::to_string).filter(|_| process != ProcessState::Running),
            failed: self.failed && is_dead,
            stopped_by: None,
            unready: self.readiness.unready_reason().map(str::to_owned),
            cordon: self.cordon.clone(),
            role: self.role.clone(),
            since: None,
            started: self.supervisor.started(),
            restarts: self.supervisor.restarts(),
            last_exit: self.supervisor.last_exit().map(Exit::description),
            next_start: self.supervisor.next_start().filter(|_| self.phase == PodPhase::Alive),
            command: self.configured.as_ref().map(|configured| CommandReport {
                arguments: configured.command.arguments.clone(),
                program: configured.command.program.clone(),
            }),
        }
    }

    /// Returns whether a request has not started yet.
    #[must_use]
    pub fn is_waiting(&self, id: RequestId) -> bool {
        self.queue.contains(id)
    }

    /// Returns the request in progress and its id, which is 0 once it is answered.
    #[must_use]
    pub fn in_flight(&self) -> Option<(RequestId, &Request)> {
        self.job.request()
    }

    /// Returns whether a cordon stopped the sub-process, and the pod was uncordoned since. It waits for a configuration, which is
    /// due even if the cluster is the same as before.
    fn is_left_off(&self) -> bool {
        self.cordon.is_none() && matches!(self.reason, Some(Reason::Cordoned(_))) && !self.supervisor.is_wanted()
    }

    fn is_draining(&self) -> bool {
        self.shutdown >= ShutdownStage::Draining
    }

    fn is_stopping(&self) -> bool {
        self.shutdown >= ShutdownStage::Stopping
    }

    fn is_forced(&self) -> bool {
        self.shutdown == ShutdownStage::Forced
    }

    /// Returns whether a restart may start although a job is in progress: not while that starts or stops the process.
    fn may_restart(&self) -> bool {
        self.phase == PodPhase::Alive && !self.is_draining() && !self.job.changes_process()
    }

    fn submitted(&mut self, id: RequestId, request: Request, now: Instant, epoch: Option<i64>) {
        if request.task == ControlTask::Revive && self.phase != PodPhase::Terminating && !self.is_draining() {
            request.log_started();
            self.revive(id);
            return;
        }
        if request.task == ControlTask::Uncordon && self.phase == PodPhase::Dead && !self.is_draining() {
            request.log_started();
            self.uncordon();
            self.outbox.push(Effect::Reply(id, Outcome::Done(serde_json::json!({}))));
            return;
        }
        if let Some(reason) = self.cordon.as_ref().filter(|_| request.is_of_leader()) {
            self.outbox.push(Effect::Reply(id, Outcome::Cordoned(reason.clone())));
            return;
        }
        if self.phase == PodPhase::Dead || self.is_draining() {
            self.outbox.push(Effect::Reply(id, self.gone()));
            return;
        }
        if request.task == ControlTask::Kill {
            if let Some(rejection) = self.queue.check(&request, epoch) {
                self.outbox.push(Effect::Reply(id, rejection));
                return;
            }
            request.log_started();
            if self.phase == PodPhase::Alive {
                self.reason = Some(Reason::Killed);
            }
            self.terminate(Some(id), now);
            return;
        }
        if self.phase == PodPhase::Terminating {
            self.outbox.push(Effect::Reply(id, self.gone()));
            return;
        }
        if self.job.yields() {
            // It is cancelled, has no result, and is repeated when the machine is idle.
            self.outbox.cancel_call();
            if self.job.take() == Job::Sanity {
                self.checks.postpone(now);
            } else {
                self.readiness.postpone(now);
            }
        }
        self.queue.push(id, request, now);
    }

    /// Begins another life of a dead pod. Changes nothing for a pod that is alive.
    fn revive(&mut self, id: RequestId) {
        if self.phase == PodPhase::Dead {
            tracing::info!("pod revived");
            self.phase = PodPhase::Alive;
            (self.initialization, self.failed, self.was_completed) = (Initialization::None, false, false);
            (self.configured, self.completed, self.reason, self.role) = (None, None, None, None);
            self.outbox.push(Effect::Revived);
        }
        self.outbox.push(Effect::Reply(id, Outcome::Done(serde_json::json!({}))));
    }

    /// Returns the reply of a pod that accepts no requests any longer.
    fn gone(&self) -> Outcome {
        let text = if self.is_draining() { "pod is shutting down" } else { "pod is dead" };
        Outcome::Gone(text.to_owned())
    }

    /// Ends what starts or changes the sub-process, and leaves it running. A stop in progress continues.
    fn drain(&mut self) {
        self.shutdown = self.shutdown.max(ShutdownStage::Draining);
        if self.phase != PodPhase::Alive {
            return;
        }
        self.reason = Some(Reason::ShutDown);
        self.supervisor.cancel_restart();
        let gone = self.gone();
        self.outbox.extend(self.queue.reject_all(&gone));
        self.outbox.extend(self.readiness.reject_all(&gone));
        match self.job.take() {
            // The process has to exist before it can be stopped.
            Job::On(mut pending, OnStage::Spawning, started) => {
                self.outbox.extend(pending.answer_early(gone));
                if self.supervisor.is_spawning() {
                    self.job = Job::On(pending, OnStage::Spawning, started);
                }
            }
            Job::On(pending, OnStage::Stopping(_), _) => {
                self.outbox.extend(pending.reply(gone));
                self.job = Job::Off(None);
            }
            Job::Call(pending) | Job::On(pending, ..) => {
                self.outbox.extend(pending.reply(gone));
                self.outbox.cancel_call();
            }
            Job::Sanity | Job::Ready => self.outbox.cancel_call(),
            job => self.job = job,
        }
    }

    fn stop(&mut self, now: Instant) {
        self.shutdown = self.shutdown.max(ShutdownStage::Stopping);
        if self.phase == PodPhase::Dead {
            self.outbox.push(Effect::Finished);
            return;
        }
        self.supervisor.begin_shutdown(self.schedule);
        if self.phase == PodPhase::Alive {
            self.reason = Some(Reason::ShutDown);
        }
        if !matches!(self.job, Job::End(_)) {
            self.terminate(None, now);
        }
        self.supervisor.hurry(now);
    }

    fn force(&mut self, now: Instant) {
        let was_stopping = self.is_stopping();
        self.shutdown = ShutdownStage::Forced;
        if !was_stopping {
            self.stop(now);
        }
        self.outbox.cancel_call();
        if self.supervisor.is_spawning() {
            self.abandon_spawn(now);
        } else if self.job.is_finalizing() {
            self.finish_termination();
        } else {
            let progress = self.supervisor.kill_now(now);
            self.apply(progress, now);
        }
    }

    /// Returns the deadline of the step of the shutdown in progress. A stop has its own times.
    fn overdue_at(&self) -> Option<Instant> {
        let schedule = self.schedule.filter(|_| self.is_stopping())?;
        match &self.job {
            Job::End(_) if self.supervisor.is_spawning() => Some(schedule.process),
            job if job.is_finalizing() => Some(schedule.finalize),
            _ => None,
        }
    }

    /// Abandons a step of the shutdown that exceeded its deadline.
    fn abandon_if_overdue(&mut self, now: Instant) {
        if self.overdue_at().is_none_or(|at| at > now) {
            return;
        }
        if self.supervisor.is_spawning() {
            self.abandon_spawn(now);
        } else {
            tracing::warn!("finalize stopped at the shutdown deadline");
            self.outbox.cancel_call();
            self.finish_termination();
        }
    }

    /// Abandons a start that does not complete.
    fn abandon_spawn(&mut self, now: Instant) {
        self.outbox.push(Effect::AbandonSpawn);
        self.spawned(Err(StartFailure { reason: "spawn aborted".to_owned(), transient: false }), now);
    }

    /// Answers requests whose time limit is exceeded. One that did not start is dropped; one that did continues.
    fn expire(&mut self, now: Instant) {
        self.fail_start_if_expired(now);
        self.outbox.extend(self.queue.expire(now));
        self.outbox.extend(self.job.expire(now));
        self.outbox.extend(self.readiness.expire(now));
        let progress = self.supervisor.tick(self.phase == PodPhase::Alive, now);
        self.apply(progress, now);
        self.abandon_if_overdue(now);
    }

    /// Carries out the progress of a stop, and continues the job that waits for its end.
    fn apply(&mut self, progress: StopProgress, now: Instant) {
        self.outbox.extend(progress.effects);
        if progress.is_stopped {
            self.after_stop(now);
        }
    }

    /// Starts whatever can start now.
    fn advance(&mut self, now: Instant, epoch: Option<i64>) {
        loop {
            self.start_if_due(now);
            if self.job != Job::None || self.supervisor.is_spawning() {
                return;
            }
            if self.phase == PodPhase::Terminating {
                self.begin_termination(Vec::new(), now);
                return;
            }
            match self.queue.next(epoch) {
                Some(Ok(pending)) if self.cordon.is_some() && pending.request.is_of_leader() => {
                    let reason = self.cordon.clone().unwrap_or_default();
                    self.outbox.extend(pending.reply(Outcome::Cordoned(reason)));
                }
                Some(Ok(pending)) => {
                    pending.request.log_started();
                    self.begin(pending, now);
                }
                Some(Err(reply)) => self.outbox.extend(reply),
                None if self.call_ready_if_due(now) || self.check_if_due(now) => {}
                None => return,
            }
        }
    }

    /// Restarts the sub-process if that is due, or tries once more the start for which an `on` waits.
    fn start_if_due(&mut self, now: Instant) {
        let is_retry = matches!(self.job, Job::On(_, OnStage::Spawning, _)) && self.supervisor.is_retry_due(now);
        let is_restart = self.may_restart() && self.supervisor.is_restart_due(now);
        if (is_retry || is_restart)
            && let Some(configured) = &self.configured
        {
            self.outbox.push(self.supervisor.spawn(&configured.command));
        }
    }

    /// Calls `ready` if that is due, and fails a sanity check if the process should have been ready. True if anything started or
    /// was decided.
    fn call_ready_if_due(&mut self, now: Instant) -> bool {
        if self.is_draining() {
            return false;
        }
        if let Some(error) = self.readiness.overdue(now) {
            self.check_failed(&error, now);
            return true;
        }
        let (Some(pid), Some(last)) = (self.supervisor.pid(), &self.configured) else { return false };
        if !self.supervisor.is_running() || !self.readiness.is_due(now) {
            return false;
        }
        self.job = Job::Ready;
        self.outbox.call(Callback::Ready(last.view.clone(), pid), READY_TIMEOUT);
        true
    }

    /// Starts a check if one is due. True if anything started or was decided.
    fn check_if_due(&mut self, now: Instant) -> bool {
        if self.is_draining() || !self.supervisor.is_wanted() {
            return false;
        }
        let process = match self.supervisor.pid() {
            Some(_) if !self.readiness.is_ready() => Checked::Unready,
            Some(pid) => Checked::Running(pid),
            None if self.supervisor.lacks_resources() => Checked::LacksResources,
            None => Checked::Down,
        };
        match self.checks.next(process, now) {
            None => return false,
            Some(NextCheck::Skip) => {}
            Some(NextCheck::Failed(reason)) => self.check_failed(&reason, now),
            Some(NextCheck::Run(call)) => {
                self.job = Job::Sanity;
                self.outbox.push(call);
            }
        }
        true
    }

    /// Records a failed check; too many stop the process.
    fn check_failed(&mut self, reason: &str, now: Instant) {
        let (effect, stop) = self.checks.failed(reason, self.supervisor.is_running());
        self.outbox.push(effect);
        if let Some(reason) = stop {
            self.reason = Some(reason);
            self.begin_off(None, now);
        }
    }
}
