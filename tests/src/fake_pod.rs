//! Fake peers.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{NodeLifetime, Result, ZkClient};

/// One received request.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    /// `check`, `on`, `off`, `ok`…
    pub task: String,
    /// The limit in the path, unchanged.
    pub limit: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body; null if it is not JSON.
    pub body: Value,
    /// Time at which it was received.
    pub at: Instant,
}

#[derive(Debug, Default)]
struct FakePodState {
    requests: Vec<RecordedRequest>,
    always: HashMap<String, u16>,
    next: HashMap<String, VecDeque<u16>>,
    delays: HashMap<String, Duration>,
    info: Value,
}

/// A registered peer that answers 200 or a chosen code, and records its requests. Its registration is removed when it
/// is dropped.
#[derive(Debug)]
pub struct FakePod {
    store: ZkClient,
    path: String,
    key: String,
    seq: u64,
    state: Arc<Mutex<FakePodState>>,
    server: JoinSet<()>,
}

impl FakePod {
    pub(crate) async fn join(store: &ZkClient, root: &str, ip: &str, port: u16) -> Result<Self> {
        let registration = json!({
            "cluster": root.rsplit('.').next(), "namespace": "marathon", "fwk": "fake-pod", "ip": ip, "public": ip,
            "port": port.to_string(), "ports": {}, "node": "kit", "zk": "", "application": "", "task": "",
            "debug": "false", "local": "true", "start": "true", "status": "",
        });
        Self::join_as(store, root, ip, port, registration).await
    }

    /// Joins with another registration, to which the number is added.
    pub(crate) async fn join_as(
        store: &ZkClient,
        root: &str,
        ip: &str,
        port: u16,
        mut registration: Value,
    ) -> Result<Self> {
        let state = Arc::new(Mutex::new(FakePodState::default()));
        let listener = TcpListener::bind((ip, port)).await?;
        let mut server = JoinSet::new();
        server.spawn(serve(listener, state.clone()));

        let store = store.another().await?;
        let key = uuid::Uuid::new_v4().to_string();
        let path = store.create(&format!("{root}/pods/{key}."), b"", NodeLifetime::SessionNumbered).await?;
        let seq: u64 = path.rsplit_once('.').context("a registration without a number")?.1.parse()?;
        registration["seq"] = seq.into();
        store.set(&path, registration.to_string().as_bytes()).await?;
        Ok(Self { store, path, key, seq, state, server })
    }

    /// Returns its identity.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns its number.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Answers a task with this code from now on.
    pub fn answer(&self, task: &str, code: u16) {
        self.state().always.insert(task.to_owned(), code);
    }

    /// Answers the next request of a task with this code, after those that were set before.
    pub fn answer_next(&self, task: &str, code: u16) {
        self.state().next.entry(task.to_owned()).or_default().push_back(code);
    }

    /// Delays the replies to a task from now on.
    pub fn delay(&self, task: &str, delay: Duration) {
        self.state().delays.insert(task.to_owned(), delay);
    }

    /// Returns this pod information from now on.
    pub fn set_info(&self, info: Value) {
        self.state().info = info;
    }

    /// Returns its session.
    #[must_use]
    pub fn store(&self) -> &ZkClient {
        &self.store
    }

    /// Returns the requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.state().requests.clone()
    }

    /// Returns the tasks of the requests so far.
    #[must_use]
    pub fn tasks(&self) -> Vec<String> {
        self.state().requests.iter().map(|request| request.task.clone()).collect()
    }

    /// Returns the last request of a task.
    ///
    /// # Errors
    /// If it received none.
    pub fn last(&self, task: &str) -> Result<RecordedRequest> {
        let request = self.state().requests.iter().rfind(|request| request.task == task).cloned();
        request.with_context(|| format!("it did not receive {task}, but {:?}", self.tasks()))
    }

    /// Replaces its registration with any bytes.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn register_as(&self, payload: &[u8]) -> Result {
        self.store.set(&self.path, payload).await
    }

    /// Deregisters: the registration is gone when this returns.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn leave(self) -> Result {
        self.store.delete(&self.path).await
    }

    /// Closes the port; the registration stays.
    pub fn close_port(&mut self) {
        self.server.abort_all();
    }

    fn state(&self) -> MutexGuard<'_, FakePodState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<FakePodState>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, state.clone()));
            _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<FakePodState>>,
) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if parts.uri.path() == "/info" {
        let info = state.lock().unwrap_or_else(PoisonError::into_inner).info.clone();
        return Ok(json_reply(200, &info));
    }
    let mut words = parts.uri.path().trim_start_matches("/control/").split('/').map(str::to_owned);
    let task = words.next().unwrap_or_default();
    let (code, delay) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests.push(RecordedRequest {
            task: task.clone(),
            limit: words.next().unwrap_or_default(),
            headers: parts.headers,
            body: serde_json::from_slice(&body).unwrap_or_default(),
            at: Instant::now(),
        });
        let next = state.next.get_mut(&task).and_then(VecDeque::pop_front);
        let code = next.or_else(|| state.always.get(&task).copied()).unwrap_or(200);
        (code, state.delays.get(&task).copied().unwrap_or_default())
    };
    tokio::time::sleep(delay).await;
    let body = if code == 200 { json!({}) } else { json!({ "error": format!("the kit answers {code} to {task}") }) };
    Ok(json_reply(code, &body))
}

fn json_reply(code: u16, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap_or_default();
    let kind = hyper::header::HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}
