//! The view of a cluster as a plugin reads it. These are the rules for guests of all languages, and for native tests of plugins.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{CAPABILITIES, ClusterName, PodId, Pods, PostedView, Registration};
use crate::registration::ROLE;

/// Keys of a registration that a pod has a field for; the others are its settings.
const FIELDS: [&str; 11] =
    [CAPABILITIES, ROLE, "seq", "ip", "public", "node", "application", "task", "status", "port", "ports"];
/// Maximum length of a name in an error, in characters.
const MAX_NAME_CHARS: usize = 80;

/// A query that the view cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The model declares no such dependency.
    #[error("undeclared dependency {0:?}: add it to `depends_on`")]
    Undeclared(String),
    /// A pod has no address of this kind.
    #[error("pod seq {seq} has no {}address", if *.public { "public " } else { "" })]
    NoAddress {
        /// Number of the pod.
        seq: u64,
        /// Whether the public address is missing.
        public: bool,
    },
    /// A pod remaps ports, but not this one.
    #[error("pod seq {seq} at {ip} does not expose port {port}, only {known}")]
    NotExposed {
        /// Number of the pod.
        seq: u64,
        /// Address of the pod.
        ip: String,
        /// The port in the container.
        port: u16,
        /// The ports that the pod exposes.
        known: String,
    },
}

/// The view of a cluster as one pod reads it. Pods are sorted by key as text. It borrows everything and copies nothing.
#[derive(Debug, Clone, Copy)]
pub struct ClusterView<'a> {
    name: &'a ClusterName,
    posted: &'a PostedView,
}

impl<'a> ClusterView<'a> {
    /// Creates the view of a cluster with this name.
    #[must_use]
    pub fn new(name: &'a ClusterName, posted: &'a PostedView) -> Self {
        Self { name, posted }
    }

    /// Returns the name of the cluster.
    #[must_use]
    pub fn name(self) -> &'a ClusterName {
        self.name
    }

    /// Returns the key of the pod that the view was sent to.
    #[must_use]
    pub fn key(self) -> &'a PodId {
        &self.posted.key
    }

    /// Returns the position of that pod among all, from 0; 0 if the view does not contain it.
    #[must_use]
    pub fn index(self) -> usize {
        self.posted.index()
    }

    /// Returns the `seq` of that pod; 0 if the view does not contain it.
    #[must_use]
    pub fn seq(self) -> u64 {
        self.posted.own().map_or(0, Registration::seq)
    }

    /// Returns the number of pods.
    #[must_use]
    pub fn size(self) -> usize {
        self.posted.view.pods.len()
    }

    /// Returns the pod that the view was sent to, if the view contains it.
    #[must_use]
    pub fn me(self) -> Option<PodView<'a>> {
        self.find(&self.posted.key)
    }

    /// Returns the pod with this key.
    #[must_use]
    pub fn pod(self, key: &str) -> Option<PodView<'a>> {
        self.find(&PodId::from(key))
    }

    fn find(self, key: &PodId) -> Option<PodView<'a>> {
        let (key, registration) = self.posted.view.pods.get_key_value(key)?;
        Some(PodView { key, registration, started: self.posted.started.contains(key) })
    }

    /// Returns the pod with the lowest `seq`.
    #[must_use]
    pub fn oldest(self) -> Option<PodView<'a>> {
        self.pods().min_by_key(|pod| pod.seq())
    }

    /// Returns all pods.
    pub fn pods(self) -> impl Iterator<Item = PodView<'a>> {
        pods(&self.posted.view.pods, Some(&self.posted.started))
    }

    /// Returns up to `count` pods from position `start`.
    pub fn range(self, start: usize, count: usize) -> impl Iterator<Item = PodView<'a>> {
        self.pods().skip(start).take(count)
    }

    /// Returns `ip:port` of each pod, under which the others reach a port of the container, or clients from outside if
    /// `public`.
    ///
    /// # Errors
    /// If a pod does not expose the port, or has no such address.
    pub fn addresses(self, port: u16, public: bool) -> Result<Vec<String>, QueryError> {
        self.pods().map(|pod| pod.address(port, public)).collect()
    }

    /// Returns the names of the dependencies, sorted as text.
    pub fn dependencies(self) -> impl Iterator<Item = &'a str> {
        self.posted.view.dependencies.keys().map(String::as_str)
    }

    /// Returns the pods of a dependency, by the name that the model declared; none if it declares no such dependency.
    #[must_use]
    pub fn dependency(self, name: &str) -> Option<impl ExactSizeIterator<Item = PodView<'a>>> {
        Some(pods(self.posted.view.dependencies.get(name)?, None))
    }

    /// Returns a connection string for a dependency: the addresses of its pods in the order of `seq`, joined by commas.
    ///
    /// # Errors
    /// If the model declares no such dependency, or as in [`Self::addresses`].
    pub fn grep(self, dependency: &str, port: u16, public: bool) -> Result<String, QueryError> {
        let found = self.dependency(dependency);
        let found = found.ok_or_else(|| QueryError::Undeclared(dependency.chars().take(MAX_NAME_CHARS).collect()))?;
        let mut pods: Vec<_> = found.collect();
        pods.sort_by_key(|pod| pod.seq());
        let addresses: Vec<_> = pods.into_iter().map(|pod| pod.address(port, public)).collect::<Result<_, _>>()?;
        Ok(addresses.join(","))
    }
}

/// Returns pods, and which of them are among `started`.
fn pods<'a>(pods: &'a Pods, started: Option<&'a BTreeSet<PodId>>) -> impl ExactSizeIterator<Item = PodView<'a>> {
    pods.iter().map(move |(key, registration)| {
        let started = started.is_some_and(|started| started.contains(key));
        PodView { key, registration, started }
    })
}

/// One pod of a view.
#[derive(Debug, Clone, Copy)]
pub struct PodView<'a> {
    key: &'a PodId,
    registration: &'a Registration,
    started: bool,
}

impl<'a> PodView<'a> {
    /// Returns the identity of the pod.
    #[must_use]
    pub fn key(self) -> &'a PodId {
        self.key
    }

    /// Returns the number of the pod.
    #[must_use]
    pub fn seq(self) -> u64 {
        self.registration.seq()
    }

    /// Returns the text of a key of its registration, empty if it has none.
    #[must_use]
    pub fn text(self, key: &str) -> &'a str {
        self.registration.text(key)
    }

    /// Returns the role that the pod published last, or empty text.
    #[must_use]
    pub fn role(self) -> &'a str {
        self.registration.role()
    }

    /// Returns whether the leader requested the start of this pod before that of the pod that the view is for.
    #[must_use]
    pub fn started(self) -> bool {
        self.started
    }

    /// Returns the control port in the container, 0 if it has none.
    #[must_use]
    pub fn port(self) -> u16 {
        self.registration.control_port().unwrap_or(0)
    }

    /// Returns the remapped ports: container port to the port reachable from other pods.
    #[must_use]
    pub fn ports(self) -> BTreeMap<u16, u16> {
        self.registration.ports()
    }

    /// Returns every other key of the registration: text unchanged, any other JSON value as its JSON text.
    pub fn settings(self) -> impl Iterator<Item = (String, String)> + use<'a> {
        let others = self.registration.fields().into_iter().filter(|(key, _)| !FIELDS.contains(&key.as_str()));
        others.map(|(key, value)| (key, as_text(value)))
    }

    /// Returns `ip:port` under which a port of the container is reachable from the other pods, or from outside if
    /// `public`. The port is the same if the pod remaps none.
    ///
    /// # Errors
    /// If the pod does not expose the port, or has no such address.
    pub fn address(self, port: u16, public: bool) -> Result<String, QueryError> {
        let ip = self.text(if public { "public" } else { "ip" });
        if ip.is_empty() {
            return Err(QueryError::NoAddress { seq: self.seq(), public });
        }
        let ports = self.ports();
        let port = match ports.get(&port) {
            Some(remapped) => *remapped,
            None if ports.is_empty() => port,
            None => {
                let known: Vec<_> = ports.keys().map(u16::to_string).collect();
                let (seq, ip, known) = (self.seq(), self.text("ip").to_owned(), known.join(", "));
                return Err(QueryError::NotExposed { seq, ip, port, known });
            }
        };
        Ok(if ip.contains(':') && !ip.starts_with('[') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") })
    }
}

fn as_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_map, prelude::*};
    use serde_json::json;

    use super::*;

    fn parsed(view: &Value) -> (ClusterName, PostedView) {
        (ClusterName::new("prod", "web").unwrap(), PostedView::parse(view.to_string().as_bytes()).unwrap())
    }

    fn grep(kafka: &Value, dependency: &str, public: bool) -> Result<String, String> {
        let (name, posted) = parsed(&json!({"key": "a", "pods": {"a": {"seq": 0}}, "dependencies": {"kafka": kafka}}));
        ClusterView::new(&name, &posted).grep(dependency, 9092, public).map_err(|error| error.to_string())
    }

    #[test]
    fn view_is_complete_and_in_order() {
        let (name, posted) = parsed(&json!({"key": "b", "started": ["b"], "pods": {
            "b": {"seq": 3, "ip": "10.0.0.2", "public": "54.0.0.2", "node": "n", "application": "app", "task": "t",
                  "status": "", "_role": "primary", "port": "8080",
                  "ports": {"8080": 31000, "BASE": 1, "9000": "31001"}, "cluster": "web", "local": "false",
                  "weight": 7, "tags": ["x", {"y": null}]},
            "a": {"seq": 9, "status": "dead"}},
            "dependencies": {"kafka": {}, "db": {"x": {"seq": 1, "ip": "10.0.1.1"}}}}));
        let view = ClusterView::new(&name, &posted);
        assert_eq!((view.name().to_string().as_str(), view.key().as_str()), ("prod.web", "b"));
        assert_eq!((view.index(), view.seq(), view.size()), (1, 3, 2));
        let [a, b] = view.pods().collect::<Vec<_>>()[..] else { panic!("{view:?}") };
        assert_eq!((a.key().as_str(), a.seq(), a.text("status"), a.port()), ("a", 9, "dead", 0));
        assert!(a.settings().next().is_none() && a.ports().is_empty() && a.text("ip").is_empty() && !a.started());
        assert_eq!((b.text("ip"), b.text("node"), b.role(), b.port()), ("10.0.0.2", "n", "primary", 8080));
        assert_eq!((b.ports(), b.started()), ([(8080, 31000), (9000, 31001)].into(), true));
        let settings: Vec<_> = b.settings().collect();
        let expected = [("cluster", "web"), ("local", "false"), ("tags", r#"["x",{"y":null}]"#), ("weight", "7")];
        assert_eq!(settings, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!((view.me().unwrap().seq(), view.pod("a").unwrap().seq(), view.oldest().unwrap().seq()), (3, 9, 3));
        assert!(view.pod("c").is_none());
        assert_eq!(view.dependencies().collect::<Vec<_>>(), ["db", "kafka"]);
        let sizes = ["db", "kafka", "zookeeper"].map(|name| view.dependency(name).map(|pods| pods.len()));
        assert_eq!(sizes, [Some(1), Some(0), None]);
    }

    #[test]
    fn view_without_its_receiver_has_no_own_pod() {
        let name = ClusterName::default();
        let posted = PostedView::new(PodId::from("gone"), std::sync::Arc::default());
        let view = ClusterView::new(&name, &posted);
        assert!(view.me().is_none() && view.oldest().is_none());
        assert_eq!((view.index(), view.seq(), view.size()), (0, 0, 0));
    }

    #[test]
    fn grep_returns_addresses_in_seq_order_with_remapped_ports() {
        let kafka = json!({
            "z": {"seq": 1, "ip": "10.0.0.1", "public": "54.1.1.1"},
            "a": {"seq": 2, "ip": "10.0.0.2", "ports": {"9092": 31000}},
        });
        assert_eq!(grep(&kafka, "kafka", false).unwrap(), "10.0.0.1:9092,10.0.0.2:31000");
        assert_eq!(grep(&json!({}), "kafka", false).unwrap(), "");
    }

    #[test]
    fn grep_rejects_undeclared_dependencies_and_unexposed_ports_by_name() {
        let remaps = json!({"x": {"seq": 3, "ip": "127.0.0.5", "ports": {"8080": 31000, "9093": 31001}}});
        let cases = [
            (json!({}), "zookeeper", false, "undeclared dependency \"zookeeper\": add it to `depends_on`"),
            (remaps, "kafka", false, "pod seq 3 at 127.0.0.5 does not expose port 9092, only 8080, 9093"),
            (json!({"x": {"seq": 3, "ip": "h"}}), "kafka", true, "pod seq 3 has no public address"),
            (json!({"x": {"seq": 3}}), "kafka", false, "pod seq 3 has no address"),
        ];
        for (kafka, dependency, public, expected) in cases {
            assert_eq!(grep(&kafka, dependency, public).unwrap_err(), expected);
        }
        let long = grep(&json!({}), &"é".repeat(1 << 20), false).unwrap_err();
        assert!(long.len() < 300, "{}", long.len());
    }

    #[test]
    fn ipv6_address_is_bracketed() {
        let kafka = json!({"x": {"seq": 1, "ip": "fd00::1"}, "y": {"seq": 2, "ip": "[fd00::2]"}});
        assert_eq!(grep(&kafka, "kafka", false).unwrap(), "[fd00::1]:9092,[fd00::2]:9092");
    }

    proptest! {
        #[test]
        fn lookups_pages_and_columns_agree_with_the_list_of_pods(
            seqs in btree_map("[a-c]{0,3}", (0_u64..50, any::<bool>()), 1..20),
            own in any::<prop::sample::Index>(),
            page in 1_usize..8,
            start: usize,
            count: usize,
        ) {
            let pods: serde_json::Map<_, _> = seqs.iter().map(|(key, (seq, _))| {
                (key.clone(), json!({"seq": seq, "ip": "10.0.0.1", "_role": key}))
            }).collect();
            let key = own.get(&seqs.keys().cloned().collect::<Vec<_>>()).clone();
            let started: Vec<_> = seqs.iter().filter(|(_, (_, started))| *started).map(|(key, _)| key).collect();
            let (name, posted) = parsed(&json!({"key": key, "started": started, "pods": pods, "dependencies": {"d": pods}}));
            let view = ClusterView::new(&name, &posted);
            let all: Vec<_> = view.pods().map(|pod| (pod.key().as_str(), pod.seq(), pod.started())).collect();
            let expected: Vec<_> = seqs.iter().map(|(key, (seq, started))| (key.as_str(), *seq, *started)).collect();
            prop_assert_eq!(&all, &expected);
            prop_assert_eq!((view.size(), all[view.index()].0, all[view.index()].1), (all.len(), key.as_str(), view.seq()));
            prop_assert_eq!(view.me().map(PodView::key), Some(view.key()));
            let pages = (0..view.size()).step_by(page).flat_map(|start| view.range(start, page));
            prop_assert!(pages.map(PodView::key).eq(view.pods().map(PodView::key)));
            prop_assert_eq!(view.range(start, count).count(), all.len().saturating_sub(start).min(count));
            prop_assert_eq!(view.addresses(80, false).unwrap().len(), all.len());
            prop_assert_eq!(view.grep("d", 80, false).unwrap(), vec!["10.0.0.1:80"; all.len()].join(","));
            prop_assert!(view.pods().all(|pod| view.pod(pod.key().as_str()).is_some_and(|found| found.role() == pod.role())));
            prop_assert_eq!(view.oldest().map(PodView::seq), all.iter().map(|(_, seq, _)| *seq).min());
            prop_assert!(view.dependency("d").unwrap().all(|pod| !pod.started()));
        }
    }
}
