use proptest::{collection::vec, prelude::*};

use super::*;

const GRACE: Duration = Duration::from_secs(5);

/// Effects of a machine, event by event.
fn effects(application: bool, events: &[Event]) -> Vec<Vec<Effect>> {
    let (mut machine, now) = (PilotMachine::new(application, Some(GRACE)), Instant::now());
    events.iter().map(|event| machine.step(*event, now)).collect()
}

fn exited(hook: Hook) -> Event {
    Event::HookEnded(hook, 0)
}

const UP: [Event; 3] = [Event::Begin, Event::HookEnded(Hook::PreStart, 0), Event::Started];

#[test]
fn request_deregisters_before_the_application_is_terminated() {
    let events = [Event::Terminate, Event::Deregistered, exited(Hook::PreStop), Event::Exited(143)];
    let events = [&UP[..], &events, &[exited(Hook::PostStop), Event::CoprocessesStopped]].concat();
    let expected = vec![
        vec![Effect::Run(Hook::PreStart)],
        vec![Effect::StartServices, Effect::Start],
        vec![],
        vec![Effect::Deregister],
        vec![Effect::Run(Hook::PreStop)],
        vec![Effect::Terminate],
        vec![Effect::Run(Hook::PostStop)],
        vec![Effect::StopCoprocesses],
        vec![Effect::Exit(143)],
    ];
    assert_eq!(effects(true, &events), expected);
}

#[test]
fn application_that_exits_is_deregistered_and_sets_the_exit_code() {
    for (post_stop, code) in [(0, 3), (7, 7)] {
        let events = [Event::Exited(3), Event::Deregistered, Event::HookEnded(Hook::PostStop, post_stop)];
        let events = [&UP[..], &events, &[Event::CoprocessesStopped]].concat();
        let expected = [
            vec![Effect::Deregister],
            vec![Effect::Run(Hook::PostStop)],
            vec![Effect::StopCoprocesses],
            vec![Effect::Exit(code)],
        ];
        assert_eq!(effects(true, &events)[3..], expected);
    }
}

#[test]
fn failed_start_counts_as_exit() {
    let events = [Event::Begin, exited(Hook::PreStart), Event::Exited(127), Event::Deregistered];
    let events = [&events[..], &[exited(Hook::PostStop), Event::CoprocessesStopped]].concat();
    assert_eq!(effects(true, &events).last(), Some(&vec![Effect::Exit(127)]));
}

#[test]
fn failing_pre_start_sets_the_exit_code_and_deregisters_leftovers() {
    let events = [Event::Begin, Event::HookEnded(Hook::PreStart, 5), Event::Deregistered, Event::CoprocessesStopped];
    let expected = [
        vec![Effect::Run(Hook::PreStart)],
        vec![Effect::DeregisterLeftovers],
        vec![Effect::StopCoprocesses],
        vec![Effect::Exit(5)],
    ];
    assert_eq!(effects(true, &events), expected);
    assert_eq!(effects(false, &events), expected);
}

#[test]
fn request_during_pre_start_cancels_it_and_starts_nothing() {
    let events = [Event::Begin, Event::Terminate, Event::HookEnded(Hook::PreStart, 143)];
    let events = [&events[..], &[Event::Deregistered, Event::CoprocessesStopped]].concat();
    let expected = [
        vec![Effect::CancelHook],
        vec![Effect::DeregisterLeftovers],
        vec![Effect::StopCoprocesses],
        vec![Effect::Exit(0)],
    ];
    assert_eq!(effects(true, &events)[1..], expected);
}

#[test]
fn request_during_the_start_takes_effect_once_the_application_runs() {
    let events = [Event::Begin, exited(Hook::PreStart), Event::Terminate, Event::Started];
    assert_eq!(effects(true, &events)[2..], [vec![], vec![Effect::Deregister]]);
}

#[test]
fn hanging_start_is_cancelled_by_the_grace_or_a_second_request() {
    for forced in [false, true] {
        let (mut machine, now) = (PilotMachine::new(true, Some(GRACE)), Instant::now());
        for event in [Event::Begin, exited(Hook::PreStart)] {
            machine.step(event, now);
        }
        assert_eq!((machine.step(Event::Terminate, now), machine.next_action_at()), (vec![], Some(now + GRACE)));
        assert_eq!(machine.step(Event::Tick, now + GRACE / 2), []);
        let last = if forced { Event::Force } else { Event::Tick };
        assert_eq!(machine.step(last, now + GRACE), [Effect::CancelStart, Effect::Deregister]);
        assert!(!machine.is_starting());
    }
}

#[test]
fn application_is_starting_until_it_runs_or_fails() {
    for (mode, application) in [(Event::Started, true), (Event::Exited(127), true), (Event::Terminate, false)] {
        let (mut machine, now) = (PilotMachine::new(application, Some(GRACE)), Instant::now());
        let starting = [Event::Begin, exited(Hook::PreStart), mode].map(|event| {
            machine.step(event, now);
            machine.is_starting()
        });
        assert_eq!(starting, [false, application, false], "{mode:?}");
    }
}

#[test]
fn host_without_application_runs_until_requested_to_exit() {
    let events = [Event::Begin, exited(Hook::PreStart), Event::Terminate, Event::Deregistered];
    let events = [&events[..], &[exited(Hook::PreStop), exited(Hook::PostStop), Event::CoprocessesStopped]].concat();
    let expected = [
        vec![Effect::StartServices],
        vec![Effect::Deregister],
        vec![Effect::Run(Hook::PreStop)],
        vec![Effect::Run(Hook::PostStop)],
        vec![Effect::StopCoprocesses],
        vec![Effect::Exit(0)],
    ];
    assert_eq!(effects(false, &events)[1..], expected);
}

#[test]
fn application_is_killed_when_the_grace_expires() {
    let (mut machine, now) = (PilotMachine::new(true, Some(GRACE)), Instant::now());
    for event in UP.into_iter().chain([Event::Terminate, Event::Deregistered]) {
        machine.step(event, now);
    }
    assert_eq!(machine.step(exited(Hook::PreStop), now), [Effect::Terminate]);
    assert_eq!(machine.next_action_at(), Some(now + GRACE));
    assert_eq!(machine.step(Event::Tick, now + GRACE / 2), []);
    assert_eq!(machine.step(Event::Tick, now + GRACE), [Effect::Kill]);
    assert_eq!(machine.next_action_at(), Some(now + GRACE + KILL_TIMEOUT));
    assert_eq!(machine.step(Event::Exited(137), now), [Effect::Run(Hook::PostStop)]);
}

#[test]
fn application_that_cannot_be_killed_is_left_behind() {
    for forced in [false, true] {
        let (mut machine, mut now) = (PilotMachine::new(true, Some(GRACE)), Instant::now());
        for event in [&UP[..], &[Event::Terminate, Event::Deregistered, exited(Hook::PreStop)]].concat() {
            machine.step(event, now);
        }
        if forced {
            assert_eq!(machine.step(Event::Force, now), [Effect::Kill]);
        } else {
            now += GRACE;
            assert_eq!(machine.step(Event::Tick, now), [Effect::Kill]);
        }
        now = machine.next_action_at().expect("it is not waited for without end");
        let next = if forced { Effect::StopCoprocesses } else { Effect::Run(Hook::PostStop) };
        assert_eq!(machine.step(Event::Tick, now), [next]);
    }
}

#[test]
fn application_without_grace_is_killed_immediately() {
    let (mut machine, now) = (PilotMachine::new(true, Some(GRACE)), Instant::now());
    machine.set_grace(None);
    for event in UP.into_iter().chain([Event::Terminate, Event::Deregistered]) {
        machine.step(event, now);
    }
    assert_eq!(machine.step(exited(Hook::PreStop), now), [Effect::Kill]);
}

#[test]
fn forced_shutdown_kills_and_skips_hooks() {
    let events = [Event::Terminate, Event::Deregistered, Event::Force, Event::HookEnded(Hook::PreStop, 137)];
    let events = [&UP[..], &events, &[Event::Exited(137), Event::CoprocessesStopped]].concat();
    let expected = [vec![Effect::Kill], vec![Effect::Kill], vec![Effect::StopCoprocesses], vec![Effect::Exit(137)]];
    assert_eq!(effects(true, &events)[5..], expected);
}

/// Executes the effects of the machine in a random order, with signals at random times.
fn walk(application: bool, choices: &[u8]) -> Vec<Effect> {
    let (mut machine, mut now) = (PilotMachine::new(application, Some(GRACE)), Instant::now());
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
                Event::Exited(choice)
            }
            _ if !pending.is_empty() => pending.remove(usize::from(choice) % pending.len()),
            _ if step > 500 => Event::Terminate,
            _ => Event::Tick,
        };
        now += Duration::from_secs(1);
        if let Event::HookEnded(exited, _) = event {
            assert_eq!(hook.take(), Some(exited));
        }
        up |= event == Event::Started;
        for effect in machine.step(event, now) {
            match effect {
                Effect::Run(which) => {
                    assert_eq!(hook.replace(which), None, "two concurrent hooks");
                    pending.push(Event::HookEnded(which, if choice % 16 == 3 { 9 } else { 0 }));
                }
                Effect::Start => pending.push(if choice % 16 == 4 { Event::Exited(127) } else { Event::Started }),
                Effect::CancelStart => {
                    pending.retain(|event| !matches!(event, Event::Started | Event::Exited(_)));
                }
                Effect::Deregister | Effect::DeregisterLeftovers => pending.push(Event::Deregistered),
                Effect::Terminate | Effect::Kill if std::mem::take(&mut up) => pending.push(Event::Exited(143)),
                Effect::StopCoprocesses => pending.push(Event::CoprocessesStopped),
                _ => {}
            }
            done.push(effect);
            if matches!(effect, Effect::Exit(_)) {
                return done;
            }
        }
    }
    panic!("it does not exit: {done:?}")
}

proptest! {
    #[test]
    fn shutdown_is_ordered_for_all_event_sequences(application: bool, choices in vec(any::<u8>(), 0..60)) {
        let done = walk(application, &choices);
        let count = |has_application: fn(&Effect) -> bool| done.iter().filter(|effect| has_application(effect)).count();
        let place = |effect: Effect| done.iter().position(|done| *done == effect);
        prop_assert_eq!(count(|effect| matches!(effect, Effect::Deregister | Effect::DeregisterLeftovers)), 1);
        prop_assert_eq!(place(Effect::Deregister).is_some(), place(Effect::StartServices).is_some());
        prop_assert_eq!(count(|effect| *effect == Effect::StopCoprocesses), 1);
        prop_assert!(count(|effect| *effect == Effect::Start) <= usize::from(application));
        prop_assert!(place(Effect::Start).is_none() || place(Effect::StartServices) < place(Effect::Start));
        let deregistered = place(Effect::Deregister);
        prop_assert!(place(Effect::Terminate).is_none_or(|at| deregistered.is_some_and(|first| first < at)));
        prop_assert!(place(Effect::Deregister) < place(Effect::StopCoprocesses));
    }
}
