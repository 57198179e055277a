//! Carries out what the machine decides: callbacks, processes, answers, time.

use std::{collections::BTreeMap, future::pending, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    CallFailure, Callback, Effect, Event, Failure, Fence, LaunchPad, Machine, Outcome, Returned, Submission, Ticket,
};
use crate::{
    coord::Member,
    init::{Child, Exit, Init, Signal, SpawnError},
    plugin::{Command, Lifecycle, LifecycleSettings, PluginError},
    process,
    status::LifecycleReport,
    telemetry::Metrics,
    wake::until,
};

/// One pod's lifecycle: owns its machine, its callbacks and its sub-process.
pub struct LifecycleActor {
    /// The plugin's settings.
    pub settings: LifecycleSettings,
    /// Whether the first configuration starts the sub-process.
    pub start: bool,
    /// The plugin's lifecycle.
    pub plugin: Arc<Lifecycle>,
    /// What sub-processes start from.
    pub pad: LaunchPad,
    /// Who starts them.
    pub init: Init,
    /// Which leadership is obeyed.
    pub fence: Arc<Fence>,
    /// Who is told of the pod's death.
    pub member: Member,
    /// What the pod says about itself.
    pub report: watch::Sender<LifecycleReport>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

type CallResult = (u64, Result<Returned, CallFailure>);

/// What is under way.
struct Activities {
    call: BoxFuture<'static, CallResult>,
    spawn: BoxFuture<'static, Result<Child, SpawnError>>,
    exits: FuturesUnordered<BoxFuture<'static, Option<(u32, Exit)>>>,
    /// Readers of output and the announcement of the pod's death: they end by themselves.
    others: JoinSet<()>,
    tickets: BTreeMap<Ticket, oneshot::Sender<Outcome>>,
    /// The pod's number, which it keeps while it is not registered.
    seq: Option<u64>,
    last_ticket: Ticket,
}

impl LifecycleActor {
    /// Runs until told to leave and all is done: the sub-process stopped, the plugin finalized.
    pub async fn run(
        self,
        mut submissions: mpsc::Receiver<Submission>,
        leave: CancellationToken,
        force: CancellationToken,
    ) {
        let mut machine = Machine::new(self.settings.clone(), self.start);
        let mut activities = Activities::new();
        let (mut leaving, mut forced) = (false, false);
        loop {
            let event = tokio::select! {
                biased;
                () = force.cancelled(), if !forced => {
                    forced = true;
                    leaving = true;
                    Event::Force
                }
                () = leave.cancelled(), if !leaving => {
                    leaving = true;
                    Event::Leave
                }
                event = activities.next() => event,
                Some(submission) = submissions.recv() => activities.take(submission),
                () = until(machine.wake()) => Event::Tick,
            };
            if let Event::Spawned(Ok(_)) = &event {
                self.metrics.process_started();
            }
            for effect in machine.step(event, Instant::now().into_std(), self.fence.admitted()) {
                if effect == Effect::Left {
                    self.report.send_replace(machine.report());
                    return;
                }
                self.carry_out(effect, &mut activities);
            }
            self.report.send_if_modified(|report| {
                let new = machine.report();
                std::mem::replace(report, new) != *report
            });
        }
    }

    fn carry_out(&self, effect: Effect, activities: &mut Activities) {
        match effect {
            Effect::Call(number, callback, limit) => {
                activities.call = call(Arc::clone(&self.plugin), number, callback, limit).boxed();
            }
            Effect::CancelCall => activities.call = pending().boxed(),
            Effect::Spawn(command) => activities.spawn = self.spawn(&command, activities),
            Effect::AbandonSpawn => activities.spawn = pending().boxed(),
            Effect::EndedUnexpectedly => self.metrics.process_ended_unexpectedly(),
            Effect::Terminate(pid) => self.init.signal_group(pid, Signal::SIGTERM),
            Effect::Kill(pid) => self.init.signal_group(pid, Signal::SIGKILL),
            Effect::Reply(ticket, outcome) => activities.reply(ticket, outcome),
            Effect::Died => {
                let member = self.member.clone();
                activities.others.spawn(async move { member.retire().await });
            }
            // Nothing more is done to a released process; its end is still awaited.
            Effect::Release(_) | Effect::Left => {}
        }
    }

    fn spawn(&self, command: &Command, activities: &mut Activities) -> BoxFuture<'static, Result<Child, SpawnError>> {
        if let Some(registered) = self.member.watch().borrow().registered {
            activities.seq = Some(registered.seq);
        }
        let launch = match self.pad.launch(command, &self.settings, activities.seq) {
            Ok(launch) => launch,
            Err(error) => {
                let (program, reason) = (command.program.clone(), error.to_string());
                return std::future::ready(Err(SpawnError::Exec { program, found: true, reason })).boxed();
            }
        };
        let init = self.init.clone();
        async move { init.spawn(launch).await }.boxed()
    }
}

impl Activities {
    fn new() -> Self {
        Self {
            call: pending().boxed(),
            spawn: pending().boxed(),
            exits: FuturesUnordered::new(),
            others: JoinSet::new(),
            tickets: BTreeMap::new(),
            seq: None,
            last_ticket: 0,
        }
    }

    fn take(&mut self, submission: Submission) -> Event {
        self.last_ticket += 1;
        self.tickets.insert(self.last_ticket, submission.reply);
        Event::Submitted(self.last_ticket, submission.request)
    }

    fn reply(&mut self, ticket: Ticket, outcome: Outcome) {
        if let Some(reply) = self.tickets.remove(&ticket) {
            // Whoever asked may have hung up.
            let _ = reply.send(outcome);
        }
    }

    /// The next thing that ends.
    ///
    /// # Cancellation safety
    /// Nothing is lost when it is dropped.
    async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                biased;
                spawned = &mut self.spawn => {
                    self.spawn = pending().boxed();
                    let spawned = spawned.map(|child| self.adopt(child)).map_err(|e| e.to_string());
                    return Event::Spawned(spawned);
                }
                Some(Some((pid, exit))) = self.exits.next() => return Event::Exited(pid, exit),
                (call, result) = &mut self.call => {
                    self.call = pending().boxed();
                    return Event::Returned(call, result);
                }
                Some(_) = self.others.join_next() => {}
            }
        }
    }

    fn adopt(&mut self, child: Child) -> u32 {
        let pid = child.pid;
        self.exits.push(async move { Some((pid, child.exit.await.ok()?)) }.boxed());
        if let Some(output) = child.output {
            self.others.spawn(process::log_output(output, pid));
        }
        pid
    }
}

/// Runs one callback.
async fn call(plugin: Arc<Lifecycle>, number: u64, callback: Callback, limit: Duration) -> CallResult {
    let name = callback.name();
    tracing::debug!(callback = name, "calling the plugin");
    let nothing = |()| Returned::Nothing;
    let result = match callback {
        Callback::Initialize => plugin.initialize(limit).await.map(nothing),
        Callback::CanConfigure(view) => plugin.can_configure(&view, limit).await.map(nothing),
        Callback::Configure(view) => plugin.configure(&view, limit).await.map(Returned::Command),
        Callback::Configured(view) => plugin.configured(&view, limit).await.map(nothing),
        Callback::SanityCheck(pid) => plugin.sanity_check(pid, limit).await.map(Returned::Metrics),
        Callback::Signaled(body, pid) => plugin.signaled(body.as_ref(), pid, limit).await.map(Returned::Json),
        Callback::TearDown(pid) => plugin.tear_down(pid, limit).await.map(nothing),
        Callback::Finalize => plugin.finalize(limit).await.map(nothing),
    };
    (number, result.map_err(|error| failure(name, &error)))
}

fn failure(callback: &'static str, error: &PluginError) -> CallFailure {
    let overrun = matches!(error, PluginError::DeadlineExceeded(_));
    CallFailure {
        failure: Failure { callback: Some(callback), blame: error.blame(), message: error.to_string() },
        overrun,
    }
}
