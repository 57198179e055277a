//! The operator's word on a plugin's settings (`--set damper=5`).

use std::collections::BTreeMap;

use super::{LifecycleSettings, ModelSettings, convert};

/// An override that cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// There is no such setting.
    #[error("the setting {name} (set to {value:?}) does not exist: expected one of {}", NAMES.join(", "))]
    Unknown {
        /// As given.
        name: String,
        /// As given.
        value: String,
    },
    /// What the plugin's `configure` returns is written for the `shell` that it declares: another would break it.
    #[error(
        "the setting shell (set to {value:?}) is the plugin's own, as its commands are written for it: expected one of {}",
        NAMES.join(", ")
    )]
    Shell {
        /// As given.
        value: String,
    },
    /// The value is of another type.
    #[error("the setting {name} is set to {value:?}, expected {expected}")]
    Value {
        /// As given.
        name: String,
        /// As given.
        value: String,
        /// What it should be.
        expected: String,
    },
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

/// Applies all overrides. `grace` counts for lifecycle and model; lists are separated by commas; an empty `cwd` is the
/// host's.
///
/// # Errors
/// Every override that names no setting or has a bad value; the others are applied.
pub fn apply(
    overrides: &BTreeMap<String, String>,
    lifecycle: &mut LifecycleSettings,
    model: &mut ModelSettings,
) -> Result<(), Vec<OverrideError>> {
    let mut errors = Vec::new();
    for (name, value) in overrides {
        if plain(name) == "shell" {
            errors.push(OverrideError::Shell { value: value.clone() });
        } else if !NAMES.contains(&plain(name).as_str()) {
            errors.push(OverrideError::Unknown { name: name.clone(), value: value.clone() });
        } else if let Err(expected) = set(&plain(name), value, lifecycle, model) {
            errors.push(OverrideError::Value { name: name.clone(), value: value.clone(), expected });
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn plain(name: &str) -> String {
    name.replace('-', "_")
}

fn set(name: &str, value: &str, lifecycle: &mut LifecycleSettings, model: &mut ModelSettings) -> Result<(), String> {
    match name {
        "check_every" => lifecycle.check_every = convert::delay(number(value)?)?,
        "checks" => {
            let expected = "a whole number from 1".to_owned();
            lifecycle.checks = convert::at_least_one(value.parse().map_err(|_| expected)?)?;
        }
        "cwd" => lifecycle.cwd = (!value.is_empty()).then(|| value.to_owned()),
        "damper" => model.damper = convert::seconds(number(value)?, 0.0)?,
        "depends_on" => model.depends_on = list(value),
        "full_shutdown" => model.full_shutdown = boolean(value)?,
        "grace" => {
            let grace = convert::delay(number(value)?)?;
            (lifecycle.grace, model.grace) = (grace, grace);
        }
        "pipe_subprocess" => lifecycle.pipe_subprocess = boolean(value)?,
        "probe_every" => model.probe_every = convert::delay(number(value)?)?,
        "sequential" => model.sequential = boolean(value)?,
        "soft" => lifecycle.soft = boolean(value)?,
        "strict" => lifecycle.strict = boolean(value)?,
        other => return Err(format!("a setting, which {other} is not")),
    }
    Ok(())
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
    use std::time::Duration;

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

    fn overrides(given: &[(&str, &str)]) -> BTreeMap<String, String> {
        given.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn every_setting_but_shell_can_be_overridden_with_either_spelling() {
        let (mut lifecycle, mut model) = defaults();
        let given = [
            ("check-every", "0.5"),
            ("checks", "3"),
            ("cwd", ""),
            ("damper", "2.5"),
            ("depends_on", "db, /other.kafka,,web-*"),
            ("full-shutdown", "true"),
            ("grace", "7"),
            ("pipe_subprocess", "true"),
            ("probe_every", "10"),
            ("sequential", "true"),
            ("soft", "true"),
            ("strict", "true"),
        ];
        assert_eq!(given.len(), NAMES.len());
        apply(&overrides(&given), &mut lifecycle, &mut model).unwrap();
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
    fn all_bad_overrides_are_told_at_once_with_name_value_and_what_was_expected() {
        let (mut lifecycle, mut model) = defaults();
        let given = [
            ("check_every", "0"),
            ("checks", "0"),
            ("damper", "-1"),
            ("grace", "NaN"),
            ("probe_every", "soon"),
            ("strict", "yes"),
            ("dampener", "5"),
            ("shell", "true"),
        ];
        let errors = apply(&overrides(&given), &mut lifecycle, &mut model).unwrap_err();
        assert_eq!(errors.len(), given.len());
        let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
        for (name, value) in given {
            let named = |line: &&String| line.contains(name) && line.contains(value) && line.contains("expected");
            assert!(text.iter().any(|line| named(&line)), "{name}: {text:?}");
        }
        assert!(text.iter().any(|line| line.contains("is the plugin's own")), "{text:?}");
        assert_eq!((lifecycle, model), defaults());
    }
}
