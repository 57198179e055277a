//! Pilot services around a pod.

use std::{
    convert::Infallible,
    future::{pending, ready},
};

use futures_util::FutureExt as _;
use ochopod_environment::Env;
use ochopod_init::{HostExit, Init, SignalNumber};
use ochopod_pilot::{Application, ApplicationSignal, ConfigLoader, Loaded, PilotSignals, RunningApplication};
use ochopod_pilot_command::{PilotBuilder, load_for_pod};
use ochopod_store::ZooKeeperAddress;
use serde_json::Value;
use tokio::{sync::mpsc, time::sleep_until};
use tokio_util::sync::CancellationToken;

use super::{error::StartError, host_context::HostContext, pod::Pod, shutdown::Shutdown};
use crate::settings::Settings;

/// Configuration of the services around a pod.
pub(super) struct PilotServices(ConfigLoader, Loaded);

impl PilotServices {
    /// Loads the configuration. Services are registered in the pod's ZooKeeper by default.
    pub(super) async fn load(config: &str, env: &Env, zk: &ZooKeeperAddress) -> Result<Self, StartError> {
        let (loader, configuration) = load_for_pod(config, env, zk).await?;
        Ok(Self(loader, configuration))
    }

    /// Builds the pod and its services, and runs both until the pod exits.
    pub(super) async fn run_pod(
        self,
        host: &HostContext,
        settings: Settings,
        signals: mpsc::Receiver<SignalNumber>,
        stop: &Shutdown,
    ) -> Result<HostExit, StartError> {
        let (ip, port) = (settings.registration.get("ip").and_then(Value::as_str), settings.listen.port());
        let loaded = (self.0, self.1);
        let builder = PilotBuilder::new(loaded, host.init.clone(), &settings.environment, settings.privileges.clone())
            .with_host_suffix(&format!("{}-{port}", ip.unwrap_or_default()));
        let pod = Pod::build(host, settings, Some(builder.metrics_page()), &stop.clock)?;
        let pilot = builder.build(None, Some(pod.watch.lifecycle.clone()), pod.metrics_page()).await?;
        let clock = Some(stop.clock.clone());
        let signals =
            PilotSignals { requested: stop.requested.clone(), forced: stop.forced.clone(), others: signals, clock };
        let application = pod_application(pod, host.init.clone(), stop);
        tokio::select! {
            code = pilot.run(Some(application), signals) => Ok(HostExit::Application(code)),
            never = stop.enforce() => match never {},
        }
    }
}

impl Shutdown {
    /// Returns a shutdown that starts with this one, and whose next steps are requested separately.
    fn in_steps(&self) -> Self {
        Self { requested: CancellationToken::new(), forced: CancellationToken::new(), ..self.clone() }
    }

    /// Fixes the deadline when the shutdown is requested, and forces the shutdown shortly before it. Does not return.
    async fn enforce(&self) -> Infallible {
        self.requested.cancelled().await;
        let schedule = self.clock.start();
        sleep_until(schedule.kill.into()).await;
        if !self.forced.is_cancelled() {
            tracing::warn!("shutdown timed out, killing remaining processes");
            self.forced.cancel();
        }
        pending().await
    }
}

/// Returns a pod as an application. Its shutdown starts with that of the process. [`ApplicationSignal::Terminate`], which
/// follows the hook `preStop`, stops the sub-process. Other signals are forwarded to the sub-process while it is running.
fn pod_application(pod: Pod, init: Init, stop: &Shutdown) -> Application {
    let (stop, lifecycle) = (stop.in_steps(), pod.watch.lifecycle.clone());
    let exited = pod.run(stop.clone()).map(HostExit::code).boxed();
    let send = move |signal| match signal {
        ApplicationSignal::Terminate => stop.requested.cancel(),
        ApplicationSignal::Kill => stop.forced.cancel(),
        ApplicationSignal::Signal(signal) => {
            if let Some(pid) = lifecycle.borrow().pid {
                init.signal(pid, signal);
            }
        }
    };
    let started = RunningApplication { exited, send: Box::new(send) };
    Application { start: ready(Ok(started)).boxed(), has_own_grace: true }
}
