//! Requests of a leader to the control APIs of its pods: limits, deadlines, and what replies mean.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use hyper::HeaderMap;
use ochopod_client::{Client, ClientError, ControlContent, ControlRequest, Reply};
use ochopod_model::{ContentDigest, reply::ErrorReply, wire};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    event::{PeerReply, PeerRequest},
    view_encoding::EncodedRequest,
};

/// WIT name of the callback that decides whether a pod is ready.
const READY: &str = "ready";
/// Status of a pod that does not hold the view that a request names.
const NOT_HELD: u16 = 412;
/// Requests that a leader works on at the same time.
const MAX_CONCURRENT_REQUESTS: usize = 64;
/// Time after which a request waits for its pod only, and the next one is sent.
const SLOW_REPLY: Duration = Duration::from_millis(100);
/// Bytes of whole views, before compression, that a leader sends at the same time. Pods that share a machine would otherwise
/// read theirs concurrently, for longer than their sessions last.
const MAX_WHOLE_VIEW_BYTES: u32 = 4 << 20;
/// Time after which a pod that was sent a whole view no longer counts: its plugin may take seconds.
const SLOW_READER: Duration = Duration::from_millis(250);
/// Time that a leader waits for a reply, as a multiple of the limit that it sends.
const TIMEOUT_FACTOR: f64 = 1.25;
/// Longest limit that pods accept, in seconds.
const MAX_LIMIT_SECONDS: u64 = 86_400;

/// Delivers control requests to pods: over HTTP, or within a simulation.
pub trait PeerTransport: Send + Sync + 'static {
    /// Posts a request and returns its reply, whatever its status is. Fails if there is no reply within `timeout`.
    ///
    /// Dropping the future abandons the request, which may have been delivered.
    fn post(&self, request: ControlRequest, timeout: Duration) -> BoxFuture<'static, Result<Reply, ClientError>>;
}

impl PeerTransport for Client {
    fn post(&self, request: ControlRequest, timeout: Duration) -> BoxFuture<'static, Result<Reply, ClientError>> {
        let client = self.clone();
        async move { client.control(request, timeout).await }.boxed()
    }
}

/// Posts requests to pods, a limited number at a time. Requests to slow pods do not count: a plugin may take seconds for each.
#[derive(Clone)]
pub(super) struct PeerClient {
    transport: Arc<dyn PeerTransport>,
    permits: Arc<Semaphore>,
    /// One for each byte of a whole view.
    whole_views: Arc<Semaphore>,
    limit_seconds: u64,
}

impl PeerClient {
    /// Creates a client whose requests have this time limit.
    pub(super) fn new(transport: Arc<dyn PeerTransport>, limit: Duration) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_CONCURRENT_REQUESTS));
        let whole_views = Arc::new(Semaphore::new(MAX_WHOLE_VIEW_BYTES as usize));
        Self { transport, permits, whole_views, limit_seconds: limit_seconds(limit) }
    }

    /// Returns a client of the same transport that counts its own requests in flight.
    pub(super) fn with_own_limit(&self) -> Self {
        Self { permits: Arc::new(Semaphore::new(MAX_CONCURRENT_REQUESTS)), ..self.clone() }
    }

    /// Posts and waits for the reply, a quarter longer than the limit that is sent. A pod that does not hold the view of the
    /// request is sent the whole one. Returns the view that the pod holds too.
    pub(super) async fn post(
        self,
        request: PeerRequest,
        encoded: EncodedRequest,
        epoch: i64,
        number: u64,
    ) -> (PeerReply, Option<ContentDigest>) {
        let Ok(permit) = self.permits.acquire().await else {
            return (PeerReply::Unreachable("leadership ended".to_owned()), None);
        };
        hold_while_quick(permit, SLOW_REPLY, self.exchange(request, encoded, epoch, number)).await
    }

    async fn exchange(
        &self,
        request: PeerRequest,
        encoded: EncodedRequest,
        epoch: i64,
        number: u64,
    ) -> (PeerReply, Option<ContentDigest>) {
        let timeout = Duration::from_secs(self.limit_seconds).mul_f64(TIMEOUT_FACTOR);
        let mut post = ControlRequest {
            body: encoded.body,
            content: encoded.content,
            address: request.address,
            pod: request.pod,
            task: request.task.name(),
            limit_seconds: self.limit_seconds,
            epoch,
            number,
            generation: request.generation,
        };
        let mut reply = None;
        if post.content != ControlContent::Whole {
            reply = Some(self.transport.post(post.clone(), timeout).await);
        }
        let is_not_held =
            reply.as_ref().is_some_and(|reply| reply.as_ref().is_ok_and(|reply| reply.status == NOT_HELD));
        let reply = match reply.filter(|_| !is_not_held) {
            Some(reply) => reply,
            None => match encoded.whole.for_pod(&post.pod, &request.started) {
                Ok(body) => {
                    (post.content, post.body) = (ControlContent::Whole, body);
                    self.post_whole(post, encoded.whole.bytes(), timeout).await
                }
                Err(reason) => return (PeerReply::Unreachable(reason), None),
            },
        };
        match reply {
            Ok(reply) => (interpret(&reply, number), held_view(&reply.headers)),
            Err(error) => (PeerReply::Unreachable(error.to_string()), None),
        }
    }

    /// Posts a view of this size, once enough others have been read.
    async fn post_whole(&self, post: ControlRequest, bytes: usize, timeout: Duration) -> Result<Reply, ClientError> {
        let share = u32::try_from(bytes).unwrap_or(MAX_WHOLE_VIEW_BYTES).clamp(1, MAX_WHOLE_VIEW_BYTES);
        // Nothing closes it.
        let permit = self.whole_views.acquire_many(share).await;
        hold_while_quick(permit, SLOW_READER, self.transport.post(post, timeout)).await
    }
}

/// Completes with the exchange. A permit is returned early if the exchange takes longer than `limit`.
async fn hold_while_quick<T>(permit: impl Send, limit: Duration, exchange: impl Future<Output = T> + Send) -> T {
    let mut exchange = pin!(exchange);
    if let Ok(answered) = timeout(limit, &mut exchange).await {
        return answered;
    }
    drop(permit);
    exchange.await
}

/// Returns the view that the pod holds, if it reports one.
fn held_view(headers: &HeaderMap) -> Option<ContentDigest> {
    Some(ContentDigest::from(headers.get(wire::VIEW)?.to_str().ok()?))
}

/// Returns a limit in whole seconds, as it is sent.
fn limit_seconds(limit: Duration) -> u64 {
    let limit = if limit.subsec_nanos() > 0 { limit.as_secs() + 1 } else { limit.as_secs() };
    limit.clamp(1, MAX_LIMIT_SECONDS)
}

/// Returns the meaning of the reply to the request of this number. A reply that no pod sends counts as none. A 409 may be
/// sent by anyone and is for the leader to verify.
fn interpret(reply: &Reply, number: u64) -> PeerReply {
    let (status, text) = (reply.status, reply.error_text());
    if reply.headers.contains_key(wire::KEY) {
        return PeerReply::WrongPod(text);
    }
    match status {
        409 => match accepted_number(&reply.headers).filter(|accepted| *accepted >= number) {
            Some(accepted) => PeerReply::Late(accepted, text),
            None => PeerReply::Status(status, text),
        },
        503 | 410 => match serde_json::from_slice::<ErrorReply>(&reply.body) {
            Ok(ErrorReply { callback: Some(callback), .. }) if status == 503 && callback == READY => {
                PeerReply::NotReady(text)
            }
            Ok(ErrorReply { cordon: Some(reason), .. }) if status == 410 => PeerReply::Cordoned(reason),
            Err(_) if status == 410 && !is_json(&reply.body) => not_a_pod(status),
            _ => PeerReply::Status(status, text),
        },
        200 | 406 if !is_json(&reply.body) => not_a_pod(status),
        _ => PeerReply::Status(status, text),
    }
}

fn not_a_pod(status: u16) -> PeerReply {
    PeerReply::Unreachable(format!("answered {status} without JSON: not a pod"))
}

/// Returns whether this may be the body of a pod's reply.
fn is_json(body: &[u8]) -> bool {
    body.is_empty() || serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

/// Returns the number that the pod has accepted, if it reports one.
fn accepted_number(headers: &HeaderMap) -> Option<u64> {
    let number = headers.get(wire::NUMBER)?.to_str().ok()?.parse().ok()?;
    (number <= wire::MAX_NUMBER).then_some(number)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ochopod_client::Auth;
    use ochopod_model::{Digest, PodId, View};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::{RolloutTask, view_encoding::PeerViews};

    fn request(address: String) -> PeerRequest {
        PeerRequest {
            call: 1,
            pod: PodId::from("a"),
            address,
            task: RolloutTask::Check,
            generation: Digest::from("1:0"),
            view: Arc::new(View::default()),
            started: Arc::default(),
        }
    }

    /// Posts to a peer that answers every request like this.
    async fn answered(answer: Vec<u8>) -> PeerReply {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let request = request(listener.local_addr().unwrap().to_string());
        let encoded = PeerViews::default().encode(&request);
        let peer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The request has started, so that the answer is not early.
            _ = stream.read(&mut [0]).await;
            _ = stream.write_all(&answer).await;
            _ = stream.shutdown().await;
            // Until the leader hangs up.
            _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        };
        let client = PeerClient::new(Arc::new(Client::plain(Auth::None)), Duration::from_secs(30));
        tokio::join!(client.post(request, encoded, 7, 5), peer).0.0
    }

    fn reply(status: &str, headers: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[tokio::test]
    async fn reply_409_is_late_only_with_a_number_not_below_that_of_the_request() {
        let late = |number: &str| reply("409 C", &format!("X-Ochopod-Number: {number}\r\n"), r#"{"error":"late"}"#);
        for (number, accepted) in [("5", 5), ("7", 7), ("9007199254740992", 1 << 53)] {
            assert_eq!(answered(late(number)).await, PeerReply::Late(accepted, "late".to_owned()), "{number}");
        }
        for nonsense in ["4", "", "x", "-1", "9007199254740993", "18446744073709551615"] {
            assert_eq!(answered(late(nonsense)).await, PeerReply::Status(409, "late".to_owned()), "{nonsense}");
        }
        let foreign = reply("409 C", "", "<html>Conflict</html>");
        assert_eq!(answered(foreign).await, PeerReply::Status(409, String::new()));
    }

    #[tokio::test]
    async fn reply_without_json_counts_as_unreachable() {
        for status in ["200 OK", "406 No", "410 Gone"] {
            let answer = answered(reply(status, "", "<html></html>")).await;
            assert!(matches!(&answer, PeerReply::Unreachable(reason) if reason.ends_with("not a pod")), "{answer:?}");
            assert!(matches!(answered(reply(status, "", "{}")).await, PeerReply::Status(..)), "{status}");
        }
    }

    #[tokio::test]
    async fn hostile_replies_are_bounded_and_never_count_as_success() {
        let long = "x".repeat(60_000);
        let refused = reply("406 No", "", &format!("{{\"error\":\"{long}\"}}"));
        let answer = answered(refused).await;
        let PeerReply::Status(406, text) = answer else { panic!("{answer:?}") };
        assert_eq!(text.len(), 400);
        let bare =
            [reply("500 E", "", "\"error\""), reply("500 E", "", &"[".repeat(10_000)), reply("500 E", "", "\u{7f}")];
        for bare in bare {
            assert_eq!(answered(bare).await, PeerReply::Status(500, String::new()));
        }
        assert!(matches!(answered(reply("409 C", "X-Ochopod-Key: b\r\n", "{}")).await, PeerReply::WrongPod(_)));
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
            assert!(matches!(&answered, PeerReply::Unreachable(reason) if !reason.is_empty()), "{shown}: {answered:?}");
        }
    }

    /// Pods that accept every request and never answer.
    #[derive(Default)]
    struct SilentPods(AtomicUsize);

    impl PeerTransport for SilentPods {
        fn post(&self, _: ControlRequest, _: Duration) -> BoxFuture<'static, Result<Reply, ClientError>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            std::future::pending().boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn few_pods_are_sent_large_views_at_a_time() {
        let pods = Arc::new(SilentPods::default());
        let client = PeerClient::new(pods.clone(), Duration::from_secs(30));
        // More than a third of what is sent at a time.
        let fields = serde_json::json!({"seq": 0, "padding": "x".repeat(1_500_000)}).as_object().unwrap().clone();
        let pod = Arc::new(ochopod_model::Registration::from_fields(fields).unwrap());
        let large = Arc::new(View { pods: [(PodId::from("a"), pod)].into(), ..View::default() });
        let mut views = PeerViews::default();
        let mut posts = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let request = PeerRequest { view: Arc::clone(&large), ..request(String::new()) };
            let encoded = views.encode(&request);
            posts.spawn(client.clone().post(request, encoded, 7, 5));
        }
        for sent in [2, 4, 6] {
            tokio::time::sleep(SLOW_READER / 2).await;
            assert_eq!(pods.0.load(Ordering::Relaxed), sent);
            tokio::time::sleep(SLOW_READER / 2 + Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_pods_do_not_keep_requests_from_others() {
        let pods = Arc::new(SilentPods::default());
        let client = PeerClient::new(pods.clone(), Duration::from_secs(30));
        let mut posts = tokio::task::JoinSet::new();
        for _ in 0..10 * MAX_CONCURRENT_REQUESTS {
            let request = request(String::new());
            let encoded = PeerViews::default().encode(&request);
            posts.spawn(client.clone().post(request, encoded, 7, 5));
        }
        tokio::time::sleep(SLOW_REPLY / 2).await;
        assert_eq!(pods.0.load(Ordering::Relaxed), MAX_CONCURRENT_REQUESTS, "quick pods are not flooded");
        tokio::time::sleep(10 * SLOW_REPLY).await;
        assert_eq!(pods.0.load(Ordering::Relaxed), 10 * MAX_CONCURRENT_REQUESTS);
    }
}
