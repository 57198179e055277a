//! Programs of the container. Each needs a grant (`--run PROGRAM`), and [`Wants::run`](crate::Wants::run) asks for it.
//!
//! Native unit tests run nothing: they get an error, or what
//! [`testing::answer_exec`](crate::testing::answer_exec) was given.

use std::{fmt, time::Duration};

use crate::bindings::ochopod::pod::exec as host;

/// What a program gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit code, or 128 + the number of the signal that ended it.
    pub code: i32,
    /// At most 1 MiB; what is beyond is dropped.
    pub stdout: Vec<u8>,
    /// At most 1 MiB; what is beyond is dropped.
    pub stderr: Vec<u8>,
}

/// Why there is no output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Not granted; the text names the flag that would.
    Denied(String),
    /// It could not be started.
    Failed(String),
    /// It ran past its limit; its process group was killed.
    Timeout,
    /// Anything else.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(text) | Self::Failed(text) | Self::Other(text) => f.write_str(text),
            Self::Timeout => f.write_str("the program ran past its limit and was killed"),
        }
    }
}

impl std::error::Error for Error {}

/// Runs a program to its end with `stdin` as its input. `argv` has the program first: a path, or a name looked up in
/// the host's PATH. `limit` never outlasts the callback that calls: its end kills the program's group too.
///
/// # Errors
/// When it is not granted, cannot be started, or runs past `limit`. Its own failure is [`Output::code`].
pub fn run(argv: impl IntoIterator<Item = impl Into<String>>, stdin: &[u8], limit: Duration) -> Result<Output, Error> {
    let argv: Vec<String> = argv.into_iter().map(Into::into).collect();
    #[cfg(not(target_family = "wasm"))]
    if let Some(answer) = crate::testing::exec_answer(&argv, stdin) {
        return answer;
    }
    if cfg!(not(target_family = "wasm")) {
        let text = "outside of a pod no program is run: a test can set `testing::answer_exec`";
        return Err(Error::Denied(text.to_owned()));
    }
    match host::run(&argv, stdin, limit.as_secs_f64()) {
        Ok(host::Output { code, stdout, stderr }) => Ok(Output { code, stdout, stderr }),
        Err(host::Error::Denied(text)) => Err(Error::Denied(text)),
        Err(host::Error::Failed(text)) => Err(Error::Failed(text)),
        Err(host::Error::Timeout) => Err(Error::Timeout),
        Err(host::Error::Other(text)) => Err(Error::Other(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn natively_nothing_runs_unless_the_test_answers() {
        let refused = run(["date"], b"", Duration::from_secs(1)).unwrap_err();
        assert!(refused.to_string().contains("testing::answer_exec"), "{refused}");

        testing::answer_exec(|argv, stdin| {
            Ok(Output { code: 3, stdout: [argv.join(" ").as_bytes(), stdin].concat(), ..Output::default() })
        });
        let output = run(["date", "-u"], b"!", Duration::from_secs(1)).unwrap();
        assert_eq!((output.code, output.stdout.as_slice()), (3, b"date -u!".as_slice()));
    }
}
