//! One test's corner of the machine, and what its pilots are told.

use std::path::Path;

use anyhow::{Context, ensure};
use bytes::Bytes;
use hyper::Method;
use ochopod_tests::{Client, PilotBuilder, Result, SOON, consul::StandIn, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

/// An agent that knows nothing yet, and a scratch directory.
pub(crate) struct Corner {
    pub(crate) consul: StandIn,
    scratch: TempDir,
}

impl Corner {
    pub(crate) async fn new() -> Result<Self> {
        let scratch = tempfile::Builder::new().prefix("ochopod-pilot-").tempdir()?;
        Ok(Self { consul: StandIn::start().await?, scratch })
    }

    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// A configuration with the agent as its place.
    pub(crate) fn with_place(&self, configuration: Value) -> Value {
        with(json!({ "consul": self.consul.address() }), configuration)
    }

    /// A pilot with a configuration, to which the agent is added.
    pub(crate) fn pilot(&self, configuration: Value) -> PilotBuilder {
        self.pilot_in("pilot", configuration)
    }

    /// The same in a directory of another name.
    pub(crate) fn pilot_in(&self, directory: &str, configuration: Value) -> PilotBuilder {
        PilotBuilder::new(&self.scratch().join(directory)).configured(&self.with_place(configuration))
    }

    /// How the only check of the services of this name stands, or `absent`.
    pub(crate) fn status(&self, service: &str) -> String {
        let checks = self.consul.checks();
        let mut checks = checks.as_object().into_iter().flatten().map(|(_, check)| check);
        let check = checks.find(|check| check["ServiceName"] == service);
        check.and_then(|check| check["Status"].as_str()).unwrap_or("absent").to_owned()
    }

    /// Waits until the check of a service stands so.
    pub(crate) async fn becomes(&self, service: &str, status: &str) -> Result {
        eventually(&format!("{service} is {status}"), SOON, async || self.is(service, status)).await
    }

    pub(crate) fn is(&self, service: &str, status: &str) -> Result {
        let now = self.status(service);
        ensure!(now == status, "{service} is {now}");
        Ok(())
    }

    /// What the agent knows of the only instance of a service.
    pub(crate) fn registered(&self, service: &str) -> Result<Value> {
        let services = self.consul.services();
        let mut services = services.as_object().into_iter().flatten().map(|(_, known)| known);
        services
            .find(|known| known["Service"] == service)
            .cloned()
            .with_context(|| format!("no {service} in {services:?}"))
    }

    /// The requests so far that had a text in their path, by their position among all.
    pub(crate) fn asked(&self, path: &str) -> Vec<usize> {
        let asked = self.consul.asked();
        asked.iter().enumerate().filter(|(_, asked)| asked.path.contains(path)).map(|(place, _)| place).collect()
    }

    /// Tells the agent of an instance as anybody else would, passing: what `instance` says, besides the usual.
    pub(crate) async fn add(&self, id: &str, name: &str, instance: Value) -> Result {
        let usual = json!({ "ID": id, "Name": name, "Address": "127.0.0.1", "Port": 1000 });
        let check = json!({ "CheckID": id, "TTL": "1h", "Status": "passing" });
        let instance = with(with(usual, json!({ "Check": check })), instance);
        self.put("/v1/agent/service/register", instance.to_string()).await
    }

    /// Tells the agent how an instance does: `pass`, `warn` or `fail`.
    pub(crate) async fn tell(&self, id: &str, how: &str) -> Result {
        self.put(&format!("/v1/agent/check/{how}/{id}"), String::new()).await
    }

    /// Tells the agent that an instance is gone.
    pub(crate) async fn remove(&self, id: &str) -> Result {
        self.put(&format!("/v1/agent/service/deregister/{id}"), String::new()).await
    }

    async fn put(&self, path: &str, body: String) -> Result {
        Client::new(self.consul.address()).send(Method::PUT, path, &[], Bytes::from(body)).await?.is(200)
    }
}

/// An object with what another has besides, or instead.
pub(crate) fn with(mut object: Value, other: Value) -> Value {
    if let (Value::Object(object), Value::Object(other)) = (&mut object, other) {
        object.extend(other);
    }
    object
}

/// A service on the loopback interface that is polled every second: what `more` says, besides the usual.
pub(crate) fn service(name: &str, more: Value) -> Value {
    with(json!({ "name": name, "port": 8080, "interfaces": "lo", "poll": 1, "ttl": 10 }), more)
}

/// A backend that is polled every second.
pub(crate) fn backend(name: &str, on_change: &str) -> Value {
    json!({ "name": name, "poll": 1, "onChange": sh(on_change) })
}

/// A command: text for the shell.
pub(crate) fn sh(text: &str) -> Value {
    json!(["sh", "-c", text])
}
