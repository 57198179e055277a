//! The pure machine of one service: what its checks say and what its place was told go in, what to do next comes out.

use crate::discovery::DiscoveryError;

/// What a check said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The service is healthy.
    Healthy,
    /// It is not, and why.
    Sick(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// It is time for a check.
    Due,
    /// The check ended, or something else told how the service is; none when nobody can know yet.
    Checked(Option<Verdict>),
    /// The place answered.
    Answered(Result<(), DiscoveryError>),
    /// Maintenance began or ended.
    Maintain(bool),
}

/// What the place is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Register,
    Pass,
    Fail(String),
    Deregister,
}

/// What to do instead of whatever is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Check,
    Tell(Call),
    /// Nothing.
    Rest,
}

/// What the place knows of the service, as far as that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Nothing. What an earlier life of the host left there counts as that: the first thing it is told is all of it.
    Nothing,
    /// Something, or nothing: it has to be told all of it.
    Perhaps,
    Passing,
    Failing,
}

/// How a service stands with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// As the log names it.
    name: String,
    told: Told,
    /// Whether it was healthy when that was known last.
    healthy: Option<bool>,
    in_maintenance: bool,
    /// What the place is being told.
    telling: Option<Call>,
    /// Whether the place did not do as told, the last time.
    in_trouble: bool,
}

impl Standing {
    /// Of a service that nothing is known of.
    pub(super) fn new(name: String) -> Self {
        Self { name, told: Told::Nothing, healthy: None, in_maintenance: false, telling: None, in_trouble: false }
    }

    /// Begins. A service that succeeds another of the same id, which was healthy, takes its registration over at once.
    pub(super) fn begin(&mut self, in_maintenance: bool) -> Option<Action> {
        self.telling = None;
        if in_maintenance || self.told == Told::Nothing {
            return self.step(Event::Maintain(in_maintenance));
        }
        self.in_maintenance = false;
        let was_healthy = self.told == Told::Passing;
        self.told = Told::Perhaps;
        was_healthy.then(|| self.tell(Call::Register))
    }

    /// Goes on at a place that knows nothing of the service, although another one may have.
    pub(super) fn moved(&mut self) {
        if self.told != Told::Passing {
            self.told = Told::Nothing;
        }
    }

    /// Takes an event. None: whatever is under way goes on.
    pub(super) fn step(&mut self, event: Event) -> Option<Action> {
        match event {
            Event::Due if !self.in_maintenance => Some(Action::Check),
            Event::Due => Some(self.leave()),
            Event::Checked(verdict) => Some(self.checked(verdict)),
            Event::Answered(answer) => Some(self.answered(answer)),
            Event::Maintain(begins) => {
                self.in_maintenance = begins;
                // Dropped, they would leave the place in a state that nobody knows.
                if self.is_registering() || self.telling == Some(Call::Deregister) {
                    return None;
                }
                Some(if begins { self.leave() } else { self.rest() })
            }
        }
    }

    /// Whether the place may know the service.
    pub(super) fn is_registered(&self) -> bool {
        self.told != Told::Nothing
    }

    /// Whether it is being told of the service for the first time, or again.
    pub(super) fn is_registering(&self) -> bool {
        self.telling == Some(Call::Register)
    }

    /// `healthy`, `unhealthy`, `maintenance`, or `unknown` before the first check.
    pub(super) fn word(&self) -> &'static str {
        match self.healthy {
            _ if self.in_maintenance => "maintenance",
            Some(true) => "healthy",
            Some(false) => "unhealthy",
            None => "unknown",
        }
    }

    fn rest(&mut self) -> Action {
        self.telling = None;
        Action::Rest
    }

    fn tell(&mut self, call: Call) -> Action {
        if matches!(call, Call::Register | Call::Deregister) {
            self.told = Told::Perhaps;
        }
        self.telling = Some(call.clone());
        Action::Tell(call)
    }

    fn leave(&mut self) -> Action {
        if self.is_registered() { self.tell(Call::Deregister) } else { self.rest() }
    }

    fn checked(&mut self, verdict: Option<Verdict>) -> Action {
        let (Some(verdict), false) = (verdict, self.in_maintenance) else { return self.rest() };
        let name = &self.name;
        match &verdict {
            Verdict::Healthy if self.healthy == Some(false) => tracing::info!("{name}.health passes again"),
            Verdict::Sick(note) if self.healthy != Some(false) => tracing::warn!("{name}.health: {note}"),
            _ => {}
        }
        self.healthy = Some(verdict == Verdict::Healthy);
        match (verdict, self.told) {
            (Verdict::Healthy, Told::Nothing | Told::Perhaps) => self.tell(Call::Register),
            (Verdict::Healthy, Told::Passing | Told::Failing) => self.tell(Call::Pass),
            (Verdict::Sick(note), Told::Passing | Told::Perhaps) => self.tell(Call::Fail(note)),
            (Verdict::Sick(_), Told::Nothing | Told::Failing) => self.rest(),
        }
    }

    fn answered(&mut self, answer: Result<(), DiscoveryError>) -> Action {
        let Some(call) = self.telling.take() else { return Action::Rest };
        self.log(&call, &answer);
        match (&call, answer) {
            (Call::Register | Call::Pass, Ok(())) => self.told = Told::Passing,
            (Call::Fail(_), Ok(())) => self.told = Told::Failing,
            (Call::Deregister, Ok(())) | (_, Err(DiscoveryError::Forgotten(_))) => self.told = Told::Nothing,
            // It is tried again when the next check is due.
            (_, Err(_)) => {}
        }
        if self.in_maintenance && call != Call::Deregister {
            self.leave()
        } else if call == Call::Pass && self.told == Told::Nothing {
            self.tell(Call::Register)
        } else {
            Action::Rest
        }
    }

    /// What changed: of failures the first one, and that they are over.
    fn log(&mut self, call: &Call, answer: &Result<(), DiscoveryError>) {
        let name = &self.name;
        let failure = answer.as_ref().err().filter(|error| !matches!(error, DiscoveryError::Forgotten(_)));
        match failure {
            Some(error) if !self.in_trouble => tracing::warn!("cannot tell how {name} is: {error}"),
            None if self.in_trouble => tracing::info!("it can be told again how {name} is"),
            _ => {}
        }
        self.in_trouble = failure.is_some();
        match (call, answer) {
            (Call::Register, Ok(())) => tracing::info!("{name} is registered"),
            (Call::Deregister, Ok(())) => tracing::info!("{name} is deregistered"),
            (Call::Pass, Err(DiscoveryError::Forgotten(_))) => {
                tracing::info!("{name} was forgotten: registering it again");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
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

    fn fail() -> Option<Action> {
        Some(Action::Tell(Call::Fail("ended with code 1".to_owned())))
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
        goes(vec![
            (Event::Due, CHECK),
            (HEALTHY, REGISTER),
            (OK, REST),
            (Event::Due, CHECK),
            (HEALTHY, PASS),
            (OK, REST),
        ]);
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
            (sick(), fail()),
            (OK, REST),
            (sick(), REST),
            (unknown(), REST),
            (HEALTHY, PASS),
            (OK, REST),
            (sick(), fail()),
        ]);
    }

    #[test]
    fn a_failure_that_could_not_be_told_is_told_again() {
        goes(vec![
            (HEALTHY, REGISTER),
            (OK, REST),
            (sick(), fail()),
            (away(), REST),
            (sick(), fail()),
            (OK, REST),
            (sick(), REST),
        ]);
    }

    #[test]
    fn what_was_forgotten_is_registered_at_once_when_healthy_and_not_at_all_when_not() {
        goes(vec![
            (HEALTHY, REGISTER),
            (OK, REST),
            (HEALTHY, PASS),
            (forgotten(), REGISTER),
            (OK, REST),
            (HEALTHY, PASS),
        ]);
        goes(vec![
            (HEALTHY, REGISTER),
            (OK, REST),
            (sick(), fail()),
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
        goes(vec![(HEALTHY, REGISTER), (away(), REST), (sick(), fail()), (forgotten(), REST), (sick(), REST)]);
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
                    (Turn::Verdict(event), Action::Check) => event,
                    (Turn::Answer(event), Action::Tell(_)) => event,
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
}
