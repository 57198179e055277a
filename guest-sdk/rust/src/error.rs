use std::{error::Error as StdError, fmt, io};

/// Error returned by a callback; its text is sent to the host.
///
/// Created by `?` from any error, by `.into()` from text, or by [`bail!`](crate::bail).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    text: String,
    is_not_yet: bool,
}

/// Result of a callback.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Creates an error with this text: lowercase and without a final stop, because the host puts a prefix before it.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_not_yet: false }
    }

    /// Creates the error of a callback that cannot succeed yet. `initialize` and `configure` are called again later, and
    /// the pod stays alive. Other callbacks treat it like any error.
    #[must_use]
    pub fn not_yet(reason: impl Into<String>) -> Self {
        Self { text: reason.into(), is_not_yet: true }
    }

    /// Returns whether it was created by [`not_yet`](Self::not_yet).
    #[must_use]
    pub fn is_not_yet(&self) -> bool {
        self.is_not_yet
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Converts any error, with its sources, and any text. Therefore `Error` does not implement `std::error::Error`.
impl<E: Into<Box<dyn StdError>>> From<E> for Error {
    fn from(error: E) -> Self {
        let error = error.into();
        // The system reports an exceeded time limit of a socket as "Resource temporarily unavailable".
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return Self::new("timed out");
        }
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        Self::new(text)
    }
}

/// Returns an [`Error`] with a formatted text from the surrounding function.
///
/// ```
/// fn check(replicas: usize) -> ochopod_sdk::Result<()> {
///     if replicas < 2 {
///         ochopod_sdk::bail!("{replicas} replicas, expected 2 or more");
///     }
///     Ok(())
/// }
/// assert_eq!(check(1).unwrap_err().to_string(), "1 replicas, expected 2 or more");
/// ```
#[macro_export]
macro_rules! bail {
    ($($text:tt)*) => {
        return ::std::result::Result::Err($crate::Error::new(::std::format!($($text)*)))
    };
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream, time::Duration};

    use super::*;

    fn parse(text: &str) -> Result<u16> {
        Ok(text.parse::<u16>()?)
    }

    #[test]
    fn any_error_or_text_becomes_a_refusal_that_keeps_its_text() {
        assert_eq!(parse("x").unwrap_err().to_string(), "invalid digit found in string");
        assert_eq!(Error::from("no").to_string(), "no");
        assert_eq!(Error::from(format!("no {}", 1)).to_string(), "no 1");
    }

    #[test]
    fn exceeded_time_limit_of_a_socket_is_a_timeout() {
        let (stream, _peer) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let error = (&stream).read(&mut [0]).unwrap_err();
        assert_eq!(Error::from(error).to_string(), "timed out");
    }

    #[test]
    fn causes_are_reported_once() {
        #[derive(Debug)]
        struct Outer(std::num::ParseIntError, &'static str);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.1)
            }
        }
        impl StdError for Outer {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(&self.0)
            }
        }
        let cause = "x".parse::<u16>().unwrap_err();
        let short = Error::from(Outer(cause.clone(), "bad port"));
        assert_eq!(short.to_string(), "bad port: invalid digit found in string");
        let long = Error::from(Outer(cause, "bad port: invalid digit found in string"));
        assert_eq!(long.to_string(), "bad port: invalid digit found in string");
    }
}
