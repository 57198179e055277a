//! The operator's word on a plugin's settings (`--set damper=5`).

use std::time::Duration;

use super::{LifecycleSettings, ModelSettings, convert};

/// One setting of a plugin's, as the operator wants it.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "they are documented as the fields of the settings")]
pub enum Override {
    CheckEvery(Duration),
    Checks(u32),
    Cwd(Option<String>),
    Damper(Duration),
    DependsOn(Vec<String>),
    FullShutdown(bool),
    /// Of lifecycle and model both.
    Grace(Duration),
    PipeSubprocess(bool),
    ProbeEvery(Duration),
    Sequential(bool),
    Soft(bool),
    Strict(bool),
}

/// Every setting that may be overridden: all but `shell`.
const NAMES: [&str; 12] = [
    "check_every",
    "checks",
    "cwd",
    "damper",
    "depends_on",
    "full_shutdown",
    "grace",
    "pipe_subprocess",
    "probe_every",
    "sequential",
    "soft",
    "strict",
];

impl Override {
    /// Reads the value of a setting. Lists are separated by commas; an empty `cwd` is the host's.
    ///
    /// # Errors
    /// What was expected: of the value, or of the name when there is no such setting.
    pub fn read(name: &str, value: &str) -> Result<Self, String> {
        Ok(match name {
            "check_every" => Self::CheckEvery(convert::delay(number(value)?)?),
            "checks" => {
                let expected = "a whole number from 1".to_owned();
                Self::Checks(convert::at_least_one(value.trim().parse().map_err(|_| expected)?)?)
            }
            "cwd" => Self::Cwd((!value.is_empty()).then(|| value.to_owned())),
            "damper" => Self::Damper(convert::seconds(number(value)?, 0.0)?),
            "depends_on" => Self::DependsOn(list(value)),
            "full_shutdown" => Self::FullShutdown(boolean(value)?),
            "grace" => Self::Grace(convert::delay(number(value)?)?),
            "pipe_subprocess" => Self::PipeSubprocess(boolean(value)?),
            "probe_every" => Self::ProbeEvery(convert::delay(number(value)?)?),
            "sequential" => Self::Sequential(boolean(value)?),
            "shell" => {
                let others = NAMES.join(", ");
                return Err(format!("{others}: shell is the plugin's own, as its commands are written for it"));
            }
            "soft" => Self::Soft(boolean(value)?),
            "strict" => Self::Strict(boolean(value)?),
            _ => return Err(format!("one of the settings {}", NAMES.join(", "))),
        })
    }

    /// Replaces what the plugin wants.
    pub fn apply(self, lifecycle: &mut LifecycleSettings, model: &mut ModelSettings) {
        match self {
            Self::CheckEvery(delay) => lifecycle.check_every = delay,
            Self::Checks(checks) => lifecycle.checks = checks,
            Self::Cwd(cwd) => lifecycle.cwd = cwd,
            Self::Damper(damper) => model.damper = damper,
            Self::DependsOn(names) => model.depends_on = names,
            Self::FullShutdown(full) => model.full_shutdown = full,
            Self::Grace(grace) => (lifecycle.grace, model.grace) = (grace, grace),
            Self::PipeSubprocess(pipe) => lifecycle.pipe_subprocess = pipe,
            Self::ProbeEvery(delay) => model.probe_every = delay,
            Self::Sequential(sequential) => model.sequential = sequential,
            Self::Soft(soft) => lifecycle.soft = soft,
            Self::Strict(strict) => lifecycle.strict = strict,
        }
    }
}

fn number(value: &str) -> Result<f64, String> {
    value.trim().parse().map_err(|_| "a number of seconds".to_owned())
}

fn boolean(value: &str) -> Result<bool, String> {
    value.trim().parse().map_err(|_| "true or false".to_owned())
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> (LifecycleSettings, ModelSettings) {
        let minute = Duration::from_mins(1);
        let lifecycle = LifecycleSettings {
            check_every: minute,
            checks: 1,
            cwd: Some("/srv".to_owned()),
            grace: minute,
            pipe_subprocess: false,
            shell: false,
            soft: false,
            strict: false,
        };
        let model = ModelSettings {
            damper: Duration::ZERO,
            depends_on: Vec::new(),
            full_shutdown: false,
            grace: minute,
            probe_every: minute,
            sequential: false,
        };
        (lifecycle, model)
    }

    #[test]
    fn every_setting_but_shell_can_be_overridden() {
        let (mut lifecycle, mut model) = defaults();
        let given = [
            ("check_every", "0.5"),
            ("checks", "3"),
            ("cwd", ""),
            ("damper", "2.5"),
            ("depends_on", "db, /other.kafka,,web-*"),
            ("full_shutdown", "true"),
            ("grace", "7"),
            ("pipe_subprocess", "true"),
            ("probe_every", "10"),
            ("sequential", "true"),
            ("soft", "true"),
            ("strict", "true"),
        ];
        assert_eq!(given.len(), NAMES.len());
        for (name, value) in given {
            Override::read(name, value).unwrap().apply(&mut lifecycle, &mut model);
        }
        let expected = LifecycleSettings {
            check_every: Duration::from_millis(500),
            checks: 3,
            cwd: None,
            grace: Duration::from_secs(7),
            pipe_subprocess: true,
            shell: false,
            soft: true,
            strict: true,
        };
        assert_eq!(lifecycle, expected);
        let expected = ModelSettings {
            damper: Duration::from_millis(2500),
            depends_on: vec!["db".to_owned(), "/other.kafka".to_owned(), "web-*".to_owned()],
            full_shutdown: true,
            grace: Duration::from_secs(7),
            probe_every: Duration::from_secs(10),
            sequential: true,
        };
        assert_eq!(model, expected);
    }

    #[test]
    fn a_bad_override_is_told_what_was_expected() {
        let given = [
            ("check_every", "0", "seconds from"),
            ("checks", "0", "a whole number from 1"),
            ("damper", "-1", "seconds from 0"),
            ("grace", "NaN", "seconds from"),
            ("probe_every", "soon", "a number of seconds"),
            ("strict", "yes", "true or false"),
            ("shell", "true", "check_every, checks"),
            ("dampener", "5", "one of the settings check_every, checks"),
        ];
        for (name, value, expected) in given {
            let error = Override::read(name, value).unwrap_err();
            assert!(error.starts_with(expected), "{name}: {error}");
        }
    }
}
