//! Views as they are sent: whole, or as the difference to the view that a pod holds. Each is encoded once and shared by all
//! requests that need it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    sync::{Arc, OnceLock},
};

use bytes::{Buf as _, Bytes};
use flate2::{Compression, write::GzEncoder};
use ochopod_client::{ControlContent, RequestBody};
use ochopod_model::{ContentDigest, PodId, View, ViewDifference};
use serde_json::Value;

use super::event::{PeerRequest, RolloutTask};

/// Bytes of a view above which it is compressed for pods that accept it.
const MIN_COMPRESSED_BYTES: usize = 32 * 1024;

/// A whole view, encoded when it is first needed.
#[derive(Debug, Clone)]
pub(super) struct WholeView {
    view: Arc<View>,
    tail: Arc<OnceLock<Result<Bytes, String>>>,
    /// The same, as a member of a gzip file.
    compressed_tail: Arc<OnceLock<Result<Bytes, String>>>,
}

impl WholeView {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self { view, tail: Arc::default(), compressed_tail: Arc::default() }
    }

    /// Returns the view's JSON after the key in `{"key":…,`: its own object without the opening brace.
    ///
    /// # Errors
    /// If it cannot be encoded.
    fn tail(&self) -> Result<Bytes, String> {
        let tail = self.tail.get_or_init(|| {
            let json = serde_json::to_vec(&*self.view).map_err(|error| format!("cannot encode view: {error}"))?;
            let mut tail = Bytes::from(json);
            tail.advance(tail.len().min(1));
            Ok(tail)
        });
        tail.clone()
    }

    /// Returns its size before compression.
    pub(super) fn bytes(&self) -> usize {
        self.tail().map_or(0, |tail| tail.len())
    }

    /// Returns the body for one pod, which names the pods whose start was requested before, if there are any. It is compressed
    /// if it is large and the pod accepts that.
    ///
    /// # Errors
    /// If the view cannot be encoded.
    pub(super) fn for_pod(&self, pod: &PodId, started: &BTreeSet<PodId>) -> Result<RequestBody, String> {
        let tail = self.tail()?;
        let key = Value::from(pod.as_str());
        let head = if started.is_empty() {
            format!(r#"{{"key":{key},"#)
        } else {
            let started: Value = started.iter().map(PodId::as_str).collect();
            format!(r#"{{"key":{key},"started":{started},"#)
        };
        let accepts_compressed =
            self.view.pods.get(pod).is_some_and(|registration| registration.accepts_compressed_bodies());
        if !accepts_compressed || tail.len() < MIN_COMPRESSED_BYTES {
            return Ok(RequestBody::from([Bytes::from(head), tail]));
        }
        let compressed_tail = self.compressed_tail.get_or_init(|| gzip_member(&tail, Compression::fast()));
        Ok(RequestBody::gzip([gzip_member(head.as_bytes(), Compression::none())?, compressed_tail.clone()?]))
    }
}

fn gzip_member(content: &[u8], level: Compression) -> Result<Bytes, String> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    let done = encoder.write_all(content).and_then(|()| encoder.finish());
    done.map(Bytes::from).map_err(|error| format!("cannot compress view: {error}"))
}

/// Content of a request to one pod.
#[derive(Debug, Clone)]
pub(super) struct EncodedRequest {
    /// How the body describes the view.
    pub(super) content: ControlContent,
    /// The body, unless it is the whole view.
    pub(super) body: RequestBody,
    /// The whole view: the body of [`ControlContent::Whole`], and what is sent to a pod that does not hold the base.
    pub(super) whole: WholeView,
}

/// A view that is sent, with its digest and its differences to the views that pods hold.
#[derive(Debug)]
struct SentView {
    view: Arc<View>,
    digest: ContentDigest,
    whole: WholeView,
    /// By the digest of the view that a pod holds; none if it is not to be described by a difference.
    differences: BTreeMap<ContentDigest, Option<Difference>>,
}

/// A difference, encoded.
#[derive(Debug, Clone)]
struct Difference {
    /// The view that the pod is to use.
    named: ContentDigest,
    content: Arc<ViewDifference>,
    body: Bytes,
}

/// The views that the pods of a cluster hold, as they have replied.
#[derive(Debug, Default)]
pub(super) struct PeerViews {
    /// None for pods whose view is not known.
    held: BTreeMap<PodId, Option<ContentDigest>>,
    /// Views that pods may hold, by their digests.
    known: BTreeMap<ContentDigest, Arc<View>>,
    /// The view of the last request.
    sent: Option<SentView>,
}

impl PeerViews {
    /// Encodes a request for what its pod holds.
    pub(super) fn encode(&mut self, request: &PeerRequest) -> EncodedRequest {
        let accepts_differences =
            request.view.pods.get(&request.pod).is_some_and(|registration| registration.accepts_differences());
        let held = self.held.get(&request.pod).cloned().flatten().filter(|_| accepts_differences);
        let is_check = request.task == RolloutTask::Check;
        let whole = self.sent_view(&request.view).whole.clone();
        if request.task == RolloutTask::Off && accepts_differences {
            return EncodedRequest { content: ControlContent::Nothing, body: RequestBody::default(), whole };
        }
        let difference = held.and_then(|held| self.difference(held, is_check));
        let Some(difference) = difference else {
            return EncodedRequest { content: ControlContent::Whole, body: RequestBody::default(), whole };
        };
        let body = if request.started.is_empty() {
            difference.body
        } else {
            encoded(&difference.content.with_started(BTreeSet::clone(&request.started)))
        };
        EncodedRequest { content: ControlContent::Difference(difference.named), body: body.into(), whole }
    }

    /// Records the view of the last configuration, which another leader has sent: most of its pods hold it.
    pub(super) fn assume(&mut self, view: &View) {
        let digest = ContentDigest::of(view);
        self.known.insert(digest.clone(), Arc::new(view.clone()));
        for pod in view.pods.keys() {
            self.held.entry(pod.clone()).or_insert_with(|| Some(digest.clone()));
        }
    }

    /// Records the view that a pod holds, as it has replied; none if it does not say so.
    pub(super) fn replied(&mut self, pod: PodId, held: Option<ContentDigest>) {
        let held = held.filter(|held| self.known.contains_key(held));
        self.held.insert(pod, held);
    }

    /// Returns the encodings of a view. Requests in a row with the same view share them.
    fn sent_view(&mut self, view: &Arc<View>) -> &mut SentView {
        let sent = self.sent.take().filter(|sent| Arc::ptr_eq(&sent.view, view));
        let sent = sent.unwrap_or_else(|| {
            let digest = ContentDigest::of(view);
            self.held.retain(|pod, _| view.pods.contains_key(pod));
            let in_use: BTreeSet<&ContentDigest> = self.held.values().flatten().collect();
            self.known.retain(|digest, _| in_use.contains(digest));
            self.known.entry(digest.clone()).or_insert_with(|| Arc::clone(view));
            let whole = WholeView::new(Arc::clone(view));
            SentView { view: Arc::clone(view), digest, whole, differences: BTreeMap::new() }
        });
        self.sent.insert(sent)
    }

    /// Returns the difference from a view that a pod holds to the one that is sent.
    fn difference(&mut self, held: ContentDigest, is_check: bool) -> Option<Difference> {
        let base = self.known.get(&held)?;
        let sent = self.sent.as_mut()?;
        let SentView { view, digest, differences, .. } = sent;
        let difference = differences.entry(held.clone()).or_insert_with(|| {
            let difference = ViewDifference::between(base, held.clone(), view);
            let (named, content) = match difference.only_dropped() {
                // The pod keeps holding what it was sent with the check.
                Some(dropped) if !is_check || dropped.is_empty() => (held, ViewDifference::dropping(dropped)),
                _ => (digest.clone(), difference),
            };
            let body = if content == ViewDifference::default() { Bytes::new() } else { encoded(&content) };
            // Most of the view has changed: a difference would not be shorter.
            let is_long = content.changes() > view.pods.len() / 2 + 2;
            (!is_long).then(|| Difference { named, content: Arc::new(content), body })
        });
        difference.clone()
    }
}

fn encoded(difference: &ViewDifference) -> Bytes {
    // Only a map with keys other than strings cannot be encoded, and it has none.
    Bytes::from(serde_json::to_vec(difference).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use http_body_util::BodyExt as _;
    use hyper::body::Body as _;
    use ochopod_model::{
        CAPABILITIES, COMPRESSED_BODIES, DIFFERENCES, Digest, HeldViews, Pods, PostedView, Registration,
    };
    use serde_json::json;

    use super::*;

    fn pods(numbers: std::ops::Range<u64>) -> Pods {
        let pod = |seq: u64| {
            let fields = json!({"seq": seq, CAPABILITIES: [DIFFERENCES]}).as_object().unwrap().clone();
            (PodId::from(&*format!("{seq:02}")), Arc::new(Registration::from_fields(fields).unwrap()))
        };
        numbers.map(pod).collect()
    }

    fn view(pods: Pods) -> Arc<View> {
        Arc::new(View { pods, ..View::default() })
    }

    fn request(task: RolloutTask, pod: &str, view: &Arc<View>) -> PeerRequest {
        PeerRequest {
            call: 1,
            pod: PodId::from(pod),
            address: String::new(),
            task,
            generation: Digest::of(view),
            view: Arc::clone(view),
            started: Arc::default(),
        }
    }

    /// A pod that reads requests as the control API does, and the leader's record of what it holds.
    #[derive(Default)]
    struct Peer {
        views: PeerViews,
        held: HeldViews,
    }

    impl Peer {
        /// Sends a request to pod 00. Returns the size of its body and the view that the pod reads; none for one that it does not
        /// hold.
        async fn send(&mut self, request: &PeerRequest) -> (usize, Option<PostedView>) {
            let encoded = self.views.encode(request);
            let body = match encoded.content {
                ControlContent::Whole => encoded.whole.for_pod(&request.pod, &request.started).unwrap(),
                _ => encoded.body,
            };
            let size = body.size_hint().exact().unwrap();
            let bytes = body.collect().await.unwrap().to_bytes();
            assert_eq!(bytes.len() as u64, size);
            let posted = match encoded.content {
                ControlContent::Whole => {
                    let posted = PostedView::parse(&bytes).unwrap();
                    self.held.hold(ContentDigest::of(&posted.view), Arc::clone(&posted.view));
                    Some(posted)
                }
                ControlContent::Difference(named) => self.held.resolve(&named, request.pod.clone(), &bytes).ok(),
                ControlContent::Nothing => None,
            };
            if let Some(posted) = &posted {
                assert_eq!((&posted.view, &posted.key), (&request.view, &request.pod));
                assert_eq!(posted.started, *request.started);
            }
            self.views.replied(request.pod.clone(), self.held.newest().map(|(digest, _)| digest.clone()));
            (bytes.len(), posted)
        }
    }

    #[tokio::test]
    async fn whole_view_is_sent_once_then_changes_then_nothing() {
        let mut peer = Peer::default();
        let first = view(pods(0..50));
        let (whole, _) = peer.send(&request(RolloutTask::Check, "00", &first)).await;
        assert!(whole > 50 * 40);
        assert_eq!(peer.send(&request(RolloutTask::Check, "00", &first)).await.0, 0, "it holds the view");
        let next = view(pods(0..51));
        let (difference, posted) = peer.send(&request(RolloutTask::Check, "00", &next)).await;
        assert!(difference < 400 && posted.is_some(), "{difference}");
        assert_eq!(peer.send(&request(RolloutTask::Off, "00", &next)).await, (0, None));
        assert_eq!(peer.send(&request(RolloutTask::On, "00", &next)).await.0, 0);
        let live = view(next.pods.iter().take(50).map(|(id, pod)| (id.clone(), pod.clone())).collect());
        for task in [RolloutTask::On, RolloutTask::Ok] {
            let (dropped, posted) = peer.send(&request(task, "00", &live)).await;
            assert!(dropped < 40 && posted.is_some(), "{dropped}");
        }
        let started = Arc::new(BTreeSet::from([PodId::from("07")]));
        let (size, posted) = peer.send(&PeerRequest { started, ..request(RolloutTask::On, "00", &live) }).await;
        assert!(size < 80 && posted.is_some(), "{size}");
    }

    #[tokio::test]
    async fn pod_that_lost_what_it_held_or_does_not_accept_differences_is_sent_the_whole_view() {
        let mut peer = Peer::default();
        let first = view(pods(0..50));
        peer.send(&request(RolloutTask::Check, "00", &first)).await;
        peer.held = HeldViews::default();
        assert_eq!(peer.send(&request(RolloutTask::On, "00", &first)).await, (0, None), "412");
        assert!(peer.send(&request(RolloutTask::On, "00", &first)).await.1.is_some());

        let mut python = pods(0..50);
        let fields = json!({"seq": 0}).as_object().unwrap().clone();
        python.insert(PodId::from("00"), Arc::new(Registration::from_fields(fields).unwrap()));
        let python = view(python);
        for task in [RolloutTask::Check, RolloutTask::Off, RolloutTask::On, RolloutTask::Ok] {
            assert_eq!(peer.views.encode(&request(task, "00", &python)).content, ControlContent::Whole, "{task:?}");
        }
    }

    #[tokio::test]
    async fn new_leader_sends_the_difference_to_the_view_of_the_last_configuration() {
        let mut peer = Peer::default();
        let last = view(pods(0..50));
        peer.send(&request(RolloutTask::Check, "00", &last)).await;
        peer.views = PeerViews::default();
        // As it is read from the store.
        peer.views.assume(&serde_json::from_slice(&serde_json::to_vec(&*last).unwrap()).unwrap());
        let next = view(pods(1..50).into_iter().chain(pods(0..1)).chain(pods(50..51)).collect());
        let (size, posted) = peer.send(&request(RolloutTask::Check, "00", &next)).await;
        assert!(size < 400 && posted.is_some(), "{size}");

        peer.views = PeerViews::default();
        peer.views.assume(&last);
        peer.held = HeldViews::default();
        assert_eq!(peer.send(&request(RolloutTask::On, "00", &last)).await, (0, None), "412");
        assert!(peer.send(&request(RolloutTask::On, "00", &last)).await.1.is_some(), "it is not assumed again");
    }

    #[tokio::test]
    async fn new_leader_sends_the_whole_view_to_a_pod_outside_the_last_configuration() {
        let mut peer = Peer::default();
        peer.views.assume(&view(pods(1..50)));
        let (_, posted) = peer.send(&request(RolloutTask::Check, "00", &view(pods(0..50)))).await;
        assert!(posted.is_some());
    }

    #[tokio::test]
    async fn view_that_shares_little_with_the_held_one_is_sent_as_a_whole() {
        let mut peer = Peer::default();
        peer.send(&request(RolloutTask::Check, "00", &view(pods(0..10)))).await;
        let larger = view(pods(0..50));
        assert_eq!(peer.views.encode(&request(RolloutTask::Check, "00", &larger)).content, ControlContent::Whole);
    }

    #[tokio::test]
    async fn large_view_is_compressed_for_pods_that_accept_it() {
        let mut pods = pods(0..2000);
        let fields = json!({"seq": 1, CAPABILITIES: [DIFFERENCES, COMPRESSED_BODIES]}).as_object().unwrap().clone();
        pods.insert(PodId::from("01"), Arc::new(Registration::from_fields(fields).unwrap()));
        let (whole, started) = (WholeView::new(view(pods)), BTreeSet::from([PodId::from("00")]));
        let mut read = Vec::new();
        for pod in ["00", "01"] {
            let body = whole.for_pod(&PodId::from(pod), &started).unwrap();
            assert_eq!(body.is_compressed(), pod == "01");
            let bytes = body.collect().await.unwrap().to_bytes();
            read.push((bytes.len(), bytes));
        }
        assert!(read[1].0 < read[0].0 / 4, "{} of {} bytes", read[1].0, read[0].0);
        let mut text = Vec::new();
        flate2::read::MultiGzDecoder::new(&*read[1].1).read_to_end(&mut text).unwrap();
        let (plain, unpacked) = (PostedView::parse(&read[0].1).unwrap(), PostedView::parse(&text).unwrap());
        assert_eq!((unpacked.key.as_str(), &unpacked.view, &unpacked.started), ("01", &plain.view, &started));
    }

    #[tokio::test]
    async fn encoded_view_reads_as_the_view_of_each_pod() {
        let text = br#"{"key":"b","pods":{"a\"":{"seq":1},"b":{"seq":2}},"dependencies":{"db":{}}}"#;
        let posted = PostedView::parse(text).unwrap();
        let whole = WholeView::new(Arc::clone(&posted.view));
        for key in ["a\"", "b"] {
            let body = whole.for_pod(&PodId::from(key), &BTreeSet::new()).unwrap();
            let read = PostedView::parse(&body.collect().await.unwrap().to_bytes()).unwrap();
            assert_eq!((read.key.as_str(), &read.view), (key, &posted.view));
        }
    }
}
