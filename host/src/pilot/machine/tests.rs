use proptest::{collection::vec, prelude::*};

use super::*;

const PATIENCE: Duration = Duration::from_secs(5);

/// What a machine does, event by event.
fn told(application: bool, events: &[Event]) -> Vec<Vec<Effect>> {
    let (mut machine, now) = (Machine::new(application, Some(PATIENCE)), Instant::now());
    events.iter().map(|event| machine.step(*event, now)).collect()
}

fn ended(hook: Hook) -> Event {
    Event::HookEnded(hook, 0)
}

const UP: [Event; 3] = [Event::Begin, Event::HookEnded(Hook::PreStart, 0), Event::Started];

#[test]
fn a_request_deregisters_before_the_application_is_asked() {
    let events = [Event::Terminate, Event::Withdrawn, ended(Hook::PreStop), Event::Ended(143)];
    let events = [&UP[..], &events, &[ended(Hook::PostStop), Event::Disbanded]].concat();
    let expected = vec![
        vec![Effect::Run(Hook::PreStart)],
        vec![Effect::Gather, Effect::Start],
        vec![],
        vec![Effect::Withdraw],
        vec![Effect::Run(Hook::PreStop)],
        vec![Effect::Ask],
        vec![Effect::Run(Hook::PostStop)],
        vec![Effect::Disband],
        vec![Effect::Leave(143)],
    ];
    assert_eq!(told(true, &events), expected);
}

#[test]
fn an_application_that_ends_by_itself_is_deregistered_and_its_code_is_the_hosts() {
    for (post_stop, code) in [(0, 3), (7, 7)] {
        let events = [Event::Ended(3), Event::Withdrawn, Event::HookEnded(Hook::PostStop, post_stop)];
        let events = [&UP[..], &events, &[Event::Disbanded]].concat();
        let expected = [
            vec![Effect::Withdraw],
            vec![Effect::Run(Hook::PostStop)],
            vec![Effect::Disband],
            vec![Effect::Leave(code)],
        ];
        assert_eq!(told(true, &events)[3..], expected);
    }
}

#[test]
fn an_application_that_cannot_be_started_is_one_that_ended() {
    let events = [Event::Begin, ended(Hook::PreStart), Event::Ended(127), Event::Withdrawn];
    let events = [&events[..], &[ended(Hook::PostStop), Event::Disbanded]].concat();
    assert_eq!(told(true, &events).last(), Some(&vec![Effect::Leave(127)]));
}

#[test]
fn a_failing_pre_start_ends_the_host_with_its_code_and_leaves_nothing_registered() {
    let events = [Event::Begin, Event::HookEnded(Hook::PreStart, 5), Event::Withdrawn, Event::Disbanded];
    let expected =
        [vec![Effect::Run(Hook::PreStart)], vec![Effect::Clear], vec![Effect::Disband], vec![Effect::Leave(5)]];
    assert_eq!(told(true, &events), expected);
    assert_eq!(told(false, &events), expected);
}

#[test]
fn a_request_during_pre_start_cuts_it_and_starts_nothing() {
    let events = [Event::Begin, Event::Terminate, Event::HookEnded(Hook::PreStart, 143)];
    let events = [&events[..], &[Event::Withdrawn, Event::Disbanded]].concat();
    let expected = [vec![Effect::Cut], vec![Effect::Clear], vec![Effect::Disband], vec![Effect::Leave(0)]];
    assert_eq!(told(true, &events)[1..], expected);
}

#[test]
fn a_request_while_the_application_starts_is_obeyed_once_it_runs() {
    let events = [Event::Begin, ended(Hook::PreStart), Event::Terminate, Event::Started];
    assert_eq!(told(true, &events)[2..], [vec![], vec![Effect::Withdraw]]);
}

#[test]
fn the_application_is_being_started_until_it_runs_or_cannot() {
    for (end, application) in [(Event::Started, true), (Event::Ended(127), true), (Event::Terminate, false)] {
        let (mut machine, now) = (Machine::new(application, Some(PATIENCE)), Instant::now());
        let starting = [Event::Begin, ended(Hook::PreStart), end].map(|event| {
            machine.step(event, now);
            machine.is_starting()
        });
        assert_eq!(starting, [false, application, false], "{end:?}");
    }
}

#[test]
fn without_an_application_the_host_serves_until_it_is_asked_to_end() {
    let events = [Event::Begin, ended(Hook::PreStart), Event::Terminate, Event::Withdrawn];
    let events = [&events[..], &[ended(Hook::PreStop), ended(Hook::PostStop), Event::Disbanded]].concat();
    let expected = [
        vec![Effect::Gather],
        vec![Effect::Withdraw],
        vec![Effect::Run(Hook::PreStop)],
        vec![Effect::Run(Hook::PostStop)],
        vec![Effect::Disband],
        vec![Effect::Leave(0)],
    ];
    assert_eq!(told(false, &events)[1..], expected);
}

#[test]
fn an_application_that_does_not_end_is_killed_when_patience_is_over() {
    let (mut machine, now) = (Machine::new(true, Some(PATIENCE)), Instant::now());
    for event in UP.into_iter().chain([Event::Terminate, Event::Withdrawn]) {
        machine.step(event, now);
    }
    assert_eq!(machine.step(ended(Hook::PreStop), now), [Effect::Ask]);
    assert_eq!(machine.wake(), Some(now + PATIENCE));
    assert_eq!(machine.step(Event::Tick, now + PATIENCE / 2), []);
    assert_eq!(machine.step(Event::Tick, now + PATIENCE), [Effect::Kill]);
    assert_eq!(machine.wake(), None);
    assert_eq!(machine.step(Event::Ended(137), now), [Effect::Run(Hook::PostStop)]);
}

#[test]
fn without_patience_the_application_is_killed_and_not_asked() {
    let (mut machine, now) = (Machine::new(true, Some(PATIENCE)), Instant::now());
    machine.set_patience(None);
    for event in UP.into_iter().chain([Event::Terminate, Event::Withdrawn]) {
        machine.step(event, now);
    }
    assert_eq!(machine.step(ended(Hook::PreStop), now), [Effect::Kill]);
}

#[test]
fn an_order_kills_and_runs_no_more_hooks() {
    let events = [Event::Terminate, Event::Withdrawn, Event::Force, Event::HookEnded(Hook::PreStop, 137)];
    let events = [&UP[..], &events, &[Event::Ended(137), Event::Disbanded]].concat();
    let expected = [vec![Effect::Kill], vec![Effect::Kill], vec![Effect::Disband], vec![Effect::Leave(137)]];
    assert_eq!(told(true, &events)[5..], expected);
}

/// Carries out what the machine wants, in an order of the world's choice, with signals whenever it likes.
fn walk(application: bool, choices: &[u8]) -> Vec<Effect> {
    let (mut machine, mut now) = (Machine::new(application, Some(PATIENCE)), Instant::now());
    let mut pending = vec![Event::Begin];
    let (mut done, mut up, mut hook) = (Vec::new(), false, None);
    let mut choices = choices.iter().copied().chain(std::iter::repeat(0));
    for step in 0..1000 {
        let choice = choices.next().unwrap_or_default();
        let event = match choice % 8 {
            6 => Event::Terminate,
            7 if choice > 200 => Event::Force,
            5 if up => {
                up = false;
                Event::Ended(choice)
            }
            _ if !pending.is_empty() => pending.remove(usize::from(choice) % pending.len()),
            _ if step > 500 => Event::Terminate,
            _ => Event::Tick,
        };
        now += Duration::from_secs(1);
        if let Event::HookEnded(ended, _) = event {
            assert_eq!(hook.take(), Some(ended));
        }
        up |= event == Event::Started;
        for effect in machine.step(event, now) {
            match effect {
                Effect::Run(which) => {
                    assert_eq!(hook.replace(which), None, "two hooks at once");
                    pending.push(Event::HookEnded(which, if choice % 16 == 3 { 9 } else { 0 }));
                }
                Effect::Start => pending.push(if choice % 16 == 4 { Event::Ended(127) } else { Event::Started }),
                Effect::Withdraw | Effect::Clear => pending.push(Event::Withdrawn),
                Effect::Ask | Effect::Kill if std::mem::take(&mut up) => pending.push(Event::Ended(143)),
                Effect::Disband => pending.push(Event::Disbanded),
                _ => {}
            }
            done.push(effect);
            if matches!(effect, Effect::Leave(_)) {
                return done;
            }
        }
    }
    panic!("it does not leave: {done:?}")
}

proptest! {
    #[test]
    fn whatever_happens_it_leaves_in_order(application: bool, choices in vec(any::<u8>(), 0..60)) {
        let done = walk(application, &choices);
        let count = |wanted: fn(&Effect) -> bool| done.iter().filter(|effect| wanted(effect)).count();
        let place = |effect: Effect| done.iter().position(|done| *done == effect);
        prop_assert_eq!(count(|effect| matches!(effect, Effect::Withdraw | Effect::Clear)), 1);
        prop_assert_eq!(place(Effect::Withdraw).is_some(), place(Effect::Gather).is_some());
        prop_assert_eq!(count(|effect| *effect == Effect::Disband), 1);
        prop_assert!(count(|effect| *effect == Effect::Start) <= usize::from(application));
        prop_assert!(place(Effect::Start).is_none() || place(Effect::Gather) < place(Effect::Start));
        prop_assert!(place(Effect::Ask).is_none_or(|ask| place(Effect::Withdraw).is_some_and(|first| first < ask)));
        prop_assert!(place(Effect::Withdraw) < place(Effect::Disband));
    }
}
