//! One pod's lifecycle: its machine, with a plugin and processes that do as the weather is.
//!
//! What the lifecycle actor does with a real plugin and real processes, this does with simulated ones.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use serde_json::Map;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    ledger::Ledger,
    lock,
    weather::{Weather, millis},
};
use crate::{
    cluster::PodId,
    coord::Member,
    init::Exit,
    lifecycle::{
        Blame, CallFailure, Callback, Effect, Event, Failure, Fence, Machine, Outcome, Returned, Submission, Ticket,
    },
    plugin::{Command, LifecycleSettings},
    wake::until,
};

const SIGTERM: Exit = Exit::Signal(15);
const SIGKILL: Exit = Exit::Signal(9);

#[derive(Debug, Default)]
struct Table {
    last: u32,
    running: BTreeMap<u32, (PodId, oneshot::Sender<Exit>)>,
}

/// All sub-processes of a world. Clones are handles on the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Processes(Arc<Mutex<Table>>);

impl Processes {
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

    /// Ends the processes of a pod: the youngest, or all.
    pub(super) fn strike(&self, owner: &PodId, exit: Exit, all: bool) {
        let pids: Vec<u32> =
            lock(&self.0).running.iter().rev().filter(|(_, (of, _))| of == owner).map(|(pid, _)| *pid).collect();
        pids.into_iter().take(if all { usize::MAX } else { 1 }).for_each(|pid| self.end(pid, exit));
    }

    /// The youngest process of a pod.
    pub(super) fn of(&self, owner: &PodId) -> Option<u32> {
        lock(&self.0).running.iter().rev().find(|(_, (of, _))| of == owner).map(|(pid, _)| *pid)
    }
}

/// One pod's lifecycle.
pub(super) struct Pod {
    pub(super) id: PodId,
    pub(super) settings: LifecycleSettings,
    pub(super) pace: Duration,
    pub(super) start: bool,
    pub(super) fence: Arc<Fence>,
    pub(super) member: Member,
    pub(super) weather: Weather,
    pub(super) processes: Processes,
    pub(super) ledger: Ledger,
}

type CallResult = (u64, Result<Returned, CallFailure>);

struct Activities {
    call: BoxFuture<'static, CallResult>,
    spawn: BoxFuture<'static, Option<(u32, oneshot::Receiver<Exit>)>>,
    exits: FuturesUnordered<BoxFuture<'static, (u32, Exit)>>,
    tickets: BTreeMap<Ticket, oneshot::Sender<Outcome>>,
    last_ticket: Ticket,
}

impl Pod {
    pub(super) async fn run(
        self,
        mut submissions: mpsc::Receiver<Submission>,
        leave: CancellationToken,
        force: CancellationToken,
    ) {
        let mut machine = Machine::new(self.settings.clone(), self.start);
        let mut activities = Activities {
            call: pending().boxed(),
            spawn: pending().boxed(),
            exits: FuturesUnordered::new(),
            tickets: BTreeMap::new(),
            last_ticket: 0,
        };
        let (mut leaving, mut forced) = (false, false);
        loop {
            let event = tokio::select! {
                biased;
                () = force.cancelled(), if !forced => {
                    (leaving, forced) = (true, true);
                    Event::Force
                }
                () = leave.cancelled(), if !leaving => {
                    leaving = true;
                    Event::Leave
                }
                event = self.next(&mut activities) => event,
                Some(submission) = submissions.recv() => self.take(submission, &mut activities),
                () = until(machine.wake()) => Event::Tick,
            };
            let ticked = event == Event::Tick;
            let effects = machine.step(event, Instant::now().into_std(), self.fence.admitted());
            self.ledger.stepped(&self.id, &machine, ticked, &effects);
            for effect in effects {
                if effect == Effect::Left {
                    return;
                }
                self.carry_out(effect, &mut activities);
            }
        }
    }

    fn take(&self, submission: Submission, activities: &mut Activities) -> Event {
        activities.last_ticket += 1;
        let ticket = activities.last_ticket;
        activities.tickets.insert(ticket, submission.reply);
        self.ledger.submitted(&self.id, ticket, &submission.request);
        Event::Submitted(ticket, submission.request)
    }

    async fn next(&self, activities: &mut Activities) -> Event {
        tokio::select! {
            biased;
            child = &mut activities.spawn => {
                activities.spawn = pending().boxed();
                let pid = child.as_ref().map(|(pid, _)| *pid);
                self.ledger.spawned(&self.id, pid);
                if let Some((pid, ended)) = child {
                    activities.exits.push(async move { (pid, ended.await.unwrap_or(SIGKILL)) }.boxed());
                }
                Event::Spawned(pid.ok_or_else(|| "there is no such program".to_owned()))
            }
            Some((pid, exit)) = activities.exits.next() => {
                self.ledger.exited(&self.id, pid);
                Event::Exited(pid, exit)
            }
            (call, result) = &mut activities.call => {
                activities.call = pending().boxed();
                Event::Returned(call, result)
            }
        }
    }

    fn carry_out(&self, effect: Effect, activities: &mut Activities) {
        match effect {
            Effect::Call(number, callback, limit) => activities.call = self.call(number, callback, limit),
            Effect::CancelCall => activities.call = pending().boxed(),
            Effect::Spawn(_) => {
                let (owner, processes) = (self.id.clone(), self.processes.clone());
                let well = !self.weather.strikes(|chances| chances.stubborn / 10.0);
                let takes = self.weather.latency();
                activities.spawn = async move {
                    sleep(takes).await;
                    well.then(|| processes.start(&owner))
                }
                .boxed();
            }
            Effect::AbandonSpawn => activities.spawn = pending().boxed(),
            Effect::Terminate(pid) => terminate(&self.processes, &self.weather, pid),
            Effect::Kill(pid) => self.processes.end(pid, SIGKILL),
            Effect::Reply(ticket, outcome) => {
                if let Some(reply) = activities.tickets.remove(&ticket) {
                    // Whoever asked may have hung up.
                    let _ = reply.send(outcome);
                }
            }
            Effect::Died => {
                let member = self.member.clone();
                tokio::spawn(async move { member.retire().await });
            }
            Effect::EndedUnexpectedly | Effect::Release(_) | Effect::Left => {}
        }
    }

    /// The plugin: every callback may refuse, trap or run into its deadline.
    fn call(&self, number: u64, callback: Callback, limit: Duration) -> BoxFuture<'static, CallResult> {
        let failure = |overrun| {
            let failure = Failure { callback: Some(callback.name()), blame: Blame::Plugin, message: "no".to_owned() };
            Err(CallFailure { failure, overrun })
        };
        let takes = self.weather.latency() + self.pace.mul_f64(fastrand::f64());
        if takes >= limit || self.weather.strikes(|chances| chances.stuck) {
            let result = (number, failure(true));
            return async move {
                sleep(limit).await;
                result
            }
            .boxed();
        }
        let refuses = self.weather.strikes(|chances| chances.refused);
        let result = match &callback {
            _ if refuses => failure(false),
            Callback::Configure(_) => Ok(Returned::Command(command())),
            Callback::SanityCheck(_) => Ok(Returned::Metrics(Map::new())),
            _ => Ok(Returned::Nothing),
        };
        let (processes, weather) = (self.processes.clone(), self.weather.clone());
        async move {
            sleep(takes).await;
            if let (Callback::TearDown(pid), Ok(_)) = (&callback, &result) {
                terminate(&processes, &weather, *pid);
            }
            (number, result)
        }
        .boxed()
    }
}

/// SIGTERM: most end soon, some take their time, some do not care.
fn terminate(processes: &Processes, weather: &Weather, pid: u32) {
    if weather.strikes(|chances| chances.stubborn) {
        return;
    }
    let (processes, takes) = (processes.clone(), weather.latency() + millis(1..20));
    tokio::spawn(async move {
        sleep(takes).await;
        processes.end(pid, SIGTERM);
    });
}

fn command() -> Command {
    Command { program: "serve".to_owned(), arguments: Vec::new(), environment: BTreeMap::new() }
}
