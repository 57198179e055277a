//! What is special to Consul.

use ochopod::discovery::{ConsulAddress, Place, Scheme, TlsFiles};
use ochopod_tests::Consul;

use crate::Server;

impl Server for Consul {
    async fn start() -> Self {
        Self::start().await.unwrap()
    }

    fn place(&self) -> Place {
        Place::Consul(address(self.address()))
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

fn address(address: String) -> ConsulAddress {
    ConsulAddress { address, scheme: Scheme::Http, token: None, tls: TlsFiles::default() }
}
