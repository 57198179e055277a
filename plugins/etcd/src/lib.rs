//! A cluster of etcd: pods that join become members, and members whose pods are gone are removed. It never loses its quorum by
//! a configuration.

use std::{path::Path, time::Duration};

use ochopod_sdk::{Cluster, Command, Error, Lifecycle, Result, Settings, Value, Wants, bail, json, process, warning};

use member::{DIRECTORY, Files, LastSeen, Member};
use model::Quorum;
use peer::ServerState;

mod ctl;
mod decision;
mod member;
mod model;
mod peer;
mod survey;

/// Time limit of each request to the pod's etcd: all of them fit into the deadline of a sanity check.
const TIMEOUT: Duration = Duration::from_millis(600);

/// The pod's etcd.
#[derive(Default)]
struct Etcd {
    member: Option<Member>,
    /// Role as of the last query of the etcd; empty without a leader.
    role: Option<&'static str>,
}

impl Lifecycle for Etcd {
    fn settings() -> Settings {
        let wants = Wants::default().write(DIRECTORY).connect("peers").connect("loopback:*").run("etcdctl");
        Settings { check_every: 5.0, checks: 3, grace: 20.0, wants, ..Settings::default() }
    }

    fn can_configure(&mut self, cluster: &Cluster) -> Result<()> {
        decision::check(cluster, files)?;
        let registered: Vec<String> = Member::of_all(cluster).iter().map(|(_, member)| member.peer_url()).collect();
        // A cache for `tear_down`, which gets no view.
        files(&Member::of(&cluster.me()?)?).set_registered(&registered)
    }

    /// Returns retryable errors only, because the pod holds data.
    fn configure(&mut self, cluster: &Cluster) -> Result<Command> {
        self.member = Member::of(&cluster.me()?).ok();
        decision::command(cluster, files).map_err(|error| Error::not_yet(error.to_string()))
    }

    fn ready(&mut self, cluster: &Cluster, _: u32) -> Result<()> {
        decision::check_ready(cluster)
    }

    fn role(&mut self) -> Option<String> {
        self.role.map(str::to_owned)
    }

    fn configured(&mut self, cluster: &Cluster) -> Result<()> {
        self.member = Some(Member::of(&cluster.me()?)?);
        if process::running() {
            self.query()?;
        }
        Ok(())
    }

    /// Passes for a member without a quorum, because stopping it would make things worse.
    fn sanity_check(&mut self, _: u32) -> Result<Value> {
        self.query()
    }

    fn signaled(&mut self, _: Option<Value>, pid: Option<u32>) -> Result<Value> {
        if pid.is_none() {
            bail!("etcd is not running");
        }
        self.query()
    }

    fn tear_down(&mut self, _: u32) -> Result<()> {
        let me = self.member()?.clone();
        if let Err(error) = decision::prepare_stop(&me, &files(&me)) {
            warning!("members not checked before this one stops: {error}");
        }
        process::terminate()
    }
}

impl Etcd {
    /// Returns the pod's etcd; a rebuilt instance reads it from the environment.
    fn member(&mut self) -> Result<&Member> {
        match &mut self.member {
            Some(member) => Ok(member),
            none => Ok(none.insert(Member::from_env()?)),
        }
    }

    /// Queries the pod's etcd and records role and members.
    fn query(&mut self) -> Result<Value> {
        let me = self.member()?.clone();
        if peer::query(&me.own_peer, TIMEOUT)? == ServerState::NotListening {
            bail!("etcd does not listen at {}", me.own_peer);
        }
        // It answers no client before its first quorum after a start.
        let Ok(status) = ctl::status(&me.client_url(), TIMEOUT) else {
            self.role = Some("");
            return Ok(json!({"healthy": false}));
        };
        self.role = Some(match status.is_leader {
            Some(true) => "leader",
            Some(false) => "follower",
            None => "",
        });
        let mut metrics = json!({
            "healthy": false,
            "version": status.version,
            "role": self.role,
            "database_bytes": status.database_bytes,
            "raft_index": status.raft_index,
        });
        if ctl::check_health(&me.client_url(), TIMEOUT).is_ok() {
            let members = ctl::members(&[me.client_url()], TIMEOUT)?;
            let urls = members.list.iter().flat_map(|member| member.peer_urls.clone()).collect();
            files(&me).set_last_seen(&LastSeen { cluster: members.cluster.clone(), members: urls })?;
            if let Value::Object(metrics) = &mut metrics {
                metrics.extend([
                    ("healthy".to_owned(), json!(true)),
                    ("members".to_owned(), json!(members.list.len())),
                    ("cluster".to_owned(), json!(members.cluster)),
                ]);
            }
        }
        Ok(metrics)
    }
}

fn files(member: &Member) -> Files {
    Files::of(member, Path::new(DIRECTORY))
}

ochopod_sdk::export!(Etcd, model: Quorum);

#[cfg(test)]
mod tests;
