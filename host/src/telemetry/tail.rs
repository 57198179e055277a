//! The newest lines, for people who ask.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{KEPT, Lines};

/// How long the answer may wait for lines on their way to the file.
const LAG: Duration = Duration::from_millis(100);

/// Answers `/log`. Clones are cheap.
#[derive(Debug, Clone)]
pub struct LogTail {
    lines: Arc<Lines>,
    file: Option<PathBuf>,
}

impl LogTail {
    pub(super) fn new(lines: Arc<Lines>, file: Option<PathBuf>) -> Self {
        Self { lines, file }
    }

    /// The newest lines, oldest first, at most 32 KB together: of the log file when there is one and it can be read, else of
    /// the memory. Reads files: not for an async context.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let Some(path) = &self.file else { return self.lines.ring.lines() };
        if let Some(file) = &self.lines.file {
            file.flush(LAG);
        }
        let Ok(mut text) = end_of(path, KEPT) else { return self.lines.ring.lines() };
        if text.len() < KEPT {
            // It was begun a moment ago: the one before has the rest.
            let mut older = path.clone().into_os_string();
            older.push(".1");
            let mut joined = end_of(Path::new(&older), KEPT - text.len()).unwrap_or_default();
            joined.append(&mut text);
            text = joined;
        }
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }
}

/// The last bytes of a file, from the beginning of a line on.
fn end_of(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    // One byte more shows whether the first line is whole.
    let start = size.saturating_sub(most.saturating_add(1));
    file.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut text)?;
    if size > most {
        let torn = text.iter().position(|b| *b == b'\n').map_or(text.len(), |end| end + 1);
        text.drain(..torn);
    }
    Ok(text)
}
