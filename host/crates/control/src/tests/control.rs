//! `/control`: requests that reach the lifecycle, rejected requests, and replies.

use ochopod_lifecycle::{ControlTask, Cordon, Failure, TimeoutResult};
use ochopod_model::{ClusterName, ContentDigest, Digest, PostedView, View, ViewDifference, status::Blame};
use ochopod_store::{EmbeddedStore, StoreBackend};

use super::*;

fn done() -> Outcome {
    Outcome::Done(json!({}))
}

#[tokio::test]
async fn every_task_reaches_the_lifecycle_with_its_body() {
    let mut served = TestServer::start().await;
    let view = || PostedView::parse(view().as_bytes()).unwrap();
    let text = super::view();
    let cordon = |reason: &str, stop| ControlTask::Cordon(Cordon { reason: reason.to_owned(), stop });
    let longest = json!({"reason": "x".repeat(300)}).to_string();
    let cases = [
        ("check", text.as_str(), ControlTask::Check(view())),
        ("on", text.as_str(), ControlTask::On(Some(view()))),
        ("on", "", ControlTask::On(None)),
        ("off", "", ControlTask::Off),
        ("off", text.as_str(), ControlTask::Off),
        ("ok", text.as_str(), ControlTask::Ok(view())),
        ("kill", "", ControlTask::Kill),
        ("kill", "{}", ControlTask::Kill),
        ("uncordon", "", ControlTask::Uncordon),
        ("restart", "", ControlTask::Restart),
        ("restart", text.as_str(), ControlTask::Restart),
        ("revive", "{}", ControlTask::Revive),
        ("cordon", r#"{"reason": " disk "}"#, cordon("disk", false)),
        ("cordon", r#"{"reason": "disk", "process": "keep"}"#, cordon("disk", false)),
        ("cordon", r#"{"process": "stopped", "reason": "disk"}"#, cordon("disk", true)),
        ("cordon", longest.as_str(), cordon(&"x".repeat(300), false)),
        ("signal", "", ControlTask::Signal(None)),
        ("signal", r#"{"a": [1]}"#, ControlTask::Signal(Some(json!({"a": [1]})))),
        ("signal", "null", ControlTask::Signal(Some(Value::Null))),
    ];
    for (task, body, command) in cases {
        let (answer, request) = served.submitted(&format!("POST /control/{task}"), "", body, done()).await;
        assert_eq!((answer.status, answer.json()), (200, json!({})), "{task} {body}");
        assert_eq!((request.task, request.epoch, request.generation), (command, None, None));
        assert!(request.limit <= Duration::from_mins(1) && request.limit > Duration::from_secs(50));
    }
}

#[tokio::test]
async fn named_view_is_made_from_the_one_that_the_pod_holds() {
    let store = EmbeddedStore::new(Duration::from_secs(5));
    let (own, _actor) = member(&store, ID);
    let epoch = reached(&own, |m| m.registered.is_some() && m.leadership.is_some()).await.leadership.unwrap().epoch;
    let mut served = TestServer::of(own.clone()).await;
    let whole = PostedView::parse(view().as_bytes()).unwrap();
    let digest = ContentDigest::of(&whole.view);
    let epoch = format!("X-Ochopod-Epoch: {epoch}\r\n");
    let named = |view: &ContentDigest| format!("{epoch}X-Ochopod-View: {view}\r\nX-Ochopod-Target: {ID}\r\n");

    let unknown = served.send("POST /control/on", &named(&digest), "").await;
    assert_eq!(unknown.status, 412);
    assert!(unknown.error().contains("send the whole view") && !unknown.head.contains("x-ochopod-view"), "{unknown:?}");

    let (answer, _) = served.submitted("POST /control/check", &epoch, &view(), done()).await;
    assert!(answer.head.contains(&format!("x-ochopod-view: {digest}")), "{answer:?}");
    for (task, command) in [("on", ControlTask::On(Some(whole.clone()))), ("ok", ControlTask::Ok(whole.clone()))] {
        let (_, request) = served.submitted(&format!("POST /control/{task}"), &named(&digest), "", done()).await;
        assert_eq!(request.task, command);
    }

    let mut next = View::clone(&whole.view);
    next.dependencies.insert("cache".to_owned(), whole.view.pods.clone());
    let next_digest = ContentDigest::of(&next);
    let difference = ViewDifference::between(&whole.view, digest.clone(), &next);
    let body = serde_json::to_string(&difference).unwrap();
    let (answer, request) = served.submitted("POST /control/check", &named(&next_digest), &body, done()).await;
    assert_eq!(request.task, ControlTask::Check(PostedView::new(PodId::from(ID), Arc::new(next))));
    assert!(answer.head.contains(&format!("x-ochopod-view: {next_digest}")), "{answer:?}");

    let wrong = served.send("POST /control/check", &named(&ContentDigest::from("00")), &body).await;
    assert_eq!(wrong.status, 412);
    assert!(wrong.head.contains(&format!("x-ochopod-view: {next_digest}")), "what it holds is unchanged");
    for invalid in ["[]", "{", r#"{"pods": 1}"#, &view()] {
        let answer = served.send("POST /control/on", &named(&next_digest), invalid).await;
        assert_eq!(answer.status, 400, "{invalid}: {answer:?}");
    }
    let without_target = format!("{epoch}X-Ochopod-View: {next_digest}\r\n");
    let answer = served.send("POST /control/on", &without_target, "").await;
    assert!(answer.status == 400 && answer.error().contains("x-ochopod-target"), "{answer:?}");
    served.assert_nothing_changed();
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, content).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn compressed_body_may_have_several_members() {
    let mut served = TestServer::start().await;
    let text = view();
    let (head, tail) = text.split_at(7);
    let body = [gzip(head.as_bytes()), gzip(tail.as_bytes())].concat();
    let (reply, request) = served.submitted("POST /control/check", "Content-Encoding: gzip\r\n", body, done()).await;
    assert_eq!(reply.status, 200);
    assert_eq!(request.task, ControlTask::Check(PostedView::parse(text.as_bytes()).unwrap()));
}

/// Returns a gzip member with this many times 4 empty blocks, of 10 bits each, and no content.
fn empty_blocks(times: usize) -> Vec<u8> {
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    member.extend([0x02, 0x08, 0x20, 0x80, 0x00].repeat(times));
    // The last block, checksum and length.
    member.extend([0x03, 0x00, 0, 0, 0, 0, 0, 0, 0, 0]);
    member
}

#[tokio::test]
async fn body_that_cannot_be_decompressed_changes_nothing() {
    let mut served = TestServer::start().await;
    let whole = gzip(view().as_bytes());
    let bomb = gzip(&vec![b' '; 33 * 1024 * 1024]);
    let epoch = "X-Ochopod-Epoch: 7\r\n";
    let cases = [
        ("gzip", "", view().into_bytes(), 400),
        ("gzip", "", whole[..whole.len() - 1].to_vec(), 400),
        ("br", "", whole.clone(), 415),
        ("gzip\r\nContent-Encoding: gzip", "", whole, 400),
        ("gzip", "", gzip(&vec![b' '; 5 * 1024 * 1024]), 413),
        ("gzip", epoch, bomb, 413),
    ];
    for (encoding, headers, body, status) in cases {
        let headers = format!("Content-Encoding: {encoding}\r\n{headers}");
        let reply = served.send("POST /control/check", &headers, body).await;
        assert_eq!(reply.status, status, "{encoding}: {reply:?}");
    }
    for body in [gzip(b"").repeat(200_000), empty_blocks(1 << 20)] {
        let reply = served.send("POST /control/check", &format!("Content-Encoding: gzip\r\n{epoch}"), body).await;
        let error = "cannot decompress body: it is longer than its content".to_owned();
        assert_eq!((reply.status, reply.error()), (400, error));
    }
    served.assert_nothing_changed();
}

#[tokio::test]
async fn request_whose_header_names_another_pod_is_rejected() {
    let mut served = TestServer::start().await;
    for task in ["check", "on", "off", "kill", "signal"] {
        let answer = served.send(&format!("POST /control/{task}"), "X-Ochopod-Target: another\r\n", "").await;
        assert_eq!(answer.status, 409, "{task}");
        assert!(answer.head.contains(&format!("x-ochopod-key: {ID}")), "{answer:?}");
    }
    served.assert_nothing_changed();
    let own = format!("X-Ochopod-Target: {ID}\r\n");
    assert_eq!(served.submitted("POST /control/off", &own, "", done()).await.1.task, ControlTask::Off);
    assert_eq!(served.submitted("POST /control/on", &own, "", done()).await.1.task, ControlTask::On(None));
}

#[tokio::test]
async fn time_limit_in_the_path_may_have_a_fraction() {
    let mut served = TestServer::start().await;
    for (text, seconds) in [("20.5", 20.5), ("86400", 86_400.0)] {
        let (_, request) = served.submitted(&format!("POST /control/off/{text}"), "", "", done()).await;
        let limit = request.limit.as_secs_f64();
        assert!(limit <= seconds && limit > seconds - 10.0, "{text}: {limit}");
    }
    for bad in ["abc", "-1", "0", "nan", "inf", "1e3", "+1", "86401", "1%2E5", ".5"] {
        let answer = served.post(&format!("/control/off/{bad}"), "").await;
        assert_eq!(answer.status, 400, "{bad}");
        assert!(answer.error().contains(bad) && answer.error().contains("seconds above 0, at most 86400"));
    }
    served.assert_nothing_changed();
}

#[tokio::test]
async fn outcome_of_the_lifecycle_becomes_a_status_code() {
    let mut served = TestServer::start().await;
    let failure = |callback, blame| Failure { callback, blame, message: "no \"disk\"".to_owned() };
    let cases = [
        (done(), 200, json!({})),
        (
            Outcome::Rejected(failure(Some("can-configure"), Blame::Plugin)),
            406,
            json!({"error": "no \"disk\"", "callback": "can-configure", "blame": "plugin"}),
        ),
        (Outcome::Failed(failure(None, Blame::Host)), 500, json!({"error": "no \"disk\"", "blame": "host"})),
        (
            Outcome::TimedOut(TimeoutResult::NotStarted),
            408,
            json!({"error": "time limit of 60 s exceeded: request dropped before it started"}),
        ),
        (
            Outcome::TimedOut(TimeoutResult::StillRunning),
            408,
            json!({"error": "time limit of 60 s exceeded: request still running"}),
        ),
        (Outcome::Superseded("another leads".to_owned()), 409, json!({"error": "another leads"})),
        (Outcome::Late(7, "late".to_owned()), 409, json!({"error": "late", "number": 7})),
        (Outcome::Gone("pod is dead".to_owned()), 410, json!({"error": "pod is dead"})),
    ];
    for (outcome, status, body) in cases {
        let (answer, _) = served.submitted("POST /control/kill", "", "", outcome).await;
        assert_eq!((answer.status, answer.json()), (status, body));
    }
}

#[tokio::test]
async fn malformed_request_is_400_and_changes_nothing() {
    let mut served = TestServer::start().await;
    let missing_key = r#"{"key": "x", "pods": {}, "dependencies": {}}"#;
    let deep = "[".repeat(100_000);
    let too_long = json!({"reason": "x".repeat(301)}).to_string();
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
        ("restart", "{"),
        ("uncordon", "nonsense"),
        ("revive", "}"),
        ("cordon", ""),
        ("cordon", "{}"),
        ("cordon", r#"{"reason": ""}"#),
        ("cordon", r#"{"reason": "  "}"#),
        ("cordon", r#"{"reason": "two\nlines"}"#),
        ("cordon", r#"{"reason": 5}"#),
        ("cordon", r#"{"reason": "disk", "process": "killed"}"#),
        ("cordon", r#"{"reason": "disk", "Process": "keep"}"#),
        ("cordon", too_long.as_str()),
        ("pause", ""),
        ("pause", "{}"),
        ("pause", r#"{"reason": ""}"#),
        ("pause", r#"{"reason": "move", "by": "me"}"#),
        ("pause", too_long.as_str()),
        ("resume", "{"),
        ("kill", r#"{"key": 42}"#),
        ("off", r#"{"key": null}"#),
        ("resume", r#"{"key": ["x"]}"#),
        ("cordon", r#"["disk"]"#),
        ("pause", r#"["move"]"#),
        ("step-down", "[]"),
        ("step-down", r#"["x"]"#),
        ("step-down", "null"),
        ("step-down", r#"{"to": 5}"#),
        ("step-down", r#"{"To": "x"}"#),
        ("signal", "{'a': 1}"),
        ("signal", deep.as_str()),
    ];
    for (task, body) in cases {
        let answer = served.post(&format!("/control/{task}"), body).await;
        assert_eq!(answer.status, 400, "{task} {body:.20}");
        assert!(!answer.error().is_empty());
    }
    assert_eq!(served.send("POST /control/signal", "", b"\xff\xfe".as_slice()).await.status, 400);
    for task in ["start", "ON", "%6Fn", "stepdown", "step_down"] {
        let answer = served.post(&format!("/control/{task}"), "").await;
        assert_eq!(answer.status, 400);
        assert!(answer.error().contains("expected check, on, off, ok, kill, signal, cordon, uncordon, restart"));
    }
    served.assert_nothing_changed();
}

#[tokio::test]
async fn view_for_another_pod_is_409() {
    let mut served = TestServer::start().await;
    let other = json!({"key": "other", "pods": {"other": {"seq": 1}}, "dependencies": {}}).to_string();
    for task in ["check", "on", "ok", "off", "kill", "uncordon", "restart", "revive", "resume"] {
        let answer = served.post(&format!("/control/{task}"), &other).await;
        assert_eq!(answer.status, 409, "{task}");
        assert!(answer.error().contains("other") && answer.error().contains(ID));
        assert!(answer.head.contains(&format!("x-ochopod-key: {ID}")), "{answer:?}");
    }
    served.assert_nothing_changed();
}

#[tokio::test]
async fn leadership_that_cannot_be_checked_now_is_503() {
    let mut served = TestServer::start().await;
    let answer = served.send("POST /control/off", "X-Ochopod-Epoch: 77\r\n", "").await;
    assert_eq!(answer.status, 503);
    assert!(answer.error().starts_with("cannot determine the lock holder"), "{answer:?}");
    served.assert_nothing_changed();
}

#[tokio::test]
async fn generation_is_passed_on_and_invalid_headers_are_400() {
    let mut served = TestServer::start().await;
    let (_, request) = served.submitted("POST /control/on", "X-Ochopod-Generation: 1:abc\r\n", &view(), done()).await;
    assert_eq!(request.generation, Some(Digest::from("1:abc")));
    for headers in [
        "X-Ochopod-Epoch: abc\r\n",
        "X-Ochopod-Epoch: -1\r\n",
        "X-Ochopod-Epoch:\r\n",
        "X-Ochopod-Epoch: 99999999999999999999\r\n",
        "X-Ochopod-Epoch: 1\r\nX-Ochopod-Epoch: 2\r\n",
        "X-Ochopod-Generation:\r\n",
        "X-Ochopod-Generation: a\r\nX-Ochopod-Generation: b\r\n",
        "X-Ochopod-Generation: \u{e9}\r\n",
    ] {
        let answer = served.send("POST /control/on", headers, &view()).await;
        assert_eq!(answer.status, 400, "{headers:?}");
        assert!(answer.error().contains("header x-ochopod-"), "{answer:?}");
    }
    served.assert_nothing_changed();
}

#[tokio::test]
async fn earlier_checks_win_over_later_ones() {
    let mut served = TestServer::start().await;
    let epoch = "X-Ochopod-Epoch: 77\r\n";
    let other = json!({"key": "other", "pods": {"other": {"seq": 1}}, "dependencies": {}}).to_string();
    let huge = "x".repeat(32 * 1024 * 1024 + 1);
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
    assert_eq!(served.get("/info").await.status, 200, "info answers while the pod shuts down");
}

#[tokio::test]
async fn silent_lifecycle_is_not_awaited_past_the_limit() {
    let mut served = TestServer::start().await;
    let request = served.post("/control/off/3", "");
    let answer = timeout(TIMEOUT, request).await.unwrap();
    assert_eq!(answer.status, 408);
    assert_eq!(answer.error(), "time limit of 3 s exceeded: request may still be running");
    assert!(served.submissions.try_recv().is_ok());
}

#[tokio::test]
async fn body_that_does_not_arrive_within_the_limit_is_408_and_changes_nothing() {
    let mut served = TestServer::start().await;
    let head = "POST /control/kill/0.05 HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nContent-Length: 10\r\n\r\n{";
    assert_eq!(served.raw(head).await.status, 408);
    served.assert_nothing_changed();
}

/// Starts a member of a cluster in this store, and its actor.
fn member(store: &EmbeddedStore, id: &str) -> (MembershipHandle, JoinHandle<()>) {
    let ensemble = StoreBackend::embedded(store.clone());
    let (member, actor) = MembershipHandle::start(ensemble, &ClusterName::default(), PodId::from(id), registration());
    (member, tokio::spawn(actor))
}

async fn reached(member: &MembershipHandle, condition: impl FnMut(&Membership) -> bool) -> Membership {
    let mut watch = member.watch();
    timeout(TIMEOUT, watch.wait_for(condition)).await.expect("the membership arrives").unwrap().clone()
}

#[tokio::test]
async fn only_the_current_lock_holder_is_accepted() {
    let store = EmbeddedStore::new(Duration::from_secs(5));
    let (leader, _leading) = member(&store, "leader");
    let first = reached(&leader, |m| m.leadership.is_some()).await.leadership.unwrap().epoch;
    let (own, _actor) = member(&store, ID);
    reached(&own, |m| m.registered.is_some()).await;
    let mut served = TestServer::of(own.clone()).await;
    let header = |epoch: i64| format!("X-Ochopod-Epoch: {epoch}\r\n");
    let (answer, request) = served.submitted("POST /control/off", &header(first), "", done()).await;
    assert_eq!((answer.status, request.epoch), (200, Some(first)));
    assert_eq!(served.get("/info").await.json()["epoch"], first);
    assert_eq!(served.get("/info").await.json()["leader"], Value::Null, "its address is not known");
    let pod = |seq: u64, ip: &str| json!({"seq": seq, "ip": ip, "port": "8080"});
    let pods = json!({"leader": pod(3, "10.0.0.2"), ID: pod(4, "10.0.0.1")});
    let body = json!({"key": ID, "dependencies": {}, "pods": pods});
    served.submitted("POST /control/check", &header(first), &body.to_string(), done()).await;
    assert_eq!(served.get("/info").await.json()["leader"], json!({"address": "10.0.0.2:8080", "seq": 3}));

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
async fn request_that_waited_too_long_is_admitted_again() {
    let store = EmbeddedStore::new(Duration::from_secs(5));
    let (own, _actor) = member(&store, ID);
    let epoch = reached(&own, |m| m.registered.is_some() && m.leadership.is_some()).await.leadership.unwrap().epoch;
    let mut served = TestServer::of(own.clone()).await;
    let mut submissions = std::mem::replace(&mut served.submissions, mpsc::channel(1).1);
    let lifecycle = async {
        for outcome in [Outcome::EpochUnknown, done()] {
            let submission = submissions.recv().await.unwrap();
            assert_eq!((submission.request.epoch, submission.request.number), (Some(epoch), Some(3)));
            submission.reply.send(outcome).unwrap();
        }
    };
    let headers = format!("X-Ochopod-Epoch: {epoch}\r\nX-Ochopod-Number: 3\r\n");
    let (answer, ()) = tokio::join!(served.send("POST /control/off", &headers, ""), lifecycle);
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn reset_registers_again_under_another_session_with_the_same_number() {
    let store = EmbeddedStore::new(Duration::from_secs(5));
    let (own, _actor) = member(&store, ID);
    let before = reached(&own, |m| m.registered.is_some()).await;
    let served = TestServer::of(own.clone()).await;
    assert_eq!(served.post("/reset", "").await.status, 200);
    let after = reached(&own, |m| m.registered.is_some() && m.session != before.session).await;
    assert_eq!(after.registered.unwrap().seq, before.registered.unwrap().seq);
    assert!(!after.registered.unwrap().after_loss, "it was requested");
}
