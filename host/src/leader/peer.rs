//! Requests of a leader to the control APIs of its pods.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Request,
    body::{Body, Frame, SizeHint},
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{Answer, Post};
use crate::{
    cluster::{
        PodId, Signed, Token, View, body_digest,
        wire::{self, Credentials},
    },
    settings::Access,
};

/// Requests under way at a time.
const AT_A_TIME: usize = 64;
/// How much longer than the limit that it sends a leader waits.
const PATIENCE: f64 = 1.25;
/// The longest limit that pods accept, in seconds.
const LONGEST_LIMIT: u64 = 86_400;
/// How much of an answer is read, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;
/// How much of a refusal's text is kept, in characters.
const LONGEST_REFUSAL: usize = 400;

/// A request's body: frames that several requests share.
struct Frames(VecDeque<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|bytes| bytes.len() as u64).sum())
    }
}

/// A view as it is sent: serialised once, shared by all requests of a phase.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    view: Arc<View>,
    tail: Bytes,
}

impl Shared {
    pub(super) fn new(view: Arc<View>) -> Self {
        let json = serde_json::to_vec(&*view).unwrap_or_default();
        // What follows the key in `{"key":…,` — the view's own object without its opening brace.
        let tail = Bytes::from(json).slice(1..);
        Self { view, tail }
    }

    pub(super) fn is_of(&self, view: &Arc<View>) -> bool {
        Arc::ptr_eq(&self.view, view)
    }

    fn for_pod(&self, pod: &PodId) -> Frames {
        let head = format!(r#"{{"key":{},"#, Value::from(pod.as_str()));
        Frames(VecDeque::from([Bytes::from(head), self.tail.clone()]))
    }
}

/// Connections to the pods, kept warm.
#[derive(Debug, Clone)]
pub(super) struct Peers {
    client: Client<HttpsConnector<HttpConnector>, Frames>,
    scheme: &'static str,
    token: Option<Token>,
    places: Arc<Semaphore>,
    /// In whole seconds, as it is sent.
    limit: u64,
}

impl Peers {
    /// `limit` is what every request may take. Peers speak TLS if the own pod does.
    pub(super) fn new(limit: Duration, access: &Access) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = HttpsConnector::from((connector, Arc::clone(&access.client)));
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        Self {
            client,
            scheme: if access.server.is_some() { "https" } else { "http" },
            token: access.token.clone(),
            places: Arc::new(Semaphore::new(AT_A_TIME)),
            limit: whole_seconds(limit),
        }
    }

    /// The same connections, with another count of requests under way.
    pub(super) fn with_own_places(&self) -> Self {
        Self { places: Arc::new(Semaphore::new(AT_A_TIME)), ..self.clone() }
    }

    /// Posts and waits for the answer, a quarter longer than the limit that is sent.
    pub(super) async fn post(self, post: Post, body: Shared, epoch: i64, number: u64) -> Answer {
        let Ok(_place) = self.places.acquire().await else {
            return Answer::Unreachable("the leader is ending".to_owned());
        };
        let patience = patience(self.limit);
        match tokio::time::timeout(patience, self.exchange(&post, &body, epoch, number)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(reason)) => Answer::Unreachable(reason),
            Err(_) => Answer::Unreachable(format!("no answer within {:.1} s", patience.as_secs_f64())),
        }
    }

    async fn exchange(&self, post: &Post, body: &Shared, epoch: i64, number: u64) -> Result<Answer, String> {
        let (path, body) = (format!("/control/{}/{}", post.task.name(), self.limit), body.for_pod(&post.pod));
        let mut request = Request::post(format!("{}://{}{path}", self.scheme, post.address))
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .header(wire::EPOCH, epoch)
            .header(wire::NUMBER, number)
            .header(wire::GENERATION, post.generation.as_str());
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, signature(token, post, &path, (epoch, number), &body));
        }
        let request = request.body(body).map_err(|e| e.to_string())?;
        let response = self.client.request(request).await.map_err(|e| chain(&e))?;
        let code = response.status().as_u16();
        let stranger = response.headers().contains_key(wire::KEY);
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await.map_err(|e| e.to_string())?;
        Ok(answer(code, stranger, &body.to_bytes()))
    }
}

/// A limit as it is sent.
pub(crate) fn whole_seconds(limit: Duration) -> u64 {
    let limit = if limit.subsec_nanos() > 0 { limit.as_secs() + 1 } else { limit.as_secs() };
    limit.clamp(1, LONGEST_LIMIT)
}

/// How long the answer to a request with this limit is waited for.
pub(crate) fn patience(limit: u64) -> Duration {
    Duration::from_secs(limit).mul_f64(PATIENCE)
}

/// What a reply says: its code, whether it names another pod than the one that was meant, and its body.
pub(crate) fn answer(code: u16, stranger: bool, body: &[u8]) -> Answer {
    let text = refusal(body);
    if stranger { Answer::Stranger(text) } else { Answer::Code(code, text) }
}

/// What shows a pod that its leader asks: made for this request only.
fn signature(token: &Token, post: &Post, path: &str, (epoch, number): (i64, u64), body: &Frames) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (epoch, number, time) = (epoch.to_string(), number.to_string(), since.as_micros().to_string());
    let body = body_digest(body.0.iter().map(|bytes| &**bytes));
    let (key, generation) = (post.pod.as_str(), post.generation.as_str());
    let signed =
        Signed { method: "POST", path, key, epoch: &epoch, number: &number, generation, time: &time, body: &body };
    Credentials::signature(key, &time, &body, &token.sign(&signed))
}

/// The text of an error's body.
fn refusal(body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = json.get("error").and_then(Value::as_str).unwrap_or_default();
    text.chars().take(LONGEST_REFUSAL).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::{
        cluster::{Digest, PostedView},
        leader::Task,
    };

    #[tokio::test]
    async fn the_shared_body_reads_as_the_view_of_each_pod() {
        let text = br#"{"key":"b","pods":{"a\"":{"seq":1},"b":{"seq":2}},"dependencies":{"db":{}}}"#;
        let posted = PostedView::parse(text).unwrap();
        let shared = Shared::new(Arc::new(posted.view.clone()));
        for key in ["a\"", "b"] {
            let body = shared.for_pod(&PodId::from(key));
            let size = body.size_hint().exact().unwrap();
            let bytes = body.collect().await.unwrap().to_bytes();
            assert_eq!(bytes.len() as u64, size);
            let read = PostedView::parse(&bytes).unwrap();
            assert_eq!((read.key.as_str(), &read.view), (key, &posted.view));
        }
    }

    /// Posts to a peer that answers every request so.
    async fn answered(answer: Vec<u8>) -> Answer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let view = Arc::new(View::default());
        let post = Post {
            call: 1,
            pod: PodId::from("a"),
            address: listener.local_addr().unwrap().to_string(),
            task: Task::Check,
            generation: Digest::from("1:0"),
            view: view.clone(),
        };
        let shared = Shared::new(view);
        let peer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The request has begun, so that the answer is not early.
            _ = stream.read(&mut [0]).await;
            _ = stream.write_all(&answer).await;
            _ = stream.shutdown().await;
            // Until the leader has had enough.
            _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        };
        let peers = Peers::new(Duration::from_secs(1), &Access::open());
        tokio::join!(peers.post(post, shared, 7, 1), peer).0
    }

    #[tokio::test]
    async fn whatever_a_peer_answers_is_short_and_no_consent() {
        let long = "x".repeat(60_000);
        let reply = |status: &str, headers: &str, body: &str| {
            format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        };
        let refused = reply("406 No", "", &format!("{{\"error\":\"{long}\"}}"));
        let answer = answered(refused).await;
        let Answer::Code(406, text) = answer else { panic!("{answer:?}") };
        assert_eq!(text.len(), LONGEST_REFUSAL);
        let bare =
            [reply("500 E", "", "\"error\""), reply("500 E", "", &"[".repeat(10_000)), reply("500 E", "", "\u{7f}")];
        for bare in bare {
            assert_eq!(answered(bare).await, Answer::Code(500, String::new()));
        }
        assert!(matches!(answered(reply("409 C", "X-Ochopod-Key: b\r\n", "{}")).await, Answer::Stranger(_)));
        let rubbish = [
            Vec::new(),
            b"\0\xff".to_vec(),
            b"HTTP/1.1 200".to_vec(),
            b"HTTP/1.1 999999 OK\r\n\r\n".to_vec(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{".to_vec(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
            format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", long.repeat(20)).into_bytes(),
            format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(10_000)).into_bytes(),
            reply("200 OK", "", &long.repeat(2)),
        ];
        for answer in rubbish {
            let shown = answer.get(..40).unwrap_or(&answer).escape_ascii().to_string();
            let answered = answered(answer).await;
            assert!(matches!(&answered, Answer::Unreachable(reason) if !reason.is_empty()), "{shown}: {answered:?}");
        }
    }
}
