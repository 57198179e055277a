use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::*;
use decision::{Serving, formed, joined};
use ensemble::Ensemble;
use model::{Change, next_change};
use ochopod_sdk::{
    Pod, exec,
    testing::{self, cluster, pod},
};
use server::Options;

const SETTINGS: [(&str, &str); 2] = [("zookeeper_dir", "/srv/zk"), ("zookeeper_jaas", "/srv/jaas.conf")];

fn set(pod: Pod, settings: &[(&str, &str)]) -> Pod {
    let all = SETTINGS.iter().chain(settings);
    let settings = all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Pod { settings, ..pod }
}

fn servers(seqs: &[u64]) -> Vec<Server> {
    seqs.iter().map(|seq| Server::of(&pod(*seq)).unwrap()).collect()
}

fn ensemble(seqs: &[u64]) -> Ensemble {
    Ensemble { version: "100000000".to_owned(), ..formed(&servers(seqs)).unwrap() }
}

/// Returns an ensemble whose servers with these numbers serve, and so many more.
fn found(voters: &[u64], serving: &[u64], others: usize) -> Serving {
    let (ensemble, clients) = (ensemble(voters), clients(serving));
    Serving { ensemble, clients, connected: serving.len() + others, ids: BTreeMap::new() }
}

fn clients(seqs: &[u64]) -> Vec<String> {
    servers(seqs).iter().map(Server::client).collect()
}

#[test]
fn pods_without_data_have_ids_and_addresses_from_the_view() {
    let text = formed(&servers(&[3, 0, 255])).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("already has the id 1 of pod #255"), "{text}");
    let lines = formed(&servers(&[0, 3])).unwrap().text();
    assert_eq!(
        lines,
        "server.1=127.0.0.2:2888:3888:participant;127.0.0.2:2181\n\
         server.4=127.0.0.5:2888:3888:participant;127.0.0.5:2181\n"
    );
}

#[test]
fn servers_bind_the_ports_under_which_others_reach_them() {
    let mapped = Pod { ports: [(2181, 31000), (2888, 31001), (3888, 31002)].into(), ..pod(0) };
    let line = |pod: &Pod| Server::of(pod).unwrap().listed(1).line();
    assert_eq!(line(&mapped), "server.1=127.0.0.2:31001:31002:participant;127.0.0.2:31000");
    let alone = Pod { ip: "10.0.0.4".into(), ..pod(0) };
    assert_eq!(line(&alone), "server.1=10.0.0.4:2888:3888:participant;0.0.0.0:2181");
    assert_eq!(Server::of(&alone).unwrap().own_client(), "127.0.0.1:2181");
    let chosen = set(pod(0), &[("zookeeper_client_port", "7000"), ("zookeeper_quorum_port", "7001")]);
    assert_eq!(line(&chosen), "server.1=127.0.0.2:7001:3888:participant;127.0.0.2:7000");
    assert!(Server::of(&Pod { ports: [(2181, 31000)].into(), ..pod(0) }).is_err(), "a port is not reachable");
}

#[test]
fn environment_describes_the_server_like_the_view() {
    let me = Pod { ports: [(2181, 7000), (2888, 7001), (3888, 7002)].into(), ..pod(0) };
    let variable = |name: &str| match name {
        "ochopod_ip" => Some("127.0.0.2".to_owned()),
        "PORT_2181" => Some("7000".to_owned()),
        "PORT_2888" => Some("7001".to_owned()),
        "PORT_3888" => Some("7002".to_owned()),
        _ => None,
    };
    assert_eq!(Server::by(variable).unwrap(), Server::of(&me).unwrap());
    assert!(Server::by(|_| None).unwrap_err().to_string().contains("ochopod_ip"));
}

#[test]
fn invalid_settings_are_named() {
    let error = |settings: &[(&str, &str)]| Options::of(&set(pod(0), settings)).unwrap_err().to_string();
    assert!(Options::of(&pod(0)).unwrap_err().to_string().starts_with("ochopod_zookeeper_dir is not set"));
    assert!(error(&[("zookeeper_jaas", "jaas.conf")]).contains("expected an absolute path"));
    for size in ["0", "2", "4", "11", "three"] {
        assert!(error(&[("zookeeper_size", size)]).contains("expected an odd number"), "{size}");
    }
    assert!(error(&[("zookeeper_tick", "0")]).contains("expected milliseconds"));
    let bad = set(pod(0), &[("zookeeper_client_port", "x")]);
    assert!(Server::of(&bad).unwrap_err().to_string().contains("ochopod_zookeeper_client_port"));
}

#[test]
fn password_is_in_no_file_or_command_of_the_plugin() {
    let granted = tempfile::tempdir().unwrap();
    let me = set(pod(4), &[("zookeeper_java", "-Xmx96m -XX:+UseSerialGC"), ("zookeeper_tick", "500")]);
    let (server, options) = (Server::of(&me).unwrap(), Options::of(&me).unwrap());
    let files = server.files(granted.path());
    files.create(&server, &options, 5, &ensemble(&[0, 4])).unwrap();
    let directory = granted.path().join("zookeeper-127.0.0.6-2888");
    let configuration = fs::read_to_string(directory.join("zoo.cfg")).unwrap();
    for line in [
        "dataDir=/srv/zk/zookeeper-127.0.0.6-2888/data",
        "tickTime=500",
        "reconfigEnabled=true",
        "standaloneEnabled=false",
        "admin.enableServer=false",
        "4lw.commands.whitelist=mntr,srvr,ruok,conf",
        "dynamicConfigFile=/srv/zk/zookeeper-127.0.0.6-2888/zoo.cfg.dynamic",
    ] {
        assert!(configuration.lines().any(|found| found == line), "{line} is not in {configuration}");
    }
    assert!(!configuration.contains("skipACL") && !configuration.contains("Digest"), "{configuration}");
    let command = options.command(&server).arguments.join(" ");
    assert!(
        command.starts_with("-Xmx96m -XX:+UseSerialGC -Djava.security.auth.login.config=/srv/jaas.conf"),
        "{command}"
    );
    assert!(command.ends_with("QuorumPeerMain /srv/zk/zookeeper-127.0.0.6-2888/zoo.cfg"), "{command}");
    assert_eq!((files.id(), files.has_data()), (Some(5), false));
    assert_eq!(files.ensemble().unwrap().servers, ensemble(&[0, 4]).servers);
}

#[test]
fn data_keeps_its_id_and_ensemble_until_the_server_is_removed() {
    let granted = tempfile::tempdir().unwrap();
    let me = set(pod(4), &[]);
    let (server, options) = (Server::of(&me).unwrap(), Options::of(&me).unwrap());
    let files = server.files(granted.path());
    files.create(&server, &options, 5, &ensemble(&[0, 4])).unwrap();
    // As ZooKeeper leaves it after a change.
    let directory = granted.path().join("zookeeper-127.0.0.6-2888");
    let configuration = fs::read_to_string(directory.join("zoo.cfg")).unwrap();
    fs::write(directory.join("zoo.cfg"), configuration.replace("cfg.dynamic", "cfg.dynamic.100000003")).unwrap();
    fs::write(directory.join("zoo.cfg.dynamic.100000003"), ensemble(&[0, 1, 4]).text()).unwrap();
    fs::create_dir_all(directory.join("data/version-2")).unwrap();
    fs::write(directory.join("data/version-2/currentEpoch"), "1").unwrap();
    assert!(files.has_data());

    files.keep(&server, &options).unwrap();
    assert_eq!((files.id(), files.ensemble().unwrap().servers.len()), (Some(5), 3));
    assert_eq!(files.ensemble().unwrap().version, "100000003");

    files.create(&server, &options, 9, &ensemble(&[0, 4])).unwrap();
    assert_eq!((files.id(), files.has_data()), (Some(9), false));
    assert!(granted.path().join("zookeeper-127.0.0.6-2888.removed/data/version-2").exists());
}

#[test]
fn voters_change_one_at_a_time_and_additions_come_first() {
    let next = |pods: &[u64], voters: &[u64], serving: &[u64]| next_change(&servers(pods), &found(voters, serving, 0));
    let added = |change: Result<Option<Change>>| match change.unwrap() {
        Some(Change::Add(listed)) => listed.id,
        other => panic!("{other:?}"),
    };
    assert_eq!(next(&[0, 1, 2], &[0, 1, 2], &[0, 1, 2]).unwrap(), None);
    assert_eq!(added(next(&[0, 1, 2, 3, 4], &[0, 1, 2], &[0, 1, 2, 3, 4])), 4);
    assert_eq!(added(next(&[0, 1, 2, 3, 4], &[0, 1, 2, 3], &[0, 1, 2, 3, 4])), 5);
    // One that does not serve yet is not added.
    assert_eq!(next(&[0, 1, 2, 3], &[0, 1, 2], &[0, 1, 2]).unwrap(), None);
    assert_eq!(next(&[0, 1, 2], &[0, 1, 2, 3, 4], &[0, 1, 2]).unwrap(), Some(Change::Remove(4)));
    assert_eq!(added(next(&[0, 1, 3], &[0, 1, 2], &[0, 1, 3])), 4);
}

#[test]
fn voter_whose_pod_runs_another_server_is_removed_and_its_pod_added() {
    // The pod 0 lost its data while no server served, and has the id 9.
    let mut lost = found(&[0, 1, 2], &[0, 1, 2], 0);
    lost.ids = clients(&[0, 1, 2]).into_iter().zip([9, 2, 3]).collect();
    assert_eq!(next_change(&servers(&[0, 1, 2]), &lost).unwrap(), Some(Change::Remove(1)));
    lost.ensemble = ensemble(&[1, 2]);
    match next_change(&servers(&[0, 1, 2]), &lost).unwrap() {
        Some(Change::Add(listed)) => assert_eq!(listed.line(), servers(&[0])[0].listed(9).line()),
        other => panic!("{other:?}"),
    }
    // Two of four others do not vote either: the removal would cost the quorum.
    let mut lost = found(&[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4], 0);
    lost.ids = clients(&[0, 1, 2, 3, 4]).into_iter().zip([7, 8, 9, 4, 5]).collect();
    let error = next_change(&servers(&[0, 1, 2, 3, 4]), &lost).unwrap_err().to_string();
    assert_eq!(error, "server 127.0.0.2:2888 not removed: 2 of 4 servers would be no quorum");
    // Servers that report no id are those of the ensemble.
    let unknown = found(&[0, 1, 2], &[0, 1, 2], 0);
    assert_eq!(next_change(&servers(&[0, 1, 2]), &unknown).unwrap(), None);
}

#[test]
fn change_that_would_cost_the_quorum_or_a_running_server_is_refused() {
    let error = next_change(&servers(&[0, 1]), &found(&[0, 1, 2, 3], &[0], 0)).unwrap_err();
    assert!(error.to_string().ends_with("1 of 3 servers would be no quorum"), "{error}");
    let error = next_change(&servers(&[0, 1]), &found(&[0, 1, 2], &[0, 1], 1)).unwrap_err();
    assert_eq!(error.to_string(), "server 127.0.0.4:2888 not removed: 3 servers run, 2 of them in the view");
}

#[test]
fn pod_that_joins_knows_the_others_and_itself() {
    let me = Server::of(&pod(7)).unwrap();
    let found = joined(&me, &ensemble(&[0, 1])).unwrap();
    assert_eq!(found.servers.iter().map(|listed| listed.id).collect::<Vec<_>>(), [1, 2, 8]);
    let again = joined(&me, &found).unwrap();
    assert_eq!(again.servers.len(), 3, "its earlier server is replaced");
}

#[test]
fn client_of_zookeeper_gets_the_login_and_the_version_and_its_refusal_is_reported() {
    let options = Options::of(&set(pod(0), &[])).unwrap();
    testing::mock_exec(|argv, stdin| {
        let command = argv.join(" ");
        assert!(command.starts_with("java ") && command.contains("login.config=/srv/jaas.conf"), "{command}");
        assert!(command.contains("-server 127.0.0.2:2181,127.0.0.3:2181 reconfig -v 100000000 -"), "{command}");
        assert!(stdin.is_empty());
        if command.ends_with("-remove 3") {
            let stderr = b"Insufficient permission : \n".to_vec();
            return Ok(exec::Output { code: 1, stderr, ..exec::Output::default() });
        }
        let stdout = b"Committed new configuration:\nserver.1=\xe2".to_vec();
        Ok(exec::Output { code: 0, stdout, ..exec::Output::default() })
    });
    let (serving, known) = (clients(&[0, 1]), ensemble(&[0, 1]));
    reconfig::add(&options, &serving, &known, &servers(&[5])[0].listed(6)).unwrap();
    let error = reconfig::remove(&options, &serving, &known, 3).unwrap_err();
    assert_eq!(error.to_string(), "reconfig -remove 3 failed: Insufficient permission");
}

/// Starts a server that answers one connection: reads so many bytes, then sends a part, for each part.
fn server(parts: Vec<(usize, Vec<u8>)>) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for (request, reply) in parts {
            stream.read_exact(&mut vec![0; request]).unwrap();
            stream.write_all(&reply).unwrap();
        }
    });
    (address, server)
}

fn packet(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

#[test]
fn ensemble_is_read_from_a_running_server() {
    let text = ensemble(&[0, 1]).text() + "version=100000005";
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    let reply = packet(&[&[0; 16], &length, text.as_bytes(), &[0; 68]]);
    let (address, server) = server(vec![(49, packet(&[&[0; 37]])), (34, reply), (12, packet(&[&[0; 16]]))]);
    let found = client::ensemble(&address, TIMEOUT).unwrap();
    assert_eq!((found.version.as_str(), found.servers), ("100000005", ensemble(&[0, 1]).servers));
    server.join().unwrap();
}

#[test]
fn hostile_answers_are_errors() {
    for reply in [
        packet(&[&[0; 15]]),
        packet(&[&[0; 12], &(-101_i32).to_be_bytes()]),
        packet(&[&[0; 16], &u32::MAX.to_be_bytes()]),
        packet(&[&[0; 16], &9_u32.to_be_bytes(), b"short"]),
        packet(&[&[0; 16], &2_u32.to_be_bytes(), b"\xff\xff"]),
        i32::MAX.to_be_bytes().to_vec(),
        (-1_i32).to_be_bytes().to_vec(),
    ] {
        let (address, server) = server(vec![(49, packet(&[&[0; 37]])), (34, reply.clone())]);
        assert!(client::ensemble(&address, TIMEOUT).is_err(), "{reply:?}");
        server.join().unwrap();
    }
}

#[test]
fn state_is_read_with_and_without_a_quorum() {
    let query = |reply: &str| {
        let (address, server) = server(vec![(4, reply.as_bytes().to_vec())]);
        let answer = client::query(&address, TIMEOUT);
        server.join().unwrap();
        answer
    };
    let reply =
        "zk_version\t3.8.0-1, built on x\nzk_server_state\tleader\nzk_synced_followers\t2\nzk_avg_latency\t0.5\n";
    let ServerState::Serving(state) = query(reply).unwrap() else { panic!("it serves") };
    let metrics = metrics(&state);
    assert_eq!((&metrics["version"], &metrics["role"]), (&json!("3.8.0"), &json!("leader")));
    assert_eq!(metrics["synced_followers"], 2);
    assert_eq!(query("This ZooKeeper instance is not currently serving requests\n").unwrap(), ServerState::NoQuorum);
    assert!(query("SSH-2.0").unwrap_err().to_string().contains("is in use by another program"));
    let text = query("mntr is not executed because it is not in the whitelist.\n").unwrap_err().to_string();
    assert!(text.contains("is in use by another ZooKeeper"), "{text}");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(client::query(&free, Duration::from_secs(1)).unwrap(), ServerState::NotListening);
}

/// A server with a port for clients that answers each connection, until it is dropped.
struct Fake {
    pod: Pod,
    ensemble: Arc<Mutex<Ensemble>>,
}

impl Fake {
    /// Starts the leader of an ensemble with this id, or a server without a quorum.
    fn start(seq: u64, id: Option<u64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pod = mapped(seq, listener.local_addr().unwrap().port());
        let ensemble = Arc::new(Mutex::new(Ensemble::default()));
        let shown = Arc::clone(&ensemble);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut word) = (stream.unwrap(), [0; 4]);
                if stream.read_exact(&mut word).is_err() {
                    continue;
                }
                let text = match (&word, id) {
                    (b"mntr" | b"conf", None) => {
                        "This ZooKeeper instance is not currently serving requests\n".to_owned()
                    }
                    (b"mntr", _) => "zk_server_state\tleader\nzk_learners\t0\n".to_owned(),
                    (b"conf", Some(id)) => format!("clientPort=2181\nserverId={id}\n"),
                    _ => {
                        let shown = shown.lock().unwrap().clone();
                        let text = format!("{}version={}", shown.text(), shown.version);
                        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
                        stream.read_exact(&mut [0; 45]).unwrap();
                        stream.write_all(&packet(&[&[0; 37]])).unwrap();
                        stream.read_exact(&mut [0; 34]).unwrap();
                        stream.write_all(&packet(&[&[0; 16], &length, text.as_bytes()])).unwrap();
                        continue;
                    }
                };
                stream.write_all(text.as_bytes()).unwrap();
            }
        });
        Self { pod, ensemble }
    }
}

/// Returns a pod at 127.0.0.1 with this port for clients.
fn mapped(seq: u64, client: u16) -> Pod {
    let quorum = 2000 + u16::try_from(seq).unwrap();
    let ports = [(2181, client), (2888, quorum), (3888, 3000 + quorum)].into();
    set(Pod { ip: "127.0.0.1".into(), ports, ..pod(seq) }, &[])
}

/// Returns a pod whose port for clients nothing listens at.
fn stopped(seq: u64) -> Pod {
    mapped(seq, TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
}

/// Returns an ensemble of the servers of pods, with these ids.
fn listing(version: &str, pods: &[(u64, &Pod)]) -> Ensemble {
    let servers = pods.iter().map(|(id, pod)| Server::of(pod).unwrap().listed(*id)).collect();
    Ensemble { version: version.to_owned(), servers }
}

/// Writes the files of a pod's server, as it left them after its ensemble had this state.
fn with_data(granted: &Path, pod: &Pod, id: u64, known: &Ensemble) -> server::Files {
    let (server, options) = (Server::of(pod).unwrap(), Options::of(pod).unwrap());
    let files = server.files(granted);
    files.create(&server, &options, id, known).unwrap();
    let directory = granted.join(server.name());
    let configuration = fs::read_to_string(directory.join("zoo.cfg")).unwrap();
    let name = format!("cfg.dynamic.{}", known.version);
    fs::write(directory.join("zoo.cfg"), configuration.replace("cfg.dynamic", &name)).unwrap();
    fs::write(directory.join(format!("zoo.{name}")), known.text()).unwrap();
    fs::create_dir_all(directory.join("data/version-2")).unwrap();
    fs::write(directory.join("data/version-2/currentEpoch"), "1").unwrap();
    assert!(files.has_data());
    files
}

#[test]
fn last_copy_of_the_data_is_kept_if_empty_servers_have_formed_an_ensemble() {
    let granted = tempfile::tempdir().unwrap();
    let (other, own) = (Fake::start(3, Some(4)), stopped(5));
    let (lost, gone) = (stopped(4), stopped(0));
    let known = listing("100000000", &[(1, &other.pod), (2, &lost), (3, &own)]);
    let files = with_data(granted.path(), &own, 3, &known);
    let view = cluster([other.pod.clone(), lost.clone(), own.clone()]).view_of(5);
    let started = || decision::command(&view, granted.path()).map_err(|error| error.to_string());
    let kept = |reason: &str| {
        testing::mock_exec(|argv, _| panic!("{argv:?}"));
        let text = started().unwrap_err();
        assert!(
            text.starts_with(&format!("data of server 3 kept, because the ensemble that serves {reason}: ")),
            "{text}"
        );
        assert!(files.has_data() && files.id() == Some(3));
    };

    // It lists the address under the id that the pod would have without data.
    *other.ensemble.lock().unwrap() = listing("100000000", &[(4, &other.pod), (5, &lost), (6, &own)]);
    kept("has its address as server 6");
    // It was formed while the pod was not in the view.
    *other.ensemble.lock().unwrap() = listing("100000000", &[(4, &other.pod), (5, &lost), (7, &gone)]);
    kept("does not have it and is not a later state of the one in its files");
    *other.ensemble.lock().unwrap() = listing("200000000", &[(4, &other.pod), (5, &lost), (7, &gone)]);
    kept("does not have it and is not a later state of the one in its files");
    // The pods have the same ids again, because the store in which they register is new.
    *other.ensemble.lock().unwrap() = listing("80000000", &[(1, &other.pod), (2, &lost), (3, &own)]);
    kept("is older than the one in its files");

    // Its own ensemble serves: with it, without it after its removal, or with the earlier id of a server that lost its data.
    *other.ensemble.lock().unwrap() = listing("100000007", &[(1, &other.pod), (3, &own)]);
    started().unwrap();
    assert!(files.has_data());
    *other.ensemble.lock().unwrap() = listing("100000009", &[(1, &other.pod), (9, &gone)]);
    started().unwrap();
    assert_eq!((files.has_data(), files.id()), (false, Some(6)));
    let known = listing("100000009", &[(1, &other.pod), (3, &own)]);
    let files = with_data(granted.path(), &own, 8, &known);
    *other.ensemble.lock().unwrap() = known;
    testing::mock_exec(|argv, _| {
        assert!(argv.ends_with(&["-remove".to_owned(), "3".to_owned()]), "{argv:?}");
        Ok(exec::Output { stdout: b"Committed new configuration:".to_vec(), ..exec::Output::default() })
    });
    started().unwrap();
    assert_eq!((files.has_data(), files.id()), (false, Some(6)));
}

#[test]
fn ids_are_those_that_servers_report() {
    let (one, none) = (Fake::start(0, Some(9)), Fake::start(1, None));
    let clients = [&one, &none].map(|fake| Server::of(&fake.pod).unwrap().client());
    let found = Serving { clients: clients.to_vec(), ..Serving::default() }.with_ids();
    assert_eq!(found.ids, [(clients[0].clone(), 9)].into());
}

#[test]
fn server_without_a_quorum_is_ready_late_if_servers_are_started_after_it() {
    let granted = tempfile::tempdir().unwrap();
    let (own, lost, later) = (Fake::start(1, None), Fake::start(0, None), stopped(2));
    with_data(granted.path(), &own.pod, 2, &listing("100000000", &[(1, &lost.pod), (2, &own.pod), (3, &later)]));
    let ready = |other: &Pod, later: &Pod, seconds| {
        let view = cluster([other.clone(), own.pod.clone(), later.clone()]).view_of(1);
        decision::check_ready(&view, granted.path(), Duration::from_secs(seconds)).map_err(|error| error.to_string())
    };
    let waits = Err("no quorum yet, although 2 of 3 servers listen".to_owned());
    assert_eq!(ready(&lost.pod, &later, 19), waits);
    assert_eq!(ready(&lost.pod, &later, 20), Ok(()));
    let started = Pod { started: true, ..later.clone() };
    assert_eq!(ready(&lost.pod, &started, 20), waits, "none is started later");
    // A quorum serves, and one more server must not be stopped.
    let serving = Fake::start(0, Some(1));
    with_data(granted.path(), &own.pod, 2, &listing("100000000", &[(1, &serving.pod), (2, &own.pod), (3, &later)]));
    assert_eq!(ready(&serving.pod, &later, 20), waits);
}

#[test]
fn view_without_enough_pods_or_grant_is_rejected() {
    let error =
        |pods: Vec<Pod>| decision::check(&cluster(pods).view_of(0), Path::new(DIRECTORY)).unwrap_err().to_string();
    assert!(error(vec![set(pod(0), &[])]).contains("requires --dir /srv/zk::/data"));
    assert!(!Path::new(DIRECTORY).join("zookeeper-127.0.0.2-2888").exists());
    assert!(error(vec![set(pod(0), &[("zookeeper_size", "2")])]).contains("expected an odd number"));
}

#[test]
fn server_that_is_slow_passes_and_one_that_does_not_listen_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let me = set(Pod { ip: "127.0.0.1".into(), ..pod(0) }, &[("zookeeper_client_port", &port)]);
    let mut own = ZooKeeper { server: Some(Server::of(&me).unwrap()), role: Some("leader") };
    assert_eq!(own.sanity_check(1).unwrap(), json!({"serving": false}));
    assert_eq!(own.role(), None, "the last role stays");
    drop(listener);
    assert!(own.sanity_check(1).unwrap_err().to_string().contains("does not listen"));
}
