//! Leadership that a pod accepts.

use std::convert::Infallible;

use ochopod_model::{View, reply::LeaderAddress};
use ochopod_store::{CoordError, LockHolder, LockReading, MembershipHandle};
use tokio::sync::{Mutex, watch};

/// Rejection of a request of a leadership.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// It is not, or no longer, the lock holder's: 409.
    #[error("stale epoch {0}: not the current lock holder's")]
    Superseded(i64),
    /// The lock holder cannot be determined now: 503.
    #[error("cannot determine the lock holder")]
    Unknown(#[source] CoordError),
}

/// Result of the last read of the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedEpoch {
    /// Its epoch.
    pub epoch: i64,
    reading: LockReading,
}

/// Admits requests of the leadership that holds the lock, as last read by this pod.
///
/// Once a request of one leadership was admitted, none of an earlier one is: an epoch that is not the admitted one has
/// to be read from the store as the current holder's, and the holder's lock is younger than any before it.
///
/// The next leader's pre-check reaches all registered pods. A pod that is not registered may accept the previous leader only
/// because of what it read earlier, so that counts only while the pod is certain to be registered: see
/// [`MembershipHandle::is_current`].
#[derive(Debug)]
pub struct Fence {
    member: MembershipHandle,
    /// Serializes reads: a result never replaces that of a later read.
    reading: Mutex<()>,
    last: watch::Sender<Option<AdmittedEpoch>>,
    leader: watch::Sender<Option<KnownLeader>>,
}

/// A leader whose address is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLeader {
    holder: LockHolder,
    /// Its address.
    pub address: LeaderAddress,
}

impl Fence {
    /// Returns a fence that reads the lock through this member.
    #[must_use]
    pub fn new(member: MembershipHandle) -> Self {
        Self { member, reading: Mutex::new(()), last: watch::Sender::new(None), leader: watch::Sender::new(None) }
    }

    /// Admits a request of this leadership if it is the current lock holder's. An epoch that is not known costs one read.
    ///
    /// # Errors
    /// If it is another's, or when that cannot be determined now.
    pub async fn admit(&self, epoch: i64) -> Result<(), FenceError> {
        if self.admitted() == Some(epoch) {
            return Ok(());
        }
        let _reading = self.reading.lock().await;
        if self.admitted() == Some(epoch) {
            return Ok(());
        }
        let earlier = self.last.borrow().as_ref().filter(|last| last.epoch == epoch).map(|last| last.reading.clone());
        let reading = self.member.read_lock(earlier.as_ref()).await.map_err(FenceError::Unknown)?;
        if reading.holder.as_ref().is_none_or(|holder| holder.epoch != epoch) {
            return Err(FenceError::Superseded(epoch));
        }
        self.last.send_replace(Some(AdmittedEpoch { epoch, reading }));
        Ok(())
    }

    /// Returns the leadership admitted last, unless the lock has to be read again: to be compared when a request starts.
    #[must_use]
    pub fn admitted(&self) -> Option<i64> {
        let last = self.last.borrow();
        last.as_ref().filter(|last| self.member.is_current(&last.reading)).map(|last| last.epoch)
    }

    /// Reads the address of the admitted leader from a view that it has sent.
    pub fn locate_leader(&self, view: &View) {
        let Some(holder) = self.last.borrow().as_ref().and_then(|last| last.reading.holder.clone()) else { return };
        let Some(pod) = holder.pod.as_ref().and_then(|pod| view.pods.get(pod)) else { return };
        let (Ok(address), seq) = (pod.control_address(), pod.seq()) else { return };
        let leader = Some(KnownLeader { holder, address: LeaderAddress { address, seq } });
        self.leader.send_if_modified(|known| std::mem::replace(known, leader.clone()) != leader);
    }

    /// Forgets each leader when it no longer holds the lock, or this pod has lost its session. It watches one node.
    pub async fn follow_leader(&self) -> Infallible {
        let mut leader = self.leader.subscribe();
        loop {
            let known = leader.wait_for(Option::is_some).await.ok().and_then(|known| known.clone());
            let Some(known) = known else { return std::future::pending().await };
            self.member.until_released(&known.holder).await;
            self.leader.send_if_modified(|now| now.take_if(|now| now.holder == known.holder).is_some());
        }
    }

    /// Watches the leader of this cluster, if its address is known: it has sent a view, and holds the lock.
    #[must_use]
    pub fn leader(&self) -> watch::Receiver<Option<KnownLeader>> {
        self.leader.subscribe()
    }

    /// Watches the result of the last read.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<AdmittedEpoch>> {
        self.last.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use ochopod_model::{ClusterName, PodId, Registration};
    use ochopod_store::{EmbeddedStore, Membership, StoreBackend};
    use serde_json::Map;
    use tokio::{task::JoinHandle, time};

    use super::*;

    const SESSION: Duration = Duration::from_secs(5);

    /// A leader, a pod, and the next leader.
    struct Contenders {
        leader: MembershipHandle,
        pod: MembershipHandle,
        next: MembershipHandle,
        fence: Fence,
        _actors: Vec<JoinHandle<()>>,
    }

    impl Contenders {
        async fn new() -> Self {
            let store = EmbeddedStore::new(SESSION);
            let mut actors = Vec::new();
            let mut members = Vec::new();
            for id in ["leader", "next", "pod"] {
                let backend = StoreBackend::embedded(store.clone());
                let (member, actor) =
                    MembershipHandle::start(backend, &ClusterName::default(), PodId::from(id), Map::new());
                actors.push(tokio::spawn(actor));
                until(&member, |m| m.registered.is_some()).await;
                // The lock node is created after the registration.
                time::sleep(Duration::from_millis(1)).await;
                members.push(member);
            }
            let [leader, next, pod] = members.try_into().unwrap();
            let fence = Fence::new(pod.clone());
            Self { leader, pod, next, fence, _actors: actors }
        }

        /// Makes the leader resign, so that the next pod leads. Returns both epochs.
        async fn hand_over(&self) -> (i64, i64) {
            let first = epoch(&self.leader).await;
            self.leader.resign(first).await;
            (first, epoch(&self.next).await)
        }
    }

    async fn until(member: &MembershipHandle, condition: impl FnMut(&Membership) -> bool) -> Membership {
        let mut watch = member.watch();
        time::timeout(Duration::from_mins(1), watch.wait_for(condition)).await.unwrap().unwrap().clone()
    }

    async fn epoch(member: &MembershipHandle) -> i64 {
        until(member, |m| m.leadership.is_some()).await.leadership.unwrap().epoch
    }

    #[tokio::test(start_paused = true)]
    async fn lock_holder_alone_is_admitted_and_no_earlier_one_after_it() {
        let contenders = Contenders::new().await;
        let first = epoch(&contenders.leader).await;
        assert_eq!(contenders.fence.admit(first - 1).await, Err(FenceError::Superseded(first - 1)));
        assert_eq!(contenders.fence.admitted(), None);
        contenders.fence.admit(first).await.unwrap();
        assert_eq!(contenders.fence.admitted(), Some(first));
        let (_, second) = contenders.hand_over().await;
        contenders.fence.admit(second).await.unwrap();
        assert_eq!(contenders.fence.admit(first).await, Err(FenceError::Superseded(first)));
        assert_eq!(contenders.fence.admitted(), Some(second));
    }

    #[tokio::test(start_paused = true)]
    async fn admission_ends_when_the_session_may_have_expired() {
        let contenders = Contenders::new().await;
        contenders.fence.admit(epoch(&contenders.leader).await).await.unwrap();
        let (first, _) = contenders.hand_over().await;
        time::advance(SESSION.mul_f64(0.8)).await;
        assert_eq!(contenders.fence.admitted(), Some(first), "the next leader has to check with this pod first");
        time::advance(SESSION.mul_f64(0.2)).await;
        assert_eq!(contenders.fence.admitted(), None);
        assert_eq!(contenders.fence.admit(first).await, Err(FenceError::Superseded(first)));
    }

    #[tokio::test(start_paused = true)]
    async fn admission_under_one_session_is_void_under_the_next() {
        let contenders = Contenders::new().await;
        contenders.fence.admit(epoch(&contenders.leader).await).await.unwrap();
        let before = contenders.pod.watch().borrow().session;
        contenders.pod.reset().await;
        let (first, second) = contenders.hand_over().await;
        assert_eq!(contenders.fence.admit(first).await, Err(FenceError::Superseded(first)));
        until(&contenders.pod, |m| m.session != before && m.registered.is_some()).await;
        assert_eq!(contenders.fence.admit(first).await, Err(FenceError::Superseded(first)));
        contenders.fence.admit(second).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn leader_is_known_from_its_view_until_it_releases_the_lock() {
        let contenders = Contenders::new().await;
        let (fence, first) = (&contenders.fence, epoch(&contenders.leader).await);
        let fields = |seq: u64| serde_json::json!({"ip": "10.0.0.1", "port": "8080", "seq": seq}).to_string();
        let registration = |seq| Arc::new(Registration::parse(fields(seq).as_bytes()).unwrap());
        let pods = [("leader", 0), ("next", 1)].map(|(id, seq)| (PodId::from(id), registration(seq)));
        let view = View { pods: pods.into_iter().collect(), ..View::default() };
        let seq = || fence.leader().borrow().as_ref().map(|known| known.address.seq);
        let following = async {
            fence.locate_leader(&view);
            assert_eq!(seq(), None, "no leadership was admitted");
            fence.admit(first).await.unwrap();
            fence.locate_leader(&View::default());
            assert_eq!(seq(), None, "it is in no view");
            fence.locate_leader(&view);
            assert_eq!(seq(), Some(0));
            time::sleep(10 * SESSION).await;
            assert_eq!(seq(), Some(0), "it holds the lock");
            let (_, second) = contenders.hand_over().await;
            time::sleep(Duration::from_millis(100)).await;
            assert_eq!(seq(), None, "it has released the lock");
            fence.admit(second).await.unwrap();
            fence.locate_leader(&view);
            assert_eq!(seq(), Some(1));
        };
        tokio::select! {
            never = fence.follow_leader() => match never {},
            () = following => {}
        }
    }
}
