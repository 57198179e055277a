//! What only reads: `/info`, `/log`, health, metrics.

use std::time::Instant;

use super::*;
use crate::{
    coord::Registered,
    status::{ProcessState, Role},
};

fn registered(seq: u64) -> Registered {
    Registered { seq, at: Instant::now(), after_loss: false }
}

#[tokio::test]
async fn info_says_what_the_pod_is_by_get_and_post() {
    let served = Served::start().await;
    served.membership.send_modify(|membership| {
        membership.registered = Some(registered(3));
        membership.state = SessionState::Connected;
    });
    let expected = json!({
        "application": "shop/web", "cluster": "web", "dependencies": ["db"], "epoch": null, "ip": "10.0.0.1", "key": ID,
        "metrics": {}, "namespace": "marathon", "node": "agent-7", "port": "8080", "ports": {"8080": 31000},
        "process": "stopped", "public": "54.0.0.1", "seq": 3, "session": "connected", "state": "follower", "status": "",
        "task": "web.1",
    });
    for answer in [served.get("/info?x=1").await, served.post("/info", "{}").await] {
        assert_eq!((answer.status, answer.json()), (200, expected.clone()));
    }
}

#[tokio::test]
async fn info_follows_every_change_and_keeps_the_number_without_a_session() {
    let served = Served::start().await;
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
        due: None,
    });
    let info = served.get("/info").await.json();
    assert_eq!((&info["state"], &info["status"]), (&json!("follower"), &json!("")), "it leads without a connection");
    served.membership.send_modify(|membership| membership.state = SessionState::Connected);
    let info = served.get("/info").await.json();
    assert_eq!((&info["state"], &info["status"]), (&json!("leader (configuring)"), &json!("* configuring 2 pods")));
}

#[tokio::test]
async fn info_shows_the_last_word_of_an_actor_that_has_ended() {
    let Served { address, lifecycle, server, submissions, .. } = Served::start().await;
    drop(submissions);
    lifecycle.send_modify(|report| report.process = ProcessState::Dead);
    drop(lifecycle);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /info HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(Answer::parse(&bytes).json()["process"], "dead");
    server.abort();
}

#[tokio::test]
async fn log_answers_the_newest_lines_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pod.log");
    let served = Served::logging_to(Some(&LogFile { path: path.clone(), asked: true })).await;
    std::fs::write(&path, "one\ntwo \"quoted\"\n").unwrap();
    for answer in [served.get("/log").await, served.post("/log", "").await] {
        assert_eq!((answer.status, answer.json()), (200, json!(["one", "two \"quoted\""])));
    }
}

#[tokio::test]
async fn a_pod_is_ready_once_it_is_registered_and_configured_and_until_it_is_dead() {
    let served = Served::start().await;
    assert_eq!(served.get("/healthz").await.status, 200);
    let ready = async || {
        let answer = served.get("/readyz").await;
        (answer.status, if answer.status == 200 { String::new() } else { answer.error() })
    };
    assert_eq!(ready().await, (503, "the pod is not registered".to_owned()));
    served.membership.send_modify(|membership| membership.registered = Some(registered(0)));
    assert_eq!(ready().await, (503, "the pod was not configured yet".to_owned()));
    served.lifecycle.send_modify(|report| report.configured = true);
    assert_eq!(ready().await, (200, String::new()));
    served.lifecycle.send_modify(|report| report.process = ProcessState::Dead);
    assert_eq!(ready().await, (503, "the pod is dead".to_owned()));
}

#[tokio::test]
async fn metrics_are_plain_text_that_counts_requests_and_shows_the_state() {
    let served = Served::start().await;
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
        r#"ochopod_pilot_reloads_total{result="applied"} 0"#,
    ] {
        assert!(page.body.lines().any(|found| found == line), "{line} in {page:?}");
    }
}

#[tokio::test]
async fn reset_is_taken_by_post_only() {
    let served = Served::start().await;
    assert_eq!(served.post("/reset", "").await.json(), json!({}));
    assert_eq!(served.get("/reset").await.status, 405);
}

#[tokio::test]
async fn one_connection_answers_many_requests_also_when_they_come_at_once() {
    let served = Served::start().await;
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
async fn the_server_ends_when_told_and_finishes_what_it_is_answering() {
    let mut served = Served::start().await;
    let idle = TcpStream::connect(served.address).await.unwrap();
    let mut asking = TcpStream::connect(served.address).await.unwrap();
    asking.write_all(b"POST /control/off HTTP/1.1\r\nHost: pod\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let submission = timeout(LONG, served.submissions.recv()).await.unwrap().unwrap();
    served.shutdown.cancel();
    submission.reply.send(Outcome::Done(json!({"bye": 1}))).unwrap();
    let mut bytes = Vec::new();
    asking.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(Answer::parse(&bytes).json(), json!({"bye": 1}));
    timeout(LONG, &mut served.server).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
    drop(idle);
}
