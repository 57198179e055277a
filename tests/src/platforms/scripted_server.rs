//! An HTTP server whose answers a test chooses, hostile ones included.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{CertificateFiles, Result};

/// Part of an endless body.
const CHUNK: [u8; 4096] = [b' '; 4096];

/// Reaction of the server to a request.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Answers with a status, headers and a body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Answers 200 with a body that does not end.
    Endless,
    /// Does not answer.
    Silent,
}

impl Behaviour {
    /// Answers with a status and a body.
    #[must_use]
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self::Answer(status, Vec::new(), body.into().into_bytes())
    }

    /// Answers 200 with JSON.
    #[must_use]
    pub fn json(body: &Value) -> Self {
        Self::text(200, body.to_string())
    }

    /// Answers with an error of the Kubernetes API.
    #[must_use]
    pub fn status(code: u16) -> Self {
        let body = serde_json::json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code });
        Self::text(code, body.to_string())
    }
}

/// A request that the server received.
#[derive(Debug, Clone)]
pub struct RecordedCall {
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Headers, by their names in small letters.
    pub headers: BTreeMap<String, String>,
}

type Script = Box<dyn FnMut(&RecordedCall) -> Behaviour + Send>;

struct State {
    script: Script,
    calls: Vec<RecordedCall>,
}

/// The server. It ends with this value.
pub struct ScriptedServer {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<Mutex<State>>,
    _server: JoinSet<()>,
}

impl ScriptedServer {
    /// Listens on a port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(script: impl FnMut(&RecordedCall) -> Behaviour + Send + 'static) -> Result<Self> {
        Self::serve(None, Box::new(script)).await
    }

    /// Listens on a port of 127.0.0.1, with TLS.
    ///
    /// # Errors
    /// If no port is free, or the certificate is invalid.
    pub async fn start_with_tls(
        certified: &CertificateFiles,
        script: impl FnMut(&RecordedCall) -> Behaviour + Send + 'static,
    ) -> Result<Self> {
        Self::serve(Some(crate::tls::acceptor(certified, None)?), Box::new(script)).await
    }

    async fn serve(tls: Option<TlsAcceptor>, script: Script) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State { script, calls: Vec::new() }));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut server = JoinSet::new();
        let shared = Arc::clone(&state);
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => answer(stream, &state).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => answer(stream, &state).await,
                            Err(_) => None,
                        },
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, scheme, state, _server: server })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, without a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Answers further requests by another script.
    pub fn change(&self, script: impl FnMut(&RecordedCall) -> Behaviour + Send + 'static) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).script = Box::new(script);
    }

    /// Returns the requests so far.
    #[must_use]
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).calls.clone()
    }
}

/// Answers one request. Returns none if the client leaves before.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &Mutex<State>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.lines();
    let mut words = lines.next()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let call = RecordedCall { method, path, headers };
    let behaviour = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let behaviour = (state.script)(&call);
        state.calls.push(call);
        behaviour
    };
    match behaviour {
        Behaviour::Silent => std::future::pending().await,
        Behaviour::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n").await.ok()?;
            loop {
                stream.write_all(&CHUNK).await.ok()?;
            }
        }
        Behaviour::Answer(status, headers, body) => {
            let length = ("Content-Length", body.len().to_string());
            let headers = headers.into_iter().chain([length]).map(|(name, value)| format!("{name}: {value}\r\n"));
            let headers: String = headers.collect();
            stream.write_all(format!("HTTP/1.1 {status} Status\r\n{headers}\r\n").as_bytes()).await.ok()?;
            stream.write_all(&body).await.ok()?;
            stream.shutdown().await.ok()
        }
    }
}
