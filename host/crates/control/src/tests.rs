//! The control API as a client sees it: a real listener, raw bytes, and a fake lifecycle at the other end of
//! its channel.

mod auth;
mod cluster;
mod connections;
mod control;
mod exec;
mod hostile;
mod read;
mod reload;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ochopod_client::Auth;
use ochopod_lifecycle::{Outcome, Request, Submission};
use ochopod_store::{Membership, SessionState};
use ochopod_telemetry::{LogFile, PodLog, PodLogFormat};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;

use super::*;

const ID: &str = "8ce92aca-2b79-4403-87c5-5c9303d5a01a";
const TIMEOUT: Duration = Duration::from_secs(20);

/// A pod that serves, and the other ends of what its handlers use.
struct TestServer {
    address: SocketAddr,
    submissions: mpsc::Receiver<Submission>,
    runs: mpsc::Receiver<ExecRequest>,
    reloads: mpsc::Receiver<ReloadRequest>,
    membership: watch::Sender<Membership>,
    lifecycle: watch::Sender<LifecycleReport>,
    leader: watch::Sender<LeaderReport>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    pod_shutdown: CancellationToken,
    server: JoinHandle<()>,
    _log: PodLog,
}

impl TestServer {
    async fn start() -> Self {
        Self::logging_to(None).await
    }

    async fn logging_to(file: Option<&LogFile>) -> Self {
        Self::build(file, None, None).await
    }

    /// Starts a pod that requires a token.
    async fn with_token(text: &str) -> Self {
        Self::build(None, None, Token::new(text)).await
    }

    /// Starts a pod with this identity and registration on this listener.
    fn on(
        listener: TcpListener,
        id: &str,
        registration: Map<String, Value>,
        member: MembershipHandle,
        token: Option<Token>,
    ) -> Self {
        Self::assemble(listener, (PodId::from(id), registration), None, Some(member), token)
    }

    /// Starts a pod that is a member of a cluster.
    async fn of(member: MembershipHandle) -> Self {
        Self::build(None, Some(member), None).await
    }

    async fn build(file: Option<&LogFile>, member: Option<MembershipHandle>, token: Option<Token>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::assemble(listener, (PodId::from(ID), registration()), file, member, token)
    }

    fn assemble(
        listener: TcpListener,
        (id, registration): (PodId, Map<String, Value>),
        file: Option<&LogFile>,
        member: Option<MembershipHandle>,
        token: Option<Token>,
    ) -> Self {
        let state = SessionState::Lost;
        let (membership, watched) = watch::channel(Membership {
            state,
            session: None,
            registered: None,
            reconnected_at: None,
            leadership: None,
            rejected: None,
            last_error: None,
        });
        let (lifecycle, lifecycle_report) = watch::channel(LifecycleReport::default());
        let (leader, leader_report) = watch::channel(LeaderReport::default());
        let (submit, submissions) = mpsc::channel(8);
        let (run, runs) = mpsc::channel(8);
        let (reloads, reload_requests) = Reloads::new();
        let member = member.unwrap_or_else(|| MembershipHandle::from_watch(watched));
        let (log, _, _) = PodLog::build(LevelFilter::INFO, PodLogFormat::Text, file).unwrap();
        let metrics = Arc::new(Metrics::default());
        let auth = token.clone().map_or(Auth::None, |token| Auth::Signed(Box::new(token)));
        let context = ApiContext {
            id,
            token,
            registration,
            dependencies: vec!["db".to_owned()],
            lifecycle: LifecycleHandle::new(submit),
            fence: Arc::new(Fence::new(member.clone())),
            views: PodViews::default(),
            member,
            peers: Client::plain(auth),
            lifecycle_report,
            leader_report,
            plugin_report: watch::channel(PluginReport::default()).1,
            plugin: watch::channel(PluginIdentity::default()).1,
            settings: watch::channel(json!({"lifecycle": {"checks": 1}}).as_object().unwrap().clone()).1,
            platform: watch::channel(PlatformReport::default()).1,
            tools: Tools::new(vec!["echo".to_owned()], run),
            reloads,
            log: log.tail(),
            metrics: metrics.clone(),
            further_metrics: Some(Arc::new(|| "further 1\n".to_owned())),
            shutdown: CancellationToken::new(),
        };
        let pod_shutdown = context.shutdown.clone();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Arc::new(context), None, shutdown.clone()));
        Self {
            address,
            submissions,
            runs,
            reloads: reload_requests,
            membership,
            lifecycle,
            leader,
            metrics,
            shutdown,
            pod_shutdown,
            server,
            _log: log,
        }
    }

    /// Sends bytes on a connection of their own and reads until it is closed.
    async fn raw(&self, request: impl AsRef<[u8]>) -> ParsedReply {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may answer and close before all is sent.
        _ = stream.write_all(request.as_ref()).await;
        let mut bytes = Vec::new();
        timeout(TIMEOUT, stream.read_to_end(&mut bytes)).await.expect("the server closes").unwrap();
        ParsedReply::parse(&bytes)
    }

    async fn send(&self, line: &str, headers: &str, body: impl AsRef<[u8]>) -> ParsedReply {
        let body = body.as_ref();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.raw([head.as_bytes(), body].concat()).await
    }

    async fn get(&self, path: &str) -> ParsedReply {
        self.send(&format!("GET {path}"), "", "").await
    }

    async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> ParsedReply {
        self.send(&format!("POST {path}"), "", body).await
    }

    /// Sends a request that must reach the lifecycle, which answers `outcome`.
    async fn submitted(
        &mut self,
        line: &str,
        headers: &str,
        body: impl AsRef<[u8]>,
        outcome: Outcome,
    ) -> (ParsedReply, Request) {
        let mut submissions = std::mem::replace(&mut self.submissions, mpsc::channel(1).1);
        let lifecycle = async {
            let submission = submissions.recv().await.unwrap();
            submission.reply.send(outcome).unwrap();
            submission.request
        };
        let (answer, request) = timeout(TIMEOUT, async { tokio::join!(self.send(line, headers, body), lifecycle) })
            .await
            .expect("the request reaches the lifecycle");
        self.submissions = submissions;
        (answer, request)
    }

    /// Checks that the lifecycle has received nothing.
    fn assert_nothing_changed(&mut self) {
        assert!(self.submissions.try_recv().is_err());
    }
}

/// A reply taken apart.
#[derive(Debug)]
struct ParsedReply {
    status: u16,
    head: String,
    body: String,
}

impl ParsedReply {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        Self { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json; charset=utf-8"), "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}

fn registration() -> Map<String, Value> {
    let registration = json!({
        "application": "shop/web", "binding": "marathon", "cluster": "web", "debug": "false", "ip": "10.0.0.1",
        "local": "false", "namespace": "marathon", "node": "agent-7", "port": "8080", "ports": {"8080": 31000},
        "public": "54.0.0.1", "rack": "r7", "start": "true", "status": "", "task": "web.1", "zk": "h:2181",
    });
    registration.as_object().unwrap().clone()
}

/// Returns a view that was sent to this pod.
fn view() -> String {
    json!({"key": ID, "pods": {ID: {"seq": 3, "ip": "10.0.0.1"}}, "dependencies": {"db": {}}}).to_string()
}
