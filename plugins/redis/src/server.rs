//! Command line and configuration file of one pod's redis.

use std::{fs, path::Path};

use ochopod_sdk::{Cluster, Command, Pod, Result, bail, info};

use crate::client::Address;

const PORT: u16 = 6379;
/// Address that a redis replicates until it gets a role: no server.
const NO_PRIMARY: (&str, u16) = ("127.0.0.1", 1);

/// Returns whether a redis that replicates this has no role yet.
pub(crate) fn is_none(primary: &Address) -> bool {
    (primary.ip.as_str(), primary.port) == NO_PRIMARY
}

/// Address at which the other pods reach a pod's redis.
pub(crate) fn reachable(pod: &Pod) -> Address {
    Address { ip: pod.ip.clone(), port: pod.ports.get(&PORT).copied().unwrap_or(PORT) }
}

/// Address at which the pod itself reaches its redis, by loopback: the plugin declares that port.
pub(crate) fn own(pod: &Pod) -> Address {
    own_at(&pod.ip, pod.ports.get(&PORT).copied())
}

/// Returns the same from the pod's environment, which is available without a view of the cluster.
pub(crate) fn own_by(variable: impl Fn(&str) -> Option<String>) -> Result<Address> {
    let Some(ip) = variable("ochopod_ip") else { bail!("the variable ochopod_ip is missing") };
    let mapped = variable(&format!("PORT_{PORT}")).map(|port| port.trim().parse()).transpose()?;
    Ok(own_at(&ip, mapped))
}

fn own_at(ip: &str, mapped: Option<u16>) -> Address {
    if is_shared(ip) {
        Address { ip: ip.to_owned(), port: mapped.unwrap_or(PORT) }
    } else {
        Address { ip: "127.0.0.1".to_owned(), port: PORT }
    }
}

/// Returns the directory for its data, which the operator sets by `ochopod_redis_dir`.
pub(crate) fn directory(pod: &Pod) -> Option<&str> {
    pod.settings.get("redis_dir").map(String::as_str)
}

/// Returns the command line, which is the same for a primary and a replica: redis starts as neither, so that one that was
/// started again without data does not empty its replicas. If the operator set a directory and granted it as `guest` too, the settings are in a
/// configuration file there instead.
pub(crate) fn command(cluster: &Cluster, guest: &Path) -> Result<Command> {
    let me = &cluster.me()?;
    let directives = directives(me);
    if let Some(directory) = directory(me)
        && guest.is_dir()
    {
        let name = format!("{}.conf", stem(me));
        fs::write(guest.join(&name), as_file(&directives))?;
        info!("wrote {directory}/{name}");
        return Ok(Command::new("redis-server").arg(format!("{directory}/{name}")));
    }
    Ok(Command::new("redis-server").args(as_arguments(&directives)))
}

/// Returns whether the pod shares the ports of its machine with other pods: its address is a loopback address.
fn is_shared(ip: &str) -> bool {
    ip.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Returns the name of its files, which several pods on a machine may keep in one directory.
fn stem(me: &Pod) -> String {
    let Address { ip, port } = own(me);
    if is_shared(&me.ip) { format!("redis-{ip}-{port}") } else { "redis".to_owned() }
}

struct Directive {
    name: &'static str,
    values: Vec<String>,
}

fn directives(me: &Pod) -> Vec<Directive> {
    let directive =
        |name, values: &[&str]| Directive { name, values: values.iter().map(ToString::to_string).collect() };
    let announced = reachable(me);
    let bind: &[&str] = match (is_shared(&me.ip), me.ports.contains_key(&PORT)) {
        (true, _) => &[&me.ip],
        (false, false) => &[&me.ip, "127.0.0.1"],
        // Behind a mapping the pod's address is another machine's.
        (false, true) => &["0.0.0.0"],
    };
    let mut all = vec![
        directive("port", &[&own(me).port.to_string()]),
        directive("bind", bind),
        directive("protected-mode", &["no"]),
        directive("replica-announce-ip", &[&announced.ip]),
        directive("replica-announce-port", &[&announced.port.to_string()]),
        // Replicas are filled over the network directly, without a file in the working directory.
        directive("repl-diskless-sync", &["yes"]),
        directive("repl-diskless-sync-delay", &["0"]),
        directive("repl-diskless-load", &["swapdb"]),
        // Without replicas, a primary keeps the id of the data that it has continued.
        directive("repl-backlog-ttl", &["0"]),
        directive("appendonly", &["no"]),
    ];
    match directory(me) {
        Some(directory) => all.extend([
            directive("dir", &[directory]),
            directive("dbfilename", &[&format!("{}.rdb", stem(me))]),
            directive("save", &["60", "1"]),
        ]),
        None => all.push(directive("save", &[""])),
    }
    all.push(directive("replicaof", &[NO_PRIMARY.0, &NO_PRIMARY.1.to_string()]));
    all
}

fn as_arguments(directives: &[Directive]) -> Vec<String> {
    let one = |d: &Directive| std::iter::once(format!("--{}", d.name)).chain(d.values.clone()).collect::<Vec<_>>();
    directives.iter().flat_map(one).collect()
}

fn as_file(directives: &[Directive]) -> String {
    let quoted = |value: &String| format!("{value:?}");
    let line = |d: &Directive| format!("{} {}\n", d.name, d.values.iter().map(quoted).collect::<Vec<_>>().join(" "));
    directives.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ochopod_sdk::testing::{cluster, pod};

    const NOWHERE: &str = "/nonexistent";

    fn line(cluster: &Cluster) -> String {
        let command = command(cluster, Path::new(NOWHERE)).unwrap();
        assert_eq!(command.program, "redis-server");
        command.arguments.join(" ")
    }

    #[test]
    fn every_redis_starts_without_a_role() {
        let view = cluster([pod(5), pod(3), pod(9)]);
        for seq in [3, 5, 9] {
            assert!(line(&view.view_of(seq)).ends_with("--replicaof 127.0.0.1 1"));
        }
        assert!(is_none(&Address { ip: "127.0.0.1".into(), port: 1 }) && !is_none(&reachable(&pod(3))));
    }

    #[test]
    fn pods_of_one_machine_bind_their_own_address_and_mapping() {
        assert!(line(&cluster([pod(0)]).view_of(0)).starts_with("--port 6379 --bind 127.0.0.2 --protected-mode no"));
        let mapped = Pod { ports: [(6379, 7001)].into(), ..pod(0) };
        assert!(line(&cluster([mapped]).view_of(0)).starts_with("--port 7001 --bind 127.0.0.2 --protected"));
    }

    #[test]
    fn a_pod_with_a_machine_of_its_own_also_binds_loopback() {
        let alone = Pod { ip: "10.0.0.4".into(), ..pod(0) };
        assert_eq!(own(&alone), Address { ip: "127.0.0.1".into(), port: 6379 });
        assert!(line(&cluster([alone]).view_of(0)).starts_with("--port 6379 --bind 10.0.0.4 127.0.0.1 "));
    }

    #[test]
    fn the_environment_describes_the_pods_redis_like_the_view() {
        for ip in ["127.0.0.2", "10.0.0.4", "a-host"] {
            for mapped in [None, Some(7001)] {
                let me = Pod { ip: ip.into(), ports: mapped.map(|port| (6379, port)).into_iter().collect(), ..pod(0) };
                let variable = |name: &str| match name {
                    "ochopod_ip" => Some(ip.to_owned()),
                    "PORT_6379" => mapped.map(|port| port.to_string()),
                    _ => None,
                };
                assert_eq!(own_by(variable).unwrap(), own(&me), "{ip} {mapped:?}");
            }
        }
        assert!(own_by(|_| None).unwrap_err().to_string().contains("ochopod_ip"));
    }

    #[test]
    fn behind_a_mapping_the_container_port_is_bound_and_the_mapped_one_announced() {
        let mapped = Pod { ip: "10.0.0.4".into(), ports: [(6379, 31000), (8080, 31001)].into(), ..pod(0) };
        assert_eq!(reachable(&mapped), Address { ip: "10.0.0.4".into(), port: 31000 });
        let primary = line(&cluster([mapped]).view_of(0));
        assert!(primary.starts_with("--port 6379 --bind 0.0.0.0 "), "{primary}");
        assert!(primary.contains("--replica-announce-ip 10.0.0.4 --replica-announce-port 31000"), "{primary}");
    }

    #[test]
    fn nothing_is_written_unless_a_directory_was_given() {
        let bare = command(&cluster([pod(0)]).view_of(0), Path::new(NOWHERE)).unwrap();
        assert!(bare.arguments.windows(2).any(|pair| pair == ["--save", ""]), "{bare:?}");
        let kept = Pod { settings: [("redis_dir".into(), "/srv".into())].into(), ..pod(0) };
        let kept = line(&cluster([kept]).view_of(0));
        assert!(kept.contains("--dir /srv --dbfilename redis-127.0.0.2-6379.rdb --save 60 1"), "{kept}");
    }

    #[test]
    fn a_granted_directory_gets_the_configuration_as_a_file() {
        let guest = tempfile::tempdir().unwrap();
        let kept = Pod { settings: [("redis_dir".into(), "/srv".into())].into(), ..pod(0) };
        let command = command(&cluster([kept]).view_of(0), guest.path()).unwrap();
        assert_eq!(command.arguments, ["/srv/redis-127.0.0.2-6379.conf"]);
        let written = fs::read_to_string(guest.path().join("redis-127.0.0.2-6379.conf")).unwrap();
        assert!(written.starts_with("port \"6379\"\nbind \"127.0.0.2\"\n"), "{written}");
    }
}
