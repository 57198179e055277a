//! Routes: which port leads to which pods.

use ochopod_sdk::{Result, bail};

/// Routes, unless the operator sets `ochopod_haproxy_routes`: to the pods of the plugin web.
pub(crate) const DEFAULT: &str = "8000=http://web*:8000?check=/health";
const EXPECTED: &str = "expected PORT=http://CLUSTER:PORT?check=/PATH or PORT=tcp://CLUSTER:PORT?role=NAME, check and \
                        role optional, routes separated by spaces or commas";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Http,
    Tcp,
}

/// A port of the balancer and the pods behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// Port of the container that clients connect to.
    pub(crate) port: u16,
    pub(crate) mode: Mode,
    /// Dependency, as `depends_on` names it.
    pub(crate) cluster: String,
    /// Port of its pods' containers.
    pub(crate) target: u16,
    /// Role of the pods that serve; all if none.
    pub(crate) role: Option<String>,
    /// Path of the health check; connecting is the check if none.
    pub(crate) check: Option<String>,
}

impl Route {
    /// Parses the routes of a setting.
    pub(crate) fn parse_all(text: &str) -> Result<Vec<Self>> {
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        let routes: Vec<Self> = words.map(Self::parse).collect::<Result<_>>()?;
        if routes.is_empty() {
            bail!("ochopod_haproxy_routes is empty: {EXPECTED}");
        }
        for (position, route) in routes.iter().enumerate() {
            if routes.iter().take(position).any(|other| other.port == route.port) {
                bail!("ochopod_haproxy_routes has two routes for port {}", route.port);
            }
        }
        Ok(routes)
    }

    fn parse(text: &str) -> Result<Self> {
        match Self::parsed(text) {
            Some(route) => Ok(route),
            None => bail!("invalid route {text:?} in ochopod_haproxy_routes: {EXPECTED}"),
        }
    }

    fn parsed(text: &str) -> Option<Self> {
        let (port, target) = text.split_once('=')?;
        let (mode, target) = target.split_once("://")?;
        let (target, options) = target.split_once('?').unwrap_or((target, ""));
        let (cluster, target) = target.rsplit_once(':')?;
        let mode = match mode {
            "http" => Mode::Http,
            "tcp" => Mode::Tcp,
            _ => return None,
        };
        let positive = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0);
        let (port, target) = (positive(port)?, positive(target)?);
        let mut route = Self { port, mode, cluster: cluster.to_owned(), target, role: None, check: None };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=')? {
                ("role", role) if is_word(role, "-_.") => route.role = Some(role.to_owned()),
                ("check", path) if mode == Mode::Http && path.starts_with('/') && is_word(path, "/-_.~%") => {
                    route.check = Some(path.to_owned());
                }
                _ => return None,
            }
        }
        (!cluster.is_empty()).then_some(route)
    }

    /// Returns the name of the proxy in the configuration.
    pub(crate) fn name(&self) -> String {
        format!("port-{}", self.port)
    }
}

/// Returns whether the text has only letters, digits and these characters, none of which has a meaning for HAProxy.
fn is_word(text: &str, others: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_name_port_mode_cluster_role_and_check() {
        let routes =
            Route::parse_all("80=http:///shop.web-*:8000?check=/health, 5432=tcp://db:5433?role=primary").unwrap();
        let http = Route {
            port: 80,
            mode: Mode::Http,
            cluster: "/shop.web-*".into(),
            target: 8000,
            role: None,
            check: Some("/health".into()),
        };
        let tcp = Route {
            port: 5432,
            mode: Mode::Tcp,
            cluster: "db".into(),
            target: 5433,
            role: Some("primary".into()),
            check: None,
        };
        assert_eq!(routes, [http, tcp]);
        assert_eq!(Route::parse_all(DEFAULT).unwrap().len(), 1);
    }

    #[test]
    fn invalid_routes_are_named() {
        for bad in [
            "",
            "80",
            "80=web:8000",
            "80=udp://web:8000",
            "0=http://web:8000",
            "http=http://web:8000",
            "80=http://web",
            "80=http://:8000",
            "80=http://web:8000?check=health",
            "80=http://web:8000?check=/a\"b",
            "80=http://web:8000?role=",
            "80=http://web:8000?timeout=5",
            "5432=tcp://db:5432?check=/health",
            "80=http://web:8000 80=http://api:8000",
        ] {
            let error = Route::parse_all(bad).unwrap_err().to_string();
            assert!(error.contains("ochopod_haproxy_routes"), "{bad}: {error}");
        }
    }
}
