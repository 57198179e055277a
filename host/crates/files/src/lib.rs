//! Opens files by name, without following untrusted links and without blocking.
//!
//! A path is walked component by component, each opened relative to the descriptor of the directory before it. The
//! users that may write to a directory determine what is accepted in it:
//!
//! | directory | symbolic links | hard links |
//! |---|---|---|
//! | only root and the host's user may write | of root and of the host's user are followed | accepted |
//! | others may add entries but not replace them (sticky, or a read-only file system) | the same, for reading only | rejected |
//! | others may replace entries, or a guest may write (`--dir`, not `:ro`) | rejected | rejected |
//!
//! Only regular files are opened. The kind is checked before opening, so that no pipe or device is ever opened. A disk
//! or a network file system may still be slow: callers read on a separate thread. Links of `/proc` (`/dev/stdin`,
//! `/dev/fd/3`) refer to the file that the process has open.
//!
//! Directories that guests may write to must be declared ([`declare_guest_directories`]) before files are opened: a
//! guest writes as the host's user, so ownership does not distinguish its links from the operator's. The list of these
//! directories is the only state. This crate does not know what the files contain.
//!
//! | module | contents |
//! |---|---|
//! | `directory` | [`Directory`], and the operations in it |
//! | `walk` | resolution of a path to a directory |
//! | `writers` | users that may change a directory, and the declared directories of guests |
//! | `error` | reasons for a rejection |

mod directory;
mod error;
mod walk;
mod writers;

#[cfg(test)]
mod tests;

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _},
    path::Path,
};

pub use self::{directory::Directory, writers::declare_guest_directories};
use self::{error::Rejection, walk::Walk};

/// Purpose of opening a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Reads a file, or entries of a directory.
    Read,
    /// Writes to a file, or creates an entry in a directory.
    Write,
}

/// Opens a regular file to read it.
///
/// # Errors
/// If the file cannot be opened, is not a regular file, or is reached by an untrusted link.
pub fn open(path: &Path) -> io::Result<File> {
    let (directory, name) = parent(path, Purpose::Read)?;
    directory.open(&name)
}

/// Reads a regular file of at most `max` bytes.
///
/// # Errors
/// As [`open`]; [`io::ErrorKind::FileTooLarge`] when it has more bytes.
pub fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    if file.metadata()?.len() > max {
        return Err(Rejection::Large(max).into());
    }
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max {
        return Err(Rejection::Large(max).into());
    }
    Ok(bytes)
}

/// Opens a regular file to replace its content; creates it with this mode if there is none.
///
/// # Errors
/// As [`open`].
pub fn truncate(path: &Path, mode: u32) -> io::Result<File> {
    let (directory, name) = parent(path, Purpose::Write)?;
    directory.truncate(&name, mode)
}

/// Returns the directory of a path that is written to, and the name in it.
///
/// # Errors
/// If the directory is missing, or is reached by an untrusted link.
pub fn writable_parent(path: &Path) -> io::Result<(Directory, OsString)> {
    parent(path, Purpose::Write)
}

/// Opens a regular file that holds native code: one that no guest may have put there.
///
/// # Errors
/// As [`open`]; when it is in a directory to which a guest may write.
pub fn open_code(path: &Path) -> io::Result<File> {
    let (directory, name) = parent(path, Purpose::Read)?;
    if directory.is_guest_writable() {
        return Err(Rejection::Guest(quoted(path.as_os_str())).into());
    }
    directory.open(&name)
}

fn parent(path: &Path, purpose: Purpose) -> io::Result<(Directory, OsString)> {
    Walk::begin(path, purpose)?.into_parent()
}

/// Quotes and escapes a name for a message.
fn quoted(name: &OsStr) -> String {
    format!("{:?}", name.to_string_lossy())
}
