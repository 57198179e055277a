//! `ochopod run PLUGIN --config FILE`: a pod with pilot services.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::ensure;
use nix::sys::signal::Signal;
use ochopod_tests::{DEFAULT_TIMEOUT, Pod, PodBuilder, Result, TestEnv, artifacts, consistently, eventually};
use serde_json::{Value, json};

use crate::pilot_env::{PilotEnv, backend, service, sh, with};

/// Returns a service whose health is the plugin's sanity check.
fn sanity_service() -> Value {
    service("app", json!({ "health": "sanity-check", "tags": ["pod"] }))
}

fn write(env: &TestEnv, configuration: &Value) -> Result<PathBuf> {
    let file = env.scratch().join("pilot.json");
    fs::write(&file, configuration.to_string())?;
    Ok(file)
}

/// Returns a pod of the misbehaving guest without a misbehaviour, with this configuration.
fn pod(env: &TestEnv, configuration: &Value) -> Result<PodBuilder> {
    let file = write(env, configuration)?.display().to_string();
    let pod = env.pod(&artifacts::misbehaving()?).count_starts("exec sleep 86400");
    Ok(pod.set("set_check_every", 1).set("set_checks", 1000).set("set_grace", 5).flags(["--config", &file]))
}

/// Sets the behaviour of the sanity check from now on.
async fn behave(pod: &Pod, how: &str) -> Result {
    let body = json!({ "behave": { "sanity-check": how } });
    pod.client().post_json("/control/signal/60", &body).await?.is(200)
}

#[tokio::test]
async fn a_service_is_in_the_pods_own_store_while_the_plugin_finds_it_sane() -> Result {
    let env = TestEnv::new().await?;
    let mut pod = pod(&env, &json!({ "services": [sanity_service()] }))?.start()?;
    let names = async || env.store().children("/ochopod/services/app").await;
    let wait_healthy = async |there: bool| {
        eventually(&format!("registered is {there}"), DEFAULT_TIMEOUT, async || {
            let names = names().await?;
            ensure!(names.is_empty() != there, "there are {names:?}");
            Ok(names)
        })
        .await
    };
    let ids = wait_healthy(true).await?;
    ensure!(ids.len() == 1 && ids[0].starts_with("app-"), "there are {ids:?}");
    let path = format!("/ochopod/services/app/{}", ids[0]);
    let kept = env.store().json(&path).await?;
    ensure!(kept["name"] == "app" && kept["port"] == 8080 && kept["address"] == "127.0.0.1", "it holds {kept}");
    ensure!(kept["id"] == ids[0] && kept["tags"] == json!(["pod"]), "it holds {kept}");
    env.store().owner(&path).await?;

    behave(&pod, "reject").await?;
    wait_healthy(false).await?;
    ensure!(pod.client().info().await?["process"] == "running", "the sub-process does not run");
    behave(&pod, "").await?;
    wait_healthy(true).await?;
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
    ensure!(names().await?.is_empty(), "it is still registered");
    pod.assert_clean().await
}

#[tokio::test]
async fn it_is_deregistered_before_the_sub_process_is_terminated() -> Result {
    let (env, pilot_env) = (TestEnv::new().await?, PilotEnv::new().await?);
    let moment = |name: &str| format!("curl -s http://{}/moment/{name} >/dev/null", pilot_env.consul.address());
    let hooks = ["preStart", "preStop", "postStop"].map(|hook| (hook.to_owned(), sh(&moment(hook))));
    let configuration = with(json!({ "services": [sanity_service()] }), hooks.into_iter().collect());
    let command = format!("trap '{}; exit 0' TERM; while :; do sleep 0.05; done", moment("terminated"));
    let mut pod = pod(&env, &pilot_env.with_registry(configuration))?.count_starts(&command).start()?;
    pilot_env.wait_status("app", "passing").await?;
    let calls = pilot_env.calls("/moment/preStart");
    ensure!(calls.first() < pilot_env.calls("/service/register").first(), "preStart was not first");
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
    let moments = ["/service/deregister/app-", "/moment/preStop", "/moment/terminated", "/moment/postStop"];
    let places: Vec<_> = moments.iter().filter_map(|moment| pilot_env.calls(moment).last().copied()).collect();
    ensure!(places.len() == moments.len() && places.is_sorted(), "their order is {places:?}");
    pilot_env.is("app", "absent")
}

#[tokio::test]
async fn a_pod_serves_its_control_port_while_pre_start_runs() -> Result {
    let env = TestEnv::new().await?;
    let configuration = json!({ "preStart": sh("echo . > in-hook; while [ ! -e go ]; do sleep 0.05; done") });
    let mut pod = pod(&env, &configuration)?.start()?;
    pod.wait_lines("in-hook", 1).await?;
    pod.client().get("/healthz").await?.is(200)?;
    let ready = pod.client().get("/readyz").await?.json(503)?;
    ensure!(ready["error"] == "pod is not configured yet", "it answered {ready}");
    ensure!(pod.starts()?.is_empty(), "it did not wait for preStart");
    fs::write(pod.directory().join("go"), "")?;
    pod.started(1).await?;
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
    Ok(())
}

#[tokio::test]
async fn a_pre_stop_that_hangs_leaves_the_sub_process_half_of_its_time() -> Result {
    let env = TestEnv::new().await?;
    let configuration = json!({ "preStop": sh(STUBBORN_HOOK) });
    let pod = pod(&env, &configuration)?.set("stop_timeout", 10);
    let mut pod =
        pod.count_starts("trap 'sleep 0.6; echo . > ended; exit 0' TERM; while :; do sleep 0.05; done").start()?;
    pod.started(1).await?;
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
    ensure!(pod.lines("ended").len() == 1, "the sub-process was killed before its time was over");
    Ok(())
}

#[tokio::test]
async fn a_post_stop_that_hangs_leaves_coprocesses_half_of_the_time() -> Result {
    let env = TestEnv::new().await?;
    let coprocess = "echo . > up; trap 'sleep 0.6; echo . > ended; exit 0' TERM; while :; do sleep 0.05; done";
    let configuration = json!({ "postStop": sh(STUBBORN_HOOK), "coprocesses": [{ "command": sh(coprocess) }] });
    let mut pod = pod(&env, &configuration)?.set("stop_timeout", 10).start()?;
    pod.started(1).await?;
    pod.wait_lines("up", 1).await?;
    pod.term()?;
    pod.exit_code().await?;
    ensure!(pod.lines("ended").len() == 1, "the coprocess was killed before its time was over");
    Ok(())
}

#[tokio::test]
async fn coprocesses_of_a_pod_have_until_the_deadline_to_exit() -> Result {
    let env = TestEnv::new().await?;
    let coprocess = "trap 'sleep 7; echo . > ended; exit 0' TERM; echo . > up; while :; do sleep 0.05; done";
    let configuration = json!({ "stopTimeout": 1, "coprocesses": [{ "command": sh(coprocess) }] });
    let mut pod = pod(&env, &configuration)?.set("stop_timeout", 30).start()?;
    pod.started(1).await?;
    pod.wait_lines("up", 1).await?;
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
    ensure!(pod.lines("ended").len() == 1, "the coprocess was killed before the deadline");
    pod.assert_clean().await
}

/// Hangs and ignores SIGTERM.
const STUBBORN_HOOK: &str = "trap '' TERM; while :; do sleep 0.05; done";

#[tokio::test]
async fn a_pod_that_is_off_is_not_found() -> Result {
    let (env, pilot_env) = (TestEnv::new().await?, PilotEnv::new().await?);
    let pod = pod(&env, &pilot_env.with_registry(json!({ "services": [sanity_service()] })))?.start()?;
    pilot_env.wait_status("app", "passing").await?;
    pod.client().post("/control/off/30").await?.json(200)?;
    eventually("it is not healthy", DEFAULT_TIMEOUT, async || {
        let status = pilot_env.status("app");
        ensure!(status != "passing", "it is {status}");
        Ok(())
    })
    .await?;
    pod.client().post("/control/on/30").await?.json(200)?;
    pilot_env.wait_status("app", "passing").await
}

#[tokio::test]
async fn its_metrics_are_on_the_pods_page_too() -> Result {
    let (env, pilot_env) = (TestEnv::new().await?, PilotEnv::new().await?);
    let configuration = json!({ "services": [service("checked", json!({ "health": "true" }))] });
    let pod = pod(&env, &pilot_env.with_registry(configuration))?.start()?;
    pilot_env.wait_status("checked", "passing").await?;
    let page = pod.client().get("/metrics").await?;
    page.is(200)?;
    let page = String::from_utf8(page.body.to_vec())?;
    for family in ["ochopod_registered ", "ochopod_pilot_health_checks_total{service=\"checked\""] {
        ensure!(page.contains(family), "missing {family} on {page}");
    }
    let mut families: Vec<_> = page.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let count = families.len();
    families.sort_unstable();
    families.dedup();
    ensure!(families.len() == count, "duplicate family: {page}");
    Ok(())
}

#[tokio::test]
async fn hup_reloads_it_and_usr1_is_maintenance() -> Result {
    let (env, pilot_env) = (TestEnv::new().await?, PilotEnv::new().await?);
    let one = json!({ "services": [sanity_service()], "backends": [backend("db", "echo . >> changes")] });
    let pod = pod(&env, &pilot_env.with_registry(one.clone()))?.start()?;
    pilot_env.wait_status("app", "passing").await?;
    let two = with(one, json!({ "services": [sanity_service(), service("new", json!({}))] }));
    write(&env, &pilot_env.with_registry(two))?;
    pod.signal(Signal::SIGHUP)?;
    pilot_env.wait_status("new", "passing").await?;
    write(&env, &json!({ "nope": true }))?;
    pod.signal(Signal::SIGHUP)?;
    pod.wait_log("nope").await?;
    pilot_env.add("a", "db", json!({})).await?;
    pod.wait_lines("changes", 1).await?;
    pod.signal(Signal::SIGUSR1)?;
    pilot_env.wait_status("app", "absent").await?;
    pod.signal(Signal::SIGUSR1)?;
    pilot_env.wait_status("app", "passing").await?;
    ensure!(pod.starts()?.len() == 1, "the sub-process was started again");
    Ok(())
}

#[tokio::test]
async fn a_bad_configuration_is_reported_with_bad_settings_or_before_anything_starts() -> Result {
    let env = TestEnv::new().await?;
    let mut pod = pod(&env, &json!({ "services": [with(sanity_service(), json!({ "pol": 3 }))] }))?.start()?;
    ensure!(pod.exit_code().await? == 64, "it did not exit with code 64");
    ensure!(pod.console()?.contains("pol"), "unexpected output {}", pod.console()?);
    Ok(())
}

#[tokio::test]
async fn a_pod_that_hangs_in_a_check_is_not_delayed_by_its_pilot_services() -> Result {
    let (env, pilot_env) = (TestEnv::new().await?, PilotEnv::new().await?);
    let hanging = service("hanging", json!({ "health": sh("exec sleep 86400"), "timeout": "1h" }));
    let pod = pod(&env, &pilot_env.with_registry(json!({ "services": [sanity_service(), hanging] })))?.start()?;
    pilot_env.wait_status("app", "passing").await?;
    consistently("it answers", Duration::from_secs(2), async || {
        pilot_env.is("app", "passing")?;
        pod.client().info().await.map(|_| ())
    })
    .await
}
