//! Continues a session over one connection after the other.

use std::{sync::Arc, time::Duration};

use ochopod_timing::Backoff;
use tokio::time;
use tracing::debug;
use zookeeper_client::SessionInfo;

use super::{
    CoordError, SessionShared, ZooKeeperAddress,
    connection::{self, Connection, ConnectionEnd},
};

/// Bounds of the delays between attempts to continue the session: the longest delay until a recovered store is noticed.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

pub(super) struct Reconnector {
    pub(super) address: ZooKeeperAddress,
    /// Timeout that the store granted.
    pub(super) timeout: Duration,
    pub(super) session: SessionInfo,
    pub(super) shared: Arc<SessionShared>,
}

impl Reconnector {
    /// Runs until the session has ended, or the store was unreachable for so long that it must have. The session is lost when
    /// this returns or is dropped.
    pub(super) async fn run(self, connection: Connection) {
        let mut held = Some(connection);
        while let Some(mut connection) = held.take() {
            let end = tokio::select! {
                end = connection.ended() => end,
                // The store does not confirm a close: nothing must keep that session alive.
                () = self.shared.lost() => ConnectionEnd::Over,
            };
            match end {
                ConnectionEnd::Over => break,
                ConnectionEnd::Cut => {
                    // Calls and watches must be suspended before the client's task ends. The task must end before the last
                    // client is dropped, or it would close the session.
                    let client = self.shared.suspend();
                    drop(connection);
                    drop(client);
                    held = self.resume().await;
                }
            }
        }
    }

    /// Retries until the session continues; none if it does not.
    async fn resume(&self) -> Option<Connection> {
        let mut backoff = Backoff::new(RETRY_DELAY.0, RETRY_DELAY.1);
        let attempts = async {
            loop {
                match connection::connect_any(&self.address, self.timeout, Some(&self.session)).await {
                    Ok((client, connection)) => {
                        self.shared.resume(client);
                        return Some(connection);
                    }
                    Err(error) if error.is_auth_error() || error == CoordError::SessionLost => return None,
                    Err(error) => debug!(%error, "cannot resume session, retrying"),
                }
                time::sleep(backoff.delay()).await;
            }
        };
        // Longer than the timeout: a store that restarts grants every session its whole timeout again.
        time::timeout(self.timeout * 7 / 5, attempts).await.ok().flatten()
    }
}

impl Drop for Reconnector {
    fn drop(&mut self) {
        self.shared.mark_lost();
    }
}
