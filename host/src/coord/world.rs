//! What a leader watches: its own pods and its dependencies, read whole and published whole.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

use super::{CoordError, Coordination};
use crate::cluster::{ClusterName, Dependency, Pods};

/// One dependency as it is right now: all matching clusters together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// The pods in the matching clusters' snapshots: those of their last configurations.
    pub snapshot: Pods,
    /// Whether any matching cluster that has no (or an empty) snapshot has a registered pod that is not dead.
    pub unsettled: bool,
}

/// Everything that a configuration is made from. Published only when all of it was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct World {
    /// All registered pods of the own cluster, dead ones included: one entry per identity.
    pub pods: Pods,
    /// Each dependency, by the name under which it was declared.
    pub dependencies: BTreeMap<String, Observed>,
}

/// Watches and publishes until the session is lost, which is what it returns.
///
/// One-shot watches only, placed anew at each change and re-read on each reconnection; a slow re-read is the safety net.
///
/// # Cancellation safety
/// Dropping the future takes the watches back.
pub async fn observe(
    _session: Arc<dyn Coordination>,
    _own: ClusterName,
    _dependencies: Vec<Dependency>,
    _publish: watch::Sender<Option<Arc<World>>>,
) -> CoordError {
    CoordError::SessionLost
}
