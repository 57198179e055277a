//! Launcher stage of a child, between fork and exec of the program.
//!
//! The host runs itself as
//!
//! ```text
//! ochopod launch <host's pid> <input> <descriptor of the environment> <foreground, or -> <privileges>
//!     <directory, or nothing> <program> <arguments…>
//! ```
//!
//! in the child's process group, with its output and without any variable. Standard input is the *status pipe*: the
//! launcher moves it to a descriptor that exec closes, so the host reads its end once the program runs, or the failure.
//! The input is `-` for an empty one, the number of a descriptor, or `=` and the number of the status pipe if standard
//! input is inherited.

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
    sys::{prctl, signal::Signal},
    unistd,
};

use super::{
    Cause, HostExit, Privileges, ProcessSpec, SpawnError, descriptors, environment, inherited, interpreter, terminal,
};

/// The hidden subcommand.
const SUBCOMMAND: &str = "launch";
/// Argument for a program that gets the terminal.
const FOREGROUND: &str = "foreground";
/// Standard input of programs without another one.
const NULL_DEVICE: &str = "/dev/null";
const NOT_IN_PATH: &str = "not in PATH: install it or extend PATH";
/// Maximum length of the detail of a failure, so that a pipe passes it in one piece.
const MAX_DETAIL_BYTES: usize = 1024;

/// Returns whether this process was started as a launcher. `arguments` are those of the process, starting with its
/// name.
#[must_use]
pub fn is_launch(arguments: &[OsString]) -> bool {
    arguments.get(1).is_some_and(|word| word == SUBCOMMAND)
}

/// Executes the requested program; returns only on failure.
///
/// Must be called before any other thread exists and before any set-up, whose cost every child would pay.
#[must_use]
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let Some(arguments) = LauncherArgs::parse(arguments) else {
        eprintln!("ochopod: `{SUBCOMMAND}` is internal: the host uses it to start child processes");
        return HostExit::Usage.into();
    };
    let Ok(mut status) = arguments.status() else { return HostExit::Internal.into() };
    let Err(failure) = arguments.exec_program();
    // The host may be gone.
    let _ = status.write_all(&failure.to_bytes());
    HostExit::Internal.into()
}

/// Standard input of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input<Fd> {
    /// Empty.
    Empty,
    /// This descriptor; standard input of the launcher is the status pipe.
    From(Fd),
    /// Inherited; this descriptor is the status pipe.
    Kept(Fd),
}

impl Input<BorrowedFd<'_>> {
    fn argument(self) -> String {
        match self {
            Self::Empty => "-".to_owned(),
            Self::From(input) => input.as_raw_fd().to_string(),
            Self::Kept(status) => format!("={}", status.as_raw_fd()),
        }
    }
}

impl Input<RawFd> {
    fn parse(argument: &str) -> Option<Self> {
        match argument {
            "-" => Some(Self::Empty),
            _ => match argument.strip_prefix('=') {
                Some(number) => number.parse().ok().map(Self::Kept),
                None => argument.parse().ok().map(Self::From),
            },
        }
    }
}

/// Creates the command that runs the launcher. `environment` is an inherited file with the program's variables. In the
/// `foreground` the program's group gets the terminal.
pub(super) fn command(
    launcher: &Path,
    launch: &ProcessSpec,
    input: Input<BorrowedFd<'_>>,
    environment: BorrowedFd<'_>,
    foreground: bool,
) -> Command {
    let mut command = Command::new(launcher);
    command
        .arg(SUBCOMMAND)
        .arg(std::process::id().to_string())
        .arg(input.argument())
        .arg(environment.as_raw_fd().to_string())
        .arg(if foreground { FOREGROUND } else { "-" })
        .arg(launch.privileges.clone().or_limit(descriptors::inherited()).to_arg())
        .arg(launch.directory.as_deref().unwrap_or(Path::new("")))
        .arg(&launch.program)
        .args(&launch.arguments)
        .env_clear()
        .process_group(0);
    command
}

/// Parsed arguments of the launcher.
#[derive(Debug, PartialEq, Eq)]
struct LauncherArgs {
    parent: i32,
    input: Input<RawFd>,
    environment: RawFd,
    foreground: bool,
    privileges: Privileges,
    directory: OsString,
    program: OsString,
    arguments: Vec<OsString>,
}

impl LauncherArgs {
    fn parse(arguments: Vec<OsString>) -> Option<Self> {
        let mut arguments = arguments.into_iter().skip(2);
        let parent = arguments.next()?.to_str()?.parse().ok()?;
        Some(Self {
            parent,
            input: Input::parse(arguments.next()?.to_str()?)?,
            environment: arguments.next()?.to_str()?.parse().ok()?,
            foreground: arguments.next()?.to_str()? == FOREGROUND,
            privileges: Privileges::parse(arguments.next()?.to_str()?)?,
            directory: arguments.next()?,
            program: arguments.next()?,
            arguments: arguments.collect(),
        })
    }

    /// Returns the status pipe, at a descriptor that exec closes.
    fn status(&self) -> io::Result<File> {
        match self.input {
            Input::Kept(number) => {
                // A bare number cannot become a descriptor without `unsafe`; opening it again can.
                let status = File::options().write(true).open(format!("/proc/self/fd/{number}"))?;
                unistd::close(number)?;
                Ok(status)
            }
            Input::Empty | Input::From(_) => Ok(io::stdin().as_fd().try_clone_to_owned()?.into()),
        }
    }

    fn exec_program(self) -> Result<Infallible, LauncherFailure> {
        let failed = |step| move |error| LauncherFailure { step, error, detail: String::new() };
        self.set_parent_death_signal().map_err(failed(Step::Prepare))?;
        self.connect_input().map_err(LauncherFailure::in_step(Step::Input))?;
        let variables = environment::read(self.environment).map_err(LauncherFailure::in_step(Step::Prepare))?;
        self.restore_terminal_and_signals().map_err(LauncherFailure::in_step(Step::Prepare))?;
        self.privileges.apply_limits().map_err(failed(Step::Limits))?;
        self.privileges.apply_identity().map_err(failed(Step::Identity))?;
        // Changing the user clears the signal.
        self.set_parent_death_signal().map_err(failed(Step::Prepare))?;
        if !self.directory.is_empty() {
            std::env::set_current_dir(&self.directory).map_err(LauncherFailure::in_step(Step::Directory))?;
        }
        // Also resets SIGPIPE, which the runtime of this process changed, to its default.
        let path = variables.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
        let error = Command::new(&self.program).args(self.arguments).env_clear().envs(variables).exec();
        let failure = LauncherFailure::in_step(Step::Exec)(error);
        let detail = if Self::may_lack_interpreter(failure.error) {
            interpreter::explain(&self.program, path.as_deref()).unwrap_or_default()
        } else {
            String::new()
        };
        Err(LauncherFailure { detail, ..failure })
    }

    /// Makes the kernel kill this process when the host exits.
    fn set_parent_death_signal(&self) -> Result<(), Errno> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // If the host exited before, this child would outlive it.
        if unistd::getppid().as_raw() == self.parent { Ok(()) } else { Err(Errno::ESRCH) }
    }

    fn may_lack_interpreter(error: Errno) -> bool {
        matches!(error, Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES | Errno::ELOOP | Errno::ENOEXEC)
    }

    /// Replaces the status pipe by the standard input of the program.
    fn connect_input(&self) -> io::Result<()> {
        match self.input {
            Input::Empty => unistd::dup2_stdin(open_null_device()?)?,
            Input::From(number) => {
                // A bare number cannot become a descriptor without `unsafe`; opening it again can.
                unistd::dup2_stdin(File::open(format!("/proc/self/fd/{number}"))?)?;
                unistd::close(number)?;
            }
            Input::Kept(_) => {}
        }
        Ok(())
    }

    /// Takes the terminal, and resets all signals to be neither blocked nor ignored.
    fn restore_terminal_and_signals(&self) -> io::Result<()> {
        if self.foreground {
            // The program starts even if the terminal is gone.
            let _ = terminal::set_foreground(unistd::getpgrp());
        }
        inherited::reset_ignored()?;
        Ok(inherited::unblock_all()?)
    }
}

/// Opens the standard input of programs without another one.
///
/// # Errors
/// If it is missing, cannot be opened, or is a directory.
pub(super) fn open_null_device() -> io::Result<File> {
    let file = File::open(NULL_DEVICE)?;
    if file.metadata()?.is_dir() { Err(Errno::EISDIR.into()) } else { Ok(file) }
}

/// Step at which a launcher failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Prepare,
    Input,
    Limits,
    Identity,
    Directory,
    Exec,
}

/// Failure of a launcher, as it passes the status pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LauncherFailure {
    step: Step,
    error: Errno,
    /// Detail in addition to the error; may be empty.
    detail: String,
}

impl LauncherFailure {
    fn in_step(step: Step) -> impl FnOnce(io::Error) -> Self {
        move |error| {
            let error = error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw);
            Self { step, error, detail: String::new() }
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let step = match self.step {
            Step::Prepare => b'p',
            Step::Input => b'n',
            Step::Limits => b'l',
            Step::Identity => b'i',
            Step::Directory => b'd',
            Step::Exec => b'x',
        };
        let detail = self.detail.get(..self.detail.floor_char_boundary(MAX_DETAIL_BYTES)).unwrap_or_default();
        [&[step], &(self.error as i32).to_le_bytes()[..], detail.as_bytes()].concat()
    }

    /// Parses the status of a launcher; none if it is empty, which means that the program runs.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[step, a, b, c, d], detail) = bytes.split_first_chunk()?;
        let step = match step {
            b'n' => Step::Input,
            b'l' => Step::Limits,
            b'i' => Step::Identity,
            b'd' => Step::Directory,
            b'x' => Step::Exec,
            _ => Step::Prepare,
        };
        let error = Errno::from_raw(i32::from_le_bytes([a, b, c, d]));
        Some(Self { step, error, detail: String::from_utf8_lossy(detail).into_owned() })
    }

    /// Converts the failure for the caller.
    pub(super) fn into_spawn_error(self, launch: &ProcessSpec) -> SpawnError {
        let missing = matches!(self.error, Errno::ENOENT | Errno::ENOTDIR);
        // A detail about its interpreter was read from the program itself.
        let found = !missing || !self.detail.is_empty();
        let program = launch.program.to_string_lossy().into_owned();
        let is_searched = self.step == Step::Exec && !found && !program.contains('/');
        let detail = if is_searched { NOT_IN_PATH.to_owned() } else { self.detail };
        let cause = Cause::new(self.error, detail);
        match self.step {
            Step::Prepare => SpawnError::Fork { program, cause },
            Step::Input => {
                let path = if launch.input { "/proc/self/fd" } else { NULL_DEVICE }.to_owned();
                SpawnError::Input { program, path, cause }
            }
            Step::Limits => {
                let limits: Vec<String> = launch.privileges.limits.iter().map(ToString::to_string).collect();
                SpawnError::Limits { program, limits: limits.join(" "), cause }
            }
            Step::Identity => {
                let user = launch.privileges.identity.as_ref().map_or(0, |identity| identity.user);
                SpawnError::Identity { program, user, cause }
            }
            Step::Directory => {
                let directory = launch.directory.as_deref().unwrap_or(Path::new("")).display().to_string();
                SpawnError::Directory { directory, cause }
            }
            Step::Exec => SpawnError::Exec { program, found, cause },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf};

    use super::*;
    use crate::StdioMode;

    fn launch(directory: Option<&str>) -> ProcessSpec {
        ProcessSpec {
            program: "redis-server".into(),
            arguments: vec!["--port".into(), String::new().into(), "-".into()],
            environment: BTreeMap::from([("LD_PRELOAD".into(), "/tmp/x.so".into())]),
            directory: directory.map(PathBuf::from),
            input: false,
            output: StdioMode::Inherit,
            keep_daemons: false,
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
            let descriptor = stdin.as_fd();
            for (input, read, foreground) in [
                (Input::Empty, Input::Empty, false),
                (Input::From(descriptor), Input::From(0), false),
                (Input::Kept(descriptor), Input::Kept(0), true),
            ] {
                let command = command(Path::new("/sbin/ochopod"), &launch, input, io::stdout().as_fd(), foreground);
                assert_eq!(command.get_envs().count(), 0, "the launcher has variables of the program");
                let argv = argv(&command);
                assert!(is_launch(&argv));
                let expected = LauncherArgs {
                    parent: std::process::id().cast_signed(),
                    input: read,
                    environment: 1,
                    foreground,
                    privileges: launch.privileges.clone(),
                    directory: directory.unwrap_or("").into(),
                    program: launch.program.clone(),
                    arguments: launch.arguments.clone(),
                };
                assert_eq!(LauncherArgs::parse(argv), Some(expected));
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
            &["ochopod", "launch", "1", "-", "3", "-", "-", ""],
            &["o", "launch", "x", "-", "3", "-", "-", "", "p"],
            &["o", "launch", "1", "-", "-", "-", "-", "", "p"],
            &["o", "launch", "1", "=", "3", "-", "-", "", "p"],
        ] {
            assert_eq!(LauncherArgs::parse(line.iter().map(OsString::from).collect()), None, "{line:?}");
        }
    }

    #[test]
    fn failure_passes_the_status_pipe_and_names_its_subject() {
        let launch = launch(Some("/nowhere"));
        let text = |step, error, detail: &str| {
            let failure = LauncherFailure { step, error, detail: detail.to_owned() };
            assert_eq!(LauncherFailure::from_bytes(&failure.to_bytes()).as_ref(), Some(&failure));
            failure.into_spawn_error(&launch).to_string()
        };
        for (step, error, detail, expected) in [
            (
                Step::Directory,
                Errno::ENOENT,
                "",
                "cannot enter the working directory /nowhere: No such file or directory (ENOENT)",
            ),
            (Step::Exec, Errno::EACCES, "", "cannot execute redis-server: Permission denied (EACCES)"),
            (
                Step::Exec,
                Errno::ENOENT,
                "",
                "cannot execute redis-server: No such file or directory (ENOENT), not in PATH: install it or extend PATH",
            ),
            (
                Step::Exec,
                Errno::ENOENT,
                "interpreter \"/x\\r\" is missing",
                "cannot execute redis-server: No such file or directory (ENOENT), interpreter \"/x\\r\" is missing",
            ),
            (
                Step::Limits,
                Errno::EPERM,
                "",
                "cannot set the limits of redis-server (core=0:0): Operation not permitted (EPERM)",
            ),
            (
                Step::Identity,
                Errno::EAGAIN,
                "",
                "cannot run redis-server as user 1: Resource temporarily unavailable (EAGAIN)",
            ),
            (
                Step::Input,
                Errno::ENOENT,
                "",
                "cannot open /dev/null as standard input of redis-server: No such file or directory (ENOENT)",
            ),
            (Step::Prepare, Errno::EMFILE, "", "cannot create process for redis-server: Too many open files (EMFILE)"),
        ] {
            assert_eq!(text(step, error, detail), expected);
        }
        assert_eq!(LauncherFailure::from_bytes(b""), None);
        let long = LauncherFailure { step: Step::Exec, error: Errno::ENOENT, detail: "é".repeat(4000) };
        assert!(long.to_bytes().len() <= MAX_DETAIL_BYTES + 5);
    }

    #[test]
    fn program_with_a_missing_interpreter_has_the_exit_code_of_an_existing_one() {
        let code = |detail: &str| {
            let failure = LauncherFailure { step: Step::Exec, error: Errno::ENOENT, detail: detail.to_owned() };
            failure.into_spawn_error(&launch(None)).code()
        };
        assert_eq!((code(""), code("interpreter \"/x\" is missing")), (127, 126));
    }
}
