//! Detection of the kind of a plugin file, from its first bytes and its sections.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
    path::Path,
};

use ochopod_files as files;

use super::{
    LoadError,
    compiled::{CompiledPlugin, HashWriter, Sha256Digest},
};

/// `\0asm`, version, layer.
const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";
const CORE_MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";
const ELF: [u8; 4] = *b"\x7fELF";
/// Maximum size of a plugin file.
pub(super) const MAX_BYTES: u64 = 1 << 30;

/// A plugin file.
#[derive(Debug)]
pub(super) enum PluginFile {
    /// A component, to be compiled.
    Component {
        /// Digest of the file.
        digest: Sha256Digest,
    },
    /// A compiled component.
    CompiledPlugin(CompiledPlugin),
}

impl PluginFile {
    /// Reads a file without compiling it.
    pub(super) fn read(path: &Path) -> Result<Self, LoadError> {
        let named = || path.to_owned();
        let unreadable = |source| LoadError::Read { path: named(), source };
        let file = files::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => LoadError::NotAFile { path: named() },
            _ => unreadable(error),
        })?;
        if file.metadata().map_err(unreadable)?.len() > MAX_BYTES {
            return Err(LoadError::Large { path: named() });
        }
        let mut file = BufReader::new(file);
        let mut start = Vec::new();
        (&mut file).take(8).read_to_end(&mut start).map_err(unreadable)?;
        if start.starts_with(&ELF) {
            let compiled =
                CompiledPlugin::open(path).map_err(|source| LoadError::CompiledPlugin { path: named(), source })?;
            return Ok(Self::CompiledPlugin(compiled));
        }
        if start == CORE_MODULE {
            return Err(LoadError::CoreModule { path: named() });
        }
        if start != COMPONENT {
            let cut = !start.is_empty() && COMPONENT.starts_with(&start);
            return Err(if cut {
                LoadError::Truncated { path: named() }
            } else {
                LoadError::NotWasm { path: named() }
            });
        }
        if !is_whole(&mut file).map_err(unreadable)? {
            return Err(LoadError::Truncated { path: named() });
        }
        file.rewind().map_err(unreadable)?;
        let mut hasher = HashWriter::new();
        io::copy(&mut file, &mut hasher).map_err(unreadable)?;
        Ok(Self::Component { digest: hasher.finish() })
    }
}

/// Returns whether every section from here on ends within the file.
fn is_whole(file: &mut BufReader<File>) -> io::Result<bool> {
    let length = file.get_ref().metadata()?.len();
    let mut position = file.stream_position()?;
    while position < length {
        let mut id = [0];
        file.read_exact(&mut id)?;
        let Some(size) = section_size(file)? else { return Ok(false) };
        // Within what is buffered already, if it can: there may be very many sections.
        file.seek_relative(i64::try_from(size).unwrap_or(i64::MAX))?;
        position = file.stream_position()?;
    }
    Ok(position == length)
}

/// Reads a LEB128 number of at most 32 bits; none if it is invalid, or the file ends within it.
fn section_size(file: &mut impl Read) -> io::Result<Option<u64>> {
    let mut size = 0;
    for shift in (0..35).step_by(7) {
        let mut byte = [0];
        if file.read(&mut byte)? == 0 {
            return Ok(None);
        }
        let [byte] = byte;
        size |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(Some(size));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(bytes: &[u8]) -> Result<PluginFile, LoadError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plugin.wasm");
        fs::write(&path, bytes).unwrap();
        PluginFile::read(&path)
    }

    #[test]
    fn file_that_is_not_a_plugin_is_rejected_by_its_kind() {
        let custom = |cut: usize| [&COMPONENT[..], b"\x00\x85\x00\x04name"].concat()[..8 + cut].to_vec();
        assert!(matches!(read(&custom(8)), Ok(PluginFile::Component { .. })));
        assert!(matches!(read(&COMPONENT), Ok(PluginFile::Component { .. })));
        for cut in 1..8 {
            assert!(matches!(read(&custom(cut)), Err(LoadError::Truncated { .. })), "{cut}");
            assert!(matches!(read(&COMPONENT[..cut]), Err(LoadError::Truncated { .. })), "{cut}");
        }
        assert!(matches!(read(&CORE_MODULE), Err(LoadError::CoreModule { .. })));
        for other in [&b""[..], b"(component)", b"#!/bin/sh", b"\0asm\x0d\0\x02\0"] {
            assert!(matches!(read(other), Err(LoadError::NotWasm { .. })), "{other:?}");
        }
        assert!(matches!(read(b"\x7fELF and more"), Err(LoadError::CompiledPlugin { .. })));
    }

    #[test]
    fn irregular_file_and_missing_file_are_distinct_errors() {
        assert!(matches!(PluginFile::read(Path::new("/tmp")), Err(LoadError::NotAFile { .. })));
        assert!(matches!(PluginFile::read(Path::new("/dev/zero")), Err(LoadError::NotAFile { .. })));
        let missing = PluginFile::read(Path::new("/does/not/exist.wasm")).unwrap_err();
        assert!(matches!(&missing, LoadError::Read { path, .. } if path.ends_with("exist.wasm")), "{missing}");
    }
}
