//! `ochopod pilot`: a plain command, or none, with services, hooks and telemetry around it. No plugin, no engine.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
};

use super::{error::StartError, house::OWN_BINARY};
use crate::{
    cli,
    init::{Ending, Init, Terminations},
    pilot::{Application, Crew, Environment, Loader, Means, Orders, Outlet, Pilot, Runner, Shown, config::Source},
    settings::Env,
    telemetry::{Log, PilotMetrics, Sensors},
    template,
};

/// Where the configuration is when no flag says so.
const CONFIG: &str = "CONTAINERPILOT";

pub(super) async fn pilot(pilot: cli::Pilot, env: &Env) -> Result<Ending, StartError> {
    if pilot.version {
        return show(&format!("Version: {}\nGitHash: {}\n", env!("CARGO_PKG_VERSION"), git_hash()));
    }
    let source = Source::find(pilot.config.as_deref(), env.text(CONFIG)).map_err(StartError::Source)?;
    let loader = Loader::new(source, env);
    if pilot.template {
        return write(&pilot.out, &loader.render().map_err(StartError::Load)?);
    }
    if pilot.is_check() {
        let config = loader.load().map_err(StartError::Load)?;
        let remarks: String = config.remarks.iter().map(|remark| format!("{remark}\n")).collect();
        return show(&format!("{remarks}the configuration is good\n"));
    }
    accompany(pilot.words, loader, env).await
}
