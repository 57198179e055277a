//! Interfaces and missing permissions of a plugin, for `check` and for the log at start.

use ochopod_environment::{is_platform_secret, is_secret_variable};

use super::{Plugin, Wants, sandbox::needs_no_grant};
use crate::{Grants, NetworkGrant};

/// Interfaces of a plugin, as `check` prints them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// World that it was built for, with its version.
    pub world: String,
    /// Imported interfaces.
    pub imports: Vec<String>,
    /// Exported interfaces.
    pub exports: Vec<String>,
}

impl Plugin {
    /// Returns the world, imports and exports. [`Plugin::description`] has the rest.
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        let (component, engine) = self.code();
        let kind = component.component_type();
        Inspection {
            world: format!("ochopod:pod/plugin@{}", super::wit_version::SUPPORTED),
            imports: kind.imports(engine).map(|(name, _)| name.to_owned()).collect(),
            exports: kind.exports(engine).map(|(name, _)| name.to_owned()).collect(),
        }
    }
}

impl Wants {
    /// Returns the flags that would grant the wants that are not granted yet, as the operator types them (`HOST` stands
    /// for a directory of the operator's choice). Wants of [`Self::denied_secrets`] are omitted.
    #[must_use]
    pub fn missing_flags(&self, grants: &Grants) -> Vec<String> {
        let directories = self.directories.iter().filter(|wanted| {
            let granted = |writable| !wanted.writable || writable;
            !grants.directories.iter().any(|grant| same_path(&grant.guest, &wanted.guest) && granted(grant.writable))
        });
        let directories = directories
            .map(|wanted| format!("--dir HOST::{}{}", wanted.guest, if wanted.writable { "" } else { ":ro" }));
        let grantable = self.environment.iter().filter(|name| !is_platform_secret(name));
        let environment = grantable.filter(|name| !is_granted(name, &grants.environment));
        let network = self.network.iter().filter(|address| !is_reachable(address, &grants.network));
        let programs = self.programs.iter().filter(|program| !grants.programs.contains(program));
        directories
            .chain(environment.map(|name| format!("--env {name}")))
            .chain(network.map(|address| format!("--net {address}")))
            .chain(programs.map(|program| format!("--run {program}")))
            .collect()
    }

    /// Returns the wants that exceed those of another plugin: flags that are missing for this one and were not for the
    /// other, loopback ports that only this one declares and no flag grants, and host secrets that only this one requests.
    #[must_use]
    pub fn exceeding(&self, other: &Self, grants: &Grants) -> Vec<String> {
        let missing = other.missing_flags(grants);
        let flags = self.missing_flags(grants).into_iter().filter(|flag| !missing.contains(flag));
        let granted = grants.network.iter().filter_map(|grant| match grant {
            NetworkGrant::Loopback { port } => Some(*port),
            NetworkGrant::Peers | NetworkGrant::Address { .. } => None,
        });
        let open: Vec<_> = other.loopback().chain(granted).collect();
        let is_open = |port: &Option<u16>| open.contains(port) || open.contains(&None);
        let ports = self.loopback().filter(|port| !is_open(port)).map(|port| match port {
            Some(port) => format!("loopback:{port}"),
            None => "loopback:*".to_owned(),
        });
        let secrets: Vec<_> = other.denied_secrets().collect();
        let secrets = self.denied_secrets().filter(|name| !secrets.contains(name));
        flags.chain(ports).chain(secrets.map(|name| format!("{name} (a host secret)"))).collect()
    }

    /// Returns the ports of the container that the plugin declares on loopback, which needs no flag; none means all
    /// ports.
    pub fn loopback(&self) -> impl Iterator<Item = Option<u16>> {
        self.network.iter().filter_map(|address| match NetworkGrant::read(address)? {
            NetworkGrant::Loopback { port } => Some(port),
            NetworkGrant::Peers | NetworkGrant::Address { .. } => None,
        })
    }

    /// Returns the wanted variables that are secrets of the host or the platform, which no flag grants.
    pub fn denied_secrets(&self) -> impl Iterator<Item = &str> {
        let names = self.environment.iter().map(String::as_str);
        names.filter(|name| is_secret_variable(name) || is_platform_secret(name))
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
        Some(NetworkGrant::Address { host, port }) => granted.iter().any(|grant| match grant {
            NetworkGrant::Peers | NetworkGrant::Loopback { .. } => false,
            NetworkGrant::Address { host: granted, port: open } => {
                granted.eq_ignore_ascii_case(&host) && (open.is_none() || *open == port)
            }
        }),
        Some(NetworkGrant::Loopback { .. }) => true,
        Some(NetworkGrant::Peers) => granted.contains(&NetworkGrant::Peers),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DirectoryGrant, WantedDirectory};

    fn wants() -> Wants {
        let directory = |guest: &str, writable| WantedDirectory { guest: guest.to_owned(), writable };
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Wants {
            directories: vec![directory("/data", true), directory("/etc/app", false)],
            network: texts(&[
                "peers",
                "db:5432",
                "cdn:*",
                "[fd00::1]:80",
                "127.0.0.9:80",
                "loopback:6379",
                "loopback:*",
            ]),
            programs: texts(&["redis-cli"]),
            environment: texts(&["HOME", "ochopod_x", "ochopod_token"]),
        }
    }

    #[test]
    fn every_request_needs_its_flag_without_grants() {
        let flags = [
            "--dir HOST::/data",
            "--dir HOST::/etc/app:ro",
            "--env HOME",
            "--net peers",
            "--net db:5432",
            "--net cdn:*",
            "--net [fd00::1]:80",
            "--net 127.0.0.9:80",
            "--run redis-cli",
        ];
        assert_eq!(wants().missing_flags(&Grants::default()), flags);
        assert_eq!(wants().loopback().collect::<Vec<_>>(), [Some(6379), None]);
        assert_eq!(wants().denied_secrets().collect::<Vec<_>>(), ["ochopod_token"]);
    }

    #[test]
    fn wants_that_exceed_those_of_another_plugin_are_named() {
        let all = wants();
        assert_eq!(all.exceeding(&all, &Grants::default()), [""; 0]);
        let few = Wants { network: vec!["peers".to_owned(), "loopback:80".to_owned()], ..Wants::default() };
        assert_eq!(few.exceeding(&all, &Grants::default()), [""; 0], "loopback:* includes loopback:80");
        let network = vec![NetworkGrant::Loopback { port: Some(81) }];
        let grants = Grants { programs: vec!["redis-cli".to_owned()], network, ..Grants::default() };
        let port = Wants { network: vec!["loopback:81".to_owned()], ..Wants::default() };
        assert_eq!(port.exceeding(&few, &grants), [""; 0], "it is granted by flag");
        let expected = [
            "--dir HOST::/data",
            "--dir HOST::/etc/app:ro",
            "--env HOME",
            "--net db:5432",
            "--net cdn:*",
            "--net [fd00::1]:80",
            "--net 127.0.0.9:80",
            "loopback:6379",
            "loopback:*",
            "ochopod_token (a host secret)",
        ];
        assert_eq!(all.exceeding(&few, &grants), expected);
    }

    #[test]
    fn insufficient_grant_leaves_the_flag_missing() {
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
                address("127.0.0.9", Some(80)),
            ],
            programs: vec!["redis-cli".to_owned()],
            exec: None,
        };
        assert_eq!(wants().missing_flags(&grants), ["--dir HOST::/data", "--net db:5432", "--net cdn:*"]);
    }
}
