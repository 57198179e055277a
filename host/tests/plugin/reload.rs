//! Replacement of a plugin between two callbacks, and what happens to one that fails its first calls.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ochopod_model::status::PluginReport;
use ochopod_plugin::{
    self as plugin, Compiler, Grants, LoadError, Plugin, PluginError, PluginSlot, PodPlugin, PodSandbox,
};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::kit::{ENGINE, LONG_TIMEOUT, cache, component, load, plain, pod, services, view};

/// Returns a plugin of a pod, in force.
async fn slot(path: &Path, pod: &PodSandbox) -> PluginSlot {
    let plugin = load(path, pod).await.unwrap();
    let (lifecycle, model) = (plugin.description().lifecycle.clone(), plugin.description().model.clone());
    PluginSlot::new(PodPlugin::new(plugin, pod, lifecycle, model), path)
}

/// Puts another plugin in force, as a reload does. Returns how long the switch took.
async fn replace(slot: &PluginSlot, path: &Path) -> Duration {
    let plugin = load(path, &plain()).await.unwrap();
    let (lifecycle, model) = (plugin.description().lifecycle.clone(), plugin.description().model.clone());
    let compiled = Instant::now();
    let new = slot.current().successor(plugin, lifecycle, model).await.unwrap();
    slot.replace(new, Instant::now());
    compiled.elapsed()
}

/// Returns the same guest as another component: with a custom section.
fn variant(name: &str, directory: &Path) -> PathBuf {
    let path = directory.join(format!("{name}.wasm"));
    fs::write(&path, [&fs::read(component(name)).unwrap()[..], b"\0\x02\x01x"].concat()).unwrap();
    path
}

async fn check(slot: &PluginSlot) -> (Result<Map<String, Value>, PluginError>, bool) {
    let call = slot.begin("sanity-check");
    let result = call.plugin().lifecycle().sanity_check(7, LONG_TIMEOUT).await.map(|(metrics, _)| metrics);
    let is_superseded = call.end(result.as_ref().err());
    (result, is_superseded)
}

#[tokio::test]
async fn callback_ends_with_the_plugin_with_which_it_began_and_the_next_has_the_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let slot = slot(&component("misbehaving"), &plain()).await;
    let (identity, old) = (slot.identity(), slot.current());
    assert_eq!((identity.borrow().name.as_str(), &*identity.borrow().digest), ("misbehaving", old.plugin().digest()));
    let call = slot.begin("signaled");
    let body = json!({"try": "act", "with": "sleep:1"});
    let sleeping = call.plugin().lifecycle().signaled(Some(&body), None, LONG_TIMEOUT);
    let other = variant("misbehaving", directory.path());
    let (result, took) = tokio::join!(sleeping, replace(&slot, &other));
    assert!(result.is_ok() && !call.end(None), "{result:?}");
    assert!(took < Duration::from_millis(500), "the switch took {took:?}");
    assert_eq!(*identity.borrow().digest, *slot.current().plugin().digest());
    assert_ne!(slot.current().plugin().digest(), old.plugin().digest());
    for calls in 1..=3 {
        let (metrics, is_superseded) = check(&slot).await;
        assert_eq!((&metrics.unwrap()["calls"], is_superseded), (&json!(calls), false), "a new instance");
    }
    assert_eq!(slot.trial_ends_at(), None, "it passed");
}

#[tokio::test]
async fn plugin_that_fails_its_first_check_is_rolled_back_and_the_call_is_repeated() {
    let (report, reported) = watch::channel(PluginReport::default());
    let pod = PodSandbox::new(plugin::SandboxConfig { report, ..services(&[], Grants::default()) });
    let slot = slot(&component("misbehaving"), &pod).await;
    let old = slot.current().plugin().digest().to_owned();
    check(&slot).await.0.unwrap();
    replace(&slot, &component("sanity")).await;
    let bad = slot.current().plugin().digest().to_owned();
    assert_eq!((slot.current().settings().lifecycle.checks, slot.trial_ends_at().is_some()), (3, true));
    let (result, is_superseded) = check(&slot).await;
    assert!(result.is_err() && is_superseded, "{result:?}");
    assert_eq!((slot.current().plugin().digest(), slot.trial_ends_at()), (&*old, None));
    let (metrics, is_superseded) = check(&slot).await;
    assert_eq!((&metrics.unwrap()["calls"], is_superseded), (&json!(2), false), "the instance was kept");
    let status = reported.borrow().status(Instant::now());
    let expected = format!("* plugin {} rolled back: sanity-check: let us fail", &bad[..8]);
    assert!(status.starts_with(&expected), "{status}");
    slot.forget_rollback();
    assert_eq!(reported.borrow().status(Instant::now()), "");
}

#[tokio::test]
async fn trap_of_the_model_rolls_back_too_and_a_failure_after_the_trial_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let pod = pod(&[("ochopod_test_probe", "trap")], Grants::default());
    let slot = slot(&component("hello"), &pod).await;
    let old = slot.current().plugin().digest().to_owned();
    replace(&slot, &component("misbehaving")).await;
    let call = slot.begin("probe");
    let error = call.plugin().model().probe(&view(), LONG_TIMEOUT).await.unwrap_err();
    assert!(call.end(Some(&error)), "{error}");
    assert_eq!(slot.current().plugin().digest(), old);
    replace(&slot, &variant("misbehaving", directory.path())).await;
    let new = slot.current().plugin().digest().to_owned();
    for _ in 0..3 {
        assert!(check(&slot).await.0.is_ok());
    }
    let call = slot.begin("probe");
    let error = call.plugin().model().probe(&view(), LONG_TIMEOUT).await.unwrap_err();
    assert!(!call.end(Some(&error)), "it is in force");
    assert_eq!(slot.current().plugin().digest(), new);
}

#[tokio::test]
async fn plugin_replaced_during_its_trial_is_skipped_by_a_rollback() {
    let directory = tempfile::tempdir().unwrap();
    let slot = slot(&component("misbehaving"), &plain()).await;
    let old = slot.current().plugin().digest().to_owned();
    replace(&slot, &variant("misbehaving", directory.path())).await;
    replace(&slot, &component("sanity")).await;
    assert!(check(&slot).await.1);
    assert_eq!(slot.current().plugin().digest(), old);
}

#[tokio::test]
async fn command_is_launched_with_the_settings_of_the_plugin_that_computed_it() {
    let slot = slot(&component("misbehaving"), &plain()).await;
    replace(&slot, &component("misbehaved")).await;
    let is_shell = |slot: &PluginSlot| slot.launch().lifecycle.shell;
    assert!(slot.current().settings().lifecycle.shell && !is_shell(&slot));
    let call = slot.begin("configure");
    call.plugin().lifecycle().configure(&view(), LONG_TIMEOUT).await.unwrap();
    assert!(!call.end(None) && is_shell(&slot));
}

#[tokio::test]
async fn posted_component_must_be_a_component_of_this_contract() {
    let directory = tempfile::tempdir().unwrap();
    let compiled = directory.path().join("plugin.wasm");
    plugin::compile(&component("hello"), &compiled).unwrap();
    let load = async |path: &Path| {
        Plugin::load_component(&ENGINE, path, Some(&cache()), &Compiler::InProcess, &plain()).await.unwrap_err()
    };
    assert!(matches!(load(&compiled).await, LoadError::NativeCode { .. }));
    assert!(matches!(load(&component("wrong-version")).await, LoadError::Version { .. }));
}

#[tokio::test]
async fn wants_beyond_those_of_another_plugin_are_named() {
    let wanting = pod(&[("ochopod_test_network", "peers,db:5432,loopback:80")], Grants::default());
    let (first, other) = (
        load(&component("misbehaving"), &plain()).await.unwrap(),
        load(&component("misbehaving"), &wanting).await.unwrap(),
    );
    let exceeding = other.description().wants.exceeding(&first.description().wants, &Grants::default());
    assert_eq!(exceeding, ["--net peers", "--net db:5432", "loopback:80"]);
    assert_eq!(first.description().wants.exceeding(&other.description().wants, &Grants::default()), [""; 0]);
}
