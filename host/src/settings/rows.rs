//! The rows of the settings table, one reader each.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::PathBuf,
    time::Duration,
};

use tracing::level_filters::LevelFilter;

use super::{
    Flags, LogFile,
    binding::Binding,
    ensemble, parse,
    registration::OVERRIDE,
    secret::{PREFIX, is_secret, without_credentials},
    source::{Given, Source},
};
use crate::{
    cluster::{ClusterName, Dependency},
    coord::ZooKeeperAddress,
    plugin::Override,
    telemetry::Format,
};

const ZK: &str = "zk://[user:password@]host:port,…[/chroot]";
const LOCAL_ZK: &str = "127.0.0.1:2181";
const LOG_OF_INIT: &str = "/var/log/ochopod.log";
const CACHE: &str = "/var/cache/ochopod";
const SESSION: Duration = Duration::from_secs(5);
/// More than any ensemble grants.
const LONGEST_SESSION: Duration = Duration::from_hours(1);

pub(super) fn boolean(source: &mut Source<'_>, name: &str, flag: Option<&str>, default: bool) -> bool {
    source.parsed(name, flag, "true or false", parse::boolean).unwrap_or(default)
}

pub(super) fn session(source: &mut Source<'_>, flags: &Flags) -> Duration {
    let expected = "seconds, above 0 and at most 3600";
    let session =
        source.parsed("session", flags.session.as_deref(), expected, |text| parse::seconds(text, LONGEST_SESSION));
    session.unwrap_or(SESSION)
}

pub(super) fn cluster(source: &mut Source<'_>, flags: &Flags, binding: &Binding) -> Option<ClusterName> {
    let namespace = source.parsed(
        "namespace",
        flags.namespace.as_deref(),
        "dot separated tokens of letters, digits, '_' and '-'",
        |text| ClusterName::new(text, "any").ok().map(|_| text.to_owned()),
    );
    let expected = "letters, digits, '_' and '-'";
    let name = match source.given("cluster", flags.cluster.as_deref()) {
        Some(given) => given,
        None if binding.application.is_empty() => {
            Given { name: "ochopod_cluster".to_owned(), text: "default".to_owned() }
        }
        None => Given { name: "MARATHON_APP_ID".to_owned(), text: binding.application.replace('/', "-") },
    };
    let cluster = ClusterName::new(namespace.as_deref().unwrap_or("marathon"), &name.text).ok();
    if cluster.is_none() {
        source.bad(name.name, &name.text, expected);
    }
    cluster
}

/// What says where ZooKeeper is.
pub(super) fn store(source: &mut Source<'_>, flags: &Flags, local: bool) -> Option<Given> {
    let here = || Given { name: "ochopod_local".to_owned(), text: LOCAL_ZK.to_owned() };
    source.given("zk", flags.zk.as_deref()).or_else(|| local.then(here))
}

/// Where ZooKeeper is. None only after an error was noted.
pub(super) fn zookeeper(source: &mut Source<'_>, flags: &Flags, given: &Given) -> Option<ZooKeeperAddress> {
    let shown = without_credentials(&given.text);
    if flags.zk.is_some() && given.text.contains('@') {
        source.bad(&*given.name, shown, "no credentials on the command line, but in the variable ochopod_zk");
        return None;
    }
    match given.text.parse() {
        Ok(address) => Some(ensemble::let_in(source, flags, address)),
        Err(error) => {
            source.bad(&*given.name, shown, format!("{ZK} ({error})"));
            None
        }
    }
}

/// What pods of one process have each for themselves, or not at all.
pub(super) fn refuse_own(source: &mut Source<'_>, flags: &Flags) {
    for (name, flag) in [("ip", &flags.ip), ("public", &flags.public), ("listen", &flags.listen)] {
        if let Some(given) = source.given(name, flag.as_deref()) {
            source.bad(given.name, &given.text, "none with up: each of its pods has an address of its own");
        }
    }
    if let Some(given) = source.given("config", flags.config.as_deref()) {
        source.bad(given.name, &given.text, "none with up: what a configuration registers is on one address");
    }
    if boolean(source, "local", flags.local.as_deref(), true) {
        return;
    }
    if let Some(given) = source.given("local", flags.local.as_deref())
        && parse::boolean(&given.text).is_some()
    {
        source.bad(given.name, &given.text, "true or none with up: all its pods are on this machine");
    }
}

pub(super) fn logging(source: &mut Source<'_>, flags: &Flags, debug: bool) -> (LevelFilter, Format) {
    let level =
        source.parsed("log_level", flags.log_level.as_deref(), "error, warning, info, debug or trace", |text| {
            Some(match text {
                "error" => LevelFilter::ERROR,
                "warn" | "warning" => LevelFilter::WARN,
                "info" => LevelFilter::INFO,
                "debug" => LevelFilter::DEBUG,
                "trace" => LevelFilter::TRACE,
                _ => return None,
            })
        });
    let format = source.parsed("log_format", flags.log_format.as_deref(), "text or json", |text| match text {
        "text" => Some(Format::Text),
        "json" => Some(Format::Json),
        _ => None,
    });
    let default = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    (level.unwrap_or(default), format.unwrap_or_default())
}

pub(super) fn log_file(source: &mut Source<'_>, flags: &Flags, init: bool) -> Option<LogFile> {
    match source.given("log", flags.log.as_deref()) {
        Some(given) => Some(LogFile { path: given.text.into(), asked: true }),
        None => init.then(|| LogFile { path: LOG_OF_INIT.into(), asked: false }),
    }
}

pub(super) fn cache(source: &mut Source<'_>, flags: &Flags) -> PathBuf {
    if let Some(given) = source.given("cache", flags.cache.as_deref()) {
        return given.text.into();
    }
    source.env.text("XDG_CACHE_HOME").map_or_else(|| CACHE.into(), |base| PathBuf::from(base).join("ochopod"))
}

/// The overrides of the plugin's settings, each named once: a flag wins over a variable, whether it is spelt with `-` or
/// with `_`.
pub(super) fn overrides(source: &mut Source<'_>, flags: &Flags, own: &ClusterName) -> Vec<Override> {
    let mut overrides = BTreeMap::new();
    for text in &flags.set {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                let given = Given { name: format!("--set {name}"), text: value.to_owned() };
                overrides.insert(name.replace('-', "_"), given);
            }
            _ => source.bad("--set", text, "NAME=VALUE"),
        }
    }
    for (variable, value) in source.env.iter() {
        let (Some(variable), Some(value)) = (variable.to_str(), value.to_str()) else { continue };
        let name = variable.strip_prefix(PREFIX).and_then(|name| name.strip_prefix(OVERRIDE));
        let Some(name) = name.filter(|_| !value.is_empty()) else { continue };
        if let Entry::Vacant(entry) = overrides.entry(name.replace('-', "_")) {
            entry.insert(Given { name: variable.to_owned(), text: value.to_owned() });
        }
    }
    let mut judged = Vec::new();
    for (name, given) in overrides {
        match judge(&name, &given.text, own) {
            Ok(good) => judged.push(good),
            Err(expected) => source.bad(given.name, if is_secret(&name) { "" } else { &given.text }, expected),
        }
    }
    judged
}

/// The override, or what was expected of it.
fn judge(name: &str, text: &str, own: &ClusterName) -> Result<Override, String> {
    let read = Override::read(name, text)?;
    if let Override::DependsOn(names) = &read {
        for name in names {
            Dependency::new(name, own).map_err(|error| format!("names and globs, separated by commas ({error})"))?;
        }
    }
    Ok(read)
}
