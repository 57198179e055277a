use std::{net::Ipv4Addr, time::Duration};

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::{Client, NodeLifetime, ZkClient, ZooKeeper};

/// Starts a server that answers every request with its body, and a proxy in front of it.
async fn echo() -> Result<(Proxy, Client)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port()?)).await?;
    let proxy = Proxy::http(listener.local_addr()?).await?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let echo = service_fn(async |request: Request<hyper::body::Incoming>| {
                let body = http_body_util::BodyExt::collect(request.into_body()).await?.to_bytes();
                Ok::<_, hyper::Error>(Response::new(Full::new(body)))
            });
            tokio::spawn(async move {
                _ = http1::Builder::new().serve_connection(TokioIo::new(stream), echo).await;
            });
        }
    });
    let client = Client::new(proxy.address().to_string());
    Ok((proxy, client))
}

async fn answers(client: &Client) -> Result {
    let reply = client.post_json("/control/check/60", &json!({ "key": "k" })).await?;
    ensure!(reply.body == Bytes::from_static(br#"{"key":"k"}"#), "it answered {:?}", reply.body);
    Ok(())
}

const SHORT_DELAY: Duration = Duration::from_millis(100);

#[tokio::test]
async fn requests_of_http_are_recognised_and_carried() -> Result {
    let (proxy, client) = echo().await?;
    answers(&client).await?;
    client.get("/info").await?.is(200)?;
    let seen = proxy.seen();
    ensure!(seen.len() == 2 && seen[0].posts("check") && !seen[1].posts("check"), "it saw {seen:?}");
    ensure!(seen[1].is(&MessageKind::Http(hyper::Method::GET), "/info"), "it saw {seen:?}");
    Ok(())
}

#[tokio::test]
async fn an_intercepted_message_waits_and_is_forwarded_or_cut() -> Result {
    let (proxy, client) = echo().await?;
    for when in [CatchPoint::Request, CatchPoint::Reply] {
        let catch = proxy.intercept(when, |message| message.posts("check"));
        client.get("/info").await?.is(200)?;
        let mut request = Box::pin(answers(&client));
        ensure!(timeout(SHORT_DELAY, &mut request).await.is_err(), "{when:?}: it was not caught");
        let caught = catch.caught().await?;
        ensure!(caught.message().path == "/control/check/60", "{when:?}: caught is {caught:?}");
        caught.pass();
        request.await?;
        let catch = proxy.intercept(when, |message| message.posts("check"));
        let (reply, caught) = tokio::join!(answers(&client), async { catch.caught().await.map(Intercepted::cut) });
        caught?;
        ensure!(reply.is_err(), "{when:?}: it was answered");
        answers(&client).await?;
    }
    drop(proxy.intercept(CatchPoint::Request, |_| true));
    answers(&client).await
}

#[tokio::test]
async fn as_a_whole_it_refuses_falls_silent_and_heals() -> Result {
    let (proxy, client) = echo().await?;
    answers(&client).await?;
    proxy.refuse();
    ensure!(timeout(DEFAULT_TIMEOUT, answers(&client)).await?.is_err(), "it answers");
    proxy.heal();
    crate::eventually("it takes connections", DEFAULT_TIMEOUT, async || answers(&client).await).await?;

    proxy.black_hole();
    let fresh = Client::new(proxy.address().to_string());
    let (mut open, mut new) = (Box::pin(answers(&client)), Box::pin(answers(&fresh)));
    ensure!(timeout(SHORT_DELAY, &mut open).await.is_err(), "an old connection continues");
    ensure!(timeout(SHORT_DELAY, &mut new).await.is_err(), "a new connection is answered");
    proxy.heal();
    open.await?;
    new.await?;

    proxy.black_hole();
    let mut open = Box::pin(answers(&client));
    ensure!(timeout(SHORT_DELAY, &mut open).await.is_err(), "it continues");
    proxy.cut();
    ensure!(timeout(DEFAULT_TIMEOUT, open).await?.is_err(), "it was answered");
    Ok(())
}

#[test]
fn bodies_in_chunks_are_carried_whole() {
    let head = b"POST /control/on/60 HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let whole = [head.as_slice(), b"3\r\nabc\r\n1a\r\n", [b'x'; 26].as_slice(), b"\r\n0\r\n\r\n"].concat();
    for end in 0..whole.len() {
        assert!(message::http(&mut whole[..end].into()).is_none(), "{end} bytes are taken for a request");
    }
    let mut read = [whole.as_slice(), b"GET"].concat().as_slice().into();
    let (bytes, message) = message::http(&mut read).unwrap();
    assert_eq!((bytes.len(), message.posts("on"), read.as_ref()), (whole.len(), true, b"GET".as_slice()));
}

#[tokio::test]
async fn requests_of_zookeeper_are_recognised() -> Result {
    let server = ZooKeeper::own().await?;
    let proxy = Proxy::zookeeper(server.address()).await?;
    let store = ZkClient::connect(&proxy.address().to_string(), "/test").await?;
    store.create("/hash", b"old", NodeLifetime::Always).await?;
    let (_, _, watcher) = store.client().get_and_watch_data("/hash").await?;
    let event = proxy.intercept(CatchPoint::Reply, |message| message.is(&MessageKind::Event, "/test/hash"));
    let commit = proxy.intercept(CatchPoint::Request, |message| message.writes("hash", "pending:"));
    let caught = async {
        let caught = commit.caught().await?;
        let steps: Vec<&MessageKind> = caught.message().steps.iter().map(|step| &step.kind).collect();
        ensure!(
            steps == [&MessageKind::Check, &MessageKind::Create, &MessageKind::Set, &MessageKind::Delete],
            "it has {steps:?}"
        );
        ensure!(caught.message().creates("/test/pods."), "it has {:?}", caught.message());
        caught.pass();
        Ok(())
    };
    let written = async {
        let mut writer = store.client().new_multi_writer();
        writer.add_check_version("/hash", -1)?;
        let options = zookeeper_client::CreateMode::Ephemeral.with_acls(zookeeper_client::Acls::anyone_all());
        writer.add_create("/pods.", b"{}", &options)?;
        writer.add_set_data("/hash", b"pending:g", None)?;
        writer.add_delete("/pods.", None)?;
        writer.commit().await?;
        anyhow::Ok(())
    };
    let passed = async {
        event.caught().await?.pass();
        Ok(())
    };
    tokio::try_join!(caught, written, passed)?;
    timeout(DEFAULT_TIMEOUT, watcher.changed()).await?;
    let kinds: Vec<MessageKind> = proxy.seen().into_iter().map(|message| message.kind).collect();
    for kind in [MessageKind::Open, MessageKind::Create, MessageKind::Get, MessageKind::Commit] {
        ensure!(kinds.contains(&kind), "no {kind:?} among {kinds:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_session_whose_reply_is_cut_continues() -> Result {
    let server = ZooKeeper::own().await?;
    let proxy = Proxy::zookeeper(server.address()).await?;
    let store = ZkClient::connect(&proxy.address().to_string(), "/test").await?;
    let answer = proxy.intercept(CatchPoint::Reply, |message| message.creates("/lost"));
    let (created, cut) = tokio::join!(store.create("/lost", b"", NodeLifetime::Always), async {
        answer.caught().await.map(Intercepted::cut)
    });
    cut?;
    ensure!(created.is_err(), "it was answered");
    ensure!(store.find("/lost").await?.is_some(), "it was not carried out");
    ensure!(proxy.seen().iter().any(|message| message.kind == MessageKind::Resume), "no session was resumed");
    Ok(())
}
