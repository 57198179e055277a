//! `services`: the services to register.

use ochopod_json5::Value;

use super::{
    HealthCheck, Service,
    command::command,
    duration::{go_text, timeout},
    field::{Field, Object, UniqueKeys},
    interfaces::address,
    read::ReadContext,
    telemetry::TELEMETRY,
    value::{boolean, is_dns_name, name, port, seconds, texts},
};

/// Value of `health` that stands for the plugin's sanity checks.
const SANITY_CHECK: &str = "sanity-check";

/// Reads the services. Their names must differ from that of the telemetry if there is one.
pub(super) fn services(config: &mut Object<'_, '_>, context: &ReadContext<'_>) -> Vec<Service> {
    let (mut unique, case) = (UniqueKeys::default(), Case::of(config));
    if config.has("telemetry") {
        config.require_unique(&mut unique, "telemetry", case.identity(TELEMETRY), TELEMETRY);
    }
    config.objects("services", |keys| service(keys, context, &mut unique, case))
}

fn service(
    keys: &mut Object<'_, '_>,
    context: &ReadContext<'_>,
    unique: &mut UniqueKeys<String>,
    case: Case,
) -> Option<Service> {
    let name = keys.required("name", name);
    let poll = keys.required("poll", seconds);
    let ttl = keys.required("ttl", seconds);
    let port = keys.required("port", port);
    let health = keys.optional("health", |field| health(field, context));
    let limit = keys.optional("timeout", |field| timeout(field, "health"));
    let address = address(keys, context);
    let tags = keys.optional("tags", texts).unwrap_or_default();
    let consul = keys.optional("consul", consul_options).unwrap_or_default();
    if let Some(name) = &name {
        keys.require_unique(unique, "name", case.identity(name), format_args!("{name:?}"));
        if !is_dns_name(name) {
            let pattern = "expected a lowercase letter, then letters, digits and '-'";
            keys.warning("name", format_args!("{name:?} may be rejected by registries and their DNS: {pattern}"));
        }
    }
    if let (Some(poll), Some(ttl)) = (poll, ttl)
        && ttl <= poll
    {
        let (ttl, poll) = (ttl.as_secs(), poll.as_secs());
        keys.warning(
            "ttl",
            format_args!("{ttl} does not exceed poll ({poll}): the registration may expire between checks"),
        );
    }
    Some(Service {
        name: name?,
        address: address?,
        port: port?,
        poll: poll?,
        ttl: ttl?,
        health: health.unwrap_or(HealthCheck::Always),
        limit: limit.or(poll)?,
        tags,
        enable_tag_override: consul.enable_tag_override,
        deregister_critical_service_after: consul.deregister_critical_service_after,
    })
}

/// Significance of case in the names of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// Names that differ only in case are different.
    Significant,
    /// Names that differ only in case are the same: Consul's servers keep one of two such services and return both by
    /// either name.
    Ignored,
}

impl Case {
    /// Returns that of the registry of a configuration.
    pub(super) fn of(config: &Object<'_, '_>) -> Self {
        if config.has("consul") { Self::Ignored } else { Self::Significant }
    }

    /// Returns the identity of a name, which is equal for names that the registry does not distinguish.
    pub(super) fn identity(self, name: &str) -> String {
        match self {
            Self::Significant => name.to_owned(),
            Self::Ignored => name.to_lowercase(),
        }
    }
}

fn health(field: Field<'_, '_>, context: &ReadContext<'_>) -> Option<HealthCheck> {
    match field.value() {
        Value::Text(text) if context.plugin && text == SANITY_CHECK => Some(HealthCheck::SanityCheck),
        _ => command(field, context).map(HealthCheck::Command),
    }
}

/// Options that only Consul supports.
#[derive(Default)]
struct ConsulOptions {
    enable_tag_override: bool,
    deregister_critical_service_after: Option<String>,
}

fn consul_options(field: Field<'_, '_>) -> Option<ConsulOptions> {
    field.object(|keys| {
        let enable_tag_override = keys.optional("enableTagOverride", boolean).unwrap_or_default();
        let deregister_critical_service_after = keys.optional("deregisterCriticalServiceAfter", go_text);
        Some(ConsulOptions { enable_tag_override, deregister_critical_service_after })
    })
}
