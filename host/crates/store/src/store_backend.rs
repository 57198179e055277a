//! Choice of the store that pods coordinate through.

use std::{sync::Arc, time::Duration};

use super::{EmbeddedStore, ZooKeeperAddress, znodes::NodeStore, zookeeper::ZooKeeperStore};

/// The store that pods coordinate through. Clones refer to the same store.
#[derive(Debug, Clone)]
pub struct StoreBackend(Arc<dyn NodeStore>);

impl StoreBackend {
    /// Uses a ZooKeeper ensemble and requests this session timeout.
    #[must_use]
    pub fn zookeeper(address: ZooKeeperAddress, timeout: Duration) -> Self {
        Self::from_nodes(ZooKeeperStore { address, timeout })
    }

    /// Uses a store inside this process.
    #[must_use]
    pub fn embedded(store: EmbeddedStore) -> Self {
        Self::from_nodes(store)
    }

    /// Uses another store of nodes, such as the simulated one.
    #[must_use]
    pub fn from_nodes(store: impl NodeStore + 'static) -> Self {
        Self(Arc::new(store))
    }

    /// Returns the session timeout to request; a server may grant another.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.0.timeout()
    }

    /// Returns host and port of each server, if the store has any.
    #[must_use]
    pub fn servers(&self) -> &[(String, u16)] {
        self.0.servers()
    }

    /// Returns the layer of nodes.
    #[must_use]
    pub fn nodes(&self) -> &dyn NodeStore {
        &*self.0
    }
}
