//! Failover between the servers of one cluster.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::Instant;
use tracing::debug;

use crate::RegistryError;

/// Timeout of a request, for all servers together.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Servers of one cluster. The one that responded last is preferred.
pub(super) struct ServerPool<S> {
    servers: Vec<S>,
    current: AtomicUsize,
}

impl<S> ServerPool<S> {
    pub(super) fn new(servers: Vec<S>) -> Self {
        Self { servers, current: AtomicUsize::new(0) }
    }

    /// Returns the server that responded last.
    pub(super) fn current(&self) -> Option<&S> {
        self.servers.get(self.current.load(Ordering::Relaxed))
    }

    /// Sends a request to one server after the other until one responds. Each has an equal share of the time left. The
    /// request may be carried out more than once.
    pub(super) async fn request<'a, T, F>(&'a self, send: impl Fn(&'a S, Duration) -> F) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let first = self.current.load(Ordering::Relaxed);
        let order = (first..self.servers.len()).chain(0..first);
        let mut failure = RegistryError::Rejected("no etcd server configured".to_owned());
        for (left, position) in (1..=self.servers.len()).rev().zip(order) {
            let Some(server) = self.servers.get(position) else { continue };
            let share = deadline.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
            match send(server, share).await {
                Err(error @ RegistryError::Unavailable(_)) => {
                    debug!(%error, others = left - 1, "etcd server unavailable");
                    failure = error;
                }
                answer => {
                    self.current.store(position, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(failure)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time;

    use super::*;

    fn away() -> RegistryError {
        RegistryError::Unavailable("away".to_owned())
    }

    #[tokio::test]
    async fn server_that_responded_last_is_preferred_and_rejections_are_responses() {
        let servers = ServerPool::new(vec![0, 1, 2]);
        let requested = Mutex::new(Vec::new());
        let request = async |answers: [Result<(), RegistryError>; 3]| {
            let answer = servers.request(|server: &usize, _| {
                requested.lock().unwrap().push(*server);
                std::future::ready(answers[*server].clone())
            });
            (answer.await, std::mem::take(&mut *requested.lock().unwrap()))
        };
        let refused = RegistryError::Rejected("no".to_owned());
        assert_eq!(request([Err(away()), Ok(()), Ok(())]).await, (Ok(()), vec![0, 1]));
        assert_eq!(request([Ok(()), Ok(()), Ok(())]).await, (Ok(()), vec![1]));
        assert_eq!(request([Ok(()), Err(away()), Err(refused.clone())]).await, (Err(refused), vec![1, 2]));
        assert_eq!(request([Ok(()), Ok(()), Err(away())]).await, (Ok(()), vec![2, 0]));
        assert_eq!(request([Err(away()), Err(away()), Err(away())]).await, (Err(away()), vec![0, 1, 2]));
    }

    #[tokio::test(start_paused = true)]
    async fn silent_servers_share_the_timeout() {
        let servers = ServerPool::new(vec![(); 3]);
        let begin = Instant::now();
        let answer = servers.request(|(), limit| async move {
            time::sleep(limit).await;
            Err::<(), _>(away())
        });
        assert_eq!(answer.await, Err(away()));
        let took = begin.elapsed();
        assert!(took >= REQUEST_TIMEOUT && took < REQUEST_TIMEOUT + Duration::from_millis(10), "{took:?}");
    }
}
