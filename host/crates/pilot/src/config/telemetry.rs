//! `telemetry`: the metrics page and its sensors.

use std::time::Duration;

use super::{
    HealthCheck, Sensor, SensorKind, Service, Telemetry,
    command::command,
    duration::timeout,
    field::{Field, Object, UniqueKeys},
    interfaces::address,
    read::ReadContext,
    value::{non_empty_text, one_of, port, seconds, texts},
};
use crate::sensors::is_reserved;

/// Name of the service that advertises the metrics page.
pub(super) const TELEMETRY: &str = "containerpilot";

const PORT: u16 = 9090;
const POLL: Duration = Duration::from_secs(5);
const TTL: Duration = Duration::from_secs(15);
const KINDS: [(&str, SensorKind); 4] = [
    ("counter", SensorKind::Counter),
    ("gauge", SensorKind::Gauge),
    ("histogram", SensorKind::Histogram),
    ("summary", SensorKind::Summary),
];

impl Telemetry {
    /// Returns the service that advertises the metrics page.
    #[must_use]
    pub fn service(&self) -> Service {
        Service {
            name: TELEMETRY.to_owned(),
            address: self.address,
            port: self.port,
            poll: POLL,
            ttl: TTL,
            health: HealthCheck::Always,
            limit: POLL,
            tags: self.tags.clone(),
            enable_tag_override: false,
            deregister_critical_service_after: None,
        }
    }
}

pub(super) fn telemetry(field: Field<'_, '_>, context: &ReadContext<'_>) -> Option<Telemetry> {
    field.object(|keys| {
        let port = keys.optional("port", port).unwrap_or(PORT);
        let address = address(keys, context);
        let tags = keys.optional("tags", texts).unwrap_or_default();
        let mut unique = UniqueKeys::default();
        let sensors = keys.objects("sensors", |keys| sensor(keys, context, &mut unique));
        Some(Telemetry { address: address?, port, tags, sensors })
    })
}

fn sensor(keys: &mut Object<'_, '_>, context: &ReadContext<'_>, unique: &mut UniqueKeys<String>) -> Option<Sensor> {
    let metric = metric(keys, unique);
    let help = keys.required("help", help);
    let kind = keys.required("type", |field| one_of(field, "a sensor type", str::eq, &KINDS));
    let poll = keys.required("poll", seconds);
    let check = keys.required("check", |field| command(field, context));
    let limit = keys.optional("timeout", |field| timeout(field, "check"));
    Some(Sensor { metric: metric?, help: help?, kind: kind?, poll: poll?, check: check?, limit: limit.or(poll)? })
}

/// Reads the parts of a metric name and joins them.
fn metric(keys: &mut Object<'_, '_>, unique: &mut UniqueKeys<String>) -> Option<String> {
    let parts = ["namespace", "subsystem", "name"].map(|key| keys.optional(key, non_empty_text));
    let metric = parts.into_iter().flatten().collect::<Vec<_>>().join("_");
    if is_reserved(&metric) {
        keys.error("name", format_args!("{metric:?} is a metric of the host, expected another name"));
        return None;
    }
    if is_metric(&metric) {
        keys.require_unique(unique, "name", metric.clone(), format_args!("{metric:?}"));
        return Some(metric);
    }
    let expected = "expected letters, digits, '_' and ':', no digit first";
    keys.error("name", format_args!("invalid metric name {metric:?} (namespace, subsystem and name), {expected}"));
    None
}

fn is_metric(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_:".contains(&byte);
    name.bytes().all(fits) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

fn help(field: Field<'_, '_>) -> Option<String> {
    let help = field.as_text().filter(|text| !text.is_empty()).map(str::to_owned);
    field.require(help, "a description of the metric")
}
