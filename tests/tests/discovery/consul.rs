//! Specifics of Consul.

mod answers;
mod case;
mod requests;
mod secure;

use std::sync::Arc;

use ochopod_discovery::{ConsulAddress, Registry, RegistryConfig, RegistryConfigError, Scheme, TlsFiles};
use ochopod_tests::{
    Consul,
    consul::{FakeConsul, RecordedCall},
};

use crate::Server;

pub(crate) type TestServer = Consul;

pub(crate) async fn alone(_: &str) -> (Consul, Arc<dyn Registry>) {
    let server = Consul::fake().await.unwrap();
    let registry = server.registry().open().unwrap();
    (server, registry)
}

impl Server for Consul {
    async fn start() -> Self {
        Self::fake().await.unwrap()
    }

    fn registry(&self) -> RegistryConfig {
        RegistryConfig::Consul(address(&self.address()))
    }

    async fn stop(&mut self) {
        self.stop().await;
    }

    async fn restart(&mut self) {
        self.restart().await.unwrap();
    }

    fn freeze(&self) {
        self.freeze().unwrap();
    }

    fn thaw(&self) {
        self.thaw().unwrap();
    }
}

fn address(address: &str) -> ConsulAddress {
    ConsulAddress { address: address.to_owned(), scheme: Scheme::Http, token: None, tls: TlsFiles::default() }
}

fn open(address: ConsulAddress) -> Result<Arc<dyn Registry>, RegistryConfigError> {
    RegistryConfig::Consul(address).open()
}

/// Returns a fake agent, and a client of it.
async fn agent() -> (FakeConsul, Arc<dyn Registry>) {
    let agent = FakeConsul::start().await.unwrap();
    let registry = open(address(&agent.address())).unwrap();
    (agent, registry)
}

/// Returns requests in readable form: `PUT /path?query`.
fn lines(calls: &[RecordedCall]) -> Vec<String> {
    let line = |RecordedCall { method, path, query, .. }: &RecordedCall| match &**query {
        "" => format!("{method} {path}"),
        query => format!("{method} {path}?{query}"),
    };
    calls.iter().map(line).collect()
}
