//! What a seed decides before anything happens: the cluster's settings, what may go wrong, and for how long.

use std::time::Duration;

use super::weather::Chances;
use crate::plugin::{LifecycleSettings, ModelSettings};

/// The two clusters of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// The one that is looked at first.
    Web,
    /// What it depends on, in some worlds.
    Db,
}

impl Side {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Db => "db",
        }
    }
}

/// Which faults there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Everything that is known to happen.
    All,
    /// The store is away at times, nothing else.
    Outages {
        /// Never for as long as a session.
        short: bool,
    },
    /// The sessions of what the others depend on expire, nothing else.
    Expiries,
}

#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent")]
pub(super) struct Plan {
    pub(super) kind: Kind,
    pub(super) chances: Chances,
    /// How many faults there are.
    pub(super) faults: usize,
    pub(super) web: usize,
    pub(super) db: usize,
    pub(super) depends: bool,
    /// The longest that a callback takes when nothing is wrong.
    pub(super) pace: Duration,
    /// Whether the first configuration starts the sub-processes.
    pub(super) start: bool,
    /// Session timeout.
    pub(super) session: Duration,
    pub(super) damper: Duration,
    pub(super) full_shutdown: bool,
    pub(super) sequential: bool,
    pub(super) limit: Duration,
    pub(super) lifecycle: LifecycleSettings,
}

impl Plan {
    /// Draws it from the thread's generator.
    pub(super) fn draw() -> Self {
        let kind = match fastrand::u32(..10) {
            0 => Kind::Outages { short: true },
            1 => Kind::Outages { short: false },
            2 => Kind::Expiries,
            _ => Kind::All,
        };
        let depends = kind == Kind::Expiries || fastrand::u32(..3) == 0;
        Self {
            kind,
            chances: if kind == Kind::All {
                chances()
            } else {
                Chances { slow: fastrand::f64() * 0.1, ..Chances::default() }
            },
            faults: if kind == Kind::All { fastrand::usize(4..16) } else { fastrand::usize(1..4) },
            web: fastrand::usize(1..5),
            db: if kind == Kind::Expiries { 1 } else { fastrand::usize(1..3) },
            depends,
            pace: Duration::from_millis([4, 100, 2500][fastrand::usize(..3)]),
            start: fastrand::u32(..10) > 0,
            session: Duration::from_secs(5),
            damper: [Duration::ZERO, Duration::from_secs(1), Duration::from_millis(fastrand::u64(..6000))]
                [fastrand::usize(..3)],
            full_shutdown: fastrand::bool(),
            sequential: fastrand::u32(..3) == 0,
            limit: Duration::from_secs(fastrand::u64(3..20)),
            lifecycle: LifecycleSettings {
                check_every: Duration::from_secs(fastrand::u64(5..60)),
                checks: fastrand::u32(1..4),
                cwd: None,
                grace: Duration::from_secs(fastrand::u64(1..10)),
                pipe_subprocess: false,
                shell: false,
                soft: fastrand::u32(..4) == 0,
                strict: fastrand::u32(..4) == 0,
            },
        }
    }

    /// What the model of this cluster says.
    pub(super) fn model(&self, side: Side) -> ModelSettings {
        let depends = self.depends && side == Side::Web;
        ModelSettings {
            damper: self.damper,
            depends_on: depends.then(|| Side::Db.name().to_owned()).into_iter().collect(),
            full_shutdown: self.full_shutdown,
            grace: self.limit,
            probe_every: Duration::from_mins(1),
            sequential: self.sequential,
        }
    }
}

/// In some worlds everything is bad, in others only some of it.
fn chances() -> Chances {
    let some = |worst: f64| if fastrand::bool() { fastrand::f64() * worst } else { 0.0 };
    Chances {
        lost: some(0.1),
        slow: some(0.2),
        twice: some(0.2),
        refused: some(0.1),
        stuck: some(0.1),
        stubborn: some(0.3),
    }
}
