//! Pipes between the host and a child.

use std::{io, os::fd::OwnedFd, process::Stdio};

use tokio::net::unix::pipe;

use super::{ProcessSpec, StdioMode, outputs::open_pipe};

/// Ends that the host keeps, registered with the caller's runtime.
#[derive(Debug, Default)]
pub(super) struct HostEnds {
    pub(super) input: Option<pipe::Sender>,
    pub(super) output: Option<pipe::Receiver>,
    pub(super) error: Option<pipe::Receiver>,
}

/// Ends that the child gets. The host must close them once the child runs, or no pipe ever ends.
#[derive(Debug)]
pub(super) struct ChildEnds {
    pub(super) input: Option<OwnedFd>,
    pub(super) output: Stdio,
    pub(super) error: Stdio,
}

/// Opens the pipes for a program.
///
/// # Errors
/// If no descriptors are left.
pub(super) fn open(launch: &ProcessSpec) -> io::Result<(HostEnds, ChildEnds)> {
    let mut host = HostEnds::default();
    // A program of another user must be able to open its /dev/stdout.
    let outgoing = || {
        let (receiver, sender) = outgoing()?;
        if launch.privileges.identity.is_some() {
            open_pipe(&sender)?;
        }
        io::Result::Ok((receiver, sender))
    };
    let mut child = ChildEnds { input: None, output: Stdio::inherit(), error: Stdio::inherit() };
    if launch.input {
        let (sender, receiver) = pipe::pipe()?;
        host.input = Some(sender);
        child.input = Some(receiver.into_blocking_fd()?);
    }
    match launch.output {
        StdioMode::Inherit => {}
        StdioMode::Merged => {
            let (receiver, sender) = outgoing()?;
            host.output = Some(receiver);
            child.error = sender.try_clone()?.into();
            child.output = sender.into();
        }
        StdioMode::Separate => {
            let (receiver, sender) = outgoing()?;
            host.output = Some(receiver);
            child.output = sender.into();
            let (receiver, sender) = outgoing()?;
            host.error = Some(receiver);
            child.error = sender.into();
        }
        StdioMode::Printed => {
            let (receiver, sender) = outgoing()?;
            host.output = Some(receiver);
            child.output = sender.into();
        }
    }
    Ok((host, child))
}

/// Opens a pipe from a child to the host.
pub(super) fn outgoing() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (sender, receiver) = pipe::pipe()?;
    Ok((receiver, sender.into_blocking_fd()?))
}
