//! Number of checks, and violations.

use std::{collections::BTreeMap, fmt};

/// Counts of one run, or of several runs.
#[derive(Debug, Default)]
pub struct ChaosReport {
    /// Faults by their kind.
    pub faults: BTreeMap<String, u64>,
    /// Number of checks of each invariant.
    pub checks: BTreeMap<&'static str, u64>,
    /// The violations.
    pub broken: Vec<String>,
    /// Completed configurations.
    pub configurations: u64,
    /// Starts of sub-processes.
    pub starts: u64,
    /// Lost sessions.
    pub sessions_lost: u64,
}

impl ChaosReport {
    /// Counts a check of an invariant.
    pub(super) fn check(&mut self, invariant: &'static str, kept: bool, instead: impl FnOnce() -> String) {
        *self.checks.entry(invariant).or_default() += 1;
        if !kept {
            self.broken.push(format!("{invariant}: {}", instead()));
        }
    }

    /// Adds the counts of another report.
    pub fn add(&mut self, other: Self) {
        for (kind, count) in other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (invariant, count) in other.checks {
            *self.checks.entry(invariant).or_default() += count;
        }
        self.broken.extend(other.broken);
        self.configurations += other.configurations;
        self.starts += other.starts;
        self.sessions_lost += other.sessions_lost;
    }
}

impl fmt::Display for ChaosReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "faults: {}", self.faults.values().sum::<u64>())?;
        for (kind, count) in &self.faults {
            writeln!(f, "{count:8}  {kind}")?;
        }
        writeln!(
            f,
            "configurations {}, starts {}, sessions lost {}",
            self.configurations, self.starts, self.sessions_lost
        )?;
        writeln!(f, "invariants: {} checks", self.checks.values().sum::<u64>())?;
        for (invariant, count) in &self.checks {
            writeln!(f, "{count:8}  {invariant}")?;
        }
        write!(f, "broken: {}", self.broken.len())
    }
}
