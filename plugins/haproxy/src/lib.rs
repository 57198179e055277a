//! HAProxy in front of other clusters. Their pods join and leave without a failed request, and it follows a role, such as that
//! of the primary of a database.

use std::{collections::BTreeSet, env, path::Path};

use ochopod_sdk::{
    Cluster, Command, Error, Lifecycle, Model, ModelSettings, OnChange, Result, Settings, Value, Wants, info, process,
    warning,
};

use balancer::{Balancer, DIRECTORY};
use configuration::{render, servers_in};

mod balancer;
mod configuration;
mod route;
mod runtime;

/// The pod's HAProxy.
#[derive(Default)]
struct HaProxy {
    balancer: Option<Balancer>,
}

impl Lifecycle for HaProxy {
    /// Returns settings with `soft`: a HAProxy that still serves long sessions when it is restarted no longer listens.
    fn settings() -> Settings {
        let wants = Wants::default().write(DIRECTORY).connect("loopback:*");
        Settings {
            check_every: 5.0,
            checks: 3,
            grace: 30.0,
            on_change: OnChange::Compare,
            pipe_subprocess: true,
            soft: true,
            wants,
            ..Settings::default()
        }
    }

    fn can_configure(&mut self, cluster: &Cluster) -> Result<()> {
        let balancer = Balancer::of(&cluster.me()?)?;
        balancer.check(Path::new(DIRECTORY))?;
        render(&balancer, cluster).map(drop)
    }

    /// Writes the configuration while HAProxy runs, too: pods that left get no more requests, then it reads the new
    /// file.
    fn configure(&mut self, cluster: &Cluster) -> Result<Command> {
        let balancer = self.balancer.insert(Balancer::of(&cluster.me()?)?);
        let (new, skipped) = render(balancer, cluster)?;
        for text in skipped {
            warning!("pod is not reachable: {text}");
        }
        let guest = Path::new(DIRECTORY);
        let old = balancer.written(guest);
        balancer.write(guest, &new)?;
        if process::running() {
            balancer.load(&old, &new).map_err(|error| Error::not_yet(error.to_string()))?;
        }
        Ok(balancer.command())
    }

    fn ready(&mut self, _: &Cluster, _: u32) -> Result<()> {
        self.balancer()?.runtime().metrics().map(drop)
    }

    /// Follows roles, which change without a configuration.
    fn configured(&mut self, cluster: &Cluster) -> Result<()> {
        let balancer = self.balancer.insert(Balancer::of(&cluster.me()?)?);
        let guest = Path::new(DIRECTORY);
        let (new, _) = render(balancer, cluster)?;
        if new != balancer.written(guest) {
            balancer.write(guest, &new)?;
        }
        if process::running() { balancer.follow_roles() } else { Ok(()) }
    }

    /// Passes for a HAProxy that is slow, because stopping it would make things worse.
    fn sanity_check(&mut self, _: u32) -> Result<Value> {
        let balancer = self.balancer()?;
        match balancer.reconcile() {
            Err(error) if !balancer.runtime().is_down() => {
                warning!("haproxy not checked: {error}");
                Ok(Value::Null)
            }
            result => result,
        }
    }

    fn signaled(&mut self, _: Option<Value>, _: Option<u32>) -> Result<Value> {
        self.balancer()?.runtime().metrics()
    }

    /// Stops HAProxy: it closes its listeners and exits with its last session.
    fn tear_down(&mut self, _: u32) -> Result<()> {
        process::signal(process::SIGUSR1)
    }
}

impl HaProxy {
    /// Returns the pod's HAProxy; a rebuilt instance reads it from the environment.
    fn balancer(&mut self) -> Result<&Balancer> {
        match &mut self.balancer {
            Some(balancer) => Ok(balancer),
            none => Ok(none.insert(Balancer::by(|name| env::var(name).ok())?)),
        }
    }
}

impl Balancer {
    /// Makes a running HAProxy load the new configuration, which is written: pods that left get no more requests, then it
    /// reads the file. HAProxy says which servers it has: an earlier reload may have failed after the file was written.
    fn load(&self, old: &str, new: &str) -> Result<()> {
        let after = servers_in(new);
        let before: BTreeSet<_> = match self.runtime().servers() {
            Ok(servers) => servers.into_keys().collect(),
            // It is slow, or was just started. The next check corrects what it lacks of this configuration.
            Err(_) if new == old => return Ok(()),
            Err(_) => servers_in(old).into_keys().collect(),
        };
        if new == old && before.iter().eq(after.keys()) {
            return Ok(());
        }
        let leaving: Vec<_> = before.iter().filter(|name| !after.contains_key(name)).collect();
        let joined = after.keys().filter(|name| !before.contains(name)).count();
        info!("reloading: {joined} servers joined, {} left", leaving.len());
        if let Err(error) = self.runtime().drain(leaving) {
            warning!("servers not drained, reloading without them: {error}");
        }
        self.runtime().reload(&after)
    }

    /// Corrects what differs from the configuration, and returns metrics.
    fn reconcile(&self) -> Result<Value> {
        self.follow_file()?;
        self.follow_roles()?;
        self.runtime().metrics()
    }

    /// Loads the configuration again if HAProxy has other servers: a configuration was interrupted.
    fn follow_file(&self) -> Result<()> {
        let expected = servers_in(&self.written(Path::new(DIRECTORY)));
        if self.runtime().servers()?.keys().eq(expected.keys()) {
            return Ok(());
        }
        warning!("haproxy has other servers than its configuration, reloading");
        self.runtime().reload(&expected)
    }

    /// Makes the servers of routes with a role serve as the configuration has it. An operator may drain other servers.
    fn follow_roles(&self) -> Result<()> {
        let mut expected = servers_in(&self.written(Path::new(DIRECTORY)));
        let with_role: Vec<_> = self.routes().filter(|route| route.role.is_some()).map(route::Route::name).collect();
        expected.retain(|name, _| with_role.contains(&name.proxy));
        for text in self.runtime().apply(&expected)? {
            info!("{text}");
        }
        Ok(())
    }
}

#[derive(Default)]
struct Routes;

impl Model for Routes {
    fn settings() -> ModelSettings {
        ModelSettings { depends_on: vec!["web*".to_owned()], probe_every: 5.0, ..ModelSettings::default() }
    }

    /// Asks the leader's own HAProxy: all have the same servers.
    fn probe(&mut self, _: &Cluster) -> Result<Option<String>> {
        let balancer = Balancer::by(|name| env::var(name).ok())?;
        let metrics = balancer.runtime().metrics()?;
        Ok(Some(status(&balancer, &metrics)))
    }
}

/// Returns `port 8000: 3 of 3 servers up` for each route.
fn status(balancer: &Balancer, metrics: &Value) -> String {
    let one = |route: &route::Route| {
        let proxy = metrics.get(route.name());
        let number = |key: &str| proxy.and_then(|proxy| proxy.get(key)?.as_u64()).unwrap_or_default();
        format!("port {}: {} of {} servers up", route.port, number("servers_up"), number("servers"))
    };
    balancer.routes().map(one).collect::<Vec<_>>().join(", ")
}

ochopod_sdk::export!(HaProxy, model: Routes);

#[cfg(test)]
mod tests;
