//! `/reload`: what reaches the pod, and what it answers.

use ochopod_lifecycle::Failure;
use ochopod_model::{reply::ReloadReply, status::Blame};

use super::{auth::TOKEN, *};

const WASM: &str = "Content-Type: application/wasm\r\n";

fn bearer(headers: &str) -> String {
    format!("Authorization: Bearer {TOKEN}\r\n{headers}")
}

fn reloaded() -> ReloadReply {
    let (digest, previous) = ("ab".repeat(32), "cd".repeat(32));
    ReloadReply { changed: true, digest, previous, settings_changed: Vec::new() }
}

/// Sends a request that must reach the pod, which answers `result`. Returns the component that it saw.
async fn reload(
    served: &mut TestServer,
    headers: &str,
    body: &str,
    result: Result<ReloadReply, ReloadError>,
) -> (ParsedReply, Option<Vec<u8>>) {
    let mut reloads = std::mem::replace(&mut served.reloads, mpsc::channel(1).1);
    let pod = async {
        let request = reloads.recv().await.unwrap();
        let component = request.component.as_ref().map(|component| std::fs::read(component.path()).unwrap());
        request.finish(result);
        component
    };
    let exchange = async { tokio::join!(served.send("POST /reload", headers, body), pod) };
    let outcome = timeout(TIMEOUT, exchange).await.expect("the request reaches the pod");
    served.reloads = reloads;
    outcome
}

#[tokio::test]
async fn reload_reads_the_file_again_or_takes_the_component_of_the_body() {
    let mut served = TestServer::start().await;
    let (answer, component) = reload(&mut served, "", "", Ok(reloaded())).await;
    let expected = json!({"changed": true, "digest": "ab".repeat(32), "previous": "cd".repeat(32)});
    assert_eq!((answer.status, answer.json(), component), (200, expected, None));
    let mut served = TestServer::with_token(TOKEN).await;
    let settings_changed = vec!["grace".to_owned()];
    let reply = ReloadReply { settings_changed, ..reloaded() };
    let large = "x".repeat(5 << 20);
    let (answer, component) = reload(&mut served, &bearer(WASM), &large, Ok(reply)).await;
    assert_eq!((answer.status, &answer.json()["settings_changed"]), (200, &json!(["grace"])));
    assert!(component.is_some_and(|component| component == large.as_bytes()));
}

#[tokio::test]
async fn outcome_of_a_reload_decides_the_code() {
    let mut served = TestServer::start().await;
    let failure = || Failure { callback: None, blame: Blame::Plugin, message: "no".to_owned() };
    for (result, code) in
        [(ReloadError::Rejected(failure()), 406), (ReloadError::Failed(failure()), 500), (ReloadError::Gone("no"), 410)]
    {
        let (answer, _) = reload(&mut served, "", "", Err(result)).await;
        assert_eq!((answer.status, answer.error()), (code, "no".to_owned()));
    }
    served.lifecycle.send_modify(|report| report.process = ochopod_model::status::ProcessState::Dead);
    let answer = served.post("/reload", "").await;
    assert_eq!((answer.status, answer.error()), (410, "pod is dead".to_owned()));
    served.pod_shutdown.cancel();
    let answer = served.post("/reload", "").await;
    assert_eq!((answer.status, answer.error()), (410, "pod is shutting down".to_owned()));
    assert!(served.reloads.try_recv().is_err());
}

#[tokio::test]
async fn one_reload_runs_at_a_time() {
    let mut served = TestServer::start().await;
    let mut reloads = std::mem::replace(&mut served.reloads, mpsc::channel(1).1);
    let (first, ()) = tokio::join!(served.post("/reload", ""), async {
        let request = reloads.recv().await.unwrap();
        let second = served.post("/reload", "").await;
        assert_eq!((second.status, second.error()), (409, "another reload is in progress".to_owned()));
        request.finish(Ok(reloaded()));
    });
    assert_eq!(first.status, 200);
    served.reloads = reloads;
    let (answer, _) = reload(&mut served, "", "", Ok(reloaded())).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn body_that_is_no_component_or_too_large_is_rejected_before_it_is_read() {
    let mut served = TestServer::with_token(TOKEN).await;
    for headers in ["", "Content-Type: text/plain\r\n", "Content-Type: multipart/form-data; boundary=B\r\n"] {
        let answer = served.send("POST /reload", &bearer(headers), "x").await;
        assert_eq!(answer.status, 400, "{headers}");
        assert!(answer.error().contains("application/wasm"), "{answer:?}");
    }
    let head = format!(
        "POST /reload HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nContent-Length: {}\r\n{}\r\n",
        (64 << 20) + 1,
        bearer(WASM)
    );
    let answer = served.raw(head).await;
    assert_eq!((answer.status, answer.error()), (413, "component too large: limit is 64 MiB".to_owned()));
    let chunked = format!(
        "POST /reload HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{}\r\n0\r\n\r\n",
        bearer(WASM)
    );
    assert_eq!(served.raw(chunked).await.status, 400);
    assert_eq!(served.get("/reload").await.status, 405);
    let untrusted = TestServer::start().await;
    let answer = untrusted.send("POST /reload", WASM, "x").await;
    assert_eq!(answer.status, 403);
    assert!(answer.error().contains("token or client certificate"), "{answer:?}");
    assert!(served.reloads.try_recv().is_err());
}
