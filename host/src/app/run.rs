//! `ochopod run`: one pod, alone or in the company of what a configuration has.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    accompany::{self, Company},
    error::StartError,
    house::{House, look},
    pod::{Pod, Stop},
};
use crate::{
    cli::Run,
    coord::{Ensemble, ZooKeeperAddress},
    discovery::Place,
    init::{Ending, Signal, Terminations},
    pilot::{
        Loader, Orders,
        config::{Config, Source},
    },
    settings::{Env, Given, Settings},
    telemetry::Log,
};

pub(super) async fn run(run: Run, env: &Env) -> Result<Ending, StartError> {
    let (terminations, signals) = listen(&run, env)?;
    let machine = tokio::select! {
        machine = look(env, &run.settings) => machine?,
        () = terminations.requested().cancelled() => return Ok(Ending::Stopped),
    };
    let given = Given { env, flags: &run.settings, grants: &run.grants, machine: &machine };
    let (settings, zk) = Settings::read(given).map_err(StartError::Settings)?;
    let log = Log::start(settings.log_level, settings.log_format, settings.log.as_ref()).map_err(StartError::Log)?;
    for exposure in settings.exposures() {
        tracing::warn!("{exposure}");
    }
    if let Some(ip) = settings.misleading_ip(&zk) {
        tracing::warn!(
            "the other pods cannot reach this one: it registers as {ip}, though ZooKeeper is elsewhere ({zk}); \
             set ip (--ip, ochopod_ip) to the address of this machine"
        );
    }
    let loaded = settings.config.as_deref().map(|config| load(config, env, &zk)).transpose()?;
    let ensemble = Ensemble::ZooKeeper { address: zk, timeout: settings.session };
    let house = tokio::select! {
        house = House::open(&settings, &run.plugin, ensemble, log) => house?,
        () = terminations.requested().cancelled() => return Ok(Ending::Stopped),
    };
    let stop = Stop { requested: terminations.requested().clone(), forced: terminations.forced().clone() };
    let ending = match loaded {
        None => Pod::build(&house, settings, None).await?.run(stop.clone()).await,
        Some(loaded) => {
            let (ip, port) = (settings.registration.get("ip").and_then(Value::as_str), settings.listen.port());
            let company = Company::new(loaded, house.init.clone(), &settings.environment, settings.privileges.clone())
                .called(&format!("{}-{port}", ip.unwrap_or_default()));
            let pod = Pod::build(&house, settings, Some(Arc::clone(&company.metrics))).await?;
            let pilot = company.pilot(None, Some(pod.watch.lifecycle.clone()), pod.page()).await?;
            let orders = Orders { requested: stop.requested.clone(), forced: stop.forced.clone(), signals };
            let application = accompany::application(pod, house.init.clone());
            Ending::Accompanied(pilot.run(Some(application), orders).await)
        }
    };
    house.close(&stop).await;
    Ok(ending)
}

/// Signals other than TERM and INT mean something to a pod with company only.
fn listen(run: &Run, env: &Env) -> Result<(Terminations, mpsc::Receiver<Signal>), StartError> {
    let company = run.settings.config.is_some() || env.text("ochopod_config").is_some();
    let listening = if company {
        Terminations::listen_with_others()
    } else {
        Terminations::listen().map(|terminations| (terminations, mpsc::channel(1).1))
    };
    listening.map_err(|source| StartError::System { what: "cannot handle signals", source })
}

/// Loads the configuration of a pod, whose services are in its own ZooKeeper unless it says otherwise.
fn load(config: &str, env: &Env, zk: &ZooKeeperAddress) -> Result<(Loader, Config), StartError> {
    let source = Source::find(Some(config), env).map_err(|error| StartError::Configuration(error.into()))?;
    let loader = Loader::new(source, env).of_a_pod(Place::ZooKeeper(zk.clone()));
    let config = loader.load().map_err(StartError::Configuration)?;
    Ok((loader, config))
}
