//! Real ZooKeeper servers.

use std::{ffi::OsString, fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OnceCell,
};

use crate::{
    CertificateAuthority, CertificateFiles, Result, eventually, guarded_server::GuardedServer, port::free_port,
};

const START_TIMEOUT: Duration = Duration::from_mins(1);
const JAR: &str = "/usr/share/java/zookeeper.jar";
/// Jars that its manifest omits, for TLS.
const CODEC_JAR: &str = "/usr/share/java/netty-codec.jar";

/// A server on a port of 127.0.0.1. Sessions may be as short as 400 ms.
#[derive(Debug)]
pub struct ZooKeeper {
    port: u16,
    secure_port: Option<u16>,
    server: GuardedServer,
}

impl ZooKeeper {
    /// Returns the server that all tests of this binary share, each in a chroot. No test injects faults into it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn shared() -> Result<Arc<Self>> {
        static SHARED: OnceCell<Arc<ZooKeeper>> = OnceCell::const_new();
        SHARED.get_or_try_init(async || Ok(Arc::new(Self::own().await?))).await.cloned()
    }

    /// Starts a server for one test, which may inject faults. Its disk is not waited for.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn own() -> Result<Self> {
        Self::with(&["-Dzookeeper.forceSync=no"]).await
    }

    /// Starts a server that keeps its promises about the disk, for measurements.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn durable() -> Result<Self> {
        Self::with(&[]).await
    }

    /// Starts a server with options of its own for Java.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn with(options: &[&str]) -> Result<Self> {
        let server = Self::prepared(free_port()?, "-Xmx256m", options, "")?;
        server.start().await?;
        Ok(server)
    }

    /// Starts a server that is also reached by TLS, for clients with a certificate of the same authority only.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn secure(authority: &CertificateAuthority) -> Result<Self> {
        let CertificateFiles { certificate, key } = authority.certify("zookeeper", &["127.0.0.1"])?;
        let both = certificate.with_file_name("zookeeper.pem");
        fs::write(&both, fs::read_to_string(key)? + &fs::read_to_string(certificate)?)?;
        let port = free_port()?;
        let configuration = format!(
            "secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n\
             serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
             ssl.keyStore.location={}\nssl.trustStore.location={}\nssl.clientAuth=need\n",
            both.display(),
            authority.certificate().display()
        );
        let mut server = Self::prepared(free_port()?, "-Xmx256m", &["-Dzookeeper.forceSync=no"], &configuration)?;
        server.secure_port = Some(port);
        server.start().await?;
        Ok(server)
    }

    /// Returns a server that is not started yet: how much memory it may take and other options for Java, and what its
    /// configuration has in addition to the usual ones.
    pub(crate) fn prepared(port: u16, memory: &str, options: &[&str], lines: &str) -> Result<Self> {
        ensure!(Path::new(JAR).exists(), "{JAR} is not there: run `make setup`");
        let directory = GuardedServer::directory_for("zookeeper")?;
        let configuration = directory.join("zoo.cfg");
        let data = directory.join("data");
        fs::write(
            &configuration,
            format!(
                "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\ntickTime=200\nminSessionTimeout=400\n\
                 maxSessionTimeout=120000\nmaxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=*\n{lines}",
                data.display()
            ),
        )?;
        let classes = format!("{JAR}:{CODEC_JAR}");
        let mut java = vec!["java", memory, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"];
        java.extend(options);
        java.extend(["-cp", &classes, "org.apache.zookeeper.server.quorum.QuorumPeerMain"]);
        let java = java.into_iter().map(OsString::from).chain([configuration.into_os_string()]);
        Ok(Self { port, secure_port: None, server: GuardedServer::new(directory, java)? })
    }

    /// Returns its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Returns its address for TLS.
    ///
    /// # Errors
    /// If it is not: see [`Self::secure`].
    pub fn secure_address(&self) -> Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], self.secure_port.context("it does not use TLS")?)))
    }

    /// Its directory, which is removed with it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.server.directory()
    }

    /// Starts it with the data that it had, and waits until it answers.
    ///
    /// # Errors
    /// If it does not answer in time: with its log.
    pub async fn start(&self) -> Result {
        self.launch()?;
        self.serves().await
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    /// If its guard is gone.
    pub fn launch(&self) -> Result {
        self.server.start()
    }

    /// Waits until it answers: in an ensemble, until it is one of a quorum.
    ///
    /// # Errors
    /// If it does not answer in time: with its log.
    pub async fn serves(&self) -> Result {
        let up = eventually("ZooKeeper answers", START_TIMEOUT, async || {
            let reply = self.four_letter("srvr").await?;
            ensure!(reply.contains("\nMode: "), "unexpected output {reply:?}");
            Ok(())
        });
        up.await.with_context(|| self.server.log())
    }

    /// Ends it as a power failure would.
    ///
    /// # Errors
    /// If its guard is gone.
    pub fn stop(&self) -> Result {
        self.server.end()
    }

    /// Removes all of its data. Only while it is stopped.
    ///
    /// # Errors
    /// If the data cannot be removed.
    pub fn wipe(&self) -> Result {
        fs::remove_dir_all(self.directory().join("data")).context("cannot wipe ZooKeeper's data")
    }

    /// Keeps a copy of its data, for [`ZooKeeper::restore`]. Only while it is stopped.
    ///
    /// # Errors
    /// If the data cannot be copied.
    pub fn keep(&self) -> Result {
        copy(&self.directory().join("data/version-2"), &self.directory().join("kept"))
    }

    /// Goes back to the data that was kept. Only while it is stopped.
    ///
    /// # Errors
    /// If nothing was kept.
    pub fn restore(&self) -> Result {
        self.wipe()?;
        copy(&self.directory().join("kept"), &self.directory().join("data/version-2"))
    }

    /// Freezes it: connections stand, nothing is answered.
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

    /// Asks it one of its four-letter words.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn four_letter(&self, word: &str) -> Result<String> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address()).await?;
            stream.write_all(word.as_bytes()).await?;
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await?;
            anyhow::Ok(reply)
        };
        tokio::time::timeout(Duration::from_secs(2), exchange).await?
    }
}

/// Copies the files of a directory.
fn copy(from: &Path, to: &Path) -> Result {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}
