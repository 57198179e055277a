//! Where the telemetry is served: one listener, kept over reloads that do not move it.

use std::{io, net::SocketAddr, sync::Arc};

use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{config::Telemetry, exposition};

/// The telemetry cannot be served there.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve telemetry at {address} (telemetry.port and telemetry.interfaces change it): {source}")]
pub struct OutletError {
    /// Where.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// A page for Prometheus, as it reads at the moment.
pub type Page = Arc<dyn Fn() -> String + Send + Sync>;

/// What is served: the page for Prometheus, and the status.
#[derive(Clone)]
pub struct Shown {
    /// The page.
    pub page: Page,
    /// The status.
    pub status: Arc<dyn Fn() -> Value + Send + Sync>,
}

/// Serves the telemetry, or nothing.
pub struct Outlet {
    shown: Shown,
    serving: Option<Serving>,
}

struct Serving {
    address: SocketAddr,
    end: CancellationToken,
    task: JoinHandle<()>,
}

/// A place that is ready to take over.
pub enum Opened {
    /// As it is.
    Same,
    /// This one.
    New(TcpListener, SocketAddr),
    /// None any more.
    Nowhere,
}

impl Outlet {
    /// Serves nothing yet.
    #[must_use]
    pub fn new(shown: Shown) -> Self {
        Self { shown, serving: None }
    }

    /// Takes possession of where this telemetry is to be served. Nothing changes before [`Outlet::switch`].
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn open(&self, telemetry: Option<&Telemetry>) -> Result<Opened, OutletError> {
        let Some(telemetry) = telemetry else { return Ok(Opened::Nowhere) };
        let address = SocketAddr::new(telemetry.address, telemetry.port);
        if self.serving.as_ref().is_some_and(|serving| serving.address == address) {
            return Ok(Opened::Same);
        }
        let listener = TcpListener::bind(address).await.map_err(|source| OutletError { address, source })?;
        Ok(Opened::New(listener, address))
    }

    /// Serves there from now on, and no more where it did. Answers under way are completed.
    pub fn switch(&mut self, opened: Opened) {
        let (listener, address) = match opened {
            Opened::Same => return,
            Opened::Nowhere => return drop(self.end()),
            Opened::New(listener, address) => (listener, address),
        };
        drop(self.end());
        let (Shown { page, status }, end) = (self.shown.clone(), CancellationToken::new());
        let served = exposition::serve(listener, move || page(), move || status(), end.clone());
        self.serving = Some(Serving { address, end, task: tokio::spawn(served) });
    }

    /// Serves no more; completes when answers under way are.
    pub async fn close(mut self) {
        if let Some(task) = self.end() {
            // A task that failed has nothing left to complete.
            _ = task.await;
        }
    }

    fn end(&mut self) -> Option<JoinHandle<()>> {
        let Serving { end, task, .. } = self.serving.take()?;
        end.cancel();
        Some(task)
    }
}
