//! Consul: an agent made of the kit, or a real one.

mod agent;
mod api;
mod catalog;
mod standin;

use nix::sys::signal::Signal;

pub use self::{agent::Agent, api::Asked, standin::StandIn};
use crate::Result;

/// Names the program of a real agent.
const PROGRAM: &str = "CONSUL_BIN";

/// An agent that knows nothing yet: a real one where the variable `CONSUL_BIN` names its program, else a stand-in.
pub enum Consul {
    /// Made of the kit.
    StandIn(StandIn),
    /// A real one.
    Agent(Agent),
}

impl Consul {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no port for it, or a real one does not start.
    pub async fn start() -> Result<Self> {
        Ok(match std::env::var(PROGRAM) {
            Ok(program) if !program.is_empty() => Self::Agent(Agent::start(program).await?),
            _ => Self::StandIn(StandIn::start().await?),
        })
    }

    /// What a configuration calls it.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::StandIn(agent) => agent.address(),
            Self::Agent(agent) => agent.address(),
        }
    }

    /// Ends it as a power failure would.
    pub async fn stop(&mut self) {
        match self {
            Self::StandIn(agent) => agent.refuse().await,
            Self::Agent(agent) => agent.stop(),
        }
    }

    /// Starts it again, with nothing in its memory.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&mut self) -> Result {
        match self {
            Self::StandIn(agent) => {
                agent.forget();
                agent.open().await
            }
            Self::Agent(agent) => agent.restart().await,
        }
    }

    /// Freezes it: connections stand, nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result {
        match self {
            Self::StandIn(agent) => {
                agent.stall();
                Ok(())
            }
            Self::Agent(agent) => agent.signal(Signal::SIGSTOP),
        }
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result {
        match self {
            Self::StandIn(agent) => {
                agent.resume();
                Ok(())
            }
            Self::Agent(agent) => agent.signal(Signal::SIGCONT),
        }
    }
}
