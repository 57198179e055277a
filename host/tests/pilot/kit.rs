//! Shared parts of the tests.

use std::{
    collections::BTreeMap,
    env, fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use ochopod_discovery::{
    ConsulAddress, Registry, RegistryConfig, RegistryConfigError, Scheme, ServiceRegistration, TlsFiles,
};
use ochopod_init::{Init, Privileges};
use ochopod_model::status::LifecycleReport;
use ochopod_pilot::{
    ActorContext, ActorSet, Claims, Environment, PilotMetrics, Runner,
    config::{Backend, CommandLine, Config, HealthCheck, LoggingConfig, Service},
};
use ochopod_telemetry::HostUsage;
use tokio::{sync::watch, time};

use crate::memory_registry::MemoryRegistry;

pub(crate) const TIMEOUT: Duration = Duration::from_mins(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MS: Duration = Duration::from_millis(1);

pub(crate) fn init() -> Init {
    static INIT: OnceLock<Init> = OnceLock::new();
    INIT.get_or_init(|| Init::start(env!("CARGO_BIN_EXE_ochopod").into()).unwrap()).clone()
}

pub(crate) fn runner() -> Runner {
    counting(Arc::default())
}

/// Returns a runner that counts there.
pub(crate) fn counting(metrics: Arc<PilotMetrics>) -> Runner {
    let environment = Environment::new([("PATH".into(), env::var_os("PATH").unwrap())]);
    Runner::new(init(), environment, Privileges::default(), metrics)
}

pub(crate) fn sh(script: &str) -> CommandLine {
    CommandLine { program: "/bin/sh".to_owned(), arguments: vec!["-c".to_owned(), script.to_owned()] }
}

/// Actors with these registries, by address.
pub(crate) struct TestActors {
    pub(crate) actors: ActorSet,
    pub(crate) pod: watch::Sender<LifecycleReport>,
    pub(crate) metrics: Arc<PilotMetrics>,
}

impl TestActors {
    pub(crate) fn new(registries: &[(&'static str, MemoryRegistry)]) -> Self {
        Self::with_claims(Claims::within(&uuid::Uuid::new_v4().to_string()), registries)
    }

    /// Returns actors that share claims of the same scope with others.
    pub(crate) fn with_claims(claims: Claims, registries: &[(&'static str, MemoryRegistry)]) -> Self {
        let registries: BTreeMap<&str, MemoryRegistry> = registries.iter().cloned().collect();
        let open = move |wanted: &RegistryConfig| {
            let RegistryConfig::Consul(address) = wanted else { panic!("{wanted:?}") };
            let refused = || RegistryConfigError::Tls(format!("not at {}", address.address));
            let registry = registries.get(address.address.as_str()).cloned().ok_or_else(refused)?;
            Ok(Arc::new(registry) as Arc<dyn Registry>)
        };
        let (pod, report) = watch::channel(LifecycleReport::default());
        let metrics: Arc<PilotMetrics> = Arc::default();
        let context = ActorContext {
            runner: counting(Arc::clone(&metrics)),
            hostname: "h".to_owned(),
            claims,
            open: Box::new(open),
            pod: Some(report),
        };
        Self { actors: ActorSet::new(context), pod, metrics }
    }

    /// Returns a line of the Prometheus page that starts with this, without this prefix.
    pub(crate) fn metric(&self, beginning: &str) -> Option<String> {
        let page = self.metrics.render(HostUsage::default(), Instant::now());
        page.lines().find_map(|line| Some(line.strip_prefix(beginning)?.trim().to_owned()))
    }

    /// Returns actors with one registry, and the registry.
    pub(crate) fn alone() -> (Self, MemoryRegistry) {
        let registry = MemoryRegistry::new();
        (Self::new(&[("here", registry.clone())]), registry)
    }

    pub(crate) fn applied(config: &Config) -> (Self, MemoryRegistry) {
        let (mut test, registry) = Self::alone();
        test.actors.apply(config).unwrap();
        (test, registry)
    }
}

pub(crate) fn at(address: &str) -> RegistryConfig {
    RegistryConfig::Consul(ConsulAddress {
        address: address.to_owned(),
        scheme: Scheme::Http,
        token: None,
        tls: TlsFiles::default(),
    })
}

pub(crate) fn config() -> Config {
    Config {
        registry: at("here"),
        logging: LoggingConfig::default(),
        pre_start: None,
        pre_stop: None,
        post_stop: None,
        stop_timeout: None,
        services: Vec::new(),
        backends: Vec::new(),
        tasks: Vec::new(),
        coprocesses: Vec::new(),
        telemetry: None,
        warnings: Vec::new(),
    }
}

pub(crate) fn with_services(services: &[Service]) -> Config {
    Config { services: services.to_vec(), ..config() }
}

/// Returns a healthy service that is polled each 10 seconds.
pub(crate) fn service(name: &str) -> Service {
    Service {
        name: name.to_owned(),
        address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        port: 80,
        poll: 10 * SECOND,
        ttl: 25 * SECOND,
        health: HealthCheck::Always,
        limit: 10 * SECOND,
        tags: Vec::new(),
        enable_tag_override: false,
        deregister_critical_service_after: None,
    }
}

/// Returns a service that is checked at short intervals.
pub(crate) fn checked(name: &str, script: &str) -> Service {
    let health = HealthCheck::Command(sh(script));
    Service { health, poll: 50 * MS, ttl: TIMEOUT, limit: TIMEOUT, ..service(name) }
}

pub(crate) fn backend(name: &str, poll: Duration, script: &str) -> Backend {
    Backend { name: name.to_owned(), tag: None, poll, on_change: sh(script), limit: TIMEOUT, template: None }
}

pub(crate) fn registered(name: &str, id: &str, port: u16, tags: &[&str]) -> ServiceRegistration {
    ServiceRegistration {
        id: id.to_owned(),
        name: name.to_owned(),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port,
        tags: tags.iter().map(ToString::to_string).collect(),
        ttl: TIMEOUT,
        enable_tag_override: false,
        deregister_critical_service_after: None,
    }
}

/// A directory for what scripts write.
pub(crate) struct ScriptDir(tempfile::TempDir);

impl ScriptDir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns a script in which `@name` is the path of a file here.
    pub(crate) fn script(&self, script: &str) -> String {
        script.replace('@', &format!("{}/", self.0.path().display()))
    }

    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn lines(&self, name: &str) -> usize {
        self.text(name).lines().count()
    }

    pub(crate) async fn has(&self, name: &str, lines: usize) {
        eventually(&format!("{name} has {lines} lines"), || self.lines(name) >= lines).await;
    }

    /// Returns the process id that a script wrote.
    pub(crate) async fn pid(&self, name: &str) -> u32 {
        self.has(name, 1).await;
        self.text(name).trim().parse().unwrap()
    }
}

/// Waits for a condition that has no event.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            time::sleep(5 * MS).await;
        }
    };
    time::timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("not within {TIMEOUT:?}: {what}"));
}

pub(crate) fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

pub(crate) async fn gone(pid: u32) {
    eventually(&format!("process {pid} is gone"), || !is_alive(pid)).await;
}

/// Lines logged on this thread during its lifetime.
pub(crate) struct CapturedLog {
    written: Arc<Mutex<Vec<u8>>>,
    _default: tracing::subscriber::DefaultGuard,
}

#[derive(Clone)]
struct Writer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl CapturedLog {
    pub(crate) fn listen() -> Self {
        let written = Arc::default();
        let writer = Writer(Arc::clone(&written));
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        Self { written, _default: tracing::subscriber::set_default(subscriber) }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
    }

    /// Returns the number of lines that contain this.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.text().lines().filter(|line| line.contains(part)).count()
    }
}
