//! State that a pod publishes in its cluster, as the JSON object in `states/<uuid>`.

use serde_json::{Map, Value, json};

use super::{LifecycleReport, PluginIdentity, ProcessState};

/// Maximum length of a published or displayed reason.
pub const MAX_REASON_BYTES: usize = 300;

/// Maximum length of a role.
const MAX_ROLE_BYTES: usize = 64;

/// Maximum length of the digest of a plugin.
const MAX_PLUGIN_BYTES: usize = 64;

/// Maximum length of an address.
const MAX_ADDRESS_BYTES: usize = 255;

/// Maximum size of a state that is read: larger ones were written by another program.
const MAX_STATE_BYTES: usize = 4096;

/// State of a pod, for the leader and for tools. It is part of no digest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodState {
    /// State of the sub-process.
    pub process: ProcessState,
    /// Whether the pod is configured, its sub-process runs, and it is not shutting down.
    pub ready: bool,
    /// Cause for which the sub-process does not run, is not ready, or the pod is dead.
    pub reason: Option<String>,
    /// Reason for which the pod is out of the view; none if it is not cordoned.
    pub cordon: Option<String>,
    /// Role of the pod, if its plugin named one.
    pub role: Option<String>,
    /// Whether the pod is alive and waits for the first configuration of its life.
    pub unconfigured: bool,
    /// First 12 hexadecimal digits of the digest of its plugin.
    pub plugin: Option<String>,
    /// Public address that was found after the registration.
    pub public: Option<String>,
}

impl PodState {
    /// Returns the state of a pod with this report; `is_shutting_down` is set while it shuts down.
    #[must_use]
    pub fn of(report: &LifecycleReport, is_shutting_down: bool) -> Self {
        let shorten = |text: &String| single_line(text, MAX_REASON_BYTES);
        Self {
            process: report.process,
            ready: !is_shutting_down && report.unready_reason().is_none(),
            reason: report.reason.as_ref().or(report.unready.as_ref()).map(shorten),
            cordon: report.cordon.as_ref().map(shorten),
            role: report.role.clone(),
            unconfigured: !report.configured && report.process != ProcessState::Dead,
            plugin: None,
            public: None,
        }
    }

    /// Returns the same state of a pod that runs this plugin.
    #[must_use]
    pub fn with_plugin(self, plugin: &PluginIdentity) -> Self {
        Self { plugin: Some(plugin.short_digest().to_owned()), ..self }
    }

    /// Returns the same state of a pod with this late public address.
    #[must_use]
    pub fn with_public(self, public: Option<String>) -> Self {
        Self { public, ..self }
    }

    /// Returns the JSON object that is published.
    #[must_use]
    pub fn to_json(&self) -> String {
        json!({
            "configured": !self.unconfigured,
            "cordon": self.cordon,
            "plugin": self.plugin,
            "process": self.process.to_string(),
            "public": self.public,
            "ready": self.ready,
            "reason": self.reason,
            "role": self.role,
        })
        .to_string()
    }

    /// Parses a published state. None for anything else; unknown keys are ignored.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        if data.len() > MAX_STATE_BYTES {
            return None;
        }
        let fields: Map<String, Value> = serde_json::from_slice(data).ok()?;
        let text = fields.get("process")?.as_str()?;
        let all = [ProcessState::Stopped, ProcessState::Running, ProcessState::Terminating, ProcessState::Dead];
        let process = all.into_iter().find(|process| process.to_string() == text)?;
        let ready = fields.get("ready").and_then(Value::as_bool).unwrap_or_default();
        let text = |key, max_bytes| {
            let text = fields.get(key).and_then(Value::as_str).map(|text| single_line(text, max_bytes));
            text.filter(|text| !text.is_empty())
        };
        let (reason, cordon) = (text("reason", MAX_REASON_BYTES), text("cordon", MAX_REASON_BYTES));
        let (role, plugin) = (text("role", MAX_ROLE_BYTES), text("plugin", MAX_PLUGIN_BYTES));
        let public = text("public", MAX_ADDRESS_BYTES);
        let unconfigured = fields.get("configured").and_then(Value::as_bool).is_some_and(|configured| !configured);
        Some(Self { process, ready, reason, cordon, role, unconfigured, plugin, public })
    }

    /// Returns whether the sub-process runs and is not ready, for a reason that is known.
    #[must_use]
    pub fn is_unready(&self) -> bool {
        self.process == ProcessState::Running && !self.ready && self.reason.is_some()
    }

    /// Returns whether the sub-process of a configured pod does not run.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.process == ProcessState::Stopped && self.reason.is_some()
    }
}

/// Returns the text as one line of at most so many bytes: control characters and line separators become spaces, and `…`
/// stands for what is cut off.
#[must_use]
pub fn single_line(text: &str, max_bytes: usize) -> String {
    const ELLIPSIS: &str = "…";
    let is_break = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let mut line = text.trim().replace(is_break, " ");
    if line.len() > max_bytes {
        line.truncate(line.floor_char_boundary(max_bytes.saturating_sub(ELLIPSIS.len())));
        line.push_str(ELLIPSIS);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_reads_back_as_it_was_published() {
        for (process, configured, is_shutting_down, ready, reason) in [
            (ProcessState::Running, true, false, true, None),
            (ProcessState::Running, true, true, false, None),
            (ProcessState::Running, false, false, false, None),
            (ProcessState::Stopped, true, false, false, Some("turned off by /control/off")),
            (ProcessState::Dead, true, false, false, Some("killed")),
        ] {
            let reason = reason.map(str::to_owned);
            let report = LifecycleReport { process, configured, reason: reason.clone(), ..LifecycleReport::default() };
            let identity = PluginIdentity { digest: "0123456789abcdef".to_owned(), ..PluginIdentity::default() };
            let public = Some("54.0.0.1".to_owned());
            let state = PodState::of(&report, is_shutting_down).with_plugin(&identity).with_public(public.clone());
            let (cordon, role, plugin) = (None, None, Some("0123456789ab".to_owned()));
            assert_eq!(
                state,
                PodState {
                    process,
                    ready,
                    reason,
                    cordon,
                    role,
                    plugin,
                    public,
                    unconfigured: !configured && process != ProcessState::Dead
                }
            );
            assert_eq!(PodState::parse(state.to_json().as_bytes()), Some(state));
        }
    }

    #[test]
    fn data_of_other_programs_is_ignored_or_harmless() {
        let deep = "[".repeat(4000);
        let large = format!(r#"{{"process":"dead","reason":"{}"}}"#, "x".repeat(5000));
        for junk in ["", "{}", "[]", "null", "\"dead\"", r#"{"process":7}"#, r#"{"process":"on fire"}"#, &deep, &large]
        {
            assert_eq!(PodState::parse(junk.as_bytes()), None, "{junk}");
        }
        assert_eq!(PodState::parse(b"\xff\xfe"), None);
        let odd = br#"{"process":"stopped","ready":"yes","reason":"two\nlines\u001b[31m\u2028","cordon":{}}"#;
        let state = PodState::parse(odd).unwrap();
        assert_eq!((state.ready, state.reason.as_deref(), state.is_off()), (false, Some("two lines [31m"), true));
        let unexplained = PodState::parse(br#"{"process":"stopped","reason":[]}"#).unwrap();
        assert!(!unexplained.is_off());
    }

    #[test]
    fn long_reason_is_cut_at_a_character() {
        let cut = single_line(&"ä".repeat(400), MAX_REASON_BYTES);
        assert!(cut.len() <= MAX_REASON_BYTES && cut.ends_with("ä…"), "{cut}");
        assert_eq!(single_line("short", 5), "short");
    }
}
