//! Readiness, batches, tolerated pods, cordons, pauses, roles and reconciliation.

use super::*;

fn not_ready(leader: &mut TestLeader, pod: &str, reason: &str) {
    let post = leader.waiting(RolloutTask::On).into_iter().rfind(|post| post.pod.as_str() == pod).expect("an on");
    leader.step(Event::Answered(post.call, PeerReply::NotReady(reason.to_owned())));
}

fn state(ready: bool) -> PodState {
    PodState { process: ProcessState::Running, ready, ..PodState::default() }
}

fn states(of: &[(&str, PodState)]) -> Event {
    Event::States(Arc::new(of.iter().map(|(name, state)| (PodId::from(*name), state.clone())).collect()))
}

/// Starts a rollout and passes its check.
fn pass_check(leader: &mut TestLeader) {
    leader.wait(leader.damper());
    leader.answer_all(RolloutTask::Check, 200);
    leader.step(Event::Written(WriteResult::Done));
}

fn count(leader: &TestLeader, wanted: impl Fn(&Effect) -> bool) -> usize {
    leader.effects.iter().filter(|effect| wanted(effect)).count()
}

fn reconciliations(leader: &TestLeader) -> usize {
    count(leader, |effect| matches!(effect, Effect::Reconcile(_)))
}

#[test]
fn unready_pod_alone_is_asked_again_until_it_is_ready() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    pass_check(&mut leader);
    leader.answer(RolloutTask::On, "a", 200);
    not_ready(&mut leader, "b", "joining");
    assert_eq!(leader.status(), "* configuring 2 pods, waiting until ready: #1 127.0.0.1:8080 (b) (joining)");
    for _ in 0..3 {
        leader.wait(SECOND);
        not_ready(&mut leader, "b", "joining");
    }
    assert_eq!(leader.names(RolloutTask::On), ["a", "b", "b", "b", "b"]);
    assert_eq!(count(&leader, |effect| matches!(effect, Effect::RolloutEnded(_))), 0);
    leader.wait(SECOND);
    leader.answer(RolloutTask::On, "b", 200);
    leader.step(Event::Written(WriteResult::Done));
    assert_eq!((leader.role(), leader.names(RolloutTask::Check).len()), (Role::Leader, 2));
}

#[test]
fn sequence_continues_only_once_a_pod_is_ready_and_names_the_pods_before_it() {
    let mut leader =
        TestLeader::seeing(ModelSettings { sequential: true, ..settings() }, observation(&["a", "b", "c"]));
    pass_check(&mut leader);
    not_ready(&mut leader, "a", "joining");
    leader.wait(10 * SECOND);
    assert_eq!(leader.names(RolloutTask::On).iter().filter(|name| *name != "a").count(), 0);
    leader.answer(RolloutTask::On, "a", 200);
    leader.answer(RolloutTask::On, "b", 200);
    let started: Vec<Vec<String>> = ["a", "b", "c"]
        .map(|name| {
            let on = leader.posts(RolloutTask::On).into_iter().rfind(|post| post.pod.as_str() == name).unwrap();
            on.started.iter().map(ToString::to_string).collect()
        })
        .into();
    assert_eq!(started, [vec![], vec!["a".to_owned()], vec!["a".to_owned(), "b".to_owned()]]);
}

#[test]
fn change_ends_a_rollout_that_only_waits_for_readiness() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    pass_check(&mut leader);
    not_ready(&mut leader, "b", "joining");
    leader.see(observation(&["a", "b", "c"]));
    assert_eq!(leader.role(), Role::Configuring, "a has not replied");
    leader.answer(RolloutTask::On, "a", 200);
    assert_eq!(leader.role(), Role::Pending);
    leader.wait(10 * MILLI);
    assert_eq!(leader.names(RolloutTask::Check), ["a", "b", "a", "b", "c"]);
}

#[test]
fn unready_pod_that_leaves_is_not_waited_for() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    pass_check(&mut leader);
    leader.answer(RolloutTask::On, "a", 200);
    not_ready(&mut leader, "b", "joining");
    leader.see(observation(&["a"]));
    leader.wait(10 * MILLI);
    assert_eq!(leader.names(RolloutTask::Check), ["a", "b", "a"]);
}

#[test]
fn batches_are_ready_one_after_the_other_with_down_pods_first_and_the_leader_last() {
    let mut leader = TestLeader::new(ModelSettings { batch: Batch::Pods(2), ..settings() });
    leader.machine.own = Some(PodId::from("a"));
    leader.step(states(&[("a", state(true)), ("b", state(true)), ("c", state(true)), ("d", state(false))]));
    leader.step(Event::Stored(StoredHash::parse(b""), View::default()));
    leader.see(observation(&["a", "b", "c", "d", "e"]));
    pass_check(&mut leader);
    assert_eq!(leader.names(RolloutTask::On), ["d", "b"]);
    leader.answer(RolloutTask::On, "d", 200);
    assert_eq!(leader.names(RolloutTask::On).len(), 2, "b is down");
    not_ready(&mut leader, "b", "joining");
    leader.wait(SECOND);
    leader.answer(RolloutTask::On, "b", 200);
    assert_eq!(leader.names(RolloutTask::On)[3..], ["c", "e"]);
    leader.answer(RolloutTask::On, "c", 200);
    leader.answer(RolloutTask::On, "e", 200);
    assert_eq!(leader.names(RolloutTask::On)[5..], ["a"]);
}

#[test]
fn rollout_stops_at_the_first_failing_batch_and_leaves_time_to_pause() {
    let batch = ModelSettings { batch: Batch::Percent(34), ..settings() };
    let mut leader = TestLeader::seeing(batch, observation(&["a", "b", "c"]));
    pass_check(&mut leader);
    assert_eq!(leader.names(RolloutTask::On), ["a"]);
    leader.answer(RolloutTask::On, "a", 406);
    let expected = "* pod #0 127.0.0.1:8080 (a) failed on with 406: text, retrying in 30.0 seconds";
    assert_eq!(leader.status(), expected);
    // Neither the death nor another change of the cluster ends the hold.
    leader.see(dead(&observation(&["a", "b", "c", "d"]), "a"));
    leader.wait(30 * SECOND - MILLI);
    assert_eq!(leader.names(RolloutTask::On), ["a"], "the others keep running");
    leader.wait(MILLI);
    assert_eq!(leader.names(RolloutTask::Check).len(), 3 + 4);
}

#[test]
fn tolerated_pod_is_left_out_listed_and_included_again() {
    let mut leader = TestLeader::seeing(ModelSettings { tolerate: 1, ..settings() }, observation(&["a", "b", "c"]));
    leader.wait(10 * MILLI);
    leader.answer(RolloutTask::Check, "b", 406);
    leader.answer(RolloutTask::Check, "a", 200);
    leader.answer(RolloutTask::Check, "c", 200);
    leader.step(Event::Written(WriteResult::Done));
    assert_eq!(leader.names(RolloutTask::On), ["a", "c"]);
    leader.answer_all(RolloutTask::On, 200);
    leader.step(Event::Written(WriteResult::Done));
    assert_eq!(leader.status(), "* left out, #1 127.0.0.1:8080 (b): 406: text");
    leader.wait(2 * SECOND);
    assert_eq!(leader.names(RolloutTask::Check).last().unwrap(), "b");
    leader.answer(RolloutTask::Check, "b", 503);
    assert_eq!(
        (leader.role(), leader.status().as_str()),
        (Role::Leader, "* left out, #1 127.0.0.1:8080 (b): 503: text")
    );
    leader.wait(4 * SECOND);
    leader.answer(RolloutTask::Check, "b", 200);
    assert_eq!(leader.role(), Role::Pending);
    leader.effects.clear();
    leader.configure();
    assert_eq!(leader.names(RolloutTask::On), ["a", "b", "c"]);
    assert_eq!(leader.status(), "");
}

#[test]
fn pod_that_was_left_out_and_left_during_the_rollout_is_not_listed() {
    let mut leader = TestLeader::seeing(ModelSettings { tolerate: 1, ..settings() }, observation(&["a", "b", "c"]));
    leader.wait(10 * MILLI);
    leader.answer(RolloutTask::Check, "b", 200);
    leader.answer(RolloutTask::Check, "c", 406);
    leader.answer(RolloutTask::Check, "a", 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.see(observation(&["a", "b"]));
    leader.answer_all(RolloutTask::On, 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.configure();
    assert_eq!((leader.role(), leader.status().as_str()), (Role::Leader, ""));
}

/// Returns a leader whose cluster was configured with these pods. Another one, which is the last, was left out.
fn configured_without(left_out: &str, others: &[&str]) -> TestLeader {
    let all: Vec<&str> = others.iter().copied().chain([left_out]).collect();
    let mut leader = TestLeader::seeing(ModelSettings { tolerate: 1, ..settings() }, observation(&all));
    leader.wait(10 * MILLI);
    leader.answer(RolloutTask::Check, left_out, 406);
    for pod in others {
        leader.answer(RolloutTask::Check, pod, 200);
    }
    leader.step(Event::Written(WriteResult::Done));
    leader.answer_all(RolloutTask::On, 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.effects.clear();
    leader
}

#[test]
fn rollout_does_not_wait_for_a_pod_that_an_earlier_one_left_out_and_that_left() {
    let tolerating = || {
        let mut leader = configured_without("c", &["a", "b"]);
        leader.see(observation(&["a", "b", "c", "d"]));
        leader.wait(10 * MILLI);
        for pod in ["a", "b", "d"] {
            leader.answer(RolloutTask::Check, pod, 200);
        }
        leader
    };
    let without_c = {
        let mut pods = observation(&["a", "b", "c", "d"]);
        pods.pods.remove(&PodId::from("c"));
        pods
    };
    let mut leader = tolerating();
    leader.see(without_c.clone());
    assert_eq!(count(&leader, |effect| matches!(effect, Effect::Write(StoreWrite::Pending(_)))), 1);

    let mut leader = tolerating();
    leader.answer(RolloutTask::Check, "c", 200);
    leader.step(Event::Written(WriteResult::Done));
    for pod in ["a", "b", "d"] {
        leader.answer(RolloutTask::On, pod, 200);
    }
    leader.see(without_c);
    leader.wait(10 * MILLI);
    assert_eq!(leader.role(), Role::Configuring, "it configures again without the pod");
    assert_eq!(leader.names(RolloutTask::Check), ["a", "b", "c", "d", "a", "b", "d"]);
}

#[test]
fn pod_whose_409_counts_as_unreachable_is_left_out_if_that_is_tolerated() {
    let mut leader = TestLeader::seeing(ModelSettings { tolerate: 1, ..settings() }, observation(&["a", "b"]));
    leader.wait(10 * MILLI);
    leader.answer(RolloutTask::Check, "b", 409);
    leader.step(Event::LockRead(Ok(true)));
    leader.answer(RolloutTask::Check, "a", 200);
    leader.step(Event::Written(WriteResult::Done));
    assert_eq!(leader.names(RolloutTask::On), ["a"]);
    leader.answer_all(RolloutTask::On, 200);
    leader.step(Event::Written(WriteResult::Done));
    assert!(leader.status().contains("answered 409 although this leader holds the lock"), "{}", leader.status());
}

#[test]
fn check_that_is_answered_after_its_pod_was_cordoned_leaves_nothing_to_wake_for() {
    let mut leader = configured_without("b", &["a"]);
    leader.wait(2 * SECOND);
    assert_eq!(leader.names(RolloutTask::Check), ["b"], "it is checked again");
    let cordoned = PodState { cordon: Some("disk".to_owned()), ..state(true) };
    leader.step(states(&[("a", state(true)), ("b", cordoned)]));
    leader.answer(RolloutTask::Check, "b", 200);
    leader.now += 60 * SECOND;
    leader.step(Event::Tick);
    assert!(leader.machine.wake().is_none_or(|wake| wake > leader.now), "it wakes in the past");
}

#[test]
fn more_failures_than_tolerated_hold_the_configuration() {
    let mut leader = TestLeader::seeing(ModelSettings { tolerate: 1, ..settings() }, observation(&["a", "b", "c"]));
    leader.machine.own = Some(PodId::from("a"));
    leader.wait(10 * MILLI);
    leader.answer(RolloutTask::Check, "b", 406);
    leader.answer_check("c", 500);
    assert!(
        leader.status().starts_with("* pod #2 127.0.0.1:8080 (c) failed check with 500: text"),
        "{}",
        leader.status()
    );
    // The leader's own pod is never left out.
    let mut leader = TestLeader::seeing(ModelSettings { tolerate: 1, ..settings() }, observation(&["a", "b"]));
    leader.machine.own = Some(PodId::from("a"));
    leader.wait(10 * MILLI);
    leader.answer_check("a", 406);
    assert!(leader.status().starts_with("* pod #0 127.0.0.1:8080 (a) failed check with 406"), "{}", leader.status());
}

#[test]
fn cordoned_pod_is_out_of_the_view_until_it_is_uncordoned() {
    let mut leader = TestLeader::configured(settings(), observation(&["a", "b"]));
    let cordoned = PodState { cordon: Some("disk".to_owned()), ..state(true) };
    leader.step(states(&[("a", state(true)), ("b", cordoned)]));
    assert_eq!(leader.role(), Role::Pending);
    leader.configure();
    assert_eq!(leader.names(RolloutTask::On), ["a"]);
    assert_eq!(leader.status(), "* cordoned: #1 127.0.0.1:8080 (disk)");
    leader.effects.clear();
    leader.step(states(&[("a", state(true)), ("b", state(true))]));
    leader.configure();
    assert_eq!((leader.names(RolloutTask::On), leader.status().as_str()), (vec!["a".to_owned(), "b".to_owned()], ""));
}

#[test]
fn new_leader_compares_only_once_it_knows_which_pods_are_cordoned() {
    let mut leader = TestLeader::unaware(settings(), None);
    leader.step(Event::Stored(StoredHash::Done(Digest::of(&view_of(&["a"]))), view_of(&["a"])));
    leader.see(observation(&["a", "b"]));
    leader.wait(10 * SECOND);
    assert_eq!((leader.role(), leader.names(RolloutTask::Check).len()), (Role::Pending, 0));
    leader.step(states(&[("a", state(true)), ("b", PodState { cordon: Some("disk".to_owned()), ..state(true) })]));
    leader.wait(3600 * SECOND);
    assert_eq!((leader.role(), leader.names(RolloutTask::Check).len()), (Role::Leader, 0));
}

#[test]
fn returning_leader_that_does_not_know_the_states_waits_for_them_alone() {
    let mut leader = TestLeader::unaware(settings(), Some(SECOND));
    leader.step(Event::Stored(StoredHash::Done(Digest::of(&view_of(&["a"]))), view_of(&["a"])));
    leader.see(observation(&["b"]));
    leader.wait(10 * SECOND);
    assert_eq!(leader.machine.wake(), None, "nothing is due before the states are known");
    leader.step(states(&[]));
    leader.wait(10 * MILLI);
    assert_eq!(leader.names(RolloutTask::Check), ["b"]);
}

#[test]
fn new_leader_asks_pods_that_were_left_out_before_it_configures() {
    let tolerant = || ModelSettings { tolerate: 1, ..settings() };
    let taking_over = |settings: ModelSettings, names: &[&str]| {
        let mut leader = TestLeader::new(settings);
        leader.machine.own = Some(PodId::from("a"));
        leader.step(Event::Stored(StoredHash::Done(Digest::of(&view_of(&["a", "b"]))), view_of(&["a", "b"])));
        leader.see(observation(names));
        if !leader.writes().is_empty() {
            leader.step(Event::Written(WriteResult::Done));
        }
        leader
    };
    let mut leader = taking_over(tolerant(), &["a", "b", "c"]);
    assert_eq!((leader.role(), leader.names(RolloutTask::Check)), (Role::Leader, vec!["c".to_owned()]));
    assert_eq!(leader.status(), "* left out, #2 127.0.0.1:8080 (c): not in the last configuration");
    leader.answer(RolloutTask::Check, "c", 406);
    assert_eq!(leader.status(), "* left out, #2 127.0.0.1:8080 (c): 406: text");
    leader.wait(30 * SECOND);
    assert_eq!((leader.role(), count(&leader, |effect| matches!(effect, Effect::RolloutEnded(_)))), (Role::Leader, 0));

    let mut leader = taking_over(tolerant(), &["a", "b", "c"]);
    leader.answer(RolloutTask::Check, "c", 200);
    leader.effects.clear();
    leader.configure();
    assert_eq!(leader.names(RolloutTask::On), ["a", "b", "c"], "it is new, and accepts");

    // More than are tolerated, none tolerated, or another change: it is a configuration that is due.
    assert_eq!(taking_over(tolerant(), &["a", "b", "c", "d"]).role(), Role::Pending);
    assert_eq!(taking_over(settings(), &["a", "b", "c"]).role(), Role::Pending);
    assert_eq!(taking_over(tolerant(), &["a", "c"]).role(), Role::Pending);
}

#[test]
fn paused_cluster_is_configured_once_it_is_resumed() {
    let paused = Some(ochopod_store::Pause { by: "127.0.0.1".to_owned(), since: 7, reason: "upgrade".to_owned() });
    let mut leader = TestLeader::configured(settings(), observation(&["a"]));
    leader.see(Observation { paused: paused.clone(), ..observation(&["a"]) });
    assert_eq!((leader.role(), leader.status().as_str()), (Role::Leader, "* configurations paused: upgrade"));
    leader.see(Observation { paused, ..observation(&["a", "b"]) });
    leader.wait(3600 * SECOND);
    assert_eq!(leader.names(RolloutTask::Check), [""; 0]);
    assert_eq!((leader.role(), leader.status().as_str()), (Role::Pending, "* configurations paused: upgrade"));
    leader.see(observation(&["a", "b"]));
    leader.configure();
    assert_eq!(leader.names(RolloutTask::On), ["a", "b"]);
}

#[test]
fn pause_stops_a_rollout_before_its_next_batch() {
    let mut leader =
        TestLeader::seeing(ModelSettings { batch: Batch::Pods(1), ..settings() }, observation(&["a", "b"]));
    pass_check(&mut leader);
    let paused = Some(ochopod_store::Pause { by: String::new(), since: 0, reason: "stop".to_owned() });
    leader.see(Observation { paused, ..observation(&["a", "b"]) });
    leader.answer(RolloutTask::On, "a", 200);
    leader.wait(60 * SECOND);
    assert_eq!((leader.names(RolloutTask::On), leader.role()), (vec!["a".to_owned()], Role::Pending));
}

#[test]
fn role_change_updates_the_snapshot_and_reconciles_and_configures_nothing() {
    let mut leader = TestLeader::configured(settings(), observation(&["a", "b"]));
    let primary = PodState { role: Some("primary".to_owned()), ..state(true) };
    leader.step(states(&[("a", primary), ("b", state(true))]));
    let Some(StoreWrite::Snapshot(snapshot)) = leader.writes().pop() else { panic!("no snapshot was written") };
    assert_eq!((snapshot.pods[&PodId::from("a")].role(), snapshot.pods[&PodId::from("b")].role()), ("primary", ""));
    let Some(Effect::Reconcile(view)) = leader.effects.last() else { panic!("{:?}", leader.effects.last()) };
    assert_eq!(view.pods[&PodId::from("a")].role(), "primary");
    leader.step(Event::Written(WriteResult::Done));
    leader.wait(3600 * SECOND);
    assert_eq!((leader.role(), leader.names(RolloutTask::Check).len(), reconciliations(&leader)), (Role::Leader, 0, 1));
}

#[test]
fn snapshot_has_the_roles_of_now_while_the_next_configuration_is_held() {
    let mut leader = TestLeader::configured(settings(), observation(&["a", "b"]));
    let primary = || PodState { role: Some("primary".to_owned()), ..state(true) };
    leader.step(states(&[("a", state(true)), ("b", primary())]));
    leader.step(Event::Written(WriteResult::Done));
    leader.see(observation(&["a"]));
    leader.wait(leader.damper());
    leader.answer_all(RolloutTask::Check, 406);
    leader.step(states(&[("a", primary())]));
    let Some(StoreWrite::Snapshot(snapshot)) = leader.writes().pop() else { panic!("no snapshot was written") };
    let roles: Vec<_> = snapshot.pods.iter().map(|(id, pod)| (id.as_str(), pod.role())).collect();
    assert_eq!(roles, [("a", "primary"), ("b", "")]);
}

#[test]
fn role_change_of_a_dependency_confirms_the_configuration_again() {
    let with_role = |role: &str| {
        let mut observation = with_dependency(&["a", "b"], &["x", "y"], false);
        let x = &mut observation.dependencies.get_mut("db").unwrap().snapshot;
        x.insert(PodId::from("x"), Arc::new(pods(&["x"])[&PodId::from("x")].with_role(role)));
        observation
    };
    let mut leader = TestLeader::configured(settings(), with_role(""));
    leader.see(with_role("primary"));
    let posts = leader.posts(RolloutTask::Ok);
    assert_eq!(leader.names(RolloutTask::Ok), ["a", "b"]);
    assert_eq!(posts[0].view.dependencies["db"][&PodId::from("x")].role(), "primary");
    assert_eq!((reconciliations(&leader), leader.names(RolloutTask::Check).len()), (1, 0));
    leader.step(Event::Reconciled(Ok(())));
    leader.see(with_role("primary"));
    leader.step(states(&[("a", PodState { role: Some("follower".to_owned()), ..state(true) }), ("b", state(true))]));
    assert_eq!(leader.posts(RolloutTask::Ok).len(), 2, "only roles of dependencies are confirmed");
}

#[test]
fn reconcile_follows_each_configuration_and_is_retried_with_its_error_in_the_status() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a"]));
    leader.configure();
    assert_eq!(reconciliations(&leader), 1);
    leader.step(Event::Reconciled(Err("no quorum".to_owned())));
    assert_eq!(leader.status(), "* reconcile: no quorum");
    leader.wait(SECOND);
    assert_eq!(reconciliations(&leader), 2);
    leader.step(Event::Reconciled(Ok(())));
    assert_eq!(leader.status(), "");
    leader.wait(2 * SECOND);
    assert_eq!(count(&leader, |effect| matches!(effect, Effect::Probe(_))), 1, "a probe follows");
    leader.step(Event::Probed(Ok(None)));
    leader.see(observation(&["a", "b"]));
    leader.configure();
    assert_eq!(reconciliations(&leader), 3);
}

#[test]
fn change_of_the_cluster_stops_a_reconciliation() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a"]));
    leader.configure();
    leader.see(observation(&["a", "b"]));
    assert_eq!(count(&leader, |effect| *effect == Effect::CancelReconcile), 1);
}

#[test]
fn revived_pod_is_configured_although_nothing_else_changed() {
    let mut leader = TestLeader::configured(settings(), observation(&["a", "b"]));
    let revived = PodState { unconfigured: true, ..PodState::default() };
    leader.step(states(&[("a", state(true)), ("b", revived.clone())]));
    leader.wait(SECOND);
    leader.step(states(&[("a", state(true)), ("b", state(true))]));
    leader.wait(60 * SECOND);
    assert_eq!(leader.role(), Role::Leader, "what it published was outdated");
    leader.step(states(&[("a", state(true)), ("b", revived)]));
    leader.wait(10 * SECOND);
    leader.configure();
    assert_eq!(leader.names(RolloutTask::On), ["a", "b"]);
    leader.see(dead(&observation(&["a", "b"]), "b"));
    leader.step(Event::Written(WriteResult::Done));
    leader.step(states(&[("a", state(true)), ("b", state(true))]));
    leader.effects.clear();
    leader.see(observation(&["a", "b"]));
    leader.configure();
    assert_eq!(leader.names(RolloutTask::On), ["a", "b"], "a registration that is alive again is enough");
}

#[test]
fn pod_that_dies_and_is_revived_after_its_on_is_configured_again() {
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    leader.wait(10 * MILLI);
    leader.answer_all(RolloutTask::Check, 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.answer(RolloutTask::On, "b", 200);
    leader.see(dead(&observation(&["a", "b"]), "b"));
    leader.see(observation(&["a", "b"]));
    leader.answer(RolloutTask::On, "a", 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.effects.clear();
    leader.wait(10 * MILLI);
    assert_eq!(leader.names(RolloutTask::Check), ["a", "b"]);
    leader.answer_all(RolloutTask::Check, 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.answer_all(RolloutTask::On, 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.wait(10 * MILLI);
    assert_eq!(leader.role(), Role::Leader);
}

#[test]
fn settings_of_a_replaced_plugin_apply_to_the_next_configuration() {
    let mut leader = TestLeader::configured(settings(), observation(&["a", "b"]));
    assert!(!leader.machine.set_settings(settings()), "they are the same");
    assert!(leader.machine.set_settings(ModelSettings { sequential: true, ..settings() }));
    leader.see(observation(&["a", "b", "c"]));
    pass_check(&mut leader);
    assert_eq!(leader.names(RolloutTask::On), ["a"]);
}

#[test]
fn mixed_plugins_are_in_the_status() {
    let mut leader = TestLeader::configured(settings(), observation(&["a", "b", "c"]));
    let with = |plugin: &str| PodState { plugin: Some(plugin.to_owned()), ..state(true) };
    leader.step(states(&[("a", with("1a2b")), ("b", with("1a2b")), ("c", with("9f8e"))]));
    assert_eq!(leader.status(), "* mixed plugins: 1a2b on 2, 9f8e on 1");
    leader.step(states(&[("a", with("9f8e")), ("b", with("9f8e")), ("c", with("9f8e"))]));
    assert_eq!(leader.status(), "");
}

#[test]
fn pause_stops_a_rollout_that_has_not_started_pods() {
    let paused = Some(ochopod_store::Pause { by: String::new(), since: 0, reason: "stop".to_owned() });
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    leader.wait(leader.damper());
    leader.answer_all(RolloutTask::Check, 200);
    leader.see(Observation { paused: paused.clone(), ..observation(&["a", "b"]) });
    leader.step(Event::Written(WriteResult::Done));
    leader.wait(60 * SECOND);
    assert_eq!(leader.names(RolloutTask::On), [""; 0]);
    // A pod that dies does not start another one either.
    let mut leader = TestLeader::seeing(settings(), observation(&["a", "b"]));
    pass_check(&mut leader);
    leader.see(Observation { paused, ..observation(&["a", "b"]) });
    leader.answer(RolloutTask::On, "a", 406);
    leader.wait(60 * SECOND);
    assert_eq!(leader.names(RolloutTask::Check).len(), 2);
}

#[test]
fn rollout_without_a_tolerated_pod_waits_for_readiness() {
    let mut leader = TestLeader::seeing(ModelSettings { tolerate: 1, ..settings() }, observation(&["a", "b", "c"]));
    leader.wait(leader.damper());
    leader.answer(RolloutTask::Check, "c", 503);
    leader.answer(RolloutTask::Check, "a", 200);
    leader.answer(RolloutTask::Check, "b", 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.answer(RolloutTask::On, "a", 200);
    not_ready(&mut leader, "b", "joining");
    leader.wait(SECOND);
    leader.answer(RolloutTask::On, "b", 200);
    leader.step(Event::Written(WriteResult::Done));
    assert_eq!((leader.role(), leader.names(RolloutTask::Check).len()), (Role::Leader, 3));
}

#[test]
fn pod_that_is_left_out_is_asked_again_after_a_change_that_was_reverted() {
    let settings = ModelSettings { tolerate: 1, damper: 5 * SECOND, ..settings() };
    let mut leader = TestLeader::seeing(settings, observation(&["a", "b"]));
    leader.wait(leader.damper());
    leader.answer(RolloutTask::Check, "b", 503);
    leader.answer(RolloutTask::Check, "a", 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.answer_all(RolloutTask::On, 200);
    leader.step(Event::Written(WriteResult::Done));
    leader.wait(2 * SECOND);
    leader.effects.clear();
    leader.see(observation(&["a", "b", "c"]));
    leader.see(observation(&["a", "b"]));
    leader.wait(2 * SECOND);
    assert_eq!(leader.names(RolloutTask::Check), ["b"]);
}
