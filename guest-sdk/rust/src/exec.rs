//! Programs of the container. Each needs a grant (`--run PROGRAM`), which [`Wants::run`](crate::Wants::run) requests.
//!
//! Native unit tests run no program: they get an error, or the output of
//! [`testing::mock_exec`](crate::testing::mock_exec).

use std::{fmt, time::Duration};

use crate::bindings::ochopod::pod::exec as host;

/// Output of a program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit code, or 128 + the number of the signal that ended it.
    pub code: i32,
    /// First 1 MiB; the rest is dropped.
    pub stdout: Vec<u8>,
    /// First 1 MiB; the rest is dropped.
    pub stderr: Vec<u8>,
}

/// Error of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The program is not granted; the text names the missing flag.
    Denied(String),
    /// The program could not be started.
    Failed(String),
    /// The program exceeded its limit; its process group was killed.
    Timeout,
    /// Any other error.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(text) | Self::Failed(text) | Self::Other(text) => f.write_str(text),
            Self::Timeout => f.write_str("program exceeded its time limit and was killed"),
        }
    }
}

impl std::error::Error for Error {}

/// Runs a program to its end with `stdin` as its input. `argv` starts with the program: a path, or a name looked up in
/// the host's PATH. The deadline of the calling callback counts in addition to `limit`; at either, the program's process
/// group is killed.
///
/// # Errors
/// If the program is not granted, cannot be started, or exceeds `limit`. Its exit code is in [`Output::code`].
pub fn run(argv: impl IntoIterator<Item = impl Into<String>>, stdin: &[u8], limit: Duration) -> Result<Output, Error> {
    let argv: Vec<String> = argv.into_iter().map(Into::into).collect();
    #[cfg(not(target_family = "wasm"))]
    if let Some(output) = crate::testing::mocked_exec(&argv, stdin) {
        return output;
    }
    if cfg!(not(target_family = "wasm")) {
        let text = "exec is not available outside a pod: mock it with `testing::mock_exec`";
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
    fn native_test_runs_no_program_but_the_mock() {
        let refused = run(["date"], b"", Duration::from_secs(1)).unwrap_err();
        assert!(refused.to_string().contains("testing::mock_exec"), "{refused}");

        testing::mock_exec(|argv, stdin| {
            Ok(Output { code: 3, stdout: [argv.join(" ").as_bytes(), stdin].concat(), ..Output::default() })
        });
        let output = run(["date", "-u"], b"!", Duration::from_secs(1)).unwrap();
        assert_eq!((output.code, output.stdout.as_slice()), (3, b"date -u!".as_slice()));
    }
}
