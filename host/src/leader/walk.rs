//! Random walks of the machine among simulated pods and a simulated store: when the faults stop, everybody is configured.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::{collection::vec, prelude::*};
use serde_json::json;

use super::{Answer, Effect, Event, Machine, Post, Task, Write, Written};
use crate::{
    cluster::{Digest, PodId, Pods, Registration, Stored, View},
    coord::World,
    plugin::ModelSettings,
    status::Role,
};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What the world does next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A pod comes, or goes.
    Toggle(usize),
    /// A pod dies for good.
    Die(usize),
    /// Some request under way is answered: well, or not.
    Answer {
        which: usize,
        fault: Option<u16>,
    },
    /// A write under way ends; a fault leaves open whether it was carried out.
    Written {
        fault: bool,
        carried_out: bool,
    },
    Probed,
    Wait(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![6 => Just(None), 4 => prop_oneof![Just(406), Just(408), Just(500), Just(0)].prop_map(Some)];
    prop_oneof![
        3 => (0..NAMES.len()).prop_map(Step::Toggle),
        1 => (0..NAMES.len()).prop_map(Step::Die),
        10 => (any::<usize>(), fault).prop_map(|(which, fault)| Step::Answer { which, fault }),
        6 => (prop::bool::weighted(0.2), any::<bool>()).prop_map(|(fault, carried_out)| Step::Written { fault, carried_out }),
        1 => Just(Step::Probed),
        5 => (1_u64..40_000).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
    ]
}

fn settings() -> impl Strategy<Value = ModelSettings> {
    (0_u64..6, any::<bool>(), any::<bool>()).prop_map(|(damper, full_shutdown, sequential)| ModelSettings {
        damper: Duration::from_secs(damper),
        depends_on: Vec::new(),
        full_shutdown,
        grace: Duration::from_mins(1),
        probe_every: Duration::from_mins(1),
        sequential,
    })
}

/// A pod as the simulation knows it: whether it is registered and lives, and what it was configured with.
#[derive(Debug, Default)]
struct Simulated {
    registered: bool,
    dead: bool,
    running: bool,
    generation: Option<Digest>,
}

struct Walk {
    machine: Machine,
    now: Instant,
    pods: BTreeMap<&'static str, Simulated>,
    posts: Vec<Post>,
    writes: Vec<Write>,
    hash: Stored,
    snapshot: BTreeSet<PodId>,
    probing: bool,
}

impl Walk {
    fn new(settings: ModelSettings) -> Self {
        let pods = NAMES.into_iter().map(|name| (name, Simulated::default())).collect();
        let mut walk = Self {
            machine: Machine::new(settings, Duration::from_secs(10), None),
            now: Instant::now(),
            pods,
            posts: Vec::new(),
            writes: Vec::new(),
            hash: Stored::parse(b""),
            snapshot: BTreeSet::new(),
            probing: false,
        };
        walk.feed(Event::Stored(walk.hash.clone(), View::default()));
        walk
    }

    fn world(&self) -> World {
        let registered = self.pods.iter().zip(1..).filter(|((_, pod), _)| pod.registered);
        let pods: Pods = registered
            .map(|((name, pod), seq)| {
                let status = if pod.dead { "dead" } else { "" };
                let fields = json!({"seq": seq, "ip": "127.0.0.1", "port": "8080", "status": status});
                (PodId::from(*name), Arc::new(Registration::parse(fields.to_string().as_bytes()).unwrap()))
            })
            .collect();
        World { pods, dependencies: BTreeMap::new() }
    }

    fn feed(&mut self, event: Event) {
        for effect in self.machine.step(event, self.now) {
            match effect {
                Effect::Post(post) if post.task != Task::Ok => self.posts.push(post),
                Effect::Cancel(call) => self.posts.retain(|post| post.call != call),
                Effect::Write(write) => self.writes.insert(0, write),
                Effect::Probe(_) => assert!(!std::mem::replace(&mut self.probing, true), "two probes at once"),
                Effect::CancelProbe => self.probing = false,
                Effect::Resign(reason) => panic!("nobody else leads: {reason}"),
                Effect::Post(_) | Effect::Ended(_) => {}
            }
        }
        assert!(self.machine.wake().is_none_or(|wake| wake > self.now), "it wants to be woken in the past");
    }

    /// A pod carries out what it is asked, as the lifecycle does, and answers.
    fn answer(&mut self, which: usize, fault: Option<u16>) {
        if self.posts.is_empty() {
            return;
        }
        let post = self.posts.remove(which % self.posts.len());
        let pod = self.pods.get_mut(post.pod.as_str()).unwrap();
        let code = match (fault, pod.dead) {
            (_, true) => 410,
            (Some(0), _) => {
                self.feed(Event::Answered(post.call, Answer::Unreachable("it fell".to_owned())));
                return;
            }
            (Some(406), _) if post.task == Task::On => {
                pod.dead = true;
                406
            }
            (Some(code), _) => code,
            (None, _) => 200,
        };
        if code == 200 {
            match post.task {
                Task::Off if pod.generation.as_ref() != Some(&post.generation) => pod.running = false,
                Task::On => {
                    pod.running = true;
                    pod.generation = Some(post.generation.clone());
                }
                _ => {}
            }
        }
        self.feed(Event::Answered(post.call, Answer::Code(code, String::new())));
    }

    fn write(&mut self, fault: bool, carried_out: bool) {
        let Some(write) = self.writes.pop() else { return };
        if !fault || carried_out {
            match write {
                Write::Pending(generation) => self.hash = Stored::Pending(generation),
                Write::Commit(digest, view) => {
                    self.hash = Stored::Done(digest);
                    self.snapshot = view.pods.keys().cloned().collect();
                }
                Write::Snapshot(view) => self.snapshot = view.pods.keys().cloned().collect(),
            }
        }
        self.feed(Event::Written(if fault { Written::Unknown("no answer".to_owned()) } else { Written::Done }));
    }

    fn walk(&mut self, step: Step) {
        match step {
            Step::Toggle(which) => {
                let pod = self.pods.get_mut(NAMES[which]).unwrap();
                pod.registered = !pod.registered;
                self.feed(Event::World(Arc::new(self.world())));
            }
            Step::Die(which) => {
                self.pods.get_mut(NAMES[which]).unwrap().dead = true;
                self.feed(Event::World(Arc::new(self.world())));
            }
            Step::Answer { which, fault } => self.answer(which, fault),
            Step::Written { fault, carried_out } => self.write(fault, carried_out),
            Step::Probed => {
                if std::mem::take(&mut self.probing) {
                    self.feed(Event::Probed(Ok(None)));
                }
            }
            Step::Wait(time) => {
                let end = self.now + time;
                while let Some(wake) = self.machine.wake().filter(|wake| *wake <= end) {
                    self.now = wake;
                    self.feed(Event::Tick);
                }
                self.now = end;
            }
        }
    }

    /// The faults stop: everything is answered and written, and time passes.
    fn settle(&mut self) {
        self.feed(Event::World(Arc::new(self.world())));
        for _ in 0..10 {
            while !self.posts.is_empty() || !self.writes.is_empty() {
                self.write(false, true);
                self.answer(0, None);
            }
            self.feed(Event::World(Arc::new(self.world())));
            self.walk(Step::Wait(Duration::from_secs(40)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn when_the_faults_stop_every_live_pod_runs_the_present_view_and_nobody_is_left_off(
        settings in settings(),
        steps in vec(step(), 0..120),
    ) {
        let mut walk = Walk::new(settings);
        for step in steps {
            walk.walk(step);
        }
        walk.settle();
        let world = walk.world();
        prop_assert_eq!(walk.machine.report().role, Role::Leader);
        let view = View { pods: world.pods.clone(), dependencies: BTreeMap::new() };
        prop_assert_eq!(&walk.hash, &Stored::Done(Digest::of(&view)));
        let live: BTreeSet<PodId> = world.pods.iter().filter(|(_, pod)| !pod.is_dead()).map(|(id, _)| id.clone()).collect();
        for id in &live {
            prop_assert!(walk.pods[id.as_str()].running, "{} was left off", id);
        }
        prop_assert_eq!(&walk.snapshot, &live, "what dependants read is not who lives");
    }
}
