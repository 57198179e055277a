//! What must hold of a whole world once the faults have stopped.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    node::{Node, cluster},
    plan::Side,
    world::World,
};
use crate::{
    cluster::{Digest, PodId, Pods, Registration, Stored, View},
    coord::layout::{Layout, parse_registration},
    status::{ProcessState, Role},
};

impl World {
    /// Everything is well, or why not.
    pub(super) fn settled(&self) -> Result<(), String> {
        [Side::Web, Side::Db].into_iter().try_for_each(|side| self.cluster_settled(side))
    }

    fn cluster_settled(&self, side: Side) -> Result<(), String> {
        let layout = Layout::new(&cluster(side));
        let nodes: Vec<&Node> = self.nodes.iter().filter(|node| node.side == side).collect();
        let registered = self.registered_once(&layout, &nodes)?;
        let live: Vec<&Node> = nodes.into_iter().filter(|node| !self.is_dead(node)).collect();
        if live.is_empty() {
            return Ok(());
        }
        self.one_leader(side)?;
        self.snapshot_is_who_lives(&layout, &live)?;
        let view = self.hash_is_that_of_the_present(side, &layout, registered)?;
        live.iter().try_for_each(|node| self.runs_the_present(node, &Digest::of(&view)))
    }

    /// Every host is registered once, and nobody else is.
    fn registered_once(&self, layout: &Layout, nodes: &[&Node]) -> Result<Pods, String> {
        let mut pods = Pods::new();
        for name in self.town.store.children(&layout.pods()) {
            let (id, _) = parse_registration(&name).ok_or(format!("{name} is no registration"))?;
            let node = self.town.store.read(&format!("{}/{name}", layout.pods())).map(|node| node.data);
            let registration = Registration::parse(&node.unwrap_or_default()).map_err(|e| format!("{name}: {e}"))?;
            if pods.insert(id.clone(), registration.into()).is_some() {
                return Err(format!("{id} is registered twice"));
            }
        }
        let here: BTreeSet<&PodId> = nodes.iter().map(|node| &node.id).collect();
        if pods.keys().collect::<BTreeSet<_>>() != here {
            return Err(format!("{:?} are registered, {here:?} are there", pods.keys()));
        }
        match nodes.iter().find(|node| self.is_dead(node) != pods[&node.id].is_dead()) {
            Some(node) => Err(format!("the registration of {} is wrong about its death", node.id)),
            None => Ok(pods),
        }
    }

    fn one_leader(&self, side: Side) -> Result<(), String> {
        let role = |node: &Node| self.town.ledger.of(&node.id, |known| known.role);
        let nodes = self.nodes.iter().filter(|node| node.side == side);
        let leaders: BTreeMap<&PodId, Role> =
            nodes.map(|node| (&node.id, role(node))).filter(|(_, role)| *role != Role::Follower).collect();
        if leaders.values().eq([&Role::Leader]) { Ok(()) } else { Err(format!("the leaders are {leaders:?}")) }
    }

    fn snapshot_is_who_lives(&self, layout: &Layout, live: &[&Node]) -> Result<(), String> {
        let snapshot = self.pods_at(&layout.snapshot());
        let live: BTreeSet<&PodId> = live.iter().map(|node| &node.id).collect();
        if snapshot.keys().collect::<BTreeSet<_>>() == live {
            return Ok(());
        }
        Err(format!("the snapshot has {:?}, {live:?} live", snapshot.keys()))
    }

    fn pods_at(&self, path: &str) -> Pods {
        let node = self.town.store.read(path).map(|node| node.data).unwrap_or_default();
        serde_json::from_slice(&node).unwrap_or_default()
    }

    /// The stored view, when the stored hash is that of what is registered now.
    fn hash_is_that_of_the_present(&self, side: Side, layout: &Layout, pods: Pods) -> Result<View, String> {
        let depends = self.town.plan.model(side).depends_on;
        let snapshot = || self.pods_at(&Layout::new(&cluster(Side::Db)).snapshot());
        let dependencies = depends.into_iter().map(|name| (name, snapshot())).collect();
        let present = Stored::Done(Digest::of(&View { pods, dependencies }));
        let read = |path: &str| self.town.store.read(path).map(|node| node.data).unwrap_or_default();
        let stored = Stored::parse(&read(&layout.hash()));
        if stored != present {
            return Err(format!("{} is configured as {stored:?}, the present is {present:?}", side.name()));
        }
        serde_json::from_slice(&read(&layout.view())).map_err(|e| format!("the view cannot be read: {e}"))
    }

    /// A live pod has answered 200 to the present configuration, and runs unless somebody turned it off since.
    fn runs_the_present(&self, node: &Node, generation: &Digest) -> Result<(), String> {
        self.town.ledger.of(&node.id, |known| {
            if known.generation.as_ref() != Some(generation) {
                return Err(format!("{} has {:?} and not {generation}", node.id, known.generation));
            }
            let runs = known.process == ProcessState::Running;
            let waits = known.starts == 0 && !self.town.plan.start;
            if runs || waits || known.turned_off { Ok(()) } else { Err(format!("{} was left off", node.id)) }
        })
    }

    fn is_dead(&self, node: &Node) -> bool {
        self.town.ledger.of(&node.id, |known| known.died.is_some())
    }
}
