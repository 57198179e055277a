//! Processor time and bytes that the phases of a join use.

use std::time::{Duration, Instant};

use ochopod_tests::proxy::Message;

/// Phases, as the store shows them, and the task of their requests. The first begins before the process starts, the last is over
/// once the pods have settled.
pub(crate) const PHASES: [(&str, &str); 3] = [("start and check", "check"), ("on and commit", "on"), ("ok", "ok")];

/// Processor time used so far.
#[derive(Debug)]
pub(crate) struct CpuTimes {
    /// When it was read.
    pub(crate) at: Instant,
    /// That of the leader.
    pub(crate) leader: Duration,
    /// That of a follower, on average.
    pub(crate) follower: Duration,
}

impl CpuTimes {
    /// Returns what was used since earlier times.
    pub(crate) fn since(&self, earlier: &Self) -> CpuUse {
        CpuUse {
            span: self.at - earlier.at,
            leader: self.leader.saturating_sub(earlier.leader),
            follower: self.follower.saturating_sub(earlier.follower),
        }
    }
}

/// Processor time used in a span of time.
#[derive(Debug)]
pub(crate) struct CpuUse {
    /// The span.
    pub(crate) span: Duration,
    /// That of the leader.
    pub(crate) leader: Duration,
    /// That of a follower, on average.
    pub(crate) follower: Duration,
}

impl CpuUse {
    pub(crate) fn per_second(&self) -> Self {
        let seconds = self.span.as_secs_f64();
        let [leader, follower] = [self.leader, self.follower].map(|time| time.div_f64(seconds));
        Self { span: Duration::from_secs(1), leader, follower }
    }

    /// Returns the times without those of idle pods, which are given per second.
    pub(crate) fn above(&self, idle: &Self) -> Self {
        let seconds = self.span.as_secs_f64();
        let leader = self.leader.saturating_sub(idle.leader.mul_f64(seconds));
        Self { span: self.span, leader, follower: self.follower.saturating_sub(idle.follower.mul_f64(seconds)) }
    }
}

/// Processor times at the begin and end of each phase of one join, and the requests to one follower.
#[derive(Debug)]
pub(crate) struct PhaseMarks {
    /// At the begin, and at the end of each phase.
    pub(crate) cpu: [CpuTimes; PHASES.len() + 1],
    /// Requests to one follower.
    pub(crate) requests: Vec<Message>,
}

impl PhaseMarks {
    /// Returns the time until the new configuration was written.
    pub(crate) fn took(&self) -> Duration {
        let [begin, .., committed, _] = &self.cpu;
        committed.at - begin.at
    }

    /// Returns what was used in total.
    pub(crate) fn whole(&self) -> CpuUse {
        let [begin, .., end] = &self.cpu;
        end.since(begin)
    }

    /// Returns what was used in a phase, by its position.
    pub(crate) fn phase(&self, phase: usize) -> CpuUse {
        self.cpu[phase + 1].since(&self.cpu[phase])
    }

    /// Returns the size of the requests with a task.
    pub(crate) fn bytes(&self, task: &str) -> usize {
        self.requests.iter().filter(|request| request.posts(task)).map(|request| request.length).sum()
    }
}
