//! Conditions that must hold some time after the last fault.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::testbed::{PodSlot, Testbed};
use crate::{Pod, Result, ZkClient, zombies};

/// A pod, and its session.
type PodSession<'a> = (&'a Pod, i64);

impl Testbed {
    /// Checks that every pod is registered once under the current session, contends once, runs and is ready. One pod of
    /// each cluster leads, and its configuration matches the stored one.
    pub(super) async fn check_converged(&self) -> Result {
        let clusters: BTreeSet<&str> = self.slots.iter().map(|slot| slot.cluster).collect();
        for cluster in clusters {
            let slots = self.slots.iter().filter(|slot| slot.cluster == cluster);
            let mut members = BTreeMap::new();
            let mut leaders = 0;
            for PodSlot { pod, name, .. } in slots {
                let Some(pod) = pod else { continue };
                let info = pod.client().info().await?;
                ensure!(info["process"] == "running", "{name} is {}", info["process"]);
                ensure!(info["session"] == "connected", "{name} is {}", info["session"]);
                ensure!(pod.client().get("/readyz").await?.status == 200, "{name} is not ready");
                ensure!(zombies(pod.pid()).is_empty(), "{name} has zombies");
                leaders += usize::from(info["state"] == "leader");
                let session = self.log_checker.parser(name).and_then(|parser| parser.session);
                let key = info["key"].as_str().unwrap_or_default().to_owned();
                members.insert(key, (pod, session.with_context(|| format!("{name} never had a session"))?));
            }
            ensure!(leaders == 1, "{leaders} pods of {cluster} lead");
            self.check_registered(cluster, &members).await?;
        }
        Ok(())
    }

    async fn check_registered(&self, name: &str, members: &BTreeMap<String, PodSession<'_>>) -> Result {
        let cluster = self.env.cluster(name);
        let store = cluster.store();
        let (mut pods, mut locks) = (BTreeMap::new(), BTreeSet::new());
        for name in cluster.registered().await? {
            let path = cluster.path(&format!("pods/{name}"));
            let key = name.rsplit_once('.').map(|(key, _)| key.to_owned()).unwrap_or_default();
            owned(store, &path, &key, members).await?;
            ensure!(pods.insert(key, store.json(&path).await?).is_none(), "{name} is registered twice");
        }
        ensure!(pods.len() == members.len(), "registered pods are {:?}, expected {:?}", pods.keys(), members.keys());
        for name in cluster.contenders().await? {
            let path = cluster.path(&format!("coordinator/{name}"));
            let key = store.text(&path).await?;
            owned(store, &path, &key, members).await?;
            ensure!(locks.insert(key), "{name} is the second lock node of a pod");
        }
        ensure!(locks.len() == members.len(), "{} pods contend, expected {}", locks.len(), members.len());
        let hash = cluster.hash().await?;
        ensure!(!hash.is_empty() && !hash.starts_with("pending:"), "the hash of {name} is {hash:?}");
        let (snapshot, view) = (cluster.snapshot().await?, store.json(&cluster.path("view")).await?);
        let registered: Value = pods.into_iter().collect();
        ensure!(view["pods"] == registered, "configured pods of {name} are {}, expected {registered}", view["pods"]);
        ensure!(Value::Object(snapshot) == registered, "the snapshot of {name} differs");
        for (dependency, seen) in view["dependencies"].as_object().into_iter().flatten() {
            let snapshot = self.env.cluster(dependency).snapshot().await?;
            ensure!(*seen == Value::Object(snapshot), "{name} was configured with another {dependency}");
        }
        Ok(())
    }
}

/// Checks that a node belongs to the current session of its pod.
async fn owned(store: &ZkClient, path: &str, key: &str, members: &BTreeMap<String, PodSession<'_>>) -> Result {
    let (pod, session) = members.get(key).with_context(|| format!("{path} belongs to no current pod"))?;
    let owner = store.owner(path).await?;
    ensure!(owner == *session, "{path} of {} belongs to {owner}, expected {session}", pod.address());
    Ok(())
}
