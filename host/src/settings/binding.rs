//! The platform that the pod runs on, and what it says about the pod.

use std::net::IpAddr;

use super::{Env, Machine};

/// What a platform knows about a pod. The operator's settings win over each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Binding {
    /// Its name, as registered.
    pub(super) name: &'static str,
    /// Address for the other pods.
    pub(super) ip: String,
    /// Address reachable from outside, where it is known.
    pub(super) public: String,
    /// The machine below.
    pub(super) node: String,
    /// The application that controls the pod.
    pub(super) application: String,
    /// The pod itself.
    pub(super) task: String,
}

impl Binding {
    /// Finds out: local mode first, then by the variables that Marathon and Kubernetes set, else the bare machine.
    pub(super) fn find(local: bool, env: &Env, machine: &Machine) -> Self {
        let of = |name: &str| env.text(name).map(str::to_owned);
        let ip = machine.address.to_string();
        let node = machine.hostname.clone();
        let application = of("MARATHON_APP_ID").map(|id| id.trim_start_matches('/').to_owned()).unwrap_or_default();
        let task = of("MESOS_TASK_ID").unwrap_or_default();
        if local {
            let here = "127.0.0.1".to_owned();
            return Self { name: "local", ip: here.clone(), public: here, node: "local".to_owned(), application, task };
        }
        if !application.is_empty() {
            let agent = machine.host.map(|host| host.to_string()).or_else(|| agent_address(env)).or_else(|| of("HOST"));
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

/// The agent's address as its framework library was told, unless that is "any".
fn agent_address(env: &Env) -> Option<String> {
    let ip: IpAddr = env.text("LIBPROCESS_IP")?.parse().ok()?;
    (!ip.is_unspecified()).then(|| ip.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let address = IpAddr::from([10, 0, 0, 9]);
        Machine { hostname: "box".into(), address, host: None, init: false, user: 0, group: 0 }
    }

    fn find(variables: &[(&str, &str)], machine: &Machine) -> Binding {
        Binding::find(false, &variables.iter().copied().collect(), machine)
    }

    #[test]
    fn local_mode_needs_no_platform() {
        let binding = Binding::find(true, &Env::from_iter([("KUBERNETES_SERVICE_HOST", "10.0.0.1")]), &machine());
        let expected = ("local", "127.0.0.1", "127.0.0.1", "local");
        assert_eq!((binding.name, &*binding.ip, &*binding.public, &*binding.node), expected);
    }

    #[test]
    fn marathon_gives_the_agents_address_under_which_its_ports_are_mapped() {
        let base = [("MARATHON_APP_ID", "/shop/web"), ("MESOS_TASK_ID", "web.1"), ("HOST", "agent-7")];
        let resolved = Machine { host: Some(IpAddr::from([10, 1, 1, 7])), ..machine() };
        let binding = find(&base, &resolved);
        assert_eq!((binding.name, &*binding.ip, &*binding.node), ("marathon", "10.1.1.7", "agent-7"));
        assert_eq!((&*binding.application, &*binding.task), ("shop/web", "web.1"));

        assert_eq!(find(&base, &machine()).ip, "agent-7", "the name itself, where it does not resolve");
        let told = [base.as_slice(), &[("LIBPROCESS_IP", "10.1.1.8")]].concat();
        assert_eq!(find(&told, &machine()).ip, "10.1.1.8");
        let any = [base.as_slice(), &[("LIBPROCESS_IP", "0.0.0.0")]].concat();
        assert_eq!(find(&any, &machine()).ip, "agent-7");
    }

    #[test]
    fn kubernetes_is_asked_through_its_downward_variables() {
        let bare = [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("HOSTNAME", "web-0")];
        let binding = find(&bare, &machine());
        let found = (binding.name, &*binding.ip, &*binding.node, &*binding.task);
        assert_eq!(found, ("kubernetes", "10.0.0.9", "box", "web-0"));
        let told = [bare.as_slice(), &[("POD_IP", "10.2.0.1"), ("NODE_NAME", "node-3"), ("HOST_IP", "192.168.0.3")]];
        let binding = find(&told.concat(), &machine());
        assert_eq!((&*binding.ip, &*binding.public, &*binding.node), ("10.2.0.1", "192.168.0.3", "node-3"));
    }

    #[test]
    fn elsewhere_the_machine_speaks_for_itself() {
        let binding = find(&[("HOST", "ignored")], &machine());
        let found = (binding.name, &*binding.ip, &*binding.public, &*binding.node, &*binding.task);
        assert_eq!(found, ("generic", "10.0.0.9", "", "box", ""));
    }
}
