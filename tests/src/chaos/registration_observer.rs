//! The nodes of the pods in ZooKeeper, observed continuously.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinSet};

use super::report::ChaosReport;
use crate::ZkClient;

const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A registration: cluster, identity, number.
type Seen = (&'static str, String, u64);

/// An observer with a session of its own, which may wait for ZooKeeper: its observations are irregular.
#[derive(Debug)]
pub(super) struct RegistrationObserver {
    observations: mpsc::UnboundedReceiver<Seen>,
    numbers: BTreeMap<(&'static str, String), u64>,
    assigned: BTreeSet<(&'static str, u64)>,
    _observer: JoinSet<()>,
}

impl RegistrationObserver {
    /// Observes these clusters.
    pub(super) fn new(store: ZkClient, clusters: Vec<(&'static str, String)>) -> Self {
        let (observations_tx, observations) = mpsc::unbounded_channel();
        let mut observer = JoinSet::new();
        observer.spawn(async move {
            loop {
                for (cluster, pods) in &clusters {
                    // While ZooKeeper is away, no registration can be read.
                    for name in store.children(pods).await.unwrap_or_default() {
                        let payload = store.json(&format!("{pods}/{name}")).await.unwrap_or_default();
                        if let (Some((key, _)), Some(seq)) = (name.rsplit_once('.'), payload["seq"].as_u64())
                            && observations_tx.send((*cluster, key.to_owned(), seq)).is_err()
                        {
                            return;
                        }
                    }
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        });
        Self { observations, numbers: BTreeMap::new(), assigned: BTreeSet::new(), _observer: observer }
    }

    /// Checks the observations since the last call.
    pub(super) fn read(&mut self, report: &mut ChaosReport) {
        while let Ok((cluster, key, seq)) = self.observations.try_recv() {
            let pod = (cluster, key);
            let (known, unchanged) = match self.numbers.get(&pod) {
                Some(number) => (Some(*number), *number == seq),
                None => (None, self.assigned.insert((cluster, seq))),
            };
            report.check("seq is unique and never changes", unchanged, || {
                format!("{} of {cluster} has {seq}, which it had as {known:?}", pod.1)
            });
            self.numbers.entry(pod).or_insert(seq);
        }
    }
}
