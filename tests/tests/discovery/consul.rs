//! What is special to Consul.

mod answers;
mod requests;
mod secure;

use std::sync::Arc;

use ochopod::discovery::{ConsulAddress, Discovery, OpenError, Place, Scheme, TlsFiles};
use ochopod_tests::{
    Consul,
    consul::{Asked, StandIn},
};

use crate::Server;

pub(crate) type Own = Consul;

pub(crate) async fn alone(_: &str) -> (Consul, Arc<dyn Discovery>) {
    let server = Consul::start().await.unwrap();
    let place = server.place().open().unwrap();
    (server, place)
}

impl Server for Consul {
    async fn start() -> Self {
        Self::start().await.unwrap()
    }

    fn place(&self) -> Place {
        Place::Consul(address(&self.address()))
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

fn open(address: ConsulAddress) -> Result<Arc<dyn Discovery>, OpenError> {
    Place::Consul(address).open()
}

/// A stand-in, and a client of it.
async fn agent() -> (StandIn, Arc<dyn Discovery>) {
    let agent = StandIn::start().await.unwrap();
    let place = open(address(&agent.address())).unwrap();
    (agent, place)
}

/// Requests as they are read by people: `PUT /path?query`.
fn lines(asked: &[Asked]) -> Vec<String> {
    let line = |Asked { method, path, query, .. }: &Asked| match &**query {
        "" => format!("{method} {path}"),
        query => format!("{method} {path}?{query}"),
    };
    asked.iter().map(line).collect()
}
