//! An agent made of the kit.

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use anyhow::Context;
use bytes::Bytes;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::api::{Api, Asked};
use crate::{Authority, Certified, Result};

/// Where it is.
#[derive(Clone)]
enum Door {
    Tcp(u16),
    Tls(u16, TlsAcceptor),
    Unix(PathBuf),
}

/// Does what a Consul agent does, as far as services go, and remembers what it was asked. May be told to fail.
pub struct StandIn {
    api: Arc<Api>,
    door: Door,
    server: JoinSet<()>,
}

impl StandIn {
    /// On a port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> Result<Self> {
        Self::at(Door::Tcp(0)).await
    }

    /// At a unix socket.
    ///
    /// # Errors
    /// When there can be none.
    pub async fn start_at(socket: PathBuf) -> Result<Self> {
        Self::at(Door::Unix(socket)).await
    }

    /// On a port of 127.0.0.1, by TLS. With an authority, clients need a certificate of it.
    ///
    /// # Errors
    /// When there is none, or the certificate is of no use.
    pub async fn start_with_tls(certified: &Certified, clients: Option<&Authority>) -> Result<Self> {
        Self::at(Door::Tls(0, crate::tls::acceptor(certified, clients)?)).await
    }

    async fn at(door: Door) -> Result<Self> {
        let mut agent = Self { api: Arc::default(), door, server: JoinSet::new() };
        agent.open().await?;
        Ok(agent)
    }

    /// What a configuration calls it.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.door {
            Door::Tcp(port) | Door::Tls(port, _) => format!("127.0.0.1:{port}"),
            Door::Unix(path) => format!("unix://{}", path.display()),
        }
    }

    /// Hangs up on everybody, and refuses connections until it is opened again.
    pub async fn refuse(&mut self) {
        self.server.shutdown().await;
        if let Door::Unix(path) = &self.door {
            _ = std::fs::remove_file(path);
        }
    }

    /// Takes connections again.
    ///
    /// # Errors
    /// When the port was taken meanwhile.
    pub async fn open(&mut self) -> Result {
        let listener = match &mut self.door {
            Door::Tcp(port) => Listener::Tcp(listen(port).await?),
            Door::Tls(port, acceptor) => Listener::Tls(listen(port).await?, acceptor.clone()),
            Door::Unix(path) => {
                Listener::Unix(UnixListener::bind(&path).with_context(|| format!("no socket at {}", path.display()))?)
            }
        };
        self.server.spawn(serve(listener, self.api.clone()));
        Ok(())
    }

    /// Takes connections and requests, and says nothing.
    pub fn stall(&self) {
        self.api.stall(true);
    }

    /// Does what it was asked, and goes on.
    pub fn resume(&self) {
        self.api.stall(false);
    }

    /// Loses everything it knows, as an agent that starts with an empty directory.
    pub fn forget(&self) {
        self.api.change(|state| state.catalog = super::catalog::Catalog::default());
    }

    /// Replaces an instance by one of another id that is like it, in one step.
    pub fn replace(&self, id: &str, other: &str) {
        self.api.change(|state| state.catalog.rename(id, other));
    }

    /// Counts changes from here on, as after a snapshot was restored.
    pub fn rewind(&self, index: u64) {
        self.api.change(|state| state.catalog.rewind(index));
    }

    /// Answers 403 to whoever does not show this token.
    pub fn require(&self, token: &str) {
        self.api.change(|state| state.token = Some(token.to_owned()));
    }

    /// Says of what it does not know what old versions say.
    pub fn grow_old(&self) {
        self.api.change(|state| state.old = true);
    }

    /// Answers everything with this code, this body, and this index.
    pub fn answer(&self, code: u16, body: impl Into<Bytes>, index: Option<u64>) {
        let answer = (code, body.into(), index);
        self.api.change(|state| state.always = Some(answer));
    }

    /// Answers as it should again.
    pub fn obey(&self) {
        self.api.change(|state| state.always = None);
    }

    /// What it was asked so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.api.state().asked.clone()
    }

    /// Its services, as it tells of them.
    #[must_use]
    pub fn services(&self) -> Value {
        self.api.state().catalog.services()
    }

    /// Its checks, as it tells of them.
    #[must_use]
    pub fn checks(&self) -> Value {
        self.api.state().catalog.checks()
    }
}

async fn listen(port: &mut u16) -> Result<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", *port)).await?;
    *port = listener.local_addr()?.port();
    Ok(listener)
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, TlsAcceptor),
    Unix(UnixListener),
}

impl Listener {
    /// None for a client that does not like the certificate, or whose the kit does not like.
    async fn accept(&self) -> Result<Option<Box<dyn Stream>>> {
        Ok(match self {
            Self::Tcp(listener) => Some(Box::new(listener.accept().await?.0)),
            Self::Unix(listener) => Some(Box::new(listener.accept().await?.0)),
            Self::Tls(listener, acceptor) => match acceptor.accept(listener.accept().await?.0).await {
                Ok(stream) => Some(Box::new(stream)),
                Err(_) => None,
            },
        })
    }
}

async fn serve(listener: Listener, api: Arc<Api>) {
    let mut connections = JoinSet::new();
    while let Ok(stream) = listener.accept().await {
        let Some(stream) = stream else { continue };
        let api = api.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(api.answer(request).await) }
            });
            _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}
