//! What one pod's log tells, line by line.

use super::ledger::Ledger;

/// A command that began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Command {
    task: String,
    /// None when it came by hand.
    generation: Option<String>,
}

/// What concerns other pods as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// An `off` or `on` of this leadership began.
    Begun(i64),
    /// The check phase of this leadership is done.
    Checked(i64),
}

/// The life of one host as its log has it.
#[derive(Debug, Default)]
pub(super) struct Diary {
    /// The session that it lives under.
    pub(super) session: Option<i64>,
    /// Sessions that it lost.
    pub(super) lost: u64,
    /// Starts of its sub-process.
    pub(super) starts: u64,
    /// Configurations that it began to prepare as the leader.
    pub(super) begun: u64,
    name: String,
    /// The last leadership that it obeyed.
    epoch: Option<i64>,
    /// Its own leadership.
    leads: Option<i64>,
    last: Command,
    runs: bool,
    /// The sub-process ended by itself: whatever starts it again is its restart.
    crashed: bool,
    /// The configuration that the sub-process was started for, and the one that stopped it.
    started_for: Option<String>,
    stopped_for: Option<String>,
}

impl Diary {
    pub(super) fn new(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// The leadership that it had last.
    pub(super) fn leads(&self) -> Option<i64> {
        self.leads
    }

    /// Takes a line in: `time - LEVEL - text`, or whatever else the process wrote.
    pub(super) fn take<'a>(&mut self, line: &'a str, ledger: &mut Ledger) -> Option<(&'a str, News)> {
        ledger.holds("no host panics", !line.contains("panicked at"), || format!("{}: {line}", self.name));
        let (time, rest) = line.split_once(" - ")?;
        let (level, text) = rest.split_once(" - ")?;
        ledger.holds("no host logs an error", level != "ERROR", || format!("{}: {line}", self.name));
        let news = if let Some(task) = text.strip_prefix("/control/").and_then(|text| text.split_once(" begins")) {
            self.begins(task.0, text, ledger)
        } else if text.starts_with("the sub-process runs") {
            self.started(ledger);
            None
        } else if text.starts_with("no pod objects") {
            self.leads.map(News::Checked)
        } else {
            self.note(text, ledger);
            None
        };
        news.map(|news| (time, news))
    }

    fn begins(&mut self, task: &str, text: &str, ledger: &mut Ledger) -> Option<News> {
        let epoch: Option<i64> = field(text, "epoch").and_then(|epoch| epoch.parse().ok());
        self.last = Command { task: task.to_owned(), generation: field(text, "generation").map(str::to_owned) };
        let epoch = epoch?;
        ledger.holds("no command of an earlier leadership begins", self.epoch <= Some(epoch), || {
            format!("{} begins {text:?} after epoch {:?}", self.name, self.epoch)
        });
        self.epoch = Some(epoch);
        matches!(task, "off" | "on").then_some(News::Begun(epoch))
    }

    fn started(&mut self, ledger: &mut Ledger) {
        self.starts += 1;
        ledger.starts += 1;
        ledger.holds("a pod has one sub-process", !self.runs, || format!("{} starts another", self.name));
        self.runs = true;
        let generation = if self.last.task == "on" { self.last.generation.clone() } else { None };
        if !std::mem::take(&mut self.crashed) && generation.is_some() {
            let again = self.started_for == generation && self.stopped_for == generation;
            ledger.holds("a configuration starts a sub-process once", !again, || {
                format!("{} starts it again for {generation:?}", self.name)
            });
            self.started_for = generation;
        }
        self.stopped_for = None;
    }

    fn note(&mut self, text: &str, ledger: &mut Ledger) {
        if text.starts_with("the sub-process ended unexpectedly") {
            (self.runs, self.crashed) = (false, true);
        } else if text.starts_with("the sub-process ended") {
            self.runs = false;
        } else if text.starts_with("tearing the sub-process down") {
            self.stopped_for.clone_from(&self.last.generation);
        } else if text.starts_with("leading the cluster") {
            self.leads = field(text, "epoch").and_then(|epoch| epoch.parse().ok());
        } else if text.starts_with("configuring pods=") {
            self.begun += 1;
        } else if text.starts_with("configuration complete") {
            ledger.configurations += 1;
        } else if text.starts_with("connected to the store") {
            self.session = field(text, "session").and_then(|session| session.parse().ok());
        } else if text.starts_with("the session with the store is lost") {
            self.lost += 1;
            ledger.sessions_lost += 1;
        } else if text.starts_with("the pod cannot be configured") || text.starts_with("too many failed") {
            ledger.holds("no pod is given up", false, || format!("{}: {text}", self.name));
        }
    }
}

/// The value of a field of a log line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = text.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(lines: &[&str]) -> Vec<String> {
        let (mut diary, mut ledger) = (Diary::new("pod".to_owned()), Ledger::default());
        for line in lines {
            diary.take(&format!("2026-01-01T00:00:00.000000Z - INFO - {line}"), &mut ledger);
        }
        ledger.broken
    }

    const ON: &str = "/control/on begins epoch=5 generation=\"g\"";
    const OFF: &str = "/control/off begins epoch=5 generation=\"g\"";
    const RUNS: &str = "the sub-process runs pid=7 start=1";
    const STOPS: &str = "tearing the sub-process down pid=7";
    const ENDED: &str = "the sub-process ended pid=7 exit=Signal(15)";
    const CRASH: &str = "the sub-process ended unexpectedly, restarting it pid=7 exit=Signal(9)";

    #[test]
    fn what_the_contract_allows_is_allowed() {
        for lines in [
            [ON, RUNS, CRASH, RUNS].as_slice(),
            &[ON, RUNS, CRASH, ON, RUNS],
            &[ON, RUNS, "/control/off begins", STOPS, ENDED, ON, RUNS],
            &[ON, RUNS, "/control/off begins", STOPS, ENDED, "/control/on begins", RUNS],
            &[ON, RUNS, "/control/off begins epoch=6 generation=\"h\"", STOPS, ENDED],
        ] {
            assert_eq!(broken(lines), [""; 0], "{lines:?}");
        }
    }

    #[test]
    fn what_it_does_not_is_told() {
        for (lines, told) in [
            ([ON, RUNS, OFF, STOPS, ENDED, ON, RUNS].as_slice(), "a configuration starts"),
            (&[ON, RUNS, ON, RUNS], "one sub-process"),
            (&[ON, "/control/off begins epoch=4 generation=\"g\""], "earlier leadership"),
            (&["thread 'main' panicked at x.rs"], "panics"),
            (&["the pod cannot be configured: it ends outcome=…"], "given up"),
        ] {
            let broken = broken(lines);
            assert!(broken.len() == 1 && broken[0].contains(told), "{lines:?} gives {broken:?}");
        }
    }
}
