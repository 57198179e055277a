//! What must hold some time after the last fault.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::field::{Field, Slot};
use crate::{Pod, Result, Store, zombies};

/// A pod, and the session that it lives under.
type Member<'a> = (&'a Pod, i64);

impl Field {
    /// Everybody is registered once under the present session, contends once, runs, is ready; one of each cluster leads,
    /// and what it configured is what is there.
    pub(super) async fn is_whole(&self) -> Result {
        let clusters: BTreeSet<&str> = self.slots.iter().map(|slot| slot.cluster).collect();
        for cluster in clusters {
            let slots = self.slots.iter().filter(|slot| slot.cluster == cluster);
            let mut members = BTreeMap::new();
            let mut leaders = 0;
            for Slot { pod, name, .. } in slots {
                let Some(pod) = pod else { continue };
                let info = pod.client().info().await?;
                ensure!(info["process"] == "running", "{name} is {}", info["process"]);
                ensure!(info["session"] == "connected", "{name} is {}", info["session"]);
                ensure!(pod.client().get("/readyz").await?.status == 200, "{name} is not ready");
                ensure!(zombies(pod.pid()).is_empty(), "{name} has zombies");
                leaders += usize::from(info["state"] == "leader");
                let session = self.chronicle.diary(name).and_then(|diary| diary.session);
                let key = info["key"].as_str().unwrap_or_default().to_owned();
                members.insert(key, (pod, session.with_context(|| format!("{name} never had a session"))?));
            }
            ensure!(leaders == 1, "{leaders} pods of {cluster} say that they lead");
            self.is_registered(cluster, &members).await?;
        }
        Ok(())
    }

    async fn is_registered(&self, name: &str, members: &BTreeMap<String, Member<'_>>) -> Result {
        let cluster = self.site.cluster(name);
        let store = cluster.store();
        let (mut pods, mut locks) = (BTreeMap::new(), BTreeSet::new());
        for name in cluster.registered().await? {
            let path = cluster.path(&format!("pods/{name}"));
            let key = name.rsplit_once('.').map(|(key, _)| key.to_owned()).unwrap_or_default();
            owned(store, &path, &key, members).await?;
            ensure!(pods.insert(key, store.json(&path).await?).is_none(), "{name} is registered twice");
        }
        ensure!(pods.len() == members.len(), "registered are {:?}, not {:?}", pods.keys(), members.keys());
        for name in cluster.contenders().await? {
            let path = cluster.path(&format!("coordinator/{name}"));
            let key = store.text(&path).await?;
            owned(store, &path, &key, members).await?;
            ensure!(locks.insert(key), "{name} is the second lock node of a pod");
        }
        ensure!(locks.len() == members.len(), "{} contend, not {}", locks.len(), members.len());
        let hash = cluster.hash().await?;
        ensure!(!hash.is_empty() && !hash.starts_with("pending:"), "the hash of {name} is {hash:?}");
        let (snapshot, view) = (cluster.snapshot().await?, store.json(&cluster.path("view")).await?);
        let registered: Value = pods.into_iter().collect();
        ensure!(view["pods"] == registered, "configured in {name} are {}, not {registered}", view["pods"]);
        ensure!(Value::Object(snapshot) == registered, "the snapshot of {name} is another");
        for (dependency, seen) in view["dependencies"].as_object().into_iter().flatten() {
            let there = self.site.cluster(dependency).snapshot().await?;
            ensure!(*seen == Value::Object(there), "{name} was configured with another {dependency}");
        }
        Ok(())
    }
}

/// Checks that a node belongs to the present session of its pod.
async fn owned(store: &Store, path: &str, key: &str, members: &BTreeMap<String, Member<'_>>) -> Result {
    let (pod, session) = members.get(key).with_context(|| format!("{path} is of no pod that is there"))?;
    let owner = store.owner(path).await?;
    ensure!(owner == *session, "{path} of {} belongs to {owner}, not to {session}", pod.address());
    Ok(())
}
