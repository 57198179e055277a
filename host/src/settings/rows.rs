//! The rows of the settings table, one reader each.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use tracing::level_filters::LevelFilter;

use super::{
    Flags, LogFile,
    binding::Binding,
    parse,
    registration::OVERRIDE,
    secret::{PREFIX, without_credentials},
    source::{Given, Source},
};
use crate::{cluster::ClusterName, telemetry::Format};

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

pub(super) fn zookeeper(source: &mut Source<'_>, flags: &Flags, local: bool) -> Option<String> {
    let Some(given) = source.given("zk", flags.zk.as_deref()) else { return local.then(|| LOCAL_ZK.to_owned()) };
    if flags.zk.is_some() && given.text.contains('@') {
        let shown = without_credentials(&given.text);
        source.bad(given.name, shown, "no credentials on the command line, but in the variable ochopod_zk");
    }
    Some(given.text)
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

pub(super) fn overrides(source: &mut Source<'_>, flags: &Flags) -> BTreeMap<String, String> {
    let variables = source.env.iter().filter_map(|(name, value)| {
        let name = name.to_str()?.strip_prefix(PREFIX)?.strip_prefix(OVERRIDE)?;
        Some((name.to_owned(), value.to_str()?.to_owned()))
    });
    let mut overrides: BTreeMap<String, String> = variables.collect();
    for text in &flags.set {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => _ = overrides.insert(name.to_owned(), value.to_owned()),
            _ => source.bad("--set", text, "NAME=VALUE"),
        }
    }
    overrides
}
