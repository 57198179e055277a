//! Configurations of services around an application.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use ochopod_discovery::RegistryConfig;
use ochopod_environment::Env;
use ochopod_pilot::config::{CommandLine, Config, ConfigError, ConfigSource, HealthCheck, ReadContext, Telemetry};

use crate::assert_error;

const SECRET: &str = "hunter2";

/// Checks that an accepted configuration can be executed; errors of others have their positions. The token is not
/// shown.
pub fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if text.contains(SECRET) {
        return;
    }
    let env: Env = [("CONSUL_HTTP_TOKEN", SECRET)].into_iter().collect();
    if let Ok(ConfigSource::Text(given)) = ConfigSource::find(Some(&text), &env) {
        assert_eq!(given, text);
    }
    let reading = |plugin| ReadContext {
        env: &env,
        resolve: &resolve,
        plugin,
        default_registry: None,
        check: &|_| Vec::new(),
        template: &|_| Ok(()),
    };
    for plugin in [false, true] {
        match Config::read(&text, &reading(plugin)) {
            Ok(config) => assert_sound(&config, plugin),
            Err(error) => assert_placed(&text, &error),
        }
    }
}

fn resolve(specs: &[String]) -> Result<IpAddr, String> {
    let found = specs.iter().any(|spec| spec.starts_with("eth0"));
    if found { Ok(IpAddr::from([10, 0, 0, 9])) } else { Err(format!("no interface matches {specs:?}")) }
}

fn assert_placed(text: &str, error: &ConfigError) {
    assert!(!error.errors.is_empty(), "it is refused without a reason");
    assert!(error.errors.is_sorted_by_key(|mistake| mistake.at), "{error}");
    let lines: Vec<usize> = text.split('\n').map(|line| line.chars().count()).collect();
    for mistake in &error.errors {
        assert_error(mistake);
        assert_silent(&mistake.text);
        let width = lines.get(mistake.at.line.wrapping_sub(1));
        let within = width.is_some_and(|width| (1..=width + 1).contains(&mistake.at.column));
        assert!(within, "not within the text: {mistake}");
    }
}

fn assert_sound(config: &Config, plugin: bool) {
    assert_silent(&format!("{config:?}"));
    config.warnings.iter().for_each(|remark| assert_error(remark));
    if let RegistryConfig::Etcd(etcd) = &config.registry {
        assert!(!etcd.endpoints.is_empty());
    }
    let advertised = config.telemetry.as_ref().map(Telemetry::service);
    let services: Vec<_> = config.services.iter().chain(&advertised).collect();
    assert_distinct(services.iter().map(|service| &service.name));
    for service in services {
        assert!(service.port != 0 && !service.name.contains(char::is_control), "{service:?}");
        [service.poll, service.ttl, service.limit].into_iter().for_each(assert_reckoned);
        match &service.health {
            HealthCheck::Command(command) => assert_runs(command),
            HealthCheck::SanityCheck => assert!(plugin, "no plugin"),
            HealthCheck::Always => {}
        }
    }
    assert_distinct(config.backends.iter().map(|backend| (&backend.name, &backend.tag)));
    for backend in &config.backends {
        [backend.poll, backend.limit].into_iter().for_each(assert_reckoned);
        assert_runs(&backend.on_change);
    }
    for task in &config.tasks {
        [task.frequency, task.limit].into_iter().for_each(assert_reckoned);
        assert_runs(&task.command);
    }
    let sensors = config.telemetry.iter().flat_map(|telemetry| &telemetry.sensors);
    assert_distinct(sensors.clone().map(|sensor| &sensor.metric));
    for sensor in sensors {
        [sensor.poll, sensor.limit].into_iter().for_each(assert_reckoned);
        assert!(!sensor.metric.is_empty() && !sensor.help.is_empty(), "{sensor:?}");
        assert_runs(&sensor.check);
    }
    config.coprocesses.iter().for_each(|coprocess| assert_runs(&coprocess.command));
    let hooks = [&config.pre_start, &config.pre_stop, &config.post_stop];
    hooks.into_iter().flatten().for_each(assert_runs);
    config.stop_timeout.into_iter().for_each(assert_reckoned);
}

fn assert_distinct<T: Ord>(names: impl Iterator<Item = T> + Clone) {
    assert_eq!(names.clone().count(), names.collect::<BTreeSet<_>>().len(), "duplicate name");
}

/// Checks that timers accept this time.
fn assert_reckoned(time: Duration) {
    assert!(time >= Duration::from_millis(1) && Instant::now().checked_add(time).is_some(), "{time:?}");
}

/// Checks that the system can execute this command.
fn assert_runs(command: &CommandLine) {
    let words: Vec<_> = [&command.program].into_iter().chain(&command.arguments).collect();
    assert!(!command.program.is_empty() && !words.iter().any(|word| word.contains('\0')), "{command:?}");
}

fn assert_silent(text: &str) {
    assert!(!text.contains(SECRET), "a secret is revealed: {text}");
}
