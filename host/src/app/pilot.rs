//! `ochopod pilot`: a plain command, or none, with services, hooks and telemetry around it. No plugin, no engine.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{error::StartError, house::OWN_BINARY};
use crate::{
    cli,
    init::{Ending, Init, Privileges, Terminations},
    pilot::{
        Application, Crew, Environment, LoadError, Loader, Means, Orders, Outlet, Pilot, Runner, Shown,
        config::{Config, Source},
    },
    settings::{Env, hostname},
    status::LifecycleReport,
    telemetry::{Log, PilotMetrics, Sensors},
    template,
};

/// Where the configuration is when no flag says so.
const CONFIG: &str = "CONTAINERPILOT";
/// The commit that the binary was built from, where whoever built it said so.
const COMMIT: Option<&str> = option_env!("OCHOPOD_COMMIT");

pub(super) async fn pilot(pilot: cli::Pilot, env: &Env) -> Result<Ending, StartError> {
    if pilot.version {
        let commit = COMMIT.unwrap_or("unknown");
        return show(&format!("Version: {}\nGitHash: {commit}\n", env!("CARGO_PKG_VERSION")));
    }
    let source = Source::find(pilot.config.as_deref(), env.text(CONFIG));
    let loader = Loader::new(source.map_err(|error| StartError::Configuration(error.into()))?, env);
    if pilot.template {
        return write(&pilot.out, &loader.render().map_err(StartError::Configuration)?);
    }
    if pilot.is_check() {
        let config = loader.load().map_err(StartError::Configuration)?;
        let remarks: String = config.remarks.iter().map(|remark| format!("{remark}\n")).collect();
        return show(&format!("{remarks}the configuration is good\n"));
    }
    accompany(pilot.words, loader, env).await
}

async fn accompany(words: Vec<OsString>, loader: Loader, env: &Env) -> Result<Ending, StartError> {
    let (terminations, signals) = Terminations::listen_with_others()
        .map_err(|source| StartError::System { what: "cannot handle signals", source })?;
    let config = loader.load().map_err(StartError::Configuration)?;
    let log = Arc::new(Log::pilot(config.logging).map_err(StartError::Log)?);
    let init = Init::start(PathBuf::from(OWN_BINARY)).map_err(StartError::Init)?;
    let words = rendered(words, &loader);
    let grace = config.stop_timeout.unwrap_or_default();
    let aboard = Aboard::new(init.clone(), env, None);
    let environment = aboard.environment.clone();
    let pilot = aboard.pilot(loader, config, Some(log)).await?;
    let mut words = words.into_iter();
    let application = words.next().map(|program| {
        Application::program(program, words.collect(), init.clone(), environment)
    });
    let orders =
        Orders { requested: terminations.requested().clone(), forced: terminations.forced().clone(), signals };
    let code = pilot.run(application, orders).await;
    tokio::select! {
        biased;
        () = terminations.forced().cancelled() => init.finish(Duration::ZERO).await,
        () = init.finish(grace) => {}
    }
    Ok(Ending::Accompanied(code))
}
