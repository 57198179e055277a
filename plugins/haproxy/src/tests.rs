use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use super::*;
use configuration::ServerName;
use ochopod_sdk::{
    Pod, json,
    testing::{cluster, pod},
};

const ROUTES: &str = "8000=http://web*:8080?check=/health 5432=tcp://database:5433?role=primary";

/// Returns a pod of this cluster.
fn member(cluster: &str, seq: u64, ip: &str, role: &str) -> Pod {
    let settings = [("cluster", cluster), ("namespace", "marathon")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Pod { key: format!("{cluster}-{seq}"), ip: ip.to_owned(), role: role.to_owned(), settings, ..pod(seq) }
}

fn balancer(seq: u64, settings: &[(&str, &str)]) -> Pod {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Pod { settings, ..pod(seq) }
}

fn rendered(me: Pod, web: Vec<Pod>, database: Vec<Pod>) -> Result<(String, Vec<String>)> {
    let seq = me.seq;
    let view = cluster([me]).dependency("web*", web).dependency("database", database).view_of(seq);
    render(&Balancer::of(&view.me()?)?, &view)
}

/// Returns the lines of a section without indentation.
fn section<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let begin = text.lines().skip_while(|line| *line != format!("listen {name}"));
    begin.skip(1).take_while(|line| !line.is_empty()).map(str::trim).collect()
}

#[test]
fn servers_are_named_by_cluster_and_seq_in_their_order() {
    let web = vec![
        member("web-b", 1, "127.0.1.1", ""),
        member("web-a", 10, "127.0.1.2", ""),
        member("web-a", 9, "127.0.1.3", ""),
    ];
    let (text, skipped) = rendered(balancer(0, &[("haproxy_routes", ROUTES)]), web, vec![]).unwrap();
    let lines = section(&text, "port-8000");
    let servers: Vec<_> = lines.iter().filter(|line| line.starts_with("server ")).copied().collect();
    assert_eq!(
        servers,
        [
            "server web-a-9 127.0.1.3:8080 check",
            "server web-a-10 127.0.1.2:8080 check",
            "server web-b-1 127.0.1.1:8080 check"
        ]
    );
    assert!(lines.contains(&"bind 127.0.0.2:8000") && lines.contains(&"option httpchk GET /health"), "{lines:?}");
    assert!(skipped.is_empty());
    assert!(text.contains("stats socket ipv4@127.0.0.2:9999 level admin expose-fd listeners"), "{text}");
}

#[test]
fn only_pods_with_the_role_of_the_route_serve() {
    let database = vec![member("database", 0, "10.0.0.1", "replica"), member("database", 1, "10.0.0.2", "primary")];
    let (text, _) = rendered(balancer(0, &[("haproxy_routes", ROUTES)]), vec![], database).unwrap();
    let lines = section(&text, "port-5432");
    assert!(lines.contains(&"server database-0 10.0.0.1:5433 check disabled"), "{lines:?}");
    assert!(lines.contains(&"server database-1 10.0.0.2:5433 check"), "{lines:?}");
    assert!(lines.contains(&"mode tcp") && !text.contains("web"), "{text}");
    let name = |server: &str| ServerName { proxy: "port-5432".to_owned(), server: server.to_owned() };
    assert_eq!(servers_in(&text), [(name("database-0"), false), (name("database-1"), true)].into());
}

#[test]
fn clusters_of_several_namespaces_have_distinct_servers() {
    let routes = "80=http:///*.web:8000";
    let other = Pod {
        key: "other".into(),
        settings: [("cluster".into(), "web".into()), ("namespace".into(), "shop".into())].into(),
        ..member("web", 3, "10.0.0.2", "")
    };
    let view = cluster([balancer(0, &[("haproxy_routes", routes)])]);
    let view = view.dependency("/*.web", [member("web", 3, "10.0.0.1", ""), other]).view_of(0);
    let (text, _) = render(&Balancer::of(&view.me().unwrap()).unwrap(), &view).unwrap();
    assert!(text.contains("server marathon.web-3 10.0.0.1:8000") && text.contains("server shop.web-3 10.0.0.2:8000"));
}

#[test]
fn pod_that_does_not_expose_the_port_is_named() {
    let other = Pod { ports: [(80, 31000)].into(), ..member("web", 2, "10.0.0.3", "") };
    let mapped = Pod { ports: [(8080, 31000)].into(), ..member("web", 1, "10.0.0.2", "") };
    let (text, skipped) = rendered(balancer(0, &[("haproxy_routes", ROUTES)]), vec![mapped, other], vec![]).unwrap();
    assert!(text.contains("server web-1 10.0.0.2:31000 check\n") && !text.contains("web-2"), "{text}");
    assert_eq!(skipped, ["web-2: pod seq 2 at 10.0.0.3 does not expose port 8080, only 80"]);
}

#[test]
fn route_to_an_undeclared_dependency_names_the_flag() {
    let me = balancer(0, &[("haproxy_routes", "80=http://api:8000")]);
    let error = rendered(me, vec![], vec![]).unwrap_err().to_string();
    assert!(error.ends_with("requires --set depends_on=database,web*,api"), "{error}");
}

#[test]
fn addresses_follow_the_machine_and_the_mapping() {
    let bind = |pod: &Pod| {
        let balancer = Balancer::of(pod).unwrap();
        let route = balancer.routes().next().unwrap().clone();
        (balancer.bind(&route), balancer.runtime().worker.to_string())
    };
    let mapped = Pod { ports: [(8000, 7001), (9999, 7002)].into(), ..pod(0) };
    assert_eq!(bind(&mapped), ("127.0.0.2:7001".into(), "127.0.0.2:7002".into()));
    // The runtime API is not mapped: only the pod itself uses it.
    let mapped = Pod { ip: "10.0.0.4".into(), ports: [(8000, 31000)].into(), ..pod(0) };
    assert_eq!(bind(&mapped), (":8000".into(), "127.0.0.1:9999".into()));
    assert_eq!(bind(&Pod { ip: "fd00::4".into(), ..pod(0) }).0, "[::]:8000 v4v6");
    assert_eq!(bind(&Pod { ip: "::1".into(), ..pod(0) }), ("[::1]:8000".into(), "[::1]:9999".into()));
}

#[test]
fn environment_describes_the_balancer_like_the_view() {
    let settings = [("haproxy_dir", "/srv"), ("haproxy_routes", ROUTES), ("haproxy_runtime_port", "7000")];
    let me = Pod { ports: [(8000, 7001), (5432, 7002)].into(), ..balancer(0, &settings) };
    let variable = |name: &str| match name {
        "ochopod_ip" => Some(me.ip.clone()),
        "PORT_8000" => Some("7001".to_owned()),
        "PORT_5432" => Some("7002".to_owned()),
        _ => settings.iter().find(|(key, _)| name == format!("ochopod_{key}")).map(|(_, value)| (*value).to_owned()),
    };
    assert_eq!(Balancer::by(variable).unwrap(), Balancer::of(&me).unwrap());
}

#[test]
fn invalid_settings_and_missing_grants_are_named() {
    let error = |settings: &[(&str, &str)], guest: &str| {
        let balancer = Balancer::of(&balancer(0, settings));
        balancer.and_then(|balancer| balancer.check(Path::new(guest))).unwrap_err().to_string()
    };
    assert!(error(&[], "/tmp").starts_with("ochopod_haproxy_dir is not set"));
    assert!(error(&[("haproxy_dir", "srv")], "/tmp").contains("expected an absolute path"));
    assert!(error(&[("haproxy_dir", "/srv")], "/nonexistent").contains("requires --dir /srv::/nonexistent"));
    assert!(error(&[("haproxy_runtime_port", "x")], "/tmp").contains("expected a port"));
    assert!(error(&[("haproxy_runtime_port", "8000")], "/tmp").starts_with("port 8000 is used twice"));
}

#[test]
fn configuration_is_replaced_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let granted = directory.path();
    let balancer = Balancer::of(&balancer(0, &[("haproxy_dir", "/srv")])).unwrap();
    assert_eq!(balancer.written(granted), "");
    balancer.write(granted, "one").unwrap();
    balancer.write(granted, "two").unwrap();
    assert_eq!(balancer.written(granted), "two");
    assert_eq!(
        balancer.command().arguments,
        ["-W", "-S", "127.0.0.2:9998,level,admin", "-f", "/srv/haproxy-127.0.0.2-9999.cfg"]
    );
    assert_eq!(fs::read_dir(granted).unwrap().count(), 1);
}

#[test]
fn status_counts_the_servers_of_each_route() {
    let balancer = Balancer::of(&balancer(0, &[("haproxy_routes", ROUTES)])).unwrap();
    let metrics = json!({"port-8000": {"servers": 3, "servers_up": 2}});
    assert_eq!(status(&balancer, &metrics), "port 8000: 2 of 3 servers up, port 5432: 0 of 0 servers up");
}

/// A fake HAProxy: its servers, and the commands that it received.
#[derive(Clone, Default)]
struct FakeHaProxy {
    servers: Arc<Mutex<Vec<&'static str>>>,
    commands: Arc<Mutex<Vec<String>>>,
}

impl FakeHaProxy {
    /// Starts the runtime API of a worker or of a master, and returns its port. A reload replaces the servers, unless it fails.
    fn listen(&self, after_reload: impl Fn() -> Option<Vec<&'static str>> + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let fake = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let mut command = String::new();
                BufReader::new(&stream).read_line(&mut command).unwrap();
                let command = command.trim();
                if command == "show servers state" {
                    let mut reply = "1\n# be_name srv_name srv_admin_state\n".to_owned();
                    let row = |name: &&str| format!("port-80 {name} 0\n");
                    reply.extend(fake.servers.lock().unwrap().iter().map(row));
                    (&stream).write_all(reply.as_bytes()).unwrap();
                    continue;
                }
                fake.commands.lock().unwrap().push(command.to_owned());
                if command == "reload"
                    && let Some(servers) = after_reload()
                {
                    *fake.servers.lock().unwrap() = servers;
                }
            }
        });
        port
    }

    fn commands(&self) -> Vec<String> {
        std::mem::take(&mut self.commands.lock().unwrap())
    }
}

#[test]
fn configuration_is_loaded_again_after_a_reload_that_failed() {
    let fake = FakeHaProxy::default();
    *fake.servers.lock().unwrap() = vec!["web-0", "web-1"];
    let failures = Mutex::new(1);
    let master = fake.listen(move || {
        let mut failures = failures.lock().unwrap();
        let fails = *failures > 0;
        *failures -= i32::from(fails);
        (!fails).then(|| vec!["web-0", "web-2"])
    });
    let settings = [("haproxy_runtime_port", fake.listen(|| None)), ("haproxy_master_port", master)];
    let settings = settings.each_ref().map(|(name, port)| (*name, port.as_str()));
    let balancer = Balancer::of(&Pod { ip: "127.0.0.1".into(), ..balancer(0, &settings) }).unwrap();
    let [old, new] = ["web-1", "web-2"].map(|name| format!("listen port-80\nserver web-0 a:1\nserver {name} b:1\n"));

    let error = balancer.load(&old, &new).unwrap_err().to_string();
    assert_eq!(error, "haproxy did not load the new configuration, see its log");
    let requested = ["set server port-80/web-1 state drain", "reload"];
    assert_eq!(fake.commands(), requested);
    // The file is the new one by now.
    balancer.load(&new, &new).unwrap();
    assert_eq!(fake.commands(), requested);
    balancer.load(&new, &new).unwrap();
    assert!(fake.commands().is_empty());
}

#[test]
fn haproxy_that_is_slow_passes_and_one_that_does_not_listen_fails() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let me = Pod { ip: "127.0.0.1".into(), ..balancer(0, &[("haproxy_runtime_port", &port)]) };
    let mut haproxy = HaProxy { balancer: Some(Balancer::of(&me).unwrap()) };
    assert_eq!(haproxy.sanity_check(1).unwrap(), Value::Null);
    drop(listener);
    assert!(haproxy.sanity_check(1).unwrap_err().to_string().contains("cannot be reached"));
}
