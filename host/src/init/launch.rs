//! The launcher stage: what a child does between being made and being the program.
//!
//! The host starts itself as
//!
//! ```text
//! ochopod launch <host's pid> <descriptor of the input, or -> <privileges> <directory, or nothing> <program> <arguments…>
//! ```
//!
//! in the child's environment, group and output. Standard input is then the *status pipe*: the launcher moves it to a
//! descriptor that exec closes, so the host reads its end when the program runs, or the failure when it does not.

use std::{
    convert::Infallible,
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Command, ExitCode},
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd,
};

use super::{Ending, Launch, Privileges, SpawnError};

/// The hidden subcommand.
const WORD: &str = "launch";

/// Whether this process was started as a launcher. `arguments` are the process's, its own name first.
#[must_use]
pub fn is_launch(arguments: &[OsString]) -> bool {
    arguments.get(1).is_some_and(|word| word == WORD)
}

/// Becomes the program that the host asked for; returns only when that failed.
///
/// To be called before any other thread exists and before anything is set up: all of it would be paid by every child.
#[must_use]
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let Some(orders) = Orders::parse(arguments) else {
        eprintln!("ochopod: `{WORD}` is how the host starts its children; it is of no use by hand");
        return Ending::Usage.into();
    };
    let Ok(status) = io::stdin().as_fd().try_clone_to_owned() else { return Ending::Internal.into() };
    let Err(failure) = orders.carry_out();
    // Should the host be gone, nobody is left to tell.
    let _ = File::from(status).write_all(&failure.to_bytes());
    Ending::Internal.into()
}

/// The host's side: a command that makes the launcher start this. `input` is what becomes standard input.
pub(super) fn command(launcher: &Path, launch: &Launch, input: Option<BorrowedFd<'_>>) -> Command {
    let mut command = Command::new(launcher);
    command
        .arg(WORD)
        .arg(std::process::id().to_string())
        .arg(input.map_or_else(|| "-".to_owned(), |input| input.as_raw_fd().to_string()))
        .arg(launch.privileges.orders())
        .arg(launch.directory.as_deref().unwrap_or(Path::new("")))
        .arg(&launch.program)
        .args(&launch.arguments)
        .env_clear()
        .envs(&launch.environment)
        .process_group(0);
    command
}

/// What the launcher has to do.
#[derive(Debug, PartialEq, Eq)]
struct Orders {
    parent: i32,
    input: Option<RawFd>,
    privileges: Privileges,
    directory: OsString,
    program: OsString,
    arguments: Vec<OsString>,
}

impl Orders {
    fn parse(arguments: Vec<OsString>) -> Option<Self> {
        let mut arguments = arguments.into_iter().skip(2);
        let parent = arguments.next()?.to_str()?.parse().ok()?;
        let input = match arguments.next()?.to_str()? {
            "-" => None,
            number => Some(number.parse().ok()?),
        };
        Some(Self {
            parent,
            input,
            privileges: Privileges::parse(arguments.next()?.to_str()?)?,
            directory: arguments.next()?,
            program: arguments.next()?,
            arguments: arguments.collect(),
        })
    }

    fn carry_out(self) -> Result<Infallible, Failure> {
        let failed = |step| move |error| Failure { step, error };
        self.tie().map_err(failed(Step::Prepare))?;
        self.prepare().map_err(Failure::in_step(Step::Prepare))?;
        self.privileges.limit().map_err(failed(Step::Limits))?;
        self.privileges.assume().map_err(failed(Step::Identity))?;
        // The system unties whoever changes its user.
        self.tie().map_err(failed(Step::Prepare))?;
        if !self.directory.is_empty() {
            std::env::set_current_dir(&self.directory).map_err(Failure::in_step(Step::Directory))?;
        }
        // Also gives SIGPIPE back its default, which the runtime of this process changed.
        let error = Command::new(self.program).args(self.arguments).exec();
        Err(Failure::in_step(Step::Exec)(error))
    }

    /// Makes the system kill this process when the host ends.
    fn tie(&self) -> Result<(), Errno> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The host may have ended before: then this child would outlive it.
        if unistd::getppid().as_raw() == self.parent { Ok(()) } else { Err(Errno::ESRCH) }
    }

    /// Puts the real standard input in place and unblocks all signals.
    fn prepare(&self) -> io::Result<()> {
        match self.input {
            None => unistd::dup2_stdin(File::open("/dev/null")?)?,
            Some(number) => {
                // A bare number cannot be used as a descriptor without `unsafe`; opening it anew can.
                unistd::dup2_stdin(File::open(format!("/proc/self/fd/{number}"))?)?;
                unistd::close(number)?;
            }
        }
        SigSet::empty().thread_set_mask()?;
        Ok(())
    }
}

/// Where a launcher failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Prepare,
    Limits,
    Identity,
    Directory,
    Exec,
}

/// Why a launcher did not become the program, as it travels through the status pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    step: Step,
    error: Errno,
}

impl Failure {
    fn in_step(step: Step) -> impl FnOnce(io::Error) -> Self {
        move |error| Self { step, error: error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw) }
    }

    fn to_bytes(self) -> [u8; 5] {
        let [a, b, c, d] = (self.error as i32).to_le_bytes();
        let step = match self.step {
            Step::Prepare => b'p',
            Step::Limits => b'l',
            Step::Identity => b'i',
            Step::Directory => b'd',
            Step::Exec => b'x',
        };
        [step, a, b, c, d]
    }

    /// What a launcher wrote; none when that is nothing, which means that the program runs.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let &[step, a, b, c, d] = bytes else { return None };
        let step = match step {
            b'l' => Step::Limits,
            b'i' => Step::Identity,
            b'd' => Step::Directory,
            b'x' => Step::Exec,
            _ => Step::Prepare,
        };
        Some(Self { step, error: Errno::from_raw(i32::from_le_bytes([a, b, c, d])) })
    }

    /// The error for whoever asked for this launch.
    pub(super) fn explain(self, launch: &Launch) -> SpawnError {
        let reason = self.error.desc().to_owned();
        let program = launch.program.to_string_lossy().into_owned();
        match self.step {
            Step::Prepare => SpawnError::Fork { program, source: self.error.into() },
            Step::Limits => {
                let limits: Vec<String> = launch.privileges.limits.iter().map(ToString::to_string).collect();
                SpawnError::Limits { program, limits: limits.join(" "), reason }
            }
            Step::Identity => {
                let user = launch.privileges.identity.as_ref().map_or(0, |identity| identity.user);
                SpawnError::Identity { program, user, reason }
            }
            Step::Directory => {
                let directory = launch.directory.as_deref().unwrap_or(Path::new("")).display().to_string();
                SpawnError::Directory { directory, reason }
            }
            Step::Exec => {
                let found = !matches!(self.error, Errno::ENOENT | Errno::ENOTDIR);
                SpawnError::Exec { program, found, reason }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf};

    use super::*;
    use crate::init::Output;

    fn launch(directory: Option<&str>) -> Launch {
        Launch {
            program: "redis-server".into(),
            arguments: vec!["--port".into(), String::new().into(), "-".into()],
            environment: BTreeMap::new(),
            directory: directory.map(PathBuf::from),
            input: false,
            output: Output::Inherit,
            daemons: false,
            privileges: Privileges::parse("1:2:3 core=0:0").unwrap(),
        }
    }

    fn argv(command: &Command) -> Vec<OsString> {
        std::iter::once(command.get_program()).chain(command.get_args()).map(OsString::from).collect()
    }

    #[test]
    fn the_launcher_reads_from_its_arguments_what_the_host_wrote() {
        for directory in [None, Some("/srv")] {
            let launch = launch(directory);
            let stdin = io::stdin();
            for input in [None, Some(stdin.as_fd())] {
                let argv = argv(&command(Path::new("/sbin/ochopod"), &launch, input));
                assert!(is_launch(&argv));
                let expected = Orders {
                    parent: std::process::id().cast_signed(),
                    input: input.map(|_| 0),
                    privileges: launch.privileges.clone(),
                    directory: directory.unwrap_or("").into(),
                    program: launch.program.clone(),
                    arguments: launch.arguments.clone(),
                };
                assert_eq!(Orders::parse(argv), Some(expected));
            }
        }
    }

    #[test]
    fn other_command_lines_are_not_launches() {
        for line in [&["ochopod"][..], &["ochopod", "run"], &["launch"], &["ochopod", "run", "launch"]] {
            let arguments: Vec<OsString> = line.iter().map(OsString::from).collect();
            assert!(!is_launch(&arguments), "{line:?}");
        }
        for line in [
            &["ochopod", "launch"][..],
            &["ochopod", "launch", "1", "-", "-", ""],
            &["o", "launch", "x", "-", "-", "", "p"],
        ] {
            assert_eq!(Orders::parse(line.iter().map(OsString::from).collect()), None, "{line:?}");
        }
    }

    #[test]
    fn a_failure_survives_the_status_pipe_and_names_the_thing() {
        let launch = launch(Some("/nowhere"));
        let told = |step, error| {
            let failure = Failure { step, error };
            assert_eq!(Failure::from_bytes(&failure.to_bytes()), Some(failure));
            failure.explain(&launch).to_string()
        };
        assert_eq!(
            told(Step::Directory, Errno::ENOENT),
            "cannot enter the working directory /nowhere: No such file or directory"
        );
        assert_eq!(told(Step::Exec, Errno::EACCES), "cannot execute redis-server: Permission denied");
        let limits = "cannot set the limits of redis-server (core=0:0): Operation not permitted";
        assert_eq!(told(Step::Limits, Errno::EPERM), limits);
        assert_eq!(told(Step::Identity, Errno::EPERM), "cannot run redis-server as user 1: Operation not permitted");
        assert_eq!(told(Step::Prepare, Errno::EMFILE), "cannot make a process for redis-server");
        assert_eq!(Failure::from_bytes(b""), None);
    }
}
