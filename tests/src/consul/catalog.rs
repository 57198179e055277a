//! State of an agent: services and their checks, as Consul documents them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// A rejection: the code and the text.
pub(super) type ApiRejection = (u16, String);

/// Services and checks, by id. Agents distinguish `web` and `Web`, but the catalogue that answers queries ignores case:
/// of two services, or checks, with the same id it has the one that changed last.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    services: BTreeMap<String, Service>,
    checks: BTreeMap<String, Check>,
    /// The service in the catalogue, by its id without case.
    synced: BTreeMap<String, String>,
    /// Number of changes, and the change of each service, in that count.
    index: u64,
    indices: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq)]
struct Service {
    name: String,
    tags: Vec<String>,
    address: String,
    port: i64,
    enable_tag_override: bool,
}

#[derive(Debug, Clone)]
struct Check {
    name: String,
    notes: String,
    output: String,
    status: String,
    service: String,
    ttl: Duration,
    /// Time at which it becomes critical without a report.
    expires: Option<Instant>,
    /// Time that its service is kept once it is critical, and the time since which it is critical.
    reap: Option<Duration>,
    critical: Option<Instant>,
}

impl Catalog {
    /// Applies everything that is due until now.
    pub(super) fn settle(&mut self, now: Instant) {
        let expired = |check: &Check| check.expires.filter(|at| *at <= now);
        let expired: Vec<_> =
            self.checks.iter().filter_map(|(id, check)| Some((id.clone(), expired(check)?))).collect();
        for (id, at) in expired {
            self.set(&id, "critical", "TTL expired", at);
        }
        let reaped = self.checks.values().filter(|check| check.reaped().is_some_and(|at| at <= now));
        for id in reaped.map(|check| check.service.clone()).collect::<Vec<_>>() {
            self.remove(&id);
        }
    }

    /// Returns the time at which something is due next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.checks.values().flat_map(|check| [check.expires, check.reaped()]).flatten().min()
    }

    /// Executes `PUT /v1/agent/service/register`.
    pub(super) fn register(&mut self, definition: &Value, replace: bool, now: Instant) -> Result<(), ApiRejection> {
        let name = text(definition, "Name").ok_or((400, "Missing service name".to_owned()))?;
        let id = text(definition, "ID").unwrap_or(name);
        let address = text(definition, "Address").unwrap_or_default();
        if ["0.0.0.0", "::"].contains(&address) {
            return Err((400, "Invalid service address".to_owned()));
        }
        let checks: Vec<_> =
            std::iter::once(&definition["Check"]).chain(list(&definition["Checks"])).filter(|c| !c.is_null()).collect();
        let ordinal = |place: usize| if checks.len() > 1 { format!(":{}", place + 1) } else { String::new() };
        let checks = checks.iter().enumerate().map(|(place, definition)| {
            let check_id =
                text(definition, "CheckID").map_or_else(|| format!("service:{id}{}", ordinal(place)), str::to_owned);
            Ok((check_id, Check::new(definition, id, &format!("Service '{name}' check"), now)?))
        });
        let checks = checks.collect::<Result<BTreeMap<_, _>, ApiRejection>>()?;
        let tags = list(&definition["Tags"]).filter_map(|tag| Some(tag.as_str()?.to_owned()));
        let service = Service {
            name: name.to_owned(),
            tags: tags.collect(),
            address: address.to_owned(),
            port: definition["Port"].as_i64().unwrap_or_default(),
            enable_tag_override: definition["EnableTagOverride"] == true,
        };
        let before = self.services.insert(id.to_owned(), service.clone());
        if before.as_ref() != Some(&service) {
            self.sync(id);
            self.changed(name);
            if let Some(before) = before {
                self.changed(&before.name);
            }
        }
        if replace {
            self.checks.retain(|check_id, check| check.service != id || checks.contains_key(check_id));
        }
        for (check_id, check) in checks {
            self.put(check_id, check);
        }
        Ok(())
    }

    /// Executes `PUT /v1/agent/check/register`.
    pub(super) fn register_check(&mut self, definition: &Value, now: Instant) -> Result<(), ApiRejection> {
        let name = text(definition, "Name").ok_or((400, "Missing check name".to_owned()))?;
        let id = text(definition, "ID").or_else(|| text(definition, "CheckID")).unwrap_or(name);
        let service = text(definition, "ServiceID").unwrap_or_default();
        if !self.services.contains_key(service) {
            return Err((500, format!("ServiceID {service:?} does not exist")));
        }
        let check = Check::new(definition, service, name, now)?;
        self.put(id.to_owned(), check);
        Ok(())
    }

    /// Executes `PUT /v1/agent/check/pass`, `warn` and `fail`. Returns whether the check exists.
    pub(super) fn update(&mut self, id: &str, status: &str, note: &str, now: Instant) -> bool {
        let known = self.checks.contains_key(id);
        self.set(id, status, note, now);
        if let Some(check) = self.checks.get_mut(id) {
            check.expires = Some(now + check.ttl);
        }
        known
    }

    /// Executes `PUT /v1/agent/service/deregister`. Returns whether the service existed.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let Some(service) = self.services.remove(id) else { return false };
        self.checks.retain(|_, check| check.service != id);
        self.synced.remove(&id.to_lowercase());
        self.changed(&service.name);
        true
    }

    /// Changes the id of an instance in one step; a client needs two requests for that.
    pub(super) fn rename(&mut self, id: &str, other: &str) {
        if let Some(service) = self.services.remove(id) {
            self.changed(&service.name);
            self.services.insert(other.to_owned(), service);
            self.synced.remove(&id.to_lowercase());
            self.sync(other);
        }
        for check in self.checks.values_mut().filter(|check| check.service == id) {
            other.clone_into(&mut check.service);
        }
    }

    /// Returns the reply to `GET /v1/agent/services`.
    pub(super) fn services(&self) -> Value {
        self.services.iter().map(|(id, service)| (id.clone(), service.listed(id))).collect()
    }

    /// Returns the reply to `GET /v1/agent/checks`.
    pub(super) fn checks(&self) -> Value {
        self.checks.iter().map(|(id, check)| (id.clone(), self.listed(id, check))).collect()
    }

    /// Returns the reply to `GET /v1/health/service`, and its index.
    pub(super) fn health(&self, name: &str, tag: Option<&str>, passing: bool) -> (u64, Value) {
        let (name, tag) = (name.to_lowercase(), tag.map(str::to_lowercase));
        let synced = self.synced.values().filter_map(|id| Some((id, self.services.get(id)?)));
        let found = synced.filter(|(id, service)| {
            let tagged = tag.as_ref().is_none_or(|tag| service.tags.iter().any(|known| known.to_lowercase() == *tag));
            let healthy = self.checks.values().all(|check| check.service != **id || check.status == "passing");
            service.name.to_lowercase() == name && tagged && (healthy || !passing)
        });
        let entries = found.map(|(id, service)| {
            let checks = self.checks.iter().filter(|(_, check)| check.service == *id);
            let checks: Value = checks.map(|(check_id, check)| self.listed(check_id, check)).collect();
            json!({ "Node": { "Node": "kit", "Address": NODE }, "Service": service.listed(id), "Checks": checks })
        });
        (self.indices.get(&name).copied().unwrap_or(1), entries.collect())
    }

    /// Decreases the count of changes.
    pub(super) fn rewind(&mut self, index: u64) {
        self.index = index;
        self.indices.values_mut().for_each(|known| *known = index);
    }

    fn put(&mut self, id: String, mut check: Check) {
        let service = check.service.clone();
        match self.checks.get(&id) {
            // Registering again does not make a check healthy.
            Some(known) => {
                check.status.clone_from(&known.status);
                check.output.clone_from(&known.output);
                check.critical = known.critical;
            }
            None => self.changed_instance(&service),
        }
        self.checks.insert(id, check);
    }

    fn set(&mut self, id: &str, status: &str, output: &str, at: Instant) {
        let Some(check) = self.checks.get_mut(id) else { return };
        output.clone_into(&mut check.output);
        check.expires = None;
        if check.status != status {
            status.clone_into(&mut check.status);
            check.critical = (status == "critical").then_some(at);
            let service = check.service.clone();
            self.changed_instance(&service);
        }
    }

    /// Updates the catalogue with a service.
    fn sync(&mut self, id: &str) {
        self.synced.insert(id.to_lowercase(), id.to_owned());
    }

    fn changed_instance(&mut self, id: &str) {
        if self.services.contains_key(id) {
            self.sync(id);
        }
        if let Some(name) = self.services.get(id).map(|service| service.name.clone()) {
            self.changed(&name);
        }
    }

    fn changed(&mut self, name: &str) {
        // No index is the one that stands for nothing known.
        self.index = self.index.max(1) + 1;
        self.indices.insert(name.to_lowercase(), self.index);
    }

    fn listed(&self, id: &str, check: &Check) -> Value {
        let service = self.services.get(&check.service);
        json!({
            "Node": "kit", "CheckID": id, "Name": check.name, "Status": check.status, "Notes": check.notes,
            "Output": check.output, "ServiceID": check.service, "ServiceName": service.map(|service| &service.name),
            "ServiceTags": service.map(|service| &service.tags),
        })
    }
}

/// The address of the node, which instances without one have.
const NODE: &str = "127.0.0.1";

impl Service {
    fn listed(&self, id: &str) -> Value {
        json!({
            "ID": id, "Service": self.name, "Tags": self.tags, "Port": self.port, "Address": self.address,
            "EnableTagOverride": self.enable_tag_override, "Meta": {}, "Weights": { "Passing": 1, "Warning": 1 },
        })
    }
}

impl Check {
    fn new(definition: &Value, service: &str, name: &str, now: Instant) -> Result<Self, ApiRejection> {
        let invalid = |what: &str| (400, format!("Invalid check: {what}"));
        let ttl =
            text(definition, "TTL").and_then(duration).ok_or_else(|| invalid("TTL must be > 0 for TTL checks"))?;
        let status = text(definition, "Status").unwrap_or("critical");
        if !["passing", "warning", "critical"].contains(&status) {
            return Err((400, "Status for checks must 'passing', 'warning', 'critical'".to_owned()));
        }
        let reap = match text(definition, "DeregisterCriticalServiceAfter") {
            Some(reap) => Some(duration(reap).ok_or_else(|| invalid("DeregisterCriticalServiceAfter"))?),
            None => None,
        };
        Ok(Self {
            name: text(definition, "Name").unwrap_or(name).to_owned(),
            notes: text(definition, "Notes").unwrap_or_default().to_owned(),
            output: String::new(),
            status: status.to_owned(),
            service: service.to_owned(),
            ttl,
            expires: Some(now + ttl),
            reap,
            critical: (status == "critical").then_some(now),
        })
    }

    fn reaped(&self) -> Option<Instant> {
        Some(self.critical? + self.reap?)
    }
}

fn text<'a>(definition: &'a Value, key: &str) -> Option<&'a str> {
    definition[key].as_str().filter(|text| !text.is_empty())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Parses a duration as Go writes it: `90s`, `1h30m`, `300ms`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| c.is_alphabetic())?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len()));
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            _ => return None,
        };
        sum += Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        rest = tail;
    }
    Some(sum).filter(|sum| !sum.is_zero())
}
