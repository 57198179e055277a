//! Starts of the application that hang.

use std::{future::pending, time::Instant};

use futures_util::FutureExt as _;
use ochopod_environment::Env;
use ochopod_pilot::{
    Application, ConfigLoader, Pilot, PilotSignals, TelemetryEndpoint, TelemetryHandlers,
    config::{Config, ConfigSource},
};
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::kit::{SECOND, TIMEOUT, TestActors, config, runner};

#[tokio::test]
async fn hanging_start_is_killed_by_the_stop_timeout_or_a_second_request() {
    for second in [false, true] {
        let (TestActors { actors, metrics, .. }, _) = TestActors::alone();
        let stop_timeout = if second { TIMEOUT } else { SECOND };
        let (page, status) = (std::sync::Arc::new(String::new), std::sync::Arc::new(|| Value::Null));
        let pilot = Pilot {
            loader: ConfigLoader::new(ConfigSource::Text("{}".to_owned()), &Env::default()),
            config: Config { stop_timeout: Some(stop_timeout), ..config() },
            actors: Some(actors),
            telemetry: TelemetryEndpoint::new(TelemetryHandlers { page, status }),
            runner: runner(),
            log: None,
            metrics,
        };
        let (requested, forced) = (CancellationToken::new(), CancellationToken::new());
        let others = mpsc::channel(1).1;
        let signals = PilotSignals { requested: requested.clone(), forced: forced.clone(), others, clock: None };
        let begin = Instant::now();
        let start = async move {
            requested.cancel();
            if second {
                forced.cancel();
            }
            pending().await
        };
        let application = Application { start: start.boxed(), has_own_grace: false };
        let code = timeout(TIMEOUT / 2, pilot.run(Some(application), signals)).await.unwrap();
        // A second request does not wait for the stop timeout, which is longer than the limit here.
        assert_eq!(code, 137);
        assert!(second || begin.elapsed() >= SECOND, "{:?}", begin.elapsed());
    }
}
