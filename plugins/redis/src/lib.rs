//! Redis with replication: the oldest pod is the primary, the others follow it, and follow the next one when it goes.

use std::{env, io::ErrorKind, path::Path, thread, time::Duration};

use ochopod_sdk::{
    Cluster, Command, Lifecycle, Model, ModelSettings, Result, Settings, Value, Wants, bail, json, process, warning,
};

use client::{Address, Client};

mod client;
mod server;

/// Where the plugin sees the directory that the operator grants for the configuration file.
const DIRECTORY: &str = "/data";
const START: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Where the pod's redis is and what it is to be.
#[derive(Default)]
struct Redis {
    place: Option<Place>,
}

struct Place {
    own: Address,
    /// None in an instance that has seen no configuration yet.
    role: Option<Role>,
    saves: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Role {
    Primary,
    ReplicaOf(Address),
}

impl Lifecycle for Redis {
    fn settings() -> Settings {
        let wants = Wants::default().write(DIRECTORY).connect("peers");
        Settings { check_every: 5.0, checks: 3, wants, ..Settings::default() }
    }

    fn configure(&mut self, cluster: &Cluster) -> Result<Command> {
        self.place = Some(Place::of(cluster)?);
        server::command(cluster, Path::new(DIRECTORY))
    }

    /// A redis that runs is left alone when pods come and go: here it learns of another primary.
    fn configured(&mut self, cluster: &Cluster) -> Result<()> {
        let place = self.place.insert(Place::of(cluster)?);
        if process::running() { place.follow(&mut place.wait()?) } else { Ok(()) }
    }

    fn sanity_check(&mut self, _: u32) -> Result<Value> {
        let place = self.place()?;
        let mut redis = place.connect()?;
        let mut info = redis.info()?;
        // A crash restarts the command of an earlier configuration.
        let role = info.primary().map_or(Role::Primary, Role::ReplicaOf);
        if let Some(expected) = place.role.as_ref().filter(|expected| **expected != role) {
            warning!("redis is {role:?}, expected {expected:?}");
            place.follow(&mut redis)?;
            info = redis.info()?;
        }
        Ok(info.metrics())
    }

    fn signaled(&mut self, body: Option<Value>, pid: Option<u32>) -> Result<Value> {
        let place = self.place()?;
        if pid.is_none() {
            bail!("redis is not running");
        }
        let body = body.unwrap_or_default();
        if body.is_null() || body == json!({}) {
            return Ok(place.connect()?.info()?.metrics());
        }
        if body != json!({"save": true}) {
            bail!("expected no body or {{\"save\": true}}, got {body}");
        }
        if !place.saves {
            bail!("nowhere to save to: set ochopod_redis_dir");
        }
        Ok(json!({"save": place.connect()?.call(&["BGSAVE"])?}))
    }
}

impl Redis {
    /// A new instance that replaces one that was lost still has to find its redis.
    fn place(&mut self) -> Result<&Place> {
        match &mut self.place {
            Some(place) => Ok(place),
            none => Ok(none.insert(Place::by(|name| env::var(name).ok())?)),
        }
    }
}

impl Place {
    fn of(cluster: &Cluster) -> Result<Self> {
        let (me, primary) = (cluster.me()?, server::primary(cluster)?);
        let role = if primary.key == me.key { Role::Primary } else { Role::ReplicaOf(server::reachable(primary)) };
        Ok(Self { own: server::own(me), role: Some(role), saves: server::directory(me).is_some() })
    }

    /// As far as the pod's environment says it.
    fn by(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let saves = variable("ochopod_redis_dir").is_some();
        Ok(Self { own: server::own_by(variable)?, role: None, saves })
    }

    fn connect(&self) -> Result<Client> {
        let Address { ip, port } = &self.own;
        Client::connect(&self.own).or_else(|e| bail!("redis at {ip}:{port} cannot be reached: {e}"))
    }

    /// Connects to a redis that may have been started just now.
    #[allow(clippy::disallowed_methods, reason = "a guest has no event to wait for")]
    fn wait(&self) -> Result<Client> {
        for _ in 0..START.as_millis() / PAUSE.as_millis() {
            match Client::connect(&self.own) {
                Err(e) if e.kind() == ErrorKind::ConnectionRefused && process::running() => thread::sleep(PAUSE),
                _ => break,
            }
        }
        self.connect()
    }

    fn follow(&self, redis: &mut Client) -> Result<()> {
        match &self.role {
            Some(Role::ReplicaOf(Address { ip, port })) => _ = redis.call(&["REPLICAOF", ip, &port.to_string()])?,
            Some(Role::Primary) => _ = redis.call(&["REPLICAOF", "NO", "ONE"])?,
            None => {}
        }
        Ok(())
    }
}

#[derive(Default)]
struct Replication;

impl Model for Replication {
    fn settings() -> ModelSettings {
        ModelSettings { probe_every: 5.0, ..ModelSettings::default() }
    }

    /// Asks every redis what it is.
    fn probe(&mut self, cluster: &Cluster) -> Result<Option<String>> {
        let primary = server::primary(cluster)?;
        let (mut replicas, mut in_sync) = (0, 0);
        for pod in cluster.by_seq() {
            let address = server::reachable(pod);
            let info = match Client::connect(&address) {
                Ok(mut redis) => redis.info()?,
                Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                    return Ok(Some("replication not checked: that needs --net peers".to_owned()));
                }
                Err(e) => bail!("redis of pod seq {} at {}:{}: {e}", pod.seq, address.ip, address.port),
            };
            if pod.key != primary.key {
                replicas += 1;
                in_sync += usize::from(info.in_sync() && info.primary() == Some(server::reachable(primary)));
            } else if !info.is_primary() {
                bail!("redis of pod seq {} is a replica, expected the primary", pod.seq);
            }
        }
        let plural = if replicas == 1 { "replica" } else { "replicas" };
        Ok(Some(if in_sync == replicas {
            format!("1 primary, {replicas} {plural} in sync")
        } else {
            format!("1 primary, {in_sync} of {replicas} {plural} in sync")
        }))
    }
}

ochopod_sdk::export!(Redis, model: Replication);

#[cfg(test)]
mod tests;
