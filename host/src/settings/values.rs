//! Values of settings, one function for each.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::PathBuf,
    time::Duration,
};

use ochopod_environment::{PREFIX, is_secret, without_credentials};
use ochopod_model::{ClusterName, Dependency};
use ochopod_platform::{LookUpResults, Platform};
use ochopod_plugin::SettingOverride;
use ochopod_settings::{OVERRIDE_PREFIX, RawSetting, SettingsReader};
use ochopod_store::ZooKeeperAddress;
use ochopod_telemetry::{LogFile, PodLogFormat};
use tracing::level_filters::LevelFilter;

use super::{parse, zookeeper as zookeeper_access};

const ZK_FORM: &str = "zk://[user:password@]host:port,…[/chroot]";
const LOCAL_ZK: &str = "127.0.0.1:2181";
const INIT_LOG_FILE: &str = "/var/log/ochopod.log";
const CACHE_DIRECTORY: &str = "/var/cache/ochopod";
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);
const PLUGIN_MEMORY_BYTES: usize = 256 << 20;
const MIN_PLUGIN_MEMORY_BYTES: usize = 1 << 20;
/// Longest session timeout, which no ensemble grants.
const MAX_SESSION_TIMEOUT: Duration = Duration::from_hours(1);
/// Longest time limit of a shutdown.
const MAX_STOP_TIMEOUT: Duration = Duration::from_hours(24);

pub(super) fn boolean(reader: &mut SettingsReader<'_>, name: &str, default: bool) -> bool {
    reader.parsed(name, "true or false", parse::boolean).unwrap_or(default)
}

pub(super) fn session(reader: &mut SettingsReader<'_>) -> Duration {
    let expected = "seconds, above 0 and at most 3600";
    let session = reader.parsed("session", expected, |text| ochopod_model::seconds(text, MAX_SESSION_TIMEOUT));
    session.unwrap_or(SESSION_TIMEOUT)
}

pub(super) fn stop_timeout(reader: &mut SettingsReader<'_>) -> Option<Duration> {
    let expected = "seconds, above 0 and at most 86400";
    reader.parsed("stop_timeout", expected, |text| ochopod_model::seconds(text, MAX_STOP_TIMEOUT))
}

pub(super) fn leave_delay(reader: &mut SettingsReader<'_>) -> Duration {
    let expected = "seconds, at most 86400";
    let delay = reader.parsed("leave_delay", expected, |text| match text {
        "0" => Some(Duration::ZERO),
        text => ochopod_model::seconds(text, MAX_STOP_TIMEOUT),
    });
    delay.unwrap_or_default()
}

pub(super) fn cluster(reader: &mut SettingsReader<'_>, platform: &Platform) -> Option<ClusterName> {
    let namespace = reader.parsed("namespace", "dot separated tokens of letters, digits, '_' and '-'", |text| {
        ClusterName::new(text, "any").ok().map(|_| text.to_owned())
    });
    let expected = "letters, digits, '_' and '-'";
    let name = match reader.get("cluster") {
        Some(raw) => raw,
        None if platform.marathon_app.is_empty() => {
            RawSetting { name: "ochopod_cluster".to_owned(), text: "default".to_owned() }
        }
        None => RawSetting { name: "MARATHON_APP_ID".to_owned(), text: platform.marathon_app.replace('/', "-") },
    };
    let cluster = ClusterName::new(namespace.as_deref().unwrap_or("marathon"), &name.text).ok();
    if cluster.is_none() {
        reader.invalid(name.name, &name.text, expected);
    }
    cluster
}

/// Reads the address of ZooKeeper: as set, else that of local mode, else as the platform reports it.
pub(super) fn store(reader: &SettingsReader<'_>, local: bool, found: &LookUpResults) -> Option<RawSetting> {
    let default = || RawSetting { name: "ochopod_local".to_owned(), text: LOCAL_ZK.to_owned() };
    let found = || found.store.clone().map(|store| RawSetting { name: store.source.into_owned(), text: store.text });
    reader.get("zk").or_else(|| local.then(default)).or_else(found)
}

/// Parses the address of ZooKeeper. Returns none only after an error was recorded.
pub(super) fn zookeeper(reader: &mut SettingsReader<'_>, raw: &RawSetting) -> Option<ZooKeeperAddress> {
    let public = without_credentials(&raw.text);
    if reader.flags.text("zk").is_some() && raw.text.contains('@') {
        reader.invalid(
            &*raw.name,
            public,
            "no credentials on the command line: use the variable ochopod_zk or --zk-credentials",
        );
        return None;
    }
    match raw.text.parse() {
        Ok(address) => Some(zookeeper_access::with_access(reader, address)),
        Err(error) => {
            reader.invalid(&*raw.name, public, format!("{ZK_FORM} ({error})"));
            None
        }
    }
}

/// Rejects settings that pods of one process cannot share.
pub(super) fn reject_unsupported(reader: &mut SettingsReader<'_>) {
    for name in ["ip", "public", "interface", "listen"] {
        if let Some(raw) = reader.get(name) {
            reader.invalid(raw.name, &raw.text, "no value with up, which assigns each pod an address");
        }
    }
    if let Some(raw) = reader.get("config") {
        reader.invalid_secret(raw.name, "no value with up: a configuration registers a single address");
    }
    if boolean(reader, "local", true) {
        return;
    }
    if let Some(raw) = reader.get("local")
        && parse::boolean(&raw.text).is_some()
    {
        reader.invalid(raw.name, &raw.text, "true or unset with up, which runs all pods on this machine");
    }
}

pub(super) fn logging(reader: &mut SettingsReader<'_>, debug: bool) -> (LevelFilter, PodLogFormat) {
    let level = reader.parsed("log_level", "error, warning, info, debug or trace", |text| {
        Some(match text {
            "error" => LevelFilter::ERROR,
            "warn" | "warning" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            _ => return None,
        })
    });
    let format = reader.parsed("log_format", "text or json", |text| match text {
        "text" => Some(PodLogFormat::Text),
        "json" => Some(PodLogFormat::Json),
        _ => None,
    });
    let default = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    (level.unwrap_or(default), format.unwrap_or_default())
}

pub(super) fn log_file(reader: &mut SettingsReader<'_>, init: bool) -> Option<LogFile> {
    match reader.get("log") {
        Some(raw) => Some(LogFile { path: raw.text.into(), explicit: true }),
        None => init.then(|| LogFile { path: INIT_LOG_FILE.into(), explicit: false }),
    }
}

pub(super) fn cache(reader: &mut SettingsReader<'_>) -> PathBuf {
    if let Some(raw) = reader.get("cache") {
        return raw.text.into();
    }
    reader.env.text("XDG_CACHE_HOME").map_or_else(|| CACHE_DIRECTORY.into(), |base| PathBuf::from(base).join("ochopod"))
}

/// Returns the memory of all plugin instances of a pod. The default is limited by the memory of the container.
pub(super) fn plugin_memory(reader: &mut SettingsReader<'_>, container: Option<u64>) -> usize {
    let expected = "a size from 1MiB, such as 256MiB";
    let raw = reader
        .parsed("plugin_memory", expected, |text| parse::size(text).filter(|bytes| *bytes >= MIN_PLUGIN_MEMORY_BYTES));
    let quarter = container.map(|bytes| usize::try_from(bytes / 4).unwrap_or(usize::MAX));
    raw.unwrap_or_else(|| {
        quarter.map_or(PLUGIN_MEMORY_BYTES, |quarter| quarter.clamp(MIN_PLUGIN_MEMORY_BYTES, PLUGIN_MEMORY_BYTES))
    })
}

/// Reads the overrides of the plugin's settings, one for each name: a flag takes precedence over a variable, whether the
/// name is written with `-` or with `_`.
pub(super) fn overrides(reader: &mut SettingsReader<'_>, own: &ClusterName) -> Vec<SettingOverride> {
    let mut overrides = BTreeMap::new();
    for text in reader.flags.all("set") {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                let raw = RawSetting { name: format!("--set {name}"), text: value.to_owned() };
                overrides.insert(name.replace('-', "_"), raw);
            }
            _ => reader.invalid("--set", text, "NAME=VALUE"),
        }
    }
    for (variable, value) in reader.env.iter() {
        let (Some(variable), Some(value)) = (variable.to_str(), value.to_str()) else { continue };
        let name = variable.strip_prefix(PREFIX).and_then(|name| name.strip_prefix(OVERRIDE_PREFIX));
        let Some(name) = name.filter(|_| !value.is_empty()) else { continue };
        if let Entry::Vacant(entry) = overrides.entry(name.replace('-', "_")) {
            entry.insert(RawSetting { name: variable.to_owned(), text: value.to_owned() });
        }
    }
    let mut valid = Vec::new();
    for (name, raw) in overrides {
        match parse_override(&name, &raw.text, own) {
            Ok(setting) => valid.push(setting),
            Err(expected) => reader.invalid(raw.name, if is_secret(&name) { "" } else { &raw.text }, expected),
        }
    }
    valid
}

/// Parses an override, or returns what was expected.
fn parse_override(name: &str, text: &str, own: &ClusterName) -> Result<SettingOverride, String> {
    let read = SettingOverride::read(name, text)?;
    if let SettingOverride::DependsOn(names) = &read {
        for name in names {
            Dependency::new(name, own).map_err(|error| format!("names and globs, separated by commas ({error})"))?;
        }
    }
    Ok(read)
}
