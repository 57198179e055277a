//! Golden environments: what each platform's variables and look-ups yield.

use std::{net::IpAddr, time::Duration};

use ochopod_environment::Env;

use crate::{
    Binding, EcsContainer, Inputs, Instance, KubernetesPod, LookUpResults, NetworkMode, Platform, SystemInfo, Values,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn system() -> SystemInfo {
    SystemInfo {
        hostname: "box".into(),
        address: ip("10.0.0.9"),
        host: None,
        interfaces: [("eth0".to_owned(), ip("10.0.0.9")), ("lo".to_owned(), ip("127.0.0.1"))].into_iter().collect(),
        container: false,
        init: false,
        user: 0,
        group: 0,
        memory: None,
    }
}

struct Case {
    system: SystemInfo,
    found: LookUpResults,
    prefix: &'static str,
    port: u16,
}

impl Default for Case {
    fn default() -> Self {
        Self { system: system(), found: LookUpResults::default(), prefix: "", port: 8080 }
    }
}

impl Case {
    fn with(found: LookUpResults) -> Self {
        Self { found, ..Self::default() }
    }

    fn derive(&self, binding: Binding, variables: &[(&str, &str)]) -> Platform {
        let env: Env = variables.iter().copied().collect();
        let Self { system, found, prefix, port } = self;
        Platform::derive(binding, Inputs { env: &env, system, found, prefix, port: *port })
    }

    /// Returns `name=text (source)` of each known value.
    fn display(&self, binding: Binding, variables: &[(&str, &str)]) -> Vec<String> {
        let Values { ip, public, node, application, task, ports: _ } = self.derive(binding, variables).values;
        let named = [("application", application), ("ip", ip), ("node", node), ("public", public), ("task", task)];
        let known = named.into_iter().filter(|(_, value)| !value.is_empty());
        known.map(|(name, value)| format!("{name}={} ({})", value.text, value.source)).collect()
    }
}

fn instance() -> Instance {
    Instance { id: "i-0abc1234".to_owned(), local: Some(ip("10.9.0.1")), public: Some(ip("54.0.0.1")) }
}

const MARATHON: [(&str, &str); 3] =
    [("MARATHON_APP_ID", "/shop/web"), ("MESOS_TASK_ID", "shop_web.1"), ("HOST", "agent-7")];

#[test]
fn local_mode_ignores_the_platform() {
    let shown =
        Case::default().display(Binding::Local, &[("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("POD_IP", "10.2.0.1")]);
    let expected = ["ip=127.0.0.1 (local mode)", "node=local (local mode)", "public=127.0.0.1 (local mode)"];
    assert_eq!(shown, expected);
    let marathon = Case::default().derive(Binding::Local, &MARATHON);
    assert_eq!((&*marathon.values.application.text, &*marathon.marathon_app), ("shop/web", "shop/web"));
}

#[test]
fn marathon_registers_the_agent_in_bridge_and_host_networks() {
    let mut case = Case::default();
    case.system.host = Some(ip("10.1.1.7"));
    let expected = [
        "application=shop/web (MARATHON_APP_ID)",
        "ip=10.1.1.7 (HOST, resolved)",
        "node=agent-7 (HOST)",
        "task=shop_web.1 (MESOS_TASK_ID)",
    ];
    assert_eq!(case.display(Binding::Marathon, &MARATHON), expected);
    let bridge = [&MARATHON[..], &[("MESOS_CONTAINER_IP", "10.0.0.9"), ("PORT_8080", "31000")]].concat();
    assert_eq!(case.display(Binding::Marathon, &bridge), expected, "mapped ports are those of the agent");
    let foreign = [&MARATHON[..], &[("MESOS_CONTAINER_IP", "10.7.7.7"), ("PORT_8080", "8080")]].concat();
    assert_eq!(case.display(Binding::Marathon, &foreign), expected, "not an address of this container");
}

#[test]
fn marathon_registers_the_container_in_container_networks() {
    let variables = [
        &MARATHON[..],
        &[("MESOS_CONTAINER_IP", "10.0.0.9"), ("LIBPROCESS_IP", "10.1.1.7"), ("PORT_8080", "8080"), ("PORT_WEB", "1")],
    ];
    let platform = Case::default().derive(Binding::Marathon, &variables.concat());
    let values = platform.values;
    assert_eq!((&*values.ip.text, &*values.ip.source), ("10.0.0.9", "MESOS_CONTAINER_IP"));
    assert_eq!(&*values.node.text, "agent-7");
}

#[test]
fn marathon_falls_back_from_resolved_name_to_agent_address_to_name() {
    let case = Case::default();
    let address = |extra: &[(&str, &str)]| {
        let ip = case.derive(Binding::Marathon, &[&MARATHON, extra].concat()).values.ip;
        format!("{} ({})", ip.text, ip.source)
    };
    assert_eq!(address(&[("LIBPROCESS_IP", "10.1.1.8")]), "10.1.1.8 (LIBPROCESS_IP)");
    assert_eq!(address(&[("LIBPROCESS_IP", "0.0.0.0")]), "agent-7 (HOST)");
    assert_eq!(address(&[]), "agent-7 (HOST)");
    let unnamed = case.derive(Binding::Marathon, &MARATHON[..2]).values;
    assert_eq!((&*unnamed.ip.source, &*unnamed.node.text), ("address of this host", "box"));
}

#[test]
fn marathon_prefix_precedes_host_and_ports() {
    let mut case = Case { prefix: "MARATHON_VAR_", ..Case::default() };
    case.system.host = Some(ip("10.1.1.7"));
    let variables = [
        ("MARATHON_APP_ID", "/web"),
        ("MARATHON_VAR_HOST", "agent-7"),
        ("HOST", "no-agent"),
        ("MARATHON_VAR_PORT_8080", "31000"),
        ("PORT_8080", "8080"),
        ("MESOS_CONTAINER_IP", "10.0.0.9"),
    ];
    let values = case.derive(Binding::Marathon, &variables).values;
    assert_eq!((&*values.node.text, &*values.node.source), ("agent-7", "MARATHON_VAR_HOST"));
    assert_eq!(&*values.ip.source, "MARATHON_VAR_HOST, resolved");
}

#[test]
fn marathon_ec2_registers_the_instance() {
    let case = Case::with(LookUpResults { instance: Some(instance()), ..LookUpResults::default() });
    let expected = [
        "application=shop/web (MARATHON_APP_ID)",
        "ip=10.9.0.1 (instance metadata)",
        "node=i-0abc1234 (instance metadata)",
        "public=54.0.0.1 (instance metadata)",
        "task=shop_web.1 (MESOS_TASK_ID)",
    ];
    assert_eq!(case.display(Binding::MarathonEc2, &MARATHON), expected);
    let without = Case::default().display(Binding::MarathonEc2, &MARATHON);
    assert_eq!(without[1..3], ["ip=agent-7 (HOST)", "node=agent-7 (HOST)"], "the service did not answer");
}

#[test]
fn ec2_adds_a_public_address_and_names_unnamed_machines() {
    let found = LookUpResults { instance: Some(instance()), ..LookUpResults::default() };
    let added = ["node=i-0abc1234 (instance metadata)", "public=54.0.0.1 (instance metadata)"];
    let generic = Case::with(found.clone()).display(Binding::Generic, &[]);
    assert_eq!(generic, ["ip=10.0.0.9 (address of this host)", added[0], added[1]]);
    let marathon = Case::with(found).display(Binding::Marathon, &MARATHON);
    assert_eq!(marathon[2..4], ["node=agent-7 (HOST)", added[1]]);
    let private = LookUpResults { instance: Some(Instance { public: None, ..instance() }), ..LookUpResults::default() };
    assert_eq!(Case::with(private).display(Binding::Docker, &[])[1..], added[..1]);
}

#[test]
fn kubernetes_variables_precede_the_api() {
    let bare = [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("HOSTNAME", "web-0")];
    let expected = ["ip=10.0.0.9 (address of this host)", "node=box (host name)", "task=web-0 (HOSTNAME)"];
    assert_eq!(Case::default().display(Binding::Kubernetes, &bare), expected);
    let pod = KubernetesPod {
        name: "web-7d4b9c-x2x".to_owned(),
        node: Some("node-3".to_owned()),
        ip: Some(ip("10.2.0.7")),
        grace: Some(Duration::from_secs(90)),
    };
    let found = LookUpResults {
        pod: Some(pod),
        owner: Some("deployment/web".to_owned()),
        node_address: Some(ip("54.0.0.3")),
        ..LookUpResults::default()
    };
    let case = Case::with(found);
    let expected = [
        "application=deployment/web (Kubernetes API)",
        "ip=10.2.0.7 (Kubernetes API)",
        "node=node-3 (Kubernetes API)",
        "public=54.0.0.3 (Kubernetes API)",
        "task=web-7d4b9c-x2x (Kubernetes API)",
    ];
    assert_eq!(case.display(Binding::Kubernetes, &bare), expected);
    let downward =
        [("POD_NAME", "web-0"), ("POD_IPS", "fd00::7,10.2.0.1"), ("NODE_NAME", "node-4"), ("HOST_IP", "192.168.0.3")];
    let downward = [&bare[..], &downward].concat();
    let expected =
        ["ip=fd00::7 (POD_IPS)", "node=node-4 (NODE_NAME)", "public=192.168.0.3 (HOST_IP)", "task=web-0 (POD_NAME)"];
    assert_eq!(Case::default().display(Binding::Kubernetes, &downward), expected);
    assert_eq!(case.display(Binding::Kubernetes, &downward)[3], "public=54.0.0.3 (Kubernetes API)");
    let delay = case.derive(Binding::Kubernetes, &bare).kill_delay.unwrap();
    assert_eq!((delay.delay.as_secs(), delay.is_default), (90, false));
}

#[test]
fn nomad_registers_the_address_and_ports_on_the_machine() {
    let variables = [
        ("NOMAD_ALLOC_ID", "4f1b"),
        ("NOMAD_JOB_ID", "shop/dispatch-1"),
        ("NOMAD_JOB_PARENT_ID", "shop"),
        ("NOMAD_PORT_control", "8080"),
        ("NOMAD_HOST_PORT_control", "25001"),
        ("NOMAD_IP_control", "10.3.0.2"),
        ("NOMAD_PORT_admin", "9000"),
        ("NOMAD_HOST_PORT_admin", "25002"),
        ("NOMAD_IP_admin", "10.4.0.2"),
        ("NOMAD_PORT_bad", "tcp"),
    ];
    let case = Case::default();
    let expected = [
        "application=shop (NOMAD_JOB_PARENT_ID)",
        "ip=10.3.0.2 (NOMAD_IP_control)",
        "node=box (host name)",
        "task=4f1b (NOMAD_ALLOC_ID)",
    ];
    assert_eq!(case.display(Binding::Nomad, &variables), expected);
    assert_eq!(case.derive(Binding::Nomad, &variables).values.ports, [(8080, 25001), (9000, 25002)].into());
    let other = Case { port: 7000, ..Case::default() }.display(Binding::Nomad, &variables);
    assert_eq!(other[1], "ip=10.4.0.2 (NOMAD_IP_admin)", "a port without a label");
    let bare = case.display(Binding::Nomad, &[("NOMAD_ALLOC_ID", "4f1b"), ("NOMAD_JOB_NAME", "shop")]);
    assert_eq!(bare[..2], ["application=shop (NOMAD_JOB_NAME)", "ip=10.0.0.9 (address of this host)"]);
}

#[test]
fn ecs_registers_task_address_or_that_of_the_machine() {
    let container = |mode| EcsContainer {
        mode,
        ip: Some(ip("10.0.2.61")),
        ports: [(8080, 32768)].into(),
        application: Some("shop".to_owned()),
        task: Some("0f1e".to_owned()),
    };
    let case = |mode, instance| {
        Case::with(LookUpResults { container: Some(container(mode)), instance, ..LookUpResults::default() })
    };
    let own = case(NetworkMode::Awsvpc, None);
    let expected = [
        "application=shop (task metadata)",
        "ip=10.0.2.61 (task metadata)",
        "node=box (host name)",
        "task=0f1e (task metadata)",
    ];
    assert_eq!(own.display(Binding::Ecs, &[]), expected);
    assert!(own.derive(Binding::Ecs, &[]).values.ports.is_empty(), "the task has its own ports");
    let bridge = case(NetworkMode::Bridge, Some(instance()));
    assert_eq!(bridge.display(Binding::Ecs, &[])[1], "ip=10.9.0.1 (instance metadata)");
    assert_eq!(bridge.derive(Binding::Ecs, &[]).values.ports, [(8080, 32768)].into());
    assert_eq!(case(NetworkMode::Host, None).display(Binding::Ecs, &[])[1], "ip=10.0.0.9 (address of this host)");
    assert_eq!(Case::default().display(Binding::Ecs, &[])[0], "ip=10.0.0.9 (address of this host)", "no answer");
}

#[test]
fn plain_machines_and_containers_register_their_own_address() {
    for binding in [Binding::Docker, Binding::Generic] {
        let shown = Case::default().display(binding, &[("HOST", "ignored"), ("HOSTNAME", "ignored")]);
        assert_eq!(shown, ["ip=10.0.0.9 (address of this host)", "node=box (host name)"]);
    }
}
