//! The log file with its rotation: the current file and three older ones.
//!
//! The sub-process may write to the file too, and other users may move or delete it. Size and existence are therefore checked
//! before each write. (Crates for log rotation cache them, and panic if the directory changed.)

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use ochopod_files::{self as files, Directory};

/// Maximum size of the file before it is rotated.
pub(super) const MAX_FILE_BYTES: u64 = 32 * 1024;
/// Maximum number of rotated files.
const MAX_OLDER_FILES: u32 = 3;
/// Mode of a created directory, before the umask.
const DIRECTORY_MODE: u32 = 0o777;

#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    file: File,
}

impl RotatingFile {
    /// Opens or creates the file and its directory.
    ///
    /// # Errors
    /// The file cannot be opened, is not a regular file, or may have been linked there by another user: see [`files`].
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Directory::create(directory, DIRECTORY_MODE)?;
        }
        let (directory, name) = files::writable_parent(path)?;
        Ok(Self { path: path.to_owned(), file: directory.append(&name)? })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends whole lines; rotates the file first if they would exceed its size.
    ///
    /// # Errors
    /// The lines that were not written, with the cause; a full disk accepts a part.
    pub(super) fn write<'a>(&mut self, lines: &'a str) -> Result<(), (&'a str, io::Error)> {
        let mut rest = lines;
        self.write_rest(&mut rest).map_err(|error| (rest, error))
    }

    /// Writes `rest` and shortens it by the written part.
    fn write_rest(&mut self, rest: &mut &str) -> io::Result<()> {
        while !rest.is_empty() {
            let (directory, name) = files::writable_parent(&self.path)?;
            let found = self.file.metadata()?;
            let moved = directory.identity(&name).map_or(true, |now| now != (found.dev(), found.ino()));
            let size = if moved {
                self.file = directory.append(&name)?;
                self.file.metadata()?.len()
            } else {
                found.len()
            };
            let room = usize::try_from(MAX_FILE_BYTES.saturating_sub(size)).unwrap_or(0);
            let fitting = fitting(rest, room);
            if fitting == 0 && size > 0 {
                self.rotate(&directory, &name)?;
                continue;
            }
            // A line longer than a whole file is written unchanged.
            let length = if fitting == 0 { rest.find('\n').map_or(rest.len(), |end| end + 1) } else { fitting };
            let (now, _) = rest.split_at(length);
            let written = self.file.write(now.as_bytes())?;
            // A write that ends within a character repeats that character.
            *rest = rest.split_at(rest.floor_char_boundary(written)).1;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    fn rotate(&mut self, directory: &Directory, name: &OsStr) -> io::Result<()> {
        for n in (1..MAX_OLDER_FILES).rev() {
            // Fails until that many rotations took place.
            _ = directory.rename(&older(name, n), &older(name, n + 1));
        }
        if directory.rename(name, &older(name, 1)).is_err() {
            // In a read-only directory, old lines are dropped to limit the size.
            return self.file.set_len(0);
        }
        self.file = directory.append(name)?;
        Ok(())
    }
}

/// Returns the name of a rotated file.
pub(super) fn older(name: &OsStr, n: u32) -> OsString {
    let mut older = name.to_owned();
    older.push(format!(".{n}"));
    older
}

/// Returns how many bytes of `lines` fit as whole lines.
fn fitting(lines: &str, room: usize) -> usize {
    if lines.len() <= room {
        return lines.len();
    }
    lines.as_bytes().get(..room).and_then(|part| part.iter().rposition(|b| *b == b'\n')).map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn lines(from: usize, to: usize) -> String {
        (from..to).fold(String::new(), |text, n| text + &format!("{n:0>99}\n"))
    }

    #[test]
    fn four_files_are_kept_and_no_line_is_split() {
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
            assert!(text.len() as u64 <= MAX_FILE_BYTES);
            kept.push_str(&text);
        }
        assert!(lines(0, 3000).ends_with(&kept), "what is kept is the newest, in order");
    }

    #[test]
    fn size_includes_lines_of_other_writers_and_a_deleted_file_is_created_again() {
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
    fn irregular_files_are_rejected() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path(), Path::new("/dev/null"), Path::new("/proc/self/nothing/pod.log")] {
            assert!(RotatingFile::open(path).is_err(), "{}", path.display());
        }
    }

    #[test]
    fn links_of_other_users_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (secret, path) = (directory.path().join("secret"), directory.path().join("logs/pod.log"));
        fs::write(&secret, "secret").unwrap();
        let mut file = RotatingFile::open(&path).unwrap();
        fs::set_permissions(path.parent().unwrap(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        file.write("ours\n").unwrap();
        let planted: [fn(&Path, &Path); 3] = [
            |secret, at| std::os::unix::fs::symlink(secret, at).unwrap(),
            |_, at| std::os::unix::fs::symlink("../secret", at).unwrap(),
            |secret, at| fs::hard_link(secret, at).unwrap(),
        ];
        for plant in planted {
            fs::remove_file(&path).unwrap();
            plant(&secret, &path);
            assert!(file.write("forged\n").is_err() && RotatingFile::open(&path).is_err());
            fs::remove_file(&path).unwrap();
            // Rotation replaces a link.
            let older = path.with_file_name("pod.log.1");
            plant(&secret, &older);
            file.write(&lines(0, 400)).unwrap();
            assert!(fs::symlink_metadata(&older).unwrap().is_file() && fs::read(&older).unwrap().len() > 1000);
            fs::remove_file(&older).unwrap();
            assert_eq!(fs::read(&secret).unwrap(), b"secret");
        }
    }
}
