//! Requests that only read: `/info`, `/log`, health, metrics.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ochopod_model::status::{CommandReport, ProcessState, Role};
use ochopod_store::ActiveRegistration;

use super::*;

fn registered(seq: u64) -> ActiveRegistration {
    ActiveRegistration { seq, at: Instant::now(), after_loss: false }
}

#[tokio::test]
async fn info_is_returned_by_get_and_post() {
    let served = TestServer::start().await;
    served.membership.send_modify(|membership| {
        membership.registered = Some(registered(3));
        membership.state = SessionState::Connected;
    });
    let expected = json!({
        "application": "shop/web", "binding": "marathon", "cluster": "web", "command": null, "cordon": null,
        "dependencies": ["db"], "epoch": null, "ip": "10.0.0.1", "key": ID, "last_exit": null, "leader": null,
        "metrics": {}, "namespace": "marathon", "next_start": null, "node": "agent-7", "pid": null,
        "plugin": {"digest": "", "name": "", "version": null}, "port": "8080", "ports": {"8080": 31000},
        "process": "stopped", "public": "54.0.0.1", "ready": false, "reason": "never configured", "restarts": 0,
        "role": null, "seq": 3, "session": "connected", "settings": {"lifecycle": {"checks": 1}}, "since": null,
        "started": null, "state": "follower", "status": "", "task": "web.1",
    });
    for answer in [served.get("/info?x=1").await, served.post("/info", "{}").await] {
        assert_eq!((answer.status, answer.json()), (200, expected.clone()));
    }
}

#[tokio::test]
async fn info_follows_every_change_and_keeps_the_number_without_a_session() {
    let served = TestServer::start().await;
    assert_eq!(served.get("/info").await.json()["seq"], Value::Null);
    served.membership.send_modify(|membership| membership.registered = Some(registered(3)));
    assert_eq!(served.get("/info").await.json()["seq"], 3);
    served.membership.send_modify(|membership| {
        membership.registered = None;
        membership.state = SessionState::Suspended;
    });
    let info = served.get("/info").await.json();
    assert_eq!((&info["seq"], &info["session"]), (&json!(3), &json!("suspended")));
    served.lifecycle.send_modify(|report| {
        report.process = ProcessState::Running;
        report.metrics = json!({"cpu": 0.5}).as_object().unwrap().clone();
    });
    let info = served.get("/info").await.json();
    assert_eq!((&info["process"], &info["metrics"]), (&json!("running"), &json!({"cpu": 0.5})));
    served.leader.send_replace(LeaderReport {
        role: Role::Configuring,
        status: "* configuring 2 pods".into(),
        ..LeaderReport::default()
    });
    let info = served.get("/info").await.json();
    assert_eq!((&info["state"], &info["status"]), (&json!("follower"), &json!("")), "it leads without a connection");
    served.membership.send_modify(|membership| membership.state = SessionState::Connected);
    let info = served.get("/info").await.json();
    assert_eq!((&info["state"], &info["status"]), (&json!("leader (configuring)"), &json!("* configuring 2 pods")));
}

#[tokio::test]
async fn info_explains_the_process_with_times_that_stay_the_same() {
    let served = TestServer::start().await;
    let (now, clock) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    served.lifecycle.send_modify(|report| {
        report.since = Some(now);
        report.started = now.checked_sub(Duration::from_secs(5));
        report.next_start = Some(now + Duration::from_mins(1));
        (report.restarts, report.last_exit) = (2, Some("exited with code 1".to_owned()));
        (report.configured, report.reason) = (true, Some("turned off by /control/off".to_owned()));
        report.command = Some(CommandReport { program: "/bin/web".to_owned(), arguments: vec!["-v".to_owned()] });
    });
    let info = served.get("/info").await.json();
    let seconds = |key: &str| info[key].as_u64().unwrap().abs_diff(clock);
    assert!(seconds("since") <= 1 && seconds("started").abs_diff(5) <= 1 && seconds("next_start").abs_diff(60) <= 1);
    assert_eq!((&info["restarts"], &info["last_exit"]), (&json!(2), &json!("exited with code 1")));
    assert_eq!(info["command"], json!({"arguments": ["-v"], "program": "/bin/web"}));
    assert_eq!((&info["reason"], &info["ready"]), (&json!("turned off by /control/off"), &json!(false)));

    tokio::time::sleep(Duration::from_millis(1100)).await;
    served.lifecycle.send_modify(|report| {
        (report.process, report.reason, report.pid) = (ProcessState::Running, None, Some(7));
        (report.cordon, report.role) = (Some("disk".to_owned()), Some("primary".to_owned()));
    });
    let later = served.get("/info").await.json();
    for key in ["since", "started", "next_start"] {
        assert_eq!(later[key], info[key], "{key}");
    }
    assert_eq!((&later["ready"], &later["reason"], &later["pid"]), (&json!(true), &Value::Null, &json!(7)));
    assert_eq!((&later["cordon"], &later["role"]), (&json!("disk"), &json!("primary")));
    served.lifecycle.send_modify(|report| report.unready = Some("joining".to_owned()));
    let unready = served.get("/info").await.json();
    assert_eq!((&unready["ready"], &unready["reason"]), (&json!(false), &json!("joining")));
    served.lifecycle.send_modify(|report| report.unready = None);
    assert_eq!(served.get("/info").await.json()["ready"], true);
    served.pod_shutdown.cancel();
    assert_eq!(served.get("/info").await.json()["ready"], false);
}

#[tokio::test]
async fn info_names_the_leader_while_this_pod_leads() {
    let served = TestServer::start().await;
    served.membership.send_modify(|membership| {
        membership.registered = Some(registered(3));
        membership.state = SessionState::Connected;
    });
    assert_eq!(served.get("/info").await.json()["leader"], Value::Null);
    served.leader.send_modify(|report| report.role = Role::Pending);
    assert_eq!(served.get("/info").await.json()["leader"], json!({"address": "10.0.0.1:31000", "seq": 3}));
    served.membership.send_modify(|membership| membership.state = SessionState::Suspended);
    assert_eq!(served.get("/info").await.json()["leader"], Value::Null);
}

#[tokio::test]
async fn info_has_the_last_report_of_an_actor_that_has_ended() {
    let TestServer { address, lifecycle, server, submissions, .. } = TestServer::start().await;
    drop(submissions);
    lifecycle.send_modify(|report| report.process = ProcessState::Dead);
    drop(lifecycle);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /info HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(ParsedReply::parse(&bytes).json()["process"], "dead");
    server.abort();
}

#[tokio::test]
async fn log_returns_the_newest_lines_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pod.log");
    let served = TestServer::logging_to(Some(&LogFile { path: path.clone(), explicit: true })).await;
    std::fs::write(&path, "one\ntwo \"quoted\"\n").unwrap();
    for answer in [served.get("/log").await, served.post("/log", "").await] {
        assert_eq!((answer.status, answer.json()), (200, json!(["one", "two \"quoted\""])));
    }
}

/// Checks `/readyz`: 200 without a reason, or 503 with this one.
async fn readiness(served: &TestServer) -> (u16, String) {
    let answer = served.get("/readyz").await;
    (answer.status, if answer.status == 200 { String::new() } else { answer.error() })
}

/// Starts a pod that is registered and configured, and whose sub-process runs.
async fn ready() -> TestServer {
    let served = TestServer::start().await;
    served.membership.send_modify(|membership| {
        membership.state = SessionState::Connected;
        membership.registered = Some(registered(0));
    });
    served.lifecycle.send_modify(|report| {
        report.configured = true;
        report.process = ProcessState::Running;
    });
    assert_eq!(readiness(&served).await, (200, String::new()));
    served
}

fn unready(reason: &str) -> (u16, String) {
    (503, reason.to_owned())
}

#[tokio::test]
async fn readyz_is_503_until_the_pod_is_configured() {
    let served = TestServer::start().await;
    assert_eq!(served.get("/healthz").await.status, 200);
    assert_eq!(readiness(&served).await, unready("pod is not configured yet"));
    served.lifecycle.send_modify(|report| report.process = ProcessState::Running);
    assert_eq!(readiness(&served).await, unready("pod is not configured yet"));
    served.lifecycle.send_modify(|report| report.configured = true);
    assert_eq!(readiness(&served).await, (200, String::new()), "a missing session is not a reason");
}

#[tokio::test]
async fn readyz_is_503_while_the_sub_process_is_off_for_any_reason() {
    let served = ready().await;
    for (process, reason, expected) in [
        (ProcessState::Stopped, None, "sub-process is not running"),
        (
            ProcessState::Stopped,
            Some("turned off by /control/off"),
            "sub-process is not running: turned off by /control/off",
        ),
        (ProcessState::Terminating, None, "sub-process is being stopped"),
        (ProcessState::Dead, Some("killed by /control/kill"), "pod is dead: killed by /control/kill"),
    ] {
        served.lifecycle.send_modify(|report| {
            report.process = process;
            report.reason = reason.map(str::to_owned);
        });
        assert_eq!(readiness(&served).await, unready(expected));
        assert_eq!(served.get("/healthz").await.status, 200);
    }
}

#[tokio::test]
async fn readyz_ignores_a_lost_session_but_not_a_failed_registration() {
    let served = ready().await;
    for (state, held, expected) in [
        (SessionState::Suspended, Some(registered(0)), (200, String::new())),
        (SessionState::Lost, None, (200, String::new())),
        (SessionState::Suspended, None, (200, String::new())),
        (SessionState::Connected, None, (200, String::new())),
        (SessionState::Connected, Some(registered(0)), (200, String::new())),
    ] {
        served.membership.send_modify(|membership| {
            membership.state = state;
            membership.registered = held;
        });
        assert_eq!(readiness(&served).await, expected, "{state}");
    }
    served.membership.send_modify(|membership| {
        membership.registered = None;
        membership.last_error = Some("access to /ochopod denied".to_owned());
    });
    assert_eq!(readiness(&served).await, unready("pod is not registered: access to /ochopod denied"));
}

#[tokio::test]
async fn readyz_is_503_while_the_pod_shuts_down() {
    let served = ready().await;
    served.pod_shutdown.cancel();
    assert_eq!(readiness(&served).await, unready("pod is shutting down"));
}

#[tokio::test]
async fn info_reports_why_the_pod_is_not_registered() {
    let served = TestServer::start().await;
    served.membership.send_modify(|membership| membership.last_error = Some("no server answers".to_owned()));
    assert_eq!(served.get("/info").await.json()["status"], "* not registered: no server answers");
    served.membership.send_modify(|membership| {
        membership.state = SessionState::Connected;
        membership.registered = Some(registered(0));
        membership.last_error = None;
    });
    assert_eq!(served.get("/info").await.json()["status"], "");
    served.membership.send_modify(|membership| {
        membership.registered = None;
        membership.rejected = Some("wrong password".to_owned());
    });
    assert_eq!(served.get("/info").await.json()["status"], "* not registered: wrong password");
}

#[tokio::test]
async fn metrics_count_requests_and_report_the_state() {
    let served = TestServer::start().await;
    served.lifecycle.send_modify(|report| report.process = ProcessState::Running);
    served.leader.send_modify(|report| report.role = Role::Leader);
    served.metrics.process_started();
    assert_eq!(served.post("/control/check", "nonsense").await.status, 400);
    let page = served.get("/metrics").await;
    assert!(page.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{page:?}");
    for line in [
        "ochopod_process_up 1",
        "ochopod_leader 1",
        "ochopod_registered 0",
        "ochopod_process_starts_total 1",
        r#"ochopod_requests_total{task="check",code="400"} 1"#,
        "further 1",
    ] {
        assert!(page.body.lines().any(|found| found == line), "{line} in {page:?}");
    }
}

#[tokio::test]
async fn head_is_the_head_of_get_with_its_length_and_no_body() {
    let served = TestServer::start().await;
    for path in ["/info", "/log", "/healthz", "/readyz", "/metrics"] {
        let get = served.get(path).await;
        let head = served.send(&format!("HEAD {path}"), "", "").await;
        assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{path}");
        let length = |answer: &ParsedReply| {
            let line = answer.head.lines().find_map(|line| line.strip_prefix("content-length: "));
            line.and_then(|length| length.parse::<usize>().ok())
        };
        assert_eq!(length(&get), Some(get.body.len()), "{path}");
        // The figures of the process may take another digit meanwhile.
        if path == "/metrics" {
            assert!(length(&head).is_some_and(|length| length > 0), "{head:?}");
        } else {
            assert_eq!(length(&head), length(&get), "{path}");
        }
    }
    let missing = served.send("HEAD /nothing", "", "").await;
    assert_eq!((missing.status, missing.body.as_str()), (404, ""));
}

#[tokio::test]
async fn options_returns_the_allowed_methods_and_has_no_effect() {
    let mut served = TestServer::start().await;
    let cases = [
        ("/info", "get, head, options, post"),
        ("/log", "get, head, options, post"),
        ("/healthz", "get, head, options"),
        ("/readyz", "get, head, options"),
        ("/metrics", "get, head, options"),
        ("/reset", "options, post"),
        ("/exec", "options, post"),
        ("/control/off", "options, post"),
        ("*", "get, head, options, post"),
    ];
    for (path, allow) in cases {
        let answer = served.send(&format!("OPTIONS {path}"), "", "").await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{path}");
        assert!(answer.head.lines().any(|line| line == format!("allow: {allow}")), "{path}: {answer:?}");
    }
    served.assert_nothing_changed();
    assert_eq!(served.send("OPTIONS /nothing", "", "").await.status, 404);
    let browser = served.send("OPTIONS /control/off", "Origin: https://evil.example\r\n", "").await;
    assert_eq!(browser.status, 403, "a pod without a token serves no browser");
}

#[tokio::test]
async fn reset_is_accepted_by_post_only() {
    let served = TestServer::start().await;
    assert_eq!(served.post("/reset", "").await.json(), json!({}));
    assert_eq!(served.get("/reset").await.status, 405);
    served.pod_shutdown.cancel();
    assert_eq!(served.post("/reset", "").await.status, 410, "a pod that stops does not register again");
}

#[tokio::test]
async fn one_connection_serves_many_requests_also_pipelined() {
    let served = TestServer::start().await;
    let many = b"GET /info HTTP/1.1\r\nHost: pod\r\n\r\n".repeat(99);
    let last = b"GET /healthz HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut bytes = Vec::new();
    let write = async {
        writer.write_all(&many).await.unwrap();
        writer.write_all(last).await.unwrap();
    };
    let ((), read) = tokio::join!(write, reader.read_to_end(&mut bytes));
    read.unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap().matches("HTTP/1.1 200 OK").count(), 100);
}

#[tokio::test]
async fn server_completes_requests_in_progress_at_shutdown() {
    let mut served = TestServer::start().await;
    let idle = TcpStream::connect(served.address).await.unwrap();
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"POST /control/off HTTP/1.1\r\nHost: pod\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let submission = timeout(TIMEOUT, served.submissions.recv()).await.unwrap().unwrap();
    served.shutdown.cancel();
    submission.reply.send(Outcome::Done(json!({"bye": 1}))).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(ParsedReply::parse(&bytes).json(), json!({"bye": 1}));
    timeout(TIMEOUT, &mut served.server).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn log_file_that_was_replaced_is_neither_returned_nor_awaited() {
    let directory = tempfile::tempdir().unwrap();
    let (path, secret) = (directory.path().join("logs/pod.log"), directory.path().join("secret"));
    std::fs::write(&secret, "hunter2\n").unwrap();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let shared = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(path.parent().unwrap(), shared).unwrap();
    let served = TestServer::logging_to(Some(&LogFile { path: path.clone(), explicit: true })).await;
    let older = path.with_file_name("pod.log.1");
    let plant = |path: &std::path::Path, what: &str| {
        _ = std::fs::remove_file(path);
        match what {
            "link" => std::os::unix::fs::symlink("../secret", path).unwrap(),
            "hard link" => std::fs::hard_link(&secret, path).unwrap(),
            "pipe" => nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            _ => std::fs::write(path, "").unwrap(),
        }
    };
    for (newest, before) in [
        ("file", "link"),
        ("link", "link"),
        ("file", "pipe"),
        ("pipe", "file"),
        ("hard link", "file"),
        ("file", "hard link"),
    ] {
        plant(&path, newest);
        plant(&older, before);
        let answers = futures_util::future::join_all((0..50).map(|_| served.get("/log"))).await;
        for answer in answers {
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(!answer.body.contains("hunter2"), "{newest} {before} {answer:?}");
        }
    }
}
