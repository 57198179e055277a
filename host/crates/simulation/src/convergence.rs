//! Conditions that must hold for both clusters after the faults have stopped.

use std::collections::{BTreeMap, BTreeSet};

use ochopod_model::{
    Digest, PodId, Pods, Registration, StoredHash, View,
    status::{PodState, ProcessState, Role},
};
use ochopod_store::znodes::layout::{Layout, parse_registration};

use tokio::time::Instant;

use super::{
    host::{SimHost, cluster},
    plan::ClusterSide,
    run::Simulation,
};

impl Simulation {
    /// Checks that both clusters have converged.
    pub(super) fn converged(&self) -> Result<(), String> {
        [ClusterSide::Web, ClusterSide::Db].into_iter().try_for_each(|side| self.cluster_converged(side))
    }

    fn cluster_converged(&self, side: ClusterSide) -> Result<(), String> {
        let layout = Layout::new(&cluster(side));
        let hosts: Vec<&SimHost> = self.hosts.iter().filter(|host| host.side == side).collect();
        let registered = self.registrations(&layout, &hosts)?;
        self.check_states(&layout, &hosts)?;
        let live: Vec<&SimHost> = hosts.into_iter().filter(|host| !self.is_dead(host)).collect();
        if live.is_empty() {
            return Ok(());
        }
        self.check_leader(side)?;
        self.check_snapshot(&layout, &live)?;
        let view = self.configured_view(side, &layout, registered)?;
        live.iter().try_for_each(|host| self.check_pod(host, &Digest::of(&view)))
    }

    /// Checks that every host is registered once, and nothing else is. Returns the registrations.
    fn registrations(&self, layout: &Layout, hosts: &[&SimHost]) -> Result<Pods, String> {
        let mut pods = Pods::new();
        for name in self.env.store.children(&layout.pods()) {
            let (id, _) = parse_registration(&name).ok_or(format!("{name} is not a registration"))?;
            let host = self.env.store.read(&format!("{}/{name}", layout.pods())).map(|host| host.data);
            let registration = Registration::parse(&host.unwrap_or_default()).map_err(|e| format!("{name}: {e}"))?;
            if pods.insert(id.clone(), registration.into()).is_some() {
                return Err(format!("{id} is registered twice"));
            }
        }
        let here: BTreeSet<&PodId> = hosts.iter().map(|host| &host.id).collect();
        if pods.keys().collect::<BTreeSet<_>>() != here {
            return Err(format!("registered are {:?}, expected {here:?}", pods.keys()));
        }
        match hosts.iter().find(|host| self.is_dead(host) != pods[&host.id].is_dead()) {
            Some(host) => Err(format!("the registration of {} and the pod disagree on whether it is dead", host.id)),
            None => Ok(pods),
        }
    }

    /// Checks that every host has published its state, and no states of other pods are left.
    fn check_states(&self, layout: &Layout, hosts: &[&SimHost]) -> Result<(), String> {
        let found: BTreeSet<String> = self.env.store.children(&layout.states()).into_iter().collect();
        let here: BTreeSet<String> = hosts.iter().map(|host| host.id.to_string()).collect();
        if found != here {
            return Err(format!("published are states of {found:?}, expected {here:?}"));
        }
        for host in hosts {
            let data = self.env.store.read(&layout.state(&host.id)).map(|host| host.data).unwrap_or_default();
            let state = PodState::parse(&data).map(|state| state.process);
            let process = self.env.checker.of(&host.id, |known| known.process);
            if state != Some(process) {
                return Err(format!("{} published {state:?} but is {process}", host.id));
            }
        }
        Ok(())
    }

    fn check_leader(&self, side: ClusterSide) -> Result<(), String> {
        let role = |host: &SimHost| host.leader_report.borrow().role;
        let hosts = self.hosts.iter().filter(|host| host.side == side);
        let leaders: BTreeMap<&PodId, Role> =
            hosts.map(|host| (&host.id, role(host))).filter(|(_, role)| *role != Role::Follower).collect();
        if leaders.values().eq([&Role::Leader]) {
            Ok(())
        } else {
            Err(format!("expected one leader, found {leaders:?}"))
        }
    }

    fn check_snapshot(&self, layout: &Layout, live: &[&SimHost]) -> Result<(), String> {
        let snapshot = self.pods_at(&layout.snapshot());
        let live: BTreeMap<&PodId, &SimHost> = live.iter().map(|host| (&host.id, *host)).collect();
        let missing: Vec<_> = live.keys().filter(|id| !snapshot.contains_key(id)).collect();
        let others: Vec<_> = snapshot.keys().filter(|id| !live.contains_key(id)).collect();
        if missing.is_empty() && others.is_empty() {
            return Ok(());
        }
        let leaders = live.values().map(|host| host.leader_report.borrow().status(Instant::now().into_std()));
        let status: Vec<String> = leaders.filter(|status| !status.is_empty()).collect();
        Err(format!("the snapshot lacks {missing:?} and has {others:?}, status {status:?}"))
    }

    fn pods_at(&self, path: &str) -> Pods {
        let host = self.env.store.read(path).map(|host| host.data).unwrap_or_default();
        serde_json::from_slice(&host).unwrap_or_default()
    }

    /// Returns the stored view, after checking that the stored hash matches what is registered.
    fn configured_view(&self, side: ClusterSide, layout: &Layout, pods: Pods) -> Result<View, String> {
        let depends = self.env.plan.model(side).depends_on;
        let snapshot = || self.pods_at(&Layout::new(&cluster(ClusterSide::Db)).snapshot());
        let dependencies = depends.into_iter().map(|name| (name, snapshot())).collect();
        let present = StoredHash::Done(Digest::of(&View { pods, dependencies }));
        let read = |path: &str| self.env.store.read(path).map(|host| host.data).unwrap_or_default();
        let stored = StoredHash::parse(&read(&layout.hash()));
        if stored != present {
            return Err(format!("{} is configured as {stored:?}, expected {present:?}", side.name()));
        }
        serde_json::from_slice(&read(&layout.view())).map_err(|e| format!("invalid view: {e}"))
    }

    /// Checks that a live pod has accepted the current configuration, and runs unless it was turned off since.
    fn check_pod(&self, host: &SimHost, generation: &Digest) -> Result<(), String> {
        self.env.checker.of(&host.id, |known| {
            if known.generation.as_ref() != Some(generation) {
                return Err(format!("{} is configured for {:?}, expected {generation}", host.id, known.generation));
            }
            let runs = known.process == ProcessState::Running;
            let waits = known.starts == 0 && !self.env.plan.start;
            if runs || waits || known.turned_off { Ok(()) } else { Err(format!("{} is off", host.id)) }
        })
    }

    fn is_dead(&self, host: &SimHost) -> bool {
        self.env.checker.of(&host.id, |known| known.died.is_some())
    }
}
