//! One pod's lifecycle: the real machine with a simulated plugin and simulated processes, which fail at the current rates.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use ochopod_init::Exit;
use ochopod_lifecycle::{
    Callback, CallbackError, CallbackErrorKind, CallbackValue, Effect, Event, Failure, Fence, LifecycleMachine,
    Outcome, RequestId, StartFailure, Submission, register_death,
};
use ochopod_model::{
    PodId, PostedView,
    status::{Blame, PodState},
};
use ochopod_plugin::{Command, LifecycleSettings};
use ochopod_store::MembershipHandle;
use ochopod_timing::sleep_until;
use serde_json::Map;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    fault_rates::{FaultSwitch, millis},
    invariants::InvariantChecker,
    lock,
};

const SIGTERM: Exit = Exit::Signal(15);
const SIGKILL: Exit = Exit::Signal(9);

#[derive(Debug, Default)]
struct ProcessTable {
    last: u32,
    running: BTreeMap<u32, (PodId, oneshot::Sender<Exit>)>,
}

/// All sub-processes of one run. Clones share their state.
#[derive(Debug, Clone, Default)]
pub(super) struct SimProcesses(Arc<Mutex<ProcessTable>>);

impl SimProcesses {
    fn start(&self, owner: &PodId) -> (u32, oneshot::Receiver<Exit>) {
        let mut table = lock(&self.0);
        table.last += 1;
        let (pid, (end, ended)) = (table.last, oneshot::channel());
        table.running.insert(pid, (owner.clone(), end));
        (pid, ended)
    }

    fn end(&self, pid: u32, exit: Exit) {
        if let Some((_, end)) = lock(&self.0).running.remove(&pid) {
            // Its host may have crashed.
            let _ = end.send(exit);
        }
    }

    /// Makes processes of a pod exit: the youngest, or all.
    pub(super) fn inject(&self, owner: &PodId, exit: Exit, all: bool) {
        let pids: Vec<u32> =
            lock(&self.0).running.iter().rev().filter(|(_, (of, _))| of == owner).map(|(pid, _)| *pid).collect();
        pids.into_iter().take(if all { usize::MAX } else { 1 }).for_each(|pid| self.end(pid, exit));
    }

    /// Returns the youngest process of a pod.
    pub(super) fn of(&self, owner: &PodId) -> Option<u32> {
        lock(&self.0).running.iter().rev().find(|(_, (of, _))| of == owner).map(|(pid, _)| *pid)
    }
}

/// Lifecycle of one pod.
pub(super) struct SimLifecycle {
    pub(super) id: PodId,
    pub(super) settings: LifecycleSettings,
    pub(super) pace: Duration,
    pub(super) start: bool,
    pub(super) fence: Arc<Fence>,
    pub(super) member: MembershipHandle,
    pub(super) faults: FaultSwitch,
    pub(super) processes: SimProcesses,
    pub(super) checker: InvariantChecker,
}

type CallbackResult = (u64, Result<CallbackValue, CallbackError>);

struct InFlight {
    call: BoxFuture<'static, CallbackResult>,
    spawn: BoxFuture<'static, Option<(u32, oneshot::Receiver<Exit>)>>,
    exits: FuturesUnordered<BoxFuture<'static, (u32, Exit)>>,
    replies: BTreeMap<RequestId, oneshot::Sender<Outcome>>,
    dead: watch::Sender<bool>,
    last_ticket: RequestId,
}

impl SimLifecycle {
    pub(super) async fn run(
        self,
        mut submissions: mpsc::Receiver<Submission>,
        stop: CancellationToken,
        force: CancellationToken,
    ) {
        let mut machine = LifecycleMachine::new(self.settings.clone(), self.start);
        let mut in_flight = InFlight {
            call: pending().boxed(),
            spawn: pending().boxed(),
            exits: FuturesUnordered::new(),
            replies: BTreeMap::new(),
            dead: watch::Sender::new(false),
            last_ticket: 0,
        };
        tokio::spawn(register_death(in_flight.dead.subscribe(), self.member.clone()));
        let (mut stopping, mut forced) = (false, false);
        let contending = watch::Sender::new(true);
        tokio::spawn(follow_contention(contending.subscribe(), self.member.clone()));
        loop {
            let event = tokio::select! {
                biased;
                () = force.cancelled(), if !forced => {
                    (stopping, forced) = (true, true);
                    Event::Force
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    Event::Stop
                }
                event = self.next(&mut in_flight) => event,
                Some(submission) = submissions.recv() => self.take(submission, &mut in_flight),
                () = sleep_until(machine.wake()) => Event::Tick,
            };
            let ticked = event == Event::Tick;
            let effects = machine.step(event, Instant::now().into_std(), self.fence.admitted());
            self.checker.stepped(&self.id, &machine, ticked, &effects);
            contending.send_if_modified(|contends| {
                let may_contend = machine.report().cordon.is_none();
                std::mem::replace(contends, may_contend) != may_contend
            });
            self.member.publish(PodState::of(&machine.report(), stopping));
            for effect in effects {
                if effect == Effect::Finished {
                    return;
                }
                self.apply_effect(effect, &mut in_flight);
            }
        }
    }

    fn take(&self, submission: Submission, in_flight: &mut InFlight) -> Event {
        in_flight.last_ticket += 1;
        let id = in_flight.last_ticket;
        in_flight.replies.insert(id, submission.reply);
        self.checker.submitted(&self.id, id, &submission.request);
        Event::Submitted(id, submission.request)
    }

    async fn next(&self, in_flight: &mut InFlight) -> Event {
        tokio::select! {
            biased;
            child = &mut in_flight.spawn => {
                in_flight.spawn = pending().boxed();
                let pid = child.as_ref().map(|(pid, _)| *pid);
                self.checker.spawned(&self.id, pid);
                if let Some((pid, ended)) = child {
                    in_flight.exits.push(async move { (pid, ended.await.unwrap_or(SIGKILL)) }.boxed());
                }
                let failure = || StartFailure { reason: "cannot create process".to_owned(), transient: fastrand::bool() };
                Event::Spawned(pid.ok_or_else(failure))
            }
            Some((pid, exit)) = in_flight.exits.next() => {
                self.checker.exited(&self.id, pid);
                Event::Exited(pid, exit)
            }
            (call, result) = &mut in_flight.call => {
                in_flight.call = pending().boxed();
                Event::CallbackValue(call, result)
            }
        }
    }

    fn apply_effect(&self, effect: Effect, in_flight: &mut InFlight) {
        match effect {
            Effect::Call(number, callback, limit) => in_flight.call = self.call(number, callback, limit),
            Effect::CancelCall => in_flight.call = pending().boxed(),
            Effect::Spawn(_) => {
                let (owner, processes) = (self.id.clone(), self.processes.clone());
                let well = !self.faults.occurs(|rates| rates.stubborn / 10.0);
                let takes = self.faults.latency();
                in_flight.spawn = async move {
                    sleep(takes).await;
                    well.then(|| processes.start(&owner))
                }
                .boxed();
            }
            Effect::AbandonSpawn => in_flight.spawn = pending().boxed(),
            Effect::Terminate(pid) => terminate(&self.processes, &self.faults, pid),
            Effect::Kill(pid) => self.processes.end(pid, SIGKILL),
            Effect::Reply(id, outcome) => {
                if let Some(reply) = in_flight.replies.remove(&id) {
                    // The client may have hung up.
                    let _ = reply.send(outcome);
                }
            }
            Effect::Revived => _ = in_flight.dead.send_replace(false),
            Effect::Died => {
                in_flight.dead.send_replace(true);
            }
            Effect::EndedUnexpectedly
            | Effect::Signal(..)
            | Effect::Restarted
            | Effect::CheckFailed
            | Effect::Release(_)
            | Effect::Finished => {}
        }
    }

    /// Calls the plugin: every callback may fail, trap or exceed its deadline.
    fn call(&self, number: u64, callback: Callback, limit: Duration) -> BoxFuture<'static, CallbackResult> {
        let failure = |kind| {
            let failure = Failure { callback: Some(callback.name()), blame: Blame::Plugin, message: "no".to_owned() };
            Err(CallbackError { failure, kind })
        };
        let takes = self.faults.latency() + self.pace.mul_f64(fastrand::f64());
        if takes >= limit || self.faults.occurs(|rates| rates.stuck) {
            let result = (number, failure(CallbackErrorKind::Overrun));
            return async move {
                sleep(limit).await;
                result
            }
            .boxed();
        }
        let refuses = self.faults.occurs(|rates| rates.refused);
        let result = match &callback {
            Callback::Ready(..) if self.faults.occurs(|rates| rates.unready) => failure(CallbackErrorKind::Failed),
            Callback::Initialize | Callback::Configure(_) if refuses && fastrand::bool() => {
                failure(CallbackErrorKind::NotYet)
            }
            Callback::Ready(..) => Ok(CallbackValue::Nothing),
            _ if refuses => failure(CallbackErrorKind::Failed),
            Callback::Configure(view) => Ok(CallbackValue::Command(command(view))),
            Callback::SanityCheck(_) => Ok(CallbackValue::Health(Map::new(), None)),
            _ => Ok(CallbackValue::Nothing),
        };
        let (processes, faults) = (self.processes.clone(), self.faults.clone());
        async move {
            sleep(takes).await;
            if let (Callback::TearDown(pid), Ok(_)) = (&callback, &result) {
                terminate(&processes, &faults, *pid);
            }
            (number, result)
        }
        .boxed()
    }
}

/// Keeps a cordoned pod from contending for the lock.
async fn follow_contention(mut contending: watch::Receiver<bool>, member: MembershipHandle) {
    while contending.changed().await.is_ok() {
        let contends = *contending.borrow_and_update();
        member.set_contending(contends).await;
    }
}

/// Sends SIGTERM. Most processes exit soon, some are slow, some ignore it.
fn terminate(processes: &SimProcesses, faults: &FaultSwitch, pid: u32) {
    if faults.occurs(|rates| rates.stubborn) {
        return;
    }
    let (processes, takes) = (processes.clone(), faults.latency() + millis(1..20));
    tokio::spawn(async move {
        sleep(takes).await;
        processes.end(pid, SIGTERM);
    });
}

/// Returns a command that differs with the dependencies.
fn command(view: &PostedView) -> Command {
    let arguments = view.view.dependencies.values().map(|pods| pods.len().to_string()).collect();
    Command { program: "serve".to_owned(), arguments, environment: BTreeMap::new(), reload: Some(1) }
}
