//! The first calls of a plugin that replaced another, which decide whether it stays.

use std::time::{Duration, Instant};

use super::PluginError;

/// Time after which a plugin stays, whatever was called.
const TRIAL_TIME: Duration = Duration::from_mins(1);
/// Number of passed sanity checks after which a plugin stays.
const TRIAL_CHECKS: u32 = 3;

/// Trial of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trial {
    ends_at: Instant,
    checks_left: u32,
    /// Calls that began during the trial and have not returned: it does not end before them.
    in_flight: u32,
}

/// Result of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It continues.
    Pending,
    /// The plugin stays.
    Passed,
    /// The plugin is rolled back for this reason.
    Failed(String),
}

impl Trial {
    pub(super) fn new(now: Instant) -> Self {
        Self { ends_at: now + TRIAL_TIME, checks_left: TRIAL_CHECKS, in_flight: 0 }
    }

    /// Returns when the trial ends, at the latest if no call is in progress then.
    pub(super) fn ends_at(&self) -> Instant {
        self.ends_at
    }

    pub(super) fn begin_call(&mut self) {
        self.in_flight += 1;
    }

    /// Ends a call that was cancelled, which says nothing about the plugin.
    pub(super) fn cancel_call(&mut self, now: Instant) -> Verdict {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.expire(now)
    }

    /// Ends a call that returned.
    pub(super) fn end_call(&mut self, callback: &str, error: Option<&PluginError>, now: Instant) -> Verdict {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(error) = error.filter(|error| is_fault(callback, error)) {
            return Verdict::Failed(format!("{callback}: {error}"));
        }
        if callback == "sanity-check" && error.is_none() {
            self.checks_left = self.checks_left.saturating_sub(1);
        }
        if self.checks_left == 0 { Verdict::Passed } else { self.expire(now) }
    }

    /// Ends the trial if its time is over.
    pub(super) fn expire(&self, now: Instant) -> Verdict {
        if self.in_flight == 0 && now >= self.ends_at { Verdict::Passed } else { Verdict::Pending }
    }
}

/// Shortest deadline of a request that a plugin must not exceed.
const MIN_FAULTY_DEADLINE: Duration = Duration::from_secs(2);

/// Returns whether this failure of a callback is a reason to roll the plugin back.
///
/// Answers are not: an error of `can-configure`, `ready` or `signaled`, or *not yet*. Fatal errors of `initialize` and
/// `configure` are, as they would end the pod. `signaled` may exceed its deadline, which the client chooses; so may
/// the callbacks of other requests if their deadline is very short.
pub(super) fn is_fault(callback: &str, error: &PluginError) -> bool {
    match error {
        PluginError::Rejected(_) => matches!(callback, "sanity-check" | "initialize" | "configure"),
        PluginError::DeadlineExceeded(limit) => {
            let of_request = matches!(callback, "initialize" | "can-configure" | "configure" | "configured");
            callback != "signaled" && (!of_request || *limit >= MIN_FAULTY_DEADLINE)
        }
        PluginError::Trapped(_) | PluginError::Exhausted(_) | PluginError::Unavailable(_) => true,
        PluginError::NotYet(_) | PluginError::Cancelled | PluginError::Sandbox(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected() -> PluginError {
        PluginError::Rejected("no".to_owned())
    }

    fn run(calls: &[(&str, Option<PluginError>)]) -> Vec<Verdict> {
        let now = Instant::now();
        let mut trial = Trial::new(now);
        let mut end = |(callback, error): &(&str, Option<PluginError>)| {
            trial.begin_call();
            trial.end_call(callback, error.as_ref(), now)
        };
        calls.iter().map(&mut end).collect()
    }

    #[test]
    fn three_passed_sanity_checks_keep_the_plugin_and_other_callbacks_do_not() {
        let ok = |callback| (callback, None);
        let others = [ok("probe"), ("ready", Some(rejected())), ok("configure"), ok("configured"), ok("signaled")];
        let calls = [&others[..], &[ok("sanity-check"), ok("sanity-check")]].concat();
        assert!(run(&calls).iter().all(|verdict| *verdict == Verdict::Pending));
        let calls = [calls, vec![ok("sanity-check")]].concat();
        assert_eq!(run(&calls).last(), Some(&Verdict::Passed));
    }

    #[test]
    fn faults_fail_the_trial_and_answers_do_not() {
        let late = || PluginError::DeadlineExceeded(Duration::from_secs(2));
        let trap = || PluginError::Trapped("unreachable".to_owned());
        for (callback, error) in [
            ("sanity-check", rejected()),
            ("configure", rejected()),
            ("ready", late()),
            ("probe", trap()),
            ("signaled", trap()),
        ] {
            let reason = format!("{callback}: {error}");
            assert_eq!(run(&[(callback, Some(error))]), [Verdict::Failed(reason)]);
        }
        for (callback, error) in [
            ("ready", rejected()),
            ("can-configure", rejected()),
            ("probe", rejected()),
            ("configure", PluginError::NotYet("later".to_owned())),
            ("signaled", late()),
            ("sanity-check", PluginError::Cancelled),
        ] {
            assert_eq!(run(&[(callback, Some(error))]), [Verdict::Pending], "{callback}");
        }
    }

    #[test]
    fn trial_ends_with_its_time_but_not_before_a_call_that_began_in_it() {
        let start = Instant::now();
        let mut trial = Trial::new(start);
        assert_eq!(trial.expire(start + TRIAL_TIME / 2), Verdict::Pending);
        assert_eq!(trial.expire(trial.ends_at()), Verdict::Passed);
        trial.begin_call();
        trial.begin_call();
        assert_eq!(trial.expire(trial.ends_at()), Verdict::Pending);
        assert_eq!(trial.cancel_call(trial.ends_at()), Verdict::Pending);
        let overrun = PluginError::DeadlineExceeded(TRIAL_TIME);
        let verdict = trial.end_call("sanity-check", Some(&overrun), trial.ends_at());
        assert!(matches!(verdict, Verdict::Failed(_)), "{verdict:?}");
    }
}
