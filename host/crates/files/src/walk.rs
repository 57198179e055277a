//! Resolution of a path to the directory of its last component.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, readlinkat},
    sys::{
        stat::{FileStat, Mode, SFlag, fstat, mkdirat},
        statfs::{PROC_SUPER_MAGIC, fstatfs},
    },
};

use super::{
    Purpose,
    directory::Directory,
    error::Rejection,
    quoted,
    writers::{Writers, is_below_guests, is_trusted, least_above},
};

/// Maximum number of symbolic links in a path, as in the kernel.
const MAX_LINKS: usize = 40;
/// Ordinary links of `/proc`; the others refer to files that a process has open.
const PLAIN_PROC_LINKS: [&str; 2] = ["self", "thread-self"];
/// Opens without access to the content.
pub(super) const QUERY_FLAGS: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Opens a directory to walk on from.
const ENTER_FLAGS: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Path that is being resolved.
#[derive(Debug)]
pub(super) struct Walk {
    here: Directory,
    ahead: VecDeque<OsString>,
    links: usize,
    purpose: Purpose,
    /// Mode of missing directories, which are created.
    create: Option<Mode>,
    /// Least trusted users that may change what the path refers to.
    least: Writers,
}

/// Kind of a path component.
pub(super) enum Step {
    /// The name does not exist.
    Missing,
    /// A symbolic link, to be followed as this text.
    Link(OsString),
    /// A link of `/proc` to a file that a process has open.
    Open,
    /// Anything else.
    Entry(OwnedFd, FileStat),
}

impl Walk {
    pub(super) fn begin(path: &Path, purpose: Purpose) -> io::Result<Self> {
        if path.as_os_str().is_empty() {
            return Err(Errno::ENOENT.into());
        }
        let here = if path.is_absolute() { root()? } else { start(".")? };
        let least = least_above(here.descriptor.as_fd())?;
        let mut walk = Self { here, ahead: VecDeque::new(), links: 0, purpose, create: None, least };
        walk.prepend(path);
        Ok(walk)
    }

    /// Creates missing directories with this mode.
    pub(super) fn creating(self, mode: u32) -> Self {
        Self { create: Some(Mode::from_bits_truncate(mode)), ..self }
    }

    /// Walks to the directory of the last component; follows that component if it is a link.
    pub(super) fn into_parent(mut self) -> io::Result<(Directory, OsString)> {
        loop {
            let Some(name) = self.ahead.pop_front() else { return Err(Rejection::NoName(".".to_owned()).into()) };
            if name == ".." && self.ahead.is_empty() {
                return Err(Rejection::NoName(quoted(&name)).into());
            }
            if !self.ahead.is_empty() {
                self.enter(&name)?;
                continue;
            }
            match self.here.step(&name, self.purpose)? {
                Step::Link(target) => self.follow(&target)?,
                Step::Missing | Step::Open | Step::Entry(..) => return Ok((self.here, name)),
            }
        }
    }

    /// Walks to the directory that the whole path names.
    pub(super) fn into_directory(mut self) -> io::Result<Directory> {
        while let Some(name) = self.ahead.pop_front() {
            self.least = self.least.max(self.here.writers);
            self.enter(&name)?;
        }
        Ok(Directory { above: self.least, ..self.here })
    }

    fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        if name == ".." {
            let above = openat(&self.here.descriptor, "..", ENTER_FLAGS, Mode::empty())?;
            let guest = is_below_guests(above.as_fd())?;
            self.here = Directory::of(above, guest)?;
            return Ok(());
        }
        match self.here.step(name, self.purpose)? {
            Step::Link(target) => self.follow(&target),
            Step::Missing => {
                let Some(mode) = self.create else { return Err(Errno::ENOENT.into()) };
                match mkdirat(&self.here.descriptor, name, mode) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                let below = openat(&self.here.descriptor, name, ENTER_FLAGS | OFlag::O_NOFOLLOW, Mode::empty())?;
                self.descend(below)
            }
            Step::Open => {
                let opened = openat(&self.here.descriptor, name, ENTER_FLAGS, Mode::empty())?;
                let guest = is_below_guests(opened.as_fd())?;
                self.here = Directory::of(opened, guest)?;
                Ok(())
            }
            Step::Entry(entry, stat) => match kind(&stat) {
                SFlag::S_IFDIR => self.descend(entry),
                other => Err(Rejection::NotDirectory(named(other)).into()),
            },
        }
    }

    fn descend(&mut self, below: OwnedFd) -> io::Result<()> {
        self.here = Directory::of(below, self.here.is_guest_writable())?;
        Ok(())
    }

    fn follow(&mut self, target: &OsStr) -> io::Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Rejection::Links.into());
        }
        let target = Path::new(target);
        if target.is_absolute() {
            self.here = root()?;
        }
        self.prepend(target);
        Ok(())
    }

    fn prepend(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.ahead.push_front(name.to_owned()),
                Component::ParentDir => self.ahead.push_front("..".into()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }
}

impl Directory {
    /// Returns the kind of a name in this directory; a link only if it may be followed.
    pub(super) fn step(&self, name: &OsStr, purpose: Purpose) -> io::Result<Step> {
        let entry = match openat(&self.descriptor, name, QUERY_FLAGS, Mode::empty()) {
            Ok(entry) => entry,
            Err(Errno::ENOENT) => return Ok(Step::Missing),
            Err(error) => return Err(error.into()),
        };
        let stat = fstat(&entry)?;
        if kind(&stat) != SFlag::S_IFLNK {
            return Ok(Step::Entry(entry, stat));
        }
        let may_follow = match self.writers {
            Writers::Trusted => true,
            Writers::Adding => purpose == Purpose::Read,
            Writers::Replacing | Writers::Guest => false,
        };
        if !may_follow {
            return Err(Rejection::LinkDirectory { name: quoted(name) }.into());
        }
        if !is_trusted(stat.st_uid) {
            return Err(Rejection::LinkOwner { name: quoted(name), owner: stat.st_uid }.into());
        }
        let is_proc = fstatfs(&self.descriptor)?.filesystem_type() == PROC_SUPER_MAGIC;
        if is_proc && !PLAIN_PROC_LINKS.iter().any(|plain| name == *plain) {
            return Ok(Step::Open);
        }
        Ok(Step::Link(readlinkat(&entry, "")?))
    }
}

/// Opens the root directory.
fn root() -> io::Result<Directory> {
    start("/")
}

fn start(path: &str) -> io::Result<Directory> {
    let descriptor = nix::fcntl::open(path, ENTER_FLAGS, Mode::empty())?;
    let guest = is_below_guests(descriptor.as_fd())?;
    Directory::of(descriptor, guest)
}

/// Returns the kind of a file.
pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Returns the common name of a kind of file.
pub(super) fn named(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFIFO => "a pipe",
        SFlag::S_IFCHR | SFlag::S_IFBLK => "a device",
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFREG => "a file",
        _ => "another kind of file",
    }
}
