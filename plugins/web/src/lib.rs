//! nginx with a page that lists the pods of the cluster. A pod that stops is drained first.

use std::{
    env, fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use ochopod_sdk::{
    Cluster, Command, Lifecycle, Model, ModelSettings, Result, Settings, Value, Wants, info, process, warning,
};

use server::Server;

mod page;
mod server;

/// Path of the granted directory, as the plugin sees it.
const DIRECTORY: &str = "/data";
/// Delay between two looks at the time that is left.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The pod's nginx.
#[derive(Default)]
struct Web {
    server: Option<Server>,
}

impl Lifecycle for Web {
    fn settings() -> Settings {
        let wants = Wants::default().write(DIRECTORY).connect("loopback:*");
        Settings { check_every: 5.0, checks: 3, grace: 20.0, pipe_subprocess: true, wants, ..Settings::default() }
    }

    fn can_configure(&mut self, cluster: &Cluster) -> Result<()> {
        Server::of(&cluster.me()?)?.check(Path::new(DIRECTORY))
    }

    fn configure(&mut self, cluster: &Cluster) -> Result<Command> {
        let server = self.server.insert(Server::of(&cluster.me()?)?);
        let guest = server.create_directory(Path::new(DIRECTORY))?;
        fs::write(guest.join("nginx.conf"), server.configuration())?;
        page::write(&guest, cluster)?;
        Ok(server.command())
    }

    fn ready(&mut self, _: &Cluster, _: u32) -> Result<()> {
        self.server()?.get("/health").map(drop)
    }

    /// Writes the page, which nginx reads for each request: pods that join or leave restart none.
    fn configured(&mut self, cluster: &Cluster) -> Result<()> {
        let server = self.server.insert(Server::of(&cluster.me()?)?);
        page::write(&server.directory_in(Path::new(DIRECTORY)), cluster)
    }

    /// Passes for an nginx that is slow, because stopping it would make things worse.
    fn sanity_check(&mut self, _: u32) -> Result<Value> {
        let server = self.server()?;
        match server.get("/status").and_then(|status| server::metrics(&status)) {
            Err(error) if !server.is_down() => {
                warning!("nginx not checked: {error}");
                Ok(Value::Null)
            }
            result => result,
        }
    }

    /// Lets load balancers see that the pod leaves before nginx ends: `/health` answers 404 meanwhile. nginx completes
    /// the requests that it has.
    #[allow(clippy::disallowed_methods, reason = "a guest has no event to wait for")]
    fn tear_down(&mut self, _: u32) -> Result<()> {
        let drain = server::drain(|name| env::var(name).ok())?;
        let server = self.server()?;
        server.set_leaving(Path::new(DIRECTORY))?;
        info!("draining for {} s", drain.as_secs_f64());
        let begin = Instant::now();
        while begin.elapsed() < drain && process::running() {
            thread::sleep(POLL_INTERVAL.min(drain.saturating_sub(begin.elapsed())));
        }
        process::signal(process::SIGQUIT)
    }
}

impl Web {
    /// Finds the nginx again in a rebuilt instance.
    fn server(&mut self) -> Result<&Server> {
        match &mut self.server {
            Some(server) => Ok(server),
            none => Ok(none.insert(Server::by(|name| env::var(name).ok())?)),
        }
    }
}

#[derive(Default)]
struct Pages;

impl Model for Pages {
    /// Returns settings with which a configuration that restarts pods stops a quarter of them at a time.
    fn settings() -> ModelSettings {
        ModelSettings { batch: ochopod_sdk::Batch::Percent(25), ..ModelSettings::default() }
    }
}

ochopod_sdk::export!(Web, model: Pages);

#[cfg(test)]
mod tests;
