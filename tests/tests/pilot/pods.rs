//! `ochopod run PLUGIN --config FILE`: a pod with company.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::ensure;
use nix::sys::signal::Signal;
use ochopod_tests::{Pod, PodBuilder, Result, SOON, Site, artifacts, eventually, steadily};
use serde_json::{Value, json};

use crate::corner::{Corner, backend, service, sh, with};

/// A service that is as healthy as the plugin says.
fn sane() -> Value {
    service("app", json!({ "health": "sanity-check", "tags": ["pod"] }))
}

fn write(site: &Site, configuration: &Value) -> Result<PathBuf> {
    let file = site.scratch().join("company.json");
    fs::write(&file, configuration.to_string())?;
    Ok(file)
}

/// A pod of the misbehaving guest, which behaves, with this configuration.
fn pod(site: &Site, configuration: &Value) -> Result<PodBuilder> {
    let file = write(site, configuration)?.display().to_string();
    let pod = site.pod(&artifacts::misbehaving()?).counted("exec sleep 86400");
    Ok(pod.set("set_check_every", 1).set("set_checks", 1000).set("set_grace", 5).flags(["--config", &file]))
}

/// From now on the sanity check does this.
async fn behave(pod: &Pod, how: &str) -> Result {
    let body = json!({ "behave": { "sanity-check": how } });
    pod.client().post_json("/control/signal/60", &body).await?.is(200)
}

#[tokio::test]
async fn a_service_is_in_the_pods_own_store_while_the_plugin_finds_it_sane() -> Result {
    let site = Site::new().await?;
    let mut pod = pod(&site, &json!({ "services": [sane()] }))?.start()?;
    let names = async || site.store().children("/ochopod/services/app").await;
    let becomes = async |there: bool| {
        eventually(&format!("registered is {there}"), SOON, async || {
            let names = names().await?;
            ensure!(names.is_empty() != there, "there are {names:?}");
            Ok(names)
        })
        .await
    };
    let ids = becomes(true).await?;
    ensure!(ids.len() == 1 && ids[0].starts_with("app-"), "there are {ids:?}");
    let path = format!("/ochopod/services/app/{}", ids[0]);
    let kept = site.store().json(&path).await?;
    ensure!(kept["name"] == "app" && kept["port"] == 8080 && kept["address"] == "127.0.0.1", "it holds {kept}");
    ensure!(kept["id"] == ids[0] && kept["tags"] == json!(["pod"]), "it holds {kept}");
    site.store().owner(&path).await?;

    behave(&pod, "reject").await?;
    becomes(false).await?;
    ensure!(pod.client().info().await?["process"] == "running", "the sub-process does not run");
    behave(&pod, "").await?;
    becomes(true).await?;
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not leave with code 0");
    ensure!(names().await?.is_empty(), "it is still registered");
    pod.leaves_nothing().await
}

#[tokio::test]
async fn it_is_deregistered_before_the_sub_process_is_asked_to_end() -> Result {
    let (site, corner) = (Site::new().await?, Corner::new().await?);
    let moment = |name: &str| format!("curl -s http://{}/moment/{name} >/dev/null", corner.consul.address());
    let hooks = ["preStart", "preStop", "postStop"].map(|hook| (hook.to_owned(), sh(&moment(hook))));
    let configuration = with(json!({ "services": [sane()] }), hooks.into_iter().collect());
    let command = format!("trap '{}; exit 0' TERM; while :; do sleep 0.05; done", moment("asked"));
    let mut pod = pod(&site, &corner.with_place(configuration))?.counted(&command).start()?;
    corner.becomes("app", "passing").await?;
    let asked = corner.asked("/moment/preStart");
    ensure!(asked.first() < corner.asked("/service/register").first(), "preStart was not first");
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not leave with code 0");
    let moments = ["/service/deregister/app-", "/moment/preStop", "/moment/asked", "/moment/postStop"];
    let places: Vec<_> = moments.iter().filter_map(|moment| corner.asked(moment).last().copied()).collect();
    ensure!(places.len() == moments.len() && places.is_sorted(), "they came as {places:?}");
    corner.is("app", "absent")
}

#[tokio::test]
async fn a_pod_that_is_off_is_not_found() -> Result {
    let (site, corner) = (Site::new().await?, Corner::new().await?);
    let pod = pod(&site, &corner.with_place(json!({ "services": [sane()] })))?.start()?;
    corner.becomes("app", "passing").await?;
    pod.client().post("/control/off/30").await?.json(200)?;
    eventually("it is not healthy", SOON, async || {
        let status = corner.status("app");
        ensure!(status != "passing", "it is {status}");
        Ok(())
    })
    .await?;
    pod.client().post("/control/on/30").await?.json(200)?;
    corner.becomes("app", "passing").await
}

#[tokio::test]
async fn its_metrics_are_on_the_pods_page_too() -> Result {
    let (site, corner) = (Site::new().await?, Corner::new().await?);
    let configuration = json!({ "services": [service("checked", json!({ "health": "true" }))] });
    let pod = pod(&site, &corner.with_place(configuration))?.start()?;
    corner.becomes("checked", "passing").await?;
    let page = pod.client().get("/metrics").await?;
    page.is(200)?;
    let page = String::from_utf8(page.body.to_vec())?;
    for family in ["ochopod_registered ", "ochopod_pilot_health_checks_total{service=\"checked\""] {
        ensure!(page.contains(family), "there is no {family} on {page}");
    }
    let mut families: Vec<_> = page.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let count = families.len();
    families.sort_unstable();
    families.dedup();
    ensure!(families.len() == count, "a family is there twice: {page}");
    Ok(())
}

#[tokio::test]
async fn hup_reloads_it_and_usr1_is_maintenance() -> Result {
    let (site, corner) = (Site::new().await?, Corner::new().await?);
    let one = json!({ "services": [sane()], "backends": [backend("db", "echo . >> changes")] });
    let pod = pod(&site, &corner.with_place(one.clone()))?.start()?;
    corner.becomes("app", "passing").await?;
    let two = with(one, json!({ "services": [sane(), service("new", json!({}))] }));
    write(&site, &corner.with_place(two))?;
    pod.signal(Signal::SIGHUP)?;
    corner.becomes("new", "passing").await?;
    write(&site, &json!({ "nope": true }))?;
    pod.signal(Signal::SIGHUP)?;
    pod.logs("nope").await?;
    corner.add("a", "db", json!({})).await?;
    pod.wrote("changes", 1).await?;
    pod.signal(Signal::SIGUSR1)?;
    corner.becomes("app", "absent").await?;
    pod.signal(Signal::SIGUSR1)?;
    corner.becomes("app", "passing").await?;
    ensure!(pod.starts()?.len() == 1, "the sub-process was started again");
    Ok(())
}

#[tokio::test]
async fn a_bad_configuration_is_told_with_bad_settings_or_before_anything_starts() -> Result {
    let site = Site::new().await?;
    let mut pod = pod(&site, &json!({ "services": [with(sane(), json!({ "pol": 3 }))] }))?.start()?;
    ensure!(pod.exit_code().await? == 64, "it did not leave with code 64");
    ensure!(pod.console()?.contains("pol"), "it said {}", pod.console()?);
    Ok(())
}

#[tokio::test]
async fn a_pod_that_hangs_in_a_check_is_not_held_up_by_its_company() -> Result {
    let (site, corner) = (Site::new().await?, Corner::new().await?);
    let hanging = service("hanging", json!({ "health": sh("exec sleep 86400"), "timeout": "1h" }));
    let pod = pod(&site, &corner.with_place(json!({ "services": [sane(), hanging] })))?.start()?;
    corner.becomes("app", "passing").await?;
    steadily("it answers", Duration::from_secs(2), async || {
        corner.is("app", "passing")?;
        pod.client().info().await.map(|_| ())
    })
    .await
}
