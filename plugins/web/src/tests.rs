use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use super::*;
use ochopod_sdk::{
    Pod, json,
    testing::{cluster, pod},
};

fn set(pod: Pod, settings: &[(&str, &str)]) -> Pod {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Pod { settings, ..pod }
}

#[test]
fn pods_of_one_machine_bind_their_own_address_and_mapping() {
    let mapped = set(Pod { ports: [(8000, 7001)].into(), ..pod(4) }, &[("cluster", "web")]);
    let configuration = Server::of(&mapped).unwrap().configuration();
    assert!(configuration.contains("listen 127.0.0.6:7001;"), "{configuration}");
    assert!(configuration.contains("add_header X-Pod \"web-4\" always;"), "{configuration}");
}

#[test]
fn pod_with_a_machine_of_its_own_binds_all_addresses() {
    let alone = Pod { ip: "10.0.0.4".into(), ports: [(8000, 31000)].into(), ..pod(0) };
    let configuration = Server::of(&alone).unwrap().configuration();
    assert!(configuration.contains("listen 8000;\n"), "{configuration}");
    let chosen = set(Pod { ip: "10.0.0.4".into(), ..pod(0) }, &[("web_port", "80")]);
    assert!(Server::of(&chosen).unwrap().configuration().contains("listen 80;\n"));
}

#[test]
fn environment_describes_the_server_like_the_view() {
    for ip in ["127.0.0.2", "10.0.0.4", "::1"] {
        for mapped in [None, Some(7001)] {
            let me = Pod { ip: ip.into(), ports: mapped.map(|port| (8000, port)).into_iter().collect(), ..pod(0) };
            let me = set(me, &[("web_dir", "/srv/web")]);
            let variable = |name: &str| match name {
                "ochopod_ip" => Some(ip.to_owned()),
                "ochopod_web_dir" => Some("/srv/web".to_owned()),
                "PORT_8000" => mapped.map(|port| port.to_string()),
                _ => None,
            };
            let (of, by) = (Server::of(&me).unwrap(), Server::by(variable).unwrap());
            assert_eq!(by.command(), of.command(), "{ip} {mapped:?}");
        }
    }
}

#[test]
fn invalid_settings_and_missing_grants_are_named() {
    let error = |settings: &[(&str, &str)], guest: &str| {
        let server = Server::of(&set(pod(0), settings));
        server.and_then(|server| server.check(Path::new(guest))).unwrap_err().to_string()
    };
    assert!(error(&[], "/tmp").starts_with("ochopod_web_dir is not set"));
    assert!(error(&[("web_dir", "srv")], "/tmp").contains("expected an absolute path"));
    assert_eq!(
        error(&[("web_dir", "/srv")], "/nonexistent"),
        "directory not granted: requires --dir /srv::/nonexistent"
    );
    assert_eq!(error(&[("web_port", "http")], "/tmp"), "invalid ochopod_web_port \"http\": expected a port");
    for drain in ["-1", "soon", "1e9", "nan"] {
        assert!(server::drain(|_| Some(drain.to_owned())).is_err(), "{drain}");
    }
}

#[test]
fn pod_that_starts_again_no_longer_leaves() {
    let granted = tempfile::tempdir().unwrap();
    let server = Server::of(&set(pod(0), &[("web_dir", "/srv")])).unwrap();
    let directory = server.create_directory(granted.path()).unwrap();
    server.set_leaving(granted.path()).unwrap();
    assert!(directory.join("leaving").exists());
    server.create_directory(granted.path()).unwrap();
    assert!(!directory.join("leaving").exists());
    page::write(&directory, &cluster([pod(0)]).view_of(0)).unwrap();
    assert!(fs::read_to_string(directory.join("html/index.html")).unwrap().contains("Pod #0"));
}

/// Answers one request.
fn answer(reply: &'static str) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 64];
        let length = stream.read(&mut request).unwrap();
        stream.write_all(reply.as_bytes()).unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    let web = Server::of(&set(Pod { ip: "127.0.0.1".into(), ..pod(0) }, &[("web_port", &port)])).unwrap();
    let result = web.get("/health");
    assert_eq!(server.join().unwrap(), "GET /health HTTP/1.0\r\n\r\n");
    result
}

#[test]
fn only_200_is_healthy() {
    assert_eq!(answer("HTTP/1.1 200 OK\r\n\r\nok").unwrap(), "ok");
    assert!(answer("HTTP/1.1 404 Not Found\r\n\r\n").unwrap_err().to_string().contains("404 Not Found"));
    assert!(answer("SSH-2.0\r\n").unwrap_err().to_string().contains("expected HTTP"));
}

#[test]
fn status_of_nginx_becomes_metrics() {
    let status =
        "Active connections: 3 \nserver accepts handled requests\n 10 10 42 \nReading: 0 Writing: 1 Waiting: 2 \n";
    let found = server::metrics(status).unwrap();
    assert_eq!(
        (&found["active_connections"], &found["requests"], &found["waiting"]),
        (&json!(3), &json!(42), &json!(2))
    );
    assert!(server::metrics("nothing").is_err());
}

#[test]
fn nginx_that_is_slow_passes_and_one_that_does_not_listen_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let me = set(Pod { ip: "127.0.0.1".into(), ..pod(0) }, &[("web_port", &port)]);
    let mut web = Web { server: Some(Server::of(&me).unwrap()) };
    assert_eq!(web.sanity_check(1).unwrap(), Value::Null);
    drop(listener);
    assert!(web.sanity_check(1).unwrap_err().to_string().contains("cannot be reached"));
}
