//! The pure machine of one pod: `(state, event, now) -> effects`.
//!
//! It decides everything and does nothing: the actor carries its effects out and feeds back what came of them. One
//! *job* is under way at a time; the sub-process has a state of its own next to it, so that a restart does not wait for
//! a slow callback and a stop can be part of several jobs.
//!
//! The decisions are grouped by file: this one holds the state and the queue, [`jobs`](super::jobs) what each command
//! does, [`sub_process`](super::sub_process) starting, stopping and restarting, [`sanity`](super::sanity) the checks.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use super::{
    Command as Task, Failure, Outcome, Overrun, Request, order::Order, sanity::Sanity, sub_process::Supervision,
};
use crate::{
    cluster::{Digest, PostedView},
    init::Exit,
    plugin::{Command, LifecycleSettings},
    status::{LifecycleReport, ProcessState},
};

/// Names a request until it is answered.
pub type Ticket = u64;

/// A callback to run in the plugin's lifecycle instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Callback {
    /// `initialize`
    Initialize,
    /// `can-configure`
    CanConfigure(PostedView),
    /// `configure`
    Configure(PostedView),
    /// `configured`
    Configured(PostedView),
    /// `sanity-check` of this process
    SanityCheck(u32),
    /// `signaled` with this body, and the process if it runs
    Signaled(Option<Value>, Option<u32>),
    /// `tear-down` of this process
    TearDown(u32),
    /// `finalize`
    Finalize,
}

impl Callback {
    /// Its WIT name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::CanConfigure(_) => "can-configure",
            Self::Configure(_) => "configure",
            Self::Configured(_) => "configured",
            Self::SanityCheck(_) => "sanity-check",
            Self::Signaled(..) => "signaled",
            Self::TearDown(_) => "tear-down",
            Self::Finalize => "finalize",
        }
    }
}

/// What a callback returned.
#[derive(Debug, Clone, PartialEq)]
pub enum Returned {
    /// Nothing but success.
    Nothing,
    /// `configure`: what to run.
    Command(Command),
    /// `sanity-check`: metrics.
    Metrics(Map<String, Value>),
    /// `signaled`: any JSON.
    Json(Value),
}

/// Why a callback did not return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFailure {
    /// What and whose fault.
    pub failure: Failure,
    /// Whether it ran past its deadline.
    pub overrun: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A request arrived.
    Submitted(Ticket, Request),
    /// The callback of that call ended.
    Returned(u64, Result<Returned, CallFailure>),
    /// The spawn asked for last succeeded with this process id, or failed.
    Spawned(Result<u32, String>),
    /// A process that was spawned ended.
    Exited(u32, Exit),
    /// Time passed: `wake` has come.
    Tick,
    /// The host is leaving.
    Leave,
    /// The host has to be gone now.
    Force,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Run a callback and report `Returned` with this number.
    Call(u64, Callback, Duration),
    /// Stop the callback that is running; nothing is reported for it.
    CancelCall,
    /// Spawn this and report `Spawned`.
    Spawn(Command),
    /// Give the spawn up; nothing is reported for it.
    AbandonSpawn,
    /// Send SIGTERM to the process group.
    Terminate(u32),
    /// Send SIGKILL to the process group.
    Kill(u32),
    /// The process is not ours any more: it is only reaped.
    Release(u32),
    /// Answer a request.
    Reply(Ticket, Outcome),
    /// The sub-process ended, or could not be restarted, although it was wanted.
    EndedUnexpectedly,
    /// The pod is dead.
    Died,
    /// All is done, the host may leave.
    Left,
}

/// A request that waits, or one that is being carried out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pending {
    pub(super) ticket: Ticket,
    pub(super) request: Request,
    pub(super) expires: Instant,
}

/// Where `on` stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnStage {
    Stopping,
    Initializing,
    Configuring,
    Spawning,
}

/// What is under way.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Job {
    None,
    /// One callback answers the request: `check`, `ok`, `signal`.
    Call(Pending),
    On(Pending, OnStage, Instant),
    /// Stopping, for a request or because of too many failed checks.
    Off(Option<Pending>),
    Sanity,
    /// The end of the pod: stop, finalize, dead.
    End(Ending),
}

impl Job {
    /// When the request that is being carried out is answered that it goes on.
    fn expires(&self) -> Option<Instant> {
        match self {
            Self::Call(pending) => Some(pending.expires + LAST_WORD),
            Self::On(pending, ..) | Self::Off(Some(pending)) => Some(pending.expires),
            Self::None | Self::Off(None) | Self::Sanity | Self::End(_) => None,
        }
    }
}

/// Where the end of the pod stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Ending {
    pub(super) tickets: Vec<Ticket>,
    pub(super) finalizing: bool,
}

/// Whether the pod lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    /// It is to end as soon as the job under way allows.
    Doomed,
    Dead,
}

/// What was configured last.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Configured {
    pub(super) command: Command,
    pub(super) view: PostedView,
}

/// State of one pod's lifecycle.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent: a setting, two ways to end, a memory")]
pub struct Machine {
    pub(super) settings: LifecycleSettings,
    /// Whether the first configuration starts the sub-process.
    pub(super) start: bool,
    pub(super) life: Life,
    pub(super) leaving: bool,
    pub(super) forced: bool,
    pub(super) queue: VecDeque<Pending>,
    order: Order,
    pub(super) job: Job,
    /// The call that is running, by its number.
    pub(super) call: Option<u64>,
    calls: u64,
    pub(super) initialized: bool,
    pub(super) configured: Option<Configured>,
    /// The generation of the last `on` that was answered 200.
    pub(super) completed: Option<Digest>,
    pub(super) supervision: Supervision,
    pub(super) sanity: Sanity,
}

impl Machine {
    /// A stopped pod.
    #[must_use]
    pub fn new(settings: LifecycleSettings, start: bool) -> Self {
        Self {
            settings,
            start,
            life: Life::Alive,
            leaving: false,
            forced: false,
            queue: VecDeque::new(),
            order: Order::default(),
            job: Job::None,
            call: None,
            calls: 0,
            initialized: false,
            configured: None,
            completed: None,
            supervision: Supervision::default(),
            sanity: Sanity::default(),
        }
    }

    /// Takes an event; `epoch` is the leadership that is obeyed now, as far as that is known. Returns what is to be done, in
    /// order.
    pub fn step(&mut self, event: Event, now: Instant, epoch: Option<i64>) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Submitted(ticket, request) => self.submitted(ticket, request, now, epoch, &mut effects),
            Event::Returned(call, result) if self.call == Some(call) => {
                self.call = None;
                self.returned(result, now, &mut effects);
            }
            Event::Returned(..) | Event::Tick => {}
            Event::Spawned(result) => self.spawned(result, now, &mut effects),
            Event::Exited(pid, exit) => self.exited(pid, exit, now, &mut effects),
            Event::Leave => self.leave(now, &mut effects),
            Event::Force => self.force(now, &mut effects),
        }
        self.expire(now, &mut effects);
        self.advance(now, epoch, &mut effects);
        effects
    }

    /// When the machine wants a `Tick`, at the latest.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        let idle = self.job == Job::None;
        let tickets = self.queue.iter().map(|pending| pending.expires);
        let check = self.sanity.due().filter(|_| idle && !self.supervision.is_spawning());
        tickets.chain(self.job.expires()).chain(self.supervision.wake(self.may_restart())).chain(check).min()
    }

    /// What the pod says about itself.
    #[must_use]
    pub fn report(&self) -> LifecycleReport {
        let process = if self.life == Life::Dead { ProcessState::Dead } else { self.supervision.state() };
        LifecycleReport {
            process,
            metrics: self.sanity.metrics().clone(),
            sane: self.sanity.sane(),
            configured: self.completed.is_some(),
            pid: self.supervision.pid(),
            released: self.supervision.released().to_vec(),
        }
    }

    /// The request that is being carried out, for as long as it is not answered.
    #[cfg(test)]
    pub(crate) fn under_way(&self) -> Option<(Ticket, &Request)> {
        match &self.job {
            Job::Call(pending) | Job::On(pending, ..) | Job::Off(Some(pending)) => {
                Some((pending.ticket, &pending.request))
            }
            _ => None,
        }
    }

    fn submitted(
        &mut self,
        ticket: Ticket,
        request: Request,
        now: Instant,
        epoch: Option<i64>,
        effects: &mut Vec<Effect>,
    ) {
        if self.life == Life::Dead || self.leaving {
            effects.push(Effect::Reply(ticket, self.gone()));
            return;
        }
        if request.command == Task::Kill {
            if let Some(barred) = self.order.take(&request, epoch) {
                effects.push(Effect::Reply(ticket, barred));
                return;
            }
            request.log_begin();
            self.doom(Some(ticket), now, effects);
            return;
        }
        if self.life == Life::Doomed {
            effects.push(Effect::Reply(ticket, self.gone()));
            return;
        }
        if self.job == Job::Sanity {
            // A check yields to requests: it is stopped, counts neither way, and comes again when there is nothing to do.
            self.cancel_call(effects);
            self.sanity.postpone(now);
            self.job = Job::None;
        }
        let expires = now + request.limit;
        self.queue.push_back(Pending { ticket, request, expires });
    }

    fn leave(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.leaving = true;
        if self.life == Life::Dead {
            effects.push(Effect::Left);
            return;
        }
        if matches!(self.job, Job::End(_)) {
            self.lose_patience(now, effects);
        } else {
            self.doom(None, now, effects);
        }
    }

    fn force(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.forced = true;
        if !self.leaving {
            self.leave(now, effects);
        }
        self.cancel_call(effects);
        if self.supervision.is_spawning() {
            effects.push(Effect::AbandonSpawn);
            self.spawned(Err("it was given up".to_owned()), now, effects);
        } else if matches!(&self.job, Job::End(ending) if ending.finalizing) {
            self.died(effects);
        } else {
            self.lose_patience(now, effects);
        }
    }

    /// What a request hears from a pod that takes no more.
    pub(super) fn gone(&self) -> Outcome {
        let text = if self.leaving { "the pod is leaving" } else { "the pod is dead" };
        Outcome::Gone(text.to_owned())
    }

    /// Answers requests whose time is up. One that did not begin is dropped; one that did goes on.
    fn expire(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.queue.retain(|pending| {
            let waits = pending.expires > now;
            if !waits {
                effects.push(Effect::Reply(pending.ticket, Outcome::TimedOut(Overrun::Dropped)));
            }
            waits
        });
        if self.job.expires().is_some_and(|expires| expires <= now)
            && let Job::Call(pending) | Job::On(pending, ..) | Job::Off(Some(pending)) = &mut self.job
        {
            effects.push(Effect::Reply(pending.ticket, Outcome::TimedOut(Overrun::GoesOn)));
            pending.ticket = ANSWERED;
            pending.expires = now + FOREVER;
        }
        self.supervision_tick(now, effects);
    }

    /// Begins whatever can begin now.
    fn advance(&mut self, now: Instant, epoch: Option<i64>, effects: &mut Vec<Effect>) {
        loop {
            self.restart_if_due(now, effects);
            if self.job != Job::None || self.supervision.is_spawning() {
                return;
            }
            if self.life == Life::Doomed {
                self.begin_end(Vec::new(), now, effects);
                return;
            }
            if let Some(pending) = self.queue.pop_front() {
                if let Some(barred) = self.order.take(&pending.request, epoch) {
                    effects.push(Effect::Reply(pending.ticket, barred));
                } else {
                    pending.request.log_begin();
                    self.begin(pending, now, effects);
                }
            } else if !self.check_if_due(now, effects) {
                return;
            }
        }
    }

    pub(super) fn reply(pending: &Pending, outcome: Outcome, effects: &mut Vec<Effect>) {
        if pending.ticket != ANSWERED {
            effects.push(Effect::Reply(pending.ticket, outcome));
        }
    }

    pub(super) fn done(pending: &Pending, effects: &mut Vec<Effect>) {
        Self::reply(pending, Outcome::Done(json!({})), effects);
    }

    pub(super) fn call(&mut self, callback: Callback, limit: Duration, effects: &mut Vec<Effect>) {
        self.calls += 1;
        self.call = Some(self.calls);
        effects.push(Effect::Call(self.calls, callback, limit));
    }

    pub(super) fn cancel_call(&mut self, effects: &mut Vec<Effect>) {
        if self.call.take().is_some() {
            effects.push(Effect::CancelCall);
        }
    }
}

/// The ticket of a request that was answered before its job ended (tickets count from 1).
const ANSWERED: Ticket = 0;

/// A callback that is all of a request is ended when its time is up: how it ended is the better answer, if it comes soon.
const LAST_WORD: Duration = Duration::from_millis(100);

/// Far enough for a time that is never waited for.
const FOREVER: Duration = Duration::from_hours(24 * 365);
