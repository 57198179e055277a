//! What a service's place is told, as tables of what happens and what must come of it.

use proptest::{collection::vec, prelude::*};

use super::*;

const HEALTHY: Event = Event::Checked(Some(Verdict::Healthy));
const OK: Event = Event::Answered(Ok(()));
const ON: Event = Event::Maintain(true);
const OFF: Event = Event::Maintain(false);
const REGISTER: Option<Action> = Some(Action::Tell(Call::Register));
const PASS: Option<Action> = Some(Action::Tell(Call::Pass));
const DEREGISTER: Option<Action> = Some(Action::Tell(Call::Deregister));
const CHECK: Option<Action> = Some(Action::Check);
const REST: Option<Action> = Some(Action::Rest);
const GO_ON: Option<Action> = None;

fn sick() -> Event {
    Event::Checked(Some(Verdict::Sick("ended with code 1".to_owned())))
}

fn fail() -> Action {
    Action::Tell(Call::Fail("ended with code 1".to_owned()))
}

fn forgotten() -> Event {
    Event::Answered(Err(DiscoveryError::Forgotten("app-h".to_owned())))
}

fn away() -> Event {
    Event::Answered(Err(DiscoveryError::Unavailable("nobody there".to_owned())))
}

fn refused() -> Event {
    Event::Answered(Err(DiscoveryError::Refused("no".to_owned())))
}

fn unknown() -> Event {
    Event::Checked(None)
}

fn fresh() -> Standing {
    let mut standing = Standing::new("app".to_owned());
    assert_eq!(standing.begin(false), REST);
    standing
}

fn after(events: impl IntoIterator<Item = Event>) -> Standing {
    let mut standing = fresh();
    for event in events {
        standing.step(event);
    }
    standing
}

#[track_caller]
fn goes(steps: Vec<(Event, Option<Action>)>) {
    let mut standing = fresh();
    for (number, (event, expected)) in steps.into_iter().enumerate() {
        assert_eq!(standing.step(event.clone()), expected, "step {number}, {event:?}");
    }
}

#[test]
fn the_first_healthy_check_registers_and_the_next_ones_pass() {
    goes(vec![(Event::Due, CHECK), (HEALTHY, REGISTER), (OK, REST), (Event::Due, CHECK), (HEALTHY, PASS), (OK, REST)]);
}

#[test]
fn nothing_is_told_of_a_service_that_was_never_healthy() {
    goes(vec![(sick(), REST), (unknown(), REST), (sick(), REST), (HEALTHY, REGISTER)]);
}

#[test]
fn a_failure_is_told_at_once_and_once_and_the_next_healthy_check_passes() {
    goes(vec![
        (HEALTHY, REGISTER),
        (OK, REST),
        (sick(), Some(fail())),
        (OK, REST),
        (sick(), REST),
        (unknown(), REST),
        (HEALTHY, PASS),
        (OK, REST),
        (sick(), Some(fail())),
    ]);
}

#[test]
fn a_failure_that_could_not_be_told_is_told_again() {
    goes(vec![
        (HEALTHY, REGISTER),
        (OK, REST),
        (sick(), Some(fail())),
        (away(), REST),
        (sick(), Some(fail())),
        (OK, REST),
        (sick(), REST),
    ]);
}

#[test]
fn what_was_forgotten_is_registered_at_once_when_healthy_and_not_at_all_when_not() {
    goes(vec![(HEALTHY, REGISTER), (OK, REST), (HEALTHY, PASS), (forgotten(), REGISTER), (OK, REST), (HEALTHY, PASS)]);
    goes(vec![
        (HEALTHY, REGISTER),
        (OK, REST),
        (sick(), Some(fail())),
        (forgotten(), REST),
        (sick(), REST),
        (HEALTHY, REGISTER),
    ]);
    goes(vec![(HEALTHY, REGISTER), (forgotten(), REST), (HEALTHY, REGISTER)]);
}

#[test]
fn a_place_that_is_away_or_refuses_is_told_again_when_the_next_check_is_due() {
    for error in [away(), refused()] {
        goes(vec![
            (HEALTHY, REGISTER),
            (error.clone(), REST),
            (HEALTHY, REGISTER),
            (OK, REST),
            (HEALTHY, PASS),
            (error, REST),
            (HEALTHY, PASS),
        ]);
    }
}

#[test]
fn a_registration_that_may_have_been_made_is_failed_and_removed_like_one_that_was() {
    goes(vec![(HEALTHY, REGISTER), (away(), REST), (sick(), Some(fail())), (forgotten(), REST), (sick(), REST)]);
    goes(vec![(HEALTHY, REGISTER), (away(), REST), (ON, DEREGISTER)]);
}

#[test]
fn maintenance_deregisters_checks_nothing_and_ends_with_a_registration_at_the_next_healthy_check() {
    goes(vec![
        (HEALTHY, REGISTER),
        (OK, REST),
        (ON, DEREGISTER),
        (OK, REST),
        (Event::Due, REST),
        (HEALTHY, REST),
        (OFF, REST),
        (Event::Due, CHECK),
        (HEALTHY, REGISTER),
    ]);
    goes(vec![(ON, REST), (Event::Due, REST), (sick(), REST), (OFF, REST), (HEALTHY, REGISTER)]);
}

#[test]
fn maintenance_waits_for_what_would_register_and_for_nothing_else() {
    goes(vec![(HEALTHY, REGISTER), (ON, GO_ON), (OK, DEREGISTER), (OK, REST)]);
    goes(vec![(HEALTHY, REGISTER), (ON, GO_ON), (away(), DEREGISTER), (OK, REST)]);
    goes(vec![
        (HEALTHY, REGISTER),
        (OK, REST),
        (HEALTHY, PASS),
        (ON, DEREGISTER),
        (OFF, GO_ON),
        (OK, REST),
        (HEALTHY, REGISTER),
    ]);
    goes(vec![(HEALTHY, REGISTER), (OK, REST), (Event::Due, CHECK), (ON, DEREGISTER)]);
    goes(vec![(HEALTHY, REGISTER), (ON, GO_ON), (OFF, GO_ON), (OK, REST), (HEALTHY, PASS)]);
}

#[test]
fn a_deregistration_that_failed_is_tried_again_during_the_maintenance() {
    goes(vec![
        (HEALTHY, REGISTER),
        (OK, REST),
        (ON, DEREGISTER),
        (away(), REST),
        (Event::Due, DEREGISTER),
        (OK, REST),
        (Event::Due, REST),
    ]);
    goes(vec![(HEALTHY, REGISTER), (OK, REST), (ON, DEREGISTER), (away(), REST), (OFF, REST), (HEALTHY, REGISTER)]);
}

#[test]
fn a_successor_takes_the_registration_over_at_once_only_if_it_was_passing() {
    let registered = || after([HEALTHY, OK]);
    for (name, mut standing, expected) in [
        ("healthy", registered(), REGISTER),
        ("never seen healthy", after([sick()]), REST),
        ("failing", after([HEALTHY, OK, sick(), OK]), GO_ON),
        ("sick, which it could not be told yet", after([HEALTHY, OK, sick(), away()]), GO_ON),
        ("in maintenance that is over", after([HEALTHY, OK, ON, OK]), REST),
    ] {
        assert_eq!(standing.begin(false), expected, "{name}");
        assert_eq!(standing.step(HEALTHY), REGISTER, "{name}");
    }
    assert_eq!(registered().begin(true), DEREGISTER);
    assert!(registered().is_registered() && !fresh().is_registered());
}

#[test]
fn at_another_place_a_passing_service_is_registered_at_once_and_others_are_unknown() {
    let mut passing = after([HEALTHY, OK]);
    passing.moved();
    assert_eq!(passing.begin(false), REGISTER);
    let mut failing = after([HEALTHY, OK, sick(), OK]);
    failing.moved();
    assert!(!failing.is_registered());
    assert_eq!(failing.step(sick()), REST);
}

#[test]
fn the_word_for_people_is_that_of_the_last_check() {
    for (events, word) in [
        (vec![], "unknown"),
        (vec![HEALTHY], "healthy"),
        (vec![HEALTHY, OK, sick()], "unhealthy"),
        (vec![HEALTHY, OK, unknown()], "healthy"),
        (vec![HEALTHY, OK, ON], "maintenance"),
    ] {
        assert_eq!(after(events).word(), word);
    }
}

/// What the actor does next, and how the world answers.
#[derive(Debug, Clone)]
enum Turn {
    Due,
    Verdict(Event),
    Answer(Event),
    Maintain(bool),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        Just(Turn::Due),
        prop_oneof![Just(HEALTHY), Just(sick()), Just(unknown())].prop_map(Turn::Verdict),
        prop_oneof![3 => Just(OK), 1 => Just(forgotten()), 1 => Just(away())].prop_map(Turn::Answer),
        any::<bool>().prop_map(Turn::Maintain),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_nothing_is_registered_unless_healthy_nor_during_maintenance(turns in vec(turn(), 0..60)) {
        let mut standing = fresh();
        let (mut healthy, mut maintained, mut present) = (false, false, Action::Rest);
        for turn in turns {
            let event = match (turn, &present) {
                (Turn::Due, Action::Rest) => Event::Due,
                (Turn::Verdict(event), Action::Check) | (Turn::Answer(event), Action::Tell(_)) => event,
                (Turn::Maintain(on), _) => Event::Maintain(on),
                _ => continue,
            };
            match &event {
                Event::Checked(Some(verdict)) => healthy = *verdict == Verdict::Healthy,
                Event::Maintain(on) => maintained = *on,
                _ => {}
            }
            let Some(action) = standing.step(event.clone()) else {
                prop_assert!(matches!(present, Action::Tell(Call::Register | Call::Deregister)));
                continue;
            };
            if matches!(action, Action::Tell(Call::Register | Call::Pass)) {
                prop_assert!(healthy && !maintained, "{:?}", event);
            }
            if action == Action::Rest && maintained && event == OK {
                prop_assert!(!standing.is_registered());
            }
            prop_assert!(!(maintained && action == Action::Check));
            present = action;
        }
    }
}
