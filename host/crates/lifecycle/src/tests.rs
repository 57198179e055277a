//! Decisions of the machine, as tables of events and expected effects.

use std::time::{Duration, Instant};

use ochopod_init::Exit;
use ochopod_model::{
    Digest, PostedView,
    status::{Blame, ProcessState},
};
use ochopod_plugin::{Command, LifecycleSettings, OnChange};
use serde_json::{Map, json};

use super::{
    Callback, CallbackError, CallbackErrorKind, CallbackValue, ControlTask, Effect, Event, Failure, LifecycleMachine,
    Outcome, Request, RequestId, StartFailure, TimeoutResult,
};

mod readiness;
mod replacement;
mod shortages;
mod shutdowns;

const SECOND: Duration = Duration::from_secs(1);

/// A machine with a clock of its own and a record of its effects.
struct Pod {
    machine: LifecycleMachine,
    now: Instant,
    epoch: Option<i64>,
    effects: Vec<Effect>,
    last_id: RequestId,
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
        on_change: OnChange::Restart,
        ready_within: Duration::from_mins(1),
    }
}

fn view(dependency: &str) -> PostedView {
    let body = format!(
        r#"{{"key":"a","pods":{{"a":{{"seq":1}}}},"dependencies":{{"db":{{"x":{{"seq":0,"ip":"{dependency}"}}}}}}}}"#
    );
    PostedView::parse(body.as_bytes()).unwrap()
}

/// Returns the failure of a start because of the program.
fn unstartable(reason: &str) -> StartFailure {
    StartFailure { reason: reason.to_owned(), transient: false }
}

fn refused() -> CallbackError {
    let failure = Failure { callback: Some("x"), blame: Blame::Plugin, message: "no".to_owned() };
    CallbackError { failure, kind: CallbackErrorKind::Failed }
}

impl Pod {
    fn new(settings: LifecycleSettings) -> Self {
        let machine = LifecycleMachine::new(settings, true);
        Self { machine, now: Instant::now(), epoch: None, effects: Vec::new(), last_id: 0, pids: 100 }
    }

    fn step(&mut self, event: Event) {
        let effects = self.machine.step(event, self.now, self.epoch);
        self.effects.extend(effects);
    }

    fn submit(&mut self, command: ControlTask) -> RequestId {
        self.submit_with(command, None, 60 * SECOND)
    }

    fn submit_with(&mut self, command: ControlTask, generation: Option<&str>, limit: Duration) -> RequestId {
        self.last_id += 1;
        let generation = generation.map(Digest::from);
        let request = Request { task: command, epoch: None, number: None, generation, limit };
        self.step(Event::Submitted(self.last_id, request));
        self.last_id
    }

    /// Posts a request with the view that a leader posts.
    fn post(&mut self, command: ControlTask, epoch: i64, number: u64) -> RequestId {
        self.last_id += 1;
        let (epoch, number) = (Some(epoch), Some(number));
        let request = Request { task: command, epoch, number, generation: None, limit: 60 * SECOND };
        self.step(Event::Submitted(self.last_id, request));
        self.last_id
    }

    /// Completes the running callback with this result.
    fn returns(&mut self, name: &str, result: Result<CallbackValue, CallbackError>) {
        let running = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Call(number, callback, _) => Some((*number, callback.name())),
            _ => None,
        });
        let (number, callback) = running.expect("a callback runs");
        assert_eq!(callback, name);
        self.step(Event::CallbackValue(number, result));
    }

    /// Completes the spawn, with a process that is ready immediately.
    fn spawned(&mut self) -> u32 {
        let pid = self.spawned_unready();
        self.ready();
        pid
    }

    /// Completes the spawn. Whether the process is ready is not known.
    fn spawned_unready(&mut self) -> u32 {
        assert!(matches!(self.effects.last(), Some(Effect::Spawn(_))), "{:?}", self.effects.last());
        self.pids += 1;
        self.step(Event::Spawned(Ok(self.pids)));
        self.pids
    }

    /// Returns ok from `ready`, if it runs.
    fn ready(&mut self) {
        if let Some(Effect::Call(number, Callback::Ready(..), _)) = self.effects.last() {
            self.step(Event::CallbackValue(*number, Ok(CallbackValue::Nothing)));
        }
    }

    /// Waits for a restart.
    fn spawned_within(&mut self, time: Duration) -> u32 {
        let (end, spawns) = (self.now + time, self.spawns());
        while self.spawns() == spawns {
            self.now = self.machine.wake().filter(|wake| *wake <= end).expect("it is started again");
            self.step(Event::Tick);
        }
        self.pids += 1;
        self.step(Event::Spawned(Ok(self.pids)));
        self.ready();
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

    fn command() -> CallbackValue {
        CallbackValue::Command(Command {
            program: "redis-server".to_owned(),
            arguments: vec![],
            environment: [].into(),
            reload: None,
        })
    }

    /// Returns a pod that was configured with this dependency and runs.
    fn running(settings: LifecycleSettings) -> (Self, u32) {
        let mut pod = Self::new(settings);
        let on = pod.submit(ControlTask::On(Some(view("1"))));
        pod.returns("initialize", Ok(CallbackValue::Nothing));
        pod.returns("configure", Ok(Self::command()));
        let pid = pod.spawned();
        assert_eq!(pod.outcome(on), Some(Outcome::Done(json!({}))));
        (pod, pid)
    }

    fn outcome(&self, id: RequestId) -> Option<Outcome> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Reply(answered, outcome) if *answered == id => Some(outcome.clone()),
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
fn first_on_initializes_configures_and_spawns_before_it_is_answered() {
    let mut pod = Pod::new(settings());
    let on = pod.submit(ControlTask::On(Some(view("1"))));
    pod.returns("initialize", Ok(CallbackValue::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    assert_eq!(pod.outcome(on), None);
    pod.spawned();
    assert_eq!(pod.outcome(on), Some(Outcome::Done(json!({}))));
    assert_eq!(pod.state(), ProcessState::Running);
}

#[test]
fn running_process_is_kept_unless_strict_or_its_dependencies_differ() {
    for (strict, dependency, restarted) in [(false, "1", false), (false, "2", true), (true, "1", true)] {
        let (mut pod, pid) = Pod::running(LifecycleSettings { strict, ..settings() });
        let on = pod.submit_with(ControlTask::On(Some(view(dependency))), Some("g2"), 60 * SECOND);
        if restarted {
            pod.returns("tear-down", Ok(CallbackValue::Nothing));
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
fn completed_generation_is_not_repeated_even_if_strict() {
    let (mut pod, pid) = Pod::running(LifecycleSettings { strict: true, ..settings() });
    let first = pod.submit_with(ControlTask::On(Some(view("1"))), Some("g"), 60 * SECOND);
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    pod.returns("configure", Ok(Pod::command()));
    pod.spawned();
    let off = pod.submit_with(ControlTask::Off, Some("g"), 60 * SECOND);
    let again = pod.submit_with(ControlTask::On(Some(view("1"))), Some("g"), 60 * SECOND);
    for id in [first, off, again] {
        assert_eq!(pod.outcome(id), Some(Outcome::Done(json!({}))));
    }
    assert_eq!((pod.spawns(), pod.state()), (2, ProcessState::Running));
}

#[test]
fn on_without_a_view_starts_the_last_command_or_is_rejected() {
    let mut pod = Pod::new(settings());
    let never = pod.submit(ControlTask::On(None));
    assert!(matches!(pod.outcome(never), Some(Outcome::Rejected(_))));
    assert_eq!(pod.state(), ProcessState::Stopped);

    let (mut pod, pid) = Pod::running(settings());
    pod.submit(ControlTask::Off);
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    let on = pod.submit(ControlTask::On(None));
    pod.spawned();
    assert_eq!(pod.outcome(on), Some(Outcome::Done(json!({}))));
    assert_eq!(pod.calls("configure"), 1);
}

#[test]
fn pod_that_cannot_be_configured_rejects_and_dies() {
    for failing in ["initialize", "configure", "spawn"] {
        let mut pod = Pod::new(settings());
        let on = pod.submit(ControlTask::On(Some(view("1"))));
        let result = |name: &str, good| if failing == name { Err(refused()) } else { Ok(good) };
        pod.returns("initialize", result("initialize", CallbackValue::Nothing));
        if failing != "initialize" {
            pod.returns("configure", result("configure", Pod::command()));
        }
        if failing == "spawn" {
            pod.step(Event::Spawned(Err(unstartable("cannot execute"))));
        }
        assert!(matches!(pod.outcome(on), Some(Outcome::Rejected(_))), "{failing}");
        pod.returns("finalize", Ok(CallbackValue::Nothing));
        assert_eq!(pod.state(), ProcessState::Dead, "{failing}");
        assert_eq!(pod.count(|effect| *effect == Effect::Died), 1);
        let late = pod.submit(ControlTask::On(None));
        assert!(matches!(pod.outcome(late), Some(Outcome::Gone(_))));
    }
}

#[test]
fn off_tears_down_and_kills_after_the_grace() {
    let (mut pod, pid) = Pod::running(settings());
    let off = pod.submit_with(ControlTask::Off, None, 3600 * SECOND);
    assert_eq!(pod.state(), ProcessState::Terminating);
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.wait(59 * SECOND);
    assert_eq!(pod.count(|effect| matches!(effect, Effect::Kill(_))), 0);
    pod.wait(SECOND);
    assert_eq!(pod.effects.last(), Some(&Effect::Kill(pid)));
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    assert_eq!(pod.outcome(off), Some(Outcome::Done(json!({}))));
    assert_eq!((pod.state(), pod.spawns()), (ProcessState::Stopped, 1));
}

#[test]
fn failed_tear_down_is_replaced_by_sigterm() {
    let (mut pod, pid) = Pod::running(settings());
    pod.submit(ControlTask::Off);
    pod.returns("tear-down", Err(refused()));
    assert_eq!(pod.effects.last(), Some(&Effect::Terminate(pid)));
}

#[test]
fn stop_waits_for_tear_down_even_if_the_process_exited_first() {
    let (mut pod, pid) = Pod::running(settings());
    let off = pod.submit(ControlTask::Off);
    pod.step(Event::Exited(pid, Exit::Code(0)));
    assert_eq!(pod.outcome(off), None);
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    assert_eq!(pod.outcome(off), Some(Outcome::Done(json!({}))));
    assert_eq!(pod.state(), ProcessState::Stopped);
}

#[test]
fn soft_releases_the_old_process_and_reports_it() {
    let (mut pod, pid) = Pod::running(LifecycleSettings { soft: true, ..settings() });
    let off = pod.submit_with(ControlTask::Off, None, 3600 * SECOND);
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.wait(60 * SECOND);
    assert_eq!(pod.outcome(off), Some(Outcome::Done(json!({}))));
    assert_eq!(pod.count(|effect| matches!(effect, Effect::Kill(_))), 0);
    assert_eq!(pod.machine.report().released, [pid]);
    pod.step(Event::Exited(pid, Exit::Code(0)));
    assert_eq!(pod.machine.report().released, [0; 0]);
    assert_eq!(pod.state(), ProcessState::Stopped);
}

#[test]
fn unexpected_exit_restarts_immediately_then_with_growing_delay() {
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
fn healthy_minute_makes_the_next_restart_immediate_again() {
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
    let off = pod.submit(ControlTask::Off);
    assert_eq!(pod.outcome(off), Some(Outcome::Done(json!({}))));
    pod.wait(3600 * SECOND);
    assert_eq!((pod.spawns(), pod.state()), (2, ProcessState::Stopped));
}

#[test]
fn exit_code_zero_finalizes_and_ends_the_pod() {
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
    pod.returns("sanity-check", Ok(CallbackValue::Health(Map::new(), None)));
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
    for (round, result) in [Err(refused()), Ok(CallbackValue::Nothing), Err(refused()), Err(refused()), Err(refused())]
        .into_iter()
        .enumerate()
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
    pod.returns("sanity-check", Ok(CallbackValue::Health(metrics.clone(), None)));
    assert_eq!(pod.machine.report().metrics, metrics);
    pod.submit(ControlTask::Off);
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    assert_eq!(pod.machine.report().metrics, Map::new());
}

#[test]
fn last_check_is_that_of_the_current_process_and_unknown_before_its_first() {
    let (mut pod, pid) = Pod::running(LifecycleSettings { checks: 3, check_every: 5 * SECOND, ..settings() });
    assert_eq!(pod.machine.report().last_check_passed, None);
    for (wait, result, last_check_passed) in
        [(SECOND, Err(refused()), false), (5 * SECOND, Ok(CallbackValue::Nothing), true)]
    {
        pod.wait(wait);
        pod.returns("sanity-check", result);
        assert_eq!(pod.machine.report().last_check_passed, Some(last_check_passed));
    }
    pod.step(Event::Exited(pid, Exit::Code(1)));
    assert_eq!(pod.machine.report().last_check_passed, None);
    pod.spawned();
    pod.wait(SECOND);
    pod.returns("sanity-check", Ok(CallbackValue::Nothing));
    assert_eq!(pod.machine.report().last_check_passed, Some(true));
    pod.submit(ControlTask::Off);
    assert_eq!(pod.machine.report().last_check_passed, None);
}

#[test]
fn check_yields_to_a_request_and_is_repeated_after_it() {
    let (mut pod, _) = Pod::running(settings());
    pod.wait(SECOND);
    assert_eq!(pod.calls("sanity-check"), 1);
    let signal = pod.submit(ControlTask::Signal(None));
    assert_eq!(pod.count(|effect| *effect == Effect::CancelCall), 1);
    pod.returns("signaled", Ok(CallbackValue::Json(json!([1]))));
    assert_eq!(pod.outcome(signal), Some(Outcome::Done(json!([1]))));
    assert_eq!(pod.calls("sanity-check"), 2);
    pod.returns("sanity-check", Ok(CallbackValue::Nothing));
    assert_eq!(pod.state(), ProcessState::Running);
}

#[test]
fn expired_request_is_dropped_before_its_start_and_continues_after_it() {
    let mut pod = Pod::new(settings());
    let slow = pod.submit_with(ControlTask::Signal(None), None, 2 * SECOND);
    let waiting = pod.submit_with(ControlTask::On(Some(view("1"))), None, SECOND);
    pod.wait(2 * SECOND);
    assert_eq!((pod.outcome(waiting), pod.outcome(slow)), (Some(Outcome::TimedOut(TimeoutResult::NotStarted)), None));
    pod.wait(super::jobs::LATE_REPLY_GRACE);
    assert_eq!(pod.outcome(slow), Some(Outcome::TimedOut(TimeoutResult::StillRunning)));
    pod.returns("signaled", Ok(CallbackValue::Nothing));
    assert_eq!(pod.calls("initialize"), 0);
    assert_eq!(pod.count(|effect| matches!(effect, Effect::Reply(1, _))), 1);
}

#[test]
fn callback_stopped_at_the_limit_is_reported_as_aborted() {
    let mut pod = Pod::new(settings());
    let slow = pod.submit_with(ControlTask::Signal(None), None, 2 * SECOND);
    pod.wait(2 * SECOND);
    let failure = Failure { callback: Some("signaled"), blame: Blame::Plugin, message: "too late".to_owned() };
    pod.returns("signaled", Err(CallbackError { failure, kind: CallbackErrorKind::Overrun }));
    assert_eq!(pod.outcome(slow), Some(Outcome::TimedOut(TimeoutResult::Aborted)));
}

#[test]
fn request_of_a_leadership_that_ended_while_it_waited_does_not_start() {
    let mut pod = Pod::new(settings());
    pod.epoch = Some(7);
    pod.submit(ControlTask::Signal(None));
    let waits = pod.post(ControlTask::On(Some(view("1"))), 7, 1);
    let waits_too = pod.post(ControlTask::On(Some(view("1"))), 7, 2);
    pod.epoch = Some(9);
    pod.returns("signaled", Ok(CallbackValue::Nothing));
    for id in [waits, waits_too] {
        assert!(matches!(pod.outcome(id), Some(Outcome::Superseded(_))));
    }
    assert_eq!(pod.calls("initialize"), 0);
}

#[test]
fn request_does_not_start_while_the_lock_holder_is_unknown() {
    let mut pod = Pod::new(settings());
    for command in [ControlTask::On(Some(view("1"))), ControlTask::Kill] {
        let id = pod.post(command, 7, 1);
        assert_eq!(pod.outcome(id), Some(Outcome::EpochUnknown));
    }
    assert_eq!((pod.calls("initialize"), pod.state()), (0, ProcessState::Stopped));
}

#[test]
fn late_request_does_not_undo_a_later_one_of_the_same_leadership() {
    let (mut pod, _) = Pod::running(LifecycleSettings { strict: true, ..settings() });
    pod.epoch = Some(7);
    let check = pod.post(ControlTask::Check(view("2")), 7, 5);
    pod.returns("can-configure", Ok(CallbackValue::Nothing));
    assert_eq!(pod.outcome(check), Some(Outcome::Done(json!({}))));
    let late = [
        ControlTask::Off,
        ControlTask::On(Some(view("1"))),
        ControlTask::On(None),
        ControlTask::Check(view("1")),
        ControlTask::Kill,
    ];
    for (late, number) in late.into_iter().zip([4, 5, 4, 5, 0]) {
        let id = pod.post(late, 7, number);
        assert!(matches!(pod.outcome(id), Some(Outcome::Late(5, _))), "{:?}", pod.outcome(id));
    }
    assert_eq!((pod.calls("tear-down"), pod.state()), (0, ProcessState::Running));
    pod.post(ControlTask::Ok(view("1")), 7, 3);
    pod.returns("configured", Ok(CallbackValue::Nothing));
    pod.post(ControlTask::Off, 7, 6);
    assert_eq!(pod.calls("tear-down"), 1, "the next request starts");
}

#[test]
fn numbers_of_one_leadership_do_not_affect_the_next() {
    let mut pod = Pod::new(settings());
    pod.epoch = Some(7);
    pod.post(ControlTask::Signal(None), 7, 1 << 53);
    pod.returns("signaled", Ok(CallbackValue::Nothing));
    let late = pod.post(ControlTask::Signal(None), 7, 8);
    assert!(matches!(pod.outcome(late), Some(Outcome::Late(number, _)) if number == 1 << 53));
    pod.epoch = Some(9);
    pod.post(ControlTask::Signal(None), 9, 1);
    assert_eq!(pod.calls("signaled"), 2);
}

#[test]
fn next_leadership_counts_its_requests_from_the_start() {
    let (mut pod, _) = Pod::running(settings());
    pod.epoch = Some(7);
    pod.post(ControlTask::Check(view("1")), 7, 1000);
    pod.returns("can-configure", Ok(CallbackValue::Nothing));
    pod.epoch = Some(9);
    pod.post(ControlTask::Off, 9, 1);
    assert_eq!(pod.calls("tear-down"), 1);
}

#[test]
fn kill_preempts_running_and_waiting_requests() {
    let mut pod = Pod::new(settings());
    let on = pod.submit(ControlTask::On(Some(view("1"))));
    let waiting = pod.submit(ControlTask::Off);
    let kill = pod.submit(ControlTask::Kill);
    let too = pod.submit(ControlTask::Kill);
    assert_eq!(pod.count(|effect| *effect == Effect::CancelCall), 1);
    pod.returns("finalize", Ok(CallbackValue::Nothing));
    for id in [on, waiting] {
        assert!(matches!(pod.outcome(id), Some(Outcome::Gone(_))));
    }
    for id in [kill, too] {
        assert_eq!(pod.outcome(id), Some(Outcome::Done(json!({}))));
    }
    assert_eq!((pod.state(), pod.spawns()), (ProcessState::Dead, 0));
}

#[test]
fn kill_of_an_idle_pod_is_answered_without_the_plugin() {
    let mut pod = Pod::new(settings());
    let kill = pod.submit(ControlTask::Kill);
    assert_eq!(pod.outcome(kill), Some(Outcome::Done(json!({}))));
    assert_eq!(pod.calls("finalize"), 0);
}

#[test]
fn check_of_a_process_that_crashed_meanwhile_has_no_result() {
    let (mut pod, pid) = Pod::running(settings());
    pod.wait(SECOND);
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    assert_eq!(pod.count(|effect| *effect == Effect::CancelCall), 1);
    pod.spawned();
    pod.wait(SECOND);
    pod.returns("sanity-check", Ok(CallbackValue::Nothing));
    assert_eq!((pod.state(), pod.calls("tear-down")), (ProcessState::Running, 0));
}

#[test]
fn kill_during_a_restart_stops_the_new_process_and_finalizes() {
    for spawned in [Ok(7), Err(unstartable("no such program"))] {
        let (mut pod, pid) = Pod::running(settings());
        pod.submit(ControlTask::Signal(None));
        pod.step(Event::Exited(pid, Exit::Code(1)));
        let kill = pod.submit(ControlTask::Kill);
        assert_eq!(pod.effects.last(), Some(&Effect::CancelCall), "the callback does not pass for finalize");
        pod.step(Event::Spawned(spawned.clone()));
        if spawned.is_ok() {
            pod.returns("tear-down", Ok(CallbackValue::Nothing));
            pod.step(Event::Exited(7, Exit::Signal(15)));
        }
        pod.returns("finalize", Ok(CallbackValue::Nothing));
        assert_eq!(pod.outcome(kill), Some(Outcome::Done(json!({}))));
        assert_eq!((pod.state(), pod.machine.wake()), (ProcessState::Dead, None), "a dead pod waits for nothing");
    }
}

#[test]
fn force_abandons_a_process_that_is_being_spawned() {
    let mut pod = Pod::new(settings());
    pod.submit(ControlTask::On(Some(view("1"))));
    pod.returns("initialize", Ok(CallbackValue::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    pod.step(Event::Stop);
    pod.step(Event::Force);
    assert!(pod.effects.contains(&Effect::AbandonSpawn));
    assert_eq!(pod.effects.last(), Some(&Effect::Finished));
}

#[test]
fn force_of_a_kill_waiting_for_tear_down_ends_once() {
    let (mut pod, pid) = Pod::running(settings());
    pod.submit(ControlTask::Kill);
    pod.step(Event::Exited(pid, Exit::Code(1)));
    pod.step(Event::Force);
    assert_eq!(pod.count(|effect| *effect == Effect::Died), 1);
    assert_eq!(pod.effects.last(), Some(&Effect::Finished));
}

#[test]
fn callback_has_the_rest_of_the_limit_of_a_request_that_waited() {
    let mut pod = Pod::new(settings());
    pod.submit(ControlTask::Signal(None));
    pod.submit_with(ControlTask::Signal(None), None, 10 * SECOND);
    pod.now += 4 * SECOND;
    pod.returns("signaled", Ok(CallbackValue::Nothing));
    assert!(matches!(pod.effects.last(), Some(Effect::Call(_, _, limit)) if *limit == 6 * SECOND));
}

#[test]
fn leave_stops_finalizes_and_ends_in_any_phase() {
    // Running.
    let (mut pod, pid) = Pod::running(settings());
    pod.step(Event::Stop);
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    pod.returns("finalize", Ok(CallbackValue::Nothing));
    assert_eq!(pod.effects.last(), Some(&Effect::Finished));
    // While the process is being spawned.
    let mut pod = Pod::new(settings());
    pod.submit(ControlTask::On(Some(view("1"))));
    pod.returns("initialize", Ok(CallbackValue::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    pod.step(Event::Stop);
    pod.step(Event::Spawned(Ok(7)));
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(7, Exit::Signal(15)));
    pod.returns("finalize", Ok(CallbackValue::Nothing));
    assert_eq!(pod.effects.last(), Some(&Effect::Finished));
    // While it is being spawned, which fails.
    let mut pod = Pod::new(settings());
    pod.submit(ControlTask::On(Some(view("1"))));
    pod.returns("initialize", Ok(CallbackValue::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    pod.step(Event::Stop);
    pod.step(Event::Spawned(Err(unstartable("no"))));
    pod.returns("finalize", Ok(CallbackValue::Nothing));
    assert_eq!(pod.effects.last(), Some(&Effect::Finished));
    // Before anything, and when dead.
    let mut pod = Pod::new(settings());
    pod.step(Event::Stop);
    assert_eq!(pod.effects.last(), Some(&Effect::Finished));
    let mut pod = Pod::new(settings());
    pod.submit(ControlTask::Kill);
    pod.step(Event::Stop);
    assert_eq!(pod.count(|effect| *effect == Effect::Finished), 1);
}

#[test]
fn force_skips_to_sigkill_without_finalize() {
    let (mut pod, pid) = Pod::running(settings());
    pod.step(Event::Stop);
    pod.step(Event::Force);
    assert_eq!(pod.effects.last(), Some(&Effect::Kill(pid)));
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    assert_eq!(pod.effects.last(), Some(&Effect::Finished));
    assert_eq!(pod.calls("finalize"), 0);
}

#[test]
fn immediate_force_ends_in_any_phase() {
    let (mut pod, pid) = Pod::running(settings());
    pod.step(Event::Force);
    assert!(pod.effects.contains(&Effect::Kill(pid)));
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    assert_eq!(pod.effects.last(), Some(&Effect::Finished));
    let (mut pod, pid) = Pod::running(settings());
    pod.step(Event::Exited(pid, Exit::Code(0)));
    pod.step(Event::Force);
    assert_eq!(pod.effects.last(), Some(&Effect::Finished), "while finalizing");
}

#[test]
fn start_false_configures_and_waits_for_on() {
    let mut pod = Pod::new(settings());
    pod.machine = LifecycleMachine::new(settings(), false);
    let on = pod.submit(ControlTask::On(Some(view("1"))));
    pod.returns("initialize", Ok(CallbackValue::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    assert_eq!(pod.outcome(on), Some(Outcome::Done(json!({}))));
    assert_eq!(pod.spawns(), 0);
    assert!(pod.machine.report().configured);
    pod.submit(ControlTask::On(None));
    pod.spawned();
    assert_eq!(pod.state(), ProcessState::Running);
}

#[test]
fn restart_does_not_wait_for_a_slow_callback() {
    let (mut pod, pid) = Pod::running(settings());
    pod.submit(ControlTask::Ok(view("1")));
    pod.step(Event::Exited(pid, Exit::Code(1)));
    pod.spawned();
    assert_eq!(pod.state(), ProcessState::Running);
}

#[test]
fn rejected_check_is_406_and_failed_ok_or_signal_is_500() {
    let mut pod = Pod::new(settings());
    let check = pod.submit(ControlTask::Check(view("1")));
    pod.returns("can-configure", Err(refused()));
    let ok = pod.submit(ControlTask::Ok(view("1")));
    pod.returns("configured", Err(refused()));
    let signal = pod.submit(ControlTask::Signal(Some(json!(1))));
    pod.returns("signaled", Err(refused()));
    assert!(matches!(pod.outcome(check), Some(Outcome::Rejected(_))));
    assert!(matches!(pod.outcome(ok), Some(Outcome::Failed(_))));
    assert!(matches!(pod.outcome(signal), Some(Outcome::Failed(_))));
    assert_eq!(pod.state(), ProcessState::Stopped);
}

#[test]
fn callbacks_have_the_documented_deadlines() {
    let limit_of = |pod: &Pod, name: &str| {
        pod.effects.iter().rev().find_map(|effect| match effect {
            Effect::Call(_, callback, limit) if callback.name() == name => Some(*limit),
            _ => None,
        })
    };
    let mut pod = Pod::new(LifecycleSettings { grace: 7 * SECOND, check_every: 600 * SECOND, ..settings() });
    pod.submit_with(ControlTask::On(Some(view("1"))), None, 10 * SECOND);
    assert_eq!(limit_of(&pod, "initialize"), Some(10 * SECOND));
    pod.now += 4 * SECOND;
    pod.returns("initialize", Ok(CallbackValue::Nothing));
    assert_eq!(limit_of(&pod, "configure"), Some(6 * SECOND), "shared with initialize");
    pod.returns("configure", Ok(Pod::command()));
    pod.spawned();
    pod.wait(SECOND);
    assert_eq!(limit_of(&pod, "sanity-check"), Some(60 * SECOND));
    pod.returns("sanity-check", Ok(CallbackValue::Nothing));
    pod.submit(ControlTask::Off);
    assert_eq!(limit_of(&pod, "tear-down"), Some(7 * SECOND));
}

#[test]
fn withdrawn_request_is_dropped_unless_it_has_started() {
    let (mut pod, _) = Pod::running(settings());
    let slow = pod.submit(ControlTask::Signal(None));
    let (check, other) = (pod.submit(ControlTask::Check(view("1"))), pod.submit(ControlTask::Signal(None)));
    assert!(!pod.machine.is_waiting(slow) && pod.machine.is_waiting(check));
    pod.step(Event::Withdrawn(slow));
    pod.step(Event::Withdrawn(check));
    assert_eq!((pod.outcome(check), pod.outcome(slow)), (Some(Outcome::TimedOut(TimeoutResult::NotStarted)), None));
    pod.returns("signaled", Ok(CallbackValue::Nothing));
    assert_eq!(pod.outcome(slow), Some(Outcome::Done(json!({}))));
    assert!(!pod.machine.is_waiting(other) && pod.outcome(other).is_none(), "the next one starts");
}

/// Returns the reported reason for which a pod does not run after these events.
fn reason(settings: LifecycleSettings, story: impl FnOnce(&mut Pod, u32)) -> (ProcessState, Option<String>) {
    let (mut pod, pid) = Pod::running(settings);
    assert_eq!(pod.machine.report().reason, None);
    story(&mut pod, pid);
    (pod.state(), pod.machine.report().reason)
}

/// The reported reason, the state, and the events that lead there.
type Story<'a> = (&'a str, ProcessState, &'a dyn Fn(&mut Pod, u32));

#[test]
fn pod_that_is_off_or_dead_reports_why() {
    let off = |pod: &mut Pod, pid| {
        pod.returns("tear-down", Ok(CallbackValue::Nothing));
        pod.step(Event::Exited(pid, Exit::Signal(15)));
    };
    let crash = |pod: &mut Pod, pid| pod.step(Event::Exited(pid, Exit::Signal(9)));
    let stories: [Story<'_>; 9] = [
        ("turned off by /control/off", ProcessState::Stopped, &|pod, pid| {
            pod.submit(ControlTask::Off);
            off(pod, pid);
        }),
        ("stopped for a configuration", ProcessState::Stopped, &|pod, pid| {
            pod.epoch = Some(5);
            pod.post(ControlTask::Off, 5, 1);
            off(pod, pid);
        }),
        ("turned off after a failed sanity check: no", ProcessState::Stopped, &|pod, pid| {
            pod.wait(SECOND);
            pod.returns("sanity-check", Err(refused()));
            off(pod, pid);
        }),
        (
            "turned off after a failed sanity check: sub-process ended 2 times since the last check: killed by SIGKILL",
            ProcessState::Stopped,
            &|pod, pid| {
                crash(pod, pid);
                let again = pod.spawned();
                crash(pod, again);
                let last = pod.spawned_within(SECOND);
                pod.wait(SECOND);
                off(pod, last);
            },
        ),
        ("sub-process killed by SIGKILL, restarting", ProcessState::Stopped, &|pod, pid| crash(pod, pid)),
        ("sub-process could not be started, retrying: no such file", ProcessState::Stopped, &|pod, pid| {
            crash(pod, pid);
            pod.step(Event::Spawned(Err(unstartable("no such file"))));
        }),
        ("sub-process exited with code 0", ProcessState::Dead, &|pod, pid| {
            pod.step(Event::Exited(pid, Exit::Code(0)));
            pod.returns("finalize", Ok(CallbackValue::Nothing));
        }),
        ("killed by /control/kill", ProcessState::Dead, &|pod, pid| {
            pod.submit(ControlTask::Kill);
            off(pod, pid);
            pod.returns("finalize", Ok(CallbackValue::Nothing));
        }),
        ("configuration failed: x: no", ProcessState::Dead, &|pod, pid| {
            pod.submit(ControlTask::On(Some(view("2"))));
            off(pod, pid);
            pod.returns("configure", Err(refused()));
            pod.returns("finalize", Ok(CallbackValue::Nothing));
        }),
    ];
    for (expected, process, story) in stories {
        assert_eq!(reason(settings(), story), (process, Some(expected.to_owned())));
    }
}

#[test]
fn reason_is_cleared_by_a_start_and_kept_by_off_of_a_leader() {
    let (mut pod, pid) = Pod::running(settings());
    pod.submit(ControlTask::Off);
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    pod.epoch = Some(5);
    pod.post(ControlTask::Off, 5, 1);
    assert_eq!(pod.machine.report().reason.as_deref(), Some("turned off by /control/off"));
    pod.submit(ControlTask::On(None));
    pod.spawned();
    assert_eq!(pod.machine.report().reason, None);

    let mut pod = Pod::new(settings());
    assert_eq!(pod.machine.report().reason, None, "a pod that was not configured yet");
    pod.machine = LifecycleMachine::new(settings(), false);
    pod.submit(ControlTask::On(Some(view("1"))));
    pod.returns("initialize", Ok(CallbackValue::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    assert_eq!(pod.machine.report().reason.as_deref(), Some("not started: start=false"));
}

#[test]
fn restarts_and_failed_checks_are_counted() {
    let (mut pod, pid) = Pod::running(LifecycleSettings { checks: 3, ..settings() });
    assert_eq!(pod.count(|effect| *effect == Effect::Restarted), 0, "the first start is none");
    pod.step(Event::Exited(pid, Exit::Code(1)));
    pod.spawned();
    assert_eq!(pod.count(|effect| *effect == Effect::Restarted), 1);
    pod.wait(SECOND);
    pod.returns("sanity-check", Err(refused()));
    pod.wait(60 * SECOND);
    pod.returns("sanity-check", Ok(CallbackValue::Health(Map::new(), None)));
    pod.wait(60 * SECOND);
    pod.returns("sanity-check", Err(refused()));
    assert_eq!(pod.count(|effect| *effect == Effect::CheckFailed), 2);
}
