//! Time that the platform waits between SIGTERM and SIGKILL.

use std::time::Duration;

use ochopod_environment::Env;

/// Variable that Mesos sets for executors and their tasks: `5secs`, `1mins`.
const MESOS_GRACE_PERIOD: &str = "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD";
/// Delay of Kubernetes unless the pod sets another one.
const KUBERNETES_DEFAULT: Duration = Duration::from_secs(30);
/// Longest accepted delay.
const MAX_DELAY: Duration = Duration::from_hours(24);
/// Part of the delay that remains when the host exits.
const EXIT_MARGIN: Duration = Duration::from_secs(1);

/// Time between SIGTERM and SIGKILL of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KillDelay {
    /// Name of the platform.
    pub platform: &'static str,
    /// Setting of the platform that changes the delay.
    pub setting: &'static str,
    /// Delay: as reported by the platform, else its default.
    pub delay: Duration,
    /// Whether the delay is the default of the platform: the actual one is unknown.
    pub is_default: bool,
}

impl KillDelay {
    /// Detects the delay from the variables of the platform, and what the Kubernetes API reports of the pod. None if it is
    /// unknown, as with plain Docker.
    #[must_use]
    pub fn detect(env: &Env, pod_grace: Option<Duration>) -> Option<Self> {
        let known = |platform, setting, seconds| {
            let delay = Duration::from_secs(seconds);
            Some(Self { platform, setting, delay, is_default: true })
        };
        if let Some(delay) = env.text(MESOS_GRACE_PERIOD).and_then(mesos_duration) {
            return Some(Self { platform: "Mesos", setting: "taskKillGracePeriodSeconds", delay, is_default: false });
        }
        if env.text("KUBERNETES_SERVICE_HOST").is_some() {
            let (platform, setting) = ("Kubernetes", "terminationGracePeriodSeconds");
            let delay = pod_grace.unwrap_or(KUBERNETES_DEFAULT);
            return Some(Self { platform, setting, delay, is_default: pod_grace.is_none() });
        }
        if env.text("NOMAD_ALLOC_ID").is_some() {
            return known("Nomad", "kill_timeout", 5);
        }
        if env.text("ECS_CONTAINER_METADATA_URI_V4").is_some() {
            return known("ECS", "stopTimeout", 30);
        }
        None
    }

    /// Returns the duration of the longest shutdown that completes before the platform kills.
    #[must_use]
    pub fn longest_stop(&self) -> Duration {
        self.delay.saturating_sub(EXIT_MARGIN).max(self.delay / 2)
    }
}

/// Parses a duration as Mesos writes it.
fn mesos_duration(text: &str) -> Option<Duration> {
    let unit = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "ms" => 0.001,
        "secs" => 1.0,
        "mins" => 60.0,
        "hrs" => 3600.0,
        _ => return None,
    };
    ochopod_model::seconds(number, MAX_DELAY).map(|number| number.mul_f64(seconds)).filter(|delay| *delay <= MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kill_delay_is_reported_by_the_platform_or_its_default() {
        for (variables, expected) in [
            (&[("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "5secs")][..], Some(("Mesos", 5.0, 4.0))),
            (&[("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "1mins")], Some(("Mesos", 60.0, 59.0))),
            (&[("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "1500ms")], Some(("Mesos", 1.5, 0.75))),
            (&[("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "soon")], None),
            (&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")], Some(("Kubernetes", 30.0, 29.0))),
            (&[("NOMAD_ALLOC_ID", "4f1b")], Some(("Nomad", 5.0, 4.0))),
            (&[("ECS_CONTAINER_METADATA_URI_V4", "http://169.254.170.2/v4/x")], Some(("ECS", 30.0, 29.0))),
            (&[("MARATHON_APP_ID", "/shop/web")], None),
            (&[], None),
        ] {
            let found = KillDelay::detect(&variables.iter().copied().collect(), None);
            let detected = found.map(|f| (f.platform, f.delay.as_secs_f64(), f.longest_stop().as_secs_f64()));
            assert_eq!(detected, expected, "{variables:?}");
        }
        let env = Env::from_iter([("KUBERNETES_SERVICE_HOST", "10.0.0.1")]);
        let reported = KillDelay::detect(&env, Some(Duration::from_secs(90))).unwrap();
        assert_eq!((reported.delay.as_secs(), reported.longest_stop().as_secs(), reported.is_default), (90, 89, false));
    }
}
