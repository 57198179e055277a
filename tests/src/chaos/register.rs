//! What ZooKeeper has of the pods, looked at all the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinSet};

use super::ledger::Ledger;
use crate::Store;

const PAUSE: Duration = Duration::from_millis(200);

/// A registration: cluster, identity, number.
type Seen = (&'static str, String, u64);

/// An observer with a session of its own, which may have to wait for ZooKeeper: looks come when they come.
#[derive(Debug)]
pub(super) struct Register {
    looks: mpsc::UnboundedReceiver<Seen>,
    numbers: BTreeMap<(&'static str, String), u64>,
    given: BTreeSet<(&'static str, u64)>,
    _observer: JoinSet<()>,
}

impl Register {
    /// Observes these clusters.
    pub(super) fn new(store: Store, clusters: Vec<(&'static str, String)>) -> Self {
        let (tell, looks) = mpsc::unbounded_channel();
        let mut observer = JoinSet::new();
        observer.spawn(async move {
            loop {
                for (cluster, pods) in &clusters {
                    // While ZooKeeper is away there is nothing to see.
                    for name in store.children(pods).await.unwrap_or_default() {
                        let payload = store.json(&format!("{pods}/{name}")).await.unwrap_or_default();
                        if let (Some((key, _)), Some(seq)) = (name.rsplit_once('.'), payload["seq"].as_u64())
                            && tell.send((*cluster, key.to_owned(), seq)).is_err()
                        {
                            return;
                        }
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { looks, numbers: BTreeMap::new(), given: BTreeSet::new(), _observer: observer }
    }

    /// Takes in what was seen since.
    pub(super) fn read(&mut self, ledger: &mut Ledger) {
        while let Ok((cluster, key, seq)) = self.looks.try_recv() {
            let pod = (cluster, key);
            let (known, kept) = match self.numbers.get(&pod) {
                Some(number) => (Some(*number), *number == seq),
                None => (None, self.given.insert((cluster, seq))),
            };
            ledger.holds("seq is unique and never changes", kept, || {
                format!("{} of {cluster} has {seq}, which it had as {known:?}", pod.1)
            });
            self.numbers.entry(pod).or_insert(seq);
        }
    }
}
