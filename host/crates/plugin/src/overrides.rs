//! Overrides of a plugin's settings by the operator (`--set damper=5`).

use std::time::Duration;

use super::{Batch, LifecycleSettings, ModelSettings, OnChange, convert};

/// Setting of a plugin, with the value that the operator set.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "they are documented as the fields of the settings")]
pub enum SettingOverride {
    Batch(Batch),
    CheckEvery(Duration),
    Checks(u32),
    Cwd(Option<String>),
    Damper(Duration),
    DependsOn(Vec<String>),
    FullShutdown(bool),
    OnChange(OnChange),
    ReadyWithin(Duration),
    Tolerate(usize),
    /// Of lifecycle and model both.
    Grace(Duration),
    PipeSubprocess(bool),
    ProbeEvery(Duration),
    Sequential(bool),
    Soft(bool),
    Strict(bool),
}

/// All settings that may be overridden: every one except `shell`.
const NAMES: [&str; 16] = [
    "batch",
    "check_every",
    "checks",
    "cwd",
    "damper",
    "depends_on",
    "full_shutdown",
    "grace",
    "on_change",
    "pipe_subprocess",
    "probe_every",
    "ready_within",
    "sequential",
    "soft",
    "strict",
    "tolerate",
];

impl SettingOverride {
    /// Parses the value of a setting. Lists are separated by commas; an empty `cwd` is the host's.
    ///
    /// # Errors
    /// The expected value, or the expected names if the setting is unknown.
    pub fn read(name: &str, value: &str) -> Result<Self, String> {
        Ok(match name {
            "batch" => Self::Batch(batch(value)?),
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
            "on_change" => Self::OnChange(match value.trim() {
                "restart" => OnChange::Restart,
                "compare" => OnChange::Compare,
                _ => return Err("restart or compare".to_owned()),
            }),
            "pipe_subprocess" => Self::PipeSubprocess(boolean(value)?),
            "probe_every" => Self::ProbeEvery(convert::delay(number(value)?)?),
            "ready_within" => Self::ReadyWithin(convert::delay(number(value)?)?),
            "sequential" => Self::Sequential(boolean(value)?),
            "shell" => {
                let others = NAMES.join(", ");
                return Err(format!("{others}: shell is the plugin's own, as its commands are written for it"));
            }
            "soft" => Self::Soft(boolean(value)?),
            "strict" => Self::Strict(boolean(value)?),
            "tolerate" => {
                Self::Tolerate(value.trim().parse::<u32>().map_err(|_| "a whole number".to_owned())? as usize)
            }
            _ => return Err(format!("one of the settings {}", NAMES.join(", "))),
        })
    }

    /// Replaces the value that the plugin declared.
    pub fn apply(self, lifecycle: &mut LifecycleSettings, model: &mut ModelSettings) {
        match self {
            Self::Batch(batch) => model.batch = batch,
            Self::OnChange(policy) => lifecycle.on_change = policy,
            Self::ReadyWithin(limit) => lifecycle.ready_within = limit,
            Self::Tolerate(pods) => model.tolerate = pods,
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

/// Parses `all`, a number of pods, or a percentage such as `25%`.
fn batch(value: &str) -> Result<Batch, String> {
    let value = value.trim();
    let batch = match value.strip_suffix('%') {
        _ if value == "all" => Some(Batch::All),
        Some(percent) => percent.parse().ok().map(Batch::Percent),
        None => value.parse::<u32>().ok().map(|pods| Batch::Pods(pods as usize)),
    };
    let valid = batch.ok_or_else(|| convert::BATCH_REQUIREMENT.to_owned())?;
    convert::valid_batch(valid)
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
            on_change: OnChange::Restart,
            ready_within: minute,
        };
        let model = ModelSettings {
            batch: Batch::All,
            damper: Duration::ZERO,
            depends_on: Vec::new(),
            full_shutdown: false,
            grace: minute,
            probe_every: minute,
            sequential: false,
            tolerate: 0,
        };
        (lifecycle, model)
    }

    #[test]
    fn every_setting_but_shell_can_be_overridden() {
        let (mut lifecycle, mut model) = defaults();
        let given = [
            ("batch", "25%"),
            ("on_change", "compare"),
            ("ready_within", "5"),
            ("tolerate", "2"),
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
            SettingOverride::read(name, value).unwrap().apply(&mut lifecycle, &mut model);
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
            on_change: OnChange::Compare,
            ready_within: Duration::from_secs(5),
        };
        assert_eq!(lifecycle, expected);
        let expected = ModelSettings {
            batch: Batch::Percent(25),
            damper: Duration::from_millis(2500),
            depends_on: vec!["db".to_owned(), "/other.kafka".to_owned(), "web-*".to_owned()],
            full_shutdown: true,
            grace: Duration::from_secs(7),
            probe_every: Duration::from_secs(10),
            sequential: true,
            tolerate: 2,
        };
        assert_eq!(model, expected);
    }

    #[test]
    fn invalid_override_is_rejected_with_the_expected_value() {
        let given = [
            ("batch", "0", "all, a number of pods"),
            ("batch", "101%", "all, a number of pods"),
            ("batch", "half", "all, a number of pods"),
            ("on_change", "reload", "restart or compare"),
            ("ready_within", "0", "seconds from"),
            ("tolerate", "-1", "a whole number"),
            ("check_every", "0", "seconds from"),
            ("checks", "0", "a whole number from 1"),
            ("damper", "-1", "seconds from 0"),
            ("grace", "NaN", "seconds from"),
            ("probe_every", "soon", "a number of seconds"),
            ("strict", "yes", "true or false"),
            ("shell", "true", "batch, check_every, checks"),
            ("dampener", "5", "one of the settings batch, check_every"),
        ];
        for (name, value, expected) in given {
            let error = SettingOverride::read(name, value).unwrap_err();
            assert!(error.starts_with(expected), "{name}: {error}");
        }
    }
}
