//! The command: validates or prints a configuration, or runs an application to its exit.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use ochopod_discovery::RegistryConfig;
use ochopod_entry::SystemError;
use ochopod_environment::{Env, Withheld, sub_process_secrets};
use ochopod_files as files;
use ochopod_init::{self as init, HostExit, Init, Privileges, TerminationSignals, own_user_and_group};
use ochopod_pilot::{Application, ConfigLoader, Loaded, PilotLog, PilotSignals, config::ConfigSource};
use ochopod_settings::{
    Flags,
    privileges::{ineffective_limit, read_alone},
};
use ochopod_store::ZooKeeperAddress;
use ochopod_telemetry::escape::Escaped;
use ochopod_template as template;
use tokio::sync::watch;

use super::{
    arguments::PilotArgs,
    builder::PilotBuilder,
    error::PilotError,
    stop_time::{KILL_TIMEOUT, StopTime},
};

/// Commit that the binary was built from, set by the Makefile.
const COMMIT: Option<&str> = option_env!("OCHOPOD_COMMIT");
/// Scheme of files in --out.
const FILE_SCHEME: &str = "file://";

/// Runs the command until the application exits, or executes the action of the flags.
///
/// # Errors
/// The application cannot be started for a reason that is not its own.
pub async fn pilot(args: PilotArgs, env: &Env) -> Result<HostExit, PilotError> {
    if args.version {
        let commit = COMMIT.filter(|commit| !commit.is_empty()).unwrap_or("unknown");
        return print(&format!("Version: {}\nGitHash: {commit}\n", env!("CARGO_PKG_VERSION")));
    }
    let source = ConfigSource::find(args.config.as_deref(), env);
    let loader = ConfigLoader::new(source.map_err(|error| PilotError::Config(error.into()))?, env);
    if args.template {
        return write(&args.out, &loader.render_in_background().await.map_err(PilotError::Config)?);
    }
    if args.check {
        // The store is not connected to.
        let store = || RegistryConfig::ZooKeeper(ZooKeeperAddress::local());
        let loader = if args.pod { loader.for_pod(store()) } else { loader };
        let Loaded { config, .. } = loader.load_in_background().await.map_err(PilotError::Config)?;
        let remarks = config.warnings.iter().map(|remark| Escaped(remark).to_string());
        let lines: Vec<String> = remarks.chain(["configuration valid".to_owned()]).collect();
        return print(&(lines.join("\n") + "\n"));
    }
    let named = [("user", args.user), ("group", args.group)].into_iter().filter_map(|(name, text)| Some((name, text?)));
    let flags = named.chain(args.rlimit.into_iter().map(|text| ("rlimit", text)));
    let flags = flags.fold(Flags::default(), |flags, (name, text)| flags.with(name, text));
    let privileges = read_alone(env, &flags).map_err(PilotError::Settings)?;
    run(args.command, loader, env, privileges).await
}

async fn run(
    command: Vec<OsString>,
    loader: ConfigLoader,
    env: &Env,
    (privileges, home): (Privileges, Option<PathBuf>),
) -> Result<HostExit, PilotError> {
    let (terminations, signals) =
        TerminationSignals::listen_and_forward().map_err(SystemError::of("cannot handle signals"))?;
    let init = Init::start(PathBuf::from(init::SELF_EXE)).map_err(PilotError::Init)?;
    let configuration = tokio::select! {
        biased;
        () = terminations.requested().cancelled() => return Ok(HostExit::Stopped),
        configuration = loader.load_in_background() => configuration.map_err(PilotError::Config)?,
    };
    let home = home.map(|home| (OsString::from("HOME"), home.into_os_string()));
    let variables = env.iter().chain(home.as_ref().map(|(name, value)| (name, value)));
    let builder = PilotBuilder::new((loader, configuration), init.clone(), variables, privileges.clone());
    let log = PilotLog::start(builder.config.logging).map_err(PilotError::Log)?;
    if let Some(ineffective) = ineffective_limit(&privileges, own_user_and_group().0) {
        tracing::warn!("{ineffective}");
    }
    for (name, note) in Withheld::of(env).notes() {
        tracing::info!("{name}: {note}");
    }
    let _outputs = init::lend_outputs(&privileges);
    let grace = watch::Sender::new(builder.config.stop_timeout.unwrap_or_default());
    let mut command = render_arguments(command, &builder.loader).into_iter();
    let application = command.next().map(|program| {
        let (environment, secrets) = (builder.environment(), sub_process_secrets(env.iter()));
        let stop = terminations.requested().clone();
        Application::program(program, command.collect(), init.clone(), environment, privileges.clone(), secrets, stop)
    });
    let page = builder.metrics_page();
    let pilot = builder.build(Some(log.clone()), None, page).await?;
    let signals = PilotSignals {
        requested: terminations.requested().clone(),
        forced: terminations.forced().clone(),
        others: signals,
        clock: None,
    };
    let stop = StopTime::new(grace.subscribe());
    let application = application.map(|application| stop.observe(application, &terminations));
    let code = pilot.run_with_grace(application, signals, &grace).await;
    let (grace, limit) = stop.time_left();
    tokio::select! {
        biased;
        () = terminations.forced().cancelled() => init.shut_down_within(Duration::ZERO, limit.min(KILL_TIMEOUT)).await,
        () = init.shut_down_within(grace, limit) => {}
    }
    // What was left behind is written too.
    drop(log);
    Ok(HostExit::Application(code))
}

/// Loads the configuration of the services around a pod, which are registered in its ZooKeeper by default.
///
/// # Errors
/// The configuration cannot be read, or is invalid.
pub async fn load_for_pod(
    config: &str,
    env: &Env,
    zk: &ZooKeeperAddress,
) -> Result<(ConfigLoader, Loaded), PilotError> {
    let source = ConfigSource::find(Some(config), env).map_err(|error| PilotError::Config(error.into()))?;
    let loader = ConfigLoader::new(source, env).for_pod(RegistryConfig::ZooKeeper(zk.clone()));
    let configuration = loader.load_in_background().await.map_err(PilotError::Config)?;
    Ok((loader, configuration))
}

/// Renders the arguments of the application, each a template. Returns them unchanged if one is invalid.
fn render_arguments(words: Vec<OsString>, loader: &ConfigLoader) -> Vec<OsString> {
    let texts: Option<Vec<String>> = words.iter().map(|word| Some(word.to_str()?.to_owned())).collect();
    let Some(texts) = texts else { return words };
    let (rendered, error) = template::render_arguments(&texts, loader.variables());
    if let Some(error) = error {
        tracing::error!("cannot render the application's arguments, using them as given: {error}");
    }
    rendered.into_iter().map(OsString::from).collect()
}

fn print(text: &str) -> Result<HostExit, PilotError> {
    let mut output = io::stdout();
    // What follows the last line feed is in a buffer, and an error at the exit would be ignored.
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    written.map_err(|source| PilotError::Write { path: "standard output".to_owned(), source })?;
    Ok(HostExit::Stopped)
}

fn write(out: &str, text: &str) -> Result<HostExit, PilotError> {
    if out == "-" {
        return print(text);
    }
    let Some(path) = out.strip_prefix(FILE_SCHEME) else {
        return Err(PilotError::OutputTarget { value: out.to_owned() });
    };
    let written = match path {
        "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => return print(text),
        "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => io::stderr().write_all(text.as_bytes()),
        "/dev/null" => Ok(()),
        path => files::truncate(Path::new(path), 0o644).and_then(|mut file| file.write_all(text.as_bytes())),
    };
    written.map_err(|source| PilotError::Write { path: path.to_owned(), source })?;
    Ok(HostExit::Stopped)
}
