//! Readiness, errors that mean not yet, comparison of commands, restart, cordon and revival.

use super::*;
use crate::Cordon;

fn not_ready(reason: &str) -> CallbackError {
    let failure = Failure { callback: Some("ready"), blame: Blame::Plugin, message: reason.to_owned() };
    CallbackError { failure, kind: CallbackErrorKind::Failed }
}

fn not_yet() -> CallbackError {
    let failure = Failure { callback: Some("configure"), blame: Blame::Plugin, message: "no quorum".to_owned() };
    CallbackError { failure, kind: CallbackErrorKind::NotYet }
}

fn other_command(reload: Option<u8>) -> CallbackValue {
    CallbackValue::Command(Command { program: "other".to_owned(), arguments: vec![], environment: [].into(), reload })
}

/// Returns a pod whose process was started for the generation `g` and is not ready.
fn unready(settings: LifecycleSettings, limit: Duration) -> (Pod, u32, RequestId) {
    let mut pod = Pod::new(settings);
    let on = pod.submit_with(ControlTask::On(Some(view("1"))), Some("g"), limit);
    pod.returns("initialize", Ok(CallbackValue::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    let pid = pod.spawned_unready();
    pod.returns("ready", Err(not_ready("joining")));
    (pod, pid, on)
}

#[allow(clippy::unnecessary_wraps, reason = "compared with outcomes that may be missing")]
fn done() -> Option<Outcome> {
    Some(Outcome::Done(json!({})))
}

fn assert_unavailable(pod: &Pod, id: RequestId, callback: Option<&str>, text: &str) {
    let Some(Outcome::Unavailable(failure)) = pod.outcome(id) else { panic!("{:?}", pod.outcome(id)) };
    assert_eq!(failure.callback, callback);
    assert!(failure.message.contains(text), "{failure}");
}

#[test]
fn on_is_answered_when_the_process_is_ready_and_ready_is_polled_with_growing_delay() {
    let (mut pod, _, on) = unready(settings(), 60 * SECOND);
    assert_eq!(pod.machine.report().unready.as_deref(), Some("joining"));
    assert_eq!(pod.machine.report().unready_reason().as_deref(), Some("sub-process is not ready: joining"));
    let mut delays = Vec::new();
    for _ in 0..7 {
        let (before, calls) = (pod.now, pod.calls("ready"));
        while pod.calls("ready") == calls {
            pod.now = pod.machine.wake().unwrap();
            pod.step(Event::Tick);
        }
        delays.push((pod.now - before).as_millis());
        pod.returns("ready", Err(not_ready("joining")));
    }
    assert_eq!(delays, [50, 100, 200, 400, 800, 1000, 1000]);
    assert_eq!(pod.outcome(on), None);
    pod.wait(SECOND);
    pod.returns("ready", Ok(CallbackValue::Nothing));
    assert_eq!(pod.outcome(on), done());
    assert_eq!(pod.machine.report().unready_reason(), None);
    pod.wait(SECOND);
    assert_eq!(pod.calls("sanity-check"), 1, "checks start once it is ready");
}

#[test]
fn unready_process_keeps_running_at_the_limit_and_is_started_once_for_its_generation() {
    for strict in [false, true] {
        let (mut pod, _, on) = unready(LifecycleSettings { strict, ..settings() }, SECOND);
        pod.wait(SECOND);
        pod.returns("ready", Err(not_ready("joining")));
        assert_unavailable(&pod, on, Some("ready"), "joining");
        // A rollout with a full shutdown, and the repeated request.
        let off = pod.submit_with(ControlTask::Off, Some("g"), 60 * SECOND);
        let again = pod.submit_with(ControlTask::On(Some(view("1"))), Some("g"), 60 * SECOND);
        assert_eq!((pod.outcome(off), pod.outcome(again)), (done(), None));
        pod.wait(SECOND);
        pod.returns("ready", Ok(CallbackValue::Nothing));
        assert_eq!(pod.outcome(again), done());
        assert_eq!((pod.spawns(), pod.state()), (1, ProcessState::Running), "strict={strict}");
    }
}

#[test]
fn pod_that_was_started_for_another_generation_meanwhile_is_configured_again() {
    for (strict, other) in [(false, "2"), (true, "1")] {
        let (mut pod, pid) = Pod::running(LifecycleSettings { strict, ..settings() });
        let first = pod.submit_with(ControlTask::On(Some(view("1"))), Some("g1"), 60 * SECOND);
        let pid = if strict { configured_again(&mut pod, pid) } else { pid };
        assert_eq!(pod.outcome(first), done());
        let second = pod.submit_with(ControlTask::On(Some(view(other))), Some("g2"), SECOND);
        pod.returns("tear-down", Ok(CallbackValue::Nothing));
        pod.step(Event::Exited(pid, Exit::Signal(15)));
        pod.returns("configure", Ok(Pod::command()));
        let pid = pod.spawned_unready();
        pod.returns("ready", Err(not_ready("joining")));
        pod.wait(SECOND);
        assert_unavailable(&pod, second, Some("ready"), "joining");
        assert!(pod.machine.report().configured, "it was configured before");
        pod.returns("ready", Err(not_ready("joining")));
        let spawns = pod.spawns();
        let again = pod.submit_with(ControlTask::On(Some(view("1"))), Some("g1"), 60 * SECOND);
        configured_again(&mut pod, pid);
        assert_eq!((pod.outcome(again), pod.spawns()), (done(), spawns + 1), "strict={strict}");
    }
}

/// Completes an `on` that stops the process and starts another. Returns its pid.
fn configured_again(pod: &mut Pod, pid: u32) -> u32 {
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    pod.returns("configure", Ok(Pod::command()));
    pod.spawned()
}

#[test]
fn requests_come_before_ready_and_do_not_wait_for_it() {
    let (mut pod, _, _) = unready(settings(), 60 * SECOND);
    pod.wait(SECOND / 20);
    let signal = pod.submit(ControlTask::Signal(None));
    pod.returns("signaled", Ok(CallbackValue::Json(json!(1))));
    assert_eq!(pod.outcome(signal), Some(Outcome::Done(json!(1))));
    assert_eq!(pod.calls("ready"), 3, "the stopped call is repeated");
}

#[test]
fn process_that_is_not_ready_in_time_fails_checks_and_is_turned_off() {
    let settings = LifecycleSettings { ready_within: 30 * SECOND, checks: 2, ..settings() };
    let (mut pod, pid, on) = unready(settings, 600 * SECOND);
    for _ in 0..200 {
        if pod.state() != ProcessState::Running {
            break;
        }
        pod.wait(SECOND);
        if matches!(pod.effects.last(), Some(Effect::Call(_, Callback::Ready(..), _))) {
            pod.returns("ready", Err(not_ready("joining")));
        }
    }
    assert_eq!(pod.count(|effect| *effect == Effect::CheckFailed), 2);
    assert_unavailable(&pod, on, None, "not ready within 30 s: joining");
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    assert!(pod.machine.report().is_off());
}

#[test]
fn restarted_process_has_to_become_ready_again() {
    let (mut pod, pid) = Pod::running(settings());
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    pod.spawned_unready();
    let restarted = "sub-process is not ready: killed by SIGKILL and was started again";
    assert_eq!(pod.machine.report().unready_reason().as_deref(), Some(restarted));
    pod.returns("ready", Err(not_ready("recovering")));
    assert_eq!(pod.machine.report().unready_reason().as_deref(), Some("sub-process is not ready: recovering"));
}

#[test]
fn request_reports_how_a_process_ended_before_it_was_ready() {
    let settings = LifecycleSettings { checks: 9, ..settings() };
    let (mut pod, pid, on) = unready(settings, 2 * SECOND);
    pod.step(Event::Exited(pid, Exit::Code(7)));
    pod.wait(SECOND);
    let again = pod.spawned_unready();
    pod.step(Event::Exited(again, Exit::Code(7)));
    pod.wait(3 * SECOND);
    assert_unavailable(&pod, on, Some("ready"), "sub-process not running: exited with code 7");
}

#[test]
fn not_yet_is_held_and_the_pod_lives() {
    let mut pod = Pod::new(settings());
    let first = pod.submit(ControlTask::On(Some(view("1"))));
    pod.returns("initialize", Err(not_yet()));
    assert_unavailable(&pod, first, Some("configure"), "no quorum");
    let second = pod.submit(ControlTask::On(Some(view("1"))));
    pod.returns("initialize", Ok(CallbackValue::Nothing));
    pod.returns("configure", Err(not_yet()));
    assert_unavailable(&pod, second, Some("configure"), "no quorum");
    assert_eq!(pod.machine.report().reason.as_deref(), Some("not configured yet: configure: no quorum"));
    let third = pod.submit(ControlTask::On(Some(view("1"))));
    pod.returns("configure", Ok(Pod::command()));
    pod.spawned();
    assert_eq!(pod.outcome(third), done());
    assert_eq!((pod.calls("initialize"), pod.calls("finalize")), (2, 0));
}

#[test]
fn compared_command_restarts_only_if_it_differs() {
    let compare = || LifecycleSettings { on_change: OnChange::Compare, ..settings() };
    let (mut pod, pid) = Pod::running(compare());
    let same = pod.submit(ControlTask::On(Some(view("2"))));
    let CallbackValue::Command(command) = Pod::command() else { unreachable!() };
    pod.returns("configure", Ok(CallbackValue::Command(Command { reload: Some(1), ..command })));
    assert_eq!(pod.outcome(same), done());
    assert_eq!(pod.count(|effect| *effect == Effect::Signal(pid, 1)), 1);
    assert_eq!(pod.state(), ProcessState::Running);

    let held = pod.submit(ControlTask::On(Some(view("3"))));
    pod.returns("configure", Err(not_yet()));
    assert_unavailable(&pod, held, Some("configure"), "no quorum");
    assert_eq!((pod.state(), pod.spawns()), (ProcessState::Running, 1), "it keeps running");

    let other = pod.submit(ControlTask::On(Some(view("4"))));
    pod.returns("configure", Ok(other_command(Some(1))));
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    assert!(matches!(pod.effects.last(), Some(Effect::Spawn(command)) if command.program == "other"));
    pod.spawned();
    assert_eq!(pod.outcome(other), done());
    assert_eq!((pod.calls("configure"), pod.count(|effect| matches!(effect, Effect::Signal(..)))), (4, 1));
}

#[test]
fn process_that_exits_while_its_command_is_compared_is_started_with_the_new_one() {
    let (mut pod, pid) = Pod::running(LifecycleSettings { on_change: OnChange::Compare, ..settings() });
    let on = pod.submit(ControlTask::On(Some(view("2"))));
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    pod.returns("configure", Ok(other_command(None)));
    pod.spawned();
    assert_eq!(pod.outcome(on), done());
    assert_eq!(pod.spawns(), 2);
}

#[test]
fn restart_starts_the_last_configuration_again() {
    let mut pod = Pod::new(settings());
    let never = pod.submit(ControlTask::Restart);
    assert!(matches!(pod.outcome(never), Some(Outcome::Rejected(_))));
    let (mut pod, pid) = Pod::running(settings());
    let restart = pod.submit(ControlTask::Restart);
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    pod.spawned();
    assert_eq!(pod.outcome(restart), done());
    assert_eq!((pod.calls("configure"), pod.spawns()), (1, 2));
}

#[test]
fn cordoned_pod_answers_leaders_with_410_and_operators_as_before() {
    for stop in [false, true] {
        let (mut pod, pid) = Pod::running(settings());
        let cordon = pod.submit(ControlTask::Cordon(Cordon { reason: "disk".to_owned(), stop }));
        if stop {
            pod.returns("tear-down", Ok(CallbackValue::Nothing));
            pod.step(Event::Exited(pid, Exit::Signal(15)));
        }
        assert_eq!(pod.outcome(cordon), done());
        assert_eq!(pod.state() == ProcessState::Running, !stop);
        assert_eq!(pod.machine.report().cordon.as_deref(), Some("disk"));
        for task in [ControlTask::Check(view("1")), ControlTask::On(Some(view("2"))), ControlTask::Ok(view("1"))] {
            let id = pod.submit(task);
            assert_eq!(pod.outcome(id), Some(Outcome::Cordoned("disk".to_owned())));
        }
        let off = pod.post(ControlTask::Off, 1, 1);
        assert!(matches!(pod.outcome(off), Some(Outcome::Cordoned(_))));
        let operator = pod.submit(ControlTask::Signal(None));
        pod.returns("signaled", Ok(CallbackValue::Json(json!({}))));
        let uncordon = pod.submit(ControlTask::Uncordon);
        assert_eq!((pod.outcome(operator), pod.outcome(uncordon)), (done(), done()));
        // The leader configures it although the cluster is the same as before.
        assert_eq!(pod.machine.report().configured, !stop);
        let on = pod.submit(ControlTask::On(Some(view("1"))));
        if stop {
            pod.returns("configure", Ok(Pod::command()));
            pod.spawned();
        }
        assert_eq!(pod.outcome(on), done());
        assert!(pod.machine.report().configured);
    }
}

#[test]
fn revived_pod_begins_another_life() {
    let (mut pod, pid) = Pod::running(settings());
    pod.submit(ControlTask::Kill);
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    pod.returns("finalize", Ok(CallbackValue::Nothing));
    assert_eq!(pod.state(), ProcessState::Dead);
    let revive = pod.submit(ControlTask::Revive);
    assert_eq!((pod.outcome(revive), pod.state()), (done(), ProcessState::Stopped));
    assert_eq!(pod.count(|effect| *effect == Effect::Revived), 1);
    let on = pod.submit(ControlTask::On(Some(view("1"))));
    pod.returns("initialize", Ok(CallbackValue::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    pod.spawned();
    assert_eq!(pod.outcome(on), done());
    let alive = pod.submit(ControlTask::Revive);
    assert_eq!(pod.outcome(alive), done());
    assert_eq!(pod.count(|effect| *effect == Effect::Revived), 1);
}

#[test]
fn role_is_that_of_the_last_check_or_confirmation_while_the_process_runs() {
    let (mut pod, pid) = Pod::running(settings());
    let role = |pod: &Pod| pod.machine.report().role;
    pod.submit(ControlTask::Ok(view("1")));
    pod.returns("configured", Ok(CallbackValue::Role(Some("replica".to_owned()))));
    assert_eq!(role(&pod).as_deref(), Some("replica"));
    for (named, expected) in [(None, Some("replica")), (Some("primary"), Some("primary")), (Some(""), None)] {
        pod.wait(60 * SECOND);
        pod.returns("sanity-check", Ok(CallbackValue::Health(Map::new(), named.map(str::to_owned))));
        assert_eq!(role(&pod).as_deref(), expected);
    }
    pod.submit(ControlTask::Ok(view("1")));
    pod.returns("configured", Ok(CallbackValue::Role(Some("replica".to_owned()))));
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    assert_eq!(role(&pod), None);
}

#[test]
fn unready_process_is_started_once_for_a_leader_without_generations() {
    let mut pod = Pod::new(LifecycleSettings { strict: true, ..settings() });
    let first = pod.submit_with(ControlTask::On(Some(view("1"))), None, SECOND);
    pod.returns("initialize", Ok(CallbackValue::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    pod.spawned_unready();
    pod.returns("ready", Err(not_ready("joining")));
    pod.wait(SECOND);
    pod.returns("ready", Err(not_ready("joining")));
    assert_unavailable(&pod, first, Some("ready"), "joining");
    let again = pod.submit(ControlTask::On(Some(view("1"))));
    pod.wait(SECOND);
    pod.returns("ready", Ok(CallbackValue::Nothing));
    assert_eq!((pod.outcome(again), pod.spawns()), (done(), 1));
}

#[test]
fn request_of_a_leader_that_waited_behind_a_cordon_is_not_executed() {
    let (mut pod, pid) = Pod::running(settings());
    pod.submit(ControlTask::Signal(None));
    let cordon = pod.submit(ControlTask::Cordon(Cordon { reason: "disk".to_owned(), stop: true }));
    let on = pod.submit(ControlTask::On(Some(view("2"))));
    pod.returns("signaled", Ok(CallbackValue::Json(json!({}))));
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    assert_eq!(pod.outcome(cordon), done());
    assert_eq!(pod.outcome(on), Some(Outcome::Cordoned("disk".to_owned())));
    assert_eq!((pod.spawns(), pod.state()), (1, ProcessState::Stopped));
}

#[test]
fn held_configuration_leaves_nothing_to_wake_for() {
    let (mut pod, pid) = Pod::running(LifecycleSettings { checks: 9, ..settings() });
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    let pid = pod.spawned();
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    pod.submit(ControlTask::On(Some(view("2"))));
    pod.returns("configure", Err(not_yet()));
    pod.wait(600 * SECOND);
    assert!(pod.machine.wake().is_none_or(|wake| wake > pod.now), "it wakes in the past");
}

#[test]
fn program_that_completes_while_its_command_is_compared_is_not_started_again() {
    let (mut pod, pid) = Pod::running(LifecycleSettings { on_change: OnChange::Compare, ..settings() });
    let on = pod.submit(ControlTask::On(Some(view("2"))));
    pod.step(Event::Exited(pid, Exit::Code(0)));
    assert!(matches!(pod.outcome(on), Some(Outcome::Gone(_))));
    pod.returns("finalize", Ok(CallbackValue::Nothing));
    assert_eq!((pod.spawns(), pod.state()), (1, ProcessState::Dead));
    assert!(!pod.machine.report().failed);
}
