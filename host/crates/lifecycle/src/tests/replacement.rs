//! Another plugin takes over the running sub-process.

use super::*;

fn replaced(pod: &mut Pod, settings: LifecycleSettings) {
    pod.machine.plugin_replaced(settings, pod.now);
    pod.step(Event::Tick);
}

#[test]
fn running_sub_process_is_kept_and_checked_immediately_by_the_new_rules() {
    let (mut pod, _) = Pod::running(LifecycleSettings { checks: 1, ..settings() });
    pod.wait(SECOND);
    pod.returns("sanity-check", Ok(CallbackValue::Nothing));
    replaced(&mut pod, LifecycleSettings { checks: 2, check_every: 5 * SECOND, ..settings() });
    assert_eq!((pod.calls("sanity-check"), pod.spawns()), (2, 1));
    pod.returns("sanity-check", Err(refused()));
    assert_eq!(pod.state(), ProcessState::Running, "two failures are allowed now");
    pod.wait(5 * SECOND);
    pod.returns("sanity-check", Err(refused()));
    assert_eq!(pod.state(), ProcessState::Terminating);
}

#[test]
fn replacement_starts_nothing_and_checks_nothing_while_the_process_is_off() {
    let mut pod = Pod::new(settings());
    replaced(&mut pod, LifecycleSettings { strict: true, ..settings() });
    assert_eq!(pod.effects, []);
    let (mut pod, pid) = Pod::running(settings());
    pod.submit(ControlTask::Off);
    pod.returns("tear-down", Ok(CallbackValue::Nothing));
    pod.step(Event::Exited(pid, Exit::Signal(15)));
    let effects = pod.effects.len();
    replaced(&mut pod, settings());
    assert_eq!((pod.effects.len(), pod.state()), (effects, ProcessState::Stopped));
}

#[test]
fn same_command_restarts_if_the_new_plugin_launches_it_otherwise() {
    let compare = || LifecycleSettings { on_change: OnChange::Compare, ..settings() };
    for (cwd, restarts) in [(None, false), (Some("/srv".to_owned()), true)] {
        let (mut pod, pid) = Pod::running(compare());
        pod.wait(SECOND);
        pod.returns("sanity-check", Ok(CallbackValue::Nothing));
        replaced(&mut pod, LifecycleSettings { cwd, checks: 3, ..compare() });
        pod.returns("sanity-check", Ok(CallbackValue::Nothing));
        let on = pod.submit(ControlTask::On(Some(view("2"))));
        pod.returns("configure", Ok(Pod::command()));
        if restarts {
            pod.returns("tear-down", Ok(CallbackValue::Nothing));
            pod.step(Event::Exited(pid, Exit::Signal(15)));
            pod.spawned();
        }
        assert_eq!(pod.outcome(on), Some(Outcome::Done(json!({}))));
        assert_eq!(pod.spawns(), if restarts { 2 } else { 1 });
        let again = pod.submit(ControlTask::On(Some(view("3"))));
        pod.returns("configure", Ok(Pod::command()));
        assert_eq!(pod.outcome(again), Some(Outcome::Done(json!({}))), "the process is the new one");
    }
}
