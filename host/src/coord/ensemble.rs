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
    /// That of the simulation, as one host reaches it.
    #[cfg(test)]
    #[allow(private_interfaces, reason = "only tests build it")]
    Simulated(crate::simulation::Line),
}

impl Ensemble {
    /// The session timeout asked for; a server may grant another.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        match self {
            Self::ZooKeeper { timeout, .. } => *timeout,
            Self::Embedded(embedded) => embedded.timeout(),
            #[cfg(test)]
            Self::Simulated(access) => access.timeout(),
        }
    }

    /// Where its servers listen, as far as it has any.
    #[must_use]
    pub fn servers(&self) -> &[(String, u16)] {
        match self {
            Self::ZooKeeper { address, .. } => address.servers(),
            Self::Embedded(_) => &[],
            #[cfg(test)]
            Self::Simulated(_) => &[],
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
            #[cfg(test)]
            Self::Simulated(access) => access.connect().await,
        }
    }
}
