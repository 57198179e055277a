//! As much of AMQP 0-9-1 as shows that a node serves clients.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use ochopod_sdk::{Result, bail, net};

/// Protocol header of a client.
const HEADER: &[u8] = b"AMQP\0\0\x09\x01";
/// Start of a method frame on channel 0, in which a server answers with `connection.start`.
const METHOD_FRAME: [u8; 3] = [1, 0, 0];

/// Returns whether a node answers clients at `IP:PORT`. RabbitMQ logs a warning for each call.
///
/// # Errors
/// If the sandbox denies the connection.
pub(crate) fn serves(address: &str, timeout: Duration) -> Result<bool> {
    let Some(mut stream) = connect(address, timeout)? else { return Ok(false) };
    stream.set_read_timeout(Some(timeout))?;
    let mut start = [0; METHOD_FRAME.len()];
    Ok(stream.write_all(HEADER).is_ok() && stream.read_exact(&mut start).is_ok() && start == METHOD_FRAME)
}

/// Returns whether anything listens at `IP:PORT`. A node listens for clients only once it has started and is a member of its
/// cluster.
///
/// # Errors
/// If the sandbox denies the connection.
pub(crate) fn listens(address: &str, timeout: Duration) -> Result<bool> {
    Ok(connect(address, timeout)?.is_some())
}

fn connect(address: &str, timeout: Duration) -> Result<Option<TcpStream>> {
    match net::connect(address, timeout) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            bail!("nodes of other pods cannot be reached: requires --net peers")
        }
        Err(_) => Ok(None),
    }
}
