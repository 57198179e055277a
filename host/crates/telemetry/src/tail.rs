//! Access to the newest log lines.

use std::{
    ffi::OsStr,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ochopod_files::{self as files, Directory};

use super::{LogSinks, RING_BYTES, rotate::older};

/// Maximum wait for lines that are being written to the file.
const FLUSH_WAIT: Duration = Duration::from_millis(100);

/// Reader of the newest log lines, for `/log`. Clones are cheap.
#[derive(Debug, Clone)]
pub struct LogTail {
    sinks: Arc<LogSinks>,
    file: Option<PathBuf>,
}

impl LogTail {
    pub(super) fn new(sinks: Arc<LogSinks>, file: Option<PathBuf>) -> Self {
        Self { sinks, file }
    }

    /// Returns the newest lines in memory, oldest first: those of the host, at most 32 KiB.
    #[must_use]
    pub fn newest(&self) -> Vec<String> {
        self.sinks.ring.lines()
    }

    /// Returns the newest lines, oldest first, at most 32 KiB: from the log file if it is readable and complete, else from
    /// memory. Blocks on file I/O.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let Some(path) = &self.file else { return self.sinks.ring.lines() };
        // The file lacks the newest lines if the disk is full or blocked.
        if !self.sinks.file_is_complete(FLUSH_WAIT) {
            return self.sinks.ring.lines();
        }
        let Ok((directory, name)) = files::writable_parent(path) else { return self.sinks.ring.lines() };
        let Ok(mut text) = end_of(&directory, &name, RING_BYTES) else { return self.sinks.ring.lines() };
        if text.len() < RING_BYTES {
            // After a rotation, the previous file has the rest.
            let mut joined = end_of(&directory, &older(&name, 1), RING_BYTES - text.len()).unwrap_or_default();
            joined.append(&mut text);
            text = joined;
        }
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }
}

/// Returns the last bytes of a file, from the start of a line.
fn end_of(directory: &Directory, name: &OsStr, max_bytes: usize) -> io::Result<Vec<u8>> {
    let mut file = directory.open(name)?;
    let size = file.metadata()?.len();
    let max_bytes = u64::try_from(max_bytes).unwrap_or(u64::MAX);
    // One byte more shows whether the first line is whole.
    let start = size.saturating_sub(max_bytes.saturating_add(1));
    file.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut text)?;
    if size > max_bytes {
        let torn = text.iter().position(|b| *b == b'\n').map_or(text.len(), |end| end + 1);
        text.drain(..torn);
    }
    Ok(text)
}
