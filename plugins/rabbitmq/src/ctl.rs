//! rabbitmqctl: status of the cluster, and changes of its members.

use std::{collections::BTreeSet, time::Duration};

use ochopod_sdk::{Result, Value, bail, exec, serde_json};

const PROGRAM: &str = "rabbitmqctl";
/// Two of them fit into the deadline of a sanity check.
const TIMEOUT: Duration = Duration::from_secs(12);
/// Global parameter that RabbitMQ creates with a cluster, and keeps.
const IDENTITY: &str = "internal_cluster_id";

/// The cluster as one of its running nodes reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// Names of all nodes.
    pub(crate) nodes: BTreeSet<String>,
    pub(crate) running: BTreeSet<String>,
    /// Whether some nodes see others as down that run.
    pub(crate) is_partitioned: bool,
    pub(crate) alarms: usize,
}

/// Returns the status of the cluster, as this running node reports it.
pub(crate) fn status(node: &str) -> Result<Status> {
    let value: Value = serde_json::from_slice(&run(node, &["cluster_status", "--formatter", "json"])?)?;
    let names = |key: &str| {
        let list = value.get(key).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect::<BTreeSet<_>>()
    };
    let status = Status {
        nodes: &names("disk_nodes") | &names("ram_nodes"),
        running: names("running_nodes"),
        is_partitioned: value.get("partitions").and_then(Value::as_object).is_some_and(|map| !map.is_empty()),
        alarms: value.get("alarms").and_then(Value::as_array).map_or(0, Vec::len),
    };
    if status.running.is_empty() {
        bail!("{PROGRAM} cluster_status returned no nodes");
    }
    Ok(status)
}

/// Returns the identity of the cluster of this running node. Nodes that join have the same one.
pub(crate) fn identity(node: &str) -> Result<String> {
    let value: Value = serde_json::from_slice(&run(node, &["list_global_parameters", "--formatter", "json"])?)?;
    let text = |parameter: &Value, key: &str| parameter.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut parameters = value.as_array().into_iter().flatten();
    let found = parameters.find(|parameter| text(parameter, "name").as_deref() == Some(IDENTITY));
    // The value is JSON within a text.
    let identity = found.and_then(|parameter| text(parameter, "value")).unwrap_or_default().replace('"', "");
    if identity.is_empty() {
        bail!("{PROGRAM} list_global_parameters returned no {IDENTITY}");
    }
    Ok(identity)
}

/// Removes a node that does not run, with its replicas of queues. RabbitMQ itself rejects it for a node that runs.
pub(crate) fn forget(node: &str, lost: &str) -> Result<()> {
    run(node, &["forget_cluster_node", lost]).map(drop)
}

fn run(node: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    let argv = [PROGRAM, "--node", node, "--longnames", "--quiet"].into_iter().chain(arguments.iter().copied());
    let output = match exec::run(argv, b"", TIMEOUT) {
        Err(exec::Error::Timeout) => bail!("{PROGRAM} {} timed out after {} s", arguments.join(" "), TIMEOUT.as_secs()),
        output => output?,
    };
    if output.code != 0 {
        bail!("{PROGRAM} {} failed: {}", arguments.join(" "), reason(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(output.stdout)
}

/// Returns the cause within an error of the program: its last finding and its first suggestion, or its first lines.
fn reason(text: &str) -> String {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    if let Some(position) = lines().position(|line| line.starts_with("* suggestion: ")) {
        let finding = lines().take(position).filter(|line| line.starts_with("* ")).last();
        let suggestion = lines().nth(position);
        let found = finding.into_iter().chain(suggestion).map(|line| line.trim_start_matches("* "));
        return found.collect::<Vec<_>>().join(", ");
    }
    lines().take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_reduced_to_their_cause() {
        let long = "Error: unable to perform an operation on node 'a@b'. Please see diagnostics below.\n\n\
                    Most common reasons for this are:\n\n * Target node is not running\n\nDIAGNOSTICS\n\na@b:\n\
                    \u{20} * connected to epmd (port 4369) on b\n  * TCP connection succeeded but Erlang distribution failed \n\
                    \u{20} * suggestion: check if the Erlang cookie is identical\n  * suggestion: check names\n";
        let cause = "TCP connection succeeded but Erlang distribution failed, suggestion: check if the Erlang cookie is \
                     identical";
        assert_eq!(reason(long), cause);
        assert_eq!(
            reason("Error:\n{:failed_to_remove_node, 'Last replica'}\n"),
            "Error: {:failed_to_remove_node, 'Last replica'}"
        );
        assert_eq!(reason(""), "");
    }
}
