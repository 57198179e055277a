//! Requests to the control port.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use ochopod_client::{Auth, Client};
use ochopod_control::{self as control, ApiContext, ExecOutput, ExecRequest, Reloads, Tools};
use ochopod_lifecycle::{ControlTask, Fence, LifecycleHandle, Outcome, Request, Submission};
use ochopod_model::{
    ClusterName, PodId, PostedView,
    status::{
        LeaderReport, LifecycleReport, MAX_REASON_BYTES, PlatformReport, PluginIdentity, PluginReport, single_line,
    },
};
use ochopod_store::{EmbeddedStore, MembershipHandle, StoreBackend};
use ochopod_telemetry::{Metrics, PodLog, PodLogFormat};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::{self, Runtime},
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;

use crate::MAX_ERROR_BYTES;

const ID: &str = "8ce92aca-2b79-4403-87c5-5c9303d5a01a";
const TOOL: &str = "echo";
/// Time limit of a reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time limit of a request.
const MAX_TIME_LIMIT: Duration = Duration::from_hours(24);
/// Status codes of the host, except those of its own failures.
const STATUSES: [u16; 14] = [200, 204, 400, 404, 405, 406, 408, 409, 410, 413, 414, 417, 431, 503];

/// A pod that serves, and the ends of what its handlers use.
struct TestServer {
    runtime: Runtime,
    address: SocketAddr,
    submissions: mpsc::Receiver<Submission>,
    runs: mpsc::Receiver<ExecRequest>,
    _reports: (watch::Sender<LifecycleReport>, watch::Sender<LeaderReport>),
    _log: PodLog,
}

static SERVER: LazyLock<Mutex<TestServer>> = LazyLock::new(|| Mutex::new(TestServer::start()));

/// Checks that every input is answered, or closes its connection; the next client is served.
pub fn connection(bytes: &[u8]) {
    let mut served = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    let exchange = served.exchange(bytes);
    if let Some(answer) = ParsedReply::first(&exchange.received) {
        answer.assert_sound();
    }
    let health = served.exchange(b"GET /healthz HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n");
    assert_eq!(ParsedReply::first(&health.received).map(|answer| answer.status), Some(200), "it no longer serves");
}

/// Checks that a well-formed request is answered, and has effects only if the code is 200 or 408.
pub fn request(bytes: &[u8]) {
    let split = bytes.windows(2).position(|two| two == b"\n\n");
    let (head, body) = split.map_or((bytes, &b""[..]), |at| (&bytes[..at], &bytes[at + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut whole = lines.next().unwrap_or_default().to_vec();
    whole.extend_from_slice(b" HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n");
    whole.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    for line in lines {
        whole.extend_from_slice(line);
        whole.extend_from_slice(b"\r\n");
    }
    whole.extend_from_slice(b"\r\n");
    whole.extend_from_slice(body);
    let exchange = SERVER.lock().unwrap_or_else(PoisonError::into_inner).exchange(&whole);
    let Some(answer) = ParsedReply::first(&exchange.received) else { return };
    answer.assert_sound();
    assert!(exchange.reached <= 1, "{} things were done", exchange.reached);
    assert!(exchange.reached == 0 || [200, 408].contains(&answer.status), "it was done, and answered {answer:?}");
}

/// Outcome of a connection.
struct Exchange {
    received: Vec<u8>,
    /// Number of requests that reached the lifecycle or a tool.
    reached: usize,
}

impl TestServer {
    fn start() -> Self {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let log = PodLog::start(LevelFilter::OFF, PodLogFormat::Text, None).expect("a log");
        let ensemble = StoreBackend::embedded(EmbeddedStore::new(Duration::from_secs(5)));
        let registration: Map<String, Value> = Map::from_iter([("ip".to_owned(), "127.0.0.1".into())]);
        let (member, membership) =
            MembershipHandle::start(ensemble, &ClusterName::default(), PodId::from(ID), registration.clone());
        let (lifecycle, lifecycle_report) = watch::channel(LifecycleReport::default());
        let (leader, leader_report) = watch::channel(LeaderReport::default());
        let (submit, submissions) = mpsc::channel(8);
        let (run, runs) = mpsc::channel(8);
        let pod = ApiContext {
            views: ochopod_control::PodViews::default(),
            id: PodId::from(ID),
            registration,
            dependencies: Vec::new(),
            lifecycle: LifecycleHandle::new(submit),
            fence: Arc::new(Fence::new(member.clone())),
            member,
            peers: Client::plain(Auth::None),
            lifecycle_report,
            leader_report,
            token: None,
            plugin_report: watch::channel(PluginReport::default()).1,
            plugin: watch::channel(PluginIdentity::default()).1,
            settings: watch::channel(Map::new()).1,
            platform: watch::channel(PlatformReport::default()).1,
            tools: Tools::new(vec![TOOL.to_owned()], run),
            // Nothing receives: every reload is answered that the pod shuts down.
            reloads: Reloads::new().0,
            log: log.tail(),
            metrics: Arc::new(Metrics::default()),
            further_metrics: None,
            shutdown: CancellationToken::new(),
        };
        runtime.spawn(membership);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(control::serve(listener, Arc::new(pod), None, CancellationToken::new()));
        Self { runtime, address, submissions, runs, _reports: (lifecycle, leader), _log: log }
    }

    /// Sends bytes on a connection of their own and reads until its end, executing immediately what reaches the pod.
    fn exchange(&mut self, bytes: &[u8]) -> Exchange {
        let Self { runtime, address, submissions, runs, .. } = self;
        let mut reached = 0;
        let received = runtime.block_on(async {
            let talk = timeout(REPLY_TIMEOUT, talk(*address, bytes));
            tokio::pin!(talk);
            loop {
                tokio::select! {
                    received = &mut talk => break received.expect("the connection ends"),
                    Some(submission) = submissions.recv() => {
                        assert_meant(&submission.request);
                        _ = submission.reply.send(Outcome::Done(json!({})));
                    }
                    Some(run) = runs.recv() => {
                        assert_runs(&run);
                        _ = run.reply.send(Ok(ExecOutput { code: 0, stdout: Vec::new() }));
                    }
                }
                reached += 1;
            }
        });
        Exchange { received, reached }
    }
}

async fn talk(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("the server accepts");
    let (mut reading, mut writing) = stream.split();
    let write = async {
        // The server may answer and close before all is sent.
        _ = writing.write_all(bytes).await;
        _ = writing.shutdown().await;
    };
    let mut received = Vec::new();
    // A reset is a valid end too.
    let (_, ()) = tokio::join!(reading.read_to_end(&mut received), write);
    received
}

/// Checks that a request that reaches the lifecycle is for this pod and has valid values.
fn assert_meant(request: &Request) {
    let own = |view: &PostedView| view.key.as_str() == ID && view.own().is_some();
    let meant = match &request.task {
        ControlTask::Check(view) | ControlTask::Ok(view) | ControlTask::On(Some(view)) => own(view),
        ControlTask::Cordon(cordon) => {
            !cordon.reason.is_empty() && cordon.reason == single_line(&cordon.reason, MAX_REASON_BYTES)
        }
        ControlTask::On(None)
        | ControlTask::Off
        | ControlTask::Kill
        | ControlTask::Signal(_)
        | ControlTask::Restart
        | ControlTask::Uncordon
        | ControlTask::Revive => true,
    };
    assert!(meant && request.limit <= MAX_TIME_LIMIT, "{request:?}");
    assert!(request.generation.as_ref().is_none_or(|generation| !generation.as_str().is_empty()), "{request:?}");
}

/// Checks that a tool that is called exists, and its files are in the upload directory and nowhere else.
fn assert_runs(run: &ExecRequest) {
    assert_eq!(run.name, TOOL);
    assert!(run.arguments.iter().all(|word| !word.is_empty()), "{run:?}");
    let Some(uploads) = &run.uploads else { return };
    let saved = uploads.directory().read_dir().expect("the files are there").count();
    assert!(saved == uploads.names.len() && (1..=64).contains(&saved), "{saved} files are {:?}", uploads.names);
    for name in &uploads.names {
        assert!(!name.contains('/') && uploads.directory().join(name).is_file(), "{name:?} is not a file");
    }
}

/// A reply taken apart.
#[derive(Debug)]
struct ParsedReply<'a> {
    status: u16,
    head: &'a str,
    body: &'a [u8],
}

impl<'a> ParsedReply<'a> {
    /// Returns the first final response; interim ones are skipped.
    fn first(mut bytes: &'a [u8]) -> Option<Self> {
        loop {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
            let head = str::from_utf8(&bytes[..end]).expect("a head is text");
            let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
            bytes = &bytes[end + 4..];
            if status >= 200 {
                return Some(Self { status, head, body: bytes });
            }
        }
    }

    fn assert_sound(&self) {
        assert!(STATUSES.contains(&self.status), "{self:?}");
        let headers = self.head.to_lowercase();
        let declared = headers.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if self.status < 400 || !headers.contains("content-type: application/json") {
            return;
        }
        assert!(declared.is_some_and(|size| size <= MAX_ERROR_BYTES), "{} {declared:?}", self.head);
        // After HEAD it is missing, and other responses may follow it.
        let body = declared.and_then(|size| self.body.get(..size)).filter(|body| !body.starts_with(b"HTTP/"));
        if let Some(body) = body {
            let json: Value = serde_json::from_slice(body).expect("an error is JSON");
            assert!(json["error"].as_str().is_some_and(|error| !error.is_empty()), "{json}");
        }
    }
}
