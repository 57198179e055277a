//! Environment of one test, and configurations of its pilots.

use std::path::Path;

use anyhow::{Context, ensure};
use bytes::Bytes;
use hyper::Method;
use ochopod_tests::{Client, DEFAULT_TIMEOUT, PilotBuilder, Result, consul::FakeConsul, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

/// An agent without services, and a scratch directory.
pub(crate) struct PilotEnv {
    pub(crate) consul: FakeConsul,
    scratch: TempDir,
}

impl PilotEnv {
    pub(crate) async fn new() -> Result<Self> {
        let scratch = tempfile::Builder::new().prefix("ochopod-pilot-").tempdir()?;
        Ok(Self { consul: FakeConsul::start().await?, scratch })
    }

    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Returns a configuration with the agent as its registry.
    pub(crate) fn with_registry(&self, configuration: Value) -> Value {
        with(json!({ "consul": self.consul.address() }), configuration)
    }

    /// Returns a pilot with a configuration, to which the agent is added.
    pub(crate) fn pilot(&self, configuration: Value) -> PilotBuilder {
        self.pilot_in("pilot", configuration)
    }

    /// Returns the same in a directory of another name.
    pub(crate) fn pilot_in(&self, directory: &str, configuration: Value) -> PilotBuilder {
        PilotBuilder::new(&self.scratch().join(directory)).configured(&self.with_registry(configuration))
    }

    /// Returns the status of the only check of the services of this name, or `absent`.
    pub(crate) fn status(&self, service: &str) -> String {
        let checks = self.consul.checks();
        let mut checks = checks.as_object().into_iter().flatten().map(|(_, check)| check);
        let check = checks.find(|check| check["ServiceName"] == service);
        check.and_then(|check| check["Status"].as_str()).unwrap_or("absent").to_owned()
    }

    /// Waits for a status of the check of a service.
    pub(crate) async fn wait_status(&self, service: &str, status: &str) -> Result {
        eventually(&format!("{service} is {status}"), DEFAULT_TIMEOUT, async || self.is(service, status)).await
    }

    pub(crate) fn is(&self, service: &str, status: &str) -> Result {
        let now = self.status(service);
        ensure!(now == status, "{service} is {now}");
        Ok(())
    }

    /// Returns the only instance of a service at the agent.
    pub(crate) fn registered(&self, service: &str) -> Result<Value> {
        let services = self.consul.services();
        let mut services = services.as_object().into_iter().flatten().map(|(_, known)| known);
        services
            .find(|known| known["Service"] == service)
            .cloned()
            .with_context(|| format!("no {service} in {services:?}"))
    }

    /// Returns the requests so far with a text in their path, by their position among all.
    pub(crate) fn calls(&self, path: &str) -> Vec<usize> {
        let calls = self.consul.calls();
        calls.iter().enumerate().filter(|(_, call)| call.path.contains(path)).map(|(place, _)| place).collect()
    }

    /// Registers an instance as another client, passing: `instance` is merged into the usual values.
    pub(crate) async fn add(&self, id: &str, name: &str, instance: Value) -> Result {
        let usual = json!({ "ID": id, "Name": name, "Address": "127.0.0.1", "Port": 1000 });
        let check = json!({ "CheckID": id, "TTL": "1h", "Status": "passing" });
        let instance = with(with(usual, json!({ "Check": check })), instance);
        self.put("/v1/agent/service/register", instance.to_string()).await
    }

    /// Reports the status of an instance to the agent: `pass`, `warn` or `fail`.
    pub(crate) async fn set_check(&self, id: &str, how: &str) -> Result {
        self.put(&format!("/v1/agent/check/{how}/{id}"), String::new()).await
    }

    /// Deregisters an instance at the agent.
    pub(crate) async fn remove(&self, id: &str) -> Result {
        self.put(&format!("/v1/agent/service/deregister/{id}"), String::new()).await
    }

    async fn put(&self, path: &str, body: String) -> Result {
        Client::new(self.consul.address()).send(Method::PUT, path, &[], Bytes::from(body)).await?.is(200)
    }
}

/// Merges the second object into the first.
pub(crate) fn with(mut object: Value, other: Value) -> Value {
    if let (Value::Object(object), Value::Object(other)) = (&mut object, other) {
        object.extend(other);
    }
    object
}

/// Returns a service on the loopback interface that is polled every second; `more` is merged into the usual values.
pub(crate) fn service(name: &str, more: Value) -> Value {
    with(json!({ "name": name, "port": 8080, "interfaces": "lo", "poll": 1, "ttl": 10 }), more)
}

/// Returns a backend that is polled every second, and whose `onChange` has time on a busy machine.
pub(crate) fn backend(name: &str, on_change: &str) -> Value {
    json!({ "name": name, "poll": 1, "onChange": sh(on_change), "timeout": "10s" })
}

/// Returns a command: text for the shell.
pub(crate) fn sh(text: &str) -> Value {
    json!(["sh", "-c", text])
}
