//! `/control/step-down`, `/control/pause` and `/control/resume`, on pods that are real members of a cluster.

use ochopod_model::{ClusterName, status::ProcessState};
use ochopod_store::{EmbeddedStore, StoreBackend};
use tokio::time;

use super::*;
use crate::tests::auth::TOKEN;

const SESSION: Duration = Duration::from_secs(5);

/// A pod of a cluster.
struct ClusterPod {
    served: TestServer,
    member: MembershipHandle,
}

impl ClusterPod {
    async fn start(store: &EmbeddedStore, id: &str, token: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let registration = json!({"binding": "local", "ip": "127.0.0.1", "port": port, "status": ""});
        let registration = registration.as_object().unwrap().clone();
        let member = join(store, id, registration.clone()).await;
        let served = TestServer::on(listener, id, registration, member.clone(), token.and_then(Token::new));
        Self { served, member }
    }

    async fn post(&self, task: &str, body: &str) -> ParsedReply {
        let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
        self.served.send(&format!("POST /control/{task}"), &bearer, body).await
    }

    fn is_leader(&self) -> bool {
        self.member.watch().borrow().leadership.is_some()
    }

    async fn until_leading(&self) {
        let mut watch = self.member.watch();
        timeout(TIMEOUT, watch.wait_for(|m| m.leadership.is_some())).await.expect("it leads").unwrap();
    }
}

/// Registers a pod, which then contends.
async fn join(store: &EmbeddedStore, id: &str, registration: Map<String, Value>) -> MembershipHandle {
    let backend = StoreBackend::embedded(store.clone());
    let (member, actor) = MembershipHandle::start(backend, &ClusterName::default(), PodId::from(id), registration);
    tokio::spawn(actor);
    member.watch().wait_for(|m| m.registered.is_some()).await.unwrap();
    // The lock node is created after the registration: the next request is answered once it is.
    member.stop_yielding().await;
    time::sleep(Duration::from_millis(20)).await;
    member
}

async fn cluster(ids: &[&str], token: Option<&str>) -> (EmbeddedStore, Vec<ClusterPod>) {
    let store = EmbeddedStore::new(SESSION);
    let mut pods = Vec::new();
    for id in ids {
        pods.push(ClusterPod::start(&store, id, token).await);
    }
    pods[0].until_leading().await;
    (store, pods)
}

#[tokio::test]
async fn leader_that_steps_down_is_followed_by_the_next_pod_in_line() {
    let (_store, pods) = cluster(&["a", "b", "c"], None).await;
    let answer = pods[0].post("step-down", "").await;
    assert_eq!((answer.status, answer.json()), (200, json!({})));
    pods[1].until_leading().await;
    let answer = pods[0].post("step-down", "{}").await;
    assert_eq!((answer.status, answer.error()), (406, "pod does not lead".to_owned()));
    assert!(!pods[0].is_leader() && !pods[2].is_leader());
}

#[tokio::test]
async fn leader_steps_down_to_any_pod_with_and_without_a_token() {
    for token in [None, Some(TOKEN)] {
        let (_store, pods) = cluster(&["a", "b", "c", "d"], token).await;
        let answer = pods[0].post("step-down", r#"{"to": "d"}"#).await;
        assert_eq!((answer.status, answer.json()), (200, json!({})), "{answer:?}");
        pods[3].until_leading().await;
        // The others still yield: the target of the next one no longer does.
        let answer = pods[3].post("step-down/10", r#"{"to": "b"}"#).await;
        assert_eq!((answer.status, answer.json()), (200, json!({})), "{answer:?}");
        pods[1].until_leading().await;
        assert_eq!(pods.iter().filter(|pod| pod.is_leader()).count(), 1);
    }
}

#[tokio::test]
async fn pods_that_do_not_yield_are_listed() {
    let (store, pods) = cluster(&["a", "d"], None).await;
    let python = json!({"fwk": "marathon", "ip": "127.0.0.1", "port": "1"}).as_object().unwrap().clone();
    let gone = json!({"binding": "local", "ip": "127.0.0.1", "port": "1"}).as_object().unwrap().clone();
    let _python = join(&store, "python", python).await;
    let _gone = join(&store, "gone", gone).await;
    let dead = join(&store, "dead", Map::new()).await;
    dead.retire().await;
    let answer = pods[0].post("step-down", r#"{"to": "d"}"#).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"skipped": ["gone", "python"]})));
    pods[1].until_leading().await;
    for (to, status, error) in [
        ("dead", 406, r#"pod "dead" is dead"#),
        ("x", 406, r#"no such pod "x""#),
        ("d", 406, "pod leads already"),
        ("gone", 503, r#"pod "gone" unreachable: "#),
    ] {
        let answer = pods[1].post("step-down", &json!({"to": to}).to_string()).await;
        assert_eq!(answer.status, status, "{to}");
        assert!(answer.error().starts_with(error), "{answer:?}");
    }
    assert!(pods[1].is_leader(), "a rejected request changes nothing");
}

#[tokio::test]
async fn pod_that_cannot_lead_rejects_the_leader() {
    let (_store, pods) = cluster(&["a", "b"], None).await;
    pods[1].served.lifecycle.send_modify(|report| report.cordon = Some("disk".to_owned()));
    let answer = pods[0].post("step-down", r#"{"to": "b"}"#).await;
    assert_eq!((answer.status, answer.error()), (406, r#"pod "b" cannot lead: pod is cordoned: disk"#.to_owned()));
    pods[1].served.lifecycle.send_modify(|report| report.process = ProcessState::Dead);
    let answer = pods[0].post("step-down", r#"{"to": "b"}"#).await;
    assert_eq!((answer.status, answer.error()), (406, r#"pod "b" cannot lead: pod is dead"#.to_owned()));
    assert!(pods[0].is_leader());
}

#[tokio::test]
async fn only_the_lock_holder_may_ask_a_pod_to_yield() {
    let (_store, pods) = cluster(&["a", "b"], None).await;
    let answer = pods[1].post("step-down", r#"{"to": "a"}"#).await;
    assert_eq!((answer.status, answer.error()), (406, "pod does not lead".to_owned()), "an operator");
    let epoch = pods[0].member.lock_holder().await.unwrap().unwrap().epoch;
    let by = |epoch: i64| format!("X-Ochopod-Epoch: {epoch}\r\n");
    let answer = pods[1].served.send("POST /control/step-down", &by(epoch - 1), r#"{"to": "a"}"#).await;
    assert_eq!(answer.status, 409);
    let answer = pods[1].served.send("POST /control/step-down", &by(epoch), "{}").await;
    assert_eq!((answer.status, answer.error()), (406, "pod does not lead".to_owned()), "without a target");
    let answer = pods[1].served.send("POST /control/step-down", &by(epoch), r#"{"to": "a"}"#).await;
    assert_eq!((answer.status, answer.json()), (200, json!({})));
    pods[0].member.retire().await;
    time::sleep(Duration::from_millis(100)).await;
    assert!(!pods[1].is_leader(), "it yields");
}

#[tokio::test]
async fn any_pod_pauses_and_resumes_its_cluster() {
    let (store, pods) = cluster(&["a", "b"], None).await;
    let paused = async || {
        let path = "/ochopod/clusters/marathon.default/paused";
        let node = store.connect().read(path).await.unwrap()?;
        Some(serde_json::from_slice::<Value>(&node.data).unwrap())
    };
    for reason in ["move", "still moving"] {
        let answer = pods[1].post("pause", &json!({"reason": reason}).to_string()).await;
        assert_eq!((answer.status, answer.json()), (200, json!({})));
        let node = paused().await.unwrap();
        let by = format!("127.0.0.1 at {}", pods[1].served.address);
        assert_eq!((&node["reason"], &node["by"]), (&json!(reason), &json!(by)));
        assert!(node["since"].as_u64().unwrap() > 1_700_000_000);
    }
    for _ in 0..2 {
        let answer = pods[0].post("resume", "").await;
        assert_eq!((answer.status, answer.json()), (200, json!({})));
        assert_eq!(paused().await, None);
    }
    let page = pods[1].served.get("/metrics").await.body;
    assert!(page.contains(r#"ochopod_requests_total{task="pause",code="200"} 2"#), "{page}");
}

#[tokio::test]
async fn cluster_tasks_are_rejected_without_the_store_and_by_a_pod_that_ends() {
    let bodies = [("pause", r#"{"reason": "move"}"#), ("resume", ""), ("step-down", "")];
    let (store, pods) = cluster(&["a"], None).await;
    let session = pods[0].member.watch().borrow().session.unwrap();
    store.suspend(session);
    pods[0].member.watch().wait_for(|m| m.state == SessionState::Suspended).await.unwrap();
    for (task, body) in bodies {
        let answer = pods[0].post(task, body).await;
        assert_eq!(answer.status, 503, "{task}: {answer:?}");
        assert!(answer.error().ends_with("try again later"), "{answer:?}");
    }
    pods[0].served.lifecycle.send_modify(|report| report.process = ProcessState::Dead);
    for (task, body) in bodies {
        let answer = pods[0].post(task, body).await;
        assert_eq!((answer.status, answer.error()), (410, "pod is dead".to_owned()), "{task}");
    }
    pods[0].served.pod_shutdown.cancel();
    for (task, body) in bodies {
        let answer = pods[0].post(task, body).await;
        assert_eq!((answer.status, answer.error()), (410, "pod is shutting down".to_owned()), "{task}");
    }
}
