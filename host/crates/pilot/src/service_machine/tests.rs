//! Calls of the registry, as tables of events and expected actions.

use proptest::{collection::vec, prelude::*};

use super::*;

const HEALTHY: Event = Event::Checked(Some(CheckResult::Healthy));
const OK: Event = Event::Answered(Ok(()));
const ON: Event = Event::Maintain(true);
const OFF: Event = Event::Maintain(false);
const REGISTER: Option<Action> = Some(Action::Call(RegistryCall::Register));
const PASS: Option<Action> = Some(Action::Call(RegistryCall::Pass));
const DEREGISTER: Option<Action> = Some(Action::Call(RegistryCall::Deregister));
const CHECK: Option<Action> = Some(Action::Check);
const IDLE: Option<Action> = Some(Action::Idle);
const UNCHANGED: Option<Action> = None;

fn failing() -> Event {
    Event::Checked(Some(CheckResult::Failing("ended with code 1".to_owned())))
}

fn fail() -> Action {
    Action::Call(RegistryCall::Fail("ended with code 1".to_owned()))
}

fn forgotten() -> Event {
    Event::Answered(Err(RegistryError::NotRegistered("app-h".to_owned())))
}

fn away() -> Event {
    Event::Answered(Err(RegistryError::Unavailable("connection refused".to_owned())))
}

fn refused() -> Event {
    Event::Answered(Err(RegistryError::Rejected("no".to_owned())))
}

fn unknown() -> Event {
    Event::Checked(None)
}

fn fresh() -> ServiceMachine {
    started(false)
}

fn started(leftovers: bool) -> ServiceMachine {
    let mut machine = ServiceMachine::new("app".to_owned(), leftovers);
    assert_eq!(machine.begin(false), IDLE);
    machine
}

fn after(events: impl IntoIterator<Item = Event>) -> ServiceMachine {
    let mut machine = fresh();
    for event in events {
        machine.step(event);
    }
    machine
}

#[track_caller]
fn assert_steps(steps: Vec<(Event, Option<Action>)>) {
    let mut machine = fresh();
    for (number, (event, expected)) in steps.into_iter().enumerate() {
        assert_eq!(machine.step(event.clone()), expected, "step {number}, {event:?}");
    }
}

#[test]
fn first_healthy_check_registers_and_later_ones_pass() {
    assert_steps(vec![
        (Event::Due, CHECK),
        (HEALTHY, REGISTER),
        (OK, IDLE),
        (Event::Due, CHECK),
        (HEALTHY, PASS),
        (OK, IDLE),
    ]);
}

#[test]
fn service_that_was_never_healthy_is_not_reported() {
    assert_steps(vec![(failing(), IDLE), (unknown(), IDLE), (failing(), IDLE), (HEALTHY, REGISTER)]);
}

#[test]
fn failure_is_reported_once_until_the_next_healthy_check() {
    assert_steps(vec![
        (HEALTHY, REGISTER),
        (OK, IDLE),
        (failing(), Some(fail())),
        (OK, IDLE),
        (failing(), IDLE),
        (unknown(), IDLE),
        (HEALTHY, PASS),
        (OK, IDLE),
        (failing(), Some(fail())),
    ]);
}

#[test]
fn failure_report_is_repeated_after_an_error() {
    assert_steps(vec![
        (HEALTHY, REGISTER),
        (OK, IDLE),
        (failing(), Some(fail())),
        (away(), IDLE),
        (failing(), Some(fail())),
        (OK, IDLE),
        (failing(), IDLE),
    ]);
}

#[test]
fn forgotten_service_is_registered_again_only_if_healthy() {
    assert_steps(vec![
        (HEALTHY, REGISTER),
        (OK, IDLE),
        (HEALTHY, PASS),
        (forgotten(), REGISTER),
        (OK, IDLE),
        (HEALTHY, PASS),
    ]);
    assert_steps(vec![
        (HEALTHY, REGISTER),
        (OK, IDLE),
        (failing(), Some(fail())),
        (forgotten(), IDLE),
        (failing(), IDLE),
        (HEALTHY, REGISTER),
    ]);
    assert_steps(vec![(HEALTHY, REGISTER), (forgotten(), IDLE), (HEALTHY, REGISTER)]);
}

#[test]
fn failed_call_is_retried_at_the_next_check() {
    for error in [away(), refused()] {
        assert_steps(vec![
            (HEALTHY, REGISTER),
            (error.clone(), IDLE),
            (HEALTHY, REGISTER),
            (OK, IDLE),
            (HEALTHY, PASS),
            (error, IDLE),
            (HEALTHY, PASS),
        ]);
    }
}

#[test]
fn uncertain_registration_is_failed_and_removed_as_a_certain_one() {
    assert_steps(vec![
        (HEALTHY, REGISTER),
        (away(), IDLE),
        (failing(), Some(fail())),
        (forgotten(), IDLE),
        (failing(), IDLE),
    ]);
    assert_steps(vec![(HEALTHY, REGISTER), (away(), IDLE), (ON, DEREGISTER)]);
}

#[test]
fn maintenance_deregisters_until_the_next_healthy_check_after_it() {
    assert_steps(vec![
        (HEALTHY, REGISTER),
        (OK, IDLE),
        (ON, DEREGISTER),
        (OK, IDLE),
        (Event::Due, IDLE),
        (HEALTHY, IDLE),
        (OFF, IDLE),
        (Event::Due, CHECK),
        (HEALTHY, REGISTER),
    ]);
    assert_steps(vec![(ON, IDLE), (Event::Due, IDLE), (failing(), IDLE), (OFF, IDLE), (HEALTHY, REGISTER)]);
}

#[test]
fn maintenance_waits_for_a_registration_in_progress_only() {
    assert_steps(vec![(HEALTHY, REGISTER), (ON, UNCHANGED), (OK, DEREGISTER), (OK, IDLE)]);
    assert_steps(vec![(HEALTHY, REGISTER), (ON, UNCHANGED), (away(), DEREGISTER), (OK, IDLE)]);
    assert_steps(vec![
        (HEALTHY, REGISTER),
        (OK, IDLE),
        (HEALTHY, PASS),
        (ON, DEREGISTER),
        (OFF, UNCHANGED),
        (OK, IDLE),
        (HEALTHY, REGISTER),
    ]);
    assert_steps(vec![(HEALTHY, REGISTER), (OK, IDLE), (Event::Due, CHECK), (ON, DEREGISTER)]);
    assert_steps(vec![(HEALTHY, REGISTER), (ON, UNCHANGED), (OFF, UNCHANGED), (OK, IDLE), (HEALTHY, PASS)]);
}

#[test]
fn failed_deregistration_is_retried_during_maintenance() {
    assert_steps(vec![
        (HEALTHY, REGISTER),
        (OK, IDLE),
        (ON, DEREGISTER),
        (away(), IDLE),
        (Event::Due, DEREGISTER),
        (OK, IDLE),
        (Event::Due, IDLE),
    ]);
    assert_steps(vec![
        (HEALTHY, REGISTER),
        (OK, IDLE),
        (ON, DEREGISTER),
        (away(), IDLE),
        (OFF, IDLE),
        (HEALTHY, REGISTER),
    ]);
}

#[test]
fn successor_takes_over_a_passing_registration_immediately() {
    let registered = || after([HEALTHY, OK]);
    for (name, mut machine, expected) in [
        ("healthy", registered(), REGISTER),
        ("never seen healthy", after([failing()]), IDLE),
        ("failing", after([HEALTHY, OK, failing(), OK]), UNCHANGED),
        ("failing, which could not be reported yet", after([HEALTHY, OK, failing(), away()]), UNCHANGED),
        ("in maintenance that is over", after([HEALTHY, OK, ON, OK]), IDLE),
    ] {
        assert_eq!(machine.begin(false), expected, "{name}");
        assert_eq!(machine.step(HEALTHY), REGISTER, "{name}");
    }
    assert_eq!(registered().begin(true), DEREGISTER);
    assert!(registered().is_registered() && !fresh().is_registered());
}

#[test]
fn passing_service_is_registered_immediately_in_another_registry() {
    let mut passing = after([HEALTHY, OK]);
    passing.on_registry_changed();
    assert_eq!(passing.begin(false), REGISTER);
    let mut unhealthy = after([HEALTHY, OK, failing(), OK]);
    unhealthy.on_registry_changed();
    assert!(!unhealthy.is_registered());
    assert_eq!(unhealthy.step(failing()), IDLE);
}

#[test]
fn leftover_is_removed_by_the_first_deregistration_and_else_treated_as_nothing() {
    for (steps, is_registered) in [
        (vec![], true),
        (vec![(failing(), IDLE), (unknown(), IDLE)], true),
        (vec![(HEALTHY, REGISTER), (OK, IDLE), (HEALTHY, PASS)], true),
        (vec![(HEALTHY, REGISTER), (away(), IDLE), (HEALTHY, REGISTER)], true),
        (vec![(HEALTHY, REGISTER), (taken(), IDLE), (ON, IDLE)], false),
        (vec![(HEALTHY, REGISTER), (forgotten(), IDLE), (ON, IDLE)], false),
        (vec![(failing(), IDLE), (ON, DEREGISTER), (OK, IDLE), (Event::Due, IDLE)], false),
        (vec![(ON, DEREGISTER), (forgotten(), IDLE), (Event::Due, IDLE)], false),
        (vec![(ON, DEREGISTER), (taken(), IDLE), (Event::Due, IDLE), (OFF, IDLE), (HEALTHY, REGISTER)], true),
        (vec![(ON, DEREGISTER), (away(), IDLE), (Event::Due, DEREGISTER), (OK, IDLE)], false),
        (vec![(ON, DEREGISTER), (OK, IDLE), (OFF, IDLE), (failing(), IDLE), (HEALTHY, REGISTER)], true),
    ] {
        let mut machine = started(true);
        for (number, (event, expected)) in steps.iter().enumerate() {
            assert_eq!(machine.step(event.clone()), *expected, "step {number} of {steps:?}");
        }
        assert_eq!(machine.is_registered(), is_registered, "{steps:?}");
    }
}

#[test]
fn leftover_stays_one_for_a_successor_but_not_in_another_registry() {
    let mut machine = started(true);
    machine.step(failing());
    assert_eq!((machine.begin(false), machine.is_registered()), (IDLE, true));
    assert_eq!(machine.step(HEALTHY), REGISTER);
    assert_eq!(started(true).begin(true), DEREGISTER);
    let mut moved = started(true);
    moved.on_registry_changed();
    assert_eq!((moved.begin(false), moved.is_registered()), (IDLE, false));
}

#[test]
fn status_is_that_of_the_last_check() {
    for (events, status) in [
        (vec![], "unknown"),
        (vec![HEALTHY], "healthy"),
        (vec![HEALTHY, OK, failing()], "unhealthy"),
        (vec![HEALTHY, OK, unknown()], "healthy"),
        (vec![HEALTHY, OK, ON], "maintenance"),
    ] {
        assert_eq!(after(events).status(), status);
    }
}

/// The next step of the actor, and the reply of its environment.
#[derive(Debug, Clone)]
enum Turn {
    Due,
    CheckResult(Event),
    Answer(Event),
    Maintain(bool),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        Just(Turn::Due),
        prop_oneof![Just(HEALTHY), Just(failing()), Just(unknown())].prop_map(Turn::CheckResult),
        prop_oneof![3 => Just(OK), 1 => Just(forgotten()), 1 => Just(away())].prop_map(Turn::Answer),
        any::<bool>().prop_map(Turn::Maintain),
    ]
}

proptest! {
    #[test]
    fn only_healthy_services_outside_maintenance_are_registered(turns in vec(turn(), 0..60)) {
        let mut machine = fresh();
        let (mut healthy, mut maintained, mut present) = (false, false, Action::Idle);
        for turn in turns {
            let event = match (turn, &present) {
                (Turn::Due, Action::Idle) => Event::Due,
                (Turn::CheckResult(event), Action::Check) | (Turn::Answer(event), Action::Call(_)) => event,
                (Turn::Maintain(on), _) => Event::Maintain(on),
                _ => continue,
            };
            match &event {
                Event::Checked(Some(verdict)) => healthy = *verdict == CheckResult::Healthy,
                Event::Maintain(on) => maintained = *on,
                _ => {}
            }
            let Some(action) = machine.step(event.clone()) else {
                prop_assert!(matches!(present, Action::Call(RegistryCall::Register | RegistryCall::Deregister)));
                continue;
            };
            if matches!(action, Action::Call(RegistryCall::Register | RegistryCall::Pass)) {
                prop_assert!(healthy && !maintained, "{:?}", event);
            }
            if action == Action::Idle && maintained && event == OK {
                prop_assert!(!machine.is_registered());
            }
            prop_assert!(!(maintained && action == Action::Check));
            present = action;
        }
    }
}

fn taken() -> Event {
    Event::Answered(Err(RegistryError::Taken("another process".to_owned())))
}

#[test]
fn id_of_another_process_is_retried_and_never_removed() {
    // It was there first: registering is tried again.
    assert_steps(vec![
        (HEALTHY, REGISTER),
        (taken(), IDLE),
        (HEALTHY, REGISTER),
        (taken(), IDLE),
        (failing(), IDLE),
        (ON, IDLE),
    ]);
    let mut refused = after([HEALTHY, taken()]);
    assert!(!refused.is_registered());
    assert_eq!(refused.begin(false), IDLE);
    // It appeared later: the check finds it, and it stays unchanged.
    assert_steps(vec![
        (HEALTHY, REGISTER),
        (OK, IDLE),
        (HEALTHY, PASS),
        (taken(), IDLE),
        (failing(), IDLE),
        (HEALTHY, PASS),
        (taken(), IDLE),
        (ON, IDLE),
        (Event::Due, IDLE),
        (OFF, IDLE),
        (HEALTHY, PASS),
        (forgotten(), REGISTER),
        (OK, IDLE),
        (HEALTHY, PASS),
    ]);
    let mut left = after([HEALTHY, OK, HEALTHY, taken()]);
    assert!(!left.is_registered());
    assert_eq!(left.begin(false), IDLE);
    assert_eq!(left.step(HEALTHY), PASS);
}
