//! A real agent, which fulfils the same contract as the fake one.

use std::sync::Arc;

use ochopod_discovery::{Registry, RegistryConfig};
use ochopod_tests::{Consul, artifacts};

use crate::Server;

/// Returns whether a real agent is available. If not, this is printed, and nothing is tested.
pub(crate) fn is_there() -> bool {
    let is_there = artifacts::consul().is_some();
    if !is_there {
        eprintln!("skipped: no Consul agent (make consul, or CONSUL_BIN)");
    }
    is_there
}

/// The agent of one test.
pub(crate) struct TestServer(Consul);

pub(crate) async fn alone(_: &str) -> (TestServer, Arc<dyn Registry>) {
    let server = TestServer::start().await;
    let registry = server.registry().open().unwrap();
    (server, registry)
}

impl Server for TestServer {
    async fn start() -> Self {
        Self(Consul::agent().await.unwrap())
    }

    fn registry(&self) -> RegistryConfig {
        self.0.registry()
    }

    async fn stop(&mut self) {
        self.0.stop().await;
    }

    async fn restart(&mut self) {
        self.0.restart().await.unwrap();
    }

    fn freeze(&self) {
        self.0.freeze().unwrap();
    }

    fn thaw(&self) {
        self.0.thaw().unwrap();
    }
}
