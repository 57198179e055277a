//! How a pod starts its node, and which views it accepts.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use ochopod_sdk::{Cluster, Command, Result, bail, info};

use crate::{
    amqp, ctl,
    node::{DIRECTORY, Files, Node},
};

/// Time limit of each connection: all of them fit into the deadline of `ready`.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Returns an error for a view that this pod must not be configured with.
pub(crate) fn check(cluster: &Cluster, files: impl Fn(&Node) -> Files) -> Result<()> {
    let me = Node::of(&cluster.me()?)?;
    let files = files(&me);
    if !files.is_granted() {
        bail!("directory not granted: requires --dir {}::{DIRECTORY}", me.directory);
    }
    let live = Node::of_all(cluster);
    if !serving(live.iter().map(|(_, node)| node))?.is_empty() {
        return Ok(());
    }
    if !files.has_data() {
        return Ok(());
    }
    // Pods without data cannot know of the cluster while no node runs: they would form another one.
    let members = files.membership().nodes;
    let strangers = live.iter().filter(|(_, node)| !members.is_empty() && !members.contains(&node.name));
    let strangers: Vec<String> = strangers.map(|(pod, node)| format!("seq {} at {}", pod.seq, node.client)).collect();
    if !strangers.is_empty() {
        bail!(
            "no node runs, and other pods could form a second cluster: cordon {} until the {} nodes run",
            strangers.join(", "),
            members.len()
        );
    }
    Ok(())
}

/// Returns the command of a pod. A pod without data joins the nodes that run; the oldest forms the cluster if none does.
pub(crate) fn command(cluster: &Cluster, files: impl Fn(&Node) -> Files) -> Result<Command> {
    let me = Node::of(&cluster.me()?)?;
    let files = files(&me);
    let live = Node::of_all(cluster);
    let peers = serving(live.iter().map(|(_, node)| node).filter(|node| **node != me))?;
    if let Some(peer) = peers.first() {
        let status = ctl::status(&peer.name)?;
        let is_listed = status.nodes.contains(&me.name);
        if files.has_data() {
            check_cluster(&files, &me, peer, &status.nodes)?;
        }
        match (is_listed, files.has_data()) {
            (true, false) => {
                info!("data of this node is lost, replacing it");
                ctl::forget(&peer.name, &me.name)?;
            }
            (false, _) => files.set_aside()?,
            (true, true) => {}
        }
    } else if !files.has_data() {
        if live.len() < me.size {
            bail!("{} of {} pods to form a cluster (ochopod_rabbitmq_size)", live.len(), me.size);
        }
        if let Some((oldest, node)) = live.first().filter(|(_, node)| *node != me) {
            bail!("no node runs: pod seq {} at {} forms the cluster", oldest.seq, node.client);
        }
        info!("forming a cluster");
    }
    if !files.has_data() {
        files.forget_membership()?;
    }
    files.write_configuration(&configuration(&peers))?;
    Ok(launch(&me))
}

/// Returns an error unless data of this pod belong to the cluster of a peer, whose nodes have these names: it may be a new
/// cluster, formed by a pod that has lost its data.
fn check_cluster(files: &Files, me: &Node, peer: &Node, nodes: &BTreeSet<String>) -> Result<()> {
    let known = files.membership();
    match known.cluster {
        Some(cluster) if cluster == ctl::identity(&peer.name)? => return Ok(()),
        // An earlier version of the plugin has recorded the names of the nodes only.
        None if nodes.contains(&me.name) => return Ok(()),
        None if !known.nodes.is_disjoint(nodes) => bail!(
            "data of this pod kept, because its cluster is not recorded and {} does not list its node: move {} away to join \
             without data",
            peer.name,
            me.path("")
        ),
        _ => {}
    }
    bail!(
        "data of this pod belongs to another cluster than {}: stop the nodes of that cluster if they have lost their data, \
         otherwise give this pod another directory",
        peer.name
    )
}

/// Returns an error while the pod's node serves no clients.
pub(crate) fn check_ready(cluster: &Cluster, files: impl Fn(&Node) -> Files) -> Result<()> {
    let me = Node::of(&cluster.me()?)?;
    if amqp::serves(&me.own_client, TIMEOUT)? {
        return Ok(());
    }
    // With its data, a node may wait for one that stopped after it, which is started later.
    let others: Vec<_> = Node::of_all(cluster).into_iter().filter(|(_, node)| *node != me).collect();
    let has_later = others.iter().any(|(pod, _)| !pod.started && pod.seq > cluster.seq());
    let is_alone = || serving(others.iter().map(|(_, node)| node)).map(|serving| serving.is_empty());
    if has_later && files(&me).has_data() && amqp::listens(&me.own_peer, TIMEOUT)? && is_alone()? {
        info!("waiting for nodes that are started later");
        return Ok(());
    }
    bail!("RabbitMQ does not serve clients at {}", me.own_client)
}

/// Returns those of these nodes that serve clients.
pub(crate) fn serving<'a>(nodes: impl Iterator<Item = &'a Node>) -> Result<Vec<Node>> {
    let mut found = Vec::new();
    for node in nodes {
        if amqp::listens(&node.client, TIMEOUT)? {
            found.push(node.clone());
        }
    }
    Ok(found)
}

/// Returns the configuration of a node that joins these, or forms a cluster if they are none. A node with data ignores
/// them.
fn configuration(peers: &[Node]) -> String {
    let mut text = "cluster_partition_handling = pause_minority\n".to_owned();
    if !peers.is_empty() {
        text += "cluster_formation.peer_discovery_backend = classic_config\n";
    }
    for (number, peer) in (1..).zip(peers) {
        let _ = writeln!(text, "cluster_formation.classic_config.nodes.{number} = {}", peer.name);
    }
    text
}

fn launch(me: &Node) -> Command {
    let mut command = Command::new("rabbitmq-server");
    for (name, value) in [
        ("NODENAME", me.name.clone()),
        ("USE_LONGNAME", "true".to_owned()),
        ("NODE_PORT", me.client_port.to_string()),
        ("DIST_PORT", me.peer_port.to_string()),
        ("MNESIA_DIR", me.path("")),
        ("CONFIG_FILE", me.path(".conf")),
        ("FEATURE_FLAGS_FILE", me.path(".flags")),
        ("ENABLED_PLUGINS_FILE", me.path(".plugins")),
        ("PLUGINS_EXPAND_DIR", me.path(".expand")),
        ("GENERATED_CONFIG_DIR", me.path(".generated")),
        ("PID_FILE", me.path(".pid")),
        ("LOG_BASE", me.path(".log")),
        ("LOGS", "-".to_owned()),
        // The settings of the machine's own server are not those of a pod.
        ("CONF_ENV_FILE", me.path(".env")),
    ] {
        command = command.env(format!("RABBITMQ_{name}"), value);
    }
    if me.is_shared {
        let interface = me.ip.replace('.', ",");
        command = command.env("RABBITMQ_NODE_IP_ADDRESS", &me.ip);
        let arguments = format!("-kernel inet_dist_use_interface {{{interface}}}");
        command = command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", arguments);
    }
    command.env("ERL_CRASH_DUMP_SECONDS", 0)
}
