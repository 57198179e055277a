use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
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
    answering(seq, move |_| info.clone())
}

/// Starts the same. `info` gets each command that is not `INFO`, or an empty text, and returns the next answer to `INFO`.
fn answering(seq: u64, mut info: impl FnMut(&str) -> String + Send + 'static) -> (Pod, Receiver<String>) {
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
                let reply = if words == ["INFO"] {
                    let text = info("");
                    format!("${}\r\n{text}\r\n", text.len())
                } else {
                    info(&words.join(" "));
                    "+OK\r\n".to_owned()
                };
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
    plugin.configured(&cluster([first.clone(), old.clone()]).view_of(1)).unwrap();
    let metrics = plugin.sanity_check(1).unwrap();
    let expected = format!("REPLICAOF 127.0.0.1 {}", first.ports[&6379]);
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), ["INFO", "INFO", &expected, "INFO"]);
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

/// A fake redis whose role changes by command.
struct FakeRedis {
    pod: Pod,
    state: Arc<Mutex<State>>,
    requests: Receiver<String>,
}

#[derive(Clone, Default)]
struct State {
    /// Port of its primary, or 1 for none.
    primary: Option<u16>,
    keys: u64,
    offset: u64,
    id: &'static str,
    previous_id: &'static str,
    replicas: u64,
    loading: bool,
}

impl FakeRedis {
    fn start(seq: u64, state: State) -> Self {
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let (pod, requests) = answering(seq, move |command| {
            let mut state = shared.lock().unwrap();
            match command.strip_prefix("REPLICAOF ") {
                Some("NO ONE") => state.primary = None,
                Some(address) => state.primary = address.rsplit(' ').next().unwrap().parse().ok(),
                None => {}
            }
            let State { keys, offset, id, previous_id, replicas, loading, .. } = &*state;
            let role = match state.primary {
                None => "role:master\r\n".to_owned(),
                Some(port) => format!(
                    "role:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:{port}\r\nmaster_link_status:down\r\n\
                     master_sync_in_progress:0\r\n"
                ),
            };
            format!(
                "{role}db0:keys={keys},expires=0\r\nmaster_repl_offset:{offset}\r\nmaster_replid:{id}\r\n\
                 master_replid2:{previous_id}\r\nconnected_slaves:{replicas}\r\nloading:{}\r\n",
                u8::from(*loading)
            )
        });
        Self { pod, state, requests }
    }

    /// Starts a redis that was started with this data and has no role yet.
    fn new(seq: u64, keys: u64, offset: u64, id: &'static str) -> Self {
        Self::start(seq, State { primary: Some(1), keys, offset, id, previous_id: "0", ..State::default() })
    }

    fn port(&self) -> u16 {
        self.pod.ports[&6379]
    }

    /// Makes it a replica with this data.
    fn following(self, primary: &Self) -> Self {
        self.state.lock().unwrap().primary = Some(primary.port());
        self
    }

    fn primary(&self) -> Option<u16> {
        self.state.lock().unwrap().primary
    }

    /// Commands that change it.
    fn changes(&self) -> Vec<String> {
        self.requests.try_iter().filter(|command| command.starts_with("REPLICAOF")).collect()
    }

    fn with_role(&self, role: &str) -> Pod {
        Pod { role: role.to_owned(), ..self.pod.clone() }
    }
}

fn view_of(seq: u64, servers: &[&FakeRedis]) -> Cluster<'static> {
    cluster(servers.iter().map(|server| server.pod.clone())).view_of(seq)
}

/// Returns the plugin of a pod that was configured with this view.
fn configured(seq: u64, servers: &[&FakeRedis]) -> Redis {
    let mut plugin = Redis::default();
    plugin.configured(&view_of(seq, servers)).unwrap();
    plugin
}

#[test]
fn the_pod_with_the_role_is_the_primary_and_the_oldest_one_if_there_is_none() {
    let named = |roles: [&str; 3]| {
        let pods = (0..).zip(roles).map(|(seq, role)| Pod { role: role.to_owned(), ..pod(seq) });
        failover::primary(&cluster(pods).view_of(2)).unwrap().primary.seq
    };
    assert_eq!(named(["", "", ""]), 0);
    assert_eq!(named(["replica", "primary", "replica"]), 1);
    assert_eq!(named(["replica", "replica", "replica"]), 0);
}

#[test]
fn of_two_primaries_the_one_that_took_over_last_is_the_primary() {
    let primary =
        |id, previous_id, replicas| State { keys: 1, offset: 9, id, previous_id, replicas, ..State::default() };
    for (older, younger, expected) in [
        (primary("a", "0", 0), primary("b", "a", 0), 1),
        (primary("b", "a", 0), primary("a", "0", 0), 0),
        // It has no replica of this view, and its history is not known.
        (primary("a", "0", 1), primary("c", "b", 0), 0),
        (primary("a", "0", 0), primary("c", "b", 0), 1),
        // It is a primary no more.
        (State { primary: Some(1), ..primary("a", "0", 0) }, primary("b", "0", 0), 1),
        (primary("a", "0", 0), State { primary: Some(1), ..primary("b", "0", 3) }, 0),
    ] {
        let servers = [FakeRedis::start(0, older), FakeRedis::start(1, younger)];
        for seq in [0, 1, 2] {
            let pods = servers.each_ref().map(|server| server.with_role("primary"));
            let view = cluster(pods.into_iter().chain([pod(2)])).view_of(seq);
            let choice = failover::primary(&view).unwrap();
            assert_eq!((choice.primary.seq, choice.open), (expected, vec![]));
        }
    }
}

#[test]
fn claims_that_a_slow_redis_left_open_are_decided_by_a_later_check() {
    let state = |id, previous_id| State { keys: 1, offset: 9, id, previous_id, ..State::default() };
    let (older, younger) = (FakeRedis::start(0, state("a", "0")), FakeRedis::start(1, state("b", "a")));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let slow = Pod { ports: [(6379, port)].into(), ..younger.with_role("primary") };
    let view = cluster([older.with_role("primary"), slow]).view_of(0);
    let mut plugin = Redis::default();
    plugin.configured(&view).unwrap();
    assert!(older.changes().is_empty());
    // The other one answers from now on.
    let target = younger.port();
    thread::spawn(move || {
        for stream in silent.incoming() {
            let (mut from, mut to) = (stream.unwrap(), std::net::TcpStream::connect(("127.0.0.1", target)).unwrap());
            let (mut back, mut forth) = (to.try_clone().unwrap(), from.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut back, &mut forth));
            thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                to.shutdown(std::net::Shutdown::Both)
            });
        }
    });
    plugin.sanity_check(1).unwrap();
    assert_eq!(older.changes(), [format!("REPLICAOF 127.0.0.1 {port}")]);
}

#[test]
fn redis_that_is_started_with_data_does_not_follow_a_primary_without_data() {
    let first = FakeRedis::start(0, State { id: "a", previous_id: "0", ..State::default() });
    let second = FakeRedis::new(1, 3, 40, "b");
    let view = cluster([first.with_role("primary"), second.pod.clone()]).view_of(1);
    let error = Redis::default().ready(&view, 1).unwrap_err().to_string();
    let expected = format!("data of redis kept, because the primary at 127.0.0.1:{} has none: ", first.port());
    assert!(error.starts_with(&expected), "{error}");
    assert!(second.changes().is_empty());
    first.state.lock().unwrap().keys = 1;
    Redis::default().ready(&view, 1).unwrap();
    assert_eq!(second.changes(), [format!("REPLICAOF 127.0.0.1 {}", first.port())]);
}

#[test]
fn a_primary_that_was_started_again_without_data_becomes_a_replica_of_one_that_has_it() {
    let first = FakeRedis::new(0, 0, 0, "x");
    let second = FakeRedis::new(1, 3, 40, "a").following(&first);
    let third = FakeRedis::new(2, 3, 50, "a").following(&first);
    let servers = [&first, &second, &third];
    let (mut plugin, mut winner, mut other) = (Redis::default(), configured(2, &servers), configured(1, &servers));
    // Until then, all keep their data.
    other.sanity_check(1).unwrap();
    assert_eq!((second.changes(), second.primary()), (vec![], Some(first.port())));

    plugin.ready(&view_of(0, &servers), 1).unwrap();
    assert_eq!((first.primary(), third.primary()), (Some(third.port()), None));
    for _ in 0..2 {
        plugin.sanity_check(1).unwrap();
        winner.sanity_check(1).unwrap();
        other.sanity_check(1).unwrap();
    }
    assert_eq!(
        [&plugin, &winner, &other].map(|plugin| plugin.role),
        [Some("replica"), Some("primary"), Some("replica")]
    );
    assert_eq!((first.primary(), second.primary(), third.primary()), (Some(third.port()), Some(third.port()), None));
    assert_eq!(third.changes(), ["REPLICAOF NO ONE"]);

    // The next one that crashes has followed the first one before.
    *third.state.lock().unwrap() = State { primary: Some(1), ..State::default() };
    for redis in [&first, &second] {
        let mut state = redis.state.lock().unwrap();
        (state.keys, state.offset) = (3, 60);
    }
    winner.ready(&view_of(2, &servers), 1).unwrap();
    for _ in 0..2 {
        plugin.sanity_check(1).unwrap();
        other.sanity_check(1).unwrap();
        winner.sanity_check(1).unwrap();
    }
    assert_eq!((first.primary(), second.primary(), third.primary()), (None, Some(first.port()), Some(first.port())));
}

#[test]
fn a_primary_that_was_started_again_with_older_data_becomes_a_replica() {
    for (offset, is_newer) in [(50, false), (51, true)] {
        let first = FakeRedis::new(0, 2, 50, "a");
        let second = FakeRedis::new(1, 3, offset, "a").following(&first);
        let servers = [&first, &second];
        Redis::default().ready(&view_of(0, &servers), 1).unwrap();
        assert_eq!(first.primary(), is_newer.then_some(second.port()));
        assert_eq!(second.primary().is_none(), is_newer);
    }
}

#[test]
fn redis_becomes_the_primary_once_no_other_pod_may_have_more_data() {
    let first = FakeRedis::new(0, 0, 0, "x");
    let second = FakeRedis::new(1, 0, 0, "y");
    second.state.lock().unwrap().loading = true;
    let servers = [&first, &second];
    let mut plugin = Redis::default();
    let error = plugin.ready(&view_of(0, &servers), 1).unwrap_err().to_string();
    assert_eq!(error, "redis of pod seq 1 loads its data");
    // A check does not fail for it: that would stop the redis.
    assert_eq!(plugin.sanity_check(1).unwrap()["role"], "none");
    assert_eq!(plugin.role().as_deref(), Some(""));
    second.state.lock().unwrap().loading = false;
    plugin.ready(&view_of(0, &servers), 1).unwrap();
    assert_eq!((first.primary(), first.changes()), (None, vec!["REPLICAOF NO ONE".to_owned()]));
    assert!(second.changes().is_empty());

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = Pod { ip: "127.0.0.1".to_owned(), ports: [(6379, closed)].into(), ..pod(1) };
    let first = FakeRedis::new(0, 0, 0, "x");
    Redis::default().ready(&cluster([first.pod.clone(), gone]).view_of(0), 1).unwrap();
    assert_eq!(first.primary(), None);
}

#[test]
fn a_primary_keeps_its_data_until_that_of_the_cluster_is_one() {
    let first = FakeRedis::new(0, 0, 0, "x");
    let second = FakeRedis::start(1, State { keys: 3, id: "b", previous_id: "a", ..State::default() });
    let servers = [&first, &second];
    let mut plugin = configured(1, &servers);
    plugin.sanity_check(1).unwrap();
    assert!(second.changes().is_empty());
    // That one finds it.
    Redis::default().ready(&view_of(0, &servers), 1).unwrap();
    assert_eq!(first.primary(), Some(second.port()));
    plugin.sanity_check(1).unwrap();
    assert_eq!((plugin.role().as_deref(), second.changes().len()), (Some("primary"), 0));
}

#[test]
fn of_two_that_follow_each_other_the_one_with_data_becomes_the_primary() {
    for (keys, expected) in [([3, 0], 0), ([0, 3], 1), ([0, 0], 0)] {
        for order in [[0, 1], [1, 0]] {
            let first = FakeRedis::new(0, keys[0], 0, "a");
            let second = FakeRedis::new(1, keys[1], 0, "b").following(&first);
            let first = first.following(&second);
            let servers = [&first, &second];
            let mut plugins = [0, 1].map(|seq| configured(seq, &servers));
            // As after a change of the primary that no view has: each expects the other one.
            plugins[0].server.as_mut().unwrap().place.as_mut().unwrap().role =
                Role::ReplicaOf(server::reachable(&second.pod));
            for turn in order.into_iter().chain(order) {
                plugins[turn].sanity_check(1).unwrap();
            }
            let found = servers.map(|server| server.primary().is_none());
            assert_eq!(found, [expected == 0, expected == 1], "{keys:?} {order:?}");
        }
    }
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
    assert_eq!(requests.try_iter().collect::<Vec<_>>(), ["PING", "INFO"]);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let view = cluster([Pod { ports: [(6379, closed)].into(), ..server }]).view_of(0);
    let reason = Redis::default().ready(&view, 1).unwrap_err().to_string();
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
