//! The life of what a pilot accompanies, decided: hooks, the application, registration and the end, in their order.

use std::time::{Duration, Instant};

/// The commands that run at fixed points of the application's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Hook {
    /// Before it starts.
    PreStart,
    /// Before it is asked to end.
    PreStop,
    /// After it ended.
    PostStop,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Everything is ready.
    Begin,
    /// A hook ended with this code, or is not configured: 0.
    HookEnded(Hook, u8),
    /// The application runs.
    Started,
    /// The application ended, or could not be started: with this code.
    Ended(u8),
    /// Nothing is polled any more and nothing registered, as far as that was possible.
    Withdrawn,
    /// The coprocesses have ended.
    Disbanded,
    /// The host was asked to end.
    Terminate,
    /// The host was told to end at once: whoever runs a hook kills it.
    Force,
    /// It is as late as [`Machine::wake`] said.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Run this hook, if it is configured, and tell how it ended.
    Run(Hook),
    /// Ask the hook that runs to end: it is told as always.
    Cut,
    /// Start services, backends, tasks, coprocesses and sensors.
    Gather,
    /// Start the application.
    Start,
    /// Poll no more, and deregister everything.
    Withdraw,
    /// Nothing was gathered: deregister what an earlier life of the host may have left.
    Clear,
    /// Ask the application to end.
    Ask,
    /// Kill the application.
    Kill,
    /// End the coprocesses.
    Disband,
    /// The host ends with this code.
    Leave(u8),
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    PreStart,
    Starting,
    Running,
    /// The end has begun: with what is registered.
    Withdrawing,
    PreStop,
    Stopping {
        /// When it is killed.
        patience: Option<Instant>,
    },
    PostStop,
    Disbanding,
    Left,
}

/// Whether the host is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Not that it was told.
    Open,
    Requested,
    /// At once.
    Forced,
}

/// The application itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Application {
    /// None is wanted, or it does not run yet.
    None,
    Up,
    Ended,
}

/// The machine: one for each run of the host.
///
/// In order: `preStart` to its end; the crew and the application together; and at the end, which the application's own
/// end or a request begins: everything deregistered; `preStop` and the request to the application, where it still runs;
/// `postStop`; the coprocesses.
#[derive(Debug)]
pub(super) struct Machine {
    phase: Phase,
    application: Application,
    wanted: bool,
    /// `preStart` ended well.
    began: bool,
    end: End,
    /// What the host ends with, so far.
    code: u8,
    /// How long the application may take to end when asked; none: it is killed instead.
    patience: Option<Duration>,
}

impl Machine {
    /// A machine for an application, or for none: then the host serves until it is asked to end.
    #[must_use]
    pub(super) fn new(application: bool, patience: Option<Duration>) -> Self {
        Self {
            phase: Phase::New,
            application: Application::None,
            wanted: application,
            began: false,
            end: End::Open,
            code: 0,
            patience,
        }
    }

    /// Another configuration has another `stopTimeout`. It counts from the next stop on.
    pub(super) fn set_patience(&mut self, patience: Option<Duration>) {
        self.patience = patience;
    }

    /// When to come with [`Event::Tick`].
    #[must_use]
    pub(super) fn wake(&self) -> Option<Instant> {
        match self.phase {
            Phase::Stopping { patience } => patience,
            _ => None,
        }
    }

    /// Whether services and the like run, and are to follow the configuration.
    #[must_use]
    pub(super) fn has_crew(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running)
    }

    /// Takes what happened and tells what is to be done, in this order.
    pub(super) fn step(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match event {
            Event::Begin => self.begin(),
            Event::HookEnded(hook, code) => self.hook_ended(hook, code, now),
            Event::Started => self.started(),
            Event::Ended(code) => self.ended(code),
            Event::Withdrawn => self.withdrawn(),
            Event::Disbanded => self.disbanded(),
            Event::Terminate => self.terminate(),
            Event::Force => self.force(),
            Event::Tick => self.tick(now),
        }
    }

    fn begin(&mut self) -> Vec<Effect> {
        self.phase = Phase::PreStart;
        vec![Effect::Run(Hook::PreStart)]
    }

    fn hook_ended(&mut self, hook: Hook, code: u8, now: Instant) -> Vec<Effect> {
        match (self.phase, hook) {
            (Phase::PreStart, Hook::PreStart) if self.end != End::Open => self.withdraw(),
            (Phase::PreStart, Hook::PreStart) if code != 0 => {
                self.code = code;
                self.withdraw()
            }
            (Phase::PreStart, Hook::PreStart) => {
                self.began = true;
                self.phase = if self.wanted { Phase::Starting } else { Phase::Running };
                if self.wanted { vec![Effect::Gather, Effect::Start] } else { vec![Effect::Gather] }
            }
            (Phase::PreStop, Hook::PreStop) => self.stop(now),
            (Phase::PostStop, Hook::PostStop) => {
                if code != 0 && self.end != End::Forced {
                    self.code = code;
                }
                self.disband()
            }
            _ => Vec::new(),
        }
    }

    fn started(&mut self) -> Vec<Effect> {
        if self.phase != Phase::Starting {
            return Vec::new();
        }
        self.application = Application::Up;
        self.phase = Phase::Running;
        match self.end {
            End::Open => Vec::new(),
            End::Requested => self.withdraw(),
            End::Forced => [vec![Effect::Kill], self.withdraw()].concat(),
        }
    }

    fn ended(&mut self, code: u8) -> Vec<Effect> {
        self.application = Application::Ended;
        self.code = code;
        match self.phase {
            Phase::Starting | Phase::Running => self.withdraw(),
            Phase::Stopping { .. } => self.post_stop(),
            // The phase goes on by itself, and finds it ended.
            _ => Vec::new(),
        }
    }

    fn withdraw(&mut self) -> Vec<Effect> {
        self.phase = Phase::Withdrawing;
        vec![if self.began { Effect::Withdraw } else { Effect::Clear }]
    }

    fn withdrawn(&mut self) -> Vec<Effect> {
        if self.phase != Phase::Withdrawing {
            return Vec::new();
        }
        match self.application {
            _ if !self.began => self.disband(),
            Application::Ended => self.post_stop(),
            _ if self.end == End::Forced => self.stop_at_once(),
            _ => {
                self.phase = Phase::PreStop;
                vec![Effect::Run(Hook::PreStop)]
            }
        }
    }

    /// Asks the application to end.
    fn stop(&mut self, now: Instant) -> Vec<Effect> {
        if self.application != Application::Up {
            return self.post_stop();
        }
        match self.patience {
            Some(patience) if self.end != End::Forced => {
                self.phase = Phase::Stopping { patience: now.checked_add(patience) };
                vec![Effect::Ask]
            }
            _ => self.stop_at_once(),
        }
    }

    fn stop_at_once(&mut self) -> Vec<Effect> {
        if self.application != Application::Up {
            return self.post_stop();
        }
        self.phase = Phase::Stopping { patience: None };
        vec![Effect::Kill]
    }

    fn post_stop(&mut self) -> Vec<Effect> {
        if self.end == End::Forced {
            return self.disband();
        }
        self.phase = Phase::PostStop;
        vec![Effect::Run(Hook::PostStop)]
    }

    fn disband(&mut self) -> Vec<Effect> {
        self.phase = Phase::Disbanding;
        vec![Effect::Disband]
    }

    fn disbanded(&mut self) -> Vec<Effect> {
        if self.phase != Phase::Disbanding {
            return Vec::new();
        }
        self.phase = Phase::Left;
        vec![Effect::Leave(self.code)]
    }

    fn terminate(&mut self) -> Vec<Effect> {
        if self.end != End::Open {
            return Vec::new();
        }
        self.end = End::Requested;
        match self.phase {
            Phase::PreStart => vec![Effect::Cut],
            Phase::Running => self.withdraw(),
            // The end has begun by itself, or begins with the start that is under way.
            _ => Vec::new(),
        }
    }

    fn force(&mut self) -> Vec<Effect> {
        let mut effects = self.terminate();
        if self.end == End::Forced {
            return effects;
        }
        self.end = End::Forced;
        if let Phase::Stopping { patience } = &mut self.phase {
            *patience = None;
        }
        if self.application == Application::Up {
            effects.push(Effect::Kill);
        }
        effects
    }

    fn tick(&mut self, now: Instant) -> Vec<Effect> {
        match self.phase {
            Phase::Stopping { patience: Some(patience) } if patience <= now => self.stop_at_once(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
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
}
