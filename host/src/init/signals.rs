//! TERM and INT of the host itself.

use std::io;

use tokio::signal::unix::{self, SignalKind};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Tells that the host was asked to end: once is a request, twice is an order. TERM and INT count alike; other signals
/// are left as they are.
#[derive(Debug)]
pub struct Terminations {
    requested: CancellationToken,
    forced: CancellationToken,
    /// Listens for as long as this value lives.
    _listener: AbortOnDropHandle<()>,
}

impl Terminations {
    /// Listens from now on, on the runtime that this is called in. The first signal no longer ends the process, ever.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn listen() -> io::Result<Self> {
        let (requested, forced) = (CancellationToken::new(), CancellationToken::new());
        let signals = (unix::signal(SignalKind::terminate())?, unix::signal(SignalKind::interrupt())?);
        let listener = tokio::spawn(listen(signals, [requested.clone(), forced.clone()]));
        Ok(Self { requested, forced, _listener: AbortOnDropHandle::new(listener) })
    }

    /// Cancelled at the first signal: end gracefully.
    #[must_use]
    pub fn requested(&self) -> &CancellationToken {
        &self.requested
    }

    /// Cancelled at the second signal: end at once.
    #[must_use]
    pub fn forced(&self) -> &CancellationToken {
        &self.forced
    }
}

async fn listen((mut terminate, mut interrupt): (unix::Signal, unix::Signal), tokens: [CancellationToken; 2]) {
    for token in tokens {
        let name = tokio::select! {
            _ = terminate.recv() => "TERM",
            _ = interrupt.recv() => "INT",
        };
        tracing::info!(signal = name, "asked to end");
        token.cancel();
    }
}
