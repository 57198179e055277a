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
    Model as _, Pod, exec,
    testing::{cluster, mock_exec, pod},
};

use super::*;

/// A scratch directory in place of the one that is granted.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn files(&self) -> impl Fn(&Member) -> Files {
        |member| Files::of(member, self.0.path())
    }

    /// Makes the directory of an etcd that has run.
    fn with_data_of(self, pod: &Pod) -> Self {
        fs::create_dir_all(self.0.path().join(Member::of(pod).unwrap().name).join("member").join("wal")).unwrap();
        self
    }

    fn seen(self, pod: &Pod, members: &[&Pod]) -> Self {
        let members = members.iter().map(|pod| Member::of(pod).unwrap().peer_url()).collect();
        self.files()(&Member::of(pod).unwrap()).set_last_seen(&LastSeen { cluster: "a".to_owned(), members }).unwrap();
        self
    }

    fn check(&self, pods: &[&Pod], seq: u64) -> Result<()> {
        decision::check(&cluster(pods.iter().copied().cloned()).view_of(seq), self.files())
    }

    fn command(&self, pods: &[&Pod], seq: u64) -> Result<BTreeMap<String, String>> {
        let view = cluster(pods.iter().copied().cloned()).view_of(seq);
        let command = decision::command(&view, self.files())?;
        assert_eq!(command.program, "etcd");
        let pairs = command.arguments.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone()));
        Ok(pairs.collect())
    }
}

/// Returns a pod on this machine, whose etcd does not run: nothing listens at its port.
fn stopped(seq: u64) -> Pod {
    Pod { ip: format!("127.1.0.{seq}"), ..at(seq, 1) }
}

fn at(seq: u64, port: u16) -> Pod {
    let settings = [
        ("etcd_dir".to_owned(), "/srv/etcd".to_owned()),
        ("etcd_client_port".to_owned(), (10000 + seq).to_string()),
        ("etcd_peer_port".to_owned(), port.to_string()),
    ];
    Pod { ip: "127.0.0.1".to_owned(), settings: settings.into(), ..pod(seq) }
}

fn peer_url(pod: &Pod) -> String {
    Member::of(pod).unwrap().peer_url()
}

/// Starts a fake etcd that answers members: its cluster version, and the members that it knows.
fn running(seq: u64, formed: bool, members: &[&Pod]) -> Pod {
    running_in("a", "", seq, formed, members)
}

/// Starts the same in the cluster with this id. This text follows the names of its members.
fn running_in(cluster: &'static str, formation: &str, seq: u64, formed: bool, members: &[&Pod]) -> Pod {
    let version = if formed { "3.4.0" } else { "not_decided" };
    serving(cluster, version, formation, seq, formed, members)
}

fn serving(cluster: &'static str, version: &str, formation: &str, seq: u64, formed: bool, members: &[&Pod]) -> Pod {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = at(seq, listener.local_addr().unwrap().port());
    let mut list: Vec<Value> = members.iter().copied().chain([&own]).map(|pod| listed(pod, true)).collect();
    for member in &mut list {
        member["name"] = Value::from(format!("{}{formation}", member["name"].as_str().unwrap()));
        if !formed {
            member.as_object_mut().unwrap().remove("clientURLs");
        }
    }
    let members = Value::Array(list).to_string();
    let version = json!({"etcdcluster": version}).to_string();
    thread::spawn(move || {
        // Like etcd, it does not close connections.
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                assert_eq!(stream.read(&mut byte).unwrap(), 1);
                request.extend(byte);
            }
            let is_version = request.starts_with(b"GET /version");
            let body = if is_version { &version } else { &members };
            let head = format!("HTTP/1.0 200 OK\r\nX-Etcd-Cluster-Id: {cluster}\r\nContent-Type: application/json");
            write!(stream, "{head}\r\n\r\n{body}").unwrap();
            open.push(stream);
        }
    });
    own
}

/// Lists a member as etcd does: its id is the number of the pod, and one that was never started has no name.
fn listed(pod: &Pod, is_started: bool) -> Value {
    let member = Member::of(pod).unwrap();
    let id = 1000 + pod.seq;
    if is_started {
        json!({"ID": id, "name": member.name, "peerURLs": [member.peer_url()], "clientURLs": [member.client_url()]})
    } else {
        json!({"ID": id, "peerURLs": [member.peer_url()]})
    }
}

/// Mocks etcdctl of a cluster with these members, of which some are healthy. Returns the changes that were requested.
fn mock_members(members: &[(&Pod, bool)], healthy: &[&Pod], refusal: Option<&'static str>) -> Rc<RefCell<Vec<String>>> {
    let changes = Rc::new(RefCell::new(Vec::new()));
    let requested = Rc::clone(&changes);
    let mut list: Vec<Value> = members.iter().map(|(pod, is_started)| listed(pod, *is_started)).collect();
    let healthy: Vec<String> = healthy.iter().map(|pod| Member::of(pod).unwrap().client_url()).collect();
    mock_exec(move |argv, _| {
        assert_eq!(argv[0], "etcdctl");
        let endpoints = argv[1].strip_prefix("--endpoints=").unwrap().split(',');
        let words: Vec<&str> = argv[4..].iter().map(String::as_str).collect();
        let reply =
            |value: Value| Ok(exec::Output { stdout: value.to_string().into_bytes(), ..exec::Output::default() });
        match words.as_slice() {
            ["endpoint", "health", ..] => reply(
                endpoints
                    .map(|url| json!({"endpoint": url, "health": healthy.iter().any(|it| it == url), "error": "timeout"}))
                    .collect(),
            ),
            ["member", "list", ..] => reply(json!({"header": {"cluster_id": 10}, "members": list})),
            ["member", change, rest @ ..] => {
                requested.borrow_mut().push(format!("{change} {}", rest.join(" ")));
                if let Some(refusal) = refusal {
                    let stderr = format!("{{\"level\":\"warn\"}}\nError: {refusal}\n").into_bytes();
                    return Ok(exec::Output { code: 1, stderr, ..exec::Output::default() });
                }
                if *change == "remove" {
                    let id = u64::from_str_radix(rest[0], 16).unwrap();
                    list.retain(|member| member["ID"] != id);
                } else {
                    let url = rest[1].strip_prefix("--peer-urls=").unwrap();
                    list.push(json!({"ID": 99, "peerURLs": [url]}));
                }
                reply(json!({}))
            }
            other => panic!("{other:?}"),
        }
    });
    changes
}

fn no_quorum() {
    mock_members(&[], &[], None);
}

#[test]
fn the_first_view_forms_a_cluster_of_all_its_pods() {
    let (scratch, pods) = (Scratch::new(), [stopped(0), stopped(1), stopped(2)]);
    let pods: Vec<&Pod> = pods.iter().collect();
    scratch.check(&pods, 1).unwrap();
    let command = scratch.command(&pods, 1).unwrap();
    let mut urls: Vec<String> = pods.iter().map(|pod| peer_url(pod)).collect();
    urls.sort();
    let members: Vec<&str> = command["--initial-cluster"].split(',').map(|it| it.split_once('=').unwrap().1).collect();
    assert_eq!(members, urls);
    assert_eq!(command["--initial-cluster-state"], "new");
    assert_eq!(command["--initial-cluster-token"], "test.test.0-pod");
    let own = Member::of(pods[1]).unwrap();
    assert_eq!(command["--name"], format!("{}@0-pod", own.name));
    assert!(command["--initial-cluster"].contains(&format!("{}=", command["--name"])));
    assert_eq!(command["--data-dir"], format!("/srv/etcd/{}", own.name));
    assert_eq!(command["--listen-peer-urls"], own.peer_url());
}

#[test]
fn a_cluster_waits_for_its_size() {
    let (scratch, pods) = (Scratch::new(), [stopped(0), stopped(1)]);
    let text = scratch.check(&[&pods[0], &pods[1]], 0).unwrap_err().to_string();
    assert_eq!(text, "2 of 3 pods to form a cluster (ochopod_etcd_size)");
    let mut single = stopped(0);
    single.settings.insert("etcd_size".to_owned(), "1".to_owned());
    scratch.check(&[&single], 0).unwrap();
    assert_eq!(scratch.command(&[&single], 0).unwrap()["--initial-cluster-state"], "new");
}

#[test]
fn a_pod_without_valid_settings_rejects_the_view_alone() {
    let (scratch, good) = (Scratch::new(), [stopped(0), stopped(1), stopped(2)]);
    let without = |name: &str, value: Option<&str>| {
        let mut pod = stopped(7);
        pod.settings.remove(name);
        pod.settings.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        pod
    };
    for (bad, expected) in [
        (
            without("etcd_dir", None),
            "ochopod_etcd_dir is not set: expected the directory for the data, as in /var/lib/etcd",
        ),
        (without("etcd_dir", Some("x")), "invalid ochopod_etcd_dir \"x\": expected an absolute path"),
        (without("etcd_peer_port", Some("0")), "pod seq 7: invalid ochopod_etcd_peer_port \"0\": expected a port"),
        (without("etcd_size", Some("few")), "invalid ochopod_etcd_size \"few\": expected a number of pods"),
    ] {
        let view = [&good[0], &good[1], &good[2], &bad];
        assert_eq!(scratch.check(&view, 7).unwrap_err().to_string(), expected);
        scratch.check(&view, 0).unwrap();
    }
    fs::remove_dir_all(scratch.0.path()).unwrap();
    let text = scratch.check(&[&good[0], &good[1], &good[2]], 0).unwrap_err().to_string();
    assert_eq!(text, "directory not granted: requires --dir /srv/etcd::/data");
}

#[test]
fn a_later_pod_of_the_first_view_takes_the_members_of_the_one_that_runs() {
    let (scratch, second, third, late) = (Scratch::new(), stopped(1), stopped(2), stopped(3));
    let first = running(0, false, &[&second, &third]);
    let view = [&first, &second, &third, &late];
    let command = scratch.command(&view, 1).unwrap();
    assert_eq!(command["--initial-cluster"].split(',').count(), 3);
    assert_eq!(command["--initial-cluster-state"], "new");
    // A cluster that an earlier version forms has no mark.
    assert_eq!(command["--initial-cluster-token"], "test.test");
    let text = scratch.command(&view, 3).unwrap_err().to_string();
    assert_eq!(text, "the first 3 members form the cluster");
}

#[test]
fn a_later_pod_of_the_first_view_takes_the_formation_of_the_one_that_runs() {
    let (scratch, second, gone) = (Scratch::new(), stopped(2), stopped(0));
    let first = running_in("a", "@0-5e1f", 1, false, &[&second, &gone]);
    let command = scratch.command(&[&first, &second], 2).unwrap();
    let own = Member::of(&second).unwrap();
    assert_eq!(command["--initial-cluster-token"], "test.test.0-5e1f");
    assert_eq!(command["--name"], format!("{}@0-5e1f", own.name));
    assert_eq!(command["--initial-cluster"].split(',').count(), 3);
    assert!(command["--data-dir"].ends_with(&own.name));
}

#[test]
fn data_of_an_abandoned_formation_is_put_aside() {
    let own = stopped(2);
    let member = Member::of(&own).unwrap();
    let with_data_of_formation = || {
        let scratch = Scratch::new().with_data_of(&own);
        scratch.files()(&member).set_formation("0-5e1f").unwrap();
        scratch
    };
    // Nothing else is known, or the others form the same cluster.
    let scratch = with_data_of_formation();
    let first = running_in("a", "@0-5e1f", 1, false, &[&own]);
    for view in [[&stopped(1), &own], [&first, &own]] {
        let command = scratch.command(&view, 2).unwrap();
        assert_eq!(command["--initial-cluster-state"], "existing");
        assert_eq!(command["--name"], format!("{}@0-5e1f", member.name));
        assert!(scratch.files()(&member).has_data());
    }
    // The others form another one.
    let first = running_in("a", "@1-77ab", 1, false, &[&own]);
    let command = scratch.command(&[&first, &own], 2).unwrap();
    assert_eq!(command["--initial-cluster-state"], "new");
    assert_eq!(command["--name"], format!("{}@1-77ab", member.name));
    assert!(!scratch.files()(&member).has_data());
    // A cluster of which this pod has lost the data has a quorum: its member is replaced.
    let (scratch, first) = (with_data_of_formation(), running(0, true, &[&own]));
    let changes = mock_members(&[(&first, true), (&own, true)], &[&first], None);
    let command = scratch.command(&[&first, &own], 2).unwrap();
    assert_eq!(command["--initial-cluster-state"], "existing");
    assert_eq!(changes.borrow()[0], "remove 3ea");
    // A member that has seen a quorum keeps its data.
    let scratch = with_data_of_formation().seen(&own, &[&own]);
    let changes = mock_members(&[(&first, true), (&own, true)], &[&first], None);
    assert_eq!(scratch.command(&[&first, &own], 2).unwrap()["--name"], member.name);
    assert!(scratch.files()(&member).has_data() && changes.borrow().is_empty());
}

/// Seen with etcd 3.4: its log lacks the commit of the last entry, which is the version.
#[test]
fn a_cluster_whose_version_is_lost_is_not_formed_again() {
    let (second, third) = (stopped(1), stopped(2));
    let first = serving("a", "not_decided", "", 0, true, &[&second, &third]);
    no_quorum();
    let text = Scratch::new().command(&[&first, &second, &third], 1).unwrap_err().to_string();
    assert_eq!(text, "cluster of 3 members has no quorum, cannot add this pod");
}

#[test]
fn a_pod_with_data_does_not_take_part_in_the_cluster_that_pods_without_data_form() {
    let (third, lost) = (stopped(2), running_in("b", "@0-5e1f", 1, false, &[]));
    let lost = Pod { started: true, ..lost };
    let own = running_in("a", "", 0, true, &[&lost, &third]);
    no_quorum();
    // It keeps its data and waits for the others of its cluster.
    let scratch = Scratch::new().with_data_of(&own).seen(&own, &[&own, &lost, &third]);
    scratch.check(&[&own, &lost, &third], 0).unwrap();
    assert_eq!(scratch.command(&[&own, &lost, &third], 0).unwrap()["--initial-cluster-state"], "existing");
    decision::check_ready(&cluster([own.clone(), lost.clone(), third.clone()]).view_of(0)).unwrap();
    // No other pod without data joins, so that they never have a quorum.
    let text = Scratch::new().command(&[&own, &lost, &third], 2).unwrap_err().to_string();
    assert_eq!(text, "cluster of 3 members has no quorum, cannot add this pod");

    mock_members(&[(&own, true), (&lost, true)], &[&own], None);
    let text = Quorum.probe(&cluster([own.clone(), lost.clone()]).view_of(0)).unwrap_err().to_string();
    let address = Member::of(&lost).unwrap().peer;
    let advice = "(it lost its data: stop its pod and start it again)";
    assert_eq!(text, format!("1 of 2 members healthy, not {address} {advice}"));
}

#[test]
fn a_pod_that_joins_is_added_once() {
    let (scratch, new) = (Scratch::new(), stopped(3));
    let first = running(0, true, &[]);
    let changes = mock_members(&[(&first, true)], &[&first], None);
    scratch.check(&[&first, &new], 3).unwrap();
    let command = scratch.command(&[&first, &new], 3).unwrap();
    let own = Member::of(&new).unwrap();
    assert_eq!(*changes.borrow(), [format!("add {} --peer-urls={}", own.name, own.peer_url())]);
    assert_eq!(command["--initial-cluster-state"], "existing");
    assert_eq!(command["--initial-cluster"].split(',').count(), 2);
    assert!(command["--initial-cluster"].contains(&format!("{}={}", own.name, own.peer_url())));

    let changes = mock_members(&[(&first, true), (&new, false)], &[&first], None);
    assert_eq!(scratch.command(&[&first, &new], 3).unwrap(), command);
    assert!(changes.borrow().is_empty());
}

#[test]
fn a_first_member_that_starts_after_the_others_have_a_quorum_is_not_replaced() {
    let (scratch, own, first) = (Scratch::new(), stopped(2), running(0, true, &[]));
    let member = Member::of(&own).unwrap();
    let list = json!([listed(&first, true), {"ID": 5, "name": member.name, "peerURLs": [member.peer_url()]}]);
    let client = Member::of(&first).unwrap().client_url();
    mock_exec(move |argv, _| {
        let value = match argv[4..6].join(" ").as_str() {
            "endpoint health" => json!([{"endpoint": client, "health": true}]),
            "member list" => json!({"header": {"cluster_id": 10}, "members": list}),
            other => panic!("{other}"),
        };
        Ok(exec::Output { stdout: value.to_string().into_bytes(), ..exec::Output::default() })
    });
    let command = scratch.command(&[&first, &own], 2).unwrap();
    assert_eq!(command["--initial-cluster-state"], "existing");
    assert_eq!(command["--initial-cluster"].split(',').count(), 2);
}

#[test]
fn a_change_that_etcd_rejects_is_not_yet_possible() {
    let (scratch, new, first) = (Scratch::new(), stopped(3), running(0, true, &[]));
    mock_members(&[(&first, true)], &[&first], Some("etcdserver: unhealthy cluster"));
    let error = scratch.command(&[&first, &new], 3).unwrap_err();
    assert_eq!(error.to_string(), "members not changed: etcdserver: unhealthy cluster");
    let mut plugin = Etcd::default();
    let view = cluster([first.clone(), new.clone()]).view_of(3);
    assert!(plugin.configure(&view).unwrap_err().is_not_yet());
    no_quorum();
    let error = scratch.command(&[&first, &new], 3).unwrap_err().to_string();
    assert_eq!(error, "cluster of 1 members has no quorum, cannot add this pod");
}

#[test]
fn a_member_that_returns_uses_its_data() {
    let own = stopped(3);
    let scratch = Scratch::new().with_data_of(&own);
    let first = running(0, true, &[&own]);
    let changes = mock_members(&[(&first, true), (&own, true)], &[&first], None);
    let command = scratch.command(&[&first, &own], 3).unwrap();
    assert_eq!(command["--initial-cluster-state"], "existing");
    no_quorum();
    assert_eq!(scratch.command(&[&first, &own], 3).unwrap(), command);
    assert!(changes.borrow().is_empty());
}

#[test]
fn a_member_that_was_removed_puts_its_data_aside_and_joins_again() {
    let own = stopped(3);
    let scratch = Scratch::new().with_data_of(&own).seen(&own, &[&own]);
    let first = running(0, true, &[]);
    let changes = mock_members(&[(&first, true)], &[&first], None);
    scratch.command(&[&first, &own], 3).unwrap();
    assert!(changes.borrow()[0].starts_with("add "));
    let files = scratch.files()(&Member::of(&own).unwrap());
    assert!(!files.has_data() && files.last_seen().is_none());
    assert!(scratch.0.path().join(format!("{}.removed", Member::of(&own).unwrap().name)).is_dir());
}

#[test]
fn a_member_that_lost_its_data_is_replaced() {
    let (scratch, own) = (Scratch::new(), stopped(3));
    let first = running(0, true, &[&own]);
    let changes = mock_members(&[(&first, true), (&own, true)], &[&first], None);
    scratch.command(&[&first, &own], 3).unwrap();
    assert_eq!(changes.borrow()[0], "remove 3eb");
    assert!(changes.borrow()[1].starts_with("add "));
}

#[test]
fn a_view_without_a_quorum_of_the_members_is_rejected() {
    let (second, third) = (stopped(1), stopped(2));
    let first = running(0, true, &[&second, &third]);
    let scratch = Scratch::new().with_data_of(&first);
    mock_members(&[(&first, true), (&second, true), (&third, true)], &[&first, &second, &third], None);
    let text = scratch.check(&[&first], 0).unwrap_err().to_string();
    assert_eq!(text, "view has 1 of 3 members, 2 are a quorum");
    scratch.check(&[&first, &second], 0).unwrap();
}

#[test]
fn while_no_member_runs_only_members_are_accepted() {
    let (first, second, third, stranger) = (stopped(0), stopped(1), stopped(2), stopped(8));
    let scratch = Scratch::new().with_data_of(&first).seen(&first, &[&first, &second, &third]);
    let text = scratch.check(&[&first], 0).unwrap_err().to_string();
    assert_eq!(text, "1 of 3 members are registered, 2 are a quorum");
    scratch.check(&[&first, &second], 0).unwrap();
    let text = scratch.check(&[&first, &second, &stranger], 0).unwrap_err().to_string();
    let expected = format!("cordon seq 8 at {} until the 3 members are healthy", Member::of(&stranger).unwrap().peer);
    assert!(text.ends_with(&expected), "{text}");
}

#[test]
fn data_of_another_cluster_is_never_given_up() {
    let own = stopped(3);
    let scratch = Scratch::new().with_data_of(&own);
    let seen = LastSeen { cluster: "b".to_owned(), members: vec![peer_url(&own)] };
    scratch.files()(&Member::of(&own).unwrap()).set_last_seen(&seen).unwrap();
    let first = running(0, true, &[]);
    mock_members(&[(&first, true)], &[&first], None);
    let text = scratch.check(&[&first, &own], 3).unwrap_err().to_string();
    assert_eq!(text, "data of this pod belongs to cluster b, the other pods form cluster a");
}

#[test]
fn a_member_is_ready_when_it_listens_and_then_when_the_quorum_answers() {
    let (second, third) = (stopped(1), stopped(2));
    let ready = |pods: [&Pod; 3]| decision::check_ready(&cluster(pods.map(Pod::clone)).view_of(0));
    let text = ready([&stopped(0), &second, &third]).unwrap_err().to_string();
    assert!(text.starts_with("etcd does not listen at 127.1.0.0:"), "{text}");

    let own = running(0, false, &[&second, &third]);
    no_quorum();
    ready([&own, &second, &third]).unwrap();
    let started = Pod { started: true, ..second.clone() };
    let text = ready([&own, &started, &third]).unwrap_err().to_string();
    assert_eq!(text, "etcd cannot read with a quorum: timeout");
    let up = running(1, false, &[]);
    let own = running(0, false, &[&up, &third]);
    assert!(ready([&own, &up, &third]).is_err());
    mock_members(&[(&own, true)], &[&own], None);
    ready([&own, &up, &third]).unwrap();
}

#[test]
fn the_probe_counts_healthy_members() {
    let pods = [stopped(0), stopped(1), stopped(2)];
    let all = [(&pods[0], true), (&pods[1], true), (&pods[2], true)];
    let probed = || Quorum.probe(&cluster(pods.clone()).view_of(0));
    mock_members(&all, &[&pods[0], &pods[1], &pods[2]], None);
    assert_eq!(probed().unwrap().as_deref(), Some("3 of 3 members healthy"));
    mock_members(&all, &[&pods[0], &pods[2]], None);
    let text = probed().unwrap_err().to_string();
    assert_eq!(text, format!("2 of 3 members healthy, not {}", Member::of(&pods[1]).unwrap().peer));
    no_quorum();
    assert_eq!(probed().unwrap_err().to_string(), "no quorum: no member of 3 pods answers");
}

#[test]
fn members_whose_pods_are_gone_are_removed_unless_they_run_or_the_quorum_would_be_lost() {
    let pods = [stopped(0), stopped(1), stopped(2), stopped(3), stopped(4)];
    let started = |pod| (pod, true);
    let reconciled = |view: &[&Pod]| Quorum.reconcile(&cluster(view.iter().copied().cloned()).view_of(0));
    let live = [&pods[0], &pods[1], &pods[2]];

    let all: Vec<_> = pods.iter().map(started).collect();
    let changes = mock_members(&all, &live, None);
    reconciled(&live).unwrap();
    let mut removed = changes.borrow().clone();
    removed.sort();
    assert_eq!(removed, ["remove 3eb", "remove 3ec"]);

    let changes = mock_members(&all, &[&pods[0], &pods[1], &pods[2], &pods[3]], None);
    let text = reconciled(&live).unwrap_err().to_string();
    let running = Member::of(&pods[3]).unwrap().peer;
    assert_eq!(text, format!("member {running} is healthy although its pod left the view, not removed"));
    assert_eq!(*changes.borrow(), ["remove 3ec"]);

    let four: Vec<_> = pods[..4].iter().map(started).collect();
    let changes = mock_members(&four, &[&pods[0]], None);
    let text = reconciled(&live).unwrap_err().to_string();
    assert!(text.ends_with("not removed: 1 healthy members would be no quorum"), "{text}");
    no_quorum();
    assert_eq!(reconciled(&live).unwrap_err().to_string(), "no quorum, members not reconciled");
    assert!(changes.borrow().is_empty());
}

#[test]
fn a_stop_first_removes_dead_members_that_it_needs_no_longer() {
    let pods = [stopped(0), stopped(1), stopped(2), stopped(3)];
    let scratch = Scratch::new();
    let own = Member::of(&pods[0]).unwrap();
    let files = scratch.files()(&own);
    let all: Vec<_> = pods.iter().map(|pod| (pod, true)).collect();
    let registered = |pods: &[Pod]| pods.iter().map(peer_url).collect::<Vec<_>>();
    let changes = mock_members(&all, &[&pods[0], &pods[1], &pods[2]], None);
    decision::prepare_stop(&own, &files).unwrap();
    files.set_registered(&registered(&pods)).unwrap();
    decision::prepare_stop(&own, &files).unwrap();
    assert!(changes.borrow().is_empty());
    files.set_registered(&registered(&pods[..3])).unwrap();
    decision::prepare_stop(&own, &files).unwrap();
    assert_eq!(*changes.borrow(), ["remove 3eb"]);
}

#[test]
fn the_environment_describes_the_member_like_the_view() {
    let variables = |mapped: Option<u16>| {
        move |name: &str| match name {
            "ochopod_ip" => Some("10.0.0.4".to_owned()),
            "ochopod_etcd_peer_port" => Some("7380".to_owned()),
            "PORT_2379" => mapped.map(|port| port.to_string()),
            "PORT_7380" => mapped.map(|port| (port + 1).to_string()),
            _ => None,
        }
    };
    let settings: BTreeMap<_, _> = [("etcd_peer_port".to_owned(), "7380".to_owned())].into();
    let direct = Pod { ip: "10.0.0.4".to_owned(), settings: settings.clone(), ..pod(1) };
    assert_eq!(Member::by(variables(None)).unwrap(), Member::of(&direct).unwrap());
    let mapped = Pod { ports: [(2379, 31000), (7380, 31001)].into(), ..direct };
    let member = Member::of(&mapped).unwrap();
    assert_eq!(Member::by(variables(Some(31000))).unwrap(), member);
    assert_eq!((member.client.as_str(), member.peer.as_str()), ("10.0.0.4:31000", "10.0.0.4:31001"));
    assert_eq!(member.listen_urls(), ("http://0.0.0.0:2379".to_owned(), "http://0.0.0.0:7380".to_owned()));
    assert_eq!(member.own_peer, "127.0.0.1:7380");
    assert!(Member::by(|_| None).unwrap_err().to_string().contains("ochopod_ip"));
}

#[test]
fn a_check_reports_role_and_members_and_passes_without_a_quorum() {
    let own = running(0, true, &[]);
    let member = Member::of(&own).unwrap();
    let mut plugin = Etcd { member: Some(member), role: None };
    let client = own.settings["etcd_client_port"].clone();
    mock_exec(move |argv, _| {
        let value = match argv[5].as_str() {
            "status" => json!([{"Status": {"header": {"member_id": 7}, "leader": 7, "version": "3.4.23"}}]),
            "list" => json!({"header": {"cluster_id": 10}, "members": [{"ID": 7, "name": "x", "peerURLs": ["u"]}]}),
            _ => json!([{"endpoint": format!("http://127.0.0.1:{client}"), "health": true}]),
        };
        Ok(exec::Output { stdout: value.to_string().into_bytes(), ..exec::Output::default() })
    });
    let metrics = plugin.sanity_check(1).unwrap();
    assert_eq!(
        (&metrics["healthy"], &metrics["members"], &metrics["role"]),
        (&json!(true), &json!(1), &json!("leader"))
    );
    assert_eq!(plugin.role().as_deref(), Some("leader"));

    mock_exec(|_, _| Err(exec::Error::Timeout));
    assert_eq!(plugin.sanity_check(1).unwrap(), json!({"healthy": false}));
    assert_eq!(plugin.role().as_deref(), Some(""));
    plugin.member = Some(Member::of(&stopped(0)).unwrap());
    assert!(plugin.sanity_check(1).unwrap_err().to_string().contains("does not listen"));
}

#[test]
fn a_pod_that_joins_first_removes_dead_members_whose_pods_are_gone() {
    let (scratch, second, third, dead, new) = (Scratch::new(), stopped(1), stopped(2), stopped(3), stopped(4));
    let first = running(0, true, &[]);
    let all = [(&first, true), (&second, true), (&third, true), (&dead, true)];
    let own = Member::of(&new).unwrap();
    let added = format!("add {} --peer-urls={}", own.name, own.peer_url());

    let view = [&first, &second, &third, &new];
    let changes = mock_members(&all, &[&first, &second, &third], None);
    let command = scratch.command(&view, 4).unwrap();
    assert_eq!(*changes.borrow(), ["remove 3eb", &added]);
    assert_eq!(command["--initial-cluster"].split(',').count(), 4);

    // A pod that is left out may only be slow, and one of the view may be about to start.
    let changes = mock_members(&all, &[&first, &second, &third, &dead], None);
    scratch.command(&view, 4).unwrap();
    assert_eq!(changes.borrow()[..], [&*added]);
    let changes = mock_members(&all, &[&first, &second, &third], None);
    scratch.command(&[&first, &second, &third, &dead, &new], 4).unwrap();
    assert_eq!(*changes.borrow(), [added]);

    let changes = mock_members(&all, &[&first], None);
    let error = scratch.command(&view, 4).unwrap_err().to_string();
    assert!(error.ends_with("not removed: 1 healthy members would be no quorum"), "{error}");
    assert!(changes.borrow().is_empty());
}

#[test]
fn each_formation_has_a_token_of_its_own() {
    let of_life = |key: &str| [0, 1, 2].map(|seq| Pod { key: format!("{key}-{seq}"), ..stopped(seq) });
    let tokens = ["5e1f", "77ab"].map(|key| {
        let (scratch, pods) = (Scratch::new(), of_life(key));
        let view: Vec<&Pod> = pods.iter().collect();
        let [first, second] = [0, 1].map(|seq| scratch.command(&view, seq).unwrap()["--initial-cluster-token"].clone());
        assert_eq!(first, second);
        first
    });
    assert_ne!(tokens[0], tokens[1]);
}

#[test]
fn data_of_another_cluster_is_never_started_nor_put_aside() {
    let own = stopped(3);
    for members in [vec![], vec![&own]] {
        let scratch = Scratch::new().with_data_of(&own);
        let seen = LastSeen { cluster: "b".to_owned(), members: vec![peer_url(&own)] };
        scratch.files()(&Member::of(&own).unwrap()).set_last_seen(&seen).unwrap();
        let first = running(0, true, &members);
        let listed: Vec<_> = members.iter().copied().chain([&first]).map(|pod| (pod, true)).collect();
        let changes = mock_members(&listed, &[&first], None);
        let error = scratch.command(&[&first, &own], 3).unwrap_err().to_string();
        assert_eq!(error, "data of this pod belongs to cluster b, the other pods form cluster a");
        assert!(changes.borrow().is_empty() && scratch.files()(&Member::of(&own).unwrap()).has_data());
    }
}
