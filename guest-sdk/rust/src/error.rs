use std::{error::Error as StdError, fmt};

/// Why a callback refused. It reaches the host as text.
///
/// Made by `?` from any error, by `.into()` from text, or by [`bail!`](crate::bail).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

/// What callbacks return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with this text. Lowercase, without a final stop, it reads well after what the host puts before it.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Any error, with its sources, and any text. That is why `Error` is no `std::error::Error` itself.
impl<E: Into<Box<dyn StdError>>> From<E> for Error {
    fn from(error: E) -> Self {
        let error = error.into();
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        Self(text)
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
    fn causes_are_told_once() {
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
