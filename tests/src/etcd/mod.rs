//! Real etcd servers.

mod client;

use std::{ffi::OsString, fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use tokio::sync::OnceCell;

pub use self::client::{EtcdClient, EtcdEntry};
use crate::{
    CertificateAuthority, CertificateFiles, Client, Result, eventually, guarded_server::GuardedServer, port::free_port,
};

const START_TIMEOUT: Duration = Duration::from_mins(1);

/// A server of a cluster of its own on ports of 127.0.0.1, with the v3 API and the v2 keys.
#[derive(Debug)]
pub struct Etcd {
    url: String,
    /// Without TLS.
    health: Client,
    server: GuardedServer,
}

impl Etcd {
    /// Returns the server that all tests of this binary share, each under a prefix. No test injects faults into it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn shared() -> Result<Arc<Self>> {
        static SHARED: OnceCell<Arc<Etcd>> = OnceCell::const_new();
        SHARED.get_or_try_init(async || Ok(Arc::new(Self::own().await?))).await.cloned()
    }

    /// Starts a separate server for fault injection.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn own() -> Result<Self> {
        Self::with("http", &[]).await
    }

    /// Starts a server that accepts only TLS, and only clients with a certificate of the same authority.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn secure(authority: &CertificateAuthority) -> Result<Self> {
        let CertificateFiles { certificate, key } = authority.certify("etcd", &["localhost"])?;
        let authority = authority.certificate();
        let files = [("cert", &certificate), ("key", &key), ("trusted-ca", &authority)];
        let options = files.map(|(what, file)| format!("--{what}-file={}", file.display()));
        let [certificate, key, authority] = options.each_ref().map(String::as_str);
        Self::with("https", &[certificate, key, authority, "--client-cert-auth"]).await
    }

    /// Starts a separate server with further options. Authentication may be enabled on it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn with_options(options: &[&str]) -> Result<Self> {
        Self::with("http", options).await
    }

    async fn with(scheme: &str, options: &[&str]) -> Result<Self> {
        let [url, peer] =
            [format!("{scheme}://127.0.0.1:{}", free_port()?), format!("http://127.0.0.1:{}", free_port()?)];
        let health = Client::new(format!("127.0.0.1:{}", free_port()?));
        let directory = GuardedServer::directory_for("etcd")?;
        let mut command = ["etcd", "--enable-v2=true", "--heartbeat-interval=20", "--election-timeout=200"]
            .map(OsString::from)
            .to_vec();
        command.extend(options.iter().map(OsString::from));
        for (option, value) in [
            ("data-dir", directory.join("data").display().to_string()),
            ("listen-client-urls", url.clone()),
            ("advertise-client-urls", url.clone()),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer.clone()),
            ("initial-cluster", format!("default={peer}")),
            ("listen-metrics-urls", format!("http://{}", health.authority())),
        ] {
            command.push(format!("--{option}={value}").into());
        }
        let server = Self { url, health, server: GuardedServer::new(directory, command)? };
        server.start().await?;
        Ok(server)
    }

    /// Returns its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns a client of its v3 API.
    ///
    /// # Errors
    /// If it is reached by TLS only.
    pub fn client(&self) -> Result<EtcdClient> {
        Ok(EtcdClient::new(self.keys()?))
    }

    /// Returns a client for its v2 keys.
    ///
    /// # Errors
    /// If it is reached by TLS only.
    pub fn keys(&self) -> Result<Client> {
        Ok(Client::new(self.url.strip_prefix("http://").context("it uses TLS")?))
    }

    /// Starts it with its existing data, and waits until it answers.
    ///
    /// # Errors
    /// If it does not answer in time: with its log.
    pub async fn start(&self) -> Result {
        ensure!(Path::new("/usr/bin/etcd").exists(), "etcd is not there: run `make setup`");
        self.server.start()?;
        let up = eventually("etcd answers", START_TIMEOUT, async || self.health.get("/health").await?.is(200));
        up.await.with_context(|| self.server.log())
    }

    /// Kills it as a power failure would.
    ///
    /// # Errors
    /// If its guard is gone.
    pub fn stop(&self) -> Result {
        self.server.end()
    }

    /// Removes all of its data. Allowed only while it is stopped.
    ///
    /// # Errors
    /// If the data cannot be removed.
    pub fn wipe(&self) -> Result {
        fs::remove_dir_all(self.server.directory().join("data")).context("cannot wipe etcd's data")
    }

    /// Freezes it: connections stay open, nothing is answered.
    ///
    /// # Errors
    /// If it does not run.
    pub fn freeze(&self) -> Result {
        self.server.signal(Signal::SIGSTOP)
    }

    /// Continues it.
    ///
    /// # Errors
    /// If it does not run.
    pub fn thaw(&self) -> Result {
        self.server.signal(Signal::SIGCONT)
    }
}
