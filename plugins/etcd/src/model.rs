//! The cluster as a whole: its status, and members whose pods are gone.

use std::time::{Duration, Instant};

use ochopod_sdk::{Batch, Cluster, Model, ModelSettings, Result, bail, info};

use crate::{
    ctl::{self, quorum},
    member::Member,
    peer::Listed,
    survey::{Survey, is_healthy},
};

const TIMEOUT: Duration = Duration::from_secs(3);
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
        let ill: Vec<String> = ill.iter().map(|member| address(member)).collect();
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
            let gone = members.list.iter().filter(|member| !member.peer_urls.iter().any(|url| pods.contains(url)));
            let (running, gone): (Vec<_>, Vec<_>) = gone.partition(|member| is_healthy(member, &healthy));
            let Some(gone) = gone.first() else {
                // Its pod is cordoned or left out, or lost its session: it may return.
                let Some(running) = running.first() else { return Ok(()) };
                bail!("member {} is healthy although its pod left the view, not removed", address(running));
            };
            let left = members.list.iter().filter(|member| is_healthy(member, &healthy)).count();
            if left < quorum(members.list.len() - 1) {
                bail!("member {} not removed: {left} healthy members would be no quorum", address(gone));
            }
            info!("removing member {}: its pod left the view", address(gone));
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

fn address(member: &Listed) -> String {
    let urls: Vec<&str> = member.peer_urls.iter().map(|url| url.trim_start_matches("http://")).collect();
    urls.join(", ")
}
