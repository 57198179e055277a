//! Which store pods coordinate through.

use std::{sync::Arc, time::Duration};

use super::{CoordError, Coordination, Embedded, ZooKeeperAddress, zookeeper};

/// The store that pods coordinate through.
#[derive(Debug, Clone)]
pub enum Ensemble {
    /// A ZooKeeper ensemble.
    ZooKeeper {
        /// Where it is.
        address: ZooKeeperAddress,
        /// The session timeout to ask for.
        timeout: Duration,
    },
    /// A store inside this process.
    Embedded(Embedded),
}

impl Ensemble {
    /// The session timeout asked for; a server may grant another.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        match self {
            Self::ZooKeeper { timeout, .. } => *timeout,
            Self::Embedded(embedded) => embedded.timeout(),
        }
    }

    /// Opens a session.
    ///
    /// # Errors
    /// [`CoordError::Unavailable`] when no server answers (at once, or within the session timeout) or no name resolves:
    /// try again later. [`CoordError::AuthFailed`] when the credentials are refused, [`CoordError::Denied`] when the chroot
    /// is missing and may not be created.
    ///
    /// # Cancellation safety
    /// Dropping the future leaves nothing behind but, at worst, a session without nodes that expires.
    pub async fn connect(&self) -> Result<Arc<dyn Coordination>, CoordError> {
        match self {
            Self::ZooKeeper { address, timeout } => zookeeper::connect(address, *timeout).await,
            Self::Embedded(embedded) => Ok(embedded.connect()),
        }
    }
}
