//! Which leadership a pod obeys.

use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};

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

/// What was found when the lock was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// The leadership that held it.
    pub epoch: i64,
    /// The session under which the pod was registered when it read that.
    session: i64,
    /// Until when that session cannot have expired.
    until: Instant,
}

/// The leadership that this pod last found to hold the lock.
///
/// Once a request of one leadership was admitted, none of an earlier one is: an epoch that is not the admitted one has
/// to be read from the store as the present holder's, and the holder's lock is younger than any before it.
///
/// The next leader's pre-check reaches all pods that are registered. One that is not may obey the leader before only by
/// what it knows from earlier, so what it knows counts only while the pod is certain to be registered: under the session
/// that read the lock, and no longer after that read than a session lasts without a word.
#[derive(Debug)]
pub struct Fence {
    member: Member,
    /// Reads come one after the other: what is known never goes back to what an earlier read found.
    reading: Mutex<()>,
    last: watch::Sender<Option<Admission>>,
}

impl Fence {
    /// A fence that reads the lock through this member.
    #[must_use]
    pub fn new(member: Member) -> Self {
        Self { member, reading: Mutex::new(()), last: watch::Sender::new(None) }
    }

    /// Admits a request of this leadership if it is the present lock holder's. An epoch that is not known to be costs one
    /// read.
    ///
    /// # Errors
    /// When it is another's, or when that cannot be found out now.
    pub async fn admit(&self, epoch: i64) -> Result<(), FenceError> {
        if self.admitted() == Some(epoch) {
            return Ok(());
        }
        let _reading = self.reading.lock().await;
        if self.admitted() == Some(epoch) {
            return Ok(());
        }
        let session = self.member.registered().await.map_err(FenceError::Unknown)?;
        let until = Instant::now() + session.timeout();
        if self.member.holder().await.map_err(FenceError::Unknown)? != Some(epoch) {
            return Err(FenceError::Superseded(epoch));
        }
        self.last.send_replace(Some(Admission { epoch, session: session.id(), until }));
        Ok(())
    }

    /// The leadership admitted last, unless that has to be found out anew: to be compared again when a command begins.
    #[must_use]
    pub fn admitted(&self) -> Option<i64> {
        let last = (*self.last.borrow())?;
        let certain = self.member.is_under(last.session) && Instant::now() < last.until;
        certain.then_some(last.epoch)
    }

    /// What was found last, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Admission>> {
        self.last.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Map;
    use tokio::{task::JoinHandle, time};

    use super::*;
    use crate::{
        cluster::{ClusterName, PodId},
        coord::{Embedded, Ensemble, Membership},
    };

    const SESSION: Duration = Duration::from_secs(5);

    /// A leader, a pod that it may command, and the next in line.
    struct Line {
        leader: Member,
        pod: Member,
        next: Member,
        fence: Fence,
        _actors: Vec<JoinHandle<()>>,
    }

    impl Line {
        async fn new() -> Self {
            let store = Embedded::new(SESSION);
            let mut actors = Vec::new();
            let mut members = Vec::new();
            for id in ["leader", "next", "pod"] {
                let ensemble = Ensemble::Embedded(store.clone());
                let (member, actor) = Member::start(ensemble, &ClusterName::default(), PodId::from(id), Map::new());
                actors.push(tokio::spawn(actor));
                until(&member, |m| m.registered.is_some()).await;
                // Its lock node comes after its registration.
                time::sleep(Duration::from_millis(1)).await;
                members.push(member);
            }
            let [leader, next, pod] = members.try_into().unwrap();
            let fence = Fence::new(pod.clone());
            Self { leader, pod, next, fence, _actors: actors }
        }

        /// The leader gives up and the next in line leads: both epochs.
        async fn hand_over(&self) -> (i64, i64) {
            let first = epoch(&self.leader).await;
            self.leader.resign(first).await;
            (first, epoch(&self.next).await)
        }
    }

    async fn until(member: &Member, condition: impl FnMut(&Membership) -> bool) -> Membership {
        let mut watch = member.watch();
        time::timeout(Duration::from_mins(1), watch.wait_for(condition)).await.unwrap().unwrap().clone()
    }

    async fn epoch(member: &Member) -> i64 {
        until(member, |m| m.leadership.is_some()).await.leadership.unwrap().epoch
    }

    #[tokio::test(start_paused = true)]
    async fn the_holder_alone_is_admitted_and_none_before_one_that_was() {
        let line = Line::new().await;
        let first = epoch(&line.leader).await;
        assert_eq!(line.fence.admit(first - 1).await, Err(FenceError::Superseded(first - 1)));
        assert_eq!(line.fence.admitted(), None);
        line.fence.admit(first).await.unwrap();
        assert_eq!(line.fence.admitted(), Some(first));
        let (_, second) = line.hand_over().await;
        line.fence.admit(second).await.unwrap();
        assert_eq!(line.fence.admit(first).await, Err(FenceError::Superseded(first)));
        assert_eq!(line.fence.admitted(), Some(second));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_admitted_does_not_outlast_the_time_that_the_session_is_certain_to_last() {
        let line = Line::new().await;
        line.fence.admit(epoch(&line.leader).await).await.unwrap();
        let (first, _) = line.hand_over().await;
        time::advance(SESSION.mul_f64(0.8)).await;
        assert_eq!(line.fence.admitted(), Some(first), "the next leader has to check with this pod first");
        time::advance(SESSION.mul_f64(0.2)).await;
        assert_eq!(line.fence.admitted(), None);
        assert_eq!(line.fence.admit(first).await, Err(FenceError::Superseded(first)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_admitted_under_one_session_says_nothing_under_the_next() {
        let line = Line::new().await;
        line.fence.admit(epoch(&line.leader).await).await.unwrap();
        let before = line.pod.watch().borrow().session;
        line.pod.reset().await;
        let (first, second) = line.hand_over().await;
        assert_eq!(line.fence.admit(first).await, Err(FenceError::Superseded(first)));
        until(&line.pod, |m| m.session != before && m.registered.is_some()).await;
        assert_eq!(line.fence.admit(first).await, Err(FenceError::Superseded(first)));
        line.fence.admit(second).await.unwrap();
    }
}
