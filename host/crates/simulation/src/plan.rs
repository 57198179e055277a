//! The plan of a run, drawn from the seed: settings of the clusters, kinds and rates of faults, durations.

use std::time::Duration;

use ochopod_plugin::{Batch, LifecycleSettings, ModelSettings, OnChange};

use super::fault_rates::FaultRates;

/// The two clusters of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClusterSide {
    /// The main cluster.
    Web,
    /// The cluster that it depends on, in some runs.
    Db,
}

impl ClusterSide {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Db => "db",
        }
    }
}

/// Kinds of faults of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// All faults.
    All,
    /// Only outages of the store.
    Outages {
        /// All outages are shorter than the session timeout.
        short: bool,
    },
    /// Only expired sessions of the dependency.
    Expiries,
}

#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent")]
pub(super) struct Plan {
    pub(super) kind: FaultKind,
    pub(super) rates: FaultRates,
    /// Number of faults.
    pub(super) faults: usize,
    pub(super) web: usize,
    pub(super) db: usize,
    pub(super) depends: bool,
    /// Longest duration of a callback without a fault.
    pub(super) pace: Duration,
    /// Whether the first configuration starts the sub-processes.
    pub(super) start: bool,
    /// Session timeout.
    pub(super) session: Duration,
    pub(super) damper: Duration,
    pub(super) full_shutdown: bool,
    pub(super) sequential: bool,
    pub(super) batch: Batch,
    pub(super) limit: Duration,
    pub(super) lifecycle: LifecycleSettings,
}

impl Plan {
    /// Draws a plan from the thread's generator.
    pub(super) fn random() -> Self {
        let kind = match fastrand::u32(..10) {
            0 => FaultKind::Outages { short: true },
            1 => FaultKind::Outages { short: false },
            2 => FaultKind::Expiries,
            _ => FaultKind::All,
        };
        let depends = kind == FaultKind::Expiries || fastrand::u32(..3) == 0;
        Self {
            kind,
            rates: if kind == FaultKind::All {
                rates()
            } else {
                FaultRates { slow: fastrand::f64() * 0.1, ..FaultRates::default() }
            },
            faults: if kind == FaultKind::All { fastrand::usize(4..16) } else { fastrand::usize(1..4) },
            web: fastrand::usize(1..5),
            db: if kind == FaultKind::Expiries { 1 } else { fastrand::usize(1..3) },
            depends,
            pace: Duration::from_millis([4, 100, 2500][fastrand::usize(..3)]),
            start: fastrand::u32(..10) > 0,
            session: Duration::from_secs(5),
            damper: [Duration::ZERO, Duration::from_secs(1), Duration::from_millis(fastrand::u64(..6000))]
                [fastrand::usize(..3)],
            full_shutdown: fastrand::bool(),
            sequential: fastrand::u32(..3) == 0,
            batch: [Batch::All, Batch::Pods(1), Batch::Percent(50)][fastrand::usize(..3)],
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
                on_change: if fastrand::bool() { OnChange::Restart } else { OnChange::Compare },
                ready_within: Duration::from_secs(fastrand::u64(5..60)),
            },
        }
    }

    /// Returns the same plan with a large main cluster, which one pod after the other would not start in time.
    pub(super) fn with_pods(self, pods: usize) -> Self {
        let batch = if self.batch == Batch::Pods(1) { Batch::Percent(50) } else { self.batch };
        Self { web: pods, sequential: false, batch, ..self }
    }

    /// Returns whether the pod at this address accepts differences between views: one in four does not, as those of the Python
    /// SDK.
    pub(super) fn accepts_differences(address: &str) -> bool {
        address.bytes().map(u32::from).sum::<u32>() % 4 > 0
    }

    /// Returns the model settings of a cluster.
    pub(super) fn model(&self, side: ClusterSide) -> ModelSettings {
        let depends = self.depends && side == ClusterSide::Web;
        let is_free = !self.full_shutdown && !self.sequential;
        ModelSettings {
            batch: if is_free { self.batch } else { Batch::All },
            damper: self.damper,
            depends_on: depends.then(|| ClusterSide::Db.name().to_owned()).into_iter().collect(),
            full_shutdown: self.full_shutdown,
            grace: self.limit,
            probe_every: Duration::from_mins(1),
            sequential: self.sequential,
            tolerate: 0,
        }
    }
}

/// Draws rates: in some runs all kinds of faults occur, in others only a few.
fn rates() -> FaultRates {
    let some = |worst: f64| if fastrand::bool() { fastrand::f64() * worst } else { 0.0 };
    FaultRates {
        lost: some(0.1),
        slow: some(0.2),
        twice: some(0.2),
        refused: some(0.1),
        unready: some(0.8),
        stuck: some(0.1),
        stubborn: some(0.3),
    }
}
