//! Nodes of ZooKeeper.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ochopod_model::{ClusterName, Dependency, Pods, Registration};
use ochopod_store::{
    EmbeddedStore, Observation,
    znodes::{
        Coordination, Mode, NodeAccess, Op,
        layout::{Layout, lock_number, parse_registration},
        observe,
    },
};
use tokio::{runtime, sync::watch};

const OWN: &str = "ns.web";
const DECLARED: [&str; 3] = ["db", "*", "/other.db"];

/// Nodes, by kind and cluster.
#[derive(Debug, Default)]
struct Nodes<'a> {
    /// Registrations by cluster and node.
    pods: BTreeMap<(&'a str, &'a str), &'a [u8]>,
    /// Snapshots by cluster.
    snapshots: BTreeMap<&'a str, &'a [u8]>,
}

/// Lines are nodes: `snapshot CLUSTER CONTENT` or `pod CLUSTER NODE CONTENT`. A leader observes the readable ones, the
/// newest of each pod.
pub fn store(bytes: &[u8]) {
    let nodes = Nodes::read(bytes);
    let own = ClusterName::new("ns", "web").expect("it is a name");
    let dependencies = DECLARED.map(|declared| Dependency::new(declared, &own).expect("it is a dependency"));
    let world = observed(&nodes, &own, dependencies.to_vec());
    nodes.assert_own_pods(&world);
    for dependency in dependencies {
        let seen = &world.dependencies[dependency.declared()];
        let matching = |name: &str| dependency.matches(name) && name != OWN;
        let expected = nodes.snapshots.iter().filter(|(cluster, _)| matching(cluster));
        let expected = expected.flat_map(|(_, content)| serde_json::from_slice::<Pods>(content).unwrap_or_default());
        assert_eq!(seen.snapshot, expected.collect(), "{dependency}");
        assert!(seen.unsettled.iter().all(|cluster| matching(cluster)), "{dependency}: {:?}", seen.unsettled);
    }
}

impl<'a> Nodes<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        let mut nodes = Self::default();
        for line in bytes.split(|byte| *byte == b'\n') {
            let mut words = line.splitn(4, |byte| *byte == b' ');
            // ZooKeeper has no nodes of other names.
            let mut name = || str::from_utf8(words.next()?).ok().filter(|name| !name.is_empty() && !name.contains('/'));
            let Some((kind, cluster)) = name().zip(name()) else { continue };
            match kind {
                "snapshot" => {
                    let content = line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
                    nodes.snapshots.insert(cluster, content);
                }
                "pod" => {
                    let Some(node) = name() else { continue };
                    assert_taken_apart(node);
                    nodes.pods.insert((cluster, node), words.next().unwrap_or_default());
                }
                _ => {}
            }
        }
        nodes
    }

    /// Returns the operations that create them.
    fn operations(&self) -> Vec<Op> {
        let create = |path: String, data: &[u8]| Op::Create {
            path,
            data: data.to_vec(),
            mode: Mode::Persistent,
            access: NodeAccess::Cluster,
        };
        let clusters: BTreeSet<&str> =
            self.snapshots.keys().copied().chain(self.pods.keys().map(|(cluster, _)| *cluster)).chain([OWN]).collect();
        let above = ["/ochopod", "/ochopod/clusters"].map(|path| create(path.to_owned(), b""));
        let layouts = clusters.into_iter().map(Layout::of);
        let parents = layouts.flat_map(|layout| [create(layout.root().to_owned(), b""), create(layout.pods(), b"")]);
        let snapshots = self.snapshots.iter().map(|(cluster, data)| create(Layout::of(cluster).snapshot(), data));
        let pods = self.pods.iter();
        let pods = pods.map(|((cluster, node), data)| create(format!("{}/{node}", Layout::of(cluster).pods()), data));
        above.into_iter().chain(parents).chain(snapshots).chain(pods).collect()
    }

    fn assert_own_pods(&self, world: &Observation) {
        let own = self.pods.iter().filter(|((cluster, _), _)| *cluster == OWN);
        let own: Vec<_> = own
            .filter_map(|((_, node), content)| {
                let (id, number) = parse_registration(node)?;
                Some((id, number, Registration::parse(content).ok()?))
            })
            .collect();
        let ids: BTreeSet<_> = own.iter().map(|(id, ..)| id).collect();
        assert_eq!(world.pods.keys().collect::<BTreeSet<_>>(), ids);
        for (id, pod) in &world.pods {
            let newest = own.iter().filter(|(other, ..)| other == id).map(|(_, number, _)| number).max();
            let mut candidates = own.iter().filter(|(other, number, _)| other == id && Some(number) == newest);
            assert!(candidates.any(|(.., candidate)| *candidate == **pod), "{id} is not its newest registration");
        }
    }
}

/// Names of nodes are parsed into their parts.
fn assert_taken_apart(name: &str) {
    if let Some((id, number)) = parse_registration(name) {
        assert!(name.starts_with(&format!("{id}.")), "{name:?} is of {id}");
        assert_eq!(parse_registration(&format!("{id}.{number:010}")), Some((id, number)));
    }
    if let Some(number) = lock_number(name) {
        assert_eq!(lock_number(&format!("0123456789abcdef__lock__{number:010}")), Some(number));
    }
}

/// Returns the observation of a leader.
fn observed(nodes: &Nodes<'_>, own: &ClusterName, dependencies: Vec<Dependency>) -> Arc<Observation> {
    let runtime = runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let session: Arc<dyn Coordination> = EmbeddedStore::new(Duration::from_secs(5)).connect();
        session.commit(nodes.operations()).await.expect("the nodes can be created");
        let (publish, mut published) = watch::channel(None);
        tokio::select! {
            error = observe(session, own.clone(), dependencies, publish, watch::Sender::new(false)) => panic!("the store cannot be read: {error}"),
            world = published.wait_for(Option::is_some) => {
                world.ok().and_then(|world| world.clone()).expect("it is published")
            }
        }
    })
}
