use std::{
    cell::RefCell,
    fs,
    io::{Read, Write},
    net::TcpListener,
    rc::Rc,
    sync::mpsc::{Receiver, channel},
    thread,
};

use ochopod_sdk::{
    Model, Pod, serde_json,
    testing::{cluster, mock_exec, pod},
};

use super::*;

/// A directory that stands for the granted one.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap()
    }
}

fn member(seq: u64) -> Pod {
    Pod { settings: [("patroni_dir".to_owned(), "/srv/pg/".to_owned())].into(), ..pod(seq) }
}

fn zookeepers(count: u64) -> Vec<Pod> {
    (0..count).map(|seq| Pod { ports: [(2181, 7000 + u16::try_from(seq).unwrap())].into(), ..pod(seq) }).collect()
}

fn view_with(pods: &[Pod], zookeepers: Vec<Pod>) -> Cluster<'static> {
    cluster(pods.to_vec()).dependency("zookeeper", zookeepers).view_of(pods[0].seq)
}

fn configuration(me: &Pod) -> Value {
    let view = view_with(std::slice::from_ref(me), zookeepers(3));
    serde_json::from_str(&Server::of(me).unwrap().render(&view).unwrap()).unwrap()
}

/// Returns a pod whose Patroni answers each request with this code and body, and its requests.
fn patroni(seq: u64, code: u16, body: &Value) -> (Pod, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (requests_tx, requests) = channel();
    let reply = format!("HTTP/1.0 {code} X\r\nContent-Type: application/json\r\n\r\n{body}");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut request) = (stream.unwrap(), [0; 1024]);
            let length = stream.read(&mut request).unwrap();
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let _ = requests_tx.send(format!("{} {body}", head.lines().next().unwrap()));
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    let ports = [(8008, port), (5432, port)].into();
    (Pod { ip: "127.0.0.1".to_owned(), ports, ..member(seq) }, requests)
}

fn member_value(host: &str, role: &str, state: &str, lag: &Value) -> Value {
    json!({"name": format!("postgres-{host}"), "role": role, "state": state, "host": host, "port": 5432, "lag": lag})
}

fn at(pod: &Pod) -> Patroni {
    Patroni { server: Some(Server::of(pod).unwrap()), role: None }
}

#[test]
fn a_cluster_is_configured_only_with_three_zookeepers() {
    for (count, refusal) in [(0, Some("0 of 3")), (2, Some("2 of 3")), (3, None), (5, None)] {
        let checked = server::zookeepers(&view_with(&[member(0)], zookeepers(count)));
        match refusal {
            Some(text) => {
                let expected = format!("{text} pods of the cluster zookeeper");
                assert_eq!(checked.unwrap_err().to_string(), expected);
            }
            None => assert_eq!(checked.unwrap().len(), usize::try_from(count).unwrap()),
        }
    }
    let text =
        server::zookeepers(&view_with(&[member(0)], vec![Pod { ports: [(80, 1)].into(), ..pod(0) }, pod(1), pod(2)]));
    assert!(text.unwrap_err().to_string().contains("does not expose port 2181"));
}

#[test]
fn a_moved_ensemble_reloads_patroni_and_keeps_its_command() {
    let scratch = Scratch::new();
    let mut plugin = Patroni::default();
    let mut configure = |count| plugin.command(&view_with(&[member(0)], zookeepers(count)), scratch.0.path()).unwrap();
    let first = configure(3);
    assert_eq!(first.program, "/usr/bin/python3");
    assert_eq!(first.arguments, ["/srv/pg/postgres-127.0.0.2-5432.py", "/srv/pg/postgres-127.0.0.2-5432.yml"]);
    assert_eq!(configure(3).reload, None);
    let moved = configure(4);
    assert_eq!(moved.reload, Some(process::SIGHUP));
    assert_eq!((moved.program, moved.arguments), (first.program, first.arguments));
    let written: Value = serde_json::from_str(&scratch.read("postgres-127.0.0.2-5432.yml")).unwrap();
    assert_eq!(written["zookeeper"]["hosts"][3], "127.0.0.5:7003");
    assert_eq!(scratch.read("postgres-127.0.0.2-5432.py"), LAUNCHER);
}

#[test]
fn a_pod_on_loopback_binds_its_own_address_and_mapping() {
    let direct = configuration(&member(0));
    assert_eq!(direct["postgresql"]["listen"], "127.0.0.2:5432");
    assert_eq!(direct["restapi"]["listen"], "127.0.0.2:8008");
    let mapped = Pod { ports: [(5432, 7001), (8008, 7002)].into(), ..member(0) };
    assert_eq!(configuration(&mapped)["postgresql"]["listen"], "127.0.0.2:7001");
    assert_eq!(Server::of(&mapped).unwrap().own_api, "127.0.0.2:7002");
    assert_eq!(configuration(&mapped)["postgresql"]["data_dir"], "/srv/pg/postgres-127.0.0.2-7001");
}

#[test]
fn a_pod_with_a_machine_of_its_own_is_reached_by_loopback() {
    let direct = Pod { ip: "10.0.0.4".to_owned(), ..member(0) };
    assert_eq!(configuration(&direct)["postgresql"]["listen"], "10.0.0.4,127.0.0.1:5432");
    assert_eq!(Server::of(&direct).unwrap().own_api, "127.0.0.1:8008");
    let mapped = Pod { ports: [(5432, 31000), (8008, 31001)].into(), ..direct };
    let value = configuration(&mapped);
    assert_eq!(value["postgresql"]["listen"], "0.0.0.0:5432");
    assert_eq!(value["postgresql"]["connect_address"], "10.0.0.4:31000");
    assert_eq!(value["restapi"]["connect_address"], "10.0.0.4:31001");
}

#[test]
fn a_pod_with_an_ipv6_address_listens_for_both_families() {
    let direct = Pod { ip: "fd00::4".to_owned(), ..member(0) };
    let value = configuration(&direct);
    assert_eq!(value["postgresql"]["listen"], "fd00::4,127.0.0.1:5432");
    assert_eq!(value["postgresql"]["connect_address"], "[fd00::4]:5432");
    assert_eq!(
        (&value["restapi"]["listen"], &value["restapi"]["connect_address"]),
        (&json!("*:8008"), &json!("[fd00::4]:8008"))
    );
    // The pod connects by IPv4, which such a server sees as IPv6.
    assert_eq!(Server::of(&direct).unwrap().own_api, "127.0.0.1:8008");
    assert_eq!(value["restapi"]["allowlist"], json!(["127.0.0.0/8", "::1/128", "::ffff:127.0.0.0/104"]));
    let mapped = configuration(&Pod { ports: [(5432, 31000), (8008, 31001)].into(), ..direct.clone() });
    assert_eq!(mapped["postgresql"]["listen"], "*:5432");
    assert_eq!(mapped["restapi"]["listen"], "*:8008");
    let shared = configuration(&Pod { ip: "::1".to_owned(), ..direct });
    assert_eq!(shared["postgresql"]["listen"], "[::1]:5432");
    assert_eq!(shared["restapi"]["listen"], "[::1]:8008");
    let ipv4 = configuration(&Pod { ip: "10.0.0.4".to_owned(), ..member(0) });
    assert_eq!(ipv4["restapi"]["listen"], "0.0.0.0:8008");
}

#[test]
fn the_time_until_failover_bounds_patronis_loops() {
    let with = |ttl: &str| {
        let mut me = member(0);
        me.settings.insert("patroni_ttl".to_owned(), ttl.to_owned());
        me
    };
    let dcs = &configuration(&with("12"))["bootstrap"]["dcs"];
    assert_eq!((&dcs["ttl"], &dcs["loop_wait"], &dcs["retry_timeout"]), (&json!(12), &json!(4), &json!(4)));
    for bad in ["5", "soon", ""] {
        let text = Server::of(&with(bad)).unwrap_err().to_string();
        assert_eq!(text, format!("invalid ochopod_patroni_ttl {bad:?}: expected seconds, at least 6"));
    }
    let bare = Server::of(&pod(0)).unwrap_err().to_string();
    assert!(bare.starts_with("ochopod_patroni_dir is not set"), "{bare}");
}

#[test]
fn the_environment_describes_the_pod_like_the_view() {
    for ip in ["127.0.0.2", "10.0.0.4"] {
        for mapped in [None, Some(7001)] {
            let ports = mapped.into_iter().flat_map(|port| [(5432, port), (8008, port + 1)]).collect();
            let me = Pod { ip: ip.to_owned(), ports, ..member(0) };
            let variable = |name: &str| match name {
                "ochopod_ip" => Some(ip.to_owned()),
                "ochopod_patroni_dir" => Some("/srv/pg/".to_owned()),
                "PORT_5432" => mapped.map(|port| port.to_string()),
                "PORT_8008" => mapped.map(|port| (port + 1).to_string()),
                _ => None,
            };
            assert_eq!(Server::by(variable).unwrap(), Server::of(&me).unwrap(), "{ip} {mapped:?}");
        }
    }
    assert!(Server::by(|_| None).unwrap_err().to_string().contains("ochopod_ip"));
}

#[test]
fn only_a_running_holder_of_the_lock_is_primary() {
    for (code, state, role, ready) in [
        (200, "running", "primary", Ok(())),
        (503, "running", "replica", Ok(())),
        (503, "creating replica", "", Err("PostgreSQL is creating replica")),
        (200, "starting", "", Err("PostgreSQL is starting")),
    ] {
        let (me, _asks) = patroni(0, code, &json!({"state": state, "role": "master"}));
        let mut plugin = at(&me);
        let view = cluster([me]).view_of(0);
        assert_eq!(plugin.ready(&view, 1).map_err(|error| error.to_string()), ready.map_err(str::to_owned));
        assert_eq!(plugin.role().as_deref(), Some(role));
    }
}

#[test]
fn a_check_reports_the_lag_and_fails_if_patroni_does_not_answer() {
    // Both requests get the same reply, which has the keys of both.
    let name = Server::of(&member(0)).unwrap().name;
    let mut own = member_value("127.0.0.1", "replica", "running", &json!(42));
    own["name"] = json!("own");
    let primary = member_value("127.0.0.2", "leader", "running", &Value::Null);
    let body = json!({"state": "running", "timeline": 3, "members": [own, primary]});
    let (me, _asks) = patroni(0, 200, &body);
    let mut plugin = at(&me);
    plugin.server.as_mut().unwrap().name = "own".to_owned();
    let metrics = plugin.sanity_check(1).unwrap();
    assert_eq!((&metrics["lag_bytes"], &metrics["timeline"]), (&json!(42), &json!(3)));
    assert_eq!(metrics["primary"], "postgres-127.0.0.2");
    assert_ne!(name, "own");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = Pod { ip: "127.0.0.1".to_owned(), ports: [(8008, closed), (5432, closed)].into(), ..member(0) };
    let text = at(&gone).sanity_check(1).unwrap_err().to_string();
    assert!(text.starts_with(&format!("Patroni at 127.0.0.1:{closed} does not answer: ")), "{text}");
}

#[test]
fn a_signal_switches_over_from_the_primary() {
    let primary = member_value("127.0.0.2", "leader", "running", &Value::Null);
    let (me, requests) = patroni(0, 200, &json!({"members": [primary]}));
    let mut plugin = at(&me);
    plugin.signaled(Some(json!({"switchover": true})), Some(1)).unwrap();
    plugin.signaled(Some(json!({"switchover": "postgres-b"})), Some(1)).unwrap();
    let posts: Vec<String> = requests.try_iter().filter(|text| text.starts_with("POST")).collect();
    assert_eq!(
        posts,
        [
            r#"POST /switchover HTTP/1.0 {"candidate":null,"leader":"postgres-127.0.0.2"}"#,
            r#"POST /switchover HTTP/1.0 {"candidate":"postgres-b","leader":"postgres-127.0.0.2"}"#,
        ]
    );
    let own = plugin.signaled(Some(json!({"switchover": "postgres-127.0.0.2"})), Some(1));
    assert_eq!(own.unwrap_err().to_string(), "postgres-127.0.0.2 is the primary already");
    let text = plugin.signaled(Some(json!({"switchover": 1})), Some(1)).unwrap_err().to_string();
    assert!(text.starts_with("expected no body, "), "{text}");
    assert_eq!(plugin.signaled(None, None).unwrap_err().to_string(), "Patroni is not running");

    let refused = api::switch_over(&patroni(1, 412, &json!("no candidate")).0.address(8008, false).unwrap(), "a", None);
    assert_eq!(refused.unwrap_err().to_string(), "Patroni refused the switchover: \"no candidate\"");
}

#[test]
fn the_probe_reports_primary_and_lag() {
    let primary = member_value("127.0.0.1", "leader", "running", &Value::Null);
    let replica = |state: &str, lag: Value| member_value("127.0.0.3", "replica", state, &lag);
    let one = |members: Value| {
        let (first, _asks) = patroni(0, 200, &json!({"members": members}));
        Replication.probe(&cluster([first, member(1)]).view_of(0)).map_err(|error| error.to_string())
    };
    let good = one(json!([primary, replica("running", json!(7))])).unwrap().unwrap();
    assert_eq!(good, "primary 127.0.0.1:5432, 1 of 1 replicas, lag 7 bytes");
    let starting = one(json!([primary, replica("starting", json!("unknown"))])).unwrap_err();
    assert_eq!(starting, "primary 127.0.0.1:5432, 0 of 1 replicas, lag 0 bytes");
    assert_eq!(one(json!([replica("running", json!(0))])).unwrap_err(), "no primary: 1 members");
}

#[test]
fn the_probe_asks_another_pod_if_the_first_does_not_answer() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = Pod { ip: "127.0.0.1".to_owned(), ports: [(8008, closed)].into(), ..member(0) };
    let primary = member_value("127.0.0.1", "leader", "running", &Value::Null);
    let (second, _asks) = patroni(1, 200, &json!({"members": [primary]}));
    let text = Replication.probe(&cluster([gone.clone(), second]).view_of(0)).unwrap_err().to_string();
    assert!(text.starts_with("primary 127.0.0.1:5432"), "{text}");
    let text = Replication.probe(&cluster([gone]).view_of(0)).unwrap_err().to_string();
    assert!(text.contains("does not answer"), "{text}");
}

#[test]
fn a_postgresql_that_patroni_left_is_stopped_at_the_end() {
    let scratch = Scratch::new();
    let me = Server::of(&member(0)).unwrap();
    let files = Files::of(&me, scratch.0.path());
    let runs = Rc::new(RefCell::new(Vec::new()));
    let (recorded, output) = (Rc::clone(&runs), exec::Output::default());
    mock_exec(move |argv, _| {
        recorded.borrow_mut().push(argv.join(" "));
        Ok(output.clone())
    });
    stop_server(&me, &files).unwrap();
    assert!(runs.borrow().is_empty());
    fs::create_dir_all(scratch.0.path().join(&me.name)).unwrap();
    fs::write(scratch.0.path().join(&me.name).join("postmaster.pid"), "1").unwrap();
    stop_server(&me, &files).unwrap();
    assert_eq!(*runs.borrow(), ["pg_ctl -D /srv/pg/postgres-127.0.0.2-5432 -m fast -t 2 stop"]);
    mock_exec(|_, _| Ok(exec::Output { code: 1, stderr: b"no\n".to_vec(), ..exec::Output::default() }));
    assert_eq!(stop_server(&me, &files).unwrap_err().to_string(), "PostgreSQL not stopped: no");
}
