//! A cluster of RabbitMQ: pods that join become nodes, pods that return rejoin with their data, and nodes whose pods left for
//! good are removed.

use std::{collections::BTreeSet, path::Path, time::Duration};

use ochopod_sdk::{Cluster, Command, Error, Lifecycle, Result, Settings, Value, Wants, bail, json, process, warning};

use model::Nodes;
use node::{DIRECTORY, Files, Membership, Node};

mod amqp;
mod ctl;
mod decision;
mod model;
mod node;

const TIMEOUT: Duration = Duration::from_secs(2);

/// The pod's node.
#[derive(Default)]
struct RabbitMq {
    node: Option<Node>,
    /// Whether the identity of the cluster was recorded since the node was configured.
    is_recorded: bool,
}

impl Lifecycle for RabbitMq {
    fn settings() -> Settings {
        let wants = Wants::default().write(DIRECTORY).connect("peers").connect("loopback:*").run("rabbitmqctl");
        Settings { check_every: 30.0, checks: 3, ready_within: 600.0, wants, ..Settings::default() }
    }

    fn can_configure(&mut self, cluster: &Cluster) -> Result<()> {
        decision::check(cluster, files)
    }

    /// Returns retryable errors only, because the pod holds data.
    fn configure(&mut self, cluster: &Cluster) -> Result<Command> {
        self.is_recorded = false;
        decision::command(cluster, files).map_err(|error| Error::not_yet(error.to_string()))
    }

    fn ready(&mut self, cluster: &Cluster, _: u32) -> Result<()> {
        decision::check_ready(cluster, files)
    }

    fn configured(&mut self, cluster: &Cluster) -> Result<()> {
        self.node = Some(Node::of(&cluster.me()?)?);
        if process::running() {
            self.metrics()?;
        }
        Ok(())
    }

    /// Passes for a node that serves no clients while Erlang runs: it waits for others, or is on the smaller side of a
    /// partition.
    fn sanity_check(&mut self, _: u32) -> Result<Value> {
        self.metrics()
    }

    fn signaled(&mut self, _: Option<Value>, pid: Option<u32>) -> Result<Value> {
        if pid.is_none() {
            bail!("RabbitMQ is not running");
        }
        self.metrics()
    }
}

impl RabbitMq {
    /// Returns the pod's node; a rebuilt instance reads it from the environment.
    fn node(&mut self) -> Result<&Node> {
        match &mut self.node {
            Some(node) => Ok(node),
            none => Ok(none.insert(Node::from_env()?)),
        }
    }

    /// Queries the pod's node, and records its cluster.
    fn metrics(&mut self) -> Result<Value> {
        let me = self.node()?.clone();
        if !amqp::serves(&me.own_client, TIMEOUT)? {
            if amqp::listens(&me.own_peer, TIMEOUT)? {
                return Ok(json!({"serves": false}));
            }
            bail!("RabbitMQ does not listen at {}", me.own_peer);
        }
        match ctl::status(&me.name) {
            Ok(status) => {
                self.record(&me, &files(&me), &status.nodes)?;
                Ok(json!({
                    "serves": true,
                    "nodes": status.nodes.len(),
                    "running": status.running.len(),
                    "partitioned": status.is_partitioned,
                    "alarms": status.alarms,
                }))
            }
            Err(error) => {
                warning!("status of the cluster unknown: {error}");
                Ok(json!({"serves": true}))
            }
        }
    }

    /// Records the nodes of the cluster and its identity. The identity is queried once per start, and when the nodes change.
    fn record(&mut self, me: &Node, files: &Files, nodes: &BTreeSet<String>) -> Result<()> {
        let known = files.membership();
        if self.is_recorded && known.nodes == *nodes {
            return Ok(());
        }
        let cluster = match ctl::identity(&me.name) {
            Ok(cluster) => {
                self.is_recorded = true;
                Some(cluster)
            }
            Err(error) => {
                warning!("identity of the cluster unknown: {error}");
                known.cluster
            }
        };
        files.set_membership(&Membership { nodes: nodes.clone(), cluster })
    }
}

fn files(node: &Node) -> Files {
    Files::of(node, Path::new(DIRECTORY))
}

ochopod_sdk::export!(RabbitMq, model: Nodes);

#[cfg(test)]
mod tests;
