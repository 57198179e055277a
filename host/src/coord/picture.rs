//! What an observer knows of the store, and what it has to read next: pure.
//!
//! Each [`Part`] is one read with its watch. Taking what a read brought may make further parts necessary: a list of pods
//! those pods' registrations, a cluster without a snapshot its pods.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{debug, warn};

use super::{Node, Observed, World};
use crate::cluster::{ClusterName, Dependency, PodId, Pods, Registration, json};
use crate::coord::layout::{CLUSTERS, Layout, parse_registration};

/// Something to read and to watch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Part {
    /// The names of all clusters.
    Clusters,
    /// A cluster's snapshot.
    Snapshot(String),
    /// The names of a cluster's registrations.
    Pods(String),
    /// One registration: cluster and node.
    Registration(String, String),
}

impl Part {
    pub(super) fn path(&self) -> String {
        match self {
            Self::Clusters => CLUSTERS.to_owned(),
            Self::Snapshot(cluster) => Layout::of(cluster).snapshot(),
            Self::Pods(cluster) => Layout::of(cluster).pods(),
            Self::Registration(cluster, name) => format!("{}/{name}", Layout::of(cluster).pods()),
        }
    }
}

/// What a read brought.
#[derive(Debug)]
pub(super) enum Found {
    /// Names of children; none where there is no such node.
    Names(Vec<String>),
    /// The node.
    Content(Option<Node>),
}

/// Registrations by node; none for what is no registration (yet).
type Registrations = BTreeMap<String, Option<std::sync::Arc<Registration>>>;

/// Another cluster, which a dependency matches.
#[derive(Debug, Default)]
struct Foreign {
    snapshot: Pods,
    /// Whether the malformed snapshot was told of.
    warned: bool,
    /// Whether it may not be read.
    closed: bool,
}

#[derive(Debug)]
pub(super) struct Picture {
    own: String,
    dependencies: Vec<Dependency>,
    foreign: BTreeMap<String, Foreign>,
    /// The own registrations, and those of clusters without a snapshot.
    registered: BTreeMap<String, Registrations>,
}

impl Picture {
    pub(super) fn new(own: &ClusterName, dependencies: Vec<Dependency>) -> Self {
        let own = own.to_string();
        let exact = dependencies.iter().filter_map(Dependency::exact).filter(|name| *name != own);
        let foreign = exact.map(|name| (name.to_owned(), Foreign::default())).collect();
        let registered = BTreeMap::from([(own.clone(), Registrations::new())]);
        Self { own, dependencies, foreign, registered }
    }

    /// Everything that is to be read, as far as it is known.
    pub(super) fn parts(&self) -> BTreeSet<Part> {
        let globs = self.dependencies.iter().any(|dependency| dependency.exact().is_none());
        let mut parts: BTreeSet<Part> = globs.then_some(Part::Clusters).into_iter().collect();
        parts.extend(self.foreign.keys().cloned().map(Part::Snapshot));
        for (cluster, registrations) in &self.registered {
            parts.insert(Part::Pods(cluster.clone()));
            parts.extend(registrations.keys().map(|name| Part::Registration(cluster.clone(), name.clone())));
        }
        parts
    }

    /// Whether a part still matters.
    pub(super) fn wants(&self, part: &Part) -> bool {
        match part {
            Part::Clusters => true,
            Part::Snapshot(cluster) => self.foreign.contains_key(cluster),
            Part::Pods(cluster) => self.registered.contains_key(cluster),
            Part::Registration(cluster, name) => {
                self.registered.get(cluster).is_some_and(|registrations| registrations.contains_key(name))
            }
        }
    }

    /// Whether a part belongs to another cluster.
    pub(super) fn is_foreign(&self, part: &Part) -> bool {
        match part {
            Part::Clusters => false,
            Part::Snapshot(cluster) | Part::Pods(cluster) | Part::Registration(cluster, _) => *cluster != self.own,
        }
    }

    /// Notes that a part of another cluster may not be read. Whether that is news.
    pub(super) fn close(&mut self, part: &Part) -> bool {
        let (Part::Snapshot(cluster) | Part::Pods(cluster) | Part::Registration(cluster, _)) = part else {
            return false;
        };
        self.foreign.get_mut(cluster).is_some_and(|foreign| !std::mem::replace(&mut foreign.closed, true))
    }

    /// Takes what was read of a part; returns what has to be read because of it.
    pub(super) fn take(&mut self, part: Part, found: Found) -> Vec<Part> {
        match (part, found) {
            (Part::Clusters, Found::Names(names)) => self.take_clusters(&names),
            (Part::Snapshot(cluster), Found::Content(node)) => self.take_snapshot(cluster, node),
            (Part::Pods(cluster), Found::Names(names)) => self.take_pods(&cluster, names),
            (Part::Registration(cluster, name), Found::Content(node)) => {
                self.take_registration(&cluster, name, node);
                Vec::new()
            }
            (Part::Clusters | Part::Pods(_), Found::Content(_))
            | (Part::Snapshot(_) | Part::Registration(..), Found::Names(_)) => Vec::new(),
        }
    }

    fn take_clusters(&mut self, names: &[String]) -> Vec<Part> {
        let exact = |name: &str| self.dependencies.iter().any(|dependency| dependency.exact() == Some(name));
        let gone = |name: &&String| !exact(name) && !names.contains(name);
        for name in self.foreign.keys().filter(gone).cloned().collect::<Vec<_>>() {
            self.foreign.remove(&name);
            self.registered.remove(&name);
        }
        let matching = |name: &&String| **name != self.own && self.dependencies.iter().any(|d| d.matches(name));
        let new: Vec<String> =
            names.iter().filter(matching).filter(|name| !self.foreign.contains_key(*name)).cloned().collect();
        self.foreign.extend(new.iter().map(|name| (name.clone(), Foreign::default())));
        new.into_iter().map(Part::Snapshot).collect()
    }

    fn take_snapshot(&mut self, cluster: String, node: Option<Node>) -> Vec<Part> {
        let Some(foreign) = self.foreign.get_mut(&cluster) else { return Vec::new() };
        let parsed = node.map_or(Ok(Pods::new()), |node| json::read(&node.data));
        match parsed {
            Ok(pods) => *foreign = Foreign { snapshot: pods, ..Foreign::default() },
            Err(error) => {
                if !foreign.warned {
                    warn!("the snapshot of {cluster} is not a map of registrations, taken as empty: {error}");
                }
                *foreign = Foreign { warned: true, ..Foreign::default() };
            }
        }
        if !foreign.snapshot.is_empty() {
            self.registered.remove(&cluster);
            return Vec::new();
        }
        if self.registered.contains_key(&cluster) {
            return Vec::new();
        }
        self.registered.insert(cluster.clone(), Registrations::new());
        vec![Part::Pods(cluster)]
    }

    fn take_pods(&mut self, cluster: &str, names: Vec<String>) -> Vec<Part> {
        let Some(known) = self.registered.get_mut(cluster) else { return Vec::new() };
        let mut before = std::mem::take(known);
        let mut new = Vec::new();
        for name in names {
            let registration = before.remove(&name).unwrap_or_else(|| {
                new.push(Part::Registration(cluster.to_owned(), name.clone()));
                None
            });
            known.insert(name, registration);
        }
        new
    }

    fn take_registration(&mut self, cluster: &str, name: String, node: Option<Node>) {
        let Some(known) = self.registered.get_mut(cluster) else { return };
        let Some(node) = node else {
            known.remove(&name);
            return;
        };
        let registration = Registration::parse(&node.data)
            .inspect_err(|error| debug!("skipping {name} of {cluster} for now: {error}"))
            .ok();
        known.insert(name, registration.map(Into::into));
    }

    /// The world as it is known.
    pub(super) fn world(&self) -> World {
        let pods = self.registered.get(&self.own).map(newest).unwrap_or_default();
        let observed = |dependency: &Dependency| {
            let mut observed = Observed::default();
            for (cluster, foreign) in self.foreign.iter().filter(|(name, _)| dependency.matches(name)) {
                observed.snapshot.extend(foreign.snapshot.iter().map(|(id, pod)| (id.clone(), pod.clone())));
                if foreign.snapshot.is_empty() && self.lives(cluster) {
                    observed.unsettled.insert(cluster.clone());
                }
            }
            observed
        };
        let dependencies = self.dependencies.iter().map(|d| (d.declared().to_owned(), observed(d))).collect();
        World { pods, dependencies }
    }

    fn lives(&self, cluster: &str) -> bool {
        self.registered.get(cluster).is_some_and(|known| known.values().flatten().any(|pod| !pod.is_dead()))
    }
}

/// One registration per pod: that of the highest number, should an earlier session's still be there.
fn newest(registrations: &Registrations) -> Pods {
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

    fn picture(dependencies: &[&str]) -> Picture {
        let own = ClusterName::new("ns", "web").unwrap();
        let dependencies = dependencies.iter().map(|d| Dependency::new(d, &own).unwrap()).collect();
        Picture::new(&own, dependencies)
    }

    fn names(names: &[&str]) -> Found {
        Found::Names(names.iter().map(|&name| name.to_owned()).collect())
    }

    fn content(text: &str) -> Found {
        Found::Content(Some(Node { data: text.as_bytes().to_vec(), created: 1, owner: None }))
    }

    fn registration(cluster: &str, name: &str) -> Part {
        Part::Registration(cluster.to_owned(), name.to_owned())
    }

    fn seqs(pods: &Pods) -> Vec<(&str, u64)> {
        pods.iter().map(|(id, pod)| (id.as_str(), pod.seq())).collect()
    }

    #[test]
    fn only_new_registrations_are_read_and_the_newest_of_each_pod_counts() {
        let mut picture = picture(&[]);
        assert_eq!(picture.parts(), BTreeSet::from([Part::Pods("ns.web".to_owned())]));
        let pods = || Part::Pods("ns.web".to_owned());
        let (a, b, c) = ("a.0000000001", "b.0000000002", "a.0000000003");
        assert_eq!(picture.take(pods(), names(&[a, b])), [registration("ns.web", a), registration("ns.web", b)]);
        picture.take(registration("ns.web", a), content(r#"{"seq":1}"#));
        picture.take(registration("ns.web", b), content(r#"{"no":"seq yet"}"#));
        assert_eq!(seqs(&picture.world().pods), [("a", 1)]);

        picture.take(registration("ns.web", b), content(r#"{"seq":2}"#));
        assert_eq!(picture.take(pods(), names(&[c, b, a, "rubbish"])).len(), 2);
        picture.take(registration("ns.web", c), content(r#"{"seq":1,"ip":"new"}"#));
        picture.take(registration("ns.web", "rubbish"), content(r#"{"seq":9}"#));
        let world = picture.world();
        assert_eq!(seqs(&world.pods), [("a", 1), ("b", 2)]);
        assert_eq!(world.pods[&PodId::from("a")].text("ip"), "new");

        picture.take(pods(), names(&[b]));
        assert_eq!(seqs(&picture.world().pods), [("b", 2)]);
        assert!(!picture.wants(&registration("ns.web", a)));
    }

    #[test]
    fn a_glob_takes_all_matching_clusters_but_never_the_own_one() {
        let mut picture = picture(&["*", "/other.db"]);
        let new = picture.take(Part::Clusters, names(&["ns.web", "ns.a", "ns.b", "elsewhere.a"]));
        assert_eq!(new, [Part::Snapshot("ns.a".to_owned()), Part::Snapshot("ns.b".to_owned())]);
        picture.take(Part::Snapshot("ns.a".to_owned()), content(r#"{"x":{"seq":1}}"#));
        picture.take(Part::Snapshot("ns.b".to_owned()), content(r#"{"y":{"seq":2}}"#));
        picture.take(Part::Snapshot("other.db".to_owned()), content(r#"{"z":{"seq":3}}"#));
        let world = picture.world();
        assert_eq!(seqs(&world.dependencies["*"].snapshot), [("x", 1), ("y", 2)]);
        assert_eq!(seqs(&world.dependencies["/other.db"].snapshot), [("z", 3)]);

        picture.take(Part::Clusters, names(&["ns.web", "ns.b"]));
        let world = picture.world();
        assert_eq!(seqs(&world.dependencies["*"].snapshot), [("y", 2)]);
        assert_eq!(seqs(&world.dependencies["/other.db"].snapshot), [("z", 3)], "an exact name stays");
    }

    #[test]
    fn a_closed_dependency_is_news_once_until_it_was_readable_again() {
        let mut picture = picture(&["db"]);
        let (snapshot, own) = (Part::Snapshot("ns.db".to_owned()), Part::Pods("ns.web".to_owned()));
        picture.take(snapshot.clone(), content(r#"{"x":{"seq":1}}"#));
        assert!(picture.is_foreign(&snapshot) && !picture.is_foreign(&own));
        assert!(picture.close(&snapshot) && !picture.close(&snapshot));
        assert_eq!(seqs(&picture.world().dependencies["db"].snapshot), [("x", 1)], "it stays as it was seen");
        picture.take(snapshot.clone(), content("{}"));
        assert!(picture.close(&snapshot));
    }

    #[test]
    fn a_dependency_is_unsettled_while_it_has_live_pods_but_no_snapshot() {
        let mut picture = picture(&["db"]);
        let (snapshot, pods) = (|| Part::Snapshot("ns.db".to_owned()), || Part::Pods("ns.db".to_owned()));
        let unsettled = |picture: &Picture| picture.world().dependencies["db"].unsettled.clone();
        for nothing in [Found::Content(None), content("{}"), content("rubbish")] {
            let mut picture = Picture::new(&ClusterName::new("ns", "web").unwrap(), picture.dependencies.clone());
            assert_eq!(picture.take(snapshot(), nothing), [pods()]);
        }
        picture.take(snapshot(), Found::Content(None));
        assert!(unsettled(&picture).is_empty());
        picture.take(pods(), names(&["x.0000000001"]));
        assert!(unsettled(&picture).is_empty());
        let pod = || registration("ns.db", "x.0000000001");
        picture.take(pod(), content(r#"{"seq":1,"status":"dead"}"#));
        assert!(unsettled(&picture).is_empty());
        picture.take(pod(), content(r#"{"seq":1,"status":""}"#));
        assert!(!unsettled(&picture).is_empty());
        assert_eq!(picture.take(snapshot(), content(r#"{"x":{"seq":1}}"#)), []);
        assert!(unsettled(&picture).is_empty());
        assert!(!picture.wants(&pods()) && !picture.wants(&pod()), "its pods are of no interest any more");
    }
}
