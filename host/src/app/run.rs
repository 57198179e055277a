//! `ochopod run`: one pod.

use super::{
    error::StartError,
    house::{House, look},
    pod::{Pod, Stop},
};
use crate::{
    cli::Run,
    coord::Ensemble,
    init::{Ending, Terminations},
    settings::{Env, Given, Settings},
    telemetry::Log,
};

pub(super) async fn run(run: Run, env: &Env) -> Result<Ending, StartError> {
    let terminations =
        Terminations::listen().map_err(|source| StartError::System { what: "cannot handle signals", source })?;
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
    let ensemble = Ensemble::ZooKeeper { address: zk, timeout: settings.session };
    let house = tokio::select! {
        house = House::open(&settings, &run.plugin, ensemble, log) => house?,
        () = terminations.requested().cancelled() => return Ok(Ending::Stopped),
    };
    let pod = Pod::build(&house, settings).await?;
    let stop = Stop { requested: terminations.requested().clone(), forced: terminations.forced().clone() };
    let ending = pod.run(stop.clone()).await;
    house.close(&stop).await;
    Ok(ending)
}
