//! Settings of a plugin as JSON, for `/info` and `ochopod check`. Durations are seconds.

use ochopod_plugin::{LifecycleSettings, ModelSettings, PluginSettings};
use serde_json::{Map, Value, json};

/// Returns the settings in force, as `/info` reports them.
pub(super) fn in_force(settings: &PluginSettings) -> Map<String, Value> {
    let sections = [("lifecycle", lifecycle(&settings.lifecycle)), ("model", model(&settings.model))];
    sections.into_iter().map(|(name, settings)| (name.to_owned(), settings)).collect()
}

/// Returns the settings of a lifecycle.
pub(super) fn lifecycle(settings: &LifecycleSettings) -> Value {
    json!({
        "check_every": settings.check_every.as_secs_f64(),
        "checks": settings.checks,
        "cwd": settings.cwd,
        "grace": settings.grace.as_secs_f64(),
        "on_change": settings.on_change.to_string(),
        "pipe_subprocess": settings.pipe_subprocess,
        "ready_within": settings.ready_within.as_secs_f64(),
        "shell": settings.shell,
        "soft": settings.soft,
        "strict": settings.strict,
    })
}

/// Returns the settings of a model.
pub(super) fn model(settings: &ModelSettings) -> Value {
    json!({
        "batch": settings.batch.to_string(),
        "damper": settings.damper.as_secs_f64(),
        "depends_on": settings.depends_on,
        "full_shutdown": settings.full_shutdown,
        "grace": settings.grace.as_secs_f64(),
        "probe_every": settings.probe_every.as_secs_f64(),
        "sequential": settings.sequential,
        "tolerate": settings.tolerate,
    })
}
