//! What a plugin is and needs, for `check` and for the operator's eyes at start.

use super::{Plugin, Wants, network, sandbox::needs_no_grant};
use crate::settings::{Grants, NetworkGrant, is_secret_variable};

/// What `check` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The world it was made for, with its version.
    pub world: String,
    /// Interfaces it imports.
    pub imports: Vec<String>,
    /// Interfaces it exports.
    pub exports: Vec<String>,
}

impl Plugin {
    /// What it was made for, imports and exports. The rest is in [`Plugin::description`].
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        let (component, engine) = self.code();
        let kind = component.component_type();
        Inspection {
            world: format!("ochopod:pod/plugin@{}", super::world::SUPPORTED),
            imports: kind.imports(engine).map(|(name, _)| name.to_owned()).collect(),
            exports: kind.exports(engine).map(|(name, _)| name.to_owned()).collect(),
        }
    }
}

impl Wants {
    /// The flags that grant what is wanted and not granted yet, as the operator would type them (`HOST` stands for a
    /// directory of the operator's choice). What [`Self::never_granted`] has is left out.
    #[must_use]
    pub fn missing(&self, grants: &Grants) -> Vec<String> {
        let directories = self.directories.iter().filter(|wanted| {
            let granted = |writable| !wanted.writable || writable;
            !grants.directories.iter().any(|grant| same_path(&grant.guest, &wanted.guest) && granted(grant.writable))
        });
        let directories = directories
            .map(|wanted| format!("--dir HOST::{}{}", wanted.guest, if wanted.writable { "" } else { ":ro" }));
        let environment = self.environment.iter().filter(|name| !is_granted(name, &grants.environment));
        let network = self.network.iter().filter(|address| !is_reachable(address, &grants.network));
        let programs = self.programs.iter().filter(|program| !grants.programs.contains(program));
        directories
            .chain(environment.map(|name| format!("--env {name}")))
            .chain(network.map(|address| format!("--net {address}")))
            .chain(programs.map(|program| format!("--run {program}")))
            .collect()
    }

    /// Variables that are wanted and that no flag grants, as they are secrets of the host.
    pub fn never_granted(&self) -> impl Iterator<Item = &str> {
        self.environment.iter().map(String::as_str).filter(|name| is_secret_variable(name))
    }
}

fn same_path(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

fn is_granted(name: &str, granted: &[String]) -> bool {
    needs_no_grant(name) || granted.iter().any(|grant| grant == name)
}

fn is_reachable(address: &str, granted: &[NetworkGrant]) -> bool {
    match NetworkGrant::read(address) {
        Some(NetworkGrant::Address { host, port }) => {
            is_loopback(&host)
                || granted.iter().any(|grant| match grant {
                    NetworkGrant::Peers => false,
                    NetworkGrant::Address { host: granted, port: open } => {
                        granted.eq_ignore_ascii_case(&host) && (open.is_none() || *open == port)
                    }
                })
        }
        Some(NetworkGrant::Peers) => granted.contains(&NetworkGrant::Peers),
        None => false,
    }
}

/// Loopback needs no grant.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || network::literal(host).is_some_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plugin::WantedDirectory, settings::DirectoryGrant};

    fn wants() -> Wants {
        let directory = |guest: &str, writable| WantedDirectory { guest: guest.to_owned(), writable };
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Wants {
            directories: vec![directory("/data", true), directory("/etc/app", false)],
            network: texts(&["peers", "db:5432", "cdn:*", "[fd00::1]:80", "localhost:80", "127.0.0.9:*", "[::1]:80"]),
            programs: texts(&["redis-cli"]),
            environment: texts(&["HOME", "ochopod_x", "ochopod_token"]),
        }
    }

    #[test]
    fn without_grants_every_want_needs_its_flag() {
        let flags = [
            "--dir HOST::/data",
            "--dir HOST::/etc/app:ro",
            "--env HOME",
            "--net peers",
            "--net db:5432",
            "--net cdn:*",
            "--net [fd00::1]:80",
            "--run redis-cli",
        ];
        assert_eq!(wants().missing(&Grants::default()), flags);
        assert_eq!(wants().never_granted().collect::<Vec<_>>(), ["ochopod_token"]);
    }

    #[test]
    fn a_grant_of_less_than_is_wanted_leaves_the_flag_missing() {
        let directory = |guest: &str| DirectoryGrant { host: "/srv".into(), guest: guest.to_owned(), writable: false };
        let address = |host: &str, port| NetworkGrant::Address { host: host.to_owned(), port };
        let grants = Grants {
            directories: vec![directory("/data"), directory("/etc/app/")],
            environment: vec!["HOME".to_owned()],
            network: vec![
                NetworkGrant::Peers,
                address("db", Some(5433)),
                address("cdn", Some(80)),
                address("fd00::1", None),
            ],
            programs: vec!["redis-cli".to_owned()],
            exec: None,
        };
        assert_eq!(wants().missing(&grants), ["--dir HOST::/data", "--net db:5432", "--net cdn:*"]);
    }
}
