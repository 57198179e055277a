//! State of the cluster as the running etcds of a view report it.

use std::{collections::BTreeSet, time::Duration};

use ochopod_sdk::{Result, bail};

use crate::{
    ctl::{self, Members, quorum},
    member::Member,
    peer::{self, Listed, ServerState},
};

const TIMEOUT: Duration = Duration::from_secs(2);

/// The cluster, as its running members report it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Survey {
    /// No etcd runs.
    Nothing,
    /// Some run and wait for the others: there was no quorum yet.
    Forming(Members),
    /// The cluster was formed and has no quorum now.
    NoQuorum(Members),
    Healthy {
        members: Members,
        /// Endpoints of those that answer.
        healthy: BTreeSet<String>,
    },
}

impl Survey {
    /// Queries these members.
    ///
    /// # Errors
    /// If one of them cannot be queried, which may be the only one that knows of a cluster.
    pub(crate) fn of<'a>(members: impl IntoIterator<Item = &'a Member>) -> Result<Self> {
        let (mut forming, mut formed, mut unknown) = (Vec::new(), Vec::new(), None);
        for member in members {
            match peer::query(&member.peer, TIMEOUT) {
                Ok(ServerState::NotListening) => {}
                Ok(ServerState::Forming) => forming.push(member),
                Ok(ServerState::Formed) => formed.push(member),
                Err(error) => unknown = Some(error),
            }
        }
        if let Some(first) = formed.first() {
            let endpoints: Vec<String> = formed.iter().map(|member| member.client_url()).collect();
            return match Self::healthy(&endpoints, TIMEOUT)? {
                Some(survey) => Ok(survey),
                None => Ok(Self::NoQuorum(peer::members(&first.peer, TIMEOUT)?)),
            };
        }
        match (forming.first(), unknown) {
            (_, Some(error)) => Err(error),
            (Some(first), None) => Ok(Self::Forming(peer::members(&first.peer, TIMEOUT)?)),
            (None, None) => Ok(Self::Nothing),
        }
    }

    /// Returns the members and which of them are healthy; none if none of these endpoints is.
    pub(crate) fn healthy(endpoints: &[String], limit: Duration) -> Result<Option<Self>> {
        let first = ctl::healthy(endpoints, limit)?;
        if first.is_empty() {
            return Ok(None);
        }
        let members = ctl::members(&first.iter().cloned().collect::<Vec<_>>(), limit)?;
        let others = members.client_urls().into_iter().filter(|url| !endpoints.contains(url));
        let mut healthy = ctl::healthy(&others.collect::<Vec<_>>(), limit)?;
        healthy.extend(first);
        Ok(Some(Self::Healthy { members, healthy }))
    }
}

/// Returns the members that do not answer and that are at none of these URLs, those of the live pods of a view.
pub(crate) fn gone<'a>(
    members: &'a Members,
    healthy: &BTreeSet<String>,
    pods: &[String],
) -> impl Iterator<Item = &'a Listed> {
    members.list.iter().filter(|member| !is_healthy(member, healthy) && !member.is_at_any(pods))
}

/// Returns a member that is to be removed, because it does not answer and its pod is not in the view; none if there is none.
///
/// # Errors
/// If the healthy members would be no quorum of the rest.
pub(crate) fn removable<'a>(
    members: &'a Members,
    healthy: &BTreeSet<String>,
    pods: &[String],
) -> Result<Option<&'a Listed>> {
    let Some(gone) = gone(members, healthy, pods).next() else { return Ok(None) };
    let left = members.list.iter().filter(|member| is_healthy(member, healthy)).count();
    if left < quorum(members.list.len() - 1) {
        bail!("member {} not removed: {left} healthy members would be no quorum", gone.address());
    }
    Ok(Some(gone))
}

/// Returns whether a member answers.
pub(crate) fn is_healthy(member: &Listed, healthy: &BTreeSet<String>) -> bool {
    member.client_urls.iter().any(|url| healthy.contains(url))
}
