//! Which leadership a pod obeys.

use tokio::sync::watch;

use crate::coord::{CoordError, Member};

/// Why a request of a leadership is not obeyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// It is not, or no more, the lock holder's: 409.
    #[error("epoch {0} is not that of the present lock holder")]
    Superseded(i64),
    /// The lock holder cannot be found out now: 503.
    #[error("cannot find out who holds the lock")]
    Unknown(#[source] CoordError),
}

/// The leadership that this pod last found to hold the lock.
///
/// Once a request of one leadership was admitted, none of an earlier one is: an epoch that is not the admitted one has
/// to be read from the store as the present holder's, and the holder's lock is younger than any before it.
#[derive(Debug)]
pub struct Fence {
    member: Member,
    admitted: watch::Sender<Option<i64>>,
}

impl Fence {
    /// A fence that reads the lock through this member.
    #[must_use]
    pub fn new(member: Member) -> Self {
        Self { member, admitted: watch::Sender::new(None) }
    }

    /// Admits a request of this leadership if it is the present lock holder's. An epoch not seen before costs one read.
    ///
    /// # Errors
    /// When it is another's, or when that cannot be found out now.
    pub async fn admit(&self, epoch: i64) -> Result<(), FenceError> {
        loop {
            let admitted = self.admitted();
            if admitted == Some(epoch) {
                return Ok(());
            }
            let holder = self.member.holder().await.map_err(FenceError::Unknown)?;
            if self.admitted() != admitted {
                // Another request was admitted meanwhile, perhaps by what is younger than what was read here.
                continue;
            }
            if holder != Some(epoch) {
                return Err(FenceError::Superseded(epoch));
            }
            self.admitted.send_replace(Some(epoch));
            return Ok(());
        }
    }

    /// The leadership admitted last: to be compared again when a command begins.
    #[must_use]
    pub fn admitted(&self) -> Option<i64> {
        *self.admitted.borrow()
    }

    /// The same, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<i64>> {
        self.admitted.subscribe()
    }
}
