//! Events of one pod, parsed from its log line by line.

use super::report::ChaosReport;

/// A command that started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct StartedTask {
    task: String,
    /// None if an operator sent it.
    generation: Option<String>,
}

/// Events that concern other pods as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeadershipNotice {
    /// An `off` or `on` of this leadership started.
    Started(i64),
    /// The check phase of this leadership completed.
    Checked(i64),
}

/// State of one host according to its log.
#[derive(Debug, Default)]
pub(super) struct LogParser {
    /// Its current session.
    pub(super) session: Option<i64>,
    /// Sessions that it lost.
    pub(super) lost: u64,
    /// Starts of its sub-process.
    pub(super) starts: u64,
    /// Configurations that it started to prepare as the leader.
    pub(super) configurations_started: u64,
    name: String,
    /// The last leadership that it accepted.
    epoch: Option<i64>,
    /// Its own leadership.
    leadership: Option<i64>,
    last: StartedTask,
    runs: bool,
    /// Whether the sub-process exited on its own: the next start is its restart.
    crashed: bool,
    /// The configuration that the sub-process was started for, and the one that stopped it.
    started_for: Option<String>,
    stopped_for: Option<String>,
}

impl LogParser {
    pub(super) fn new(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// Returns the last leadership of the pod.
    pub(super) fn leadership(&self) -> Option<i64> {
        self.leadership
    }

    /// Parses a line: `time - LEVEL - text`, or any other output of the process.
    pub(super) fn parse<'a>(&mut self, line: &'a str, report: &mut ChaosReport) -> Option<(&'a str, LeadershipNotice)> {
        report.check("no host panics", !line.contains("panicked at"), || format!("{}: {line}", self.name));
        let (time, rest) = line.split_once(" - ")?;
        let (level, text) = rest.split_once(" - ")?;
        report.check("no host logs an error", level != "ERROR", || format!("{}: {line}", self.name));
        let news = if text.starts_with("control request started") {
            self.request_started(field(text, "task").unwrap_or_default(), text, report)
        } else if text.starts_with("sub-process started") {
            self.sub_process_started(report);
            None
        } else if text.starts_with("pre-check passed") {
            self.leadership.map(LeadershipNotice::Checked)
        } else {
            self.record(text, report);
            None
        };
        news.map(|news| (time, news))
    }

    fn request_started(&mut self, task: &str, text: &str, report: &mut ChaosReport) -> Option<LeadershipNotice> {
        let epoch: Option<i64> = field(text, "epoch").and_then(|epoch| epoch.parse().ok());
        self.last = StartedTask { task: task.to_owned(), generation: field(text, "generation").map(str::to_owned) };
        let epoch = epoch?;
        report.check("no command of an earlier leadership starts", self.epoch <= Some(epoch), || {
            format!("{} starts {text:?} after epoch {:?}", self.name, self.epoch)
        });
        self.epoch = Some(epoch);
        matches!(task, "off" | "on").then_some(LeadershipNotice::Started(epoch))
    }

    fn sub_process_started(&mut self, report: &mut ChaosReport) {
        self.starts += 1;
        report.starts += 1;
        report.check("a pod has one sub-process", !self.runs, || format!("{} starts another", self.name));
        self.runs = true;
        let generation = if self.last.task == "on" { self.last.generation.clone() } else { None };
        if !std::mem::take(&mut self.crashed) && generation.is_some() {
            let again = self.started_for == generation && self.stopped_for == generation;
            report.check("a configuration starts a sub-process once", !again, || {
                format!("{} starts it again for {generation:?}", self.name)
            });
            self.started_for = generation;
        }
        self.stopped_for = None;
    }

    fn record(&mut self, text: &str, report: &mut ChaosReport) {
        if text.starts_with("sub-process exited unexpectedly") {
            (self.runs, self.crashed) = (false, true);
        } else if text.starts_with("sub-process exited") {
            self.runs = false;
        } else if text.starts_with("stopping sub-process") {
            self.stopped_for.clone_from(&self.last.generation);
        } else if text.starts_with("leadership started") {
            self.leadership = field(text, "epoch").and_then(|epoch| epoch.parse().ok());
        } else if text.starts_with("configuration started pods=") {
            self.configurations_started += 1;
        } else if text.starts_with("configuration complete") {
            report.configurations += 1;
        } else if text.starts_with("session established") {
            self.session = field(text, "session").and_then(|session| session.parse().ok());
        } else if text.starts_with("session lost") {
            self.lost += 1;
            report.sessions_lost += 1;
        } else if text.starts_with("configuration failed, terminating pod") || text.starts_with("too many failed") {
            report.check("no pod is abandoned", false, || format!("{}: {text}", self.name));
        }
    }
}

/// Returns the value of a field of a log line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = text.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(lines: &[&str]) -> Vec<String> {
        let (mut parser, mut report) = (LogParser::new("pod".to_owned()), ChaosReport::default());
        for line in lines {
            parser.parse(&format!("2026-01-01T00:00:00.000000Z - INFO - {line}"), &mut report);
        }
        report.broken
    }

    const ON: &str = "control request started task=\"on\" epoch=5 generation=\"g\"";
    const OFF: &str = "control request started task=\"off\" epoch=5 generation=\"g\"";
    const RUNS: &str = "sub-process started pid=7 start=1";
    const STOPS: &str = "stopping sub-process pid=7";
    const ENDED: &str = "sub-process exited pid=7 exit=\"killed by SIGTERM\"";
    const CRASH: &str = "sub-process exited unexpectedly, restarting pid=7 exit=\"killed by SIGKILL\"";

    #[test]
    fn events_within_the_contract_are_accepted() {
        for lines in [
            [ON, RUNS, CRASH, RUNS].as_slice(),
            &[ON, RUNS, CRASH, ON, RUNS],
            &[ON, RUNS, "control request started task=\"off\"", STOPS, ENDED, ON, RUNS],
            &[
                ON,
                RUNS,
                "control request started task=\"off\"",
                STOPS,
                ENDED,
                "control request started task=\"on\"",
                RUNS,
            ],
            &[ON, RUNS, "control request started task=\"off\" epoch=6 generation=\"h\"", STOPS, ENDED],
        ] {
            assert_eq!(broken(lines), [""; 0], "{lines:?}");
        }
    }

    #[test]
    fn violations_are_reported() {
        for (lines, expected) in [
            ([ON, RUNS, OFF, STOPS, ENDED, ON, RUNS].as_slice(), "a configuration starts"),
            (&[ON, RUNS, ON, RUNS], "one sub-process"),
            (&[ON, "control request started task=\"off\" epoch=4 generation=\"g\""], "earlier leadership"),
            (&["thread 'main' panicked at x.rs"], "panics"),
            (&["configuration failed, terminating pod outcome=…"], "abandoned"),
        ] {
            let broken = broken(lines);
            assert!(broken.len() == 1 && broken[0].contains(expected), "{lines:?} results in {broken:?}");
        }
    }
}
