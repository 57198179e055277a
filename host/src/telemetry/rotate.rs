//! The log file: a small one, and three older ones.
//!
//! The sub-process may write to it too, and anybody may move it away or delete it: size and existence are looked up before each
//! write instead of being remembered. (Crates for this remember, and panic when the directory is not as they left it.)

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Bytes after which the file is set aside.
pub(super) const SIZE: u64 = 32 * 1024;
/// Files that were set aside and are kept.
const OLDER: u32 = 3;

#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    file: File,
}

impl RotatingFile {
    /// Opens or creates the file, and its directory.
    ///
    /// # Errors
    /// When that is not possible, or the path names something that is no regular file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        Ok(Self { path: path.to_owned(), file: append(path)? })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds whole lines; sets the file aside first where they would exceed its size.
    pub(super) fn write(&mut self, lines: &str) -> io::Result<()> {
        let mut rest = lines;
        while !rest.is_empty() {
            let found = self.file.metadata()?;
            let moved =
                fs::metadata(&self.path).map_or(true, |now| (now.dev(), now.ino()) != (found.dev(), found.ino()));
            let size = if moved {
                self.file = append(&self.path)?;
                self.file.metadata()?.len()
            } else {
                found.len()
            };
            let room = usize::try_from(SIZE.saturating_sub(size)).unwrap_or(0);
            let fitting = fitting(rest, room);
            if fitting == 0 && size > 0 {
                self.set_aside()?;
                continue;
            }
            // A line longer than a whole file is written as it is.
            let length = if fitting == 0 { rest.find('\n').map_or(rest.len(), |end| end + 1) } else { fitting };
            let (now, later) = rest.split_at(length);
            self.file.write_all(now.as_bytes())?;
            rest = later;
        }
        Ok(())
    }

    fn set_aside(&mut self) -> io::Result<()> {
        let older = |n: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..OLDER).rev() {
            // Missing, until there were as many.
            _ = fs::rename(older(n), older(n + 1));
        }
        if fs::rename(&self.path, older(1)).is_err() {
            // The directory is read-only: the old lines go, rather than the disk.
            return self.file.set_len(0);
        }
        self.file = append(&self.path)?;
        Ok(())
    }
}

/// How many bytes of `lines` fit as whole lines.
fn fitting(lines: &str, room: usize) -> usize {
    if lines.len() <= room {
        return lines.len();
    }
    lines.as_bytes().get(..room).and_then(|part| part.iter().rposition(|b| *b == b'\n')).map_or(0, |end| end + 1)
}

fn append(path: &Path) -> io::Result<File> {
    // Looked at before it is opened: opening a pipe waits for its reader.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(from: usize, to: usize) -> String {
        (from..to).fold(String::new(), |text, n| text + &format!("{n:0>99}\n"))
    }

    #[test]
    fn four_files_are_kept_and_no_line_is_torn() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs/pod.log");
        let mut file = RotatingFile::open(&path).unwrap();
        (0..30).for_each(|n| file.write(&lines(n * 100, n * 100 + 100)).unwrap());
        let mut names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["pod.log", "pod.log.1", "pod.log.2", "pod.log.3"]);
        let mut kept = String::new();
        for name in names.iter().rev() {
            let text = fs::read_to_string(path.with_file_name(name)).unwrap();
            assert!(text.len() as u64 <= SIZE);
            kept.push_str(&text);
        }
        assert!(lines(0, 3000).ends_with(&kept), "what is kept is the newest, in order");
    }

    #[test]
    fn what_others_write_counts_and_a_deleted_file_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pod.log");
        let mut file = RotatingFile::open(&path).unwrap();
        fs::write(&path, lines(0, 320)).unwrap();
        file.write(&lines(0, 10)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), lines(7, 10), "7 lines still fitted");
        fs::remove_file(&path).unwrap();
        fs::create_dir(directory.path().join("pod.log.2")).unwrap();
        file.write("again\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "again\n");
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path(), Path::new("/dev/null"), Path::new("/proc/self/nothing/pod.log")] {
            assert!(RotatingFile::open(path).is_err(), "{}", path.display());
        }
    }
}
