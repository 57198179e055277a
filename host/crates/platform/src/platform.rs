//! The platform that a pod runs on, and the values it provides.

use std::net::IpAddr;

use ochopod_environment::Env;

use crate::SystemInfo;

/// Values of a pod as its platform knows them. Settings of the operator take precedence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Platform {
    /// Name of the platform, registered as `binding`.
    pub name: &'static str,
    /// Address that other pods connect to.
    pub ip: String,
    /// Address reachable from outside; empty if unknown.
    pub public: String,
    /// Underlying machine.
    pub node: String,
    /// Application ID; empty if there is none.
    pub application: String,
    /// Task ID of the pod; empty if there is none.
    pub task: String,
}

impl Platform {
    /// Returns whether the platform starts a container again that exits, with a new pod in it.
    #[must_use]
    pub fn restarts_containers(&self) -> bool {
        self.name == "kubernetes"
    }

    /// Detects the platform: local mode first, then by the variables that Marathon and Kubernetes set, else the bare machine.
    #[must_use]
    pub fn detect(local: bool, env: &Env, system: &SystemInfo) -> Self {
        let of = |name: &str| env.text(name).map(str::to_owned);
        let ip = system.address.to_string();
        let node = system.hostname.clone();
        let application = of("MARATHON_APP_ID").map(|id| id.trim_start_matches('/').to_owned()).unwrap_or_default();
        let task = of("MESOS_TASK_ID").unwrap_or_default();
        if local {
            let here = "127.0.0.1".to_owned();
            return Self { name: "local", ip: here.clone(), public: here, node: "local".to_owned(), application, task };
        }
        if !application.is_empty() {
            let agent = system.host.map(|host| host.to_string()).or_else(|| agent_address(env)).or_else(|| of("HOST"));
            let (ip, node) = (agent.unwrap_or(ip), of("HOST").unwrap_or(node));
            return Self { name: "marathon", ip, public: String::new(), node, application, task };
        }
        if env.text("KUBERNETES_SERVICE_HOST").is_some() {
            let task = of("POD_NAME").or_else(|| of("HOSTNAME")).unwrap_or_else(|| node.clone());
            let (ip, public) = (of("POD_IP").unwrap_or(ip), of("HOST_IP").unwrap_or_default());
            return Self { name: "kubernetes", ip, public, node: of("NODE_NAME").unwrap_or(node), application, task };
        }
        Self { name: "generic", ip, public: String::new(), node, application, task }
    }
}

/// Returns the address of the Mesos agent from `LIBPROCESS_IP`, unless that is unspecified.
fn agent_address(env: &Env) -> Option<String> {
    let ip: IpAddr = env.text("LIBPROCESS_IP")?.parse().ok()?;
    (!ip.is_unspecified()).then(|| ip.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system() -> SystemInfo {
        let address = IpAddr::from([10, 0, 0, 9]);
        SystemInfo { hostname: "box".into(), address, host: None, init: false, user: 0, group: 0, memory: None }
    }

    fn detect(variables: &[(&str, &str)], system: &SystemInfo) -> Platform {
        Platform::detect(false, &variables.iter().copied().collect(), system)
    }

    #[test]
    fn local_mode_ignores_the_platform() {
        let platform = Platform::detect(true, &Env::from_iter([("KUBERNETES_SERVICE_HOST", "10.0.0.1")]), &system());
        let expected = ("local", "127.0.0.1", "127.0.0.1", "local");
        assert_eq!((platform.name, &*platform.ip, &*platform.public, &*platform.node), expected);
    }

    #[test]
    fn marathon_provides_the_agent_address_that_maps_its_ports() {
        let base = [("MARATHON_APP_ID", "/shop/web"), ("MESOS_TASK_ID", "web.1"), ("HOST", "agent-7")];
        let resolved = SystemInfo { host: Some(IpAddr::from([10, 1, 1, 7])), ..system() };
        let platform = detect(&base, &resolved);
        assert_eq!((platform.name, &*platform.ip, &*platform.node), ("marathon", "10.1.1.7", "agent-7"));
        assert!(!platform.restarts_containers());
        assert_eq!((&*platform.application, &*platform.task), ("shop/web", "web.1"));

        assert_eq!(detect(&base, &system()).ip, "agent-7", "the name itself if it does not resolve");
        let with_address = [base.as_slice(), &[("LIBPROCESS_IP", "10.1.1.8")]].concat();
        assert_eq!(detect(&with_address, &system()).ip, "10.1.1.8");
        let any = [base.as_slice(), &[("LIBPROCESS_IP", "0.0.0.0")]].concat();
        assert_eq!(detect(&any, &system()).ip, "agent-7");
    }

    #[test]
    fn kubernetes_values_are_read_from_downward_api_variables() {
        let bare = [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("HOSTNAME", "web-0")];
        let platform = detect(&bare, &system());
        let found = (platform.name, &*platform.ip, &*platform.node, &*platform.task);
        assert_eq!(found, ("kubernetes", "10.0.0.9", "box", "web-0"));
        assert!(platform.restarts_containers());
        let downward =
            [bare.as_slice(), &[("POD_IP", "10.2.0.1"), ("NODE_NAME", "node-3"), ("HOST_IP", "192.168.0.3")]];
        let platform = detect(&downward.concat(), &system());
        assert_eq!((&*platform.ip, &*platform.public, &*platform.node), ("10.2.0.1", "192.168.0.3", "node-3"));
    }

    #[test]
    fn unknown_platform_falls_back_to_system_values() {
        let platform = detect(&[("HOST", "ignored")], &system());
        let found = (platform.name, &*platform.ip, &*platform.public, &*platform.node, &*platform.task);
        assert_eq!(found, ("generic", "10.0.0.9", "", "box", ""));
    }
}
