//! Standard output and error of the host, for programs of another user.
//!
//! A program of any user writes to the descriptors that it inherits. To open `/dev/stdout` it needs permission for the
//! pipe, the terminal or the file behind it, which only the host's user has. (Container runtimes have the same problem
//! with `USER`, and change the owner.)

use std::{io, os::fd::AsFd};

use nix::{
    sys::stat::{FileStat, Mode, SFlag, fchmod, fstat},
    unistd::{Uid, fchown, isatty},
};

use super::Privileges;

/// Standard output and error, accessible to the user of programs. Dropping it restores the owner of a terminal or a
/// file.
#[derive(Debug, Default)]
#[must_use = "dropping it restores the owner"]
pub struct LentOutputs {
    given: Vec<(Stream, Uid)>,
}

#[derive(Debug, Clone, Copy)]
enum Stream {
    Output,
    Error,
}

/// Lets programs with these privileges open `/dev/stdout` and `/dev/stderr` of the host.
///
/// | kind of file | effect |
/// |---|---|
/// | pipe | any process that has it may open it for writing; only its owner may read it |
/// | terminal, file | belongs to the user while the host runs |
/// | socket | cannot be opened: programs must use the descriptor |
///
/// Failures are logged, and the programs start without.
pub fn lend_outputs(privileges: &Privileges) -> LentOutputs {
    let mut lent = LentOutputs::default();
    let Some(user) = privileges.identity.as_ref().map(|identity| Uid::from_raw(identity.user)) else { return lent };
    if user.is_root() {
        return lent;
    }
    for stream in [Stream::Output, Stream::Error] {
        match stream.lend(user) {
            Ok(Some(owner)) => lent.given.push((stream, owner)),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(path = stream.path(), %error, "programs of another user cannot open output");
            }
        }
    }
    lent
}

/// Lets programs of any user that have this pipe open it again for writing.
pub(super) fn open_pipe(pipe: impl AsFd) -> io::Result<()> {
    let stat = fstat(&pipe)?;
    Ok(fchmod(&pipe, Mode::from_bits_truncate(stat.st_mode) | Mode::S_IWGRP | Mode::S_IWOTH)?)
}

impl Drop for LentOutputs {
    fn drop(&mut self) {
        for (stream, owner) in self.given.drain(..) {
            if let Err(error) = stream.with(|output| fchown(output, Some(owner), None)) {
                tracing::warn!(path = stream.path(), %error, "owner of output not restored");
            }
        }
    }
}

impl Stream {
    fn path(self) -> &'static str {
        match self {
            Self::Output => "/dev/stdout",
            Self::Error => "/dev/stderr",
        }
    }

    fn with<T>(self, act: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> T) -> T {
        match self {
            Self::Output => act(io::stdout().as_fd()),
            Self::Error => act(io::stderr().as_fd()),
        }
    }

    /// Changes the owner, and returns the earlier one if it was another.
    fn lend(self, user: Uid) -> io::Result<Option<Uid>> {
        self.with(|output| {
            let stat: FileStat = fstat(output)?;
            let owner = Uid::from_raw(stat.st_uid);
            let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
            match kind {
                SFlag::S_IFIFO => open_pipe(output).map(|()| None),
                SFlag::S_IFSOCK => Err(io::Error::other("socket, expected a pipe, a file or a terminal")),
                SFlag::S_IFCHR if !isatty(output).unwrap_or(false) => Ok(None),
                _ if owner == user => Ok(None),
                _ => {
                    fchown(output, Some(user), None)?;
                    Ok(Some(owner))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipe_can_be_opened_by_any_user_for_writing_and_by_its_owner_for_reading() {
        let (_reader, writer) = nix::unistd::pipe().unwrap();
        open_pipe(&writer).unwrap();
        assert_eq!(fstat(&writer).unwrap().st_mode & 0o777, 0o622);
    }
}
