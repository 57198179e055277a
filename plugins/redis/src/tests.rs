use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::mpsc::{Receiver, channel},
    thread,
};

use ochopod_sdk::{
    Pod,
    testing::{cluster, pod},
};

use super::*;

/// Starts a fake redis on a port of its own: answers `INFO` with `info`, anything else with OK, and returns what it
/// received.
fn redis(seq: u64, info: String) -> (Pod, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [(6379, listener.local_addr().unwrap().port())].into();
    let (requests_tx, requests) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while let Some(Ok(head)) = lines.next() {
                let words = head.strip_prefix('*').unwrap().parse::<usize>().unwrap();
                let words: Vec<_> = (0..words).map(|_| lines.by_ref().nth(1).unwrap().unwrap()).collect();
                let reply =
                    if words == ["INFO"] { format!("${}\r\n{info}\r\n", info.len()) } else { "+OK\r\n".to_owned() };
                let _ = requests_tx.send(words.join(" "));
                (&stream).write_all(reply.as_bytes()).unwrap();
            }
        }
    });
    (Pod { ip: "127.0.0.1".to_owned(), ports, ..pod(seq) }, requests)
}

fn primary_info() -> String {
    "role:master\r\nconnected_slaves:1\r\nredis_version:7.0.15\r\n".to_owned()
}

fn replica_info(of: &Pod, link: &str) -> String {
    let port = of.ports[&6379];
    format!(
        "role:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:{port}\r\nmaster_link_status:{link}\r\n\
         master_sync_in_progress:0\r\n"
    )
}

fn probed(pods: Vec<Pod>) -> Result<Option<String>> {
    let seq = pods[0].seq;
    Replication.probe(&cluster(pods).view_of(seq))
}

#[test]
fn the_probe_counts_replicas_in_sync_with_the_primary() {
    let (first, _asks) = redis(0, primary_info());
    let (second, _asks) = redis(1, replica_info(&first, "up"));
    let (third, _asks) = redis(2, replica_info(&first, "down"));
    let (stray, _asks) = redis(3, replica_info(&second, "up"));
    let cases = [
        (vec![first.clone()], "1 primary, 0 replicas in sync"),
        (vec![first.clone(), second.clone()], "1 primary, 1 replica in sync"),
        (vec![first.clone(), second.clone(), third], "1 primary, 1 of 2 replicas in sync"),
        (vec![first, second, stray], "1 primary, 1 of 2 replicas in sync"),
    ];
    for (pods, expected) in cases {
        assert_eq!(probed(pods).unwrap().unwrap(), expected);
    }
}

#[test]
fn the_probe_names_the_pod_that_is_wrong() {
    let (first, _asks) = redis(0, primary_info());
    let (replica, _asks) = redis(1, replica_info(&first, "up"));
    let wrong = probed(vec![replica]).unwrap_err().to_string();
    assert_eq!(wrong, "redis of pod seq 1 is a replica, expected the primary");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = Pod { ip: "127.0.0.1".to_owned(), ports: [(6379, closed)].into(), ..pod(4) };
    let unreachable = probed(vec![first, gone]).unwrap_err().to_string();
    assert!(unreachable.starts_with(&format!("redis of pod seq 4 at 127.0.0.1:{closed}: ")), "{unreachable}");
}

#[test]
fn a_redis_that_follows_the_wrong_primary_is_corrected_at_the_next_check() {
    let (first, _asks) = redis(0, primary_info());
    let (old, requests) = redis(1, primary_info());
    let mut plugin = Redis::default();
    plugin.configure(&cluster([first.clone(), old.clone()]).view_of(1)).unwrap();
    let metrics = plugin.sanity_check(1).unwrap();
    let expected = format!("REPLICAOF 127.0.0.1 {}", first.ports[&6379]);
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), ["INFO", &expected, "INFO"]);
    assert_eq!(metrics["version"], "7.0.15");

    plugin.configured(&cluster([old]).view_of(1)).unwrap();
    plugin.sanity_check(1).unwrap();
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), ["INFO"]);
}

/// Returns an instance that was made while the pod was configured already.
fn rebuilt(ip: &str, port: u16) -> Redis {
    let variable = |name: &str| match name {
        "ochopod_ip" => Some(ip.to_owned()),
        "PORT_6379" => Some(port.to_string()),
        _ => None,
    };
    Redis { server: Some(Server::by(variable).unwrap()), role: None }
}

#[test]
fn a_rebuilt_instance_checks_and_queries_its_redis_without_changing_its_role() {
    let (first, _asks) = redis(0, primary_info());
    let (replica, requests) = redis(1, replica_info(&first, "up"));
    let mut plugin = rebuilt(&replica.ip, replica.ports[&6379]);
    assert_eq!(plugin.sanity_check(1).unwrap()["role"], "replica");
    assert_eq!(plugin.signaled(None, Some(1)).unwrap()["role"], "replica");
    let refused = plugin.signaled(Some(json!({"save": true})), Some(1)).unwrap_err().to_string();
    assert!(refused.contains("ochopod_redis_dir"), "{refused}");
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), ["INFO", "INFO"]);
}

#[test]
fn a_redis_that_hangs_fails_every_check_of_a_rebuilt_instance() {
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut plugin = rebuilt("127.0.0.1", hung.local_addr().unwrap().port());
    for _ in 0..2 {
        assert!(plugin.sanity_check(1).unwrap_err().to_string().contains("did not answer INFO"));
    }
}

#[test]
fn a_redis_is_ready_once_it_answers_a_ping() {
    let (server, requests) = redis(0, primary_info());
    let view = cluster([server.clone()]).view_of(0);
    rebuilt(&server.ip, server.ports[&6379]).ready(&view, 1).unwrap();
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), ["PING"]);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let reason = rebuilt("127.0.0.1", closed).ready(&view, 1).unwrap_err().to_string();
    assert!(reason.contains("cannot be reached"), "{reason}");
}

#[test]
fn the_role_is_that_of_the_redis() {
    let (first, _asks) = redis(0, primary_info());
    let (replica, _asks) = redis(1, replica_info(&first, "up"));
    for (pod, role) in [(first, "primary"), (replica, "replica")] {
        let mut plugin = rebuilt(&pod.ip, pod.ports[&6379]);
        assert_eq!(plugin.role(), None);
        plugin.sanity_check(1).unwrap();
        assert_eq!(plugin.role().as_deref(), Some(role));
    }
}

#[test]
fn an_instance_that_knows_no_address_fails_the_check() {
    assert!(Redis::default().sanity_check(1).unwrap_err().to_string().contains("ochopod_ip"));
}

#[test]
fn a_signal_reports_or_saves_where_there_is_a_directory() {
    let (bare, requests) = redis(0, primary_info());
    let kept = Pod { settings: [("redis_dir".to_owned(), "/srv".to_owned())].into(), ..bare.clone() };
    let save = || Some(json!({"save": true}));
    let mut plugin = Redis::default();
    plugin.configure(&cluster([bare]).view_of(0)).unwrap();
    assert_eq!(plugin.signaled(None, None).unwrap_err().to_string(), "redis is not running");
    assert_eq!(plugin.signaled(None, Some(1)).unwrap()["role"], "primary");
    assert!(plugin.signaled(save(), Some(1)).unwrap_err().to_string().contains("ochopod_redis_dir"));
    assert!(plugin.signaled(Some(json!([])), Some(1)).unwrap_err().to_string().ends_with("got []"));

    plugin.configure(&cluster([kept]).view_of(0)).unwrap();
    assert_eq!(plugin.signaled(save(), Some(1)).unwrap(), json!({"save": "OK"}));
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), ["INFO", "BGSAVE"]);
}
