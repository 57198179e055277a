//! The platform of the pod: its binding, the look-ups that it needs, and its values.

use ochopod_environment::{Env, without_credentials};
use ochopod_interfaces as interfaces;
use ochopod_model::status::PlatformReport;
use ochopod_platform::{
    Binding, Inputs, LookUpError, LookUpResults, LookUps, OperatorSettings, Platform, Value, hostname, is_container,
    is_ec2,
};
use ochopod_settings::{Flags, SettingError, SettingsReader};

use super::{Settings, SettingsInput, parse, pod_location::PodLocation, values};

/// Value of `binding` that stands for detection.
const AUTO: &str = "auto";

/// Returns the look-ups that a pod with these settings needs. Invalid settings are reported when they are read.
#[must_use]
pub fn look_ups(env: &Env, flags: &Flags, is_local: bool) -> LookUps {
    let reader = &SettingsReader::new(env, flags);
    let is_set = |name: &str| reader.get(name).is_some();
    let service_account = reader.get("service_account").map(|raw| raw.text);
    let settings = OperatorSettings {
        ip: is_set("ip") || is_set("interface"),
        public: is_set("public"),
        node: is_set("node"),
        application: is_set("application"),
        task: is_set("task"),
        zk: is_set("zk"),
        service_account: service_account.as_deref(),
    };
    let local = is_local || reader.get("local").and_then(|raw| parse::boolean(&raw.text)) == Some(true);
    let named = reader.get("binding").map(|raw| raw.text).filter(|name| name != AUTO);
    let binding = match named {
        _ if local => Some(Binding::Local),
        None => Some(Binding::detect(env, is_container())),
        Some(name) => Binding::find(&name),
    };
    let plan = |binding| LookUps::plan(binding, env, &hostname(), &settings, is_ec2(env));
    binding.map(plan).unwrap_or_default()
}

/// Returns the prefix of `HOST` and `PORT_<n>`; empty if it is not set.
#[must_use]
pub fn env_vars_prefix(env: &Env, flags: &Flags) -> String {
    SettingsReader::new(env, flags).get("env_vars_prefix").map(|raw| raw.text).unwrap_or_default()
}

/// Returns the address of `ZooKeeper` as it was set or found, for the choice of the address of this pod.
#[must_use]
pub fn store_text(env: &Env, flags: &Flags, found: &LookUpResults) -> String {
    let set = SettingsReader::new(env, flags).get("zk").map(|raw| raw.text);
    set.or_else(|| found.store.as_ref().map(|store| store.text.clone())).unwrap_or_default()
}

/// Returns whether this is local mode.
pub(super) fn is_local(reader: &mut SettingsReader<'_>) -> bool {
    let is_named = reader.get("binding").is_some_and(|raw| raw.text == Binding::Local.name());
    values::boolean(reader, "local", is_named)
}

/// Derives the values of the platform. Records an invalid binding, prefix or interface.
pub(super) fn read(reader: &mut SettingsReader<'_>, input: SettingsInput<'_>, local: bool, port: u16) -> Platform {
    let SettingsInput { env, system, found, .. } = input;
    let binding = binding(reader, input, local);
    let prefix = reader.parsed("env_vars_prefix", "letters, digits and '_'", |text| {
        text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_').then(|| text.to_owned())
    });
    let prefix = prefix.unwrap_or_default();
    let mut platform = Platform::derive(binding, Inputs { env, system, found, prefix: &prefix, port });
    if let Some(raw) = reader.get("interface") {
        let specs: Vec<String> = raw.text.split(',').map(|spec| spec.trim().to_owned()).collect();
        match interfaces::resolve(&specs, &system.interfaces) {
            Ok(ip) => platform.values.ip = Value::new(ip.to_string(), format!("interface {}", raw.text)),
            Err(error) => reader.invalid(raw.name, &raw.text, format!("an interface of this host ({error})")),
        }
    }
    platform
}

fn binding(reader: &mut SettingsReader<'_>, input: SettingsInput<'_>, local: bool) -> Binding {
    let detected = || if local { Binding::Local } else { Binding::detect(input.env, input.system.container) };
    let Some(raw) = reader.get("binding").filter(|raw| raw.text != AUTO) else { return detected() };
    match Binding::find(&raw.text) {
        Some(binding) if local == (binding == Binding::Local) => return binding,
        Some(_) if local => reader.invalid(raw.name, &raw.text, "local or auto in local mode"),
        Some(_) => reader.invalid(raw.name, &raw.text, "another value with local=false"),
        None => {
            let names = Binding::ALL.map(Binding::name).join(", ");
            reader.invalid(raw.name, &raw.text, format!("auto, {names}"));
        }
    }
    detected()
}

impl Settings {
    /// Logs the platform with the source of each value, and the look-ups that failed.
    pub fn report_platform(&self) {
        let PlatformReport { binding, sources, .. } = &self.platform;
        let value = |key: &str| sources.get(key).map(|source| format!("{} ({source})", self.registered(key)));
        let [ip, public, node] = ["ip", "public", "node"].map(value);
        let [application, task, zk] = ["application", "task", "zk"].map(value);
        tracing::info!(binding, ip, public, node, application, task, zk, "platform detected");
        for LookUpError { address, answer, remedy } in &self.failed_look_ups {
            tracing::warn!(address, answer, "platform look-up failed, continuing without it; set {remedy}");
        }
    }
}

/// Platform of a pod, as `ochopod check` prints it.
#[derive(Debug)]
pub struct PlatformSettings {
    /// Binding.
    pub binding: Binding,
    /// Values by name, without those that are unknown.
    pub values: Vec<(&'static str, Value)>,
    /// Look-ups that failed.
    pub problems: Vec<LookUpError>,
}

impl PlatformSettings {
    /// Reads the settings with addresses and names alone.
    ///
    /// # Errors
    /// All that are invalid.
    pub fn read(input: SettingsInput<'_>) -> Result<Self, Vec<SettingError>> {
        let reader = &mut SettingsReader::new(input.env, input.flags);
        let local = is_local(reader);
        let location = PodLocation::read(reader, input, local);
        let store = values::store(reader, local, input.found);
        let store = store.map(|raw| Value::new(without_credentials(&raw.text), raw.name)).unwrap_or_default();
        if !reader.errors.is_empty() {
            return Err(std::mem::take(&mut reader.errors));
        }
        let named = location.named_values().map(|(name, value)| (name, value.clone()));
        let values = named.into_iter().chain([("zk", store)]).filter(|(_, value)| !value.is_empty()).collect();
        Ok(Self { binding: location.platform.binding, values, problems: input.found.problems.clone() })
    }
}
