//! Listener of the telemetry, kept over reloads that do not move it.

use std::{io, net::SocketAddr, sync::Arc};

use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{config::Telemetry, telemetry_server};

/// The address of the telemetry cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve telemetry on {address}: {source}; set telemetry.port or telemetry.interfaces")]
pub struct TelemetryBindError {
    /// The address.
    pub address: SocketAddr,
    /// Error of the system.
    pub source: io::Error,
}

/// Returns the current page for Prometheus.
pub type MetricsPage = Arc<dyn Fn() -> String + Send + Sync>;

/// Content of the telemetry: the page for Prometheus, and the status.
#[derive(Clone)]
pub struct TelemetryHandlers {
    /// `GET /metrics`.
    pub page: MetricsPage,
    /// `GET /status`.
    pub status: Arc<dyn Fn() -> Value + Send + Sync>,
}

/// Serves the telemetry, or nothing.
pub struct TelemetryEndpoint {
    handlers: TelemetryHandlers,
    server: Option<RunningServer>,
}

struct RunningServer {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

/// Change of the listener that is ready to be applied.
pub enum Rebind {
    /// The listener stays.
    Unchanged,
    /// This listener replaces it.
    Bound(TcpListener, SocketAddr),
    /// Telemetry is no longer served.
    Disabled,
}

impl TelemetryEndpoint {
    /// Creates an endpoint that serves nothing yet.
    #[must_use]
    pub fn new(handlers: TelemetryHandlers) -> Self {
        Self { handlers, server: None }
    }

    /// Binds the address of this telemetry. Nothing changes before [`TelemetryEndpoint::apply`].
    ///
    /// # Errors
    /// Fails if the address cannot be bound.
    pub async fn rebind(&self, telemetry: Option<&Telemetry>) -> Result<Rebind, TelemetryBindError> {
        let Some(telemetry) = telemetry else { return Ok(Rebind::Disabled) };
        let address = SocketAddr::new(telemetry.address, telemetry.port);
        if self.server.as_ref().is_some_and(|server| server.address == address) {
            return Ok(Rebind::Unchanged);
        }
        let listener = TcpListener::bind(address).await.map_err(|source| TelemetryBindError { address, source })?;
        Ok(Rebind::Bound(listener, address))
    }

    /// Serves on the new listener instead of the former one. Requests in progress are completed.
    pub fn apply(&mut self, rebind: Rebind) {
        let (listener, address) = match rebind {
            Rebind::Unchanged => return,
            Rebind::Disabled => return drop(self.shut_down()),
            Rebind::Bound(listener, address) => (listener, address),
        };
        drop(self.shut_down());
        let (TelemetryHandlers { page, status }, shutdown) = (self.handlers.clone(), CancellationToken::new());
        let served = telemetry_server::serve(listener, move || page(), move || status(), shutdown.clone());
        self.server = Some(RunningServer { address, shutdown, task: tokio::spawn(served) });
    }

    /// Stops serving. Completes when requests in progress are completed.
    pub async fn close(mut self) {
        if let Some(task) = self.shut_down() {
            // A task that failed has nothing left to complete.
            _ = task.await;
        }
    }

    fn shut_down(&mut self) -> Option<JoinHandle<()>> {
        let RunningServer { shutdown, task, .. } = self.server.take()?;
        shutdown.cancel();
        Some(task)
    }
}
