//! Safely reached directory, and operations on its entries.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, renameat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
};

use super::{
    Purpose,
    error::Rejection,
    quoted,
    walk::{Step, Walk, kind, named},
    writers::Writers,
};

/// Never blocks, and never acquires a terminal.
const SAFE_FLAGS: OFlag = OFlag::O_NONBLOCK.union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// Directory identified by its descriptor, independent of later changes to its name.
#[derive(Debug)]
pub struct Directory {
    pub(super) descriptor: OwnedFd,
    pub(super) writers: Writers,
    /// Least trusted users that may change what the path to here refers to.
    pub(super) above: Writers,
}

impl Directory {
    pub(super) fn of(descriptor: OwnedFd, guest_above: bool) -> io::Result<Self> {
        let stat = fstat(&descriptor)?;
        let writers = Writers::of(descriptor.as_fd(), &stat, guest_above)?;
        Ok(Self { descriptor, writers, above: Writers::Trusted })
    }

    /// Finds the directory of a path.
    ///
    /// # Errors
    /// If the directory is missing, or is reached by an untrusted link.
    pub fn find(path: &Path) -> io::Result<Self> {
        Walk::begin(path, Purpose::Read)?.into_directory()
    }

    /// Finds the directory of a path, to write to it.
    ///
    /// # Errors
    /// As [`Directory::find`].
    pub fn find_writable(path: &Path) -> io::Result<Self> {
        Walk::begin(path, Purpose::Write)?.into_directory()
    }

    /// Finds the directory of a path, to write to it; creates it and its parents with this mode if they are missing.
    ///
    /// # Errors
    /// As [`Directory::find`].
    pub fn create(path: &Path, mode: u32) -> io::Result<Self> {
        Walk::begin(path, Purpose::Write)?.creating(mode).into_directory()
    }

    /// Returns a path to this directory, valid while it is open, in this process only.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.descriptor.as_raw_fd()))
    }

    /// Returns owner and mode.
    ///
    /// # Errors
    /// If the directory cannot be queried.
    pub fn owner_and_mode(&self) -> io::Result<(u32, u32)> {
        let stat = fstat(&self.descriptor)?;
        Ok((stat.st_uid, stat.st_mode & 0o7777))
    }

    /// Returns whether a guest may write here.
    #[must_use]
    pub fn is_guest_writable(&self) -> bool {
        self.writers == Writers::Guest
    }

    /// Ensures that only root and the host's user may replace this directory.
    ///
    /// # Errors
    /// If others may rename or replace it or one above it.
    pub fn expect_to_stay(&self, name: &Path) -> io::Result<()> {
        if self.writers > Writers::Adding || self.above > Writers::Adding {
            return Err(Rejection::Replaceable(quoted(name.as_os_str())).into());
        }
        Ok(())
    }

    /// Opens a regular file to read it.
    ///
    /// # Errors
    /// If the file is missing, not regular, or an untrusted link.
    pub fn open(&self, name: &OsStr) -> io::Result<File> {
        let follow = match self.step(name, Purpose::Read)? {
            Step::Missing => return Err(Errno::ENOENT.into()),
            Step::Open => {
                // The process may have any kind of file open.
                let entry = openat(&self.descriptor, name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
                expect_regular(&fstat(&entry)?)?;
                OFlag::empty()
            }
            Step::Link(_) => return Err(Rejection::Kind(named(SFlag::S_IFLNK)).into()),
            Step::Entry(_, stat) => {
                expect_regular(&stat)?;
                OFlag::O_NOFOLLOW
            }
        };
        self.opened(name, OFlag::O_RDONLY | follow, Mode::empty())
    }

    /// Opens a regular file to add to it; creates it if there is none.
    ///
    /// # Errors
    /// As [`Directory::open`].
    pub fn append(&self, name: &OsStr) -> io::Result<File> {
        self.open_or_create(name, OFlag::O_WRONLY | OFlag::O_APPEND, 0o666)
    }

    /// Opens a regular file to replace its content; creates it with this mode if there is none.
    ///
    /// # Errors
    /// As [`Directory::open`].
    pub fn truncate(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let file = self.open_or_create(name, OFlag::O_WRONLY, mode)?;
        // Only after the file is known to be trusted.
        file.set_len(0)?;
        Ok(file)
    }

    /// Creates a new file.
    ///
    /// # Errors
    /// If the file exists, or cannot be created.
    pub fn create_new(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        self.create_opened(name, OFlag::O_WRONLY, mode)
    }

    /// Returns device and inode of an entry, without following a link.
    ///
    /// # Errors
    /// If there is no such entry, or it cannot be queried.
    pub fn identity(&self, name: &OsStr) -> io::Result<(u64, u64)> {
        let stat = fstatat(&self.descriptor, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Renames within this directory.
    ///
    /// # Errors
    /// If the system rejects it.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.descriptor, from, &self.descriptor, to)?)
    }

    fn open_or_create(&self, name: &OsStr, flags: OFlag, mode: u32) -> io::Result<File> {
        match self.try_open_or_create(name, flags, mode) {
            // Another process has created it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.try_open_or_create(name, flags, mode),
            result => result,
        }
    }

    fn try_open_or_create(&self, name: &OsStr, flags: OFlag, mode: u32) -> io::Result<File> {
        match self.step(name, Purpose::Write)? {
            Step::Missing => self.create_opened(name, flags, mode),
            Step::Open | Step::Link(_) => Err(Rejection::Kind(named(SFlag::S_IFLNK)).into()),
            Step::Entry(_, stat) => {
                expect_regular(&stat)?;
                self.opened(name, flags | OFlag::O_NOFOLLOW, Mode::empty())
            }
        }
    }

    fn create_opened(&self, name: &OsStr, flags: OFlag, mode: u32) -> io::Result<File> {
        let flags = flags | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | SAFE_FLAGS;
        Ok(File::from(openat(&self.descriptor, name, flags, Mode::from_bits_truncate(mode))?))
    }

    fn opened(&self, name: &OsStr, flags: OFlag, mode: Mode) -> io::Result<File> {
        let opened = openat(&self.descriptor, name, flags | SAFE_FLAGS, mode)?;
        let stat = fstat(&opened)?;
        expect_regular(&stat)?;
        if self.writers > Writers::Trusted && stat.st_nlink > 1 && flags.contains(OFlag::O_NOFOLLOW) {
            return Err(Rejection::HardLinks { name: quoted(name), links: stat.st_nlink.to_string() }.into());
        }
        Ok(File::from(opened))
    }
}

fn expect_regular(stat: &FileStat) -> io::Result<()> {
    match kind(stat) {
        SFlag::S_IFREG => Ok(()),
        other => Err(Rejection::Kind(named(other)).into()),
    }
}
