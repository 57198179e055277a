//! PostgreSQL with automatic failover: Patroni manages it and finds its peers in the ZooKeeper servers of the cluster
//! `zookeeper`. Patroni follows when these servers move, and PostgreSQL is not restarted.

use std::{path::Path, time::Duration};

use ochopod_sdk::{
    Cluster, Command, Error, Lifecycle, OnChange, Result, Settings, Value, Wants, bail, exec, json, process, warning,
};

use api::{Member, Status};
use model::Replication;
use server::{DIRECTORY, Files, Server, number};

mod api;
mod model;
mod server;

/// Python of Debian's package, which is not necessarily the first in the PATH.
const PYTHON: &str = "/usr/bin/python3";
const LAUNCHER: &str = include_str!("launch.py");
/// Time limit to connect and to read: two requests fit into the deadline of a sanity check.
const TIMEOUT: Duration = Duration::from_millis(700);
/// Time for PostgreSQL to stop once Patroni is gone: what `finalize` has in a shutdown.
const STOP_TIMEOUT: Duration = Duration::from_millis(2500);

/// Patroni of the pod.
#[derive(Default)]
struct Patroni {
    server: Option<Server>,
    /// Role as of the last query of Patroni.
    role: Option<&'static str>,
}

impl Lifecycle for Patroni {
    fn settings() -> Settings {
        let wants = Wants::default().write(DIRECTORY).connect("peers").connect("loopback:8008").run("pg_ctl");
        Settings {
            check_every: 3.0,
            // Two minutes: a slow answer is not a reason to stop a database.
            checks: 40,
            // Programs of PostgreSQL fail in a directory that their user cannot enter.
            cwd: Some("/".to_owned()),
            on_change: OnChange::Compare,
            // A replica copies all data before it runs.
            ready_within: 86400.0,
            wants,
            ..Settings::default()
        }
    }

    fn can_configure(&mut self, cluster: &Cluster) -> Result<()> {
        let me = Server::of(&cluster.me()?)?;
        if !files(&me).is_granted() {
            bail!("directory not granted: requires --dir {}::{DIRECTORY}", me.directory);
        }
        server::zookeepers(cluster).map(drop)
    }

    /// Returns retryable errors only, because the pod holds data.
    fn configure(&mut self, cluster: &Cluster) -> Result<Command> {
        self.command(cluster, Path::new(DIRECTORY)).map_err(|error| Error::not_yet(error.to_string()))
    }

    fn ready(&mut self, _: &Cluster, _: u32) -> Result<()> {
        match self.query()? {
            status if status.state() == "running" => Ok(()),
            status => bail!("PostgreSQL is {}", status.state()),
        }
    }

    fn role(&mut self) -> Option<String> {
        self.role.map(str::to_owned)
    }

    fn configured(&mut self, cluster: &Cluster) -> Result<()> {
        self.server = Some(Server::of(&cluster.me()?)?);
        if process::running() {
            self.query()?;
        }
        Ok(())
    }

    /// Passes without a running PostgreSQL: Patroni starts it again, or waits for a primary.
    fn sanity_check(&mut self, _: u32) -> Result<Value> {
        self.metrics()
    }

    fn signaled(&mut self, body: Option<Value>, pid: Option<u32>) -> Result<Value> {
        if pid.is_none() {
            bail!("Patroni is not running");
        }
        let body = body.unwrap_or_default();
        if body.is_null() || body == json!({}) {
            return self.metrics();
        }
        match body.get("switchover") {
            Some(Value::Bool(true)) => self.switch_over(None),
            Some(Value::String(name)) => self.switch_over(Some(name)),
            _ => bail!("expected no body, {{\"switchover\": true}} or {{\"switchover\": \"MEMBER\"}}, got {body}"),
        }
    }

    /// Terminates Patroni, which stops PostgreSQL and then exits.
    fn tear_down(&mut self, _: u32) -> Result<()> {
        process::signal(process::SIGTERM)
    }

    /// Stops PostgreSQL, which has a session of its own. It still runs if Patroni crashed or was killed, or while the
    /// cluster is in Patroni's maintenance mode.
    fn finalize(&mut self) -> Result<()> {
        let me = self.server()?;
        stop_server(me, &files(me))
    }
}

impl Patroni {
    /// Returns the pod's Patroni; a rebuilt instance reads it from the environment.
    fn server(&mut self) -> Result<&Server> {
        match &mut self.server {
            Some(server) => Ok(server),
            none => Ok(none.insert(Server::from_env()?)),
        }
    }

    /// Writes the files of Patroni, and returns its command. Other ZooKeeper servers are another file, not another command.
    fn command(&mut self, cluster: &Cluster, guest: &Path) -> Result<Command> {
        let me = self.server.insert(Server::of(&cluster.me()?)?);
        let has_changed = Files::of(me, guest).write(&me.render(cluster)?, LAUNCHER)?;
        let command = Command::new(PYTHON).args([me.launcher(), me.configuration()]);
        Ok(if has_changed { command.reload(process::SIGHUP) } else { command })
    }

    fn query(&mut self) -> Result<Status> {
        let status = api::status(&self.server()?.own_api, TIMEOUT)?;
        self.role = Some(status.role());
        Ok(status)
    }

    fn metrics(&mut self) -> Result<Value> {
        let status = self.query()?;
        let (name, api) = (self.server()?.name.clone(), self.server()?.own_api.clone());
        let mut metrics = json!({
            "member": name,
            "state": status.state(),
            "role": status.role(),
            "version": number(&status.value, "server_version"),
            "timeline": number(&status.value, "timeline"),
        });
        let members = api::members(&api, TIMEOUT).unwrap_or_default();
        let own = members.iter().find(|member| member.name == name);
        let lag = own.filter(|member| !member.is_primary).and_then(|member| member.lag);
        let primary = members.iter().find(|member| member.is_primary);
        if let Value::Object(metrics) = &mut metrics {
            metrics.extend(lag.map(|lag| ("lag_bytes".to_owned(), json!(lag))));
            metrics.extend(primary.map(|Member { name, .. }| ("primary".to_owned(), json!(name))));
        }
        Ok(metrics)
    }

    fn switch_over(&mut self, to: Option<&str>) -> Result<Value> {
        let api = self.server()?.own_api.clone();
        let members = api::members(&api, TIMEOUT)?;
        let Some(primary) = members.iter().find(|member| member.is_primary) else {
            bail!("no primary to switch over from")
        };
        if to == Some(primary.name.as_str()) {
            bail!("{} is the primary already", primary.name);
        }
        Ok(json!({"switchover": api::switch_over(&api, &primary.name, to)?}))
    }
}

fn files(server: &Server) -> Files {
    Files::of(server, Path::new(DIRECTORY))
}

/// Stops a PostgreSQL that runs.
fn stop_server(me: &Server, files: &Files) -> Result<()> {
    if !files.has_server() {
        return Ok(());
    }
    warning!("PostgreSQL still runs, stopping it");
    let seconds = STOP_TIMEOUT.as_secs().to_string();
    let output = exec::run(["pg_ctl", "-D", &me.data(), "-m", "fast", "-t", &seconds, "stop"], b"", STOP_TIMEOUT)?;
    if output.code != 0 {
        bail!("PostgreSQL not stopped: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

ochopod_sdk::export!(Patroni, model: Replication);

#[cfg(test)]
mod tests;
