//! The logs of all pods, read while they are written, and what must hold between them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    diary::{Diary, News},
    ledger::Ledger,
};
use crate::Result;

/// A log, and how much of it was read.
#[derive(Debug)]
struct Log {
    cluster: &'static str,
    path: PathBuf,
    read: u64,
    /// A line that was not whole yet.
    rest: String,
    diary: Diary,
}

impl Log {
    /// The whole lines that were written since.
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

/// When something of a leadership was logged. Times are texts that sort as they follow each other.
type Moment = (String, i64);

/// All logs of a storm, those of hosts that are gone included.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    logs: BTreeMap<String, Log>,
    /// By cluster: when check phases were done, and when an `off` or `on` began anywhere.
    checked: BTreeMap<&'static str, Vec<Moment>>,
    begun: BTreeMap<&'static str, Vec<Moment>>,
}

impl Chronicle {
    /// Follows another log from its beginning.
    pub(super) fn follow(&mut self, name: &str, cluster: &'static str, path: PathBuf) {
        let diary = Diary::new(name.to_owned());
        self.logs.insert(name.to_owned(), Log { cluster, path, read: 0, rest: String::new(), diary });
    }

    /// Reads what was written since.
    pub(super) fn read(&mut self, ledger: &mut Ledger) -> Result {
        let mut all = Vec::new();
        for (name, log) in &mut self.logs {
            for line in log.news()?.lines() {
                let news = log.diary.take(line, ledger);
                all.extend(news.map(|(time, news)| (name.clone(), log.cluster, time.to_owned(), news)));
            }
        }
        for (name, cluster, time, news) in all {
            self.judge(&name, cluster, time, news, ledger);
        }
        Ok(())
    }

    fn judge(&mut self, name: &str, cluster: &'static str, time: String, news: News, ledger: &mut Ledger) {
        let checked = self.checked.entry(cluster).or_default();
        let begun = self.begun.entry(cluster).or_default();
        let late = |checked: &Moment, begun: &Moment| begun.0 > checked.0 && begun.1 < checked.1;
        let found = match news {
            News::Begun(epoch) => {
                begun.push((time, epoch));
                begun.last().and_then(|begun| checked.iter().find(|checked| late(checked, begun)))
            }
            News::Checked(epoch) => {
                checked.push((time, epoch));
                checked.last().and_then(|checked| begun.iter().find(|begun| late(checked, begun)))
            }
        };
        ledger.holds("no off or on begins after a later leader's check", found.is_none(), || {
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

    /// What a pod's log has told so far.
    pub(super) fn diary(&self, name: &str) -> Option<&Diary> {
        self.logs.get(name).map(|log| &log.diary)
    }

    /// Of all pods together: sessions lost, and configurations begun.
    pub(super) fn unrest(&self) -> (u64, u64) {
        let diaries = || self.logs.values().map(|log| &log.diary);
        (diaries().map(|diary| diary.lost).sum(), diaries().map(|diary| diary.begun).sum())
    }
}
