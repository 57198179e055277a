//! Carries out what the machine decides, and obeys signals: the only owner of the crew and of the configuration in force.

use std::{future::pending, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    config::Config,
    crew::Crew,
    exposition::{Exposition, ExpositionError},
    loader::{LoadError, Loader},
    machine::{Effect, Event, Hook, Machine},
    runner::Runner,
};
use crate::{init::Signal, telemetry::{Log, PilotMetrics, Reload}, wake::until};

/// How long the places of discovery may take to forget what was registered, when the host ends.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long a hook of the end may take.
const LONGEST_HOOK: Duration = Duration::from_mins(1);
/// How long coprocesses may take to end when asked.
const GRACE: Duration = Duration::from_secs(5);

/// What is accompanied, started by [`Application::start`].
pub struct Application {
    /// Starts it: what runs then, or the code that stands for why it does not.
    pub start: BoxFuture<'static, Result<Started, u8>>,
    /// How long it may take to end when asked, if that is its own affair and no configuration's.
    pub own_patience: bool,
}

/// What is accompanied, and runs.
pub struct Started {
    /// Completes with its code when it ended.
    pub ended: BoxFuture<'static, u8>,
    /// Passes a wish on.
    pub obey: Box<dyn Fn(Wish) + Send>,
}

/// What may be wanted of an application that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// That it ends.
    End,
    /// That it is gone.
    Kill,
    /// That it gets this signal.
    Signal(Signal),
}
