//! The cluster as a whole: its primary and the lag of its replicas.

use std::time::Duration;

use ochopod_sdk::{Cluster, Error, Model, ModelSettings, Result, bail};

use crate::{
    api::{self, Member},
    server::{ZOOKEEPER, api_of},
};

const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Replication;

impl Model for Replication {
    fn settings() -> ModelSettings {
        let depends_on = vec![ZOOKEEPER.to_owned()];
        ModelSettings { damper: 1.0, depends_on, probe_every: 5.0, tolerate: 1, ..ModelSettings::default() }
    }

    fn probe(&mut self, cluster: &Cluster) -> Result<Option<String>> {
        let members = members(cluster)?;
        let Some(primary) = members.iter().find(|member| member.is_primary) else {
            bail!("no primary: {} members", members.len());
        };
        let replicas = || members.iter().filter(|member| !member.is_primary);
        let running = replicas().filter(|member| member.is_running && member.lag.is_some());
        let (mut count, mut lag) = (0, 0);
        for member in running {
            count += 1;
            lag = lag.max(member.lag.unwrap_or_default());
        }
        let text = format!("primary {}, {count} of {} replicas, lag {lag} bytes", primary.address, cluster.size() - 1);
        if !primary.is_running || count + 1 < cluster.size() {
            bail!("{text}");
        }
        Ok(Some(text))
    }
}

/// Returns the members, as the first Patroni lists them that answers.
fn members(cluster: &Cluster) -> Result<Vec<Member>> {
    let me = cluster.me().ok();
    let others = cluster.by_seq().into_iter().filter(|pod| me.as_ref().is_none_or(|me| me.key != pod.key));
    let pods: Vec<_> = me.iter().cloned().chain(others).collect();
    let mut failure = Error::new("no pods");
    for pod in pods {
        match api_of(&pod).and_then(|api| api::members(&api, TIMEOUT)) {
            Ok(members) => return Ok(members),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
