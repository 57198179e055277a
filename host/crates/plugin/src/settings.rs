//! Settings of a plugin as text: `name=value`, with the names that `--set` accepts.

use std::fmt;

use super::{Batch, LifecycleSettings, ModelSettings, OnChange};

impl LifecycleSettings {
    /// Returns the names of the settings that differ.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let Self { check_every, checks, cwd, grace, pipe_subprocess, shell, soft, strict, on_change, ready_within } =
            self;
        let differ = [
            ("check_every", *check_every != other.check_every),
            ("checks", *checks != other.checks),
            ("cwd", *cwd != other.cwd),
            ("grace", *grace != other.grace),
            ("on_change", *on_change != other.on_change),
            ("pipe_subprocess", *pipe_subprocess != other.pipe_subprocess),
            ("ready_within", *ready_within != other.ready_within),
            ("shell", *shell != other.shell),
            ("soft", *soft != other.soft),
            ("strict", *strict != other.strict),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// Returns whether a command starts the same process with both.
    #[must_use]
    pub fn launches_alike(&self, other: &Self) -> bool {
        (self.shell, &self.cwd, self.pipe_subprocess) == (other.shell, &other.cwd, other.pipe_subprocess)
    }
}

impl ModelSettings {
    /// Returns the names of the settings that differ.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let Self { batch, damper, depends_on, full_shutdown, grace, probe_every, sequential, tolerate } = self;
        let differ = [
            ("batch", *batch != other.batch),
            ("damper", *damper != other.damper),
            ("depends_on", *depends_on != other.depends_on),
            ("full_shutdown", *full_shutdown != other.full_shutdown),
            ("grace", *grace != other.grace),
            ("probe_every", *probe_every != other.probe_every),
            ("sequential", *sequential != other.sequential),
            ("tolerate", *tolerate != other.tolerate),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

/// `check_every=60 checks=1 cwd=none grace=60 …`, durations in seconds.
impl fmt::Display for LifecycleSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check_every, checks, cwd, grace, pipe_subprocess, shell, soft, strict, on_change, ready_within } =
            self;
        let (check_every, grace) = (check_every.as_secs_f64(), grace.as_secs_f64());
        let (cwd, ready_within) = (cwd.as_deref().unwrap_or("none"), ready_within.as_secs_f64());
        write!(f, "check_every={check_every} checks={checks} cwd={cwd} grace={grace} on_change={on_change} ")?;
        write!(f, "pipe_subprocess={pipe_subprocess} ready_within={ready_within} ")?;
        write!(f, "shell={shell} soft={soft} strict={strict}")
    }
}

/// `damper=0 depends_on=db,cache full_shutdown=false …`, durations in seconds.
impl fmt::Display for ModelSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batch, damper, depends_on, full_shutdown, grace, probe_every, sequential, tolerate } = self;
        let (damper, grace, probe_every) = (damper.as_secs_f64(), grace.as_secs_f64(), probe_every.as_secs_f64());
        let depends_on = if depends_on.is_empty() { "none".to_owned() } else { depends_on.join(",") };
        write!(
            f,
            "batch={batch} damper={damper} depends_on={depends_on} full_shutdown={full_shutdown} grace={grace} "
        )?;
        write!(f, "probe_every={probe_every} sequential={sequential} tolerate={tolerate}")
    }
}

impl fmt::Display for OnChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restart => "restart",
            Self::Compare => "compare",
        })
    }
}

/// `all`, `2` or `25%`.
impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Pods(pods) => write!(f, "{pods}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn settings_read_as_they_are_set() {
        let lifecycle = LifecycleSettings {
            check_every: Duration::from_mins(1),
            checks: 3,
            cwd: Some("/srv".to_owned()),
            grace: Duration::from_millis(500),
            pipe_subprocess: true,
            shell: false,
            soft: false,
            strict: false,
            on_change: OnChange::Compare,
            ready_within: Duration::from_mins(2),
        };
        assert_eq!(
            lifecycle.to_string(),
            "check_every=60 checks=3 cwd=/srv grace=0.5 on_change=compare pipe_subprocess=true ready_within=120 \
             shell=false soft=false strict=false"
        );
        let mut model = ModelSettings {
            batch: Batch::Percent(25),
            damper: Duration::ZERO,
            depends_on: vec!["db".to_owned(), "/cache.*".to_owned()],
            full_shutdown: false,
            grace: Duration::from_mins(1),
            probe_every: Duration::from_mins(1),
            sequential: true,
            tolerate: 1,
        };
        let rest = "full_shutdown=false grace=60 probe_every=60 sequential=true tolerate=1";
        assert_eq!(model.to_string(), format!("batch=25% damper=0 depends_on=db,/cache.* {rest}"));
        let other = LifecycleSettings { checks: 1, shell: true, ..lifecycle.clone() };
        assert_eq!(lifecycle.differences(&other), ["checks", "shell"]);
        assert_eq!(lifecycle.differences(&lifecycle), [""; 0]);
        assert!(!lifecycle.launches_alike(&other) && lifecycle.launches_alike(&lifecycle));
        let other = ModelSettings { batch: Batch::All, grace: Duration::ZERO, ..model.clone() };
        assert_eq!(model.differences(&other), ["batch", "grace"]);
        model.depends_on.clear();
        assert_eq!(model.to_string(), format!("batch=25% damper=0 depends_on=none {rest}"));
    }
}
