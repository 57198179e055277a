//! Cache of an observer, and the targets that it has to read next: pure.
//!
//! Each [`WatchTarget`] is one read with its watch. A result may make further targets necessary: a list of pods their
//! registrations, a cluster without a snapshot its pods.

use std::collections::{BTreeMap, BTreeSet};

use ochopod_model::{ClusterName, Dependency, PodId, Pods, Registration};
use tracing::{debug, warn};

use super::{
    Node,
    layout::{CLUSTERS, Layout, parse_registration},
    observer::{Observation, ObservedDependency},
};
use crate::{Pause, stored_view};

/// Node, or list of children, to read and to watch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum WatchTarget {
    /// Names of all clusters.
    Clusters,
    /// Snapshot of a cluster.
    Snapshot(String),
    /// Names of the registrations of a cluster.
    Pods(String),
    /// One registration: cluster and node.
    Registration(String, String),
    /// Pause of the configurations of a cluster.
    Paused(String),
}

impl WatchTarget {
    pub(super) fn path(&self) -> String {
        match self {
            Self::Clusters => CLUSTERS.to_owned(),
            Self::Snapshot(cluster) => Layout::of(cluster).snapshot(),
            Self::Pods(cluster) => Layout::of(cluster).pods(),
            Self::Registration(cluster, name) => format!("{}/{name}", Layout::of(cluster).pods()),
            Self::Paused(cluster) => Layout::of(cluster).paused(),
        }
    }
}

/// Result of a read.
#[derive(Debug)]
pub(super) enum ReadResult {
    /// Names of children; empty if there is no such node.
    Names(Vec<String>),
    /// Content of a node.
    Content(Option<Node>),
}

/// Registrations by node; none if the content is not a valid registration (yet).
pub(super) type Registrations = BTreeMap<String, Option<std::sync::Arc<Registration>>>;

/// Another cluster that a dependency matches.
#[derive(Debug, Default)]
struct RemoteCluster {
    snapshot: Pods,
    /// Whether the malformed snapshot was logged.
    reported: bool,
    /// Whether access is denied.
    denied: bool,
}

#[derive(Debug)]
pub(super) struct WatchCache {
    own: String,
    dependencies: Vec<Dependency>,
    remote: BTreeMap<String, RemoteCluster>,
    /// Registrations of this cluster, and of clusters without a snapshot.
    registered: BTreeMap<String, Registrations>,
    /// Pause of this cluster.
    paused: Option<Pause>,
}

impl WatchCache {
    pub(super) fn new(own: &ClusterName, dependencies: Vec<Dependency>) -> Self {
        let own = own.to_string();
        let exact = dependencies.iter().filter_map(Dependency::exact).filter(|name| *name != own);
        let remote = exact.map(|name| (name.to_owned(), RemoteCluster::default())).collect();
        let registered = BTreeMap::from([(own.clone(), Registrations::new())]);
        Self { own, dependencies, remote, registered, paused: None }
    }

    /// Returns all targets known to be needed.
    pub(super) fn targets(&self) -> BTreeSet<WatchTarget> {
        let globs = self.dependencies.iter().any(|dependency| dependency.exact().is_none());
        let mut targets: BTreeSet<WatchTarget> = globs.then_some(WatchTarget::Clusters).into_iter().collect();
        targets.insert(WatchTarget::Paused(self.own.clone()));
        targets.extend(self.remote.keys().cloned().map(WatchTarget::Snapshot));
        for (cluster, registrations) in &self.registered {
            targets.insert(WatchTarget::Pods(cluster.clone()));
            targets.extend(registrations.keys().map(|name| WatchTarget::Registration(cluster.clone(), name.clone())));
        }
        targets
    }

    /// Returns whether a target is still needed.
    pub(super) fn is_needed(&self, target: &WatchTarget) -> bool {
        match target {
            WatchTarget::Clusters | WatchTarget::Paused(_) => true,
            WatchTarget::Snapshot(cluster) => self.remote.contains_key(cluster),
            WatchTarget::Pods(cluster) => self.registered.contains_key(cluster),
            WatchTarget::Registration(cluster, name) => {
                self.registered.get(cluster).is_some_and(|registrations| registrations.contains_key(name))
            }
        }
    }

    /// Returns whether a target belongs to another cluster.
    pub(super) fn is_remote(&self, target: &WatchTarget) -> bool {
        match target {
            WatchTarget::Clusters | WatchTarget::Paused(_) => false,
            WatchTarget::Snapshot(cluster) | WatchTarget::Pods(cluster) | WatchTarget::Registration(cluster, _) => {
                *cluster != self.own
            }
        }
    }

    /// Records that access to another cluster is denied. Returns whether it was not before.
    pub(super) fn mark_denied(&mut self, target: &WatchTarget) -> bool {
        let (WatchTarget::Snapshot(cluster) | WatchTarget::Pods(cluster) | WatchTarget::Registration(cluster, _)) =
            target
        else {
            return false;
        };
        self.remote.get_mut(cluster).is_some_and(|remote| !std::mem::replace(&mut remote.denied, true))
    }

    /// Applies the result of a read; returns the targets to read because of it.
    pub(super) fn apply(&mut self, target: WatchTarget, found: ReadResult) -> Vec<WatchTarget> {
        match (target, found) {
            (WatchTarget::Clusters, ReadResult::Names(names)) => self.apply_clusters(&names),
            (WatchTarget::Snapshot(cluster), ReadResult::Content(node)) => self.apply_snapshot(cluster, node),
            (WatchTarget::Pods(cluster), ReadResult::Names(names)) => self.apply_pods(&cluster, names),
            (WatchTarget::Registration(cluster, name), ReadResult::Content(node)) => {
                self.apply_registration(&cluster, name, node);
                Vec::new()
            }
            (WatchTarget::Paused(_), ReadResult::Content(node)) => {
                self.paused = node.map(|node| Pause::parse(&node.data));
                Vec::new()
            }
            (WatchTarget::Clusters | WatchTarget::Pods(_), ReadResult::Content(_))
            | (
                WatchTarget::Snapshot(_) | WatchTarget::Registration(..) | WatchTarget::Paused(_),
                ReadResult::Names(_),
            ) => Vec::new(),
        }
    }

    fn apply_clusters(&mut self, names: &[String]) -> Vec<WatchTarget> {
        let exact = |name: &str| self.dependencies.iter().any(|dependency| dependency.exact() == Some(name));
        let gone = |name: &&String| !exact(name) && !names.contains(name);
        for name in self.remote.keys().filter(gone).cloned().collect::<Vec<_>>() {
            self.remote.remove(&name);
            self.registered.remove(&name);
        }
        let matching = |name: &&String| **name != self.own && self.dependencies.iter().any(|d| d.matches(name));
        let new: Vec<String> =
            names.iter().filter(matching).filter(|name| !self.remote.contains_key(*name)).cloned().collect();
        self.remote.extend(new.iter().map(|name| (name.clone(), RemoteCluster::default())));
        new.into_iter().map(WatchTarget::Snapshot).collect()
    }

    fn apply_snapshot(&mut self, cluster: String, node: Option<Node>) -> Vec<WatchTarget> {
        let Some(remote) = self.remote.get_mut(&cluster) else { return Vec::new() };
        let parsed = node.map_or(Ok(Pods::new()), |node| stored_view::parse(&node.data));
        match parsed {
            Ok(pods) => *remote = RemoteCluster { snapshot: pods, ..RemoteCluster::default() },
            Err(error) => {
                if !remote.reported {
                    warn!(cluster, %error, "invalid snapshot, treated as empty");
                }
                *remote = RemoteCluster { reported: true, ..RemoteCluster::default() };
            }
        }
        if !remote.snapshot.is_empty() {
            self.registered.remove(&cluster);
            return Vec::new();
        }
        if self.registered.contains_key(&cluster) {
            return Vec::new();
        }
        self.registered.insert(cluster.clone(), Registrations::new());
        vec![WatchTarget::Pods(cluster)]
    }

    fn apply_pods(&mut self, cluster: &str, names: Vec<String>) -> Vec<WatchTarget> {
        let Some(known) = self.registered.get_mut(cluster) else { return Vec::new() };
        let mut before = std::mem::take(known);
        let mut new = Vec::new();
        for name in names {
            let registration = before.remove(&name).unwrap_or_else(|| {
                new.push(WatchTarget::Registration(cluster.to_owned(), name.clone()));
                None
            });
            known.insert(name, registration);
        }
        new
    }

    fn apply_registration(&mut self, cluster: &str, name: String, node: Option<Node>) {
        let Some(known) = self.registered.get_mut(cluster) else { return };
        let Some(node) = node else {
            known.remove(&name);
            return;
        };
        let registration = Registration::parse(&node.data)
            .inspect_err(|error| debug!(name, cluster, %error, "invalid registration, skipping"))
            .ok();
        known.insert(name, registration.map(Into::into));
    }

    /// Returns the current observation.
    pub(super) fn observation(&self) -> Observation {
        let pods = self.registered.get(&self.own).map(newest).unwrap_or_default();
        let observed = |dependency: &Dependency| {
            let mut observed = ObservedDependency::default();
            for (cluster, remote) in self.remote.iter().filter(|(name, _)| dependency.matches(name)) {
                observed.snapshot.extend(remote.snapshot.iter().map(|(id, pod)| (id.clone(), pod.clone())));
                let live = if remote.snapshot.is_empty() { self.live_pods(cluster) } else { BTreeSet::new() };
                if !live.is_empty() {
                    observed.unsettled.insert(cluster.clone());
                    observed.live.extend(live);
                }
            }
            observed
        };
        let dependencies = self.dependencies.iter().map(|d| (d.declared().to_owned(), observed(d))).collect();
        Observation { pods, dependencies, paused: self.paused.clone() }
    }

    fn live_pods(&self, cluster: &str) -> BTreeSet<PodId> {
        let pods = self.registered.get(cluster).map(newest).unwrap_or_default();
        pods.into_iter().filter(|(_, pod)| !pod.is_dead()).map(|(id, _)| id).collect()
    }
}

/// Returns one registration per pod: that of the highest number, if one of an earlier session still exists.
pub(super) fn newest(registrations: &Registrations) -> Pods {
    let mut newest: BTreeMap<PodId, (u64, &std::sync::Arc<Registration>)> = BTreeMap::new();
    for (name, registration) in registrations {
        let (Some((id, number)), Some(registration)) = (parse_registration(name), registration) else { continue };
        if newest.get(&id).is_none_or(|(highest, _)| *highest < number) {
            newest.insert(id, (number, registration));
        }
    }
    newest.into_iter().map(|(id, (_, registration))| (id, registration.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(dependencies: &[&str]) -> WatchCache {
        let own = ClusterName::new("ns", "web").unwrap();
        let dependencies = dependencies.iter().map(|d| Dependency::new(d, &own).unwrap()).collect();
        WatchCache::new(&own, dependencies)
    }

    fn names(names: &[&str]) -> ReadResult {
        ReadResult::Names(names.iter().map(|&name| name.to_owned()).collect())
    }

    fn content(text: &str) -> ReadResult {
        ReadResult::Content(Some(Node { data: text.as_bytes().to_vec(), created: 1, owner: None }))
    }

    fn registration(cluster: &str, name: &str) -> WatchTarget {
        WatchTarget::Registration(cluster.to_owned(), name.to_owned())
    }

    fn seqs(pods: &Pods) -> Vec<(&str, u64)> {
        pods.iter().map(|(id, pod)| (id.as_str(), pod.seq())).collect()
    }

    #[test]
    fn only_new_registrations_are_read_and_the_newest_of_each_pod_counts() {
        let mut cache = cache(&[]);
        let own = || "ns.web".to_owned();
        assert_eq!(cache.targets(), BTreeSet::from([WatchTarget::Pods(own()), WatchTarget::Paused(own())]));
        let pods = || WatchTarget::Pods("ns.web".to_owned());
        let (a, b, c) = ("a.0000000001", "b.0000000002", "a.0000000003");
        assert_eq!(cache.apply(pods(), names(&[a, b])), [registration("ns.web", a), registration("ns.web", b)]);
        cache.apply(registration("ns.web", a), content(r#"{"seq":1}"#));
        cache.apply(registration("ns.web", b), content(r#"{"no":"seq yet"}"#));
        assert_eq!(seqs(&cache.observation().pods), [("a", 1)]);

        cache.apply(registration("ns.web", b), content(r#"{"seq":2}"#));
        assert_eq!(cache.apply(pods(), names(&[c, b, a, "rubbish"])).len(), 2);
        cache.apply(registration("ns.web", c), content(r#"{"seq":1,"ip":"new"}"#));
        cache.apply(registration("ns.web", "rubbish"), content(r#"{"seq":9}"#));
        let observation = cache.observation();
        assert_eq!(seqs(&observation.pods), [("a", 1), ("b", 2)]);
        assert_eq!(observation.pods[&PodId::from("a")].text("ip"), "new");

        cache.apply(pods(), names(&[b]));
        assert_eq!(seqs(&cache.observation().pods), [("b", 2)]);
        assert!(!cache.is_needed(&registration("ns.web", a)));
    }

    #[test]
    fn a_glob_takes_all_matching_clusters_but_never_the_own_one() {
        let mut cache = cache(&["*", "/other.db"]);
        let new = cache.apply(WatchTarget::Clusters, names(&["ns.web", "ns.a", "ns.b", "elsewhere.a"]));
        assert_eq!(new, [WatchTarget::Snapshot("ns.a".to_owned()), WatchTarget::Snapshot("ns.b".to_owned())]);
        cache.apply(WatchTarget::Snapshot("ns.a".to_owned()), content(r#"{"x":{"seq":1}}"#));
        cache.apply(WatchTarget::Snapshot("ns.b".to_owned()), content(r#"{"y":{"seq":2}}"#));
        cache.apply(WatchTarget::Snapshot("other.db".to_owned()), content(r#"{"z":{"seq":3}}"#));
        let observation = cache.observation();
        assert_eq!(seqs(&observation.dependencies["*"].snapshot), [("x", 1), ("y", 2)]);
        assert_eq!(seqs(&observation.dependencies["/other.db"].snapshot), [("z", 3)]);

        cache.apply(WatchTarget::Clusters, names(&["ns.web", "ns.b"]));
        let observation = cache.observation();
        assert_eq!(seqs(&observation.dependencies["*"].snapshot), [("y", 2)]);
        assert_eq!(seqs(&observation.dependencies["/other.db"].snapshot), [("z", 3)], "an exact name stays");
    }

    #[test]
    fn pause_of_the_own_cluster_is_observed_while_its_node_exists() {
        let mut cache = cache(&["db"]);
        let paused = || WatchTarget::Paused("ns.web".to_owned());
        assert!(cache.targets().contains(&paused()) && cache.is_needed(&paused()) && !cache.is_remote(&paused()));
        let reasons = [
            (content(r#"{"by":"x","reason":"move","since":5}"#), Some("move")),
            (content(""), Some("unreadable pause node")),
            (ReadResult::Content(None), None),
        ];
        for (found, reason) in reasons {
            assert_eq!(cache.apply(paused(), found), []);
            assert_eq!(cache.observation().paused.as_ref().map(|pause| pause.reason.as_str()), reason);
        }
    }

    #[test]
    fn denied_dependency_is_reported_once_until_it_was_readable_again() {
        let mut cache = cache(&["db"]);
        let (snapshot, own) = (WatchTarget::Snapshot("ns.db".to_owned()), WatchTarget::Pods("ns.web".to_owned()));
        cache.apply(snapshot.clone(), content(r#"{"x":{"seq":1}}"#));
        assert!(cache.is_remote(&snapshot) && !cache.is_remote(&own));
        assert!(cache.mark_denied(&snapshot) && !cache.mark_denied(&snapshot));
        assert_eq!(seqs(&cache.observation().dependencies["db"].snapshot), [("x", 1)], "it stays as it was seen");
        cache.apply(snapshot.clone(), content("{}"));
        assert!(cache.mark_denied(&snapshot));
    }

    #[test]
    fn dependency_is_unsettled_while_it_has_live_pods_but_no_snapshot() {
        let mut cache = cache(&["db"]);
        let (snapshot, pods) = (|| WatchTarget::Snapshot("ns.db".to_owned()), || WatchTarget::Pods("ns.db".to_owned()));
        let unsettled = |cache: &WatchCache| cache.observation().dependencies["db"].unsettled.clone();
        let live = |cache: &WatchCache| cache.observation().dependencies["db"].live.clone();
        for nothing in [ReadResult::Content(None), content("{}"), content("rubbish")] {
            let mut cache = WatchCache::new(&ClusterName::new("ns", "web").unwrap(), cache.dependencies.clone());
            assert_eq!(cache.apply(snapshot(), nothing), [pods()]);
        }
        cache.apply(snapshot(), ReadResult::Content(None));
        assert!(unsettled(&cache).is_empty());
        cache.apply(pods(), names(&["x.0000000001"]));
        assert!(unsettled(&cache).is_empty());
        let pod = || registration("ns.db", "x.0000000001");
        cache.apply(pod(), content(r#"{"seq":1,"status":"dead"}"#));
        assert!(unsettled(&cache).is_empty());
        assert!(live(&cache).is_empty());
        cache.apply(pod(), content(r#"{"seq":1,"status":""}"#));
        assert!(!unsettled(&cache).is_empty());
        assert_eq!(live(&cache), BTreeSet::from([PodId::from("x")]));
        assert_eq!(cache.apply(snapshot(), content(r#"{"x":{"seq":1}}"#)), []);
        assert!(unsettled(&cache).is_empty() && live(&cache).is_empty());
        assert!(!cache.is_needed(&pods()) && !cache.is_needed(&pod()), "its pods are no longer needed");
    }
}
