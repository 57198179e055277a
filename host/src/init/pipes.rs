//! The pipes between the host and a child.

use std::{io, os::fd::OwnedFd, process::Stdio};

use tokio::net::unix::pipe;

use super::{Launch, Output};

/// What the host keeps, registered with the runtime of whoever asked.
#[derive(Debug, Default)]
pub(super) struct HostEnds {
    pub(super) input: Option<pipe::Sender>,
    pub(super) output: Option<pipe::Receiver>,
    pub(super) error: Option<pipe::Receiver>,
}

/// What the child gets. The host must hold none of it once the child runs, or no pipe ever ends.
#[derive(Debug)]
pub(super) struct ChildEnds {
    pub(super) input: Option<OwnedFd>,
    pub(super) output: Stdio,
    pub(super) error: Stdio,
}

/// Opens the pipes that a launch asks for.
///
/// # Errors
/// When there are no descriptors left.
pub(super) fn open(launch: &Launch) -> io::Result<(HostEnds, ChildEnds)> {
    let mut host = HostEnds::default();
    let mut child = ChildEnds { input: None, output: Stdio::inherit(), error: Stdio::inherit() };
    if launch.input {
        let (sender, receiver) = pipe::pipe()?;
        host.input = Some(sender);
        child.input = Some(receiver.into_blocking_fd()?);
    }
    match launch.output {
        Output::Inherit => {}
        Output::Merged => {
            let (receiver, sender) = outgoing()?;
            host.output = Some(receiver);
            child.error = sender.try_clone()?.into();
            child.output = sender.into();
        }
        Output::Separate => {
            let (receiver, sender) = outgoing()?;
            host.output = Some(receiver);
            child.output = sender.into();
            let (receiver, sender) = outgoing()?;
            host.error = Some(receiver);
            child.error = sender.into();
        }
        Output::Printed => {
            let (receiver, sender) = outgoing()?;
            host.output = Some(receiver);
            child.output = sender.into();
        }
    }
    Ok((host, child))
}

/// A pipe from a child to the host.
pub(super) fn outgoing() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (sender, receiver) = pipe::pipe()?;
    Ok((receiver, sender.into_blocking_fd()?))
}
