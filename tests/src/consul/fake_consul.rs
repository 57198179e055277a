//! A fake agent.

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

use super::api::{Api, RecordedCall};
use crate::{
    CertificateAuthority, CertificateFiles, Result,
    port::{free_port, listen_again},
};

/// Its address.
#[derive(Clone)]
enum ListenAddress {
    Tcp(u16),
    Tls(u16, TlsAcceptor),
    Unix(PathBuf),
}

/// Behaves like a Consul agent, as far as services are concerned, and records its requests. Can be made to fail.
pub struct FakeConsul {
    api: Arc<Api>,
    address: ListenAddress,
    server: JoinSet<()>,
}

impl FakeConsul {
    /// Listens on a port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start() -> Result<Self> {
        Self::at(ListenAddress::Tcp(free_port()?)).await
    }

    /// Listens at a unix socket.
    ///
    /// # Errors
    /// If the socket cannot be created.
    pub async fn start_at(socket: PathBuf) -> Result<Self> {
        Self::at(ListenAddress::Unix(socket)).await
    }

    /// Listens on a port of 127.0.0.1, with TLS. With an authority, clients need a certificate of it.
    ///
    /// # Errors
    /// If no port is free, or the certificate is invalid.
    pub async fn start_with_tls(certified: &CertificateFiles, clients: Option<&CertificateAuthority>) -> Result<Self> {
        Self::at(ListenAddress::Tls(free_port()?, crate::tls::acceptor(certified, clients)?)).await
    }

    async fn at(address: ListenAddress) -> Result<Self> {
        let mut agent = Self { api: Arc::default(), address, server: JoinSet::new() };
        agent.open().await?;
        Ok(agent)
    }

    /// Returns its address as in a configuration.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.address {
            ListenAddress::Tcp(port) | ListenAddress::Tls(port, _) => format!("127.0.0.1:{port}"),
            ListenAddress::Unix(path) => format!("unix://{}", path.display()),
        }
    }

    /// Closes all connections, and refuses new ones until it is opened again.
    pub async fn refuse(&mut self) {
        self.server.shutdown().await;
        if let ListenAddress::Unix(path) = &self.address {
            _ = std::fs::remove_file(path);
        }
    }

    /// Accepts connections again.
    ///
    /// # Errors
    /// If another process uses the port now.
    pub async fn open(&mut self) -> Result {
        let listener = match &self.address {
            ListenAddress::Tcp(port) => Listener::Tcp(listen(*port).await?),
            ListenAddress::Tls(port, acceptor) => Listener::Tls(listen(*port).await?, acceptor.clone()),
            ListenAddress::Unix(path) => {
                Listener::Unix(UnixListener::bind(path).with_context(|| format!("no socket at {}", path.display()))?)
            }
        };
        self.server.spawn(serve(listener, self.api.clone()));
        Ok(())
    }

    /// Accepts connections and requests, and does not answer.
    pub fn stall(&self) {
        self.api.stall(true);
    }

    /// Executes the pending requests, and continues.
    pub fn resume(&self) {
        self.api.stall(false);
    }

    /// Loses its state, as an agent that starts with an empty directory.
    pub fn forget(&self) {
        self.api.change(|state| state.catalog = super::catalog::Catalog::default());
    }

    /// Replaces an instance by an equal one with another id, in one step.
    pub fn replace(&self, id: &str, other: &str) {
        self.api.change(|state| state.catalog.rename(id, other));
    }

    /// Sets the count of changes, as after a restored snapshot.
    pub fn rewind(&self, index: u64) {
        self.api.change(|state| state.catalog.rewind(index));
    }

    /// Answers 403 to requests without this token.
    pub fn require(&self, token: &str) {
        self.api.change(|state| state.token = Some(token.to_owned()));
    }

    /// Answers requests for unknown ids with the texts of old versions.
    pub fn use_old_api(&self) {
        self.api.change(|state| state.old = true);
    }

    /// Answers everything with this code, this body, and this index.
    pub fn answer(&self, code: u16, body: impl Into<Bytes>, index: Option<u64>) {
        let answer = (code, body.into(), index);
        self.api.change(|state| state.always = Some(answer));
    }

    /// Answers each list with the header of servers without a leader.
    pub fn lose_leader(&self) {
        self.api.change(|state| state.leaderless = true);
    }

    /// Answers normally again.
    pub fn recover(&self) {
        self.api.change(|state| {
            state.always = None;
            state.leaderless = false;
        });
    }

    /// Returns the requests so far.
    #[must_use]
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.api.state().calls.clone()
    }

    /// Returns its services.
    #[must_use]
    pub fn services(&self) -> Value {
        self.api.state().catalog.services()
    }

    /// Returns its checks.
    #[must_use]
    pub fn checks(&self) -> Value {
        self.api.state().catalog.checks()
    }
}

async fn listen(port: u16) -> Result<TcpListener> {
    listen_again(([127, 0, 0, 1], port).into()).await
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, TlsAcceptor),
    Unix(UnixListener),
}

impl Listener {
    /// Accepts a TLS connection. None if the client rejects the certificate, or the server that of the client.
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
