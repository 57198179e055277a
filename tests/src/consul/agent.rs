//! A real agent.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use nix::{sys::signal::Signal, unistd::Pid};

use crate::{Client, Process, Result, eventually, free_port, guarded_server::until_stopped};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// `consul agent -dev`, which keeps everything in memory.
#[derive(Debug)]
pub struct Agent {
    program: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Agent {
    pub(super) async fn start(program: PathBuf) -> Result<Self> {
        let mut agent = Self { program, port: free_port()?, process: None };
        agent.restart().await?;
        Ok(agent)
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills it as a power failure would.
    pub(super) fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it with an empty memory.
    pub(super) async fn restart(&mut self) -> Result {
        self.stop();
        let mut command = Process::command(&self.program);
        command.args(["agent", "-dev", "-node=kit", "-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=err"]);
        command.arg(format!("-http-port={}", self.port)).args(["-dns-port=-1", "-grpc-port=-1"]);
        for port in ["server", "serf-lan", "serf-wan"] {
            command.arg(format!("-{port}-port={}", free_port()?));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(Process::spawn("consul", command)?);
        let client = Client::new(self.address());
        // Servers know the node before the agent has sent its addresses: that change would end waits.
        eventually("Consul knows its own node", START_TIMEOUT, async || {
            let node = client.get("/v1/catalog/node/kit").await?.body;
            ensure!(String::from_utf8_lossy(&node).contains(r#""lan":"#), "no lan address");
            Ok(())
        })
        .await
    }

    pub(super) fn signal(&self, signal: Signal) -> Result {
        let process = self.process.as_ref().context("Consul does not run")?;
        process.signal(signal)?;
        if signal == Signal::SIGSTOP { until_stopped(Pid::from_raw(process.pid())) } else { Ok(()) }
    }
}
