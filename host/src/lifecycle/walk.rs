//! Random walks of the machine: whatever happens in whatever order, certain things hold.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use proptest::{collection::vec, prelude::*};
use serde_json::Map;

use super::{
    Blame, CallFailure, Callback, Command as Task, Effect, Event, Failure, Machine, Request, Returned, Ticket,
};
use crate::{
    cluster::{Digest, PostedView},
    init::Exit,
    plugin::{Command, LifecycleSettings},
    status::ProcessState,
};

/// What the world does next.
#[derive(Debug, Clone)]
enum Step {
    Submit(Task, Option<&'static str>, Duration),
    /// The callback under way ends, well or not, in time or not.
    Return {
        well: bool,
        overrun: bool,
    },
    /// The spawn under way ends.
    Spawned {
        well: bool,
    },
    /// A process that runs ends.
    Exit {
        oldest: bool,
        exit: Exit,
    },
    Wait(Duration),
    Leave,
    Force,
}

fn view(dependency: &str) -> PostedView {
    let body = format!(r#"{{"key":"a","pods":{{"a":{{"seq":1}}}},"dependencies":{{"{dependency}":{{}}}}}}"#);
    PostedView::parse(body.as_bytes()).unwrap()
}

fn task() -> impl Strategy<Value = Task> {
    prop_oneof![
        4 => prop_oneof![Just("x"), Just("y")].prop_map(|dependency| Task::On(Some(view(dependency)))),
        1 => Just(Task::On(None)),
        2 => Just(Task::Off),
        1 => Just(Task::Check(view("x"))),
        1 => Just(Task::Ok(view("x"))),
        2 => Just(Task::Signal(None)),
        1 => Just(Task::Kill),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let limit = prop_oneof![Just(1_u64), Just(60)].prop_map(Duration::from_secs);
    let generation = prop_oneof![Just(None), Just(Some("g1")), Just(Some("g2"))];
    let exit = prop_oneof![3 => Just(Exit::Code(1)), 1 => Just(Exit::Code(0)), 2 => Just(Exit::Signal(9))];
    prop_oneof![
        5 => (task(), generation, limit).prop_map(|(task, generation, limit)| Step::Submit(task, generation, limit)),
        8 => (prop::bool::weighted(0.85), any::<bool>()).prop_map(|(well, overrun)| Step::Return { well, overrun }),
        6 => prop::bool::weighted(0.85).prop_map(|well| Step::Spawned { well }),
        3 => (any::<bool>(), exit).prop_map(|(oldest, exit)| Step::Exit { oldest, exit }),
        4 => (1_u64..90_000).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
        1 => Just(Step::Leave),
        1 => Just(Step::Force),
    ]
}

fn settings() -> impl Strategy<Value = LifecycleSettings> {
    (1_u64..20, 1_u32..4, any::<bool>(), any::<bool>()).prop_map(|(seconds, checks, soft, strict)| LifecycleSettings {
        check_every: Duration::from_secs(seconds),
        checks,
        cwd: None,
        grace: Duration::from_secs(seconds),
        pipe_subprocess: false,
        shell: false,
        soft,
        strict,
    })
}

/// The machine with everything around it that its effects ask for.
struct Walk {
    machine: Machine,
    now: Instant,
    call: Option<(u64, Callback)>,
    spawning: bool,
    /// Processes that live, oldest first, and those among them that are not ours any more.
    alive: Vec<u32>,
    released: BTreeSet<u32>,
    pids: u32,
    tickets: Ticket,
    open: BTreeSet<Ticket>,
    initialized: u32,
    finalized: u32,
    died: u32,
    left: bool,
}

impl Walk {
    fn new(settings: LifecycleSettings) -> Self {
        Self {
            machine: Machine::new(settings, true),
            now: Instant::now(),
            call: None,
            spawning: false,
            alive: Vec::new(),
            released: BTreeSet::new(),
            pids: 0,
            tickets: 0,
            open: BTreeSet::new(),
            initialized: 0,
            finalized: 0,
            died: 0,
            left: false,
        }
    }

    fn feed(&mut self, event: Event) {
        for effect in self.machine.step(event, self.now, None) {
            assert!(!self.left, "{effect:?} after all was done");
            self.take(effect);
        }
        let ours = self.alive.iter().filter(|pid| !self.released.contains(pid)).count();
        assert!(ours + usize::from(self.spawning) <= 1, "two sub-processes at once");
        if !self.left {
            assert!(self.machine.wake().is_none_or(|wake| wake > self.now), "it wants to be woken in the past");
        }
    }

    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Call(number, callback, _) => {
                assert_eq!(self.call, None, "two callbacks at once");
                self.initialized += u32::from(callback == Callback::Initialize);
                self.finalized += u32::from(callback == Callback::Finalize);
                self.call = Some((number, callback));
            }
            Effect::CancelCall => assert!(self.call.take().is_some(), "no callback to cancel"),
            Effect::Spawn(_) => {
                assert_eq!(self.died, 0, "a dead pod starts nothing");
                self.spawning = true;
            }
            Effect::AbandonSpawn => self.spawning = false,
            Effect::Terminate(pid) | Effect::Kill(pid) => assert!(!self.released.contains(&pid), "it is not ours"),
            Effect::Release(pid) => assert!(self.released.insert(pid), "released twice"),
            Effect::Reply(ticket, _) => assert!(self.open.remove(&ticket), "request {ticket} is answered twice"),
            Effect::Died => self.died += 1,
            Effect::Left => self.left = true,
            Effect::EndedUnexpectedly => {}
        }
    }

    fn walk(&mut self, step: Step) {
        match step {
            Step::Submit(command, generation, limit) => {
                self.tickets += 1;
                self.open.insert(self.tickets);
                let request =
                    Request { command, epoch: None, order: None, generation: generation.map(Digest::from), limit };
                self.feed(Event::Submitted(self.tickets, request));
            }
            Step::Return { well, overrun } => {
                let Some((number, callback)) = self.call.take() else { return };
                let failure = Failure { callback: None, blame: Blame::Plugin, message: "no".to_owned() };
                let returned = match callback {
                    Callback::Configure(_) => Returned::Command(command()),
                    Callback::SanityCheck(_) => Returned::Metrics(Map::new()),
                    _ => Returned::Nothing,
                };
                self.feed(Event::Returned(
                    number,
                    if well { Ok(returned) } else { Err(CallFailure { failure, overrun }) },
                ));
            }
            Step::Spawned { well } => {
                if !std::mem::take(&mut self.spawning) {
                    return;
                }
                self.pids += 1;
                if well {
                    self.alive.push(self.pids);
                }
                self.feed(Event::Spawned(if well { Ok(self.pids) } else { Err("no".to_owned()) }));
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
                while let Some(wake) = self.machine.wake().filter(|wake| *wake <= end && !self.left) {
                    self.now = wake;
                    self.feed(Event::Tick);
                }
                self.now = end;
            }
            Step::Leave => self.feed(Event::Leave),
            Step::Force => self.feed(Event::Force),
        }
    }

    /// Lets everything that is under way end, until the machine says that the host may leave.
    fn finish(&mut self) {
        self.walk(Step::Leave);
        for _ in 0..20 {
            if self.left {
                return;
            }
            self.walk(Step::Spawned { well: true });
            self.walk(Step::Return { well: true, overrun: false });
            self.walk(Step::Exit { oldest: false, exit: Exit::Signal(15) });
        }
    }
}

fn command() -> Command {
    Command { program: "redis-server".to_owned(), arguments: Vec::new(), environment: [].into() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_request_is_answered_once_and_the_pod_can_leave(
        settings in settings(),
        steps in vec(step(), 0..80),
    ) {
        let mut walk = Walk::new(settings);
        for step in steps {
            // A forced end is final: nothing comes after it but ends.
            if walk.left {
                break;
            }
            walk.walk(step);
        }
        if !walk.left {
            walk.finish();
        }
        prop_assert!(walk.left, "it does not leave: {:?}", walk.machine);
        prop_assert!(walk.open.is_empty(), "never answered: {:?}", walk.open);
        prop_assert_eq!(walk.machine.report().process, ProcessState::Dead);
        prop_assert_eq!(walk.died, 1);
        prop_assert!(walk.initialized <= 1 && walk.finalized <= walk.initialized);
    }
}
