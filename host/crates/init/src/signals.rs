//! Signals that start and force the shutdown of the host, and signals that it forwards to its application.

use std::{
    future::poll_fn,
    io,
    sync::atomic::{AtomicI32, Ordering},
    task::Poll,
};

use futures_util::future::join_all;
use nix::sys::signal::{SigSet, Signal};
use tokio::{
    signal::unix::{self, SignalKind},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{SignalNumber, inherited, terminal};

/// Named signals that start a shutdown; WINCH does so without a terminal, and `RTMIN+3` always.
const SHUTDOWN: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
/// Stop signal of systemd images.
const SHUTDOWN_RT: SignalNumber = SignalNumber::real_time(3);

/// Signals forwarded to the application: those that no fault of the host causes, and after which it can continue.
/// Real-time signals are forwarded too.
const FORWARDED: [Signal; 10] = [
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];
/// Maximum number of queued signals.
const QUEUE_LEN: usize = 64;

/// Stop signal of children: TERM until another one started the shutdown of this process. Global, as signal handlers
/// are.
static STOP_SIGNAL: AtomicI32 = AtomicI32::new(Signal::SIGTERM as i32);

/// Returns the stop signal of children: the signal that started the shutdown if it is meant for the application (QUIT,
/// WINCH, `RTMIN+3`), otherwise TERM.
pub(super) fn stop_signal() -> SignalNumber {
    SignalNumber::from_raw(STOP_SIGNAL.load(Ordering::Acquire))
}

/// Shutdown signals of the host: the first requests a shutdown, the second forces it. TERM, INT, QUIT, `RTMIN+3`, and
/// WINCH without a terminal, are equivalent.
#[derive(Debug)]
pub struct TerminationSignals {
    requested: CancellationToken,
    forced: CancellationToken,
    /// Listens until this value is dropped.
    _listener: AbortOnDropHandle<()>,
}

impl TerminationSignals {
    /// Blocks shutdown signals until a listener starts on this thread, because the kernel drops signals to PID 1
    /// without a handler. Unblocks signals that the parent process left blocked. Must be called first of all.
    pub fn block() {
        // The host starts even if this fails.
        _ = inherited::block_only(&[SHUTDOWN.as_slice(), &[Signal::SIGWINCH]].concat());
    }

    /// Reverts [`Self::block`] if no listener will start. Pending signals have their usual effect.
    pub fn unblock() {
        _ = inherited::unblock_all();
    }

    /// Listens from now on, on the current runtime, and to pending signals. Shutdown signals never kill the process
    /// from here on. HUP, USR1 and USR2, which would kill a process without handlers, are logged and ignored; other
    /// signals are unchanged.
    ///
    /// # Errors
    /// If the system rejects the handlers.
    pub fn listen() -> io::Result<Self> {
        let others = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2].map(SignalNumber::from);
        let others = others.map(|signal| Ok(ignore(handler(signal)?, signal)));
        Self::listen_alongside(others.into_iter().collect::<io::Result<_>>()?)
    }

    /// Listens as [`Self::listen`] does, and forwards HUP, USR1 and all other signals that may be meant for the
    /// application. None of them kills the process.
    ///
    /// # Errors
    /// If the system rejects the handlers.
    pub fn listen_and_forward() -> io::Result<(Self, mpsc::Receiver<SignalNumber>)> {
        let (sender, receiver) = mpsc::channel(QUEUE_LEN);
        // A terminal sends WINCH to the application's group itself, and the init thread handles CONT.
        let last = if terminal::exists() { Signal::SIGWINCH } else { Signal::SIGCONT };
        let named = FORWARDED
            .into_iter()
            .chain([last])
            .map(|signal| handler(signal.into()).map(|arrivals| (arrivals, signal.into())));
        // Handlers for signals reserved by libc fail.
        let real_time = SignalNumber::all_real_time().filter(|signal| *signal != SHUTDOWN_RT);
        let real_time = real_time.filter_map(|signal| Some((handler(signal).ok()?, signal)));
        let others: Vec<_> = named.collect::<io::Result<_>>()?;
        let others = others.into_iter().chain(real_time);
        let others = others.map(|(arrivals, signal)| forward(arrivals, signal, sender.clone())).collect();
        Ok((Self::listen_alongside(others)?, receiver))
    }

    fn listen_alongside(others: Vec<impl Future<Output = ()> + Send + 'static>) -> io::Result<Self> {
        let (requested, forced) = (CancellationToken::new(), CancellationToken::new());
        let named = SHUTDOWN.into_iter().chain((!terminal::exists()).then_some(Signal::SIGWINCH));
        let signals = named.map(SignalNumber::from).chain([SHUTDOWN_RT]);
        let shutdown_signals = signals.map(|signal| Ok((handler(signal)?, signal))).collect::<io::Result<Vec<_>>>()?;
        // Writing to the terminal from the background must not stop the host, nor threads started from here on.
        let blocked = if terminal::exists() { SigSet::from(Signal::SIGTTOU) } else { SigSet::empty() };
        blocked.thread_set_mask()?;
        let tokens = [requested.clone(), forced.clone()];
        let listener = tokio::spawn(async move {
            tokio::join!(listen(shutdown_signals, tokens), join_all(others));
        });
        Ok(Self { requested, forced, _listener: AbortOnDropHandle::new(listener) })
    }

    /// Returns the token cancelled at the first signal, for a graceful shutdown.
    #[must_use]
    pub fn requested(&self) -> &CancellationToken {
        &self.requested
    }

    /// Returns the token cancelled at the second signal, for a forced shutdown.
    #[must_use]
    pub fn forced(&self) -> &CancellationToken {
        &self.forced
    }
}

fn handler(signal: SignalNumber) -> io::Result<unix::Signal> {
    unix::signal(SignalKind::from_raw(signal.as_raw()))
}

async fn ignore(mut arrivals: unix::Signal, signal: SignalNumber) {
    while arrivals.recv().await.is_some() {
        tracing::info!(%signal, "ignoring signal");
    }
}

async fn forward(mut arrivals: unix::Signal, signal: SignalNumber, receiver: mpsc::Sender<SignalNumber>) {
    while arrivals.recv().await.is_some() && receiver.send(signal).await.is_ok() {}
}

async fn listen(mut shutdown_signals: Vec<(unix::Signal, SignalNumber)>, [requested, forced]: [CancellationToken; 2]) {
    let first = next(&mut shutdown_signals).await;
    if first != Signal::SIGINT {
        STOP_SIGNAL.store(first.as_raw(), Ordering::Release);
    }
    tracing::info!(signal = %first, "termination requested");
    requested.cancel();
    let second = next(&mut shutdown_signals).await;
    tracing::info!(signal = %second, "termination requested");
    forced.cancel();
}

/// Waits for the next of these signals.
async fn next(shutdown_signals: &mut [(unix::Signal, SignalNumber)]) -> SignalNumber {
    poll_fn(|context| {
        let mut shutdown_signals = shutdown_signals.iter_mut();
        let arrived =
            shutdown_signals.find_map(|(arrivals, signal)| arrivals.poll_recv(context).is_ready().then_some(*signal));
        arrived.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}
