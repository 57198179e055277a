//! Keeps a session over one connection after the other.

use std::{sync::Arc, time::Duration};

use tokio::time;
use tracing::debug;
use zookeeper_client::SessionInfo;

use super::{
    CoordError, Shared, ZooKeeperAddress,
    link::{self, End, Lifeline},
};
use crate::backoff::Backoff;

/// Bounds of the waits between attempts to go on with the session: how late one may notice that the store is back.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

pub(super) struct Keeper {
    pub(super) address: ZooKeeperAddress,
    /// The timeout that the store granted.
    pub(super) timeout: Duration,
    pub(super) session: SessionInfo,
    pub(super) shared: Arc<Shared>,
}

impl Keeper {
    /// Runs until the session is over, or the store was away for so long that it is taken to be.
    pub(super) async fn run(self, lifeline: Lifeline) {
        let mut held = Some(lifeline);
        while let Some(mut lifeline) = held.take() {
            let end = tokio::select! {
                end = lifeline.ended() => end,
                // A close that the store does not answer: nothing must keep that session alive.
                () = self.shared.lost() => End::Over,
            };
            match end {
                End::Over => break,
                End::Cut => {
                    // Calls and watches must know before the client's task ends under them; and it must end before the last
                    // client is dropped, or it would close the session.
                    let client = self.shared.suspend();
                    drop(lifeline);
                    drop(client);
                    held = self.resume().await;
                }
            }
        }
        self.shared.lose();
    }

    /// Tries until the session goes on; none when it does not.
    async fn resume(&self) -> Option<Lifeline> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let attempts = async {
            loop {
                match link::reach(&self.address, self.timeout, Some(&self.session)).await {
                    Ok((client, lifeline)) => {
                        self.shared.resume(client);
                        return Some(lifeline);
                    }
                    Err(error) if error.is_refusal() || error == CoordError::SessionLost => return None,
                    Err(error) => debug!("cannot go on with the session yet: {error}"),
                }
                time::sleep(backoff.delay()).await;
            }
        };
        // Longer than the timeout: a store that restarts gives every session its whole timeout once more.
        time::timeout(self.timeout * 7 / 5, attempts).await.ok().flatten()
    }
}
