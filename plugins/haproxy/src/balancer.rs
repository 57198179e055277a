//! One pod's HAProxy: its address, its files, and its command.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ochopod_sdk::{Command, Pod, Result, bail};

use crate::{
    route::{self, Route},
    runtime::Runtime,
};

/// Path of the granted directory, as the plugin sees it.
pub(crate) const DIRECTORY: &str = "/data";
const RUNTIME_PORT: u16 = 9999;
const MASTER_PORT: u16 = 9998;

/// Address, routes and files of one pod's HAProxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Balancer {
    ip: String,
    /// Ports of the runtime API, on loopback: of the worker, and of the master.
    runtime_port: u16,
    master_port: u16,
    routes: Vec<(Route, u16)>,
    /// Directory of the operator, as HAProxy sees it.
    directory: Option<String>,
}

impl Balancer {
    /// Returns the balancer that follows from the registration of its pod.
    pub(crate) fn of(pod: &Pod) -> Result<Self> {
        let setting = |name: &str| pod.settings.get(name).cloned();
        Self::with(&pod.ip, setting, |port| pod.reachable(port))
    }

    /// Returns the balancer from the pod's environment, which is available without a view of the cluster.
    pub(crate) fn by(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let Some(ip) = variable("ochopod_ip") else { bail!("the variable ochopod_ip is missing") };
        let mapped = |port: u16| match variable(&format!("PORT_{port}")) {
            Some(mapped) => Ok(mapped.trim().parse()?),
            None => Ok(port),
        };
        Self::with(&ip, |name| variable(&format!("ochopod_{name}")), mapped)
    }

    fn with(ip: &str, setting: impl Fn(&str) -> Option<String>, mapped: impl Fn(u16) -> Result<u16>) -> Result<Self> {
        // Behind a mapping the pod's address is another machine's, and the container's port is bound.
        let bound = |port: u16| if is_shared(ip) { mapped(port) } else { Ok(port) };
        let port = |name: &str, default| match setting(name) {
            None => Ok(default),
            Some(text) => match text.trim().parse::<u16>() {
                Ok(port) if port > 0 => Ok(port),
                _ => bail!("invalid ochopod_{name} {text:?}: expected a port"),
            },
        };
        let runtime_port = port("haproxy_runtime_port", RUNTIME_PORT)?;
        let master_port = port("haproxy_master_port", MASTER_PORT)?;
        let routes = Route::parse_all(setting("haproxy_routes").as_deref().unwrap_or(route::DEFAULT))?;
        let mut ports: Vec<u16> = routes.iter().map(|route| route.port).chain([runtime_port, master_port]).collect();
        ports.sort_unstable();
        if let Some([port, _]) = ports.windows(2).find(|pair| pair.first() == pair.last()) {
            bail!(
                "port {port} is used twice among routes, ochopod_haproxy_runtime_port and ochopod_haproxy_master_port"
            );
        }
        // The runtime API is never reached from other machines: it needs no mapping.
        let [runtime_port, master_port] = [runtime_port, master_port].map(|port| bound(port).unwrap_or(port));
        let routes =
            routes.into_iter().map(|route| bound(route.port).map(|port| (route, port))).collect::<Result<_>>()?;
        Ok(Self { ip: ip.to_owned(), runtime_port, master_port, routes, directory: setting("haproxy_dir") })
    }

    /// Returns an error if the operator has not set or granted the directory.
    pub(crate) fn check(&self, guest: &Path) -> Result<()> {
        let Some(directory) = &self.directory else {
            bail!(
                "ochopod_haproxy_dir is not set: expected a directory, granted by --dir DIRECTORY::{}",
                guest.display()
            );
        };
        if !directory.starts_with('/') {
            bail!("invalid ochopod_haproxy_dir {directory:?}: expected an absolute path");
        }
        if !guest.is_dir() {
            bail!("directory not granted: requires --dir {directory}::{}", guest.display());
        }
        Ok(())
    }

    pub(crate) fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().map(|(route, _)| route)
    }

    /// Returns where a route listens.
    pub(crate) fn bind(&self, route: &Route) -> String {
        let bound = self.routes.iter().find(|(known, _)| known == route).map_or(route.port, |(_, port)| *port);
        match (is_shared(&self.ip), self.ip.contains(':')) {
            (true, false) => format!("{}:{bound}", self.ip),
            (true, true) => format!("[{}]:{bound}", self.ip),
            (false, false) => format!(":{bound}"),
            (false, true) => format!("[::]:{bound} v4v6"),
        }
    }

    /// Returns the runtime API: loopback, on an address of the pod.
    pub(crate) fn runtime(&self) -> Runtime {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let ip = self.ip.parse().ok().filter(IpAddr::is_loopback).unwrap_or(loopback);
        Runtime { worker: (ip, self.runtime_port).into(), master: (ip, self.master_port).into() }
    }

    /// Returns the name of its files. Several pods of one machine may keep them in one directory.
    fn name(&self) -> String {
        format!("haproxy-{}-{}.cfg", self.ip.replace(':', "-"), self.runtime_port)
    }

    fn file(&self, guest: &Path) -> PathBuf {
        guest.join(self.name())
    }

    /// Returns the configuration that was written last; empty if there is none.
    pub(crate) fn written(&self, guest: &Path) -> String {
        fs::read_to_string(self.file(guest)).unwrap_or_default()
    }

    /// Replaces the configuration: HAProxy never reads half of one.
    pub(crate) fn write(&self, guest: &Path, configuration: &str) -> Result<()> {
        let new = guest.join(format!("{}.new", self.name()));
        fs::write(&new, configuration)?;
        Ok(fs::rename(new, self.file(guest))?)
    }

    /// Returns the command: a master, which passes its sockets to a new worker when it reads the file again.
    pub(crate) fn command(&self) -> Command {
        let file = format!("{}/{}", self.directory.as_deref().unwrap_or_default(), self.name());
        let master = format!("{},level,admin", self.runtime().master);
        Command::new("haproxy").args(["-W", "-S", &master, "-f", &file])
    }
}

/// Returns whether the pod shares the ports of its machine with other pods: its address is a loopback address.
fn is_shared(ip: &str) -> bool {
    ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
