//! TERM and INT of the host itself.

use std::io;

use futures_util::future::join_all;
use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{self, SignalKind};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Tells that the host was asked to end: once is a request, twice is an order. TERM and INT count alike. HUP, USR1 and
/// USR2, which would end a process that does not know them, are told in the log and change nothing; other signals are
/// left as they are.
#[derive(Debug)]
pub struct Terminations {
    requested: CancellationToken,
    forced: CancellationToken,
    /// Listens for as long as this value lives.
    _listener: AbortOnDropHandle<()>,
}

impl Terminations {
    /// Keeps TERM and INT for whoever listens later on this thread: the kernel throws away what it sends to PID 1 before
    /// anybody listens. To be called first of all.
    pub fn hold() {
        // That it fails is no reason not to start.
        _ = held().thread_block();
    }

    /// Takes [`Self::hold`] back: nobody is going to listen. What was kept has its usual effect.
    pub fn release() {
        _ = held().thread_unblock();
    }

    /// Listens from now on, on the runtime that this is called in, and to what was held. The first signal no longer ends the
    /// process, ever.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn listen() -> io::Result<Self> {
        let (requested, forced) = (CancellationToken::new(), CancellationToken::new());
        let ends = (unix::signal(SignalKind::terminate())?, unix::signal(SignalKind::interrupt())?);
        let others = [SignalKind::hangup(), SignalKind::user_defined1(), SignalKind::user_defined2()];
        let [hangup, user1, user2] = others.map(unix::signal);
        let others = [(hangup?, "HUP"), (user1?, "USR1"), (user2?, "USR2")];
        Self::release();
        let tokens = [requested.clone(), forced.clone()];
        let listener = tokio::spawn(async move {
            tokio::join!(listen(ends, tokens), join_all(others.map(|(signal, name)| ignore(signal, name))));
        });
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

fn held() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT])
}

async fn ignore(mut signal: unix::Signal, name: &str) {
    while signal.recv().await.is_some() {
        tracing::info!(signal = name, "a signal that means nothing here");
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
