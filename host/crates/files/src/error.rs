//! Reasons for rejecting a file that the system would open.

use std::io;

/// Reason for rejecting a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejection {
    #[error("not a regular file but {0}")]
    Kind(&'static str),
    #[error("not a directory but {0}")]
    NotDirectory(&'static str),
    #[error("symbolic link {name} belongs to user {owner}, expected one of root or of the host's user")]
    LinkOwner { name: String, owner: u32 },
    #[error("symbolic link {name} in a directory to which other users or the plugin may write, expected a file")]
    LinkDirectory { name: String },
    #[error("too many symbolic links")]
    Links,
    #[error("{name} has {links} hard links in a directory to which other users or the plugin may write, expected one")]
    HardLinks { name: String, links: String },
    #[error("file too large, expected at most {0} bytes")]
    Large(u64),
    #[error("path {0} does not name a file")]
    NoName(String),
    #[error("{0} is in a directory to which the plugin may write (--dir), expected another directory")]
    Guest(String),
    #[error("directory {0} belongs to other users, or they may replace it")]
    Replaceable(String),
}

impl From<Rejection> for io::Error {
    fn from(refusal: Rejection) -> Self {
        let kind = match &refusal {
            Rejection::Kind(_) | Rejection::NoName(_) => io::ErrorKind::InvalidInput,
            Rejection::NotDirectory(_) => io::ErrorKind::NotADirectory,
            Rejection::Large(_) => io::ErrorKind::FileTooLarge,
            Rejection::LinkOwner { .. }
            | Rejection::LinkDirectory { .. }
            | Rejection::Links
            | Rejection::HardLinks { .. }
            | Rejection::Guest(_)
            | Rejection::Replaceable(_) => io::ErrorKind::PermissionDenied,
        };
        Self::new(kind, refusal)
    }
}
