//! `ochopod pilot`: a plain command, or none, with services, hooks and telemetry around it. No plugin, no engine.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    time::Duration,
};

use super::{accompany::Company, error::StartError, house::OWN_BINARY};
use crate::{
    cli,
    init::{Ending, Init, Privileges, Terminations},
    pilot::{Application, Loader, Orders, config::Source},
    settings::Env,
    telemetry::PilotLog,
    template,
};

/// The commit that the binary was built from, as the Makefile says it.
const COMMIT: Option<&str> = option_env!("OCHOPOD_COMMIT");
/// What --out names files by.
const FILE: &str = "file://";

pub(super) async fn pilot(pilot: cli::Pilot, env: &Env) -> Result<Ending, StartError> {
    if pilot.version {
        let commit = COMMIT.filter(|commit| !commit.is_empty()).unwrap_or("unknown");
        return show(&format!("Version: {}\nGitHash: {commit}\n", env!("CARGO_PKG_VERSION")));
    }
    let source = Source::find(pilot.config.as_deref(), env);
    let loader = Loader::new(source.map_err(|error| StartError::Configuration(error.into()))?, env);
    if pilot.template {
        return write(&pilot.out, &loader.render().map_err(StartError::Configuration)?);
    }
    if pilot.check {
        let config = loader.load().map_err(StartError::Configuration)?;
        let lines: Vec<&str> = config.remarks.iter().map(String::as_str).chain(["the configuration is good"]).collect();
        return show(&(lines.join("\n") + "\n"));
    }
    run(pilot.words, loader, env).await
}

async fn run(words: Vec<OsString>, loader: Loader, env: &Env) -> Result<Ending, StartError> {
    let (terminations, signals) = Terminations::listen_with_others()
        .map_err(|source| StartError::System { what: "cannot handle signals", source })?;
    let init = Init::start(PathBuf::from(OWN_BINARY)).map_err(StartError::Init)?;
    let config = loader.load().map_err(StartError::Configuration)?;
    let company = Company::new((loader, config), init.clone(), env.iter(), Privileges::default());
    let log = PilotLog::start(company.config.logging).map_err(StartError::Log)?;
    let grace = company.config.stop_timeout.unwrap_or_default();
    let mut words = rendered(words, &company.loader).into_iter();
    let application =
        words.next().map(|program| Application::program(program, words.collect(), init.clone(), company.environment()));
    let page = company.page();
    let pilot = company.pilot(Some(log), None, page).await?;
    let orders = Orders { requested: terminations.requested().clone(), forced: terminations.forced().clone(), signals };
    let code = pilot.run(application, orders).await;
    tokio::select! {
        biased;
        () = terminations.forced().cancelled() => init.finish(Duration::ZERO).await,
        () = init.finish(grace) => {}
    }
    Ok(Ending::Accompanied(code))
}

/// The application's words, each a template; as they were given when any of them is none.
fn rendered(words: Vec<OsString>, loader: &Loader) -> Vec<OsString> {
    let texts: Option<Vec<String>> = words.iter().map(|word| Some(word.to_str()?.to_owned())).collect();
    let Some(texts) = texts else { return words };
    let (rendered, error) = template::render_words(&texts, loader.variables());
    if let Some(error) = error {
        tracing::error!("the application's words stay as they are: {error}");
    }
    rendered.into_iter().map(OsString::from).collect()
}

fn show(text: &str) -> Result<Ending, StartError> {
    let path = || "standard output".to_owned();
    io::stdout().write_all(text.as_bytes()).map_err(|source| StartError::Write { path: path(), source })?;
    Ok(Ending::Stopped)
}

fn write(out: &str, text: &str) -> Result<Ending, StartError> {
    if out == "-" {
        return show(text);
    }
    let Some(path) = out.strip_prefix(FILE) else { return Err(StartError::Out { value: out.to_owned() }) };
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| StartError::Write { path: path.to_owned(), source })?;
    Ok(Ending::Stopped)
}
