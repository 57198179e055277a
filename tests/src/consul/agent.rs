//! A real agent.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;

use crate::{Client, Process, Result, eventually, free_port};

const START: Duration = Duration::from_secs(30);

/// `consul agent -dev`, which keeps everything in memory.
#[derive(Debug)]
pub struct Agent {
    program: String,
    port: u16,
    process: Option<Process>,
}

impl Agent {
    pub(super) async fn start(program: String) -> Result<Self> {
        let mut agent = Self { program, port: free_port()?, process: None };
        agent.restart().await?;
        Ok(agent)
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends it as a power failure would.
    pub(super) fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it with nothing in its memory.
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
        eventually("Consul has a leader", START, async || {
            let leader = client.get("/v1/status/leader").await?.body;
            ensure!(leader.len() > 2, "it has none");
            Ok(())
        })
        .await
    }

    pub(super) fn signal(&self, signal: Signal) -> Result {
        self.process.as_ref().context("Consul does not run")?.signal(signal)
    }
}
