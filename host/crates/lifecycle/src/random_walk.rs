//! Random walks of the machine: invariants hold for any events in any order.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use ochopod_init::Exit;
use ochopod_model::{
    Digest, PostedView,
    status::{Blame, ProcessState},
};
use ochopod_plugin::{Command, LifecycleSettings, OnChange};
use ochopod_timing::shutdown::Schedule;
use proptest::{collection::vec, prelude::*};
use serde_json::Map;

use super::{
    Callback, CallbackError, CallbackErrorKind, CallbackValue, ControlTask, Cordon, Effect, Event, Failure,
    LifecycleMachine, Request, RequestId, StartFailure,
};

/// Next event of the environment.
#[derive(Debug, Clone)]
enum Step {
    Submit(ControlTask, Option<&'static str>, Duration),
    /// The running callback returns, successfully or not, in time or not.
    Return {
        well: bool,
        kind: CallbackErrorKind,
    },
    /// The spawn in progress completes.
    Spawned {
        well: bool,
        /// If it fails: for lack of resources, or because of the program.
        transient: bool,
    },
    /// A running process exits.
    Exit {
        oldest: bool,
        exit: Exit,
    },
    Wait(Duration),
    /// The host shuts down, within this many seconds if set.
    ShutDown(Option<u64>),
    Drain,
    Force,
}

fn view(dependency: &str) -> PostedView {
    let body = format!(r#"{{"key":"a","pods":{{"a":{{"seq":1}}}},"dependencies":{{"{dependency}":{{}}}}}}"#);
    PostedView::parse(body.as_bytes()).unwrap()
}

fn task() -> impl Strategy<Value = ControlTask> {
    prop_oneof![
        4 => prop_oneof![Just("x"), Just("y")].prop_map(|dependency| ControlTask::On(Some(view(dependency)))),
        1 => Just(ControlTask::On(None)),
        2 => Just(ControlTask::Off),
        1 => Just(ControlTask::Check(view("x"))),
        1 => Just(ControlTask::Ok(view("x"))),
        2 => Just(ControlTask::Signal(None)),
        1 => Just(ControlTask::Kill),
        1 => Just(ControlTask::Restart),
        1 => any::<bool>().prop_map(|stop| ControlTask::Cordon(Cordon { reason: "disk".to_owned(), stop })),
        1 => Just(ControlTask::Uncordon),
        1 => Just(ControlTask::Revive),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let limit = prop_oneof![Just(1_u64), Just(60)].prop_map(Duration::from_secs);
    let generation = prop_oneof![Just(None), Just(Some("g1")), Just(Some("g2"))];
    let kind = prop_oneof![
        Just(CallbackErrorKind::Failed),
        Just(CallbackErrorKind::Overrun),
        Just(CallbackErrorKind::NotYet),
    ];
    let exit = prop_oneof![3 => Just(Exit::Code(1)), 1 => Just(Exit::Code(0)), 2 => Just(Exit::Signal(9))];
    prop_oneof![
        5 => (task(), generation, limit).prop_map(|(task, generation, limit)| Step::Submit(task, generation, limit)),
        8 => (prop::bool::weighted(0.85), kind).prop_map(|(well, kind)| Step::Return { well, kind }),
        6 => (prop::bool::weighted(0.85), any::<bool>())
            .prop_map(|(well, transient)| Step::Spawned { well, transient }),
        3 => (any::<bool>(), exit).prop_map(|(oldest, exit)| Step::Exit { oldest, exit }),
        4 => (1_u64..90_000).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
        1 => prop::option::of(1_u64..100).prop_map(Step::ShutDown),
        1 => Just(Step::Drain),
        1 => Just(Step::Force),
    ]
}

fn settings() -> impl Strategy<Value = LifecycleSettings> {
    let on_change = prop_oneof![Just(OnChange::Restart), Just(OnChange::Compare)];
    (1_u64..20, 1_u32..4, any::<bool>(), any::<bool>(), on_change).prop_map(
        |(seconds, checks, soft, strict, on_change)| LifecycleSettings {
            check_every: Duration::from_secs(seconds),
            checks,
            cwd: None,
            grace: Duration::from_secs(seconds),
            pipe_subprocess: false,
            shell: false,
            soft,
            strict,
            on_change,
            ready_within: Duration::from_secs(seconds),
        },
    )
}

/// The machine and the environment that its effects change.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct RandomWalk {
    machine: LifecycleMachine,
    now: Instant,
    call: Option<(u64, Callback)>,
    spawning: bool,
    /// Running processes, oldest first, and those among them that are released.
    alive: Vec<u32>,
    released: BTreeSet<u32>,
    pids: u32,
    last_id: RequestId,
    open: BTreeSet<RequestId>,
    initialized: u32,
    finalized: u32,
    /// Deaths, less the revivals.
    died: u32,
    finished: bool,
    /// The shutdown started: the schedule is fixed.
    is_shutting_down: bool,
    drained: bool,
}

impl RandomWalk {
    fn new(settings: LifecycleSettings) -> Self {
        Self {
            machine: LifecycleMachine::new(settings, true),
            now: Instant::now(),
            call: None,
            spawning: false,
            alive: Vec::new(),
            released: BTreeSet::new(),
            pids: 0,
            last_id: 0,
            open: BTreeSet::new(),
            initialized: 0,
            finalized: 0,
            died: 0,
            finished: false,
            is_shutting_down: false,
            drained: false,
        }
    }

    fn feed(&mut self, event: Event) {
        for effect in self.machine.step(event, self.now, None) {
            assert!(!self.finished, "{effect:?} after all was done");
            self.take(effect);
        }
        let ours = self.alive.iter().filter(|pid| !self.released.contains(pid)).count();
        assert!(ours + usize::from(self.spawning) <= 1, "two concurrent sub-processes");
        if !self.finished {
            assert!(self.machine.wake().is_none_or(|wake| wake > self.now), "wakes in the past");
        }
    }

    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Call(number, callback, _) => {
                assert_eq!(self.call, None, "two concurrent callbacks");
                assert!(callback != Callback::Initialize || self.initialized == 0, "initialized twice");
                self.finalized += u32::from(callback == Callback::Finalize);
                self.call = Some((number, callback));
            }
            Effect::CancelCall => assert!(self.call.take().is_some(), "no callback to cancel"),
            Effect::Spawn(_) => {
                assert_eq!(self.died, 0, "a dead pod starts nothing");
                assert!(!self.drained, "a pod that shuts down starts nothing");
                self.spawning = true;
            }
            Effect::AbandonSpawn => self.spawning = false,
            Effect::Terminate(pid) | Effect::Kill(pid) | Effect::Signal(pid, _) => {
                assert!(!self.released.contains(&pid), "it is not ours");
            }
            Effect::Release(pid) => assert!(self.released.insert(pid), "released twice"),
            Effect::Reply(id, _) => assert!(self.open.remove(&id), "request {id} is answered twice"),
            Effect::Died => self.died += 1,
            Effect::Revived => {
                self.died -= 1;
                (self.initialized, self.finalized) = (0, 0);
            }
            Effect::Finished => self.finished = true,
            Effect::EndedUnexpectedly | Effect::Restarted | Effect::CheckFailed => {}
        }
    }

    fn walk(&mut self, step: Step) {
        match step {
            Step::Submit(command, generation, limit) => {
                self.last_id += 1;
                self.open.insert(self.last_id);
                let request = Request {
                    task: command,
                    epoch: None,
                    number: None,
                    generation: generation.map(Digest::from),
                    limit,
                };
                self.feed(Event::Submitted(self.last_id, request));
            }
            Step::Return { well, kind } => {
                let Some((number, callback)) = self.call.take() else { return };
                self.initialized += u32::from(well && callback == Callback::Initialize);
                let failure = Failure { callback: None, blame: Blame::Plugin, message: "no".to_owned() };
                let returned = match callback {
                    Callback::Configure(view) => CallbackValue::Command(command(&view)),
                    Callback::SanityCheck(_) => CallbackValue::Health(Map::new(), None),
                    _ => CallbackValue::Nothing,
                };
                self.feed(Event::CallbackValue(
                    number,
                    if well { Ok(returned) } else { Err(CallbackError { failure, kind }) },
                ));
            }
            Step::Spawned { well, transient } => {
                if !std::mem::take(&mut self.spawning) {
                    return;
                }
                self.pids += 1;
                if well {
                    self.alive.push(self.pids);
                }
                let failure = StartFailure { reason: "no".to_owned(), transient };
                self.feed(Event::Spawned(if well { Ok(self.pids) } else { Err(failure) }));
            }
            Step::Exit { oldest, exit } => {
                let pid = if oldest { self.alive.first() } else { self.alive.last() };
                let Some(pid) = pid.copied() else { return };
                self.alive.retain(|alive| *alive != pid);
                self.released.remove(&pid);
                self.feed(Event::Exited(pid, exit));
            }
            Step::Wait(time) => {
                let end = self.now + time;
                while let Some(wake) = self.machine.wake().filter(|wake| *wake <= end && !self.finished) {
                    self.now = wake;
                    self.feed(Event::Tick);
                }
                self.now = end;
            }
            Step::ShutDown(timeout) => {
                if let Some(timeout) = timeout.filter(|_| !self.is_shutting_down) {
                    self.machine.set_schedule(Schedule::new(self.now, Duration::from_secs(timeout)));
                }
                self.is_shutting_down = true;
                self.feed(Event::Stop);
            }
            Step::Drain => {
                self.drained = true;
                self.feed(Event::Drain);
            }
            Step::Force => self.feed(Event::Force),
        }
    }

    /// Completes everything in progress, until the machine reports that the host may exit.
    fn finish(&mut self) {
        self.walk(Step::ShutDown(None));
        for _ in 0..20 {
            if self.finished {
                return;
            }
            self.walk(Step::Spawned { well: true, transient: false });
            self.walk(Step::Return { well: true, kind: CallbackErrorKind::Failed });
            self.walk(Step::Exit { oldest: false, exit: Exit::Signal(15) });
        }
    }
}

/// Returns a command that differs with the dependencies.
fn command(view: &PostedView) -> Command {
    let arguments = view.view.dependencies.keys().cloned().collect();
    Command { program: "redis-server".to_owned(), arguments, environment: [].into(), reload: Some(1) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_walk_answers_every_request_once_and_can_leave(
        settings in settings(),
        steps in vec(step(), 0..80),
    ) {
        let mut walk = RandomWalk::new(settings);
        for step in steps {
            // Nothing happens after a forced shutdown completed.
            if walk.finished {
                break;
            }
            walk.walk(step);
        }
        if !walk.finished {
            walk.finish();
        }
        prop_assert!(walk.finished, "not shut down: {:?}", walk.machine);
        prop_assert!(walk.open.is_empty(), "never answered: {:?}", walk.open);
        prop_assert_eq!(walk.machine.report().process, ProcessState::Dead);
        prop_assert_eq!(walk.died, 1);
        prop_assert!(walk.initialized <= 1 && walk.finalized <= 1);
    }
}
