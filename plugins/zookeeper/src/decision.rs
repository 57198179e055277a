//! How a pod starts its server, and which views it accepts.

use std::{collections::BTreeMap, path::Path, time::Duration};

use ochopod_sdk::{Cluster, Command, Pod, Result, bail, info};

use crate::{
    client::{self, ServerState},
    ensemble::{Ensemble, Listed},
    reconfig,
    server::{Files, Options, Server},
};

/// Time limit of each question.
const TIMEOUT: Duration = Duration::from_millis(500);
/// The same within the deadline of `ready`.
const READY_TIMEOUT: Duration = Duration::from_millis(200);
/// Time since its start in which a server serves if enough others of its ensemble listen.
const QUORUM_TIMEOUT: Duration = Duration::from_secs(20);

/// The servers of a view, as they answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Survey {
    /// No server serves.
    NoQuorum,
    /// An ensemble serves.
    Serving(Serving),
}

/// An ensemble that serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Serving {
    pub(crate) ensemble: Ensemble,
    /// Addresses for clients of the servers that serve.
    pub(crate) clients: Vec<String>,
    /// Number of servers that its leader is connected to, itself included; 0 if the leader was not queried.
    pub(crate) connected: usize,
    /// Ids of servers by their address for clients, as they report them; empty if they were not queried.
    pub(crate) ids: BTreeMap<String, u64>,
}

impl Serving {
    /// Asks the servers for their ids. One that does not answer has none.
    pub(crate) fn with_ids(mut self) -> Self {
        let id = |address: &String| Some((address.clone(), client::id(address, TIMEOUT)?));
        self.ids = self.clients.iter().filter_map(id).collect();
        self
    }

    /// Returns whether a server serves that has the id of this voter.
    pub(crate) fn is_up(&self, voter: &Listed) -> bool {
        let client = voter.client();
        self.clients.contains(&client) && self.ids.get(&client).is_none_or(|id| *id == voter.id)
    }
}

impl Survey {
    /// Asks servers, and for the ensemble the leader, or one that serves.
    pub(crate) fn of<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Result<Self> {
        let (mut clients, mut leader, mut connected) = (Vec::new(), None, 0);
        for server in servers {
            // One that does not answer in time is not waited for: the others know the ensemble.
            match client::query(&server.client(), TIMEOUT) {
                Ok(ServerState::Serving(state)) => {
                    clients.push(server.client());
                    if state.is_leader() {
                        leader = Some(server.client());
                        connected = 1 + usize::try_from(state.number("zk_learners"))?;
                    }
                }
                Ok(ServerState::NotListening | ServerState::NoQuorum) => {}
                Err(error) if error.to_string().contains("--net") => return Err(error),
                Err(error) => info!("{error}"),
            }
        }
        let Some(address) = leader.as_ref().or(clients.first()) else { return Ok(Self::NoQuorum) };
        let ensemble = client::ensemble(address, TIMEOUT)?;
        Ok(Self::Serving(Serving { ensemble, clients, connected, ids: BTreeMap::new() }))
    }
}

/// Returns an error for a view that this pod must not be configured with.
pub(crate) fn check(cluster: &Cluster, guest: &Path) -> Result<()> {
    let pod = cluster.me()?;
    let (me, options) = (Server::of(&pod)?, Options::of(&pod)?);
    options.check(guest)?;
    let servers = Server::of_all(cluster);
    match Survey::of(&servers)? {
        // A view without a quorum may be one side of a partition, or the rest of an ensemble that was scaled too far down.
        Survey::Serving(found) => check_quorum(&found.ensemble, &servers),
        Survey::NoQuorum => {
            let files = me.files(guest);
            match files.ensemble().filter(|_| files.has_data()) {
                Some(ensemble) => check_known(&ensemble, &servers),
                None => check_size(&options, &servers),
            }
        }
    }
}

fn check_quorum(ensemble: &Ensemble, servers: &[Server]) -> Result<()> {
    let is_in_view = |address: &str| servers.iter().any(|server| server.quorum() == address);
    let present = ensemble.voters().filter(|voter| is_in_view(&voter.quorum)).count();
    if present < ensemble.quorum() {
        bail!("view has {present} of {} servers, {} are a quorum", ensemble.voters().count(), ensemble.quorum());
    }
    Ok(())
}

/// Pods without data cannot know of an ensemble while none of its servers serves: they would form another one.
fn check_known(ensemble: &Ensemble, servers: &[Server]) -> Result<()> {
    check_quorum(ensemble, servers)?;
    let strangers = servers.iter().filter(|server| ensemble.at(&server.quorum()).is_none());
    let strangers: Vec<String> = strangers.map(|server| format!("#{} at {}", server.seq(), server.quorum())).collect();
    if !strangers.is_empty() {
        bail!(
            "no server serves, and other pods could form a second ensemble: cordon {} until the {} servers serve",
            strangers.join(", "),
            ensemble.servers.len()
        );
    }
    Ok(())
}

fn check_size(options: &Options, servers: &[Server]) -> Result<()> {
    if servers.len() < options.size {
        bail!("{} of {} pods to form an ensemble (ochopod_zookeeper_size)", servers.len(), options.size);
    }
    Ok(())
}

/// Returns the command of a pod, and prepares its files.
pub(crate) fn command(cluster: &Cluster, guest: &Path) -> Result<Command> {
    let pod = cluster.me()?;
    let (me, options) = (Server::of(&pod)?, Options::of(&pod)?);
    check_port(&me.own_client())?;
    let files = me.files(guest);
    let servers = Server::of_all(cluster);
    match Survey::of(servers.iter().filter(|server| **server != me))? {
        Survey::Serving(Serving { ensemble, clients, .. }) => {
            let listed = ensemble.at(&me.quorum()).map(|listed| listed.id);
            if files.has_data() {
                check_data(&files, &me, &ensemble)?;
            }
            if listed.is_some() && listed == files.id() && files.has_data() {
                files.keep(&me, &options)?;
            } else {
                if let Some(id) = listed {
                    // Its data is lost. As a new server it votes only once it has all of it again.
                    info!("removing server {id}, whose data is lost");
                    reconfig::remove(&options, &clients, &ensemble, id)?;
                }
                let ensemble = joined(&me, &ensemble)?;
                info!("joining {} servers as server {}", ensemble.servers.len() - 1, me.id());
                files.create(&me, &options, me.id(), &ensemble)?;
            }
        }
        Survey::NoQuorum if files.has_data() => files.keep(&me, &options)?,
        Survey::NoQuorum => {
            check_size(&options, &servers)?;
            let ensemble = formed(&servers)?;
            info!("forming an ensemble of {} servers as server {}", ensemble.servers.len(), me.id());
            files.create(&me, &options, me.id(), &ensemble)?;
        }
    }
    Ok(options.command(&me))
}

/// Returns an error if data of this pod may be the last copy: they do not belong to the ensemble that serves. Servers that
/// have lost their data may have formed it.
fn check_data(files: &Files, me: &Server, serving: &Ensemble) -> Result<()> {
    let known = files.ensemble().unwrap_or_default();
    let listed = serving.at(&me.quorum()).map(|listed| listed.id);
    let (is_older, earlier) = (serving.number() < known.number(), known.at(&me.quorum()).map(|known| known.id));
    let reason = match listed {
        Some(id) if files.id() == Some(id) && is_older => "is older than the one in its files".to_owned(),
        Some(id) if files.id() == Some(id) => return Ok(()),
        // A server that lost its data has joined again while it was listed under its earlier id.
        listed @ Some(_) if listed == earlier && !is_older => return Ok(()),
        Some(id) => format!("has its address as server {id}"),
        None if serving.continues(&known) => return Ok(()),
        None => "does not have it and is not a later state of the one in its files".to_owned(),
    };
    bail!(
        "data of server {} kept, because the ensemble that serves {reason}: restore that ensemble from this data if it lost \
         its own, otherwise move the directory {} away",
        files.id().unwrap_or_default(),
        me.name()
    )
}

/// Returns an error if a program that is not a server of an ensemble has the port: each start would fail.
pub(crate) fn check_port(address: &str) -> Result<()> {
    match client::query(address, TIMEOUT) {
        Err(error) if error.to_string().contains("is in use") => Err(error),
        _ => Ok(()),
    }
}

/// Returns the ensemble that pods without data form.
pub(crate) fn formed(servers: &[Server]) -> Result<Ensemble> {
    let mut ensemble = Ensemble { version: "0".to_owned(), servers: Vec::new() };
    for server in servers {
        ensemble = with(&ensemble, server)?;
    }
    Ok(ensemble)
}

/// Returns the ensemble as a pod that joins it knows it: with the pod, which does not vote before the leader adds it.
pub(crate) fn joined(me: &Server, ensemble: &Ensemble) -> Result<Ensemble> {
    let mut others = ensemble.clone();
    others.servers.retain(|server| server.quorum != me.quorum());
    with(&others, me)
}

fn with(ensemble: &Ensemble, server: &Server) -> Result<Ensemble> {
    let id = server.id();
    if let Some(other) = ensemble.servers.iter().find(|other| other.id == id) {
        bail!("server {} already has the id {id} of pod #{}: start the pod again", other.quorum, server.seq());
    }
    let mut ensemble = ensemble.clone();
    ensemble.servers.push(server.listed(id));
    Ok(ensemble)
}

/// Succeeds, while a quorum forms, once the server listens. Afterwards it must serve, with all data of its leader.
pub(crate) fn check_ready(cluster: &Cluster, guest: &Path, uptime: Duration) -> Result<()> {
    let me = Server::of(&cluster.me()?)?;
    match client::query(&me.own_client(), READY_TIMEOUT)? {
        ServerState::Serving(_) => return Ok(()),
        ServerState::NotListening => bail!("zookeeper does not listen at {}", me.own_client()),
        ServerState::NoQuorum => {}
    }
    let ensemble = me.files(guest).ensemble().unwrap_or_default();
    let (mut up, mut down, mut is_served) = (1, Vec::new(), false);
    for voter in ensemble.voters().filter(|voter| voter.quorum != me.quorum()) {
        match client::query(&voter.client(), READY_TIMEOUT) {
            Ok(ServerState::NotListening) | Err(_) => down.push(&voter.quorum),
            Ok(state) => {
                up += 1;
                is_served |= matches!(state, ServerState::Serving(_));
            }
        }
    }
    if up < ensemble.quorum() {
        return Ok(());
    }
    // One that lost its data listens, but does not vote in this ensemble: the quorum needs servers that are started later.
    let is_later = |pod: &Pod| {
        !pod.started && Server::of(pod).is_ok_and(|server| down.iter().any(|quorum| **quorum == server.quorum()))
    };
    if uptime >= QUORUM_TIMEOUT && !is_served && cluster.iter().any(|pod| is_later(&pod)) {
        info!("no quorum yet, waiting for servers that are started later");
        return Ok(());
    }
    bail!("no quorum yet, although {up} of {} servers listen", ensemble.voters().count());
}
