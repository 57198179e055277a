//! Cause of a failed start.

use std::{fmt, io};

use nix::errno::Errno;

/// Cause of a failed start: text and name of the system's error, and a detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    errno: Option<Errno>,
    detail: String,
}

impl Cause {
    /// Creates a cause from an error of the system, with a detail that may be empty.
    pub(super) fn new(errno: Errno, detail: impl Into<String>) -> Self {
        Self { errno: Some(errno), detail: detail.into() }
    }

    /// Creates a cause for a rejection by the host itself.
    #[must_use]
    pub fn refusal(reason: impl Into<String>) -> Self {
        Self { errno: None, detail: reason.into() }
    }

    /// Returns whether the machine lacks a resource: the program is not at fault, and the same attempt may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let shortages = [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE, Errno::ETXTBSY];
        self.errno.is_some_and(|errno| shortages.contains(&errno))
    }

    /// Returns the number of the system's error.
    pub(super) fn errno(&self) -> Option<Errno> {
        self.errno
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::new(Errno::from_raw(number), ""),
            None => Self::refusal(error.to_string()),
        }
    }
}

/// `No such file or directory (ENOENT)`, followed by the detail.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(errno) = self.errno else { return f.write_str(&self.detail) };
        let text = if errno == Errno::EAGAIN { "Resource temporarily unavailable" } else { errno.desc() };
        write!(f, "{text} ({errno:?})")?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ", {}", self.detail) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortage_is_transient_and_a_fault_of_the_program_is_not() {
        for errno in [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE, Errno::ETXTBSY] {
            assert!(Cause::new(errno, "").is_transient(), "{errno}");
            assert!(Cause::from(io::Error::from(errno)).is_transient(), "{errno}");
        }
        for errno in [Errno::ENOENT, Errno::EACCES, Errno::ENOEXEC, Errno::E2BIG, Errno::EPERM, Errno::ELOOP] {
            assert!(!Cause::new(errno, "").is_transient(), "{errno}");
        }
        assert!(!Cause::refusal("not allowed").is_transient());
    }

    #[test]
    fn cause_displays_text_and_name_of_the_error_and_the_detail() {
        assert_eq!(Cause::new(Errno::EACCES, "").to_string(), "Permission denied (EACCES)");
        let detail = Cause::new(Errno::ENOENT, "interpreter \"/x\" is missing").to_string();
        assert_eq!(detail, "No such file or directory (ENOENT), interpreter \"/x\" is missing");
        assert_eq!(Cause::refusal("not allowed").to_string(), "not allowed");
        assert_eq!(Cause::from(io::Error::from(Errno::EMFILE)).to_string(), "Too many open files (EMFILE)");
    }
}
