//! `services`.

use super::{
    Health, Service,
    command::command,
    duration::{go_text, limit},
    field::{Field, Object, Seen},
    interfaces::address,
    json5::Value,
    read::Reading,
    telemetry::TELEMETRY,
    value::{boolean, is_customary, name, port, seconds, texts},
};

/// What stands for a plugin's own checks.
const SANITY_CHECK: &str = "sanity-check";

/// All services, and that of the telemetry if it has one.
pub(super) fn services(config: &mut Object<'_, '_>, reading: &Reading<'_>) -> Vec<Service> {
    let mut seen = Seen::default();
    if config.has("telemetry") {
        config.claim(&mut seen, "telemetry", TELEMETRY.to_owned(), TELEMETRY);
    }
    config.objects("services", |keys| service(keys, reading, &mut seen))
}

fn service(keys: &mut Object<'_, '_>, reading: &Reading<'_>, seen: &mut Seen<String>) -> Option<Service> {
    let name = keys.required("name", name);
    let poll = keys.required("poll", seconds);
    let ttl = keys.required("ttl", seconds);
    let port = keys.required("port", port);
    let health = keys.optional("health", |field| health(field, reading));
    let limit = keys.optional("timeout", |field| limit(field, "health"));
    let address = address(keys, reading);
    let tags = keys.optional("tags", texts).unwrap_or_default();
    let consul = keys.optional("consul", extras).unwrap_or_default();
    if let Some(name) = &name {
        keys.claim(seen, "name", name.clone(), format_args!("{name:?}"));
        if !is_customary(name) {
            let pattern = "expected a lower-case letter, then letters, digits and '-'";
            keys.remark("name", format_args!("is {name:?}, {pattern}: some places and their DNS take no other"));
        }
    }
    if let (Some(poll), Some(ttl)) = (poll, ttl)
        && ttl <= poll
    {
        let (ttl, poll) = (ttl.as_secs(), poll.as_secs());
        keys.remark("ttl", format_args!("is {ttl}, not more than poll, {poll}: it may run out between two checks"));
    }
    Some(Service {
        name: name?,
        address: address?,
        port: port?,
        poll: poll?,
        ttl: ttl?,
        health: health.unwrap_or(Health::Always),
        limit: limit.or(poll)?,
        tags,
        enable_tag_override: consul.enable_tag_override,
        deregister_critical_service_after: consul.deregister_critical_service_after,
    })
}

fn health(field: Field<'_, '_>, reading: &Reading<'_>) -> Option<Health> {
    match field.value() {
        Value::Text(text) if reading.plugin && text == SANITY_CHECK => Some(Health::SanityCheck),
        _ => command(field).map(Health::Command),
    }
}

/// What is for Consul only.
#[derive(Default)]
struct Extras {
    enable_tag_override: bool,
    deregister_critical_service_after: Option<String>,
}

fn extras(field: Field<'_, '_>) -> Option<Extras> {
    field.object(|keys| {
        let enable_tag_override = keys.optional("enableTagOverride", boolean).unwrap_or_default();
        let deregister_critical_service_after = keys.optional("deregisterCriticalServiceAfter", go_text);
        Some(Extras { enable_tag_override, deregister_critical_service_after })
    })
}
