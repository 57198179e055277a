//! The logs of all pods, read while they are written, and the invariants between them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    log_parser::{LeadershipNotice, LogParser},
    report::ChaosReport,
};
use crate::Result;

/// A log, and the length that was read.
#[derive(Debug)]
struct PodLogFile {
    cluster: &'static str,
    path: PathBuf,
    read: u64,
    /// A line that was not complete yet.
    rest: String,
    parser: LogParser,
}

impl PodLogFile {
    /// Returns the complete lines that were written since.
    fn news(&mut self) -> Result<String> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        self.read += u64::try_from(file.read_to_end(&mut bytes)?)?;
        self.rest.push_str(&String::from_utf8_lossy(&bytes));
        let end = self.rest.rfind('\n').map_or(0, |end| end + 1);
        let rest = self.rest.split_off(end);
        Ok(std::mem::replace(&mut self.rest, rest))
    }
}

/// Time at which an event of a leadership was logged. Times are texts that sort chronologically.
type LeadershipEvent = (String, i64);

/// All logs of a chaos run, including those of hosts that are gone.
#[derive(Debug, Default)]
pub(super) struct LogChecker {
    logs: BTreeMap<String, PodLogFile>,
    /// By cluster: times at which check phases completed, and at which an `off` or `on` started on any pod.
    checked: BTreeMap<&'static str, Vec<LeadershipEvent>>,
    started: BTreeMap<&'static str, Vec<LeadershipEvent>>,
}

impl LogChecker {
    /// Adds a log, from its start.
    pub(super) fn follow(&mut self, name: &str, cluster: &'static str, path: PathBuf) {
        let parser = LogParser::new(name.to_owned());
        self.logs.insert(name.to_owned(), PodLogFile { cluster, path, read: 0, rest: String::new(), parser });
    }

    /// Reads the lines that were written since.
    pub(super) fn read(&mut self, report: &mut ChaosReport) -> Result {
        let mut all = Vec::new();
        for (name, log) in &mut self.logs {
            for line in log.news()?.lines() {
                let news = log.parser.parse(line, report);
                all.extend(news.map(|(time, news)| (name.clone(), log.cluster, time.to_owned(), news)));
            }
        }
        for (name, cluster, time, news) in all {
            self.check_order(&name, cluster, time, news, report);
        }
        Ok(())
    }

    fn check_order(
        &mut self,
        name: &str,
        cluster: &'static str,
        time: String,
        news: LeadershipNotice,
        report: &mut ChaosReport,
    ) {
        let checked = self.checked.entry(cluster).or_default();
        let started = self.started.entry(cluster).or_default();
        let late =
            |checked: &LeadershipEvent, started: &LeadershipEvent| started.0 > checked.0 && started.1 < checked.1;
        let found = match news {
            LeadershipNotice::Started(epoch) => {
                started.push((time, epoch));
                started.last().and_then(|started| checked.iter().find(|checked| late(checked, started)))
            }
            LeadershipNotice::Checked(epoch) => {
                checked.push((time, epoch));
                checked.last().and_then(|checked| started.iter().find(|started| late(checked, started)))
            }
        };
        report.check("no off or on starts after a later leader's check", found.is_none(), || {
            format!("{name}: {news:?}, against {found:?}")
        });
    }

    /// Copies all logs into a directory.
    pub(super) fn copy_logs(&self, to: &Path) -> Result {
        for (name, log) in &self.logs {
            fs::copy(&log.path, to.join(format!("{name}.log")))?;
        }
        Ok(())
    }

    /// Returns what a pod's log has reported so far.
    pub(super) fn parser(&self, name: &str) -> Option<&LogParser> {
        self.logs.get(name).map(|log| &log.parser)
    }

    /// Returns, of all pods together, the lost sessions and the started configurations.
    pub(super) fn losses_and_starts(&self) -> (u64, u64) {
        let parsers = || self.logs.values().map(|log| &log.parser);
        (parsers().map(|parser| parser.lost).sum(), parsers().map(|parser| parser.configurations_started).sum())
    }
}
