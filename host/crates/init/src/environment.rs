//! Environment of a program, passed from the host through the launcher.
//!
//! It is passed in a file in memory: the launcher runs with the host's rights, and in a dynamically linked build the loader
//! would apply variables such as `LD_PRELOAD` that are meant for the program.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{OwnedFd, RawFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
};

use nix::{
    sys::memfd::{MFdFlags, memfd_create},
    unistd,
};

/// Writes an environment to a file that the next child inherits.
///
/// # Errors
/// If no descriptor or memory is left, or a text contains a NUL byte.
pub(super) fn write(environment: &BTreeMap<OsString, OsString>) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("environment", MFdFlags::empty())?);
    file.write_all(&encode(environment)?)?;
    Ok(file.into())
}

/// Reads the environment from the inherited file with this number, and closes it.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn read(number: RawFd) -> io::Result<Vec<(OsString, OsString)>> {
    // A bare number cannot become a descriptor without `unsafe`; opening it again can, and starts at the beginning.
    let bytes = fs::read(format!("/proc/self/fd/{number}"))?;
    unistd::close(number)?;
    Ok(decode(&bytes))
}

fn encode(environment: &BTreeMap<OsString, OsString>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (name, value) in environment {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        if name.contains(&0) || value.contains(&0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "NUL byte in the environment"));
        }
        bytes.extend([name, b"=", value, b"\0"].concat());
    }
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Vec<(OsString, OsString)> {
    let variable = |text: &[u8]| {
        // A name may start with `=`.
        let end = text.iter().skip(1).position(|byte| *byte == b'=')? + 1;
        let (name, value) = text.split_at_checked(end)?;
        let value = value.get(1..)?;
        Some((OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec())))
    };
    bytes.split(|byte| *byte == 0).filter_map(variable).collect()
}

#[cfg(test)]
mod tests {
    use std::os::{fd::IntoRawFd as _, unix::fs::MetadataExt as _};

    use super::*;

    fn variables(texts: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
        texts.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn environment_arrives_as_it_was_written() {
        let mut given = variables(&[("A", "1"), ("EMPTY", ""), ("TWICE", "a=b=c"), ("=odd", "x"), ("LINES", "a\nb")]);
        given.insert("RAW".into(), OsString::from_vec(vec![0xff, 0xfe]));
        let file = File::from(write(&given).unwrap());
        let (inode, number) = (file.metadata().unwrap().ino(), file.into_raw_fd());
        assert_eq!(read(number).unwrap().into_iter().collect::<BTreeMap<_, _>>(), given);
        // Another test may have opened a file under the same number since.
        let now = fs::metadata(format!("/proc/self/fd/{number}"));
        assert!(now.is_err() || now.is_ok_and(|now| now.ino() != inode), "it is still open");
    }

    #[test]
    fn value_with_a_nul_byte_does_not_become_another_variable() {
        assert!(write(&variables(&[("A", "1\0LD_PRELOAD=/tmp/x.so")])).is_err());
        assert!(write(&variables(&[("A\0B", "1")])).is_err());
    }
}
