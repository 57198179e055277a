//! The embedded store as a registry.

use std::{
    future::{Ready, ready},
    sync::Arc,
};

use ochopod_discovery::{Registry, ZooKeeper};
use ochopod_store::{EmbeddedStore, StoreBackend};

use crate::DEFAULT_TIMEOUT;

pub(crate) fn alone(_: &str) -> Ready<((), Arc<dyn Registry>)> {
    ready(((), Arc::new(ZooKeeper::new(StoreBackend::embedded(EmbeddedStore::new(DEFAULT_TIMEOUT))))))
}
