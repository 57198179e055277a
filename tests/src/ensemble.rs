//! A real ZooKeeper ensemble.

use std::{fmt::Write as _, fs, sync::Arc};

use crate::{Result, ZooKeeper, port::free_port};

const MEMBERS: usize = 3;

/// Three servers on 127.0.0.1 that need two of them to serve. Each can be stopped, frozen and started again on its own.
#[derive(Debug)]
pub struct Ensemble {
    members: Vec<Arc<ZooKeeper>>,
}

impl Ensemble {
    /// Starts all and waits until each serves. They do not wait for their disks.
    ///
    /// # Errors
    /// If they do not serve in time.
    pub async fn start() -> Result<Self> {
        let mut lines = String::from("initLimit=50\nsyncLimit=10\n");
        for member in 1..=MEMBERS {
            writeln!(lines, "server.{member}=127.0.0.1:{}:{}", free_port()?, free_port()?)?;
        }
        // A single member without a quorum polls at least every second, or it would notice a minute late.
        let options = ["-Dzookeeper.forceSync=no", "-Dzookeeper.fastleader.maxNotificationInterval=1000"];
        let mut members = Vec::new();
        for member in 1..=MEMBERS {
            let server = ZooKeeper::prepared(free_port()?, "-Xmx64m", &options, &lines)?;
            let data = server.directory().join("data");
            fs::create_dir(&data)?;
            fs::write(data.join("myid"), member.to_string())?;
            server.launch()?;
            members.push(Arc::new(server));
        }
        let ensemble = Self { members };
        ensemble.serves().await?;
        Ok(ensemble)
    }

    /// Its servers.
    #[must_use]
    pub fn members(&self) -> &[Arc<ZooKeeper>] {
        &self.members
    }

    /// Returns all of its addresses, as settings of clients.
    #[must_use]
    pub fn addresses(&self) -> String {
        let addresses: Vec<String> = self.members.iter().map(|member| member.address().to_string()).collect();
        addresses.join(",")
    }

    /// Waits until each member serves.
    ///
    /// # Errors
    /// If one does not in time.
    pub async fn serves(&self) -> Result {
        for member in &self.members {
            member.serves().await?;
        }
        Ok(())
    }
}
