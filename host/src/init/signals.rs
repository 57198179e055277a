//! TERM and INT of the host itself, and signals that are meant for somebody else.

use std::io;

use futures_util::future::join_all;
use nix::sys::signal::{SigSet, Signal};
use tokio::{
    signal::unix::{self, SignalKind},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Signals that may be meant for somebody else than the host: those that have a name, that no fault of its own sends, and
/// that it can go on after.
const OTHERS: [Signal; 13] = [
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGQUIT,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGWINCH,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGCONT,
];
/// Such signals that may wait.
const QUEUE: usize = 64;

/// Tells that the host was asked to end: once is a request, twice is an order. TERM and INT count alike.
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
    /// process, ever. HUP, USR1 and USR2, which would end a process that does not know them, are told in the log and change
    /// nothing; other signals are left as they are.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn listen() -> io::Result<Self> {
        let others = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
        let others = others.map(|signal| Ok(ignore(handler(signal)?, signal)));
        Self::listen_besides(others.into_iter().collect::<io::Result<_>>()?)
    }

    /// The same, but HUP, USR1 and whatever else may be meant for the application of this host is handed over. None of them
    /// ends the process any more.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn listen_with_others() -> io::Result<(Self, mpsc::Receiver<Signal>)> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let others = OTHERS.map(|signal| Ok(hand_over(handler(signal)?, signal, sender.clone())));
        Ok((Self::listen_besides(others.into_iter().collect::<io::Result<_>>()?)?, receiver))
    }

    fn listen_besides(others: Vec<impl Future<Output = ()> + Send + 'static>) -> io::Result<Self> {
        let (requested, forced) = (CancellationToken::new(), CancellationToken::new());
        let ends = (handler(Signal::SIGTERM)?, handler(Signal::SIGINT)?);
        Self::release();
        let tokens = [requested.clone(), forced.clone()];
        let listener = tokio::spawn(async move {
            tokio::join!(listen(ends, tokens), join_all(others));
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

fn handler(signal: Signal) -> io::Result<unix::Signal> {
    unix::signal(SignalKind::from_raw(signal as i32))
}

async fn ignore(mut arrivals: unix::Signal, signal: Signal) {
    while arrivals.recv().await.is_some() {
        tracing::info!(signal = name(signal), "a signal that means nothing here");
    }
}

async fn hand_over(mut arrivals: unix::Signal, signal: Signal, taker: mpsc::Sender<Signal>) {
    while arrivals.recv().await.is_some() && taker.send(signal).await.is_ok() {}
}

fn name(signal: Signal) -> &'static str {
    signal.as_str().trim_start_matches("SIG")
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
