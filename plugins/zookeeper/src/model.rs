//! The ensemble as a whole: its status, and its voters.

use std::time::{Duration, Instant};

use ochopod_sdk::{Batch, Cluster, Model, ModelSettings, Result, bail, info};

use crate::{
    client::{self, ServerState},
    decision::{Serving, Survey},
    ensemble::{Listed, quorum},
    reconfig,
    server::{Options, Server},
};

const TIMEOUT: Duration = Duration::from_millis(500);
/// Time after which a call changes no further voter: the rest is left for the next one.
const CHANGES_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(crate) struct Voters;

impl Model for Voters {
    /// Servers start one after the other. One pod that refuses does not stop the others.
    fn settings() -> ModelSettings {
        ModelSettings { batch: Batch::Pods(1), damper: 1.0, probe_every: 10.0, tolerate: 1, ..ModelSettings::default() }
    }

    fn probe(&mut self, cluster: &Cluster) -> Result<Option<String>> {
        let (mut serving, mut leader) = (0, None);
        let servers = Server::of_all(cluster);
        for server in &servers {
            if let Ok(ServerState::Serving(state)) = client::query(&server.client(), TIMEOUT) {
                serving += 1;
                if state.is_leader() {
                    leader = Some((server.seq(), state));
                }
            }
        }
        let Some((seq, state)) = leader else { bail!("no quorum: {serving} of {} servers serve", servers.len()) };
        let number = |key: &str| state.number(key);
        let waiting = number("zk_synced_non_voting_followers");
        // Those that do not vote yet are counted among the followers.
        let synced = number("zk_synced_followers").saturating_sub(waiting);
        let plural = if synced == 1 { "" } else { "s" };
        let not_voting = if waiting > 0 { format!(", {waiting} not voting yet") } else { String::new() };
        let size = servers.len();
        let text = format!("{serving} of {size} servers, leader #{seq}, {synced} follower{plural} synced{not_voting}");
        if serving < size { Err(text.into()) } else { Ok(Some(text)) }
    }

    /// Adds servers that have joined, and removes those whose pods left the view or run another server: one voter at a time.
    fn reconcile(&mut self, cluster: &Cluster) -> Result<()> {
        let options = Options::from_env()?;
        let servers = Server::of_all(cluster);
        let begin = Instant::now();
        loop {
            let Survey::Serving(found) = Survey::of(&servers)? else {
                bail!("no quorum, voters not changed");
            };
            let found = found.with_ids();
            let Some(change) = next_change(&servers, &found)? else { return Ok(()) };
            let Serving { ensemble, clients, .. } = &found;
            if begin.elapsed() > CHANGES_TIMEOUT {
                bail!("more voters to change");
            }
            match change {
                Change::Add(server) => {
                    info!("adding server {} as voter", server.line());
                    reconfig::add(&options, clients, ensemble, &server)?;
                }
                Change::Remove(id) => {
                    info!("removing server {id}: its pod left the view, or runs another server");
                    reconfig::remove(&options, clients, ensemble, id)?;
                }
            }
        }
    }
}

/// A change of one voter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Add(Listed),
    Remove(u64),
}

/// Returns the next change that makes the voters those of the view: additions first. None of them costs the quorum.
pub(crate) fn next_change(servers: &[Server], found: &Serving) -> Result<Option<Change>> {
    let Serving { ensemble, clients, connected, ids } = found;
    let joined = servers.iter().find(|server| {
        let is_voter = ensemble.at(&server.quorum()).is_some_and(|listed| listed.is_voter);
        !is_voter && clients.contains(&server.client())
    });
    if let Some(server) = joined {
        let id = ids.get(&server.client()).copied().unwrap_or(server.id());
        if ensemble.servers.iter().any(|listed| listed.id == id && listed.quorum != server.quorum()) {
            bail!("server {} not added: another server has its id {id}", server.quorum());
        }
        return Ok(Some(Change::Add(server.listed(id))));
    }
    // A pod that lost its data while no server served has joined with a new id. It is added once the earlier id is removed.
    let is_replaced = |listed: &&Listed| clients.contains(&listed.client()) && !found.is_up(listed);
    if let Some(lost) = ensemble.servers.iter().find(is_replaced) {
        return remove(found, lost).map(Some);
    }
    let is_gone = |listed: &&Listed| !servers.iter().any(|server| server.quorum() == listed.quorum);
    let Some(down) = ensemble.servers.iter().find(is_gone) else { return Ok(None) };
    if *connected > clients.len() {
        // Its pod is cordoned or left out, or about to stop: it may return.
        bail!("server {} not removed: {connected} servers run, {} of them in the view", down.quorum, clients.len());
    }
    remove(found, down).map(Some)
}

/// Returns the removal of a server.
///
/// # Errors
/// If too few of the others serve.
fn remove(found: &Serving, server: &Listed) -> Result<Change> {
    let left = found.ensemble.voters().filter(|voter| voter.id != server.id);
    let (voters, up) = left.fold((0, 0), |(all, up), voter| (all + 1, up + usize::from(found.is_up(voter))));
    if up < quorum(voters) {
        bail!("server {} not removed: {up} of {voters} servers would be no quorum", server.quorum);
    }
    Ok(Change::Remove(server.id))
}
