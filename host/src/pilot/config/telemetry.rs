//! `telemetry` and its sensors.

use std::time::Duration;

use super::{
    Health, Sensor, SensorKind, Service, Telemetry,
    command::command,
    duration::limit,
    field::{Field, Object, Seen},
    interfaces::address,
    read::Reading,
    value::{one_of, port, seconds, some_text, texts},
};
use crate::telemetry::is_taken;

/// The service by which the page is advertised.
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
    /// The service by which the page is advertised.
    #[must_use]
    pub fn service(&self) -> Service {
        Service {
            name: TELEMETRY.to_owned(),
            address: self.address,
            port: self.port,
            poll: POLL,
            ttl: TTL,
            health: Health::Always,
            limit: POLL,
            tags: self.tags.clone(),
            enable_tag_override: false,
            deregister_critical_service_after: None,
        }
    }
}

pub(super) fn telemetry(field: Field<'_, '_>, reading: &Reading<'_>) -> Option<Telemetry> {
    field.object(|keys| {
        let port = keys.optional("port", port).unwrap_or(PORT);
        let address = address(keys, reading);
        let tags = keys.optional("tags", texts).unwrap_or_default();
        let mut seen = Seen::default();
        let sensors = keys.objects("sensors", |keys| sensor(keys, &mut seen));
        Some(Telemetry { address: address?, port, tags, sensors })
    })
}

fn sensor(keys: &mut Object<'_, '_>, seen: &mut Seen<String>) -> Option<Sensor> {
    let metric = metric(keys, seen);
    let help = keys.required("help", help);
    let kind = keys.required("type", |field| one_of(field, "a sensor type", str::eq, &KINDS));
    let poll = keys.required("poll", seconds);
    let check = keys.required("check", command);
    let limit = keys.optional("timeout", |field| limit(field, "check"));
    Some(Sensor { metric: metric?, help: help?, kind: kind?, poll: poll?, check: check?, limit: limit.or(poll)? })
}

/// The name that its parts make.
fn metric(keys: &mut Object<'_, '_>, seen: &mut Seen<String>) -> Option<String> {
    let parts = ["namespace", "subsystem", "name"].map(|key| keys.optional(key, some_text));
    let metric = parts.into_iter().flatten().collect::<Vec<_>>().join("_");
    if is_taken(&metric) {
        keys.fail("name", format_args!("makes {metric:?}, which the host itself tells: expected another name"));
        return None;
    }
    if is_metric(&metric) {
        keys.claim(seen, "name", metric.clone(), format_args!("{metric:?}"));
        return Some(metric);
    }
    let expected = "expected a metric name: letters, digits, '_' and ':', no digit first";
    keys.fail("name", format_args!("makes {metric:?} of namespace, subsystem and name, {expected}"));
    None
}

fn is_metric(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_:".contains(&byte);
    name.bytes().all(fits) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

fn help(field: Field<'_, '_>) -> Option<String> {
    let help = field.as_text().filter(|text| !text.is_empty()).map(str::to_owned);
    field.judge(help, "a text that says what is measured")
}
