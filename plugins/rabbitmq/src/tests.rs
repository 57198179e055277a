use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpListener,
    rc::Rc,
    thread,
};

use ochopod_sdk::{
    Model, Pod, exec,
    testing::{cluster, mock_exec, pod},
};

use super::*;

/// A directory that stands for the granted one.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn files(&self) -> impl Fn(&Node) -> Files + '_ {
        |node| Files::of(node, self.0.path())
    }

    fn of(&self, pod: &Pod) -> Files {
        Files::of(&node(pod), self.0.path())
    }

    /// Adds the data of a pod, which belong to a cluster of these members.
    fn with_data_of(self, pod: &Pod, members: &[&Pod]) -> Self {
        self.with_data_in(pod, members, Some("rabbitmq-cluster-id-1"))
    }

    fn with_data_in(self, pod: &Pod, members: &[&Pod], cluster: Option<&str>) -> Self {
        let data = self.0.path().join(&node(pod).name);
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("schema.DAT"), "").unwrap();
        let membership = Membership { nodes: names(members), cluster: cluster.map(str::to_owned) };
        self.of(pod).set_membership(&membership).unwrap();
        assert_eq!(self.of(pod).membership(), membership);
        self
    }

    fn command(&self, pods: &[&Pod], seq: u64) -> Result<Command> {
        decision::command(&view(pods, seq), self.files())
    }

    fn check(&self, pods: &[&Pod], seq: u64) -> Result<()> {
        decision::check(&view(pods, seq), self.files())
    }

    fn configuration(&self, pod: &Pod) -> String {
        fs::read_to_string(self.0.path().join(format!("{}.conf", node(pod).name))).unwrap()
    }
}

fn view(pods: &[&Pod], seq: u64) -> Cluster<'static> {
    cluster(pods.iter().copied().cloned()).view_of(seq)
}

fn node(pod: &Pod) -> Node {
    Node::of(pod).unwrap()
}

fn names(pods: &[&Pod]) -> BTreeSet<String> {
    pods.iter().map(|pod| node(pod).name).collect()
}

fn settings() -> BTreeMap<String, String> {
    [("rabbitmq_dir".to_owned(), "/srv/mq/".to_owned())].into()
}

/// Returns a pod at 127.0.0.1 whose ports nothing listens at.
fn stopped(seq: u64) -> Pod {
    let closed = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ports = [(5672, closed()), (25672, closed())].into();
    Pod { ip: "127.0.0.1".to_owned(), ports, settings: settings(), ..pod(seq) }
}

/// Returns a pod whose node answers clients with these bytes, and listens for other nodes.
fn answering(seq: u64, reply: &'static [u8]) -> Pod {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut header) = (stream.unwrap(), [0; 8]);
            if stream.read_exact(&mut header).is_ok() && header.starts_with(b"AMQP") {
                let _ = stream.write_all(reply);
            }
        }
    });
    Pod { ports: [(5672, port), (25672, port)].into(), ..stopped(seq) }
}

fn running(seq: u64) -> Pod {
    answering(seq, &[1, 0, 0, 0, 0])
}

/// Mocks rabbitmqctl: the cluster has these nodes, of which these run. Returns the requested changes.
fn mock_cluster(nodes: &[&Pod], running: &[&Pod]) -> Rc<RefCell<Vec<String>>> {
    mock_cluster_with_id("rabbitmq-cluster-id-1", nodes, running)
}

fn mock_cluster_with_id(id: &'static str, nodes: &[&Pod], running: &[&Pod]) -> Rc<RefCell<Vec<String>>> {
    let changes = Rc::new(RefCell::new(Vec::new()));
    let (recorded, nodes, running) = (Rc::clone(&changes), names(nodes), names(running));
    mock_exec(move |argv, _| {
        assert_eq!((argv[0].as_str(), argv[3].as_str()), ("rabbitmqctl", "--longnames"));
        let status = json!({"disk_nodes": nodes, "running_nodes": running, "partitions": {}, "alarms": []});
        let stdout = match argv[5].as_str() {
            "cluster_status" => status.to_string(),
            // As RabbitMQ 3.10 prints it.
            "list_global_parameters" => json!([
                {"name": "cluster_name", "value": "\"mq\""},
                {"name": "internal_cluster_id", "value": format!("\"{id}\"")},
            ])
            .to_string(),
            _ => {
                recorded.borrow_mut().push(argv[5..].join(" "));
                String::new()
            }
        };
        Ok(exec::Output { stdout: stdout.into_bytes(), ..exec::Output::default() })
    });
    changes
}

#[test]
fn the_oldest_pod_forms_the_cluster_once_there_are_enough() {
    let (scratch, pods) = (Scratch::new(), [stopped(0), stopped(1), stopped(2)]);
    let two = scratch.command(&[&pods[0], &pods[1]], 0).unwrap_err().to_string();
    assert_eq!(two, "2 of 3 pods to form a cluster (ochopod_rabbitmq_size)");
    let all = [&pods[0], &pods[1], &pods[2]];
    let later = scratch.command(&all, 1).unwrap_err().to_string();
    assert_eq!(later, format!("no node runs: pod seq 0 at {} forms the cluster", node(&pods[0]).client));
    assert!(RabbitMq::default().configure(&view(&all, 1)).unwrap_err().is_not_yet());

    let command = scratch.command(&all, 0).unwrap();
    assert_eq!(command.program, "rabbitmq-server");
    assert_eq!(command.environment["RABBITMQ_NODENAME"], node(&pods[0]).name);
    assert_eq!(command.environment["RABBITMQ_MNESIA_DIR"], format!("/srv/mq/{}", node(&pods[0]).name));
    assert!(!scratch.configuration(&pods[0]).contains("cluster_formation"));
}

#[test]
fn a_pod_without_data_joins_the_nodes_that_run() {
    let (scratch, first, down, new) = (Scratch::new(), running(0), stopped(1), stopped(2));
    let changes = mock_cluster(&[&first, &down], &[&first]);
    scratch.command(&[&first, &down, &new], 2).unwrap();
    let text = scratch.configuration(&new);
    assert!(text.ends_with(&format!("cluster_formation.classic_config.nodes.1 = {}\n", node(&first).name)), "{text}");
    assert!(changes.borrow().is_empty());
}

#[test]
fn a_node_that_crashed_rejoins_with_its_data() {
    let (first, own) = (running(0), stopped(1));
    let scratch = Scratch::new().with_data_of(&own, &[&first, &own]);
    let changes = mock_cluster(&[&first, &own], &[&first]);
    scratch.command(&[&first, &own], 1).unwrap();
    assert!(scratch.of(&own).has_data() && changes.borrow().is_empty());
    // The whole cluster was down: nothing can be queried.
    let first = stopped(0);
    mock_exec(|_, _| panic!("no node runs"));
    scratch.command(&[&first, &own], 1).unwrap();
    assert!(scratch.of(&own).has_data());
}

#[test]
fn a_node_that_lost_its_data_is_replaced() {
    let (scratch, first, own) = (Scratch::new(), running(0), stopped(1));
    let changes = mock_cluster(&[&first, &own], &[&first]);
    scratch.command(&[&first, &own], 1).unwrap();
    assert_eq!(*changes.borrow(), [format!("forget_cluster_node {}", node(&own).name)]);
}

#[test]
fn a_node_that_was_removed_puts_its_data_aside_and_joins_again() {
    let (first, own) = (running(0), stopped(1));
    let scratch = Scratch::new().with_data_of(&own, &[&first, &own]);
    mock_cluster(&[&first], &[&first]);
    scratch.command(&[&first, &own], 1).unwrap();
    assert!(!scratch.of(&own).has_data() && scratch.of(&own).membership() == Membership::default());
    assert!(scratch.0.path().join(format!("{}.removed", node(&own).name)).is_dir());
}

#[test]
fn data_of_another_cluster_is_kept() {
    let (first, own, other) = (running(0), stopped(1), stopped(7));
    let scratch = Scratch::new().with_data_in(&own, &[&own, &other], None);
    mock_cluster(&[&first], &[&first]);
    let text = scratch.command(&[&first, &own], 1).unwrap_err().to_string();
    assert!(text.starts_with("data of this pod belongs to another cluster than rabbitmq-127-0-0-1-"), "{text}");
    assert!(scratch.of(&own).has_data());
}

#[test]
fn data_is_kept_if_a_pod_that_lost_its_own_has_formed_a_new_cluster() {
    let (lost, own, third) = (running(3), stopped(4), stopped(5));
    let scratch = Scratch::new().with_data_of(&own, &[&lost, &own, &third]);
    let pods = [&lost, &own, &third];
    // The node is unknown to the new cluster, or has joined it before its data returned.
    for nodes in [&pods[..1], &pods[..2]] {
        let changes = mock_cluster_with_id("rabbitmq-cluster-id-2", nodes, &[&lost]);
        let text = scratch.command(&pods, 4).unwrap_err().to_string();
        assert!(text.starts_with("data of this pod belongs to another cluster than rabbitmq-127-0-0-1-"), "{text}");
        assert!(scratch.of(&own).has_data() && changes.borrow().is_empty());
    }
    assert!(RabbitMq::default().configure(&view(&pods, 4)).unwrap_err().is_not_yet());
}

#[test]
fn data_whose_cluster_is_not_recorded_is_not_put_aside() {
    let (first, own) = (running(0), stopped(1));
    let scratch = Scratch::new().with_data_in(&own, &[&first, &own], None);
    mock_cluster(&[&first], &[&first]);
    let text = scratch.command(&[&first, &own], 1).unwrap_err().to_string();
    assert!(text.starts_with("data of this pod kept, because its cluster is not recorded and rabbitmq-127"), "{text}");
    assert!(text.contains(&format!("move /srv/mq/{} away", node(&own).name)), "{text}");
    assert!(scratch.of(&own).has_data());
    // It is a node of the cluster.
    mock_cluster(&[&first, &own], &[&first]);
    scratch.command(&[&first, &own], 1).unwrap();
    assert!(scratch.of(&own).has_data());
}

#[test]
fn a_node_that_starts_without_data_has_no_recorded_cluster() {
    let (first, own) = (running(0), stopped(1));
    let scratch = Scratch::new().with_data_of(&own, &[&first, &own]);
    fs::remove_dir_all(scratch.0.path().join(&node(&own).name)).unwrap();
    mock_cluster(&[&first, &own], &[&first]);
    scratch.command(&[&first, &own], 1).unwrap();
    assert_eq!(scratch.of(&own).membership(), Membership::default());
}

#[test]
fn the_identity_of_the_cluster_is_recorded_after_each_start_and_with_each_change_of_its_nodes() {
    let (scratch, own, other) = (Scratch::new(), running(0), stopped(1));
    let (me, files) = (node(&own), scratch.of(&own));
    let recorded =
        |nodes: &[&Pod], id: Option<&str>| Membership { nodes: names(nodes), cluster: id.map(str::to_owned) };
    // An earlier version of the plugin wrote the file.
    files.set_membership(&recorded(&[&own], None)).unwrap();
    let mut plugin = RabbitMq::default();
    mock_exec(|_, _| Err(exec::Error::Timeout));
    plugin.record(&me, &files, &names(&[&own, &other])).unwrap();
    assert_eq!(files.membership(), recorded(&[&own, &other], None));
    mock_cluster_with_id("id-1", &[], &[]);
    plugin.record(&me, &files, &names(&[&own, &other])).unwrap();
    assert_eq!(files.membership(), recorded(&[&own, &other], Some("id-1")));
    mock_exec(|_, _| panic!("nothing has changed"));
    plugin.record(&me, &files, &names(&[&own, &other])).unwrap();
    mock_cluster_with_id("id-2", &[], &[]);
    plugin.record(&me, &files, &names(&[&own])).unwrap();
    assert_eq!(files.membership(), recorded(&[&own], Some("id-2")));
    mock_exec(|_, _| Ok(exec::Output { stdout: b"[]".to_vec(), ..exec::Output::default() }));
    let text = ctl::identity(&me.name).unwrap_err().to_string();
    assert_eq!(text, "rabbitmqctl list_global_parameters returned no internal_cluster_id");
}

#[test]
fn while_no_node_runs_only_known_peers_are_accepted() {
    let (first, second, stranger) = (stopped(0), stopped(1), stopped(8));
    let scratch = Scratch::new().with_data_of(&first, &[&first, &second]);
    scratch.check(&[&first, &second], 0).unwrap();
    let text = scratch.check(&[&first, &second, &stranger], 0).unwrap_err().to_string();
    let expected = format!("cordon seq 8 at {} until the 2 nodes run", node(&stranger).client);
    assert!(text.ends_with(&expected), "{text}");
    scratch.check(&[&first, &running(1), &stranger], 0).unwrap();
    fs::remove_dir_all(scratch.0.path()).unwrap();
    let text = scratch.check(&[&first], 0).unwrap_err().to_string();
    assert_eq!(text, "directory not granted: requires --dir /srv/mq::/data");
}

#[test]
fn a_node_is_ready_when_it_serves_or_waits_for_nodes_that_start_later() {
    let (scratch, own, later) = (Scratch::new(), running(0), stopped(1));
    let ready = |scratch: &Scratch, pods: &[&Pod]| decision::check_ready(&view(pods, 0), scratch.files());
    ready(&scratch, &[&own, &later]).unwrap();
    let booting = answering(0, &[]);
    let text = ready(&scratch, &[&booting, &later]).unwrap_err().to_string();
    assert_eq!(text, format!("RabbitMQ does not serve clients at {}", node(&booting).own_client));
    let scratch = scratch.with_data_of(&booting, &[&booting, &later]);
    ready(&scratch, &[&booting, &later]).unwrap();
    let started = Pod { started: true, ..later.clone() };
    assert!(ready(&scratch, &[&booting, &started]).is_err());
    assert!(ready(&scratch, &[&booting, &later, &running(2)]).is_err());
}

#[test]
fn nodes_of_one_machine_have_names_and_ports_of_their_own() {
    let at = |ip: &str, ports: &[(u16, u16)]| {
        Node::of(&Pod { ip: ip.to_owned(), ports: ports.iter().copied().collect(), settings: settings(), ..pod(0) })
    };
    let (one, two) = (at("127.0.0.2", &[]).unwrap(), at("127.0.0.3", &[]).unwrap());
    assert_eq!((one.name.as_str(), one.peer_port), ("rabbitmq-127-0-0-2-5672@127.0.0.2", 25674));
    assert_ne!((&two.name, two.peer_port), (&one.name, one.peer_port));
    let mapped = at("127.0.0.2", &[(5672, 7001), (25672, 7002)]).unwrap();
    assert_eq!((mapped.own_client.as_str(), mapped.own_peer.as_str()), ("127.0.0.2:7001", "127.0.0.2:7002"));
    let own = at("10.0.0.4", &[]).unwrap();
    assert_eq!((own.own_client.as_str(), own.peer_port, own.is_shared), ("127.0.0.1:5672", 25672, false));
    for ip in ["fd00::4", "::1"] {
        let text = at(ip, &[]).unwrap_err().to_string();
        assert_eq!(text, format!("pod seq 0 has the address {ip}: RabbitMQ needs an IPv4 address (ochopod_ip)"));
    }
    let text = at("10.0.0.4", &[(5672, 31000), (25672, 31001)]).unwrap_err().to_string();
    assert_eq!(text, "pod seq 0 maps port 25672 to 31001: nodes need the same port inside and outside");
}

#[test]
fn the_environment_describes_the_node_like_the_view() {
    let me = Pod { settings: settings(), ..stopped(0) };
    let variable = |name: &str| match name {
        "ochopod_ip" => Some(me.ip.clone()),
        "ochopod_rabbitmq_dir" => Some("/srv/mq/".to_owned()),
        "PORT_5672" => Some(me.ports[&5672].to_string()),
        "PORT_25672" => Some(me.ports[&25672].to_string()),
        _ => None,
    };
    assert_eq!(Node::by(variable).unwrap(), node(&me));
    assert!(Node::by(|_| None).unwrap_err().to_string().contains("ochopod_ip"));
    for (name, bad) in [("rabbitmq_size", "0"), ("rabbitmq_forget_after", "soon")] {
        let mut me = me.clone();
        me.settings.insert(name.to_owned(), bad.to_owned());
        let text = Node::of(&me).unwrap_err().to_string();
        assert_eq!(text, format!("invalid ochopod_{name} {bad:?}: expected a number, at least 1"));
    }
}

#[test]
fn the_probe_counts_running_nodes() {
    let (first, second) = (running(0), stopped(1));
    let probed = || Nodes.probe(&view(&[&first, &second], 0)).map_err(|error| error.to_string());
    mock_cluster(&[&first, &second], &[&first, &second]);
    assert_eq!(probed().unwrap().as_deref(), Some("2 of 2 nodes running"));
    mock_cluster(&[&first, &second], &[&first]);
    assert_eq!(probed().unwrap_err(), format!("1 of 2 nodes running, not {}", node(&second).name));
    let text = Nodes.probe(&view(&[&second], 1)).unwrap_err().to_string();
    assert_eq!(text, "no node of 1 pods serves clients");
}

#[test]
fn nodes_whose_pods_are_gone_for_long_are_removed_unless_they_run() {
    let (scratch, first, gone) = (Scratch::new(), running(0), stopped(1));
    let (me, files) = (node(&first), scratch.of(&first));
    let reconcile =
        |pods: &[&Pod], now| model::reconcile(&view(pods, 0), &me, &files, now).map_err(|error| error.to_string());
    let changes = mock_cluster(&[&first, &gone], &[&first]);
    let left = |seconds| Err(format!("node {} left, removed in {seconds} s", node(&gone).name));
    assert_eq!(reconcile(&[&first], 1000), left(600));
    assert_eq!(reconcile(&[&first], 1599), left(1));
    // It came back, and left again.
    assert_eq!(reconcile(&[&first, &gone], 1599), Ok(()));
    assert_eq!(reconcile(&[&first], 1700), left(600));
    assert!(changes.borrow().is_empty());
    assert_eq!(reconcile(&[&first], 2300), Ok(()));
    assert_eq!(*changes.borrow(), [format!("forget_cluster_node {}", node(&gone).name)]);

    let changes = mock_cluster(&[&first, &gone], &[&first, &gone]);
    let text = reconcile(&[&first], 9000).unwrap_err();
    assert_eq!(text, format!("node {} runs although its pod left the view, not removed", node(&gone).name));
    assert!(changes.borrow().is_empty());
}

#[test]
fn a_check_passes_while_erlang_runs_and_records_the_nodes() {
    let own = running(0);
    let mut plugin = RabbitMq { node: Some(node(&own)), ..RabbitMq::default() };
    mock_cluster(&[&own, &stopped(1)], &[&own]);
    let metrics = plugin.sanity_check(1).unwrap();
    assert_eq!((&metrics["serves"], &metrics["nodes"], &metrics["running"]), (&json!(true), &json!(2), &json!(1)));

    mock_exec(|_, _| Err(exec::Error::Timeout));
    assert_eq!(plugin.sanity_check(1).unwrap(), json!({"serves": true}));
    plugin.node = Some(node(&answering(0, &[])));
    assert_eq!(plugin.sanity_check(1).unwrap(), json!({"serves": false}));
    plugin.node = Some(node(&stopped(0)));
    assert!(plugin.sanity_check(1).unwrap_err().to_string().starts_with("RabbitMQ does not listen at 127.0.0.1:"));
    assert_eq!(plugin.signaled(None, None).unwrap_err().to_string(), "RabbitMQ is not running");
}
