//! Several servers of one cluster.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::Instant;
use tracing::debug;

use crate::discovery::DiscoveryError;

/// How long an answer may take, from all servers together.
const DEADLINE: Duration = Duration::from_secs(5);

/// The servers. One that answered goes on being asked.
pub(super) struct Servers<S> {
    servers: Vec<S>,
    current: AtomicUsize,
}

impl<S> Servers<S> {
    pub(super) fn new(servers: Vec<S>) -> Self {
        Self { servers, current: AtomicUsize::new(0) }
    }

    /// The one that answered last.
    pub(super) fn current(&self) -> Option<&S> {
        self.servers.get(self.current.load(Ordering::Relaxed))
    }

    /// Asks one server after the other until one answers. Each has an equal share of the time that is left. What is asked may
    /// have been carried out more than once then.
    pub(super) async fn ask<'a, T, F>(&'a self, question: impl Fn(&'a S, Duration) -> F) -> Result<T, DiscoveryError>
    where
        F: Future<Output = Result<T, DiscoveryError>>,
    {
        let deadline = Instant::now() + DEADLINE;
        let first = self.current.load(Ordering::Relaxed);
        let order = (first..self.servers.len()).chain(0..first);
        let mut failure = DiscoveryError::Refused("etcd has no servers".to_owned());
        for (left, position) in (1..=self.servers.len()).rev().zip(order) {
            let Some(server) = self.servers.get(position) else { continue };
            let share = deadline.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
            match question(server, share).await {
                Err(error @ DiscoveryError::Unavailable(_)) => {
                    debug!(others = left - 1, "a server of several cannot be asked: {error}");
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

    fn away() -> DiscoveryError {
        DiscoveryError::Unavailable("away".to_owned())
    }

    #[tokio::test]
    async fn the_one_that_answered_is_asked_first_and_one_that_refuses_has_answered() {
        let servers = Servers::new(vec![0, 1, 2]);
        let asked = Mutex::new(Vec::new());
        let ask = async |answers: [Result<(), DiscoveryError>; 3]| {
            let answer = servers.ask(|server: &usize, _| {
                asked.lock().unwrap().push(*server);
                std::future::ready(answers[*server].clone())
            });
            (answer.await, std::mem::take(&mut *asked.lock().unwrap()))
        };
        let refused = DiscoveryError::Refused("no".to_owned());
        assert_eq!(ask([Err(away()), Ok(()), Ok(())]).await, (Ok(()), vec![0, 1]));
        assert_eq!(ask([Ok(()), Ok(()), Ok(())]).await, (Ok(()), vec![1]));
        assert_eq!(ask([Ok(()), Err(away()), Err(refused.clone())]).await, (Err(refused), vec![1, 2]));
        assert_eq!(ask([Ok(()), Ok(()), Err(away())]).await, (Ok(()), vec![2, 0]));
        assert_eq!(ask([Err(away()), Err(away()), Err(away())]).await, (Err(away()), vec![0, 1, 2]));
    }

    #[tokio::test(start_paused = true)]
    async fn servers_that_are_mute_share_the_time() {
        let servers = Servers::new(vec![(); 3]);
        let begin = Instant::now();
        let answer = servers.ask(|(), limit| async move {
            time::sleep(limit).await;
            Err::<(), _>(away())
        });
        assert_eq!(answer.await, Err(away()));
        let took = begin.elapsed();
        assert!(took >= DEADLINE && took < DEADLINE + Duration::from_millis(10), "{took:?}");
    }
}
