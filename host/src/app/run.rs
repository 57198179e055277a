//! `ochopod run`: one pod, with the pilot services of a configuration if there is one.

use ochopod_entry::SystemError;
use ochopod_environment::Env;
use ochopod_init::{self as init, HostExit, SignalNumber, TerminationSignals};
use ochopod_store::StoreBackend;
use ochopod_telemetry::PodLog;
use tokio::sync::mpsc;

#[cfg(not(feature = "pilot"))]
use super::no_pilot_services::PilotServices;
#[cfg(feature = "pilot")]
use super::pilot_services::PilotServices;
use super::{
    error::StartError,
    host_context::{Detected, HostContext, off_thread},
    pod::Pod,
    shutdown::{Shutdown, report_stop_timeout},
};
use crate::{cli::RunArgs, settings::Settings};

pub(super) async fn run(run: RunArgs, env: &Env) -> Result<HostExit, StartError> {
    let (terminations, signals) = install_signal_handlers(&run, env)?;
    let detected = tokio::select! {
        detected = Detected::detect(env, &run.settings, false) => detected?,
        () = terminations.requested().cancelled() => return Ok(HostExit::Stopped),
    };
    let (owned, flags, grants) = (env.clone(), run.settings.clone(), run.grants.clone());
    let read = off_thread("settings", move || {
        let input = detected.input(&owned, &flags, &grants);
        let (settings, zk) = Settings::read(input).map_err(StartError::Settings)?;
        let log = PodLog::start(settings.log_level, settings.log_format, settings.log.as_ref());
        Ok::<_, StartError>((settings, zk, log.map_err(StartError::Log)?))
    });
    let (settings, zk, log) = tokio::select! {
        read = read => read??,
        () = terminations.requested().cancelled() => return Ok(HostExit::Stopped),
    };
    let _outputs = init::lend_outputs(&settings.privileges);
    for warning in settings.security_warnings() {
        warning.log();
    }
    for (name, note) in settings.withheld.notes() {
        tracing::info!(name, "{note}");
    }
    settings.report_platform();
    if let Some(ip) = settings.unreachable_ip(&zk) {
        tracing::warn!(ip, %zk, "registering a loopback address that other hosts cannot reach; set --ip (ochopod_ip)");
    }
    let services = match settings.config.as_deref() {
        None => None,
        Some(config) => tokio::select! {
            biased;
            () = terminations.requested().cancelled() => return Ok(HostExit::Stopped),
            services = PilotServices::load(config, env, &zk) => Some(services?),
        },
    };
    let store = StoreBackend::zookeeper(zk, settings.session);
    let host = tokio::select! {
        host = HostContext::start(&settings, &run.plugin, store, log) => host?,
        () = terminations.requested().cancelled() => return Ok(HostExit::Stopped),
    };
    let timeout = settings.stop_timeout(host.lifecycle.grace);
    report_stop_timeout(&settings, timeout, host.lifecycle.grace);
    let stop = Shutdown::new(&terminations, timeout);
    let exit = match services {
        None => Pod::build(&host, settings, None, &stop.clock)?.run(stop.clone()).await,
        Some(services) => services.run_pod(&host, settings, signals, &stop).await?,
    };
    host.shut_down(&stop).await;
    Ok(exit)
}

/// Installs the signal handlers. Signals other than SIGTERM and SIGINT are handled only if there is a configuration.
fn install_signal_handlers(
    run: &RunArgs,
    env: &Env,
) -> Result<(TerminationSignals, mpsc::Receiver<SignalNumber>), StartError> {
    let has_config = run.settings.text("config").is_some() || env.text("ochopod_config").is_some();
    let handlers = if has_config {
        TerminationSignals::listen_and_forward()
    } else {
        TerminationSignals::listen().map(|terminations| (terminations, mpsc::channel(1).1))
    };
    Ok(handlers.map_err(SystemError::of("cannot handle signals"))?)
}
