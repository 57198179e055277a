//! The cluster as a whole: its status, and members whose pods are gone.

use std::time::{Duration, Instant};

use ochopod_sdk::{Batch, Cluster, Model, ModelSettings, Result, bail, info};

use crate::{
    ctl,
    member::Member,
    peer::{self, Listed, ServerState},
    survey::{Survey, is_healthy, removable},
};

const TIMEOUT: Duration = Duration::from_secs(3);
/// Time limit of the question to a member that is not healthy.
const QUERY_TIMEOUT: Duration = Duration::from_millis(500);
/// Time after which a call removes no further member: it must end before its deadline, and is repeated.
const REMOVAL_TIME: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(crate) struct Quorum;

impl Model for Quorum {
    fn settings() -> ModelSettings {
        ModelSettings { batch: Batch::Pods(1), damper: 1.0, probe_every: 5.0, tolerate: 1, ..ModelSettings::default() }
    }

    fn probe(&mut self, cluster: &Cluster) -> Result<Option<String>> {
        let Some(Survey::Healthy { members, healthy }) = survey(cluster)? else {
            bail!("no quorum: no member of {} pods answers", cluster.size())
        };
        let ill: Vec<&Listed> = members.list.iter().filter(|member| !is_healthy(member, &healthy)).collect();
        let text = format!("{} of {} members healthy", members.list.len() - ill.len(), members.list.len());
        if ill.is_empty() {
            return Ok(Some(text));
        }
        let ill: Vec<String> = ill.iter().map(|member| described(member, cluster)).collect();
        bail!("{text}, not {}", ill.join(", "))
    }

    /// Removes members whose pods left the view, one after the other.
    fn reconcile(&mut self, cluster: &Cluster) -> Result<()> {
        let pods: Vec<String> = Member::of_all(cluster).iter().map(|(_, member)| member.peer_url()).collect();
        let begin = Instant::now();
        while begin.elapsed() < REMOVAL_TIME {
            let Some(Survey::Healthy { members, healthy }) = survey(cluster)? else {
                bail!("no quorum, members not reconciled")
            };
            let Some(gone) = removable(&members, &healthy, &pods)? else {
                // Its pod is cordoned or left out, or lost its session: it may return.
                let Some(running) = members.list.iter().find(|member| !member.is_at_any(&pods)) else { return Ok(()) };
                bail!("member {} is healthy although its pod left the view, not removed", running.address());
            };
            info!("removing member {}: its pod left the view", gone.address());
            let endpoints: Vec<String> = healthy.into_iter().collect();
            ctl::remove(&endpoints, gone.id, TIMEOUT)?;
        }
        bail!("more members to remove")
    }
}

/// Asks the members of these pods.
fn survey(cluster: &Cluster) -> Result<Option<Survey>> {
    let endpoints: Vec<String> = Member::of_all(cluster).iter().map(|(_, member)| member.client_url()).collect();
    Survey::healthy(&endpoints, TIMEOUT)
}

/// Returns the address of a member that is not healthy, and what to do if it lost its data.
fn described(member: &Listed, cluster: &Cluster) -> String {
    let address = member.address();
    let is_forming = |known: &Member| matches!(peer::query(&known.peer, QUERY_TIMEOUT), Ok(ServerState::Forming));
    let pods = Member::of_all(cluster);
    if pods.iter().any(|(_, known)| member.is_at(&known.peer_url()) && is_forming(known)) {
        format!("{address} (it lost its data: stop its pod and start it again)")
    } else {
        address
    }
}
