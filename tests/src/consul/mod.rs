//! Consul: a fake agent, or a real one.

mod agent;
mod api;
mod catalog;
mod fake_consul;

use anyhow::Context;
use nix::sys::signal::Signal;

pub use self::{agent::Agent, api::RecordedCall, fake_consul::FakeConsul};
use crate::{Result, artifacts};

/// An agent without services.
pub enum Consul {
    /// A fake one.
    FakeConsul(FakeConsul),
    /// A real one.
    Agent(Agent),
}

impl Consul {
    /// Starts a fake agent.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn fake() -> Result<Self> {
        Ok(Self::FakeConsul(FakeConsul::start().await?))
    }

    /// Starts a real agent.
    ///
    /// # Errors
    /// If it is not available (see [`artifacts::consul`]), or does not start.
    pub async fn agent() -> Result<Self> {
        let program = artifacts::consul().context("no Consul agent: run `make consul`")?;
        Ok(Self::Agent(Agent::start(program).await?))
    }

    /// Returns its address as in a configuration.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::FakeConsul(agent) => agent.address(),
            Self::Agent(agent) => agent.address(),
        }
    }

    /// Kills it as a power failure would.
    pub async fn stop(&mut self) {
        match self {
            Self::FakeConsul(agent) => agent.refuse().await,
            Self::Agent(agent) => agent.stop(),
        }
    }

    /// Starts it again, with an empty memory.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart(&mut self) -> Result {
        match self {
            Self::FakeConsul(agent) => {
                agent.forget();
                agent.open().await
            }
            Self::Agent(agent) => agent.restart().await,
        }
    }

    /// Freezes it: connections stay open, nothing is answered.
    ///
    /// # Errors
    /// If it does not run.
    pub fn freeze(&self) -> Result {
        match self {
            Self::FakeConsul(agent) => {
                agent.stall();
                Ok(())
            }
            Self::Agent(agent) => agent.signal(Signal::SIGSTOP),
        }
    }

    /// Continues it.
    ///
    /// # Errors
    /// If it does not run.
    pub fn thaw(&self) -> Result {
        match self {
            Self::FakeConsul(agent) => {
                agent.resume();
                Ok(())
            }
            Self::Agent(agent) => agent.signal(Signal::SIGCONT),
        }
    }
}
