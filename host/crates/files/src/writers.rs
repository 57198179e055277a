//! Users that may change the entries of a directory.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{PoisonError, RwLock},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::{
        stat::{FileStat, Mode, fstat},
        statvfs::{FsFlags, fstatvfs},
    },
    unistd::geteuid,
};

/// Directories that guests may write to, with everything below. They are held open, so that no other directory gets
/// their inodes.
static GUESTS: RwLock<Vec<Granted>> = RwLock::new(Vec::new());
/// Maximum number of parent directories that are visited.
const MAX_DEPTH: usize = 256;

struct Granted {
    identity: (u64, u64),
    _descriptor: OwnedFd,
}

/// Users that may change the entries of a directory, most trusted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Writers {
    /// Root and the host's user.
    Trusted,
    /// Others may add entries, but neither rename nor remove those of root and of the host's user.
    Adding,
    /// Others may replace any entry.
    Replacing,
    /// A guest may, as the host's user.
    Guest,
}

/// Declares directories to which guests of this process may write. A missing directory is skipped, because guests
/// cannot have it either.
pub fn declare_guest_directories<'a>(directories: impl IntoIterator<Item = &'a Path>) {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let found = directories.into_iter().filter_map(|path| {
        let descriptor = nix::fcntl::open(path, flags, Mode::empty()).ok()?;
        Some(Granted { identity: identity(&fstat(&descriptor).ok()?), _descriptor: descriptor })
    });
    let found: Vec<_> = found.collect();
    GUESTS.write().unwrap_or_else(PoisonError::into_inner).extend(found);
}

impl Writers {
    /// Returns the writers of a directory. `above` is whether a guest may write above it.
    pub(super) fn of(directory: BorrowedFd<'_>, stat: &FileStat, above: bool) -> Result<Self, Errno> {
        if above || is_guests(stat) {
            return Ok(Self::Guest);
        }
        let owned = is_trusted(stat.st_uid);
        let mode = Mode::from_bits_truncate(stat.st_mode);
        let group = mode.contains(Mode::S_IWGRP) && !is_own_group(stat.st_gid);
        if owned && !group && !mode.contains(Mode::S_IWOTH) {
            return Ok(Self::Trusted);
        }
        let kept = owned && mode.contains(Mode::S_ISVTX);
        let read_only = || fstatvfs(directory).map(|found| found.flags().contains(FsFlags::ST_RDONLY));
        Ok(if kept || read_only()? { Self::Adding } else { Self::Replacing })
    }
}

/// Returns whether a user is root or the effective user of this process.
pub(super) fn is_trusted(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

/// Returns whether a group belongs to the host's user alone, by the convention of one group per user with the same
/// number.
fn is_own_group(group: u32) -> bool {
    let user = geteuid();
    !user.is_root() && group == user.as_raw()
}

/// Returns whether a guest may write to a directory or to one above it.
pub(super) fn is_below_guests(directory: BorrowedFd<'_>) -> Result<bool, Errno> {
    if GUESTS.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
        return Ok(false);
    }
    let mut found = false;
    climb(directory, |_, stat| {
        found |= is_guests(stat);
        Ok(())
    })?;
    Ok(found)
}

/// Returns the least trusted writers of the directories above one.
pub(super) fn least_above(directory: BorrowedFd<'_>) -> Result<Writers, Errno> {
    let mut least = Writers::Trusted;
    climb(directory, |above, stat| {
        least = least.max(Writers::of(above, stat, false)?);
        Ok(())
    })?;
    Ok(least)
}

/// Visits a directory and all above it.
fn climb(
    directory: BorrowedFd<'_>,
    mut visit: impl FnMut(BorrowedFd<'_>, &FileStat) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut here = directory.try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
    let mut stat = fstat(&here)?;
    for _ in 0..MAX_DEPTH {
        visit(here.as_fd(), &stat)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let above = openat(here.as_fd(), "..", flags, Mode::empty())?;
        let next = fstat(&above)?;
        if identity(&next) == identity(&stat) {
            return Ok(());
        }
        (here, stat) = (above, next);
    }
    Err(Errno::ELOOP)
}

fn is_guests(stat: &FileStat) -> bool {
    let guests = GUESTS.read().unwrap_or_else(PoisonError::into_inner);
    guests.iter().any(|granted| granted.identity == identity(stat))
}

fn identity(stat: &FileStat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
