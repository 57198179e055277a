//! The cluster as a whole: its status, and nodes whose pods are gone.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use ochopod_sdk::{Cluster, Model, ModelSettings, Result, bail, info};

use crate::{
    ctl::{self, Status},
    decision::serving,
    node::{DIRECTORY, Files, Node},
};

#[derive(Default)]
pub(crate) struct Nodes;

impl Model for Nodes {
    fn settings() -> ModelSettings {
        ModelSettings {
            damper: 1.0,
            grace: 120.0,
            probe_every: 20.0,
            sequential: true,
            tolerate: 1,
            ..ModelSettings::default()
        }
    }

    fn probe(&mut self, cluster: &Cluster) -> Result<Option<String>> {
        let (_, Status { nodes, running, is_partitioned, alarms }) = status(cluster)?;
        let text = format!("{} of {} nodes running", running.len(), nodes.len());
        if is_partitioned {
            bail!("{text}, partitioned");
        }
        if running.len() < nodes.len() {
            let down: Vec<&str> = nodes.difference(&running).map(String::as_str).collect();
            bail!("{text}, not {}", down.join(", "));
        }
        if alarms > 0 {
            bail!("{text}, {alarms} alarms: producers are blocked");
        }
        Ok(Some(text))
    }

    /// Removes nodes that do not run and whose pods left the view some time ago.
    fn reconcile(&mut self, cluster: &Cluster) -> Result<()> {
        let me = Node::from_env()?;
        reconcile(cluster, &me, &Files::of(&me, Path::new(DIRECTORY)), now())
    }
}

/// Removes them as of a time in seconds since 1970.
pub(crate) fn reconcile(cluster: &Cluster, me: &Node, files: &Files, now: u64) -> Result<()> {
    let (node, status) = status(cluster)?;
    let pods = Node::of_all(cluster);
    let gone: Vec<&String> =
        status.nodes.iter().filter(|name| pods.iter().all(|(_, pod)| pod.name != **name)).collect();
    let known = files.absences();
    let since = |name: &String| known.get(name).copied().unwrap_or(now).min(now);
    let mut absences: BTreeMap<String, u64> = gone.iter().map(|name| ((*name).clone(), since(name))).collect();
    files.set_absences(&absences)?;
    for name in gone {
        let left = (since(name) + me.forget_after).saturating_sub(now);
        if status.running.contains(name) {
            // Its pod is cordoned, or lost its session: it may return.
            bail!("node {name} runs although its pod left the view, not removed");
        }
        if left > 0 {
            bail!("node {name} left, removed in {left} s");
        }
        info!("removing node {name}: its pod left the view");
        ctl::forget(&node, name)?;
        absences.remove(name);
        files.set_absences(&absences)?;
    }
    Ok(())
}

/// Returns a node that serves clients, and the status that it reports.
fn status(cluster: &Cluster) -> Result<(String, Status)> {
    let pods = Node::of_all(cluster);
    match serving(pods.iter().map(|(_, node)| node))?.first() {
        Some(node) => Ok((node.name.clone(), ctl::status(&node.name)?)),
        None => bail!("no node of {} pods serves clients", pods.len()),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
