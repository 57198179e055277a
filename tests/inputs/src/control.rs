//! What comes to the control port.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use ochopod::{
    cluster::{ClusterName, PodId, PostedView},
    control::{self, Pod, ToolOutput, ToolRun, Tools},
    coord::{Embedded, Ensemble, Member},
    lifecycle::{Command, Fence, LifecycleHandle, Outcome, Request, Submission},
    status::{LeaderReport, LifecycleReport, PluginReport},
    telemetry::{Format, Log, Metrics},
};
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

use crate::LONGEST_ERROR;

const ID: &str = "8ce92aca-2b79-4403-87c5-5c9303d5a01a";
const TOOL: &str = "echo";
/// Longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest limit that a request may have.
const LONGEST_LIMIT: Duration = Duration::from_hours(24);
/// What the host answers; all but what stands for its own failures.
const STATUSES: [u16; 12] = [200, 400, 404, 405, 408, 409, 410, 413, 414, 417, 431, 503];

/// A pod that serves, and the ends of what its handlers use.
struct Served {
    runtime: Runtime,
    address: SocketAddr,
    submissions: mpsc::Receiver<Submission>,
    runs: mpsc::Receiver<ToolRun>,
    _reports: (watch::Sender<LifecycleReport>, watch::Sender<LeaderReport>),
    _log: Log,
}

static SERVED: LazyLock<Mutex<Served>> = LazyLock::new(|| Mutex::new(Served::start()));

/// Whatever a client sends is answered, or costs its connection; the next client is served.
pub fn connection(bytes: &[u8]) {
    let mut served = SERVED.lock().unwrap_or_else(PoisonError::into_inner);
    let exchange = served.exchange(bytes);
    if let Some(answer) = Answer::first(&exchange.received) {
        answer.assert_sound();
    }
    let health = served.exchange(b"GET /healthz HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n");
    assert_eq!(Answer::first(&health.received).map(|answer| answer.status), Some(200), "it serves no more");
}

/// A request that is framed as it should be is answered, and does something only when it is answered 200 or 408.
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
    let exchange = SERVED.lock().unwrap_or_else(PoisonError::into_inner).exchange(&whole);
    let Some(answer) = Answer::first(&exchange.received) else { return };
    answer.assert_sound();
    assert!(exchange.reached <= 1, "{} things were done", exchange.reached);
    assert!(exchange.reached == 0 || [200, 408].contains(&answer.status), "it was done, and answered {answer:?}");
}

/// What came of a connection.
struct Exchange {
    received: Vec<u8>,
    /// How many requests reached the lifecycle or a tool.
    reached: usize,
}

impl Served {
    fn start() -> Self {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let log = Log::start(LevelFilter::OFF, Format::Text, None).expect("a log");
        let ensemble = Ensemble::Embedded(Embedded::new(Duration::from_secs(5)));
        let registration: Map<String, Value> = Map::from_iter([("ip".to_owned(), "127.0.0.1".into())]);
        let (member, membership) =
            Member::start(ensemble, &ClusterName::default(), PodId::from(ID), registration.clone());
        let (lifecycle, lifecycle_report) = watch::channel(LifecycleReport::default());
        let (leader, leader_report) = watch::channel(LeaderReport::default());
        let (submit, submissions) = mpsc::channel(8);
        let (run, runs) = mpsc::channel(8);
        let pod = Pod {
            id: PodId::from(ID),
            registration,
            dependencies: Vec::new(),
            lifecycle: LifecycleHandle::new(submit),
            fence: Arc::new(Fence::new(member.clone())),
            member,
            lifecycle_report,
            leader_report,
            token: None,
            plugin_report: watch::channel(PluginReport::default()).1,
            tools: Tools::new(vec![TOOL.to_owned()], run),
            log: log.tail(),
            metrics: Arc::new(Metrics::default()),
            pilot: None,
            leaving: CancellationToken::new(),
        };
        runtime.spawn(membership);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(control::serve(listener, Arc::new(pod), None, CancellationToken::new()));
        Self { runtime, address, submissions, runs, _reports: (lifecycle, leader), _log: log }
    }

    /// Sends bytes on a connection of their own and reads until its end, doing at once what reaches the pod.
    fn exchange(&mut self, bytes: &[u8]) -> Exchange {
        let Self { runtime, address, submissions, runs, .. } = self;
        let mut reached = 0;
        let received = runtime.block_on(async {
            let talk = timeout(PATIENCE, talk(*address, bytes));
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
                        _ = run.reply.send(Ok(ToolOutput { code: 0, stdout: Vec::new() }));
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
    // A reset is as good an end as any.
    let (_, ()) = tokio::join!(reading.read_to_end(&mut received), write);
    received
}

/// What reaches the lifecycle is meant for this pod and can be reckoned with.
fn assert_meant(request: &Request) {
    let own = |view: &PostedView| view.key.as_str() == ID && view.own().is_some();
    let meant = match &request.command {
        Command::Check(view) | Command::Ok(view) | Command::On(Some(view)) => own(view),
        Command::On(None) | Command::Off | Command::Kill | Command::Signal(_) => true,
    };
    assert!(meant && request.limit <= LONGEST_LIMIT, "{request:?}");
    assert!(request.generation.as_ref().is_none_or(|generation| !generation.as_str().is_empty()), "{request:?}");
}

/// What reaches a tool is there, and the files are where they should be and nowhere else.
fn assert_runs(run: &ToolRun) {
    assert_eq!(run.name, TOOL);
    assert!(run.arguments.iter().all(|word| !word.is_empty()), "{run:?}");
    let Some(uploads) = &run.uploads else { return };
    let saved = uploads.directory().read_dir().expect("the files are there").count();
    assert!(saved == uploads.names.len() && (1..=64).contains(&saved), "{saved} files are {:?}", uploads.names);
    for name in &uploads.names {
        assert!(!name.contains('/') && uploads.directory().join(name).is_file(), "{name:?} is no file");
    }
}

/// A reply taken apart.
#[derive(Debug)]
struct Answer<'a> {
    status: u16,
    head: &'a str,
    body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The first that is one, interim ones aside.
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
        assert!(declared.is_some_and(|size| size <= LONGEST_ERROR), "{} {declared:?}", self.head);
        // There is none after HEAD, and there may be others behind it.
        if let Some(body) = declared.and_then(|size| self.body.get(..size)) {
            let json: Value = serde_json::from_slice(body).expect("an error is JSON");
            assert!(json["error"].as_str().is_some_and(|error| !error.is_empty()), "{json}");
        }
    }
}
