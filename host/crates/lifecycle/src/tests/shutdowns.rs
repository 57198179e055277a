//! Stopping: a stop in progress keeps its grace, SIGTERM always precedes SIGKILL, and a shutdown keeps its schedule.

use ochopod_timing::shutdown::{KILL_TIMEOUT, Schedule};

use super::*;

/// Returns the time from the call until a pod of this kind was sent the signal.
fn sent_after(pod: &mut Pod, wanted: &Effect, limit: Duration) -> Option<Duration> {
    let (begin, before) = (pod.now, pod.count(|effect| effect == wanted));
    while pod.count(|effect| effect == wanted) == before {
        pod.now = pod.machine.wake().filter(|wake| *wake <= begin + limit)?.max(pod.now);
        pod.step(Event::Tick);
    }
    Some(pod.now - begin)
}

fn leave_within(pod: &mut Pod, timeout: Duration) -> Schedule {
    let schedule = Schedule::new(pod.now, timeout);
    pod.machine.set_schedule(schedule);
    pod.step(Event::Stop);
    schedule
}

/// Every kind of stop that may be in progress when the first signal arrives.
type Begin = fn(&mut Pod);

fn stops() -> [(&'static str, Begin); 3] {
    [
        ("off", |pod| {
            pod.submit(ControlTask::Off);
        }),
        ("on", |pod| {
            pod.submit(ControlTask::On(Some(view("2"))));
        }),
        ("kill", |pod| {
            pod.submit(ControlTask::Kill);
        }),
    ]
}

#[test]
fn first_signal_leaves_a_stop_in_progress_its_grace() {
    for (stop, begin) in stops() {
        for preempting in [None, Some(ControlTask::Kill)] {
            let (mut pod, pid) = Pod::running(settings());
            begin(&mut pod);
            pod.returns("tear-down", Ok(CallbackValue::Nothing));
            pod.wait(20 * SECOND);
            match preempting {
                Some(task) => drop(pod.submit(task)),
                None => drop(leave_within(&mut pod, 600 * SECOND)),
            }
            assert_eq!(pod.count(|effect| matches!(effect, Effect::Kill(_))), 0, "{stop}");
            assert_eq!(sent_after(&mut pod, &Effect::Kill(pid), 600 * SECOND), Some(40 * SECOND), "{stop}");
        }
    }
}

#[test]
fn stop_interrupted_by_a_signal_continues_to_finalize_and_ends() {
    for (stop, begin) in stops() {
        let (mut pod, pid) = Pod::running(settings());
        begin(&mut pod);
        leave_within(&mut pod, 70 * SECOND);
        pod.returns("tear-down", Ok(CallbackValue::Nothing));
        pod.step(Event::Exited(pid, Exit::Signal(15)));
        pod.returns("finalize", Ok(CallbackValue::Nothing));
        assert_eq!(pod.effects.last(), Some(&Effect::Finished), "{stop}");
        assert_eq!(pod.calls("tear-down"), 1, "{stop}");
    }
}

#[test]
fn deadline_cuts_the_grace_of_a_stop_in_progress_after_sigterm() {
    for (stop, begin) in stops() {
        let (mut pod, pid) = Pod::running(settings());
        begin(&mut pod);
        let schedule = leave_within(&mut pod, 9 * SECOND);
        let slice = schedule.process - pod.now;
        assert_eq!(sent_after(&mut pod, &Effect::Terminate(pid), 60 * SECOND), Some(slice / 2), "{stop}");
        assert_eq!(sent_after(&mut pod, &Effect::Kill(pid), 60 * SECOND), Some(slice / 2), "{stop}");
    }
}

#[test]
fn hanging_tear_down_is_joined_by_sigterm_at_half_of_the_grace() {
    let (mut pod, pid) = Pod::running(settings());
    pod.submit_with(ControlTask::Off, None, 3600 * SECOND);
    assert_eq!(sent_after(&mut pod, &Effect::Terminate(pid), 600 * SECOND), Some(30 * SECOND));
    assert_eq!(pod.count(|effect| *effect == Effect::CancelCall), 0, "the callback has its whole grace");
    assert_eq!(sent_after(&mut pod, &Effect::Kill(pid), 600 * SECOND), Some(30 * SECOND));
    assert_eq!(pod.count(|effect| matches!(effect, Effect::Terminate(_))), 1);
}

#[test]
fn sigterm_is_sent_once_and_not_after_a_tear_down_that_returned() {
    for (result, after, terms) in [
        (Ok(CallbackValue::Nothing), 1, 0),
        (Err(refused()), 1, 1),
        (Ok(CallbackValue::Nothing), 31, 1),
        (Err(refused()), 31, 1),
    ] {
        let (mut pod, _) = Pod::running(settings());
        pod.submit_with(ControlTask::Off, None, 3600 * SECOND);
        pod.wait(after * SECOND);
        pod.returns("tear-down", result.clone());
        pod.wait(60 * SECOND);
        assert_eq!(pod.count(|effect| matches!(effect, Effect::Terminate(_))), terms, "{result:?} after {after} s");
    }
}

#[test]
fn host_frozen_past_the_grace_leaves_time_between_sigterm_and_sigkill() {
    let (mut pod, pid) = Pod::running(settings());
    pod.submit_with(ControlTask::Off, None, 3600 * SECOND);
    pod.now += 500 * SECOND;
    pod.step(Event::Tick);
    assert_eq!(pod.effects.last(), Some(&Effect::Terminate(pid)));
    assert_eq!(sent_after(&mut pod, &Effect::Kill(pid), 600 * SECOND), Some(30 * SECOND));
}

#[test]
fn shutdown_is_over_at_its_deadline_whatever_hangs() {
    for timeout in [1, 4, 9, 29, 185].map(|seconds| seconds * SECOND) {
        let (mut pod, pid) = Pod::running(settings());
        let schedule = leave_within(&mut pod, timeout);
        let begin = pod.now;
        // Neither tear-down nor the process nor finalize ever ends.
        pod.wait(timeout);
        assert_eq!(pod.effects.last(), Some(&Effect::Finished), "{timeout:?}");
        assert!(pod.effects.contains(&Effect::Release(pid)), "{timeout:?}");
        let (term, kill) = (&Effect::Terminate(pid), &Effect::Kill(pid));
        assert!(pod.count(|effect| effect == term) == 1 && pod.count(|effect| effect == kill) == 1, "{timeout:?}");
        assert!(schedule.end - begin == timeout);
    }
}

#[test]
fn finalize_has_its_slice_even_if_the_sub_process_used_up_its_own() {
    let (mut pod, pid) = Pod::running(settings());
    let schedule = leave_within(&mut pod, 15 * SECOND);
    pod.wait(schedule.process - pod.now);
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    assert!(
        matches!(pod.effects.last(), Some(Effect::Call(_, callback, limit)) if callback.name() == "finalize" && *limit == 3 * SECOND),
        "{:?}",
        pod.effects.last()
    );
    pod.wait(3 * SECOND);
    assert_eq!(pod.now, schedule.finalize);
    assert!(pod.effects.ends_with(&[Effect::CancelCall, Effect::Died, Effect::Finished]), "{:?}", pod.effects.last());
}

#[test]
fn finalizing_kill_is_cut_by_the_deadline_of_a_shutdown() {
    let (mut pod, pid) = Pod::running(settings());
    let kill = pod.submit(ControlTask::Kill);
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    assert_eq!(pod.calls("finalize"), 1);
    let schedule = leave_within(&mut pod, 9 * SECOND);
    pod.wait(schedule.finalize - pod.now);
    assert_eq!(pod.outcome(kill), Some(Outcome::Done(json!({}))));
    assert_eq!(pod.effects.last(), Some(&Effect::Finished));
}

#[test]
fn hanging_start_is_abandoned_at_the_deadline_of_a_shutdown() {
    let mut pod = Pod::new(settings());
    pod.submit(ControlTask::On(Some(view("1"))));
    pod.returns("initialize", Ok(CallbackValue::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    let schedule = leave_within(&mut pod, 9 * SECOND);
    pod.wait(schedule.process - pod.now);
    assert!(pod.effects.contains(&Effect::AbandonSpawn));
    pod.returns("finalize", Ok(CallbackValue::Nothing));
    assert_eq!(pod.effects.last(), Some(&Effect::Finished));
}

#[test]
fn process_that_cannot_be_killed_is_left_behind_soon_after_force() {
    let (mut pod, pid) = Pod::running(settings());
    leave_within(&mut pod, 70 * SECOND);
    pod.step(Event::Force);
    assert_eq!(pod.effects.last(), Some(&Effect::Kill(pid)));
    pod.wait(KILL_TIMEOUT);
    assert!(pod.effects.ends_with(&[Effect::Release(pid), Effect::Died, Effect::Finished]));
    assert_eq!(pod.state(), ProcessState::Dead);
}

#[test]
fn pod_that_ends_without_a_shutdown_keeps_its_grace_and_waits_for_its_process() {
    let (mut pod, pid) = Pod::running(settings());
    pod.submit(ControlTask::Kill);
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    assert_eq!(sent_after(&mut pod, &Effect::Kill(pid), 600 * SECOND), Some(60 * SECOND));
    pod.wait(100 * SECOND);
    assert_eq!((pod.state(), pod.count(|effect| matches!(effect, Effect::Release(_)))), (ProcessState::Terminating, 0));
    leave_within(&mut pod, 9 * SECOND);
    pod.wait(KILL_TIMEOUT);
    assert_eq!(pod.count(|effect| matches!(effect, Effect::Release(_))), 1, "it was killed long ago");
}

#[test]
fn only_a_pod_that_could_not_be_configured_has_failed() {
    let dead = |pod: &Pod| (pod.state(), pod.machine.report().failed);
    let (mut pod, pid) = Pod::running(settings());
    pod.step(Event::Exited(pid, Exit::Code(0)));
    pod.returns("finalize", Err(refused()));
    assert_eq!(dead(&pod), (ProcessState::Dead, false), "it is done");
    let mut pod = Pod::new(settings());
    pod.submit(ControlTask::Kill);
    assert_eq!(dead(&pod), (ProcessState::Dead, false), "it was requested");
    let mut pod = Pod::new(settings());
    pod.submit(ControlTask::On(Some(view("1"))));
    pod.returns("initialize", Ok(CallbackValue::Nothing));
    pod.returns("configure", Err(refused()));
    assert!(!pod.machine.report().failed, "it is not dead yet");
    pod.returns("finalize", Ok(CallbackValue::Nothing));
    assert_eq!(dead(&pod), (ProcessState::Dead, true));
}

#[test]
fn configure_that_exceeds_its_limit_is_rejected_and_never_still_running() {
    for callback in ["initialize", "configure"] {
        let mut pod = Pod::new(settings());
        let on = pod.submit_with(ControlTask::On(Some(view("1"))), None, 5 * SECOND);
        if callback == "configure" {
            pod.returns("initialize", Ok(CallbackValue::Nothing));
        }
        // The callback is stopped at the limit, which is reported a little later.
        pod.wait(5 * SECOND + Duration::from_millis(50));
        assert_eq!(pod.outcome(on), None, "{callback}");
        let failure = Failure { callback: Some("configure"), blame: Blame::Plugin, message: "too late".to_owned() };
        pod.returns(callback, Err(CallbackError { failure: failure.clone(), kind: CallbackErrorKind::Overrun }));
        assert_eq!(pod.outcome(on), Some(Outcome::Rejected(failure)), "{callback}");
        pod.returns("finalize", Ok(CallbackValue::Nothing));
        assert_eq!(pod.state(), ProcessState::Dead, "{callback}");
    }
}

#[test]
fn draining_pod_keeps_its_process_and_rejects_requests() {
    let (mut pod, pid) = Pod::running(settings());
    let signal = pod.submit(ControlTask::Signal(None));
    let check = pod.submit(ControlTask::Check(view("1")));
    pod.step(Event::Drain);
    let gone = Some(Outcome::Gone("pod is shutting down".to_owned()));
    assert_eq!((pod.outcome(signal), pod.outcome(check)), (gone.clone(), gone.clone()));
    for task in [ControlTask::Off, ControlTask::Kill, ControlTask::On(None), ControlTask::On(Some(view("2")))] {
        let id = pod.submit(task);
        assert_eq!(pod.outcome(id), gone);
    }
    pod.wait(600 * SECOND);
    assert_eq!((pod.state(), pod.calls("sanity-check"), pod.calls("tear-down")), (ProcessState::Running, 0, 0));
    pod.step(Event::Stop);
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    pod.returns("finalize", Ok(CallbackValue::Nothing));
    assert_eq!(pod.effects.last(), Some(&Effect::Finished));
}

#[test]
fn process_that_exits_while_the_pod_drains_is_not_restarted() {
    let (mut pod, pid) = Pod::running(settings());
    pod.step(Event::Drain);
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    pod.wait(600 * SECOND);
    assert_eq!((pod.spawns(), pod.state()), (1, ProcessState::Stopped));
    assert_eq!(pod.machine.report().reason.as_deref(), Some("shutting down"));
    pod.step(Event::Stop);
    pod.returns("finalize", Ok(CallbackValue::Nothing));
    assert_eq!(pod.effects.last(), Some(&Effect::Finished));
}

#[test]
fn configuration_that_meets_a_drain_starts_nothing() {
    let mut pod = Pod::new(settings());
    let on = pod.submit(ControlTask::On(Some(view("1"))));
    pod.step(Event::Drain);
    assert_eq!(pod.outcome(on), Some(Outcome::Gone("pod is shutting down".to_owned())));
    assert_eq!(pod.count(|effect| *effect == Effect::CancelCall), 1);

    let (mut pod, pid) = Pod::running(settings());
    let on = pod.submit(ControlTask::On(Some(view("2"))));
    pod.step(Event::Drain);
    assert_eq!(pod.outcome(on), Some(Outcome::Gone("pod is shutting down".to_owned())));
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    assert_eq!((pod.spawns(), pod.calls("configure")), (1, 1));
}
