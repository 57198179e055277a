//! Carries out the effects of the machine: callbacks, processes, replies, time.

use std::{collections::BTreeMap, future::pending, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use ochopod_init::{Cause, Child, Exit, Init, Signal, SpawnError, process};
use ochopod_model::status::LifecycleReport;
use ochopod_plugin::{Command, PluginError, PluginSlot, PodPlugin};
use ochopod_store::MembershipHandle;
use ochopod_telemetry::Metrics;
use ochopod_timing::{shutdown::ShutdownClock, sleep_until};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    Callback, CallbackError, CallbackErrorKind, CallbackValue, Claim, Effect, Event, Failure, Fence, LaunchConfig,
    LifecycleMachine, Outcome, RequestId, StartFailure, Submission,
};

/// Lifecycle of one pod: owns its machine, its callbacks and its sub-process.
pub struct LifecycleActor {
    /// Whether the first configuration starts the sub-process.
    pub start: bool,
    /// The plugin, which may be replaced between two callbacks.
    pub plugin: PluginSlot,
    /// Environment, permissions and privileges of sub-processes.
    pub launch: LaunchConfig,
    /// Starts them.
    pub init: Init,
    /// Determines which leadership is accepted.
    pub fence: Arc<Fence>,
    /// Membership of the pod, which is marked dead with it.
    pub member: MembershipHandle,
    /// Report of the pod.
    pub report: watch::Sender<LifecycleReport>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Deadlines of a shutdown.
    pub clock: ShutdownClock,
}

type CallbackResult = (u64, Result<CallbackValue, CallbackError>);

/// Work in progress.
struct InFlight {
    call: BoxFuture<'static, CallbackResult>,
    spawn: BoxFuture<'static, Result<Child, SpawnError>>,
    exits: FuturesUnordered<BoxFuture<'static, (u32, Exit)>>,
    /// The signal that stopped the last process, for as long as it is stopped.
    stopped: watch::Receiver<Option<Signal>>,
    /// Whether the registration has to say that the pod is dead.
    dead: watch::Sender<bool>,
    /// Readers of output, and the task that registers deaths: they end without being stopped.
    others: JoinSet<()>,
    waiting: BTreeMap<RequestId, (oneshot::Sender<Outcome>, Claim)>,
    /// Requests whose client is gone.
    withdrawn: FuturesUnordered<BoxFuture<'static, RequestId>>,
    /// Number of the pod, kept while it is not registered.
    seq: Option<u64>,
    last_id: RequestId,
}

impl LifecycleActor {
    /// Runs until `stop` is cancelled and all is done: the sub-process stopped, the plugin finalized. Accepts no request and
    /// starts nothing once `drain` is cancelled; kills the sub-process on `force`.
    pub async fn run(
        self,
        mut submissions: mpsc::Receiver<Submission>,
        drain: CancellationToken,
        stop: CancellationToken,
        force: CancellationToken,
    ) {
        let mut plugin = self.plugin.watch();
        let settings = plugin.borrow_and_update().settings().lifecycle.clone();
        let mut machine = LifecycleMachine::new(settings, self.start);
        let mut in_flight = InFlight::new();
        in_flight.others.spawn(register_death(in_flight.dead.subscribe(), self.member.clone()).in_current_span());
        let (mut draining, mut stopping, mut forced) = (false, false, false);
        loop {
            let event = tokio::select! {
                biased;
                () = force.cancelled(), if !forced => {
                    forced = true;
                    stopping = true;
                    Event::Force
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    Event::Stop
                }
                () = drain.cancelled(), if !draining => {
                    draining = true;
                    Event::Drain
                }
                event = in_flight.next() => event,
                Ok(()) = plugin.changed() => {
                    let settings = plugin.borrow_and_update().settings().lifecycle.clone();
                    machine.plugin_replaced(settings, Instant::now().into_std());
                    Event::Tick
                }
                Some(submission) = submissions.recv() => in_flight.accept(submission),
                () = sleep_until(machine.wake()) => Event::Tick,
            };
            if let Event::Spawned(Ok(_)) = &event {
                self.metrics.process_started();
            }
            if matches!(event, Event::Stop | Event::Force) {
                machine.set_schedule(self.clock.start());
            }
            for effect in machine.step(event, Instant::now().into_std(), self.fence.admitted()) {
                if effect == Effect::Finished {
                    self.report.send_replace(in_flight.report(&machine));
                    return;
                }
                self.apply_effect(effect, &mut in_flight);
            }
            in_flight.mark_started(&machine);
            self.report.send_if_modified(|report| {
                let new = in_flight.report(&machine).dated(report, Instant::now().into_std());
                std::mem::replace(report, new) != *report
            });
        }
    }

    fn apply_effect(&self, effect: Effect, in_flight: &mut InFlight) {
        match effect {
            Effect::Call(number, callback, limit) => {
                in_flight.call = call(self.plugin.clone(), number, callback, limit).boxed();
            }
            Effect::CancelCall => in_flight.call = pending().boxed(),
            Effect::Spawn(command) => in_flight.spawn = self.spawn(&command, in_flight),
            Effect::AbandonSpawn => in_flight.spawn = pending().boxed(),
            Effect::EndedUnexpectedly => self.metrics.process_ended_unexpectedly(),
            Effect::Restarted => self.metrics.process_restarted(),
            Effect::CheckFailed => self.metrics.check_failed(),
            Effect::Terminate(pid) => self.init.terminate(pid),
            Effect::Signal(pid, number) => {
                if let Ok(signal) = Signal::try_from(i32::from(number)) {
                    self.init.signal(pid, signal);
                }
            }
            Effect::Kill(pid) => self.init.signal_group(pid, Signal::SIGKILL),
            Effect::Reply(id, outcome) => in_flight.reply(id, outcome),
            Effect::Died => in_flight.set_dead(true),
            Effect::Revived => in_flight.set_dead(false),
            // Nothing more is done to a released process; its end is still awaited.
            Effect::Release(_) | Effect::Finished => {}
        }
    }

    fn spawn(&self, command: &Command, in_flight: &mut InFlight) -> BoxFuture<'static, Result<Child, SpawnError>> {
        if let Some(registered) = self.member.watch().borrow().registered {
            in_flight.seq = Some(registered.seq);
        }
        let settings = self.plugin.launch();
        let launch = LaunchConfig { variables: settings.variables.clone(), ..self.launch.clone() };
        let launch = match launch.process_spec(command, &settings.lifecycle, in_flight.seq) {
            Ok(launch) => launch,
            Err(error) => {
                let (program, cause) = (command.program.clone(), Cause::refusal(error.to_string()));
                return std::future::ready(Err(SpawnError::Exec { program, found: true, cause })).boxed();
            }
        };
        let init = self.init.clone();
        async move { init.spawn(launch).await }.boxed()
    }
}

impl InFlight {
    fn new() -> Self {
        Self {
            call: pending().boxed(),
            spawn: pending().boxed(),
            exits: FuturesUnordered::new(),
            stopped: watch::channel(None).1,
            dead: watch::Sender::new(false),
            others: JoinSet::new(),
            waiting: BTreeMap::new(),
            withdrawn: FuturesUnordered::new(),
            seq: None,
            last_id: 0,
        }
    }

    fn accept(&mut self, submission: Submission) -> Event {
        self.last_id += 1;
        let Submission { request, reply, claim, withdrawn } = submission;
        let id = self.last_id;
        self.waiting.insert(id, (reply, claim));
        self.withdrawn.push(withdrawn.cancelled_owned().map(move |()| id).boxed());
        Event::Submitted(id, request)
    }

    /// Marks the claims of requests that have started.
    fn mark_started(&self, machine: &LifecycleMachine) {
        for (id, (_, claim)) in &self.waiting {
            if !claim.has_started() && !machine.is_waiting(*id) {
                claim.start();
            }
        }
    }

    fn reply(&mut self, id: RequestId, outcome: Outcome) {
        if let Some((reply, _)) = self.waiting.remove(&id) {
            // The client may be gone.
            let _ = reply.send(outcome);
        }
    }

    /// Completes with the next event.
    ///
    /// # Cancellation safety
    /// Dropping the future loses nothing.
    async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                biased;
                spawned = &mut self.spawn => {
                    self.spawn = pending().boxed();
                    let failure = |error: SpawnError| StartFailure {
                        reason: error.to_string(),
                        transient: error.is_transient(),
                    };
                    return Event::Spawned(spawned.map(|child| self.track_child(child)).map_err(failure));
                }
                Some((pid, exit)) = self.exits.next() => return Event::Exited(pid, exit),
                // Only the report changes.
                Ok(()) = self.stopped.changed() => return Event::Tick,
                (call, result) = &mut self.call => {
                    self.call = pending().boxed();
                    return Event::CallbackValue(call, result);
                }
                Some(id) = self.withdrawn.next() => {
                    // Requests that were answered count as withdrawn too.
                    if self.waiting.contains_key(&id) {
                        return Event::Withdrawn(id);
                    }
                }
                Some(_) = self.others.join_next() => {}
            }
        }
    }

    /// Returns the report of the pod.
    fn report(&self, machine: &LifecycleMachine) -> LifecycleReport {
        let report = machine.report();
        let stopped_by = *self.stopped.borrow();
        LifecycleReport { stopped_by: stopped_by.filter(|_| report.pid.is_some()).map(Signal::as_str), ..report }
    }

    fn set_dead(&self, is_dead: bool) {
        self.dead.send_replace(is_dead);
    }

    fn track_child(&mut self, child: Child) -> u32 {
        let pid = child.pid;
        self.stopped = child.stopped;
        self.exits.push(async move { (pid, child.exit.await.unwrap_or_else(|_| lost(pid))) }.boxed());
        if let Some(output) = child.output {
            self.others.spawn(process::log_output(output, pid).in_current_span());
        }
        pid
    }
}

/// Registers the pod as dead, or as alive again, whenever that changes. Of several changes in quick succession only the last one
/// is registered. Completes when the sender is dropped.
pub async fn register_death(mut dead: watch::Receiver<bool>, member: MembershipHandle) {
    while dead.changed().await.is_ok() {
        let is_dead = *dead.borrow_and_update();
        if is_dead {
            member.retire().await;
        } else {
            member.revive().await;
        }
    }
}

/// Returns the exit of a process whose status is unknown: it is gone, or will be with its init.
fn lost(pid: u32) -> Exit {
    tracing::error!(pid, "exit status lost, assuming SIGKILL");
    Exit::Signal(Signal::SIGKILL as i32)
}

/// Runs a callback with the plugin in force. One that failed is repeated if its plugin was replaced or rolled back meanwhile,
/// unless it may have had an effect or is part of a stop, which has its own deadline.
async fn call(slot: PluginSlot, number: u64, callback: Callback, limit: Duration) -> CallbackResult {
    let name = callback.name();
    let is_repeatable = !matches!(callback, Callback::Signaled(..) | Callback::TearDown(_) | Callback::Finalize);
    loop {
        tracing::debug!(callback = name, "calling plugin");
        let call = slot.begin(name);
        let result = call_once(call.plugin(), &callback, limit).await;
        let is_superseded = call.end(result.as_ref().err());
        if !(is_superseded && is_repeatable) {
            return (number, result.map_err(|error| failure(name, &error)));
        }
    }
}

async fn call_once(plugin: &PodPlugin, callback: &Callback, limit: Duration) -> Result<CallbackValue, PluginError> {
    let (plugin, nothing) = (plugin.lifecycle(), |()| CallbackValue::Nothing);
    match callback {
        Callback::Initialize => plugin.initialize(limit).await.map(nothing),
        Callback::CanConfigure(view) => plugin.can_configure(view, limit).await.map(nothing),
        Callback::Configure(view) => plugin.configure(view, limit).await.map(CallbackValue::Command),
        Callback::Configured(view) => plugin.configured(view, limit).await.map(CallbackValue::Role),
        Callback::Ready(view, pid) => plugin.ready(view, *pid, limit).await.map(nothing),
        Callback::SanityCheck(pid) => {
            plugin.sanity_check(*pid, limit).await.map(|(metrics, role)| CallbackValue::Health(metrics, role))
        }
        Callback::Signaled(body, pid) => plugin.signaled(body.as_ref(), *pid, limit).await.map(CallbackValue::Json),
        Callback::TearDown(pid) => plugin.tear_down(*pid, limit).await.map(nothing),
        Callback::Finalize => plugin.finalize(limit).await.map(nothing),
    }
}

fn failure(callback: &'static str, error: &PluginError) -> CallbackError {
    let kind = match error {
        PluginError::DeadlineExceeded(_) => CallbackErrorKind::Overrun,
        PluginError::NotYet(_) => CallbackErrorKind::NotYet,
        _ => CallbackErrorKind::Failed,
    };
    CallbackError {
        failure: Failure { callback: Some(callback), blame: error.blame(), message: error.to_string() },
        kind,
    }
}
