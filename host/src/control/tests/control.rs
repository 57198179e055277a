//! `/control`: what reaches the lifecycle, what does not, and what is answered.

use super::*;
use crate::{
    cluster::{ClusterName, Digest, PostedView},
    coord::{Embedded, Ensemble},
    lifecycle::{Blame, Command, Failure, Overrun},
};

fn done() -> Outcome {
    Outcome::Done(json!({}))
}

#[tokio::test]
async fn every_task_reaches_the_lifecycle_with_its_body() {
    let mut served = Served::start().await;
    let view = || PostedView::parse(view().as_bytes()).unwrap();
    let text = super::view();
    let cases = [
        ("check", text.as_str(), Command::Check(view())),
        ("on", text.as_str(), Command::On(Some(view()))),
        ("on", "", Command::On(None)),
        ("off", "", Command::Off),
        ("off", text.as_str(), Command::Off),
        ("ok", text.as_str(), Command::Ok(view())),
        ("kill", "", Command::Kill),
        ("kill", "{}", Command::Kill),
        ("signal", "", Command::Signal(None)),
        ("signal", r#"{"a": [1]}"#, Command::Signal(Some(json!({"a": [1]})))),
        ("signal", "null", Command::Signal(Some(Value::Null))),
    ];
    for (task, body, command) in cases {
        let (answer, request) = served.submitted(&format!("POST /control/{task}"), "", body, done()).await;
        assert_eq!((answer.status, answer.json()), (200, json!({})), "{task} {body}");
        assert_eq!((request.command, request.epoch, request.generation), (command, None, None));
        assert!(request.limit <= Duration::from_mins(1) && request.limit > Duration::from_secs(50));
    }
}

#[tokio::test]
async fn a_limit_is_given_in_the_path_and_fractions_are_fine() {
    let mut served = Served::start().await;
    for (text, seconds) in [("20.5", 20.5), ("86400", 86_400.0)] {
        let (_, request) = served.submitted(&format!("POST /control/off/{text}"), "", "", done()).await;
        let limit = request.limit.as_secs_f64();
        assert!(limit <= seconds && limit > seconds - 10.0, "{text}: {limit}");
    }
    for bad in ["abc", "-1", "0", "nan", "inf", "1e3", "+1", "86401", "1%2E5", ".5"] {
        let answer = served.post(&format!("/control/off/{bad}"), "").await;
        assert_eq!(answer.status, 400, "{bad}");
        assert!(answer.error().contains(bad) && answer.error().contains("seconds above 0 and at most 86400"));
    }
    served.assert_nothing_changed();
}

#[tokio::test]
async fn what_the_lifecycle_says_becomes_a_status_code() {
    let mut served = Served::start().await;
    let failure = |callback, blame| Failure { callback, blame, message: "no \"disk\"".to_owned() };
    let cases = [
        (done(), 200, json!({})),
        (
            Outcome::Refused(failure(Some("can-configure"), Blame::Plugin)),
            406,
            json!({"error": "no \"disk\"", "callback": "can-configure", "blame": "plugin"}),
        ),
        (Outcome::Failed(failure(None, Blame::Host)), 500, json!({"error": "no \"disk\"", "blame": "host"})),
        (
            Outcome::TimedOut(Overrun::Dropped),
            408,
            json!({"error": "the limit of 60 s has passed: it was dropped before it began"}),
        ),
        (
            Outcome::TimedOut(Overrun::GoesOn),
            408,
            json!({"error": "the limit of 60 s has passed: it had begun and goes on"}),
        ),
        (Outcome::Superseded("another leads".to_owned()), 409, json!({"error": "another leads"})),
        (Outcome::Gone("the pod is dead".to_owned()), 410, json!({"error": "the pod is dead"})),
    ];
    for (outcome, status, body) in cases {
        let (answer, _) = served.submitted("POST /control/kill", "", "", outcome).await;
        assert_eq!((answer.status, answer.json()), (status, body));
    }
}

#[tokio::test]
async fn a_malformed_request_is_answered_400_and_changes_nothing() {
    let mut served = Served::start().await;
    let missing_key = r#"{"key": "x", "pods": {}, "dependencies": {}}"#;
    let deep = "[".repeat(100_000);
    let cases = [
        ("check", ""),
        ("check", "{}"),
        ("ok", ""),
        ("ok", missing_key),
        ("on", "{}"),
        ("on", "not json"),
        ("on", " "),
        ("on", "null"),
        ("on", "{\"key\": \"\u{0}\"}"),
        ("off", "{"),
        ("kill", "nonsense"),
        ("signal", "{'a': 1}"),
        ("signal", deep.as_str()),
    ];
    for (task, body) in cases {
        let answer = served.post(&format!("/control/{task}"), body).await;
        assert_eq!(answer.status, 400, "{task} {body:.20}");
        assert!(!answer.error().is_empty());
    }
    assert_eq!(served.send("POST /control/signal", "", b"\xff\xfe".as_slice()).await.status, 400);
    for task in ["start", "ON", "%6Fn"] {
        let answer = served.post(&format!("/control/{task}"), "").await;
        assert_eq!(answer.status, 400);
        assert!(answer.error().contains("expected check, on, off, ok, kill or signal"));
    }
    served.assert_nothing_changed();
}

#[tokio::test]
async fn a_request_for_another_pod_is_answered_409() {
    let mut served = Served::start().await;
    let other = json!({"key": "other", "pods": {"other": {"seq": 1}}, "dependencies": {}}).to_string();
    for task in ["check", "on", "off", "ok"] {
        let answer = served.post(&format!("/control/{task}"), &other).await;
        assert_eq!(answer.status, 409, "{task}");
        assert!(answer.error().contains("other") && answer.error().contains(ID));
        assert!(answer.head.contains(&format!("x-ochopod-key: {ID}")), "{answer:?}");
    }
    served.assert_nothing_changed();
}

#[tokio::test]
async fn a_leadership_that_cannot_be_checked_now_is_answered_503() {
    let mut served = Served::start().await;
    let answer = served.send("POST /control/off", "X-Ochopod-Epoch: 77\r\n", "").await;
    assert_eq!(answer.status, 503);
    assert!(answer.error().starts_with("cannot find out who holds the lock"), "{answer:?}");
    served.assert_nothing_changed();
}

#[tokio::test]
async fn generation_and_order_go_along_and_headers_that_make_no_sense_are_answered_400() {
    let mut served = Served::start().await;
    let headers = "X-Ochopod-Generation: 1:abc\r\nX-Ochopod-Order: 12\r\n";
    let (_, request) = served.submitted("POST /control/on", headers, &view(), done()).await;
    assert_eq!((request.generation, request.order), (Some(Digest::from("1:abc")), Some(12)));
    for headers in [
        "X-Ochopod-Epoch: abc\r\n",
        "X-Ochopod-Epoch: -1\r\n",
        "X-Ochopod-Epoch:\r\n",
        "X-Ochopod-Epoch: 99999999999999999999\r\n",
        "X-Ochopod-Epoch: 1\r\nX-Ochopod-Epoch: 2\r\n",
        "X-Ochopod-Order: first\r\n",
        "X-Ochopod-Generation:\r\n",
        "X-Ochopod-Generation: a\r\nX-Ochopod-Generation: b\r\n",
        "X-Ochopod-Generation: \u{e9}\r\n",
    ] {
        let answer = served.send("POST /control/on", headers, &view()).await;
        assert_eq!(answer.status, 400, "{headers:?}");
        assert!(answer.error().contains("the header x-ochopod-"), "{answer:?}");
    }
    served.assert_nothing_changed();
}

#[tokio::test]
async fn earlier_objections_win_over_later_ones() {
    let mut served = Served::start().await;
    let epoch = "X-Ochopod-Epoch: 77\r\n";
    let other = json!({"key": "other", "pods": {"other": {"seq": 1}}, "dependencies": {}}).to_string();
    let huge = "x".repeat(4 * 1024 * 1024 + 1);
    assert_eq!(served.send("GET /control/nothing/abc", epoch, "x").await.status, 405);
    assert_eq!(served.send("POST /control/nothing/5", epoch, &huge).await.status, 400);
    assert_eq!(served.send("POST /control/on/abc", epoch, &huge).await.status, 400);
    assert_eq!(served.send("POST /control/on", epoch, &huge).await.status, 413);
    assert_eq!(served.send("POST /control/on", epoch, "x").await.status, 400);
    assert_eq!(served.send("POST /control/on", epoch, &other).await.status, 409);
    assert_eq!(served.send("POST /control/on", epoch, view()).await.status, 503);
    served.submissions.close();
    assert_eq!(served.send("POST /control/on", epoch, view()).await.status, 503);
    assert_eq!(served.post("/control/on", view()).await.status, 410);
    assert_eq!(served.get("/info").await.status, 200, "info answers while the pod leaves");
}

#[tokio::test]
async fn a_lifecycle_that_says_nothing_is_not_waited_for_past_the_limit() {
    let mut served = Served::start().await;
    let asked = served.post("/control/off/0.3", "");
    let answer = timeout(LONG, asked).await.unwrap();
    assert_eq!(answer.status, 408);
    assert_eq!(answer.error(), "the limit of 0.3 s has passed: it may have begun and go on");
    assert!(served.submissions.try_recv().is_ok());
}

#[tokio::test]
async fn a_body_that_does_not_come_within_the_limit_is_answered_408_and_changes_nothing() {
    let mut served = Served::start().await;
    let head = "POST /control/kill/0.05 HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nContent-Length: 10\r\n\r\n{";
    assert_eq!(served.raw(head).await.status, 408);
    served.assert_nothing_changed();
}

/// A member of a cluster in this store, and its actor.
fn member(store: &Embedded, id: &str) -> (Member, JoinHandle<()>) {
    let ensemble = Ensemble::Embedded(store.clone());
    let (member, actor) = Member::start(ensemble, &ClusterName::default(), PodId::from(id), registration());
    (member, tokio::spawn(actor))
}

async fn reached(member: &Member, condition: impl FnMut(&Membership) -> bool) -> Membership {
    let mut watch = member.watch();
    timeout(LONG, watch.wait_for(condition)).await.expect("the membership comes").unwrap().clone()
}

#[tokio::test]
async fn only_the_present_holder_of_the_lock_is_obeyed() {
    let store = Embedded::new(Duration::from_secs(5));
    let (leader, _leading) = member(&store, "leader");
    let first = reached(&leader, |m| m.leadership.is_some()).await.leadership.unwrap().epoch;
    let (own, _actor) = member(&store, ID);
    reached(&own, |m| m.registered.is_some()).await;
    let mut served = Served::of(own.clone()).await;
    let header = |epoch: i64| format!("X-Ochopod-Epoch: {epoch}\r\n");
    let (answer, request) = served.submitted("POST /control/off", &header(first), "", done()).await;
    assert_eq!((answer.status, request.epoch), (200, Some(first)));
    assert_eq!(served.get("/info").await.json()["epoch"], first);

    leader.resign(first).await;
    let second = reached(&own, |m| m.leadership.is_some()).await.leadership.unwrap().epoch;
    assert!(second > first);
    let (answer, _) = served.submitted("POST /control/off", &header(second), "", done()).await;
    assert_eq!(answer.status, 200);
    let answer = served.send("POST /control/off", &header(first), "").await;
    assert_eq!(answer.status, 409);
    assert!(answer.error().contains(&first.to_string()), "{answer:?}");
    served.assert_nothing_changed();
}

#[tokio::test]
async fn reset_registers_again_under_another_session_with_the_same_number() {
    let store = Embedded::new(Duration::from_secs(5));
    let (own, _actor) = member(&store, ID);
    let before = reached(&own, |m| m.registered.is_some()).await;
    let served = Served::of(own.clone()).await;
    assert_eq!(served.post("/reset", "").await.status, 200);
    let after = reached(&own, |m| m.registered.is_some() && m.session != before.session).await;
    assert_eq!(after.registered.unwrap().seq, before.registered.unwrap().seq);
    assert!(!after.registered.unwrap().after_loss, "it was asked for");
}
