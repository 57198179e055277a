//! Applies the effects of the state machine and handles signals. Owns the configuration in force and its actors.

use std::{
    future::{pending, ready},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use ochopod_discovery::RegistryConfigError;
use ochopod_init::{Exit, Signal, SignalNumber};
use ochopod_telemetry::LogError;
use ochopod_timing::{next_completed, shutdown::ShutdownClock, sleep_until};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Application, ApplicationSignal, ConfigLoadError, ConfigLoader, Loaded, RunningApplication, TelemetryBindError,
    actor_set::ActorSet,
    config::Config,
    log::PilotLog,
    machine::{Effect, Event, Hook, PilotMachine},
    metrics::{PilotMetrics, ReloadResult},
    purpose::Purpose,
    runner::{RunOutcome, Runner},
    telemetry_endpoint::TelemetryEndpoint,
};

/// Time limit for the registry to remove the services when the host shuts down.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(3);
/// Time limit for `preStart` to exit after SIGTERM.
const HOOK_GRACE: Duration = Duration::from_secs(5);
/// Time limit of `postStop` if no shutdown was requested. `preStart` has no limit.
const HOOK_TIMEOUT: Duration = Duration::from_mins(1);
/// Time limit of `preStop` and of `postStop` if the configuration kills the application without a grace.
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// One application, or none, and the services around it, from `preStart` to the exit.
pub struct Pilot {
    /// Loads the configuration at a reload.
    pub loader: ConfigLoader,
    /// The configuration in force.
    pub config: Config,
    /// Actors of the configuration; none while they are being stopped.
    pub actors: Option<ActorSet>,
    /// Serves its telemetry.
    pub telemetry: TelemetryEndpoint,
    /// Runs the hooks.
    pub runner: Runner,
    /// The log, if the configuration sets its level and format.
    pub log: Option<PilotLog>,
    /// Counters.
    pub metrics: Arc<PilotMetrics>,
}

/// Signals to the host.
pub struct PilotSignals {
    /// Cancelled when a shutdown is requested.
    pub requested: CancellationToken,
    /// Cancelled when the shutdown is forced.
    pub forced: CancellationToken,
    /// All other signals.
    pub others: mpsc::Receiver<SignalNumber>,
    /// The deadline of the whole shutdown, if there is one.
    pub clock: Option<ShutdownClock>,
}

impl PilotSignals {
    /// Returns how long `preStop` or `postStop` may take now: `stopTimeout`, or its share of the shutdown's deadline. Of the
    /// time that is left when `postStop` starts, coprocesses keep half.
    fn hook_timeout(&self, hook: Hook, stop_timeout: Option<Duration>) -> Duration {
        if !self.requested.is_cancelled() && !self.forced.is_cancelled() {
            return HOOK_TIMEOUT;
        }
        let Some(clock) = &self.clock else { return stop_timeout.unwrap_or(DEFAULT_STOP_TIMEOUT) };
        let schedule = clock.start();
        let left = |until: std::time::Instant| until.saturating_duration_since(Instant::now().into_std());
        if hook == Hook::PreStop { left(schedule.hooks) } else { left(schedule.kill) / 2 }
    }

    /// Returns how long coprocesses may take to exit now: `stopTimeout`, or until the shutdown's deadline.
    fn coprocess_grace(&self, stop_timeout: Option<Duration>) -> Duration {
        match &self.clock {
            Some(clock) if self.requested.is_cancelled() => {
                clock.start().kill.saturating_duration_since(Instant::now().into_std())
            }
            _ => stop_timeout.unwrap_or_default(),
        }
    }
}

impl Pilot {
    /// Runs until the application and everything around it have exited. Returns the exit code of the host.
    ///
    /// # Cancellation safety
    /// Dropping the future kills hooks and actors, and leaves registrations to their `ttl`.
    pub async fn run(self, application: Option<Application>, signals: PilotSignals) -> u8 {
        let grace = watch::Sender::default();
        Box::pin(self.run_with_grace(application, signals, &grace)).await
    }

    /// Runs as [`Self::run`] does, and keeps `grace` at the `stopTimeout` of the configuration in force, for what is left when
    /// the application has exited.
    ///
    /// # Cancellation safety
    /// As [`Self::run`].
    pub async fn run_with_grace(
        mut self,
        application: Option<Application>,
        mut signals: PilotSignals,
        grace: &watch::Sender<Duration>,
    ) -> u8 {
        let own_grace = application.as_ref().is_some_and(|application| application.has_own_grace);
        grace.send_replace(self.config.stop_timeout.unwrap_or_default());
        let mut machine = PilotMachine::new(application.is_some(), self.grace(own_grace));
        let mut in_flight = InFlight::new(application);
        let (mut requested, mut forced) = (false, false);
        // The load in progress, and whether another one was requested meanwhile.
        let (mut loading, mut is_stale) = (None::<BoxFuture<'static, Result<Loaded, ConfigLoadError>>>, false);
        let mut event = Event::Begin;
        loop {
            for effect in machine.step(event, Instant::now().into_std()) {
                if let Effect::Exit(code) = effect {
                    self.telemetry.close().await;
                    return code;
                }
                self.apply_effect(effect, &mut in_flight, &signals);
            }
            event = loop {
                tokio::select! {
                    biased;
                    () = signals.forced.cancelled(), if !forced => {
                        forced = true;
                        break Event::Force;
                    }
                    () = signals.requested.cancelled(), if !requested => {
                        requested = true;
                        break Event::Terminate;
                    }
                    (event, actors) = in_flight.next() => {
                        self.actors = self.actors.take().or(actors);
                        break event;
                    }
                    () = sleep_until(machine.next_action_at()) => break Event::Tick,
                    loaded = next_completed(&mut loading), if !machine.is_starting() => {
                        self.reload(loaded, machine.services_running()).await;
                        machine.set_grace(self.grace(own_grace));
                        grace.send_replace(self.config.stop_timeout.unwrap_or_default());
                        loading = std::mem::take(&mut is_stale).then(|| self.load());
                    }
                    Some(signal) = signals.others.recv(), if !machine.is_starting() => match signal {
                        signal if signal == Signal::SIGHUP && loading.is_some() => is_stale = true,
                        signal if signal == Signal::SIGHUP => loading = Some(self.load()),
                        signal if signal == Signal::SIGUSR1 => self.toggle_maintenance(),
                        signal => in_flight.signal(ApplicationSignal::Signal(signal)),
                    },
                }
            };
        }
    }

    fn grace(&self, own: bool) -> Option<Duration> {
        if own { Some(Duration::MAX) } else { self.config.stop_timeout }
    }

    fn apply_effect(&mut self, effect: Effect, in_flight: &mut InFlight, signals: &PilotSignals) {
        let forced = &signals.forced;
        match effect {
            Effect::Run(hook) => {
                in_flight.cancel_hook = CancellationToken::new();
                let timeout = signals.hook_timeout(hook, self.config.stop_timeout);
                in_flight.hook = self.hook(hook, timeout, in_flight.cancel_hook.clone(), forced.clone());
            }
            Effect::CancelHook => in_flight.cancel_hook.cancel(),
            Effect::StartServices => self.start_services(),
            Effect::Start => in_flight.start(),
            Effect::CancelStart => in_flight.started = pending().boxed(),
            Effect::Terminate => in_flight.signal(ApplicationSignal::Terminate),
            Effect::Kill => in_flight.signal(ApplicationSignal::Kill),
            Effect::Deregister | Effect::DeregisterLeftovers | Effect::StopCoprocesses => {
                if let Some(actors) = self.actors.take() {
                    let (config, grace) = (self.config.clone(), signals.coprocess_grace(self.config.stop_timeout));
                    in_flight.actors = stop_actors(actors, effect, config, grace, forced.clone()).boxed();
                }
            }
            Effect::Exit(_) => {}
        }
    }

    /// Runs a hook; completes immediately if none is configured. `cancel_hook` terminates it, `forced` kills it.
    fn hook(
        &self,
        hook: Hook,
        timeout: Duration,
        cancel_hook: CancellationToken,
        forced: CancellationToken,
    ) -> BoxFuture<'static, (Hook, u8)> {
        let (name, command, limit) = match hook {
            Hook::PreStart => ("preStart", &self.config.pre_start, None),
            Hook::PreStop => ("preStop", &self.config.pre_stop, Some(timeout)),
            Hook::PostStop => ("postStop", &self.config.post_stop, Some(timeout)),
        };
        let Some(command) = command.clone() else { return ready((hook, 0)).boxed() };
        let runner = self.runner.clone();
        let requested = cancel_hook.clone();
        let abandoned = async move {
            tokio::select! {
                () = forced.cancelled() => {}
                () = async { requested.cancelled().await; sleep(HOOK_GRACE).await } => {}
            }
        };
        let run = async move {
            let purpose = Purpose::Hook(name);
            let outcome = tokio::select! {
                outcome = runner.run_within(&purpose, &command, limit, &cancel_hook) => outcome,
                () = abandoned => RunOutcome::Exited(Exit::Signal(Signal::SIGKILL as i32)),
            };
            if !outcome.is_success() {
                tracing::error!("{name}: {outcome}");
            }
            (hook, outcome.code())
        };
        run.boxed()
    }

    fn start_services(&mut self) {
        if let Some(actors) = &mut self.actors
            && let Err(error) = actors.apply(&self.config)
        {
            tracing::error!("cannot open service registry, nothing is registered: {error}");
        }
    }

    fn toggle_maintenance(&mut self) {
        if let Some(actors) = &mut self.actors {
            let is_enabled = !actors.is_in_maintenance();
            tracing::info!("maintenance mode {}", if is_enabled { "enabled" } else { "disabled" });
            actors.set_maintenance(is_enabled);
        }
    }

    /// Loads the current configuration on another thread.
    fn load(&self) -> BoxFuture<'static, Result<Loaded, ConfigLoadError>> {
        let loader = self.loader.clone();
        async move { loader.load_in_background().await }.boxed()
    }

    /// Applies a loaded configuration, or logs what is wrong with it and changes nothing.
    async fn reload(&mut self, loaded: Result<Loaded, ConfigLoadError>, services_running: bool) {
        let reloaded = self.try_reload(loaded, services_running).await;
        match &reloaded {
            Ok(()) => tracing::info!("configuration reloaded"),
            Err(error) => {
                tracing::error!("reload failed, keeping the current configuration:");
                for line in error.to_string().lines() {
                    tracing::error!("{line}");
                }
            }
        }
        self.metrics.reloaded(if reloaded.is_ok() { ReloadResult::Applied } else { ReloadResult::Rejected });
    }

    /// Reloads the configuration. Everything that can fail happens before the first change.
    async fn try_reload(
        &mut self,
        loaded: Result<Loaded, ConfigLoadError>,
        services_running: bool,
    ) -> Result<(), ReloadError> {
        let Loaded { config, registry } = loaded?;
        let telemetry = self.telemetry.rebind(config.telemetry.as_ref()).await?;
        let logging = self.log.as_ref().map(|log| log.prepare(config.logging)).transpose()?;
        if let Some(actors) = &mut self.actors {
            actors.prepare(&config.registry, registry);
            if services_running {
                actors.apply(&config)?;
            }
        }
        self.telemetry.apply(telemetry);
        if let (Some(log), Some(logging)) = (&self.log, logging) {
            log.reconfigure(logging);
        }
        self.config = config;
        self.runner.environment().set_services(&self.config);
        self.config.log_warnings();
        Ok(())
    }
}

/// Reason why a configuration is not applied.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Load(#[from] ConfigLoadError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryBindError),
    #[error(transparent)]
    Registry(#[from] RegistryConfigError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Stops or deregisters actors, as the effect requires; their programs are killed after `grace` or when `forced`.
async fn stop_actors(
    mut actors: ActorSet,
    effect: Effect,
    config: Config,
    grace: Duration,
    forced: CancellationToken,
) -> (Event, ActorSet) {
    let event = match effect {
        Effect::StopCoprocesses => {
            tokio::select! {
                biased;
                () = forced.cancelled() => actors.shut_down(Duration::ZERO).await,
                () = actors.shut_down(grace) => {}
            }
            Event::CoprocessesStopped
        }
        Effect::DeregisterLeftovers => {
            actors.deregister_config(&config, DEREGISTER_TIMEOUT).await;
            Event::Deregistered
        }
        _ => {
            actors.deregister(DEREGISTER_TIMEOUT).await;
            Event::Deregistered
        }
    };
    (event, actors)
}

/// Operations in progress.
struct InFlight {
    /// The application before its start.
    application: Option<Application>,
    hook: BoxFuture<'static, (Hook, u8)>,
    /// Terminates that hook.
    cancel_hook: CancellationToken,
    started: BoxFuture<'static, Result<RunningApplication, u8>>,
    exited: BoxFuture<'static, u8>,
    send: Option<Box<dyn Fn(ApplicationSignal) + Send>>,
    /// The actors, while they are being stopped or deregistered.
    actors: BoxFuture<'static, (Event, ActorSet)>,
}

impl InFlight {
    fn new(application: Option<Application>) -> Self {
        Self {
            application,
            hook: pending().boxed(),
            cancel_hook: CancellationToken::new(),
            started: pending().boxed(),
            exited: pending().boxed(),
            send: None,
            actors: pending().boxed(),
        }
    }

    fn start(&mut self) {
        if let Some(application) = self.application.take() {
            self.started = application.start;
        }
    }

    /// Sends a signal to the application, if it is running.
    fn signal(&self, signal: ApplicationSignal) {
        if let Some(send) = &self.send {
            send(signal);
        }
    }

    /// Waits for the first result.
    ///
    /// # Cancellation safety
    /// Dropping the future loses nothing.
    async fn next(&mut self) -> (Event, Option<ActorSet>) {
        let event = tokio::select! {
            biased;
            started = &mut self.started => {
                self.started = pending().boxed();
                match started {
                    Ok(RunningApplication { exited, send }) => {
                        self.exited = exited;
                        self.send = Some(send);
                        Event::Started
                    }
                    Err(code) => Event::Exited(code),
                }
            }
            code = &mut self.exited => {
                self.exited = pending().boxed();
                self.send = None;
                Event::Exited(code)
            }
            (hook, code) = &mut self.hook => {
                self.hook = pending().boxed();
                Event::HookEnded(hook, code)
            }
            (event, actors) = &mut self.actors => {
                self.actors = pending().boxed();
                return (event, Some(actors));
            }
        };
        (event, None)
    }
}
