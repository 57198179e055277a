//! Carries out what the machine decides, and obeys signals: the owner of the configuration in force and of its crew.

use std::{
    future::{pending, ready},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Application, LoadError, Loader, OutletError, Started, Wish,
    config::Config,
    crew::Crew,
    machine::{Effect, Event, Hook, Machine},
    outlet::Outlet,
    purpose::Purpose,
    runner::{Outcome, Runner},
};
use crate::{
    discovery::OpenError,
    init::{Exit, Signal},
    telemetry::{LogError, PilotLog, PilotMetrics, Reload},
    wake::until,
};

/// How long the place of discovery may take to forget what was registered, when the host ends.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long `preStart` may take to end when asked.
const GRACE: Duration = Duration::from_secs(5);
/// How long the hooks of the end may take. `preStart` takes as long as it does.
const LONGEST_HOOK: Duration = Duration::from_mins(1);

/// Accompanies one application, or none, from `preStart` to the end.
pub struct Pilot {
    /// Where the configuration comes from at a reload.
    pub loader: Loader,
    /// The configuration in force.
    pub config: Config,
    /// What runs for it beside the application; none while it ends.
    pub crew: Option<Crew>,
    /// Where its telemetry is served.
    pub outlet: Outlet,
    /// Runs the hooks.
    pub runner: Runner,
    /// The log, where it is the configuration that says what is logged.
    pub log: Option<PilotLog>,
    /// What is counted.
    pub metrics: Arc<PilotMetrics>,
}

/// Who tells the host what to do.
pub struct Orders {
    /// Cancelled when the host is asked to end.
    pub requested: CancellationToken,
    /// Cancelled when it is told to end at once.
    pub forced: CancellationToken,
    /// All other signals.
    pub signals: mpsc::Receiver<Signal>,
}

impl Pilot {
    /// Runs until the application has ended and everything around it, or until that is ordered. What it returns is the exit
    /// code of the host.
    ///
    /// # Cancellation safety
    /// Dropping the future kills hooks and crew, and leaves registrations to their `ttl`.
    pub async fn run(mut self, application: Option<Application>, mut orders: Orders) -> u8 {
        let own_patience = application.as_ref().is_some_and(|application| application.patient);
        let mut machine = Machine::new(application.is_some(), self.patience(own_patience));
        let mut activities = Activities::new(application);
        let (mut requested, mut forced) = (false, false);
        let mut event = Event::Begin;
        loop {
            for effect in machine.step(event, Instant::now().into_std()) {
                if let Effect::Leave(code) = effect {
                    self.outlet.close().await;
                    return code;
                }
                self.carry_out(effect, &mut activities, &orders.forced);
            }
            event = loop {
                tokio::select! {
                    biased;
                    () = orders.forced.cancelled(), if !forced => {
                        forced = true;
                        break Event::Force;
                    }
                    () = orders.requested.cancelled(), if !requested => {
                        requested = true;
                        break Event::Terminate;
                    }
                    (event, crew) = activities.next() => {
                        self.crew = self.crew.take().or(crew);
                        break event;
                    }
                    () = until(machine.wake()) => break Event::Tick,
                    Some(signal) = orders.signals.recv(), if !machine.is_starting() => match signal {
                        Signal::SIGHUP => {
                            self.reload(machine.has_crew()).await;
                            machine.set_patience(self.patience(own_patience));
                        }
                        Signal::SIGUSR1 => self.toggle_maintenance(),
                        signal => activities.wish(Wish::Signal(signal)),
                    },
                }
            };
        }
    }

    fn patience(&self, own: bool) -> Option<Duration> {
        if own { Some(Duration::MAX) } else { self.config.stop_timeout }
    }

    fn carry_out(&mut self, effect: Effect, activities: &mut Activities, forced: &CancellationToken) {
        match effect {
            Effect::Run(hook) => {
                activities.cut = CancellationToken::new();
                activities.hook = self.hook(hook, activities.cut.clone(), forced.clone());
            }
            Effect::Cut => activities.cut.cancel(),
            Effect::Gather => self.gather(),
            Effect::Start => activities.start(),
            Effect::Ask => activities.wish(Wish::End),
            Effect::Kill => activities.wish(Wish::Kill),
            Effect::Withdraw | Effect::Clear | Effect::Disband => {
                if let Some(crew) = self.crew.take() {
                    activities.crew = end(crew, effect, self.config.clone(), forced.clone()).boxed();
                }
            }
            Effect::Leave(_) => {}
        }
    }

    /// Runs a hook to its end, which is at once where none is configured. `cut` asks it to end, `forced` kills it.
    fn hook(&self, hook: Hook, cut: CancellationToken, forced: CancellationToken) -> BoxFuture<'static, (Hook, u8)> {
        let (name, command, limit) = match hook {
            Hook::PreStart => ("preStart", &self.config.pre_start, None),
            Hook::PreStop => ("preStop", &self.config.pre_stop, Some(LONGEST_HOOK)),
            Hook::PostStop => ("postStop", &self.config.post_stop, Some(LONGEST_HOOK)),
        };
        let Some(command) = command.clone() else { return ready((hook, 0)).boxed() };
        let runner = self.runner.clone();
        let asked = cut.clone();
        let overdue = async move {
            tokio::select! {
                () = forced.cancelled() => {}
                () = async { asked.cancelled().await; sleep(GRACE).await } => {}
            }
        };
        let run = async move {
            let purpose = Purpose::Hook(name);
            let outcome = tokio::select! {
                outcome = runner.run(&purpose, &command, limit, &cut) => outcome,
                () = overdue => Outcome::Ended(Exit::Signal(Signal::SIGKILL as i32)),
            };
            if !outcome.is_well() {
                tracing::error!("{name}: {outcome}");
            }
            (hook, outcome.code())
        };
        run.boxed()
    }

    fn gather(&mut self) {
        if let Some(crew) = &mut self.crew
            && let Err(error) = crew.apply(&self.config)
        {
            tracing::error!("cannot register anything: {error}");
        }
    }

    fn toggle_maintenance(&mut self) {
        if let Some(crew) = &mut self.crew {
            let begins = !crew.is_in_maintenance();
            tracing::info!("maintenance {}", if begins { "begins" } else { "is over" });
            crew.maintain(begins);
        }
    }

    /// Puts the configuration as it is now in force, or tells what is wrong with it and changes nothing.
    async fn reload(&mut self, crewed: bool) {
        let reloaded = self.try_reload(crewed).await;
        match &reloaded {
            Ok(()) => tracing::info!("reloaded the configuration"),
            Err(error) => {
                tracing::error!("the configuration stays as it was, for the new one is wrong:");
                for mistake in error.to_string().lines() {
                    tracing::error!("{mistake}");
                }
            }
        }
        self.metrics.reloaded(if reloaded.is_ok() { Reload::Applied } else { Reload::Refused });
    }

    async fn try_reload(&mut self, crewed: bool) -> Result<(), ReloadError> {
        let config = self.loader.load()?;
        let outlet = self.outlet.open(config.telemetry.as_ref()).await?;
        if let Some(log) = &self.log {
            log.change(config.logging)?;
        }
        if let Some(crew) = self.crew.as_mut().filter(|_| crewed) {
            crew.apply(&config)?;
        }
        self.outlet.switch(outlet);
        self.config = config;
        self.runner.environment().advertise(&self.config);
        self.config.tell_remarks();
        Ok(())
    }
}

/// Why a configuration is not put in force.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Outlet(#[from] OutletError),
    #[error(transparent)]
    Place(#[from] OpenError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Ends what a crew does, as the effect says; what it runs is killed when `forced`.
async fn end(mut crew: Crew, effect: Effect, config: Config, forced: CancellationToken) -> (Event, Crew) {
    let event = match effect {
        Effect::Disband => {
            tokio::select! {
                biased;
                () = forced.cancelled() => crew.disband(Duration::ZERO).await,
                () = crew.disband(config.stop_timeout.unwrap_or_default()) => {}
            }
            Event::Disbanded
        }
        Effect::Clear => {
            crew.withdraw_all(&config, FAREWELL).await;
            Event::Withdrawn
        }
        _ => {
            crew.withdraw(FAREWELL).await;
            Event::Withdrawn
        }
    };
    (event, crew)
}

/// What is under way.
struct Activities {
    /// What is to be started.
    application: Option<Application>,
    hook: BoxFuture<'static, (Hook, u8)>,
    /// Ends that hook.
    cut: CancellationToken,
    started: BoxFuture<'static, Result<Started, u8>>,
    ended: BoxFuture<'static, u8>,
    obey: Option<Box<dyn Fn(Wish) + Send>>,
    /// The crew, while it ends something.
    crew: BoxFuture<'static, (Event, Crew)>,
}

impl Activities {
    fn new(application: Option<Application>) -> Self {
        Self {
            application,
            hook: pending().boxed(),
            cut: CancellationToken::new(),
            started: pending().boxed(),
            ended: pending().boxed(),
            obey: None,
            crew: pending().boxed(),
        }
    }

    fn start(&mut self) {
        if let Some(application) = self.application.take() {
            self.started = application.start;
        }
    }

    /// What the application does not run for, it is not told.
    fn wish(&self, wish: Wish) {
        if let Some(obey) = &self.obey {
            obey(wish);
        }
    }

    /// What comes of any of it.
    ///
    /// # Cancellation safety
    /// Dropping the future loses nothing.
    async fn next(&mut self) -> (Event, Option<Crew>) {
        let event = tokio::select! {
            biased;
            started = &mut self.started => {
                self.started = pending().boxed();
                match started {
                    Ok(Started { ended, obey }) => {
                        self.ended = ended;
                        self.obey = Some(obey);
                        Event::Started
                    }
                    Err(code) => Event::Ended(code),
                }
            }
            code = &mut self.ended => {
                self.ended = pending().boxed();
                self.obey = None;
                Event::Ended(code)
            }
            (hook, code) = &mut self.hook => {
                self.hook = pending().boxed();
                Event::HookEnded(hook, code)
            }
            (event, crew) = &mut self.crew => {
                self.crew = pending().boxed();
                return (event, Some(crew));
            }
        };
        (event, None)
    }
}
