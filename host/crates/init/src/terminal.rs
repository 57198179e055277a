//! Controlling terminal and its foreground group, which reads from it and receives `^C` and `^Z`.
//!
//! A child started in the foreground has the terminal until its exit is reported or it is stopped. Then the host
//! reclaims it.

use std::{
    fs::File,
    io::{self, IsTerminal as _},
    os::fd::{AsFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::signal::{self, SigSet, SigmaskHow, Signal},
    unistd::{self, Pid},
};

use super::descendants;

/// Names the terminal even if the standard streams are redirected.
const CONTROLLING_TERMINAL: &str = "/dev/tty";

/// Returns whether this process has a controlling terminal.
pub(super) fn exists() -> bool {
    open().is_some()
}

/// Returns whether this process's group has the terminal, so that a child can get it.
pub(super) fn is_foreground() -> bool {
    is_foreground_group(unistd::getpgrp())
}

/// Returns whether a group has the terminal.
pub(super) fn is_foreground_group(group: Pid) -> bool {
    open().is_some_and(|terminal| unistd::tcgetpgrp(&terminal) == Ok(group))
}

/// Returns whether standard input is a terminal.
pub(super) fn is_input() -> bool {
    io::stdin().is_terminal()
}

/// Gives the terminal to a process group of this session.
///
/// # Errors
/// If there is no terminal, or the group does not exist.
pub(super) fn set_foreground(group: Pid) -> Result<(), Errno> {
    let terminal = open().ok_or(Errno::ENOTTY)?;
    set_foreground_of(&terminal, group)
}

/// Sets the foreground group. Blocks TTOU meanwhile, which would stop a caller in the background.
fn set_foreground_of(terminal: &OwnedFd, group: Pid) -> Result<(), Errno> {
    let before = SigSet::from(Signal::SIGTTOU).thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let given = unistd::tcsetpgrp(terminal, group);
    before.thread_set_mask()?;
    given
}

/// Reclaims the terminal from a child's group, or from a group of a descendant. Leaves it to any other group, such as
/// the shell that put this process in the background.
///
/// # Errors
/// If the system rejects it.
pub(super) fn reclaim() -> Result<(), Errno> {
    let Some(terminal) = open() else { return Ok(()) };
    let (holder, own) = (unistd::tcgetpgrp(&terminal)?, unistd::getpgrp());
    // A group of another PID namespace has no number here. It cannot get the terminal from here, but from its shell.
    if holder == own || own.as_raw() == 0 {
        return Ok(());
    }
    let is_left = holder.as_raw() > 0 && signal::killpg(holder, None) == Err(Errno::ESRCH);
    if is_left || descendants::descendants().contains(&holder.as_raw().cast_unsigned()) {
        set_foreground_of(&terminal, own)?;
    }
    Ok(())
}

/// Returns whether a shell of this session can continue this process's group. The kernel stops no other groups by TSTP.
pub(super) fn can_suspend() -> bool {
    let (group, session) = (unistd::getpgrp(), unistd::getsid(None));
    let mut pid = std::process::id();
    while let Some(parent) = descendants::parent_of(pid).filter(|parent| *parent != 0) {
        let process = Pid::from_raw(parent.cast_signed());
        if unistd::getpgid(Some(process)) != Ok(group) {
            return session.is_ok() && unistd::getsid(Some(process)) == session;
        }
        pid = parent;
    }
    false
}

fn open() -> Option<OwnedFd> {
    let controlling = File::options().read(true).write(true).open(CONTROLLING_TERMINAL).map(OwnedFd::from).ok();
    controlling.or_else(|| {
        let streams = [io::stdin().as_fd().try_clone_to_owned(), io::stderr().as_fd().try_clone_to_owned()];
        // A terminal that does not control this process has no foreground group.
        streams.into_iter().flatten().find(|stream| unistd::tcgetpgrp(stream).is_ok())
    })
}
