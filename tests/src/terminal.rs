//! Pseudo terminals: those of a host that is started by an operator, or in a container with `-t`.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::Path,
    thread,
};

use nix::{
    fcntl::OFlag,
    pty::{self, PtyMaster},
};

use crate::Result;

/// The keyboard of a terminal, whose screen is copied to a file.
#[derive(Debug)]
pub(crate) struct Terminal {
    keyboard: File,
}

impl Terminal {
    /// Returns a new terminal, and the device for programs. All of their output is written to the file.
    pub(crate) fn open(screen: &Path) -> Result<(Self, File)> {
        let master = pty::posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
        pty::grantpt(&master)?;
        pty::unlockpt(&master)?;
        let device = device(&master)?;
        let keyboard = File::from(OwnedFd::from(master));
        let (mut shown, mut file) = (keyboard.try_clone()?, File::create(screen)?);
        thread::Builder::new().name("terminal".to_owned()).spawn(move || {
            let mut chunk = [0; 4096];
            // Reading fails once no program has the device open.
            while let Ok(count @ 1..) = shown.read(&mut chunk) {
                if file.write_all(chunk.get(..count).unwrap_or_default()).is_err() {
                    break;
                }
            }
        })?;
        Ok((Self { keyboard }, device))
    }

    pub(crate) fn press(&mut self, keys: &str) -> Result {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }
}

/// Opens the device, which does not become the terminal of the test.
fn device(master: &PtyMaster) -> Result<File> {
    let path = pty::ptsname_r(master)?;
    Ok(OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(path)?)
}
