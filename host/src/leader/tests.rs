//! The machine's decisions, as tables of what happens and what must come of it.

#![allow(clippy::unchecked_time_subtraction, reason = "a test that underflows should panic")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Answer, Effect, Event, Machine, Post, Task, Write, Written};
use crate::{
    cluster::{Digest, PodId, Pods, Registration, Stored, View},
    coord::{Observed, World},
    plugin::ModelSettings,
    status::Role,
};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

fn settings() -> ModelSettings {
    ModelSettings {
        damper: Duration::ZERO,
        depends_on: vec![],
        full_shutdown: false,
        grace: 60 * SECOND,
        probe_every: 60 * SECOND,
        sequential: false,
    }
}

fn pods(names: &[&str]) -> Pods {
    let pod = |(seq, name): (usize, &&str)| {
        let fields = json!({"seq": seq, "ip": "127.0.0.1", "port": "8080", "status": ""});
        let registration = Registration::parse(fields.to_string().as_bytes()).unwrap();
        (PodId::from(*name), Arc::new(registration))
    };
    names.iter().enumerate().map(pod).collect()
}

fn world(names: &[&str]) -> World {
    World { pods: pods(names), dependencies: BTreeMap::new() }
}

fn with_dependency(names: &[&str], snapshot: &[&str], unsettled: bool) -> World {
    let unsettled = unsettled.then(|| "ns.db".to_owned()).into_iter().collect();
    let observed = Observed { snapshot: pods(snapshot), unsettled };
    World { pods: pods(names), dependencies: BTreeMap::from([("db".to_owned(), observed)]) }
}

fn view_of(names: &[&str]) -> View {
    View { pods: pods(names), dependencies: BTreeMap::new() }
}

fn dead(world: &World, name: &str) -> World {
    let mut world = world.clone();
    let pod = world.pods.get_mut(&PodId::from(name)).unwrap();
    *pod = Arc::new(pod.with_status("dead"));
    world
}

/// A machine with a clock of its own and a memory of what it asked for.
struct Lead {
    machine: Machine,
    now: Instant,
    effects: Vec<Effect>,
}

impl Lead {
    fn new(settings: ModelSettings) -> Self {
        Self { machine: Machine::new(settings, 10 * SECOND, None), now: Instant::now(), effects: Vec::new() }
    }

    /// A leader that found nothing configured and sees this world.
    fn seeing(settings: ModelSettings, world: World) -> Self {
        let mut lead = Self::new(settings);
        lead.step(Event::Stored(Stored::parse(b""), View::default()));
        lead.step(Event::World(Arc::new(world)));
        lead
    }

    /// A leader whose cluster is configured.
    fn configured(settings: ModelSettings, world: World) -> Self {
        let mut lead = Self::seeing(settings, world);
        lead.configure();
        lead.effects.clear();
        lead
    }

    fn step(&mut self, event: Event) {
        let effects = self.machine.step(event, self.now);
        self.effects.extend(effects);
    }

    fn see(&mut self, world: World) {
        self.step(Event::World(Arc::new(world)));
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(wake) = self.machine.wake().filter(|wake| *wake <= end) {
            self.now = self.now.max(wake);
            self.step(Event::Tick);
        }
        self.now = end;
    }

    /// Goes through a whole configuration, all pods and the store being willing.
    fn configure(&mut self) {
        self.wait(self.damper());
        self.answer_all(Task::Check, 200);
        self.step(Event::Written(Written::Done));
        if !self.waiting(Task::Off).is_empty() {
            self.answer_all(Task::Off, 200);
        }
        self.answer_all(Task::On, 200);
        self.step(Event::Written(Written::Done));
        assert_eq!(self.role(), Role::Leader);
    }

    fn damper(&self) -> Duration {
        self.machine.settings.damper.max(10 * MILLI)
    }

    fn posts(&self, task: Task) -> Vec<Post> {
        let of = |effect: &Effect| match effect {
            Effect::Post(post) if post.task == task => Some(post.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(of).collect()
    }

    fn names(&self, task: Task) -> Vec<String> {
        self.posts(task).iter().map(|post| post.pod.to_string()).collect()
    }

    /// Requests of the last phase with this task that were not answered or cancelled.
    fn waiting(&self, task: Task) -> Vec<Post> {
        let cancelled = |post: &Post| self.effects.contains(&Effect::Cancel(post.call));
        self.posts(task).into_iter().filter(|post| !cancelled(post)).collect()
    }

    fn answer(&mut self, task: Task, pod: &str, code: u16) {
        let post = self.waiting(task).into_iter().rfind(|post| post.pod.as_str() == pod).expect("it was asked");
        self.step(Event::Answered(post.call, Answer::Code(code, "text".to_owned())));
    }

    /// Answers every request with this task, those that come of it too.
    fn answer_all(&mut self, task: Task, code: u16) {
        let mut answered = 0;
        while let Some(post) = self.posts(task).get(answered).cloned() {
            answered += 1;
            self.step(Event::Answered(post.call, Answer::Code(code, String::new())));
        }
    }

    fn writes(&self) -> Vec<Write> {
        let of = |effect: &Effect| match effect {
            Effect::Write(write) => Some(write.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(of).collect()
    }

    fn role(&self) -> Role {
        self.machine.report().role
    }

    fn status(&self) -> String {
        self.machine.report().status(self.now)
    }
}

#[test]
fn a_configuration_checks_marks_pending_starts_confirms_and_commits() {
    let mut lead = Lead::seeing(settings(), world(&["a", "b"]));
    assert_eq!(lead.role(), Role::Pending);
    lead.wait(10 * MILLI);
    assert_eq!(lead.role(), Role::Configuring);
    assert_eq!(lead.names(Task::Check), ["a", "b"]);
    assert_eq!(lead.writes(), []);
    lead.answer_all(Task::Check, 200);
    let digest = Digest::of(&view_of(&["a", "b"]));
    assert_eq!(lead.writes(), [Write::Pending(digest.clone())]);
    assert_eq!(lead.names(Task::On), [""; 0]);
    lead.step(Event::Written(Written::Done));
    assert_eq!(lead.names(Task::On), ["a", "b"]);
    assert!(lead.posts(Task::On).iter().all(|post| post.generation == digest));
    assert_eq!(lead.names(Task::Off), [""; 0]);
    lead.answer_all(Task::On, 200);
    assert_eq!(lead.names(Task::Ok), ["a", "b"]);
    assert_eq!(lead.writes()[1], Write::Commit(digest, Arc::new(view_of(&["a", "b"]))));
    lead.step(Event::Written(Written::Done));
    assert_eq!((lead.role(), lead.status().as_str()), (Role::Leader, ""));
    lead.wait(3600 * SECOND);
    assert_eq!(lead.names(Task::Check).len(), 2, "an idle cluster is left alone");
}

#[test]
fn a_new_leader_of_a_configured_cluster_changes_nothing_but_the_snapshot() {
    let mut lead = Lead::new(settings());
    lead.see(world(&["a", "b"]));
    assert_eq!(lead.role(), Role::Pending, "it has not looked yet");
    lead.step(Event::Stored(Stored::Done(Digest::of(&view_of(&["a", "b"]))), view_of(&["a", "b"])));
    assert_eq!(lead.role(), Role::Leader);
    assert_eq!(lead.writes(), [Write::Snapshot(Arc::new(view_of(&["a", "b"])))]);
    assert_eq!(lead.names(Task::Check), [""; 0]);
}

#[test]
fn a_configuration_left_pending_is_done_again_even_when_nothing_changed() {
    let mut lead = Lead::new(settings());
    lead.see(world(&["a"]));
    lead.step(Event::Stored(Stored::Pending(Digest::of(&view_of(&["a"]))), View::default()));
    lead.configure();
    assert_eq!(lead.names(Task::On), ["a"]);
}

#[test]
fn the_damper_runs_from_the_first_change_and_is_not_extended() {
    let mut lead = Lead::configured(ModelSettings { damper: 5 * SECOND, ..settings() }, world(&["a"]));
    lead.see(world(&["a", "b"]));
    lead.wait(3 * SECOND);
    lead.see(world(&["a", "b", "c"]));
    lead.wait(2 * SECOND - MILLI);
    assert_eq!(lead.names(Task::Check), [""; 0]);
    lead.wait(MILLI);
    assert_eq!(lead.names(Task::Check), ["a", "b", "c"]);
}

#[test]
fn a_blip_that_ends_within_the_damper_costs_nothing() {
    let mut lead = Lead::configured(ModelSettings { damper: 5 * SECOND, ..settings() }, world(&["a", "b"]));
    lead.see(world(&["a"]));
    assert_eq!(lead.role(), Role::Pending);
    lead.see(world(&["a", "b"]));
    lead.wait(3600 * SECOND);
    assert_eq!((lead.role(), lead.names(Task::Check).len()), (Role::Leader, 0));
}

#[test]
fn a_change_during_a_configuration_starts_the_damper_after_it() {
    let mut lead = Lead::seeing(ModelSettings { damper: 5 * SECOND, ..settings() }, world(&["a"]));
    lead.wait(5 * SECOND);
    lead.answer(Task::Check, "a", 200);
    lead.see(world(&["a", "b"]));
    lead.step(Event::Written(Written::Done));
    assert_eq!(lead.names(Task::On), ["a"], "the configuration under way keeps its view");
    lead.answer(Task::On, "a", 200);
    lead.step(Event::Written(Written::Done));
    assert_eq!(lead.role(), Role::Pending);
    lead.wait(5 * SECOND - MILLI);
    assert_eq!(lead.names(Task::Check), ["a"]);
    lead.wait(MILLI);
    assert_eq!(lead.names(Task::Check), ["a", "a", "b"]);
}

#[test]
fn full_shutdown_stops_all_before_it_starts_any() {
    let mut lead = Lead::seeing(ModelSettings { full_shutdown: true, ..settings() }, world(&["a", "b"]));
    lead.wait(10 * MILLI);
    lead.answer_all(Task::Check, 200);
    lead.step(Event::Written(Written::Done));
    lead.answer(Task::Off, "b", 200);
    assert_eq!(lead.names(Task::On), [""; 0]);
    lead.answer(Task::Off, "a", 200);
    assert_eq!(lead.names(Task::On), ["a", "b"]);
}

#[test]
fn sequential_goes_one_by_one_in_the_order_of_seq_and_stops_at_the_first_that_fails() {
    let settings = ModelSettings { sequential: true, full_shutdown: true, ..settings() };
    // The order of seq is not that of the names.
    let mut lead = Lead::seeing(settings, world(&["c", "a", "b"]));
    lead.wait(10 * MILLI);
    assert_eq!(lead.names(Task::Check).len(), 3, "the check is in parallel");
    lead.answer_all(Task::Check, 200);
    lead.step(Event::Written(Written::Done));
    for pod in ["c", "a", "b"] {
        assert_eq!(lead.names(Task::Off).last().unwrap(), pod);
        lead.answer(Task::Off, pod, 200);
    }
    lead.answer(Task::On, "c", 200);
    lead.answer(Task::On, "a", 500);
    assert_eq!(lead.names(Task::On), ["c", "a"]);
    assert!(lead.status().starts_with("* pod a answered on with 500: text, next try in "), "{}", lead.status());
}

#[test]
fn a_dead_pod_is_dropped_at_the_check_and_seen_by_nobody_after() {
    let mut lead = Lead::seeing(settings(), dead(&world(&["a", "b"]), "b"));
    lead.wait(10 * MILLI);
    assert_eq!(lead.names(Task::Check), ["a", "b"], "the pre-check sees dead pods too");
    lead.answer(Task::Check, "b", 410);
    lead.answer(Task::Check, "a", 200);
    lead.step(Event::Written(Written::Done));
    let on = lead.posts(Task::On);
    assert_eq!(on.len(), 1);
    assert_eq!(on[0].view.pods.keys().map(PodId::as_str).collect::<Vec<_>>(), ["a"]);
    lead.answer_all(Task::On, 200);
    lead.step(Event::Written(Written::Done));
    assert_eq!(lead.role(), Role::Leader, "the digest covers the dead pod, which is registered");
}

#[test]
fn a_death_alone_rewrites_the_snapshot_and_configures_nobody() {
    let mut lead = Lead::configured(settings(), world(&["a", "b"]));
    lead.see(dead(&world(&["a", "b"]), "b"));
    let Some(Write::Snapshot(view)) = lead.writes().pop() else { panic!("no snapshot was written") };
    assert_eq!(view.pods.keys().map(PodId::as_str).collect::<Vec<_>>(), ["a"]);
    lead.wait(60 * SECOND);
    assert_eq!((lead.role(), lead.names(Task::Check).len(), lead.writes().len()), (Role::Leader, 0, 1));
}

#[test]
fn a_refused_check_holds_says_who_and_why_and_tries_again_later_and_later() {
    for (code, answer) in [(406, "406: text"), (408, "408: text"), (500, "500: text"), (503, "503: text")] {
        let mut lead = Lead::seeing(settings(), world(&["a", "b"]));
        lead.wait(10 * MILLI);
        lead.answer(Task::Check, "b", code);
        assert!(
            lead.status().starts_with(&format!("* pod b answered check with {answer}, next try in ")),
            "{}",
            lead.status()
        );
        assert_eq!(lead.role(), Role::Pending);
        lead.wait(SECOND);
        assert_eq!(lead.names(Task::Check).len(), 4);
        lead.answer(Task::Check, "a", code);
        lead.wait(SECOND);
        assert_eq!(lead.names(Task::Check).len(), 4, "the second retry waits longer");
        lead.wait(SECOND);
        assert_eq!(lead.names(Task::Check).len(), 6);
        assert_eq!(lead.writes(), []);
    }
}

#[test]
fn a_change_of_the_view_resets_the_retries() {
    let mut lead = Lead::seeing(settings(), world(&["a"]));
    lead.wait(10 * MILLI);
    for _ in 0..5 {
        lead.answer(Task::Check, "a", 406);
        lead.wait(60 * SECOND);
    }
    lead.answer(Task::Check, "a", 406);
    lead.see(world(&["a", "b"]));
    let checks = lead.names(Task::Check).len();
    lead.wait(10 * MILLI);
    assert_eq!(lead.names(Task::Check).len(), checks + 2);
}

#[test]
fn a_change_of_the_view_while_configuring_resets_the_retries_too() {
    let mut lead = Lead::seeing(settings(), world(&["a", "b"]));
    lead.wait(10 * MILLI);
    for _ in 0..5 {
        lead.answer(Task::Check, "a", 500);
        lead.wait(31 * SECOND);
    }
    lead.see(world(&["a"]));
    lead.answer(Task::Check, "a", 500);
    let wake = lead.machine.wake().unwrap();
    assert!(wake - lead.now <= SECOND, "{:?}", wake - lead.now);
}

#[test]
fn an_unreachable_pod_holds_until_it_leaves() {
    let mut lead = Lead::seeing(settings(), world(&["a", "b"]));
    lead.wait(10 * MILLI);
    let call = lead.waiting(Task::Check)[1].call;
    lead.step(Event::Answered(call, Answer::Unreachable("connection refused".to_owned())));
    assert!(lead.status().contains("pod b cannot be reached for check: connection refused"), "{}", lead.status());
    lead.see(world(&["a"]));
    lead.configure();
}

#[test]
fn a_pod_that_cannot_be_addressed_holds_the_configuration_by_name() {
    let mut hostile = world(&["a"]);
    let pod = Registration::parse(br#"{"seq":5,"ip":"a b\r\n"}"#).unwrap();
    hostile.pods.insert(PodId::from("x"), Arc::new(pod));
    let mut lead = Lead::seeing(settings(), hostile);
    lead.wait(10 * MILLI);
    assert_eq!(lead.names(Task::Check), [""; 0]);
    assert!(lead.status().contains("pod x cannot be addressed"), "{}", lead.status());
}

#[test]
fn a_pod_that_dies_in_configure_is_left_out_and_the_others_go_on_at_once() {
    let mut lead = Lead::seeing(settings(), world(&["a", "b"]));
    lead.wait(10 * MILLI);
    lead.answer_all(Task::Check, 200);
    lead.step(Event::Written(Written::Done));
    lead.answer(Task::On, "b", 406);
    assert_eq!(lead.names(Task::Check), ["a", "b", "a"]);
    lead.answer(Task::Check, "a", 200);
    lead.step(Event::Written(Written::Done));
    lead.answer(Task::On, "a", 200);
    lead.step(Event::Written(Written::Done));
    assert_eq!(lead.role(), Role::Leader);
    lead.see(dead(&world(&["a", "b"]), "b"));
    lead.wait(60 * SECOND);
    assert_eq!(lead.names(Task::Check).len(), 3);
}

#[test]
fn a_late_410_starts_again_at_the_check() {
    let mut lead = Lead::seeing(settings(), world(&["a", "b"]));
    lead.wait(10 * MILLI);
    lead.answer_all(Task::Check, 200);
    lead.step(Event::Written(Written::Done));
    lead.answer(Task::On, "a", 410);
    assert_eq!(lead.names(Task::Check), ["a", "b", "b"]);
}

#[test]
fn a_pod_that_leaves_ends_its_wait_at_once() {
    let mut lead = Lead::seeing(settings(), world(&["a", "b"]));
    lead.wait(10 * MILLI);
    lead.answer_all(Task::Check, 200);
    lead.step(Event::Written(Written::Done));
    lead.answer(Task::On, "a", 200);
    lead.see(world(&["a"]));
    assert_eq!(lead.role(), Role::Pending, "the next configuration is without it");
    assert_eq!(lead.writes().len(), 1, "this one does not count as done");
}

#[test]
fn guarantee_4_a_pod_that_leaves_at_the_check_is_in_no_view_after_it() {
    let mut lead = Lead::seeing(settings(), world(&["a", "b"]));
    lead.wait(10 * MILLI);
    lead.answer(Task::Check, "a", 200);
    lead.see(world(&["a"]));
    lead.step(Event::Written(Written::Done));
    let on = lead.posts(Task::On);
    assert_eq!(on.len(), 1);
    assert_eq!(*on[0].view, view_of(&["a"]));
}

#[test]
fn a_pod_that_leaves_in_a_configuration_and_comes_back_as_it_was_is_configured() {
    let settings = ModelSettings { full_shutdown: true, damper: 5 * SECOND, ..settings() };
    let mut lead = Lead::seeing(settings, world(&["a", "b"]));
    lead.wait(5 * SECOND);
    lead.answer_all(Task::Check, 200);
    lead.step(Event::Written(Written::Done));
    lead.answer_all(Task::Off, 200);
    lead.see(world(&["a"]));
    lead.answer(Task::On, "a", 200);
    lead.see(world(&["a", "b"]));
    lead.effects.clear();
    lead.configure();
    assert_eq!(lead.names(Task::On), ["a", "b"]);
}

#[test]
fn a_pod_whose_address_is_anothers_holds_and_does_not_end_the_leadership() {
    let mut lead = Lead::seeing(settings(), world(&["a", "b"]));
    lead.wait(10 * MILLI);
    let call = lead.waiting(Task::Check)[1].call;
    lead.step(Event::Answered(call, Answer::Stranger("meant for b".to_owned())));
    assert!(lead.status().starts_with("* pod b is not at its address: meant for b, next try in "), "{}", lead.status());
    lead.see(world(&["a"]));
    lead.configure();
}

#[test]
fn a_snapshot_that_cannot_be_written_is_tried_again_after_a_while() {
    let mut lead = Lead::configured(settings(), world(&["a", "b"]));
    lead.see(dead(&world(&["a", "b"]), "b"));
    lead.step(Event::Written(Written::Unknown("refused".to_owned())));
    assert_eq!(lead.writes().len(), 1, "not at once");
    lead.wait(SECOND);
    assert_eq!(lead.writes().len(), 2);
}

#[test]
fn in_a_sequence_the_next_pod_follows_one_that_left() {
    let mut lead = Lead::seeing(ModelSettings { sequential: true, ..settings() }, world(&["a", "b", "c"]));
    lead.wait(10 * MILLI);
    lead.answer_all(Task::Check, 200);
    lead.step(Event::Written(Written::Done));
    lead.see(world(&["c"]));
    assert_eq!(lead.names(Task::On), ["a", "c"]);
}

#[test]
fn another_leader_and_a_lost_lock_end_the_leadership() {
    let mut lead = Lead::seeing(settings(), world(&["a", "b"]));
    lead.wait(10 * MILLI);
    lead.answer(Task::Check, "a", 409);
    assert!(matches!(lead.effects.last(), Some(Effect::Resign(_))));

    let mut lead = Lead::seeing(settings(), world(&["a"]));
    lead.wait(10 * MILLI);
    lead.answer_all(Task::Check, 200);
    lead.step(Event::Written(Written::Fenced));
    assert!(matches!(lead.effects.last(), Some(Effect::Resign(_))));
    assert_eq!(lead.names(Task::On), [""; 0]);
    assert_eq!(lead.role(), Role::Follower);
}

#[test]
fn a_store_that_does_not_take_the_configuration_is_asked_again() {
    let mut lead = Lead::seeing(settings(), world(&["a"]));
    lead.wait(10 * MILLI);
    lead.answer_all(Task::Check, 200);
    lead.step(Event::Written(Written::Unknown("no answer".to_owned())));
    assert!(lead.status().contains("no answer"), "{}", lead.status());
    assert_eq!(lead.names(Task::On), [""; 0]);
    lead.wait(SECOND);
    assert_eq!(lead.names(Task::Check).len(), 2);
}

#[test]
fn after_a_lost_session_nothing_is_compared_until_everybody_is_back() {
    let settle = |lead: &mut Lead, names: &[&str], stored_first: bool| {
        let stored = Event::Stored(Stored::Done(Digest::of(&view_of(&["a", "b"]))), view_of(&["a", "b"]));
        if stored_first {
            lead.step(stored);
            lead.see(world(names));
        } else {
            lead.see(world(names));
            lead.step(stored);
        }
    };
    for stored_first in [true, false] {
        let mut lead = Lead::new(settings());
        lead.machine = Machine::new(settings(), 10 * SECOND, Some(lead.now + 10 * SECOND));
        settle(&mut lead, &["a"], stored_first);
        lead.wait(9 * SECOND);
        assert_eq!((lead.role(), lead.names(Task::Check).len()), (Role::Pending, 0));
        assert_eq!(lead.status(), "* waiting for the pods that were configured last");
        lead.see(world(&["a", "b"]));
        assert_eq!((lead.role(), lead.names(Task::Check).len()), (Role::Leader, 0));
    }

    let mut lead = Lead::new(settings());
    lead.machine = Machine::new(settings(), 10 * SECOND, Some(lead.now + 10 * SECOND));
    settle(&mut lead, &["a"], true);
    lead.wait(10 * SECOND + 10 * MILLI);
    assert_eq!(lead.names(Task::Check), ["a"], "nobody is waited for longer than twice the session");
}

#[test]
fn who_comes_back_to_an_emptied_store_gives_the_others_time_to_come_back_too() {
    let mut lead = Lead::new(settings());
    lead.machine = Machine::new(settings(), 10 * SECOND, Some(lead.now + 10 * SECOND));
    lead.step(Event::Stored(Stored::parse(b""), View::default()));
    lead.see(world(&["a"]));
    lead.wait(9 * SECOND);
    assert_eq!((lead.role(), lead.names(Task::Check).len()), (Role::Pending, 0));
    assert_eq!(lead.status(), "* waiting for the pods that were configured last");
    lead.see(world(&["a", "b"]));
    assert_eq!((lead.role(), lead.names(Task::Check).len()), (Role::Pending, 0), "who else there was is not known");
    lead.wait(SECOND + 10 * MILLI);
    assert_eq!(lead.names(Task::Check), ["a", "b"]);

    let mut lead = Lead::new(settings());
    lead.machine = Machine::new(settings(), 10 * SECOND, Some(lead.now + 10 * SECOND));
    lead.step(Event::Stored(Stored::Pending(Digest::of(&view_of(&["a"]))), View::default()));
    lead.see(world(&["a"]));
    lead.wait(10 * MILLI);
    assert_eq!(lead.names(Task::Check), ["a"], "a first configuration that was interrupted goes on at once");
}

#[test]
fn who_comes_back_to_an_emptied_store_waits_for_what_it_depends_on() {
    let back = |unsettled: bool| {
        let mut lead = Lead::new(settings());
        lead.machine = Machine::new(settings(), 10 * SECOND, Some(lead.now + 10 * SECOND));
        lead.step(Event::Stored(Stored::parse(b""), View::default()));
        lead.see(with_dependency(&["a"], &[], unsettled));
        lead.wait(10 * SECOND + 10 * MILLI);
        lead
    };
    let mut lead = back(true);
    assert_eq!(lead.names(Task::Check).len(), 0, "its members are there, and configured in a moment");
    lead.see(with_dependency(&["a"], &["x"], false));
    lead.configure();
    assert_eq!(lead.posts(Task::On)[0].view.dependencies["db"].len(), 1);

    let mut lead = back(true);
    lead.wait(10 * SECOND);
    assert_eq!(lead.names(Task::Check), ["a"], "not for longer than its own members had to come back");
    assert_eq!(back(false).names(Task::Check), ["a"], "nobody of it is there");
}

#[test]
fn a_dependency_whose_leader_changes_is_taken_as_it_was() {
    let mut lead = Lead::configured(settings(), with_dependency(&["a"], &["x"], false));
    lead.see(with_dependency(&["a"], &[], true));
    lead.wait(3600 * SECOND);
    assert_eq!((lead.role(), lead.names(Task::Check).len()), (Role::Leader, 0));
    lead.see(with_dependency(&["a"], &["x", "y"], false));
    lead.configure();
    assert_eq!(lead.posts(Task::On)[0].view.dependencies["db"].len(), 2);
}

#[test]
fn a_dependency_that_is_gone_for_good_is_empty_after_twice_the_session() {
    let mut lead = Lead::configured(settings(), with_dependency(&["a"], &["x"], false));
    lead.see(with_dependency(&["a"], &[], false));
    lead.wait(10 * SECOND - MILLI);
    assert_eq!(lead.role(), Role::Leader);
    lead.wait(MILLI);
    lead.configure();
    assert_eq!(lead.posts(Task::On)[0].view.dependencies["db"].len(), 0);
}

#[test]
fn a_glob_keeps_the_pods_of_one_cluster_whose_leader_changes_beside_those_of_another() {
    let pod = |cluster: &str, seq: u64| {
        let fields = json!({"seq": seq, "ip": "h", "port": "1", "namespace": "ns", "cluster": cluster});
        let registration = Registration::parse(fields.to_string().as_bytes()).unwrap();
        (PodId::from(cluster), Arc::new(registration))
    };
    let seen = |snapshot: &[(PodId, Arc<Registration>)], unsettled: &[&str]| {
        let unsettled = unsettled.iter().map(ToString::to_string).collect();
        let observed = Observed { snapshot: snapshot.iter().cloned().collect(), unsettled };
        World { pods: pods(&["a"]), dependencies: BTreeMap::from([("db-*".to_owned(), observed)]) }
    };
    let both = [pod("db-1", 1), pod("db-2", 2)];
    let mut lead = Lead::configured(settings(), seen(&both, &[]));
    lead.see(seen(&both[1..], &["ns.db-1"]));
    lead.wait(3600 * SECOND);
    assert_eq!((lead.role(), lead.names(Task::Check).len()), (Role::Leader, 0));
    lead.see(seen(&both[1..], &[]));
    lead.wait(10 * SECOND);
    lead.configure();
    let left: Vec<_> = lead.posts(Task::On)[0].view.dependencies["db-*"].keys().cloned().collect();
    assert_eq!(left, [PodId::from("db-2")], "it is gone for good");
}

#[test]
fn the_probe_runs_while_clean_and_its_text_is_the_status() {
    let mut lead = Lead::configured(settings(), world(&["a"]));
    let probes = |lead: &Lead| lead.effects.iter().filter(|effect| matches!(effect, Effect::Probe(_))).count();
    lead.wait(SECOND);
    assert_eq!(probes(&lead), 1);
    lead.step(Event::Probed(Ok(Some("1 primary".to_owned()))));
    assert_eq!(lead.status(), "1 primary");
    lead.wait(60 * SECOND);
    lead.step(Event::Probed(Err("out of sync".to_owned())));
    assert_eq!((probes(&lead), lead.status().as_str()), (2, "* out of sync"));
    lead.wait(60 * SECOND);
    lead.see(world(&["a", "b"]));
    assert!(lead.effects.contains(&Effect::CancelProbe));
}

#[test]
fn a_pod_that_would_exceed_what_the_store_holds_is_left_out_by_name() {
    let mut huge = world(&["a"]);
    let fields = json!({"seq": 9, "ip": "127.0.0.1", "port": "8080", "x": "y".repeat(600_000)});
    huge.pods.insert(PodId::from("h"), Arc::new(Registration::parse(fields.to_string().as_bytes()).unwrap()));
    let mut lead = Lead::seeing(settings(), huge);
    lead.configure();
    assert_eq!(lead.names(Task::On), ["a"]);
    assert!(lead.status().ends_with(": h"), "{}", lead.status());
}
