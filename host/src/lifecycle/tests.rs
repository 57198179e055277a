//! The machine's decisions, as tables of what happens and what must come of it.

use std::time::{Duration, Instant};

use serde_json::{Map, json};

use super::{
    Blame, CallFailure, Command as Task, Effect, Event, Failure, Machine, Outcome, Overrun, Request, Returned, Ticket,
};
use crate::{
    cluster::{Digest, PostedView},
    init::Exit,
    plugin::{Command, LifecycleSettings},
    status::ProcessState,
};

const SECOND: Duration = Duration::from_secs(1);

/// A machine with a clock of its own and a memory of what it asked for.
struct Pod {
    machine: Machine,
    now: Instant,
    epoch: Option<i64>,
    effects: Vec<Effect>,
    tickets: Ticket,
    pids: u32,
}

fn settings() -> LifecycleSettings {
    LifecycleSettings {
        check_every: 60 * SECOND,
        checks: 1,
        cwd: None,
        grace: 60 * SECOND,
        pipe_subprocess: false,
        shell: false,
        soft: false,
        strict: false,
    }
}

fn view(dependency: &str) -> PostedView {
    let body = format!(
        r#"{{"key":"a","pods":{{"a":{{"seq":1}}}},"dependencies":{{"db":{{"x":{{"seq":0,"ip":"{dependency}"}}}}}}}}"#
    );
    PostedView::parse(body.as_bytes()).unwrap()
}

fn refused() -> CallFailure {
    let failure = Failure { callback: Some("x"), blame: Blame::Plugin, message: "no".to_owned() };
    CallFailure { failure, overrun: false }
}

impl Pod {
    fn new(settings: LifecycleSettings) -> Self {
        let machine = Machine::new(settings, true);
        Self { machine, now: Instant::now(), epoch: None, effects: Vec::new(), tickets: 0, pids: 100 }
    }

    fn step(&mut self, event: Event) {
        let effects = self.machine.step(event, self.now, self.epoch);
        self.effects.extend(effects);
    }

    fn submit(&mut self, command: Task) -> Ticket {
        self.submit_with(command, None, 60 * SECOND)
    }

    fn submit_with(&mut self, command: Task, generation: Option<&str>, limit: Duration) -> Ticket {
        self.tickets += 1;
        let generation = generation.map(Digest::from);
        let request = Request { command, epoch: None, number: None, generation, limit };
        self.step(Event::Submitted(self.tickets, request));
        self.tickets
    }

    /// What a leader posts.
    fn post(&mut self, command: Task, epoch: i64, number: u64) -> Ticket {
        self.tickets += 1;
        let (epoch, number) = (Some(epoch), Some(number));
        let request = Request { command, epoch, number, generation: None, limit: 60 * SECOND };
        self.step(Event::Submitted(self.tickets, request));
        self.tickets
    }

    /// The callback that runs, which is to end with this.
    fn returns(&mut self, name: &str, result: Result<Returned, CallFailure>) {
        let running = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Call(number, callback, _) => Some((*number, callback.name())),
            _ => None,
        });
        let (number, callback) = running.expect("a callback runs");
        assert_eq!(callback, name);
        self.step(Event::Returned(number, result));
    }

    fn spawned(&mut self) -> u32 {
        assert!(matches!(self.effects.last(), Some(Effect::Spawn(_))), "{:?}", self.effects.last());
        self.pids += 1;
        self.step(Event::Spawned(Ok(self.pids)));
        self.pids
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(wake) = self.machine.wake().filter(|wake| *wake <= end) {
            self.now = self.now.max(wake);
            self.step(Event::Tick);
        }
        self.now = end;
    }

    fn command() -> Returned {
        Returned::Command(Command { program: "redis-server".to_owned(), arguments: vec![], environment: [].into() })
    }

    /// A pod that was configured with this dependency and runs.
    fn running(settings: LifecycleSettings) -> (Self, u32) {
        let mut pod = Self::new(settings);
        let on = pod.submit(Task::On(Some(view("1"))));
        pod.returns("initialize", Ok(Returned::Nothing));
        pod.returns("configure", Ok(Self::command()));
        let pid = pod.spawned();
        assert_eq!(pod.outcome(on), Some(Outcome::Done(json!({}))));
        (pod, pid)
    }

    fn outcome(&self, ticket: Ticket) -> Option<Outcome> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Reply(answered, outcome) if *answered == ticket => Some(outcome.clone()),
            _ => None,
        })
    }

    fn state(&self) -> ProcessState {
        self.machine.report().process
    }

    fn count(&self, wanted: impl Fn(&Effect) -> bool) -> usize {
        self.effects.iter().filter(|effect| wanted(effect)).count()
    }

    fn calls(&self, name: &str) -> usize {
        self.count(|effect| matches!(effect, Effect::Call(_, callback, _) if callback.name() == name))
    }

    fn spawns(&self) -> usize {
        self.count(|effect| matches!(effect, Effect::Spawn(_)))
    }
}

#[test]
fn the_first_on_initializes_configures_and_spawns_and_is_answered_when_the_process_runs() {
    let mut pod = Pod::new(settings());
    let on = pod.submit(Task::On(Some(view("1"))));
    pod.returns("initialize", Ok(Returned::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    assert_eq!(pod.outcome(on), None);
    pod.spawned();
    assert_eq!(pod.outcome(on), Some(Outcome::Done(json!({}))));
    assert_eq!(pod.state(), ProcessState::Running);
}

#[test]
fn a_running_process_is_left_alone_unless_strict_or_its_dependencies_differ() {
    for (strict, dependency, restarted) in [(false, "1", false), (false, "2", true), (true, "1", true)] {
        let (mut pod, pid) = Pod::running(LifecycleSettings { strict, ..settings() });
        let on = pod.submit_with(Task::On(Some(view(dependency))), Some("g2"), 60 * SECOND);
        if restarted {
            pod.returns("tear-down", Ok(Returned::Nothing));
            pod.step(Event::Exited(pid, Exit::Signal(15)));
            pod.returns("configure", Ok(Pod::command()));
            pod.spawned();
        }
        assert_eq!(pod.outcome(on), Some(Outcome::Done(json!({}))), "{strict} {dependency}");
        assert_eq!(pod.spawns(), if restarted { 2 } else { 1 });
        assert_eq!(pod.calls("initialize"), 1);
    }
}

#[test]
fn a_generation_that_is_completed_and_runs_is_not_repeated_not_even_when_strict() {
    let (mut pod, pid) = Pod::running(LifecycleSettings { strict: true, ..settings() });
    let first = pod.submit_with(Task::On(Some(view("1"))), Some("g"), 60 * SECOND);
    pod.returns("tear-down", Ok(Returned::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    pod.returns("configure", Ok(Pod::command()));
    pod.spawned();
    let off = pod.submit_with(Task::Off, Some("g"), 60 * SECOND);
    let again = pod.submit_with(Task::On(Some(view("1"))), Some("g"), 60 * SECOND);
    for ticket in [first, off, again] {
        assert_eq!(pod.outcome(ticket), Some(Outcome::Done(json!({}))));
    }
    assert_eq!((pod.spawns(), pod.state()), (2, ProcessState::Running));
}

#[test]
fn on_without_a_view_starts_the_last_command_and_refuses_when_there_is_none() {
    let mut pod = Pod::new(settings());
    let never = pod.submit(Task::On(None));
    assert!(matches!(pod.outcome(never), Some(Outcome::Refused(_))));
    assert_eq!(pod.state(), ProcessState::Stopped);

    let (mut pod, pid) = Pod::running(settings());
    pod.submit(Task::Off);
    pod.returns("tear-down", Ok(Returned::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    let on = pod.submit(Task::On(None));
    pod.spawned();
    assert_eq!(pod.outcome(on), Some(Outcome::Done(json!({}))));
    assert_eq!(pod.calls("configure"), 1);
}

#[test]
fn a_pod_that_cannot_be_configured_refuses_and_dies() {
    for failing in ["initialize", "configure", "spawn"] {
        let mut pod = Pod::new(settings());
        let on = pod.submit(Task::On(Some(view("1"))));
        let result = |name: &str, good| if failing == name { Err(refused()) } else { Ok(good) };
        pod.returns("initialize", result("initialize", Returned::Nothing));
        if failing != "initialize" {
            pod.returns("configure", result("configure", Pod::command()));
        }
        if failing == "spawn" {
            pod.step(Event::Spawned(Err("cannot execute".to_owned())));
        }
        assert!(matches!(pod.outcome(on), Some(Outcome::Refused(_))), "{failing}");
        pod.returns("finalize", Ok(Returned::Nothing));
        assert_eq!(pod.state(), ProcessState::Dead, "{failing}");
        assert_eq!(pod.count(|effect| *effect == Effect::Died), 1);
        let late = pod.submit(Task::On(None));
        assert!(matches!(pod.outcome(late), Some(Outcome::Gone(_))));
    }
}

#[test]
fn off_tears_down_waits_for_the_grace_and_kills() {
    let (mut pod, pid) = Pod::running(settings());
    let off = pod.submit_with(Task::Off, None, 3600 * SECOND);
    assert_eq!(pod.state(), ProcessState::Terminating);
    pod.returns("tear-down", Ok(Returned::Nothing));
    pod.wait(59 * SECOND);
    assert_eq!(pod.count(|effect| matches!(effect, Effect::Kill(_))), 0);
    pod.wait(SECOND);
    assert_eq!(pod.effects.last(), Some(&Effect::Kill(pid)));
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    assert_eq!(pod.outcome(off), Some(Outcome::Done(json!({}))));
    assert_eq!((pod.state(), pod.spawns()), (ProcessState::Stopped, 1));
}

#[test]
fn a_tear_down_that_fails_is_replaced_by_sigterm() {
    let (mut pod, pid) = Pod::running(settings());
    pod.submit(Task::Off);
    pod.returns("tear-down", Err(refused()));
    assert_eq!(pod.effects.last(), Some(&Effect::Terminate(pid)));
}

#[test]
fn a_stop_waits_for_the_tear_down_callback_even_when_the_process_ended_first() {
    let (mut pod, pid) = Pod::running(settings());
    let off = pod.submit(Task::Off);
    pod.step(Event::Exited(pid, Exit::Code(0)));
    assert_eq!(pod.outcome(off), None);
    pod.returns("tear-down", Ok(Returned::Nothing));
    assert_eq!(pod.outcome(off), Some(Outcome::Done(json!({}))));
    assert_eq!(pod.state(), ProcessState::Stopped);
}

#[test]
fn soft_releases_the_old_process_and_the_next_configure_sees_it() {
    let (mut pod, pid) = Pod::running(LifecycleSettings { soft: true, ..settings() });
    let off = pod.submit_with(Task::Off, None, 3600 * SECOND);
    pod.returns("tear-down", Ok(Returned::Nothing));
    pod.wait(60 * SECOND);
    assert_eq!(pod.outcome(off), Some(Outcome::Done(json!({}))));
    assert_eq!(pod.count(|effect| matches!(effect, Effect::Kill(_))), 0);
    assert_eq!(pod.machine.report().released, [pid]);
    pod.step(Event::Exited(pid, Exit::Code(0)));
    assert_eq!(pod.machine.report().released, [0; 0]);
    assert_eq!(pod.state(), ProcessState::Stopped);
}

#[test]
fn an_unexpected_end_restarts_at_once_and_then_with_a_growing_delay() {
    let (mut pod, pid) = Pod::running(LifecycleSettings { checks: 100, ..settings() });
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    let mut last = pod.spawned();
    let mut delays = Vec::new();
    for _ in 0..8 {
        pod.step(Event::Exited(last, Exit::Code(1)));
        let (crashed, spawns) = (pod.now, pod.spawns());
        while pod.spawns() == spawns {
            pod.now = pod.machine.wake().unwrap();
            pod.step(Event::Tick);
        }
        delays.push(pod.now - crashed);
        last = pod.spawned();
    }
    assert!(delays[0] >= SECOND / 2 && delays[0] <= SECOND, "{delays:?}");
    assert!(delays.windows(2).take(5).all(|pair| pair[1] > pair[0]), "{delays:?}");
    assert!(delays.iter().all(|delay| *delay <= 60 * SECOND), "{delays:?}");
}

#[test]
fn a_healthy_minute_makes_the_next_restart_immediate_again() {
    let (mut pod, pid) = Pod::running(LifecycleSettings { checks: 100, ..settings() });
    pod.step(Event::Exited(pid, Exit::Code(1)));
    let again = pod.spawned();
    pod.now += 61 * SECOND;
    pod.step(Event::Exited(again, Exit::Code(1)));
    pod.spawned();
}

#[test]
fn off_cancels_a_pending_restart() {
    let (mut pod, pid) = Pod::running(LifecycleSettings { checks: 100, ..settings() });
    pod.step(Event::Exited(pid, Exit::Code(1)));
    let again = pod.spawned();
    pod.step(Event::Exited(again, Exit::Code(1)));
    let off = pod.submit(Task::Off);
    assert_eq!(pod.outcome(off), Some(Outcome::Done(json!({}))));
    pod.wait(3600 * SECOND);
    assert_eq!((pod.spawns(), pod.state()), (2, ProcessState::Stopped));
}

#[test]
fn exit_code_zero_finalizes_and_the_pod_is_dead() {
    let (mut pod, pid) = Pod::running(settings());
    pod.step(Event::Exited(pid, Exit::Code(0)));
    pod.returns("finalize", Err(refused()));
    assert_eq!((pod.state(), pod.spawns()), (ProcessState::Dead, 1));
}

#[test]
fn one_crash_is_repaired_but_two_between_checks_turn_the_pod_off() {
    let (mut pod, pid) = Pod::running(settings());
    pod.step(Event::Exited(pid, Exit::Code(1)));
    let again = pod.spawned();
    pod.wait(SECOND);
    pod.returns("sanity-check", Ok(Returned::Metrics(Map::new())));
    assert_eq!(pod.state(), ProcessState::Running);
    pod.step(Event::Exited(again, Exit::Code(1)));
    pod.now += SECOND;
    pod.step(Event::Tick);
    let third = pod.spawned();
    pod.step(Event::Exited(third, Exit::Code(1)));
    pod.wait(SECOND);
    assert_eq!(pod.state(), ProcessState::Stopped);
    pod.wait(3600 * SECOND);
    assert_eq!(pod.spawns(), 3);
}

#[test]
fn checks_run_on_schedule_and_too_many_failures_in_a_row_turn_the_process_off() {
    let (mut pod, _) = Pod::running(LifecycleSettings { checks: 3, check_every: 5 * SECOND, ..settings() });
    for (round, result) in
        [Err(refused()), Ok(Returned::Nothing), Err(refused()), Err(refused()), Err(refused())].into_iter().enumerate()
    {
        pod.wait(if round == 0 { SECOND } else { 5 * SECOND });
        assert_eq!(pod.calls("sanity-check"), round + 1);
        pod.returns("sanity-check", result);
        assert_eq!(pod.calls("tear-down"), usize::from(round == 4), "{round}");
    }
    assert_eq!(pod.state(), ProcessState::Terminating);
}

#[test]
fn metrics_are_those_of_the_last_check_and_empty_while_stopped() {
    let (mut pod, pid) = Pod::running(settings());
    pod.wait(SECOND);
    let metrics = Map::from_iter([("clients".to_owned(), json!(3))]);
    pod.returns("sanity-check", Ok(Returned::Metrics(metrics.clone())));
    assert_eq!(pod.machine.report().metrics, metrics);
    pod.submit(Task::Off);
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    pod.returns("tear-down", Ok(Returned::Nothing));
    assert_eq!(pod.machine.report().metrics, Map::new());
}

#[test]
fn sanity_is_that_of_the_present_process_and_unknown_before_its_first_check() {
    let (mut pod, pid) = Pod::running(LifecycleSettings { checks: 3, check_every: 5 * SECOND, ..settings() });
    assert_eq!(pod.machine.report().sane, None);
    for (wait, result, sane) in [(SECOND, Err(refused()), false), (5 * SECOND, Ok(Returned::Nothing), true)] {
        pod.wait(wait);
        pod.returns("sanity-check", result);
        assert_eq!(pod.machine.report().sane, Some(sane));
    }
    pod.step(Event::Exited(pid, Exit::Code(1)));
    assert_eq!(pod.machine.report().sane, None);
    pod.spawned();
    pod.wait(SECOND);
    pod.returns("sanity-check", Ok(Returned::Nothing));
    assert_eq!(pod.machine.report().sane, Some(true));
    pod.submit(Task::Off);
    assert_eq!(pod.machine.report().sane, None);
}

#[test]
fn a_check_yields_to_a_request_and_comes_again_after_it() {
    let (mut pod, _) = Pod::running(settings());
    pod.wait(SECOND);
    assert_eq!(pod.calls("sanity-check"), 1);
    let signal = pod.submit(Task::Signal(None));
    assert_eq!(pod.count(|effect| *effect == Effect::CancelCall), 1);
    pod.returns("signaled", Ok(Returned::Json(json!([1]))));
    assert_eq!(pod.outcome(signal), Some(Outcome::Done(json!([1]))));
    assert_eq!(pod.calls("sanity-check"), 2);
    pod.returns("sanity-check", Ok(Returned::Nothing));
    assert_eq!(pod.state(), ProcessState::Running);
}

#[test]
fn a_request_that_never_began_is_dropped_and_one_that_did_goes_on() {
    let mut pod = Pod::new(settings());
    let slow = pod.submit_with(Task::Signal(None), None, 2 * SECOND);
    let waiting = pod.submit_with(Task::On(Some(view("1"))), None, SECOND);
    pod.wait(2 * SECOND);
    assert_eq!((pod.outcome(waiting), pod.outcome(slow)), (Some(Outcome::TimedOut(Overrun::Dropped)), None));
    pod.wait(Duration::from_millis(100));
    assert_eq!(pod.outcome(slow), Some(Outcome::TimedOut(Overrun::GoesOn)));
    pod.returns("signaled", Ok(Returned::Nothing));
    assert_eq!(pod.calls("initialize"), 0);
    assert_eq!(pod.count(|effect| matches!(effect, Effect::Reply(1, _))), 1);
}

#[test]
fn a_callback_that_is_stopped_at_the_limit_of_its_request_is_told_so() {
    let mut pod = Pod::new(settings());
    let slow = pod.submit_with(Task::Signal(None), None, 2 * SECOND);
    pod.wait(2 * SECOND);
    let failure = Failure { callback: Some("signaled"), blame: Blame::Plugin, message: "too late".to_owned() };
    pod.returns("signaled", Err(CallFailure { failure, overrun: true }));
    assert_eq!(pod.outcome(slow), Some(Outcome::TimedOut(Overrun::Stopped)));
}

#[test]
fn a_command_of_a_leadership_that_ended_while_it_waited_does_not_begin() {
    let mut pod = Pod::new(settings());
    pod.epoch = Some(7);
    pod.submit(Task::Signal(None));
    let waits = pod.post(Task::On(Some(view("1"))), 7, 1);
    let waits_too = pod.post(Task::On(Some(view("1"))), 7, 2);
    pod.epoch = Some(9);
    pod.returns("signaled", Ok(Returned::Nothing));
    for ticket in [waits, waits_too] {
        assert!(matches!(pod.outcome(ticket), Some(Outcome::Superseded(_))));
    }
    assert_eq!(pod.calls("initialize"), 0);
}

#[test]
fn a_command_does_not_begin_while_it_is_not_known_who_holds_the_lock() {
    let mut pod = Pod::new(settings());
    for command in [Task::On(Some(view("1"))), Task::Kill] {
        let ticket = pod.post(command, 7, 1);
        assert_eq!(pod.outcome(ticket), Some(Outcome::Lapsed));
    }
    assert_eq!((pod.calls("initialize"), pod.state()), (0, ProcessState::Stopped));
}

#[test]
fn a_late_message_does_not_undo_what_the_same_leadership_posted_after_it() {
    let (mut pod, _) = Pod::running(LifecycleSettings { strict: true, ..settings() });
    pod.epoch = Some(7);
    let check = pod.post(Task::Check(view("2")), 7, 5);
    pod.returns("can-configure", Ok(Returned::Nothing));
    assert_eq!(pod.outcome(check), Some(Outcome::Done(json!({}))));
    for late in [Task::Off, Task::On(Some(view("1"))), Task::On(None)] {
        let ticket = pod.post(late, 7, 4);
        assert!(matches!(pod.outcome(ticket), Some(Outcome::Superseded(_))));
    }
    assert_eq!((pod.calls("tear-down"), pod.state()), (0, ProcessState::Running));
    pod.post(Task::Ok(view("1")), 7, 3);
    pod.returns("configured", Ok(Returned::Nothing));
    pod.post(Task::Off, 7, 5);
    assert_eq!(pod.calls("tear-down"), 1, "what was posted next begins");
}

#[test]
fn the_next_leadership_counts_its_posts_anew() {
    let (mut pod, _) = Pod::running(settings());
    pod.epoch = Some(7);
    pod.post(Task::Check(view("1")), 7, 1000);
    pod.returns("can-configure", Ok(Returned::Nothing));
    pod.epoch = Some(9);
    pod.post(Task::Off, 9, 1);
    assert_eq!(pod.calls("tear-down"), 1);
}

#[test]
fn kill_pre_empts_what_runs_and_what_waits() {
    let mut pod = Pod::new(settings());
    let on = pod.submit(Task::On(Some(view("1"))));
    let waiting = pod.submit(Task::Off);
    let kill = pod.submit(Task::Kill);
    let too = pod.submit(Task::Kill);
    assert_eq!(pod.count(|effect| *effect == Effect::CancelCall), 1);
    pod.returns("finalize", Ok(Returned::Nothing));
    for ticket in [on, waiting] {
        assert!(matches!(pod.outcome(ticket), Some(Outcome::Gone(_))));
    }
    for ticket in [kill, too] {
        assert_eq!(pod.outcome(ticket), Some(Outcome::Done(json!({}))));
    }
    assert_eq!((pod.state(), pod.spawns()), (ProcessState::Dead, 0));
}

#[test]
fn kill_of_a_pod_that_never_did_anything_is_answered_and_needs_no_plugin() {
    let mut pod = Pod::new(settings());
    let kill = pod.submit(Task::Kill);
    assert_eq!(pod.outcome(kill), Some(Outcome::Done(json!({}))));
    assert_eq!(pod.calls("finalize"), 0);
}

#[test]
fn kill_cuts_the_grace_of_a_stop_under_way() {
    let (mut pod, pid) = Pod::running(settings());
    let off = pod.submit(Task::Off);
    pod.returns("tear-down", Ok(Returned::Nothing));
    let kill = pod.submit(Task::Kill);
    assert_eq!(pod.effects.last(), Some(&Effect::Kill(pid)));
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    pod.returns("finalize", Ok(Returned::Nothing));
    assert!(matches!(pod.outcome(off), Some(Outcome::Gone(_))));
    assert_eq!(pod.outcome(kill), Some(Outcome::Done(json!({}))));
}

#[test]
fn a_check_of_a_process_that_crashed_meanwhile_counts_neither_way() {
    let (mut pod, pid) = Pod::running(settings());
    pod.wait(SECOND);
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    assert_eq!(pod.count(|effect| *effect == Effect::CancelCall), 1);
    pod.spawned();
    pod.wait(SECOND);
    pod.returns("sanity-check", Ok(Returned::Nothing));
    assert_eq!((pod.state(), pod.calls("tear-down")), (ProcessState::Running, 0));
}

#[test]
fn kill_while_a_restart_is_being_spawned_stops_what_comes_of_it_and_finalizes() {
    for spawned in [Ok(7), Err("no such program".to_owned())] {
        let (mut pod, pid) = Pod::running(settings());
        pod.submit(Task::Signal(None));
        pod.step(Event::Exited(pid, Exit::Code(1)));
        let kill = pod.submit(Task::Kill);
        assert_eq!(pod.effects.last(), Some(&Effect::CancelCall), "the callback does not pass for finalize");
        pod.step(Event::Spawned(spawned.clone()));
        if spawned.is_ok() {
            pod.returns("tear-down", Ok(Returned::Nothing));
            pod.step(Event::Exited(7, Exit::Signal(15)));
        }
        pod.returns("finalize", Ok(Returned::Nothing));
        assert_eq!(pod.outcome(kill), Some(Outcome::Done(json!({}))));
        assert_eq!((pod.state(), pod.machine.wake()), (ProcessState::Dead, None), "a dead pod waits for nothing");
    }
}

#[test]
fn forcing_gives_up_a_process_that_is_being_spawned() {
    let mut pod = Pod::new(settings());
    pod.submit(Task::On(Some(view("1"))));
    pod.returns("initialize", Ok(Returned::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    pod.step(Event::Leave);
    pod.step(Event::Force);
    assert!(pod.effects.contains(&Effect::AbandonSpawn));
    assert_eq!(pod.effects.last(), Some(&Effect::Left));
}

#[test]
fn leaving_cuts_the_grace_of_a_kill_under_way() {
    let (mut pod, pid) = Pod::running(settings());
    pod.submit(Task::Kill);
    pod.returns("tear-down", Ok(Returned::Nothing));
    pod.step(Event::Leave);
    assert_eq!(pod.effects.last(), Some(&Effect::Kill(pid)));
}

#[test]
fn forcing_a_kill_whose_process_is_gone_but_whose_tear_down_is_not_ends_once() {
    let (mut pod, pid) = Pod::running(settings());
    pod.submit(Task::Kill);
    pod.step(Event::Exited(pid, Exit::Code(1)));
    pod.step(Event::Force);
    assert_eq!(pod.count(|effect| *effect == Effect::Died), 1);
    assert_eq!(pod.effects.last(), Some(&Effect::Left));
}

#[test]
fn a_request_that_waited_gives_its_callback_what_is_left_of_its_limit() {
    let mut pod = Pod::new(settings());
    pod.submit(Task::Signal(None));
    pod.submit_with(Task::Signal(None), None, 10 * SECOND);
    pod.now += 4 * SECOND;
    pod.returns("signaled", Ok(Returned::Nothing));
    assert!(matches!(pod.effects.last(), Some(Effect::Call(_, _, limit)) if *limit == 6 * SECOND));
}

#[test]
fn leaving_stops_finalizes_and_ends_whatever_the_phase() {
    // Running.
    let (mut pod, pid) = Pod::running(settings());
    pod.step(Event::Leave);
    pod.returns("tear-down", Ok(Returned::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    pod.returns("finalize", Ok(Returned::Nothing));
    assert_eq!(pod.effects.last(), Some(&Effect::Left));
    // While the process is being spawned.
    let mut pod = Pod::new(settings());
    pod.submit(Task::On(Some(view("1"))));
    pod.returns("initialize", Ok(Returned::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    pod.step(Event::Leave);
    pod.step(Event::Spawned(Ok(7)));
    pod.returns("tear-down", Ok(Returned::Nothing));
    pod.step(Event::Exited(7, Exit::Signal(15)));
    pod.returns("finalize", Ok(Returned::Nothing));
    assert_eq!(pod.effects.last(), Some(&Effect::Left));
    // While it is being spawned, which fails.
    let mut pod = Pod::new(settings());
    pod.submit(Task::On(Some(view("1"))));
    pod.returns("initialize", Ok(Returned::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    pod.step(Event::Leave);
    pod.step(Event::Spawned(Err("no".to_owned())));
    pod.returns("finalize", Ok(Returned::Nothing));
    assert_eq!(pod.effects.last(), Some(&Effect::Left));
    // Before anything, and when dead.
    let mut pod = Pod::new(settings());
    pod.step(Event::Leave);
    assert_eq!(pod.effects.last(), Some(&Effect::Left));
    let mut pod = Pod::new(settings());
    pod.submit(Task::Kill);
    pod.step(Event::Leave);
    assert_eq!(pod.count(|effect| *effect == Effect::Left), 1);
}

#[test]
fn a_second_signal_skips_to_sigkill_and_finalize_is_left_out() {
    let (mut pod, pid) = Pod::running(settings());
    pod.step(Event::Leave);
    pod.step(Event::Force);
    assert_eq!(pod.effects.last(), Some(&Effect::Kill(pid)));
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    assert_eq!(pod.effects.last(), Some(&Effect::Left));
    assert_eq!(pod.calls("finalize"), 0);
}

#[test]
fn forcing_at_once_ends_in_any_phase() {
    let (mut pod, pid) = Pod::running(settings());
    pod.step(Event::Force);
    assert!(pod.effects.contains(&Effect::Kill(pid)));
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    assert_eq!(pod.effects.last(), Some(&Effect::Left));
    let (mut pod, pid) = Pod::running(settings());
    pod.step(Event::Exited(pid, Exit::Code(0)));
    pod.step(Event::Force);
    assert_eq!(pod.effects.last(), Some(&Effect::Left), "while finalizing");
}

#[test]
fn start_false_configures_and_waits_to_be_started() {
    let mut pod = Pod::new(settings());
    pod.machine = Machine::new(settings(), false);
    let on = pod.submit(Task::On(Some(view("1"))));
    pod.returns("initialize", Ok(Returned::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    assert_eq!(pod.outcome(on), Some(Outcome::Done(json!({}))));
    assert_eq!(pod.spawns(), 0);
    assert!(pod.machine.report().configured);
    pod.submit(Task::On(None));
    pod.spawned();
    assert_eq!(pod.state(), ProcessState::Running);
}

#[test]
fn a_restart_does_not_wait_for_a_slow_callback() {
    let (mut pod, pid) = Pod::running(settings());
    pod.submit(Task::Ok(view("1")));
    pod.step(Event::Exited(pid, Exit::Code(1)));
    pod.spawned();
    assert_eq!(pod.state(), ProcessState::Running);
}

#[test]
fn a_refused_check_is_406_and_a_failing_ok_or_signal_is_500() {
    let mut pod = Pod::new(settings());
    let check = pod.submit(Task::Check(view("1")));
    pod.returns("can-configure", Err(refused()));
    let ok = pod.submit(Task::Ok(view("1")));
    pod.returns("configured", Err(refused()));
    let signal = pod.submit(Task::Signal(Some(json!(1))));
    pod.returns("signaled", Err(refused()));
    assert!(matches!(pod.outcome(check), Some(Outcome::Refused(_))));
    assert!(matches!(pod.outcome(ok), Some(Outcome::Failed(_))));
    assert!(matches!(pod.outcome(signal), Some(Outcome::Failed(_))));
    assert_eq!(pod.state(), ProcessState::Stopped);
}

#[test]
fn callbacks_get_the_documented_deadlines() {
    let limit_of = |pod: &Pod, name: &str| {
        pod.effects.iter().rev().find_map(|effect| match effect {
            Effect::Call(_, callback, limit) if callback.name() == name => Some(*limit),
            _ => None,
        })
    };
    let mut pod = Pod::new(LifecycleSettings { grace: 7 * SECOND, check_every: 600 * SECOND, ..settings() });
    pod.submit_with(Task::On(Some(view("1"))), None, 10 * SECOND);
    assert_eq!(limit_of(&pod, "initialize"), Some(10 * SECOND));
    pod.now += 4 * SECOND;
    pod.returns("initialize", Ok(Returned::Nothing));
    assert_eq!(limit_of(&pod, "configure"), Some(6 * SECOND), "shared with initialize");
    pod.returns("configure", Ok(Pod::command()));
    pod.spawned();
    pod.wait(SECOND);
    assert_eq!(limit_of(&pod, "sanity-check"), Some(60 * SECOND));
    pod.returns("sanity-check", Ok(Returned::Nothing));
    pod.submit(Task::Off);
    assert_eq!(limit_of(&pod, "tear-down"), Some(7 * SECOND));
}
