//! Starts that fail because the machine lacks a resource do not indicate a defect of the program.

use super::*;

fn lacking() -> Event {
    Event::Spawned(Err(StartFailure { reason: "cannot make a process: EAGAIN".to_owned(), transient: true }))
}

/// Waits until the next start.
fn next_start(pod: &mut Pod) -> Duration {
    let (begin, spawns) = (pod.now, pod.spawns());
    while pod.spawns() == spawns {
        pod.now = pod.machine.wake().expect("something comes").max(pod.now);
        pod.step(Event::Tick);
    }
    pod.now - begin
}

/// Lets each start fail until the request is answered.
fn lack_until_answered(pod: &mut Pod, id: RequestId) {
    while pod.outcome(id).is_none() {
        pod.step(lacking());
        let spawns = pod.spawns();
        while pod.spawns() == spawns && pod.outcome(id).is_none() {
            pod.now = pod.machine.wake().unwrap();
            pod.step(Event::Tick);
        }
    }
}

fn unexpected_ends(pod: &Pod) -> usize {
    pod.count(|effect| *effect == Effect::EndedUnexpectedly)
}

/// Returns a pod whose process was configured and is being started.
fn starting(limit: Duration) -> (Pod, RequestId) {
    let mut pod = Pod::new(settings());
    let on = pod.submit_with(ControlTask::On(Some(view("1"))), Some("g"), limit);
    pod.returns("initialize", Ok(CallbackValue::Nothing));
    pod.returns("configure", Ok(Pod::command()));
    (pod, on)
}

#[test]
fn restart_that_lacks_resources_is_retried_with_back_off_and_not_counted_as_exit() {
    let (mut pod, pid) = Pod::running(settings());
    pod.step(Event::Exited(pid, Exit::Code(1)));
    let mut delays = Vec::new();
    for _ in 0..9 {
        pod.step(lacking());
        delays.push(next_start(&mut pod));
    }
    assert!(delays[0] <= SECOND / 10, "{delays:?}");
    assert!(delays.windows(2).take(6).all(|pair| pair[1] > pair[0]), "{delays:?}");
    assert!(delays.iter().all(|delay| *delay <= 10 * SECOND), "{delays:?}");
    pod.spawned();
    pod.wait(SECOND);
    pod.returns("sanity-check", Ok(CallbackValue::Nothing));
    assert_eq!((pod.state(), unexpected_ends(&pod)), (ProcessState::Running, 1));
}

#[test]
fn shortage_longer_than_the_check_interval_turns_nothing_off() {
    let (mut pod, pid) = Pod::running(LifecycleSettings { check_every: 5 * SECOND, ..settings() });
    pod.step(Event::Exited(pid, Exit::Signal(9)));
    let begin = pod.now;
    while pod.now < begin + 120 * SECOND {
        pod.step(lacking());
        next_start(&mut pod);
    }
    pod.spawned();
    pod.wait(SECOND);
    pod.returns("sanity-check", Ok(CallbackValue::Nothing));
    assert_eq!((pod.state(), pod.calls("tear-down")), (ProcessState::Running, 0));
}

#[test]
fn on_that_lacks_resources_succeeds_once_they_are_back() {
    let (mut pod, on) = starting(60 * SECOND);
    for _ in 0..3 {
        pod.step(lacking());
        assert_eq!(pod.outcome(on), None);
        next_start(&mut pod);
    }
    pod.spawned();
    assert_eq!(pod.outcome(on), Some(Outcome::Done(json!({}))));
    assert_eq!((pod.calls("configure"), pod.state()), (1, ProcessState::Running));
}

#[test]
fn on_reports_a_shortage_at_its_limit_and_the_pod_stays_alive() {
    let (mut pod, on) = starting(2 * SECOND);
    let begin = pod.now;
    lack_until_answered(&mut pod, on);
    assert!(pod.now - begin >= 2 * SECOND && pod.now - begin < 3 * SECOND, "{:?}", pod.now - begin);
    let Some(Outcome::Unavailable(failure)) = pod.outcome(on) else { panic!("{:?}", pod.outcome(on)) };
    assert!(failure.message.contains("EAGAIN") && failure.blame == Blame::Host, "{failure:?}");
    let spawns = pod.spawns();
    pod.wait(600 * SECOND);
    assert_eq!((pod.state(), pod.spawns()), (ProcessState::Stopped, spawns), "it waits for the next request");
    let reason = pod.machine.report().reason;
    assert_eq!(reason.as_deref(), Some("sub-process could not be started: cannot make a process: EAGAIN"));
    let again = pod.submit_with(ControlTask::On(Some(view("1"))), Some("g"), 60 * SECOND);
    pod.returns("configure", Ok(Pod::command()));
    pod.spawned();
    assert_eq!(pod.outcome(again), Some(Outcome::Done(json!({}))));
}

#[test]
fn restart_by_an_operator_that_lacks_resources_is_retried_after_its_limit() {
    let (mut pod, pid) = Pod::running(settings());
    let restart = pod.submit_with(ControlTask::Restart, None, 2 * SECOND);
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    lack_until_answered(&mut pod, restart);
    assert!(matches!(pod.outcome(restart), Some(Outcome::Unavailable(_))));
    let reason = pod.machine.report().reason;
    assert_eq!(reason.as_deref(), Some("sub-process could not be started, retrying: cannot make a process: EAGAIN"));
    next_start(&mut pod);
    pod.spawned();
    assert_eq!((pod.state(), unexpected_ends(&pod)), (ProcessState::Running, 0));
}

#[test]
fn shortage_may_become_a_failure_of_the_program() {
    let (mut pod, on) = starting(60 * SECOND);
    pod.step(lacking());
    next_start(&mut pod);
    pod.step(Event::Spawned(Err(unstartable("no such file"))));
    assert!(matches!(pod.outcome(on), Some(Outcome::Rejected(_))));
    let (mut pod, pid) = Pod::running(LifecycleSettings { checks: 9, ..settings() });
    pod.step(Event::Exited(pid, Exit::Code(1)));
    pod.step(lacking());
    next_start(&mut pod);
    pod.step(Event::Spawned(Err(unstartable("no such file"))));
    assert_eq!(unexpected_ends(&pod), 2);
}

#[test]
fn off_kill_and_leave_end_the_attempts_of_a_restart_and_of_on() {
    let restarting = || {
        let (mut pod, pid) = Pod::running(settings());
        pod.step(Event::Exited(pid, Exit::Code(1)));
        pod
    };
    // While an `on` tries, an `off` waits for its turn.
    for (case, end) in [("restart", "off"), ("restart", "kill"), ("restart", "stop"), ("on", "kill"), ("on", "stop")] {
        let mut pod = if case == "restart" { restarting() } else { starting(600 * SECOND).0 };
        pod.step(lacking());
        match end {
            "off" => drop(pod.submit(ControlTask::Off)),
            "kill" => drop(pod.submit(ControlTask::Kill)),
            _ => pod.step(Event::Stop),
        }
        let spawns = pod.spawns();
        pod.wait(100 * SECOND);
        assert_eq!(pod.spawns(), spawns, "{case}, {end}");
    }
}
