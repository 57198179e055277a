//! An ensemble of ZooKeeper: pods that join become voters, and voters whose pods are gone are removed, one at a time. No
//! configuration costs the quorum.

use std::{path::Path, time::Duration};

use ochopod_sdk::{Cluster, Command, Error, Lifecycle, Result, Settings, Value, Wants, bail, json, process, warning};

use client::{ServerState, State};
use model::Voters;
use server::{DIRECTORY, Server};

mod client;
mod decision;
mod ensemble;
mod model;
mod reconfig;
mod server;

const TIMEOUT: Duration = Duration::from_secs(1);

/// The pod's server.
#[derive(Default)]
struct ZooKeeper {
    server: Option<Server>,
    /// Role as of the last query of the server; empty without a quorum.
    role: Option<&'static str>,
}

impl Lifecycle for ZooKeeper {
    fn settings() -> Settings {
        let wants = Wants::default().write(DIRECTORY).connect("peers").connect("loopback:*").run("java");
        Settings { check_every: 5.0, checks: 3, grace: 20.0, pipe_subprocess: true, wants, ..Settings::default() }
    }

    fn can_configure(&mut self, cluster: &Cluster) -> Result<()> {
        decision::check(cluster, Path::new(DIRECTORY))
    }

    /// Returns retryable errors only, because the pod holds data.
    fn configure(&mut self, cluster: &Cluster) -> Result<Command> {
        self.server = Server::of(&cluster.me()?).ok();
        decision::command(cluster, Path::new(DIRECTORY)).map_err(|error| Error::not_yet(error.to_string()))
    }

    fn ready(&mut self, cluster: &Cluster, _: u32) -> Result<()> {
        let uptime = process::usage().map(|usage| usage.uptime).unwrap_or_default();
        decision::check_ready(cluster, Path::new(DIRECTORY), uptime)
    }

    fn role(&mut self) -> Option<String> {
        self.role.map(str::to_owned)
    }

    fn configured(&mut self, cluster: &Cluster) -> Result<()> {
        self.server = Some(Server::of(&cluster.me()?)?);
        if process::running() { self.query().map(drop) } else { Ok(()) }
    }

    /// Passes for a server that is slow or without a quorum, because stopping it would make things worse.
    fn sanity_check(&mut self, _: u32) -> Result<Value> {
        self.query()
    }

    fn signaled(&mut self, _: Option<Value>, pid: Option<u32>) -> Result<Value> {
        if pid.is_none() {
            bail!("zookeeper is not running");
        }
        self.query()
    }
}

impl ZooKeeper {
    /// Returns the pod's server; a rebuilt instance reads it from the environment.
    fn server(&mut self) -> Result<&Server> {
        match &mut self.server {
            Some(server) => Ok(server),
            none => Ok(none.insert(Server::from_env()?)),
        }
    }

    /// Queries the pod's server and records its role.
    fn query(&mut self) -> Result<Value> {
        let address = self.server()?.own_client();
        match client::query(&address, TIMEOUT) {
            Ok(ServerState::NotListening) => bail!("zookeeper does not listen at {address}"),
            Ok(ServerState::NoQuorum) => {
                self.role = Some("");
                Ok(json!({"serving": false}))
            }
            Ok(ServerState::Serving(state)) => {
                self.role = Some(state.role());
                Ok(metrics(&state))
            }
            Err(error) => {
                warning!("state of zookeeper unknown: {error}");
                self.role = None;
                Ok(json!({"serving": false}))
            }
        }
    }
}

fn metrics(state: &State) -> Value {
    let mut metrics = json!({
        "serving": true,
        "role": state.role(),
        "version": state.text("zk_version").split(['-', ',']).next(),
        "connections": state.number("zk_num_alive_connections"),
        "outstanding_requests": state.number("zk_outstanding_requests"),
        "average_latency_ms": state.number("zk_avg_latency"),
        "nodes": state.number("zk_znode_count"),
        "ephemeral_nodes": state.number("zk_ephemerals_count"),
        "watches": state.number("zk_watch_count"),
        "data_bytes": state.number("zk_approximate_data_size"),
    });
    if state.is_leader()
        && let Value::Object(metrics) = &mut metrics
    {
        metrics.insert("synced_followers".to_owned(), json!(state.number("zk_synced_followers")));
    }
    metrics
}

ochopod_sdk::export!(ZooKeeper, model: Voters);

#[cfg(test)]
mod tests;
