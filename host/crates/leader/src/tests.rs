//! Decisions of the machine: sequences of events and the expected effects.

#![allow(clippy::unchecked_time_subtraction, reason = "a test that underflows should panic")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ochopod_model::{
    Digest, PodId, Pods, Registration, StoredHash, View,
    status::{DownPods, PodState, ProcessState, Role},
};
use ochopod_plugin::{Batch, ModelSettings};
use ochopod_store::{Observation, ObservedDependency, States};
use serde_json::json;

use super::{Effect, Event, LeaderMachine, PeerReply, PeerRequest, RolloutTask, StoreWrite, WriteResult};

mod rollouts;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

fn settings() -> ModelSettings {
    ModelSettings {
        batch: Batch::All,
        damper: Duration::ZERO,
        depends_on: vec![],
        full_shutdown: false,
        grace: 60 * SECOND,
        probe_every: 60 * SECOND,
        sequential: false,
        tolerate: 0,
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

fn observation(names: &[&str]) -> Observation {
    Observation { pods: pods(names), ..Observation::default() }
}

fn with_dependency(names: &[&str], snapshot: &[&str], unsettled: bool) -> Observation {
    with_members(names, snapshot, if unsettled { &["x"] } else { &[] })
}

/// Returns an observation with a dependency: the pods of its snapshot, or else its registered live pods.
fn with_members(names: &[&str], snapshot: &[&str], live: &[&str]) -> Observation {
    let unsettled = (!live.is_empty()).then(|| "ns.db".to_owned()).into_iter().collect();
    let live = live.iter().map(|name| PodId::from(*name)).collect();
    let observed = ObservedDependency { snapshot: pods(snapshot), unsettled, live };
    Observation {
        pods: pods(names),
        dependencies: BTreeMap::from([("db".to_owned(), observed)]),
        ..Observation::default()
    }
}

fn view_of(names: &[&str]) -> View {
    View { pods: pods(names), dependencies: BTreeMap::new() }
}

fn dead(observation: &Observation, name: &str) -> Observation {
    let mut observation = observation.clone();
    let pod = observation.pods.get_mut(&PodId::from(name)).unwrap();
    *pod = Arc::new(pod.with_status("dead"));
    observation
}

/// A machine with its own clock, and all of its effects.
struct TestLeader {
    machine: LeaderMachine,
    now: Instant,
    effects: Vec<Effect>,
}

impl TestLeader {
    /// Returns a leader that knows the states of all pods: none of them has published one.
    fn new(settings: ModelSettings) -> Self {
        let mut leader = Self::unaware(settings, None);
        leader.step(Event::States(Arc::default()));
        leader
    }

    /// Returns a leader whose pod has returned to the store after a lost session.
    fn returning(settings: ModelSettings) -> Self {
        let mut leader = Self::unaware(settings, Some(10 * SECOND));
        leader.step(Event::States(Arc::default()));
        leader
    }

    /// Returns a leader that does not know the states of the pods yet. It settles for this time.
    fn unaware(settings: ModelSettings, settle: Option<Duration>) -> Self {
        let now = Instant::now();
        let machine = LeaderMachine::new(settings, 10 * SECOND, settle.map(|time| now + time));
        Self { machine, now, effects: Vec::new() }
    }

    /// Returns a leader that found nothing configured and observes this.
    fn seeing(settings: ModelSettings, observation: Observation) -> Self {
        let mut leader = Self::new(settings);
        leader.step(Event::Stored(StoredHash::parse(b""), View::default()));
        leader.step(Event::Observation(Arc::new(observation)));
        leader
    }

    /// Returns a leader whose cluster is configured.
    fn configured(settings: ModelSettings, observation: Observation) -> Self {
        let mut leader = Self::seeing(settings, observation);
        leader.configure();
        leader.step(Event::Reconciled(Ok(())));
        leader.effects.clear();
        leader
    }

    fn step(&mut self, event: Event) {
        let effects = self.machine.step(event, self.now);
        self.effects.extend(effects);
    }

    fn see(&mut self, observation: Observation) {
        self.step(Event::Observation(Arc::new(observation)));
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(wake) = self.machine.wake().filter(|wake| *wake <= end) {
            self.now = self.now.max(wake);
            self.step(Event::Tick);
        }
        self.now = end;
    }

    /// Completes a configuration: all pods and the store accept it.
    fn configure(&mut self) {
        self.wait(self.damper());
        self.answer_all(RolloutTask::Check, 200);
        self.step(Event::Written(WriteResult::Done));
        if !self.waiting(RolloutTask::Off).is_empty() {
            self.answer_all(RolloutTask::Off, 200);
        }
        self.answer_all(RolloutTask::On, 200);
        self.step(Event::Written(WriteResult::Done));
        assert_eq!(self.role(), Role::Leader);
    }

    fn damper(&self) -> Duration {
        self.machine.settings.damper.max(10 * MILLI)
    }

    fn posts(&self, task: RolloutTask) -> Vec<PeerRequest> {
        let of = |effect: &Effect| match effect {
            Effect::Post(post) if post.task == task => Some(post.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(of).collect()
    }

    fn names(&self, task: RolloutTask) -> Vec<String> {
        self.posts(task).iter().map(|post| post.pod.to_string()).collect()
    }

    /// Returns the requests of the last phase with this task that were not answered or cancelled.
    fn waiting(&self, task: RolloutTask) -> Vec<PeerRequest> {
        let cancelled = |post: &PeerRequest| self.effects.contains(&Effect::Cancel(post.call));
        self.posts(task).into_iter().filter(|post| !cancelled(post)).collect()
    }

    fn answer(&mut self, task: RolloutTask, pod: &str, code: u16) {
        let post = self.waiting(task).into_iter().rfind(|post| post.pod.as_str() == pod).expect("a request to the pod");
        self.step(Event::Answered(post.call, PeerReply::Status(code, "text".to_owned())));
    }

    /// Answers the check of a pod like this, then those of the other pods with 200.
    fn answer_check(&mut self, pod: &str, code: u16) {
        self.answer(RolloutTask::Check, pod, code);
        for post in self.posts(RolloutTask::Check) {
            // A second reply to a request is ignored.
            self.step(Event::Answered(post.call, PeerReply::Status(200, String::new())));
        }
    }

    /// Answers every request with this task, including those caused by an answer.
    fn answer_all(&mut self, task: RolloutTask, code: u16) {
        let mut answered = 0;
        while let Some(post) = self.posts(task).get(answered).cloned() {
            answered += 1;
            self.step(Event::Answered(post.call, PeerReply::Status(code, String::new())));
        }
    }

    fn writes(&self) -> Vec<StoreWrite> {
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
fn configuration_checks_marks_pending_starts_confirms_and_commits() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    assert_eq!(leader.role(), Role::Pending);
    leader.wait(10 * MILLI);
    assert_eq!(leader.role(), Role::Configuring);
    assert_eq!(leader.names(RolloutTask::Check), ["a", "b"]);
    assert_eq!(leader.writes(), []);
    leader.answer_all(RolloutTask::Check, 200);
    let digest = Digest::of(&view_of(&["a", "b"]));
    assert_eq!(leader.writes(), [StoreWrite::Pending(digest.clone())]);
    assert_eq!(leader.names(RolloutTask::On), [""; 0]);
    leader.step(Event::Written(WriteResult::Done));
    assert_eq!(leader.names(RolloutTask::On), ["a", "b"]);
    assert!(leader.posts(RolloutTask::On).iter().all(|post| post.generation == digest));
    assert_eq!(leader.names(RolloutTask::Off), [""; 0]);
    leader.answer_all(RolloutTask::On, 200);
    assert_eq!(leader.names(RolloutTask::Ok), ["a", "b"]);
    assert_eq!(leader.writes()[1], StoreWrite::Commit(digest, Arc::new(view_of(&["a", "b"]))));
    leader.step(Event::Written(WriteResult::Done));
    assert_eq!((leader.role(), leader.status().as_str()), (Role::Leader, ""));
    leader.wait(3600 * SECOND);
    assert_eq!(leader.names(RolloutTask::Check).len(), 2, "an idle cluster is left alone");
}

#[test]
fn new_leader_of_a_configured_cluster_writes_only_the_snapshot() {
    let mut leader = TestLeader::new(settings());
    leader.see(observation(&["a", "b"]));
    assert_eq!(leader.role(), Role::Pending, "the last configuration is unknown");
    leader.step(Event::Stored(StoredHash::Done(Digest::of(&view_of(&["a", "b"]))), view_of(&["a", "b"])));
    assert_eq!(leader.role(), Role::Leader);
    assert_eq!(leader.writes(), [StoreWrite::Snapshot(Arc::new(view_of(&["a", "b"])))]);
    assert_eq!(leader.names(RolloutTask::Check), [""; 0]);
}

#[test]
fn pending_configuration_is_repeated_even_if_nothing_changed() {
    let mut leader = TestLeader::new(settings());
    leader.see(observation(&["a"]));
    leader.step(Event::Stored(StoredHash::Pending(Digest::of(&view_of(&["a"]))), View::default()));
    leader.configure();
    assert_eq!(leader.names(RolloutTask::On), ["a"]);
}

#[test]
fn damper_of_a_new_leader_runs_while_it_reads_the_states() {
    let mut leader = TestLeader::unaware(ModelSettings { damper: SECOND, ..settings() }, None);
    leader.see(observation(&["a"]));
    leader.wait(900 * MILLI);
    leader.step(Event::Stored(StoredHash::parse(b""), View::default()));
    leader.step(Event::States(Arc::default()));
    leader.wait(99 * MILLI);
    assert_eq!(leader.names(RolloutTask::Check), [""; 0]);
    leader.wait(MILLI);
    assert_eq!(leader.names(RolloutTask::Check), ["a"]);

    let mut leader = TestLeader::unaware(ModelSettings { damper: SECOND, ..settings() }, None);
    leader.see(observation(&["a"]));
    leader.step(Event::Stored(StoredHash::parse(b""), View::default()));
    leader.wait(2 * SECOND);
    leader.step(Event::States(Arc::default()));
    assert_eq!(leader.names(RolloutTask::Check), ["a"], "it is over");
}

#[test]
fn damper_runs_from_the_first_change_and_is_not_extended() {
    let mut leader = TestLeader::configured(ModelSettings { damper: 5 * SECOND, ..settings() }, observation(&["a"]));
    leader.see(observation(&["a", "b"]));
    leader.wait(3 * SECOND);
    leader.see(observation(&["a", "b", "c"]));
    leader.wait(2 * SECOND - MILLI);
    assert_eq!(leader.names(RolloutTask::Check), [""; 0]);
    leader.wait(MILLI);
    assert_eq!(leader.names(RolloutTask::Check), ["a", "b", "c"]);
}

#[test]
fn pods_that_come_together_are_gathered_until_no_more_come() {
    let names: Vec<String> = (0..200).map(|number| format!("{number:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut leader = TestLeader::configured(settings(), observation(&names[..1]));
    for count in 2..=200 {
        leader.see(observation(&names[..count]));
        // The first ones come within the shortest damper.
        leader.wait(if count < 4 { 3 * MILLI } else { 100 * MILLI });
    }
    assert_eq!(leader.names(RolloutTask::Check), [""; 0], "no partial configuration was tried");
    leader.wait(150 * MILLI);
    assert_eq!(leader.names(RolloutTask::Check), names);
}

#[test]
fn pods_that_never_stop_coming_delay_a_configuration_for_half_a_minute() {
    let checks_after = |damper: Duration, time: Duration| {
        let mut leader = TestLeader::configured(ModelSettings { damper, ..settings() }, observation(&["a"]));
        for number in 0..time.as_millis() / 50 {
            let names = if number % 2 == 0 { &["a", "b", "c", "d"][..] } else { &["a", "e", "f", "g"] };
            leader.see(observation(names));
            leader.wait(50 * MILLI);
        }
        leader.names(RolloutTask::Check).len()
    };
    assert_eq!(checks_after(Duration::ZERO, 29 * SECOND), 0);
    assert_eq!(checks_after(Duration::ZERO, 30 * SECOND), 4);
    assert_eq!(checks_after(60 * SECOND, 59 * SECOND), 0);
    assert_eq!(checks_after(60 * SECOND, 60 * SECOND), 4);
}

#[test]
fn change_reverted_within_the_damper_configures_nothing() {
    let mut leader =
        TestLeader::configured(ModelSettings { damper: 5 * SECOND, ..settings() }, observation(&["a", "b"]));
    leader.see(observation(&["a"]));
    assert_eq!(leader.role(), Role::Pending);
    leader.see(observation(&["a", "b"]));
    leader.wait(3600 * SECOND);
    assert_eq!((leader.role(), leader.names(RolloutTask::Check).len()), (Role::Leader, 0));
}

#[test]
fn change_during_a_configuration_starts_the_damper_after_it() {
    let mut leader = TestLeader::seeing(ModelSettings { damper: 5 * SECOND, ..settings() }, observation(&["a"]));
    leader.wait(5 * SECOND);
    leader.answer(RolloutTask::Check, "a", 200);
    leader.see(observation(&["a", "b"]));
    leader.step(Event::Written(WriteResult::Done));
    assert_eq!(leader.names(RolloutTask::On), ["a"], "the configuration in progress keeps its view");
    leader.answer(RolloutTask::On, "a", 200);
    leader.step(Event::Written(WriteResult::Done));
    assert_eq!(leader.role(), Role::Pending);
    leader.wait(5 * SECOND - MILLI);
    assert_eq!(leader.names(RolloutTask::Check), ["a"]);
    leader.wait(MILLI);
    assert_eq!(leader.names(RolloutTask::Check), ["a", "a", "b"]);
}

#[test]
fn full_shutdown_stops_all_pods_before_starting_any() {
    let mut leader = TestLeader::seeing(ModelSettings { full_shutdown: true, ..settings() }, observation(&["a", "b"]));
    leader.wait(10 * MILLI);
    leader.answer_all(RolloutTask::Check, 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.answer(RolloutTask::Off, "b", 200);
    assert_eq!(leader.names(RolloutTask::On), [""; 0]);
    leader.answer(RolloutTask::Off, "a", 200);
    assert_eq!(leader.names(RolloutTask::On), ["a", "b"]);
}

#[test]
fn sequential_rollout_follows_seq_and_stops_at_the_first_failure() {
    let settings = ModelSettings { sequential: true, full_shutdown: true, ..settings() };
    // The order of seq is not that of the names.
    let mut leader = TestLeader::seeing(settings, observation(&["c", "a", "b"]));
    leader.wait(10 * MILLI);
    assert_eq!(leader.names(RolloutTask::Check).len(), 3, "the check is in parallel");
    leader.answer_all(RolloutTask::Check, 200);
    leader.step(Event::Written(WriteResult::Done));
    for pod in ["c", "a", "b"] {
        assert_eq!(leader.names(RolloutTask::Off).last().unwrap(), pod);
        leader.answer(RolloutTask::Off, pod, 200);
    }
    leader.answer(RolloutTask::On, "c", 200);
    leader.answer(RolloutTask::On, "a", 500);
    assert_eq!(leader.names(RolloutTask::On), ["c", "a"]);
    assert!(
        leader.status().starts_with("* pod #1 127.0.0.1:8080 (a) failed on with 500: text, retrying in "),
        "{}",
        leader.status()
    );
}

#[test]
fn dead_pod_is_excluded_at_the_check_and_in_no_later_view() {
    let mut leader = TestLeader::seeing(settings(), dead(&observation(&["a", "b"]), "b"));
    leader.wait(10 * MILLI);
    assert_eq!(leader.names(RolloutTask::Check), ["a", "b"], "the pre-check sees dead pods too");
    leader.answer(RolloutTask::Check, "b", 410);
    leader.answer(RolloutTask::Check, "a", 200);
    leader.step(Event::Written(WriteResult::Done));
    let on = leader.posts(RolloutTask::On);
    assert_eq!(on.len(), 1);
    assert_eq!(on[0].view.pods.keys().map(PodId::as_str).collect::<Vec<_>>(), ["a"]);
    leader.answer_all(RolloutTask::On, 200);
    leader.step(Event::Written(WriteResult::Done));
    assert_eq!(leader.role(), Role::Leader, "the digest covers the dead pod, which is registered");
}

#[test]
fn death_alone_rewrites_the_snapshot_and_configures_nothing() {
    let mut leader = TestLeader::configured(settings(), observation(&["a", "b"]));
    leader.see(dead(&observation(&["a", "b"]), "b"));
    let Some(StoreWrite::Snapshot(view)) = leader.writes().pop() else { panic!("no snapshot was written") };
    assert_eq!(view.pods.keys().map(PodId::as_str).collect::<Vec<_>>(), ["a"]);
    leader.wait(60 * SECOND);
    assert_eq!((leader.role(), leader.names(RolloutTask::Check).len(), leader.writes().len()), (Role::Leader, 0, 1));
}

#[test]
fn failed_check_is_reported_with_pod_and_cause_and_retried_with_backoff() {
    for (code, answer) in [(406, "406: text"), (408, "408: text"), (500, "500: text"), (503, "503: text")] {
        let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
        leader.wait(10 * MILLI);
        leader.answer_check("b", code);
        assert!(
            leader
                .status()
                .starts_with(&format!("* pod #1 127.0.0.1:8080 (b) failed check with {answer}, retrying in ")),
            "{}",
            leader.status()
        );
        assert_eq!(leader.role(), Role::Pending);
        leader.wait(SECOND);
        assert_eq!(leader.names(RolloutTask::Check).len(), 4);
        leader.answer_check("a", code);
        leader.wait(SECOND);
        assert_eq!(leader.names(RolloutTask::Check).len(), 4, "the second retry waits longer");
        leader.wait(SECOND);
        assert_eq!(leader.names(RolloutTask::Check).len(), 6);
        assert_eq!(leader.writes(), []);
    }
}

#[test]
fn failed_check_waits_for_the_others_as_long_as_they_reply() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b", "c", "d"]));
    leader.wait(10 * MILLI);
    leader.answer(RolloutTask::Check, "b", 503);
    for (pod, code) in [("c", 500), ("a", 200)] {
        leader.wait(999 * MILLI);
        assert_eq!(
            (leader.role(), leader.waiting(RolloutTask::Check).len()),
            (Role::Configuring, 4),
            "none is cancelled"
        );
        leader.answer(RolloutTask::Check, pod, code);
    }
    leader.wait(999 * MILLI);
    assert_eq!(leader.role(), Role::Configuring);
    leader.wait(MILLI);
    let expected = "* pod #1 127.0.0.1:8080 (b) failed check with 503: text (and 1 more failed), retrying in ";
    assert!(leader.status().starts_with(expected), "{}", leader.status());
    let cancelled: Vec<_> = leader
        .posts(RolloutTask::Check)
        .into_iter()
        .map(|post| post.call)
        .filter(|call| leader.effects.contains(&Effect::Cancel(*call)))
        .collect();
    assert_eq!(cancelled.len(), 1, "d has not replied");
    assert_eq!(leader.writes(), []);
}

#[test]
fn failed_check_does_not_wait_for_pods_that_leave() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b", "c"]));
    leader.wait(10 * MILLI);
    leader.answer(RolloutTask::Check, "b", 503);
    leader.answer(RolloutTask::Check, "a", 200);
    leader.see(observation(&["a", "b"]));
    assert_eq!(leader.role(), Role::Pending);
}

#[test]
fn view_change_resets_the_retries() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a"]));
    leader.wait(10 * MILLI);
    for _ in 0..5 {
        leader.answer_check("a", 406);
        leader.wait(60 * SECOND);
    }
    leader.answer_check("a", 406);
    leader.see(observation(&["a", "b"]));
    let checks = leader.names(RolloutTask::Check).len();
    leader.wait(10 * MILLI);
    assert_eq!(leader.names(RolloutTask::Check).len(), checks + 2);
}

#[test]
fn view_change_during_a_rollout_resets_the_retries() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    leader.wait(10 * MILLI);
    for _ in 0..5 {
        leader.answer_check("a", 500);
        leader.wait(31 * SECOND);
    }
    leader.see(observation(&["a"]));
    leader.answer_check("a", 500);
    let wake = leader.machine.wake().unwrap();
    assert!(wake - leader.now <= SECOND, "{:?}", wake - leader.now);
}

#[test]
fn unreachable_pod_blocks_until_it_leaves() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    leader.wait(10 * MILLI);
    let call = leader.waiting(RolloutTask::Check)[1].call;
    leader.step(Event::Answered(call, PeerReply::Unreachable("connection refused".to_owned())));
    leader.answer(RolloutTask::Check, "a", 200);
    assert!(
        leader.status().contains("pod #1 127.0.0.1:8080 (b) unreachable for check: connection refused"),
        "{}",
        leader.status()
    );
    leader.see(observation(&["a"]));
    leader.configure();
}

#[test]
fn pod_without_a_usable_address_is_excluded_by_name_and_blocks_nothing() {
    for bad in [
        r#"{"seq":5,"ip":"a b\r\n","port":"1"}"#,
        r#"{"seq":5,"ip":"10.0.0.1:80","port":"1"}"#,
        r#"{"seq":5,"ip":"fe80::1%eth0","port":"1"}"#,
        r#"{"seq":5,"ip":"10.0.0.1","port":"0"}"#,
        r#"{"seq":5,"ip":"10.0.0.1","port":"1","ports":{"1":0}}"#,
        r#"{"seq":5,"ip":"10.0.0.1"}"#,
    ] {
        let mut hostile = observation(&["a"]);
        hostile.pods.insert(PodId::from("x"), Arc::new(Registration::parse(bad.as_bytes()).unwrap()));
        let mut leader = TestLeader::seeing(settings(), hostile.clone());
        leader.configure();
        assert_eq!(leader.names(RolloutTask::On), ["a"], "{bad}");
        assert!(leader.status().starts_with("* excluded, no usable address: pod x: its "), "{bad}");
        leader.see(observation(&["a"]));
        assert_eq!((leader.role(), leader.status().as_str()), (Role::Leader, ""), "{bad}");
        hostile.pods.insert(PodId::from("x"), pods(&["x"])[&PodId::from("x")].clone());
        leader.see(hostile);
        leader.effects.clear();
        leader.configure();
        assert_eq!(leader.names(RolloutTask::On), ["a", "x"], "it registered as it should: {bad}");
    }
}

#[test]
fn pod_that_dies_in_configure_is_excluded_and_the_others_continue() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    leader.wait(10 * MILLI);
    leader.answer_all(RolloutTask::Check, 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.answer(RolloutTask::On, "b", 406);
    assert_eq!(leader.names(RolloutTask::Check), ["a", "b", "a"]);
    leader.answer(RolloutTask::Check, "a", 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.answer(RolloutTask::On, "a", 200);
    leader.step(Event::Written(WriteResult::Done));
    assert_eq!(leader.role(), Role::Leader);
    leader.see(dead(&observation(&["a", "b"]), "b"));
    leader.wait(60 * SECOND);
    assert_eq!(leader.names(RolloutTask::Check).len(), 3);
}

#[test]
fn late_410_restarts_at_the_check() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    leader.wait(10 * MILLI);
    leader.answer_all(RolloutTask::Check, 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.answer(RolloutTask::On, "a", 410);
    assert_eq!(leader.names(RolloutTask::Check), ["a", "b", "b"]);
}

#[test]
fn departed_pod_is_no_longer_waited_for() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    leader.wait(10 * MILLI);
    leader.answer_all(RolloutTask::Check, 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.answer(RolloutTask::On, "a", 200);
    leader.see(observation(&["a"]));
    assert_eq!(leader.role(), Role::Pending, "the next configuration is without it");
    assert_eq!(leader.writes().len(), 1, "this one does not count as done");
}

#[test]
fn guarantee_4_pod_that_leaves_at_the_check_is_in_no_later_view() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    leader.wait(10 * MILLI);
    leader.answer(RolloutTask::Check, "a", 200);
    leader.see(observation(&["a"]));
    leader.step(Event::Written(WriteResult::Done));
    let on = leader.posts(RolloutTask::On);
    assert_eq!(on.len(), 1);
    assert_eq!(*on[0].view, view_of(&["a"]));
}

#[test]
fn pod_that_leaves_and_returns_during_a_rollout_is_configured() {
    let settings = ModelSettings { full_shutdown: true, damper: 5 * SECOND, ..settings() };
    let mut leader = TestLeader::seeing(settings, observation(&["a", "b"]));
    leader.wait(5 * SECOND);
    leader.answer_all(RolloutTask::Check, 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.answer_all(RolloutTask::Off, 200);
    leader.see(observation(&["a"]));
    leader.answer(RolloutTask::On, "a", 200);
    leader.see(observation(&["a", "b"]));
    leader.effects.clear();
    leader.configure();
    assert_eq!(leader.names(RolloutTask::On), ["a", "b"]);
}

#[test]
fn address_of_another_pod_blocks_and_does_not_end_the_leadership() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    leader.wait(10 * MILLI);
    let call = leader.waiting(RolloutTask::Check)[1].call;
    leader.step(Event::Answered(call, PeerReply::WrongPod("meant for b".to_owned())));
    leader.answer(RolloutTask::Check, "a", 200);
    assert!(
        leader.status().starts_with(
            "* another pod answers at the address of pod #1 127.0.0.1:8080 (b): meant for b, retrying in "
        ),
        "{}",
        leader.status()
    );
    leader.see(observation(&["a"]));
    leader.configure();
}

#[test]
fn failed_snapshot_write_is_retried_after_a_delay() {
    let mut leader = TestLeader::configured(settings(), observation(&["a", "b"]));
    leader.see(dead(&observation(&["a", "b"]), "b"));
    leader.step(Event::Written(WriteResult::Unknown("refused".to_owned())));
    assert_eq!(leader.writes().len(), 1, "not immediately");
    leader.wait(SECOND);
    assert_eq!(leader.writes().len(), 2);
}

#[test]
fn sequential_rollout_skips_departed_pods() {
    let mut leader =
        TestLeader::seeing(ModelSettings { sequential: true, ..settings() }, observation(&["a", "b", "c"]));
    leader.wait(10 * MILLI);
    leader.answer_all(RolloutTask::Check, 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.see(observation(&["c"]));
    assert_eq!(leader.names(RolloutTask::On), ["a", "c"]);
}

#[test]
fn reply_409_ends_the_leadership_only_if_the_lock_is_lost() {
    let disputed = |held: Result<bool, String>| {
        let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
        leader.wait(10 * MILLI);
        leader.answer(RolloutTask::Check, "a", 409);
        leader.answer(RolloutTask::Check, "b", 409);
        assert_eq!(leader.effects.iter().filter(|effect| **effect == Effect::ReadLock).count(), 1, "one read for all");
        assert_eq!(leader.role(), Role::Configuring, "it reports nothing before the lock was read");
        leader.step(Event::LockRead(held));
        leader
    };
    let leader = disputed(Ok(false));
    assert!(matches!(leader.effects.last(), Some(Effect::Resign(_))));
    assert_eq!(leader.role(), Role::Follower);

    let mut leader = disputed(Ok(true));
    let expected = "* pod #0 127.0.0.1:8080 (a) unreachable for check: answered 409 although this leader holds the lock: text (and 1 more failed), retrying";
    assert!(leader.status().starts_with(expected), "{}", leader.status());
    let checks = leader.names(RolloutTask::Check).len();
    leader.wait(SECOND);
    assert_eq!(leader.names(RolloutTask::Check).len(), checks + 2, "it tries again");
    for _ in 0..10 {
        leader.answer(RolloutTask::Check, "a", 409);
        leader.step(Event::LockRead(Ok(true)));
        leader.wait(31 * SECOND);
    }
    leader.answer(RolloutTask::Check, "a", 409);
    leader.step(Event::LockRead(Ok(true)));
    leader.answer(RolloutTask::Check, "b", 200);
    assert!(leader.machine.wake().unwrap() - leader.now >= 15 * SECOND, "later and later");
    assert!(!leader.effects.iter().any(|effect| matches!(effect, Effect::Resign(_))));

    let leader = disputed(Err("no answer".to_owned()));
    assert!(leader.status().contains("the leader lock cannot be read (no answer)"), "{}", leader.status());
}

impl TestLeader {
    fn answer_late(&mut self, task: RolloutTask, pod: &str, number: u64) {
        let post = self.waiting(task).into_iter().rfind(|post| post.pod.as_str() == pod).expect("a request to the pod");
        self.step(Event::Answered(post.call, PeerReply::Late(number, "late".to_owned())));
    }

    fn resigned(&self) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::Resign(_)))
    }
}

#[test]
fn lock_holder_continues_above_a_number_used_by_others() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    leader.wait(10 * MILLI);
    leader.answer(RolloutTask::Check, "b", 200);
    leader.answer_late(RolloutTask::Check, "a", 1000);
    leader.step(Event::LockRead(Ok(true)));
    assert!(leader.effects.contains(&Effect::CountAbove(1000)));
    assert_eq!(leader.names(RolloutTask::Check), ["a", "b", "a"], "that pod alone is requested again");
    leader.answer(RolloutTask::Check, "a", 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.answer_late(RolloutTask::On, "a", 2000);
    leader.step(Event::LockRead(Ok(true)));
    leader.answer_all(RolloutTask::On, 200);
    leader.step(Event::Written(WriteResult::Done));
    assert_eq!(leader.role(), Role::Leader);
}

#[test]
fn pod_that_is_always_late_counts_as_unreachable_after_a_few_requests() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a"]));
    leader.wait(10 * MILLI);
    for number in [10, 20, 30] {
        leader.answer_late(RolloutTask::Check, "a", number);
        leader.step(Event::LockRead(Ok(true)));
        assert_eq!(leader.role(), Role::Configuring);
    }
    leader.answer_late(RolloutTask::Check, "a", 40);
    leader.step(Event::LockRead(Ok(true)));
    assert!(leader.status().starts_with("* pod #0 127.0.0.1:8080 (a) unreachable for check: "), "{}", leader.status());
    assert!(!leader.resigned());
}

#[test]
fn leadership_without_numbers_left_resigns_after_a_delay() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a"]));
    leader.wait(10 * MILLI);
    leader.answer_late(RolloutTask::Check, "a", 1 << 53);
    leader.step(Event::LockRead(Ok(true)));
    assert!(!leader.resigned(), "not immediately");
    assert!(leader.status().contains("resigning for a new one, retrying in "), "{}", leader.status());
    leader.wait(SECOND);
    assert!(leader.resigned());
    assert_eq!(leader.names(RolloutTask::Check).len(), 1);
}

#[test]
fn pod_that_leaves_while_the_lock_is_read_receives_no_request() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    leader.wait(10 * MILLI);
    leader.answer_late(RolloutTask::Check, "b", 1000);
    leader.see(observation(&["a"]));
    leader.step(Event::LockRead(Ok(true)));
    assert_eq!(leader.names(RolloutTask::Check), ["a", "b"]);
    leader.answer(RolloutTask::Check, "a", 200);
    assert_eq!(leader.writes().len(), 1);
}

#[test]
fn lost_lock_ends_the_leadership() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a"]));
    leader.wait(10 * MILLI);
    leader.answer_all(RolloutTask::Check, 200);
    leader.step(Event::Written(WriteResult::Fenced));
    assert!(matches!(leader.effects.last(), Some(Effect::Resign(_))));
    assert_eq!(leader.names(RolloutTask::On), [""; 0]);
    assert_eq!(leader.role(), Role::Follower);
}

#[test]
fn failed_configuration_write_is_retried() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a"]));
    leader.wait(10 * MILLI);
    leader.answer_all(RolloutTask::Check, 200);
    leader.step(Event::Written(WriteResult::Unknown("no answer".to_owned())));
    assert!(leader.status().contains("no answer"), "{}", leader.status());
    assert_eq!(leader.names(RolloutTask::On), [""; 0]);
    leader.wait(SECOND);
    assert_eq!(leader.names(RolloutTask::Check).len(), 2);
}

#[test]
fn nothing_is_compared_after_a_lost_session_until_all_pods_returned() {
    let settle = |leader: &mut TestLeader, names: &[&str], stored_first: bool| {
        let stored = Event::Stored(StoredHash::Done(Digest::of(&view_of(&["a", "b"]))), view_of(&["a", "b"]));
        if stored_first {
            leader.step(stored);
            leader.see(observation(names));
        } else {
            leader.see(observation(names));
            leader.step(stored);
        }
    };
    for stored_first in [true, false] {
        let mut leader = TestLeader::returning(settings());
        settle(&mut leader, &["a"], stored_first);
        leader.wait(9 * SECOND);
        assert_eq!((leader.role(), leader.names(RolloutTask::Check).len()), (Role::Pending, 0));
        assert_eq!(leader.status(), "* waiting for previously configured pods to return");
        leader.see(observation(&["a", "b"]));
        assert_eq!((leader.role(), leader.names(RolloutTask::Check).len()), (Role::Leader, 0));
    }

    let mut leader = TestLeader::returning(settings());
    settle(&mut leader, &["a"], true);
    leader.wait(10 * SECOND + 10 * MILLI);
    assert_eq!(leader.names(RolloutTask::Check), ["a"], "no pod is waited for longer than twice the session");
}

#[test]
fn pod_returning_to_an_emptied_store_waits_for_the_others() {
    let mut leader = TestLeader::returning(settings());
    leader.step(Event::Stored(StoredHash::parse(b""), View::default()));
    leader.see(observation(&["a"]));
    leader.wait(9 * SECOND);
    assert_eq!((leader.role(), leader.names(RolloutTask::Check).len()), (Role::Pending, 0));
    assert_eq!(leader.status(), "* waiting for previously configured pods to return");
    leader.see(observation(&["a", "b"]));
    assert_eq!(
        (leader.role(), leader.names(RolloutTask::Check).len()),
        (Role::Pending, 0),
        "who else there was is not known"
    );
    leader.wait(SECOND + 10 * MILLI);
    assert_eq!(leader.names(RolloutTask::Check), ["a", "b"]);

    let mut leader = TestLeader::returning(settings());
    leader.step(Event::Stored(StoredHash::Pending(Digest::of(&view_of(&["a"]))), View::default()));
    leader.see(observation(&["a"]));
    leader.wait(10 * MILLI);
    assert_eq!(leader.names(RolloutTask::Check), ["a"], "an interrupted first configuration continues immediately");
}

#[test]
fn pod_returning_to_an_emptied_store_waits_for_its_dependencies() {
    let back = |unsettled: bool| {
        let mut leader = TestLeader::returning(settings());
        leader.step(Event::Stored(StoredHash::parse(b""), View::default()));
        leader.see(with_dependency(&["a"], &[], unsettled));
        leader.wait(10 * SECOND + 10 * MILLI);
        leader
    };
    let mut leader = back(true);
    assert_eq!(leader.names(RolloutTask::Check).len(), 0, "its members are there, and configured in a moment");
    leader.see(with_dependency(&["a"], &["x"], false));
    leader.configure();
    assert_eq!(leader.posts(RolloutTask::On)[0].view.dependencies["db"].len(), 1);

    let mut leader = back(true);
    leader.wait(10 * SECOND);
    assert_eq!(leader.names(RolloutTask::Check), ["a"], "not for longer than its own members had to come back");
    assert_eq!(back(false).names(RolloutTask::Check), ["a"], "none of its pods is there");
}

#[test]
fn dependency_whose_leader_changes_keeps_its_last_pods() {
    let mut leader = TestLeader::configured(settings(), with_dependency(&["a"], &["x"], false));
    leader.see(with_dependency(&["a"], &[], true));
    leader.wait(3600 * SECOND);
    assert_eq!((leader.role(), leader.names(RolloutTask::Check).len()), (Role::Leader, 0));
    leader.see(with_dependency(&["a"], &["x", "y"], false));
    leader.configure();
    assert_eq!(leader.posts(RolloutTask::On)[0].view.dependencies["db"].len(), 2);
}

#[test]
fn dependency_never_configured_is_empty_and_not_awaited() {
    let mut leader = TestLeader::seeing(settings(), with_members(&["a"], &[], &["x"]));
    leader.configure();
    assert!(leader.posts(RolloutTask::On)[0].view.dependencies["db"].is_empty());
}

#[test]
fn dependency_without_pods_is_empty_after_twice_the_session_timeout() {
    let mut leader = TestLeader::configured(settings(), with_dependency(&["a"], &["x"], false));
    leader.see(with_dependency(&["a"], &[], false));
    leader.wait(10 * SECOND - MILLI);
    assert_eq!(leader.role(), Role::Leader);
    leader.wait(MILLI);
    leader.configure();
    assert_eq!(leader.posts(RolloutTask::On)[0].view.dependencies["db"].len(), 0);
}

#[test]
fn unsettled_dependency_blocks_configurations_from_its_last_pods() {
    let mut leader = TestLeader::configured(settings(), with_dependency(&["a"], &["x"], false));
    leader.see(with_dependency(&["a"], &[], false));
    assert_eq!((leader.role(), leader.status().as_str()), (Role::Leader, ""), "running pods are as they were");
    leader.see(with_dependency(&["a", "b"], &[], false));
    leader.wait(4 * SECOND);
    assert_eq!(leader.names(RolloutTask::Check).len(), 0, "who joins waits");
    let expected =
        "* waiting for dependency db to settle: its last pods are not registered, treated as empty in 6.0 seconds";
    assert_eq!((leader.role(), leader.status().as_str()), (Role::Pending, expected));
    leader.wait(6 * SECOND - MILLI);
    assert_eq!(leader.names(RolloutTask::Check).len(), 0);
    leader.wait(MILLI);
    assert_eq!(leader.names(RolloutTask::Check), ["a", "b"], "the damper is long over");
    leader.configure();
    assert!(leader.posts(RolloutTask::On).iter().all(|post| post.view.dependencies["db"].is_empty()));
}

#[test]
fn waiting_pods_are_configured_with_a_dependency_that_returns_in_time() {
    let mut leader = TestLeader::configured(settings(), with_dependency(&["a"], &["x"], false));
    leader.see(with_members(&["a", "b"], &[], &["x", "y"]));
    leader.wait(3600 * SECOND);
    let expected = "* waiting for dependency db to settle: its pods are registered but not configured yet";
    assert_eq!((leader.status().as_str(), leader.names(RolloutTask::Check).len()), (expected, 0));
    leader.see(with_dependency(&["a", "b"], &["x", "y"], false));
    leader.configure();
    assert!(leader.posts(RolloutTask::On).iter().all(|post| post.view.dependencies["db"].len() == 2));

    leader.see(with_dependency(&["a"], &[], false));
    leader.see(with_dependency(&["a", "b"], &[], false));
    leader.effects.clear();
    leader.see(with_dependency(&["a", "b"], &["x", "y"], false));
    leader.wait(3600 * SECOND);
    assert_eq!((leader.role(), leader.names(RolloutTask::Check).len()), (Role::Leader, 0), "a blip restarts no pod");
}

#[test]
fn new_pods_of_a_dependency_do_not_keep_its_last_pods() {
    let mut leader = TestLeader::configured(settings(), with_dependency(&["a"], &["x"], false));
    leader.see(with_members(&["a", "b"], &[], &["y"]));
    leader.wait(10 * SECOND);
    leader.configure();
    assert!(leader.posts(RolloutTask::On).iter().all(|post| post.view.dependencies["db"].is_empty()));
}

#[test]
fn retry_waits_for_an_unsettled_dependency() {
    let mut leader = TestLeader::configured(settings(), with_dependency(&["a"], &["x"], false));
    leader.see(with_dependency(&["a", "b"], &["x"], false));
    leader.wait(10 * MILLI);
    leader.answer_check("b", 406);
    leader.see(with_dependency(&["a", "b"], &[], false));
    leader.effects.clear();
    leader.wait(9 * SECOND);
    assert!(leader.status().starts_with("* waiting for dependency db to settle"), "{}", leader.status());
    assert_eq!(leader.names(RolloutTask::Check).len(), 0);
    leader.wait(SECOND);
    assert_eq!(leader.names(RolloutTask::Check), ["a", "b"]);
}

#[test]
fn rollout_at_its_check_ends_if_a_dependency_becomes_unsettled() {
    let mut leader = TestLeader::seeing(settings(), with_dependency(&["a"], &["x"], false));
    leader.wait(10 * MILLI);
    let check = leader.posts(RolloutTask::Check)[0].call;
    leader.see(with_dependency(&["a"], &[], false));
    assert!(leader.effects.contains(&Effect::Cancel(check)));
    leader.effects.clear();
    leader.configure();
    assert!(leader.posts(RolloutTask::On)[0].view.dependencies["db"].is_empty(), "no pod ever had what is gone");

    let mut leader = TestLeader::configured(settings(), with_dependency(&["a"], &["x"], false));
    leader.see(with_dependency(&["a", "b"], &["x"], false));
    leader.wait(10 * MILLI);
    leader.answer_all(RolloutTask::Check, 200);
    leader.see(with_dependency(&["a", "b"], &[], false));
    leader.step(Event::Written(WriteResult::Done));
    assert_eq!(leader.names(RolloutTask::On).len(), 0, "it was marked as pending, and no pod received a request");
    leader.wait(10 * SECOND - MILLI);
    assert_eq!(leader.names(RolloutTask::Check).len(), 2);
    leader.wait(MILLI);
    assert_eq!(leader.names(RolloutTask::Check).len(), 4);
}

#[test]
fn sequential_rollout_stops_for_an_unsettled_dependency_unless_all_pods_are_off() {
    for full_shutdown in [false, true] {
        let settings = ModelSettings { sequential: true, full_shutdown, ..settings() };
        let mut leader = TestLeader::configured(settings, with_dependency(&["a"], &["x"], false));
        leader.see(with_dependency(&["a", "b"], &["x"], false));
        leader.wait(10 * MILLI);
        leader.answer_all(RolloutTask::Check, 200);
        leader.step(Event::Written(WriteResult::Done));
        if full_shutdown {
            leader.answer_all(RolloutTask::Off, 200);
        }
        leader.see(with_dependency(&["a", "b"], &[], false));
        leader.answer(RolloutTask::On, "a", 200);
        let requested = leader.names(RolloutTask::On);
        if full_shutdown {
            assert_eq!(requested, ["a", "b"], "no pod is left off");
        } else {
            assert_eq!(requested, ["a"]);
            assert_eq!(leader.role(), Role::Pending);
        }
    }
}

#[test]
fn dependency_that_expires_during_a_rollout_stays_empty_after_its_commit() {
    for known in [true, false] {
        let before: &[&str] = if known { &["x"] } else { &[] };
        let mut leader = TestLeader::configured(settings(), with_dependency(&["a"], before, false));
        leader.see(with_dependency(&["a", "b"], &["x"], false));
        leader.wait(10 * MILLI);
        leader.answer_all(RolloutTask::Check, 200);
        leader.step(Event::Written(WriteResult::Done));
        leader.see(with_dependency(&["a", "b"], &[], false));
        leader.wait(10 * SECOND);
        leader.answer_all(RolloutTask::On, 200);
        leader.step(Event::Written(WriteResult::Done));
        assert_eq!(leader.role(), Role::Pending);
        leader.effects.clear();
        leader.wait(10 * MILLI);
        assert_eq!(leader.names(RolloutTask::Check), ["a", "b"], "no other settling time");
        assert!(leader.posts(RolloutTask::Check).iter().all(|post| post.view.dependencies["db"].is_empty()));
    }
}

#[test]
fn settle_time_continues_across_a_commit() {
    let mut leader = TestLeader::seeing(settings(), with_dependency(&["a"], &["x"], false));
    leader.wait(10 * MILLI);
    leader.answer_all(RolloutTask::Check, 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.see(with_dependency(&["a"], &[], false));
    leader.wait(4 * SECOND);
    leader.answer_all(RolloutTask::On, 200);
    leader.step(Event::Written(WriteResult::Done));
    assert_eq!(leader.role(), Role::Leader, "a blip restarts no pod");
    leader.effects.clear();
    leader.wait(6 * SECOND - MILLI);
    assert_eq!(leader.role(), Role::Leader);
    leader.wait(MILLI);
    leader.configure();
    assert!(leader.posts(RolloutTask::On)[0].view.dependencies["db"].is_empty());
}

#[test]
fn waiting_new_leader_publishes_which_configured_pods_are_left() {
    let with =
        |names: &[&str]| View { dependencies: BTreeMap::from([("db".to_owned(), pods(&["x"]))]), ..view_of(names) };
    let mut leader = TestLeader::new(settings());
    leader.step(Event::Stored(StoredHash::Done(Digest::of(&with(&["a", "b"]))), with(&["a", "b"])));
    leader.see(with_members(&["a", "c"], &[], &["x"]));
    let Some(StoreWrite::Snapshot(view)) = leader.writes().pop() else { panic!("no snapshot was written") };
    assert_eq!(view.pods.keys().map(PodId::as_str).collect::<Vec<_>>(), ["a"], "c is not configured yet");
    leader.step(Event::Written(WriteResult::Done));
    leader.wait(3600 * SECOND);
    assert_eq!((leader.writes().len(), leader.names(RolloutTask::Check).len()), (1, 0));
    leader.see(with_dependency(&["a", "c"], &["x"], false));
    leader.wait(10 * MILLI);
    assert_eq!(leader.names(RolloutTask::Check), ["a", "c"]);
}

#[test]
fn glob_dependency_keeps_the_pods_of_a_cluster_whose_leader_changes() {
    let pod = |cluster: &str, seq: u64| {
        let fields = json!({"seq": seq, "ip": "h", "port": "1", "namespace": "ns", "cluster": cluster});
        let registration = Registration::parse(fields.to_string().as_bytes()).unwrap();
        (PodId::from(cluster), Arc::new(registration))
    };
    let seen = |snapshot: &[(PodId, Arc<Registration>)], unsettled: &[&str]| {
        let live = unsettled.iter().filter_map(|cluster| Some(PodId::from(cluster.strip_prefix("ns.")?))).collect();
        let unsettled = unsettled.iter().map(ToString::to_string).collect();
        let observed = ObservedDependency { snapshot: snapshot.iter().cloned().collect(), unsettled, live };
        Observation {
            pods: pods(&["a"]),
            dependencies: BTreeMap::from([("db-*".to_owned(), observed)]),
            ..Observation::default()
        }
    };
    let both = [pod("db-1", 1), pod("db-2", 2)];
    let mut leader = TestLeader::configured(settings(), seen(&both, &[]));
    leader.see(seen(&both[1..], &["ns.db-1"]));
    leader.wait(3600 * SECOND);
    assert_eq!((leader.role(), leader.names(RolloutTask::Check).len()), (Role::Leader, 0));
    leader.see(seen(&both[1..], &[]));
    leader.wait(10 * SECOND);
    leader.configure();
    let left: Vec<_> = leader.posts(RolloutTask::On)[0].view.dependencies["db-*"].keys().cloned().collect();
    assert_eq!(left, [PodId::from("db-2")], "it is gone for good");
}

#[test]
fn probe_runs_while_clean_and_its_text_is_the_status() {
    let mut leader = TestLeader::configured(settings(), observation(&["a"]));
    let probes =
        |leader: &TestLeader| leader.effects.iter().filter(|effect| matches!(effect, Effect::Probe(_))).count();
    leader.wait(SECOND);
    assert_eq!(probes(&leader), 1);
    leader.step(Event::Probed(Ok(Some("1 primary".to_owned()))));
    assert_eq!(leader.status(), "1 primary");
    leader.wait(60 * SECOND);
    leader.step(Event::Probed(Err("out of sync".to_owned())));
    assert_eq!((probes(&leader), leader.status().as_str()), (2, "* out of sync"));
    leader.wait(60 * SECOND);
    leader.see(observation(&["a", "b"]));
    assert!(leader.effects.contains(&Effect::CancelProbe));
}

#[test]
fn pod_above_the_store_size_limit_is_excluded_by_name() {
    let mut huge = observation(&["a"]);
    // Text that cannot be compressed well.
    let mut random = 1_u64;
    let text: String = (0..1_500_000)
        .map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + u8::try_from((random >> 33) % 90).unwrap())
        })
        .collect();
    let fields = json!({"seq": 9, "ip": "127.0.0.1", "port": "8080", "x": text});
    huge.pods.insert(PodId::from("h"), Arc::new(Registration::parse(fields.to_string().as_bytes()).unwrap()));
    let fields = json!({"seq": 10, "ip": "127.0.0.1", "port": "8080"});
    huge.pods.insert(PodId::from("young"), Arc::new(Registration::parse(fields.to_string().as_bytes()).unwrap()));
    let mut leader = TestLeader::seeing(settings(), huge);
    leader.configure();
    assert_eq!(leader.names(RolloutTask::On), ["a", "young"], "it keeps no other pod out");
    assert!(leader.status().ends_with(": h"), "{}", leader.status());
}

/// Returns the published states of pods whose sub-process is off.
fn states(off: &[(&str, &str)]) -> Arc<States> {
    let state = |(name, reason): &(&str, &str)| {
        let reason = Some((*reason).to_owned());
        (PodId::from(*name), PodState { process: ProcessState::Stopped, reason, ..PodState::default() })
    };
    Arc::new(off.iter().map(state).collect())
}

#[test]
fn down_pods_are_in_the_status_of_a_clean_cluster_until_they_recover() {
    let mut leader = TestLeader::configured(settings(), observation(&["a", "b"]));
    leader.wait(SECOND);
    leader.step(Event::Probed(Ok(Some("1 primary".to_owned()))));
    leader.step(Event::States(states(&[("b", "turned off by /control/off")])));
    assert_eq!(leader.status(), "* off: #1 127.0.0.1:8080 (turned off by /control/off), 1 primary");
    assert_eq!((leader.role(), leader.machine.report().down.off), (Role::Leader, 1));
    assert_eq!(leader.names(RolloutTask::Check), [""; 0], "a pod that is off is not a reason to configure");
    leader.step(Event::States(states(&[])));
    assert_eq!(leader.status(), "1 primary");
    leader.see(dead(&observation(&["a", "b"]), "b"));
    assert_eq!(leader.status(), "* dead: #1 127.0.0.1:8080, 1 primary");
    leader.step(Event::Written(WriteResult::Done));
    leader.effects.clear();
    leader.see(observation(&["a"]));
    leader.configure();
    assert_eq!((leader.status().as_str(), leader.machine.report().down), ("", DownPods::default()));
}

#[test]
fn pods_stopped_by_a_rollout_are_listed_once_it_failed() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    leader.wait(10 * MILLI);
    leader.step(Event::States(states(&[("b", "stopped for a configuration")])));
    assert_eq!(leader.status(), "* configuring 2 pods");
    leader.answer_check("a", 500);
    let status = leader.status();
    assert!(status.starts_with("* pod #0 127.0.0.1:8080 (a) failed check with 500: text, retrying in "), "{status}");
    assert!(status.ends_with(" seconds, off: #1 127.0.0.1:8080 (stopped for a configuration)"), "{status}");
}
