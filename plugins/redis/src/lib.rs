//! Redis with replication: the oldest pod is the primary at first, and the others follow it. If it is lost, they follow the next
//! one, which stays the primary when the first one returns.

use std::{env, fmt, io::ErrorKind, path::Path, thread, time::Duration};

use ochopod_sdk::{
    Cluster, Command, Lifecycle, Model, ModelSettings, Result, Settings, Value, Wants, bail, info, json, process,
    warning,
};

use client::{Address, Client, Info};
use failover::{Choice, Claim, Decision, Peer, Situation};

mod client;
mod failover;
mod server;

/// Path of the granted directory of the configuration file, as the plugin sees it.
const DIRECTORY: &str = "/data";
const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Address and role of the pod's redis.
#[derive(Default)]
struct Redis {
    server: Option<Server>,
    /// Role as of the last look at the redis.
    role: Option<&'static str>,
}

struct Server {
    own: Address,
    /// None in an instance that has seen no view since.
    place: Option<Place>,
    persistent: bool,
}

/// Place of the pod's redis in the last view.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// Role that is expected. Changes without a view when the servers agree on another primary.
    role: Role,
    me: Peer,
    others: Vec<Peer>,
    /// Claims to be the primary that are not decided yet.
    open: Vec<Claim>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    Primary,
    ReplicaOf(Address),
}

impl Role {
    /// Returns the role as the pod publishes it.
    fn name(&self) -> &'static str {
        match self {
            Self::Primary => failover::PRIMARY,
            Self::ReplicaOf(_) => "replica",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("primary"),
            Self::ReplicaOf(Address { ip, port }) => write!(f, "replica of {ip}:{port}"),
        }
    }
}

impl Lifecycle for Redis {
    fn settings() -> Settings {
        let wants = Wants::default().write(DIRECTORY).connect("peers").connect("loopback:6379");
        Settings { check_every: 5.0, checks: 3, wants, ..Settings::default() }
    }

    fn configure(&mut self, cluster: &Cluster) -> Result<Command> {
        let me = cluster.me()?;
        let persistent = server::directory(&me).is_some();
        self.server = Some(Server { own: server::own(&me), place: None, persistent });
        server::command(cluster, Path::new(DIRECTORY))
    }

    /// Succeeds once redis answers and has a role: not while it loads its data. Every start gets here, also that after a crash.
    fn ready(&mut self, cluster: &Cluster, _: u32) -> Result<()> {
        let known = self.server.insert(Server::of(cluster)?);
        let mut redis = known.connect()?;
        redis.call(&["PING"])?;
        known.settle(&mut redis, true)
    }

    fn role(&mut self) -> Option<String> {
        self.role.map(str::to_owned)
    }

    /// Points a running redis to another primary; pods that join or leave restart none.
    fn configured(&mut self, cluster: &Cluster) -> Result<()> {
        let known = self.server.insert(Server::of(cluster)?);
        if process::running() {
            let mut redis = known.wait()?;
            known.settle(&mut redis, false)?;
            self.role = Some(role_name(&redis.info()?));
        }
        Ok(())
    }

    /// Passes for a redis whose role cannot be decided yet, because stopping it would make things worse.
    fn sanity_check(&mut self, _: u32) -> Result<Value> {
        let known = self.server()?;
        known.decide_again();
        let mut redis = known.connect()?;
        let mut info = redis.info()?;
        if !known.is_settled(&info) {
            if let Err(error) = known.settle(&mut redis, false) {
                warning!("role of redis not checked, trying again: {error}");
            }
            info = redis.info()?;
        }
        self.role = Some(role_name(&info));
        Ok(info.metrics())
    }

    fn signaled(&mut self, body: Option<Value>, pid: Option<u32>) -> Result<Value> {
        let known = self.server()?;
        if pid.is_none() {
            bail!("redis is not running");
        }
        let body = body.unwrap_or_default();
        if body.is_null() || body == json!({}) {
            return Ok(known.connect()?.info()?.metrics());
        }
        if body != json!({"save": true}) {
            bail!("expected no body or {{\"save\": true}}, got {body}");
        }
        if !known.persistent {
            bail!("no directory to save to: set ochopod_redis_dir");
        }
        Ok(json!({"save": known.connect()?.call(&["BGSAVE"])?}))
    }
}

impl Redis {
    /// Finds the redis again in a rebuilt instance.
    fn server(&mut self) -> Result<&mut Server> {
        match &mut self.server {
            Some(server) => Ok(server),
            none => Ok(none.insert(Server::by(|name| env::var(name).ok())?)),
        }
    }
}

impl Server {
    fn of(cluster: &Cluster) -> Result<Self> {
        let (me, Choice { primary, open }) = (cluster.me()?, failover::primary(cluster)?);
        let role = if primary.key == me.key { Role::Primary } else { Role::ReplicaOf(server::reachable(&primary)) };
        let others = cluster.by_seq().iter().filter(|pod| pod.key != me.key).map(Peer::of).collect();
        let place = Some(Place { role, me: Peer::of(&me), others, open });
        Ok(Self { own: server::own(&me), place, persistent: server::directory(&me).is_some() })
    }

    /// Returns the value, if the pod's environment has it.
    fn by(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let persistent = variable("ochopod_redis_dir").is_some();
        Ok(Self { own: server::own_by(variable)?, place: None, persistent })
    }

    fn connect(&self) -> Result<Client> {
        let Address { ip, port } = &self.own;
        Client::connect(&self.own).or_else(|e| bail!("redis at {ip}:{port} cannot be reached: {e}"))
    }

    /// Connects to a redis that may have been started just now.
    #[allow(clippy::disallowed_methods, reason = "a guest has no event to wait for")]
    fn wait(&self) -> Result<Client> {
        for _ in 0..START_TIMEOUT.as_millis() / POLL_INTERVAL.as_millis() {
            match Client::connect(&self.own) {
                Err(e) if e.kind() == ErrorKind::ConnectionRefused && process::running() => {
                    thread::sleep(POLL_INTERVAL);
                }
                _ => break,
            }
        }
        self.connect()
    }

    /// Returns whether redis is the primary that is expected. A replica has to ask whether its primary is one.
    fn is_settled(&self, info: &Info) -> bool {
        let is_settled = |place: &Place| place.open.is_empty() && place.role == Role::Primary && info.is_primary();
        self.place.as_ref().is_none_or(is_settled)
    }

    /// Decides again between claims to be the primary that a slow redis left open.
    fn decide_again(&mut self) {
        let Some(place) = self.place.as_mut().filter(|place| !place.open.is_empty()) else { return };
        let Decision::Last { seq: Some(seq), is_final: true } = failover::decide(&place.open) else { return };
        if let Some(claim) = place.open.iter().find(|claim| claim.peer.seq == seq) {
            let is_own = seq == place.me.seq;
            place.role = if is_own { Role::Primary } else { Role::ReplicaOf(claim.peer.address.clone()) };
            place.open.clear();
        }
    }

    /// Gives redis its role, unless it has it. `is_new` after a start.
    fn settle(&mut self, redis: &mut Client, is_new: bool) -> Result<()> {
        let Some(place) = &mut self.place else { return Ok(()) };
        let own = redis.info()?;
        let situation = Situation { me: &place.me, own: &own, others: &place.others, is_new };
        let Some(role) = situation.role(&place.role)? else { return Ok(()) };
        if own.role().as_ref() != Some(&role) {
            match &role {
                Role::ReplicaOf(Address { ip, port }) => redis.call(&["REPLICAOF", ip, &port.to_string()])?,
                Role::Primary => redis.call(&["REPLICAOF", "NO", "ONE"])?,
            };
            info!("redis is {role} now");
        }
        place.role = role;
        Ok(())
    }
}

/// Returns the role that the pod publishes; empty while redis has none.
fn role_name(info: &Info) -> &'static str {
    info.role().as_ref().map_or("", Role::name)
}

#[derive(Default)]
struct Replication;

impl Model for Replication {
    fn settings() -> ModelSettings {
        ModelSettings { probe_every: 5.0, ..ModelSettings::default() }
    }

    /// Asks every redis what it is.
    fn probe(&mut self, cluster: &Cluster) -> Result<Option<String>> {
        let primary = failover::primary(cluster)?.primary;
        let (mut replicas, mut in_sync) = (0, 0);
        for pod in cluster.by_seq() {
            let address = server::reachable(&pod);
            let info = match Client::connect(&address) {
                Ok(mut redis) => redis.info()?,
                Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                    return Ok(Some("replication not checked: requires --net peers".to_owned()));
                }
                Err(e) => bail!("redis of pod seq {} at {}:{}: {e}", pod.seq, address.ip, address.port),
            };
            if pod.key != primary.key {
                replicas += 1;
                in_sync += usize::from(info.in_sync() && info.primary() == Some(server::reachable(&primary)));
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
