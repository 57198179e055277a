//! Detection of a missing interpreter or loader, which the system's error does not name.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;

/// PATH of programs whose environment has none, as in the C library.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// Maximum length of the first line that the kernel reads.
const MAX_LINE_BYTES: u64 = 255;
/// Maximum depth of interpreters of interpreters, as in the kernel.
const MAX_DEPTH: usize = 5;
/// Maximum length of a loader's name.
const MAX_LOADER_BYTES: u64 = 4096;

/// Explains why an existing program cannot be executed, if its interpreter is the cause. Returns none if the program
/// itself is missing or not a regular file, or its interpreter is not the cause.
pub(super) fn explain(program: &OsStr, path: Option<&OsStr>) -> Option<String> {
    let file = locate(program, path)?;
    let mut file = file.as_path().to_owned();
    for _ in 0..MAX_DEPTH {
        let (kind, next) = needed(&file).ok()??;
        let shown = next.to_string_lossy().into_owned();
        let line_end = if shown.ends_with('\r') { " (the line ends with a carriage return)" } else { "" };
        let named = format!("{kind} {shown:?}{line_end}");
        if next.is_empty() {
            return Some("its first line does not name an interpreter".to_owned());
        }
        match fs::metadata(&next) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(format!("{named} is missing")),
            Err(error) => return Some(format!("{named} cannot be used: {error}")),
            Ok(found) if !found.is_file() || found.permissions().mode() & 0o111 == 0 => {
                return Some(format!("{named} is not executable"));
            }
            Ok(_) => file = next.into(),
        }
    }
    Some("its interpreters require each other".to_owned())
}

/// Returns the file that a program's name refers to, if it exists.
fn locate(program: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(program)).filter(|file| file.exists());
    }
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    std::env::split_paths(path).map(|directory| directory.join(program)).find(|file| file.exists())
}

/// Returns the interpreter or loader that a file needs, with its kind; none if it needs none.
fn needed(file: &Path) -> io::Result<Option<(&'static str, OsString)>> {
    let Some(mut file) = open(file)? else { return Ok(None) };
    let mut start = Vec::new();
    file.by_ref().take(MAX_LINE_BYTES).read_to_end(&mut start)?;
    if let Some(rest) = start.strip_prefix(b"#!") {
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
        let word = words.next().unwrap_or_default();
        return Ok(Some(("interpreter", OsString::from_vec(word.to_vec()))));
    }
    Ok(loader(&mut file, &start)?.map(|name| ("loader", name)))
}

/// Opens a regular file; returns none for other kinds, because opening a pipe or a device may block or have side
/// effects.
fn open(file: &Path) -> io::Result<Option<File>> {
    if !fs::metadata(file)?.is_file() {
        return Ok(None);
    }
    // It may have been replaced since.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits()).open(file)?;
    Ok(Some(file).filter(|file| file.metadata().is_ok_and(|found| found.is_file())))
}

/// Returns the loader of a dynamically linked 64-bit program.
fn loader(file: &mut File, header: &[u8]) -> io::Result<Option<OsString>> {
    const LITTLE_ENDIAN_64: &[u8] = b"\x7fELF\x02\x01";
    const INTERPRETER: u64 = 3;
    if !header.starts_with(LITTLE_ENDIAN_64) {
        return Ok(None);
    }
    let (table, size, count) = (number(header, 32, 8), number(header, 54, 2), number(header, 56, 2));
    for index in 0..count {
        let mut entry = Vec::new();
        file.seek(SeekFrom::Start(table.saturating_add(index.saturating_mul(size))))?;
        file.by_ref().take(size).read_to_end(&mut entry)?;
        if number(&entry, 0, 4) == INTERPRETER {
            let mut name = Vec::new();
            file.seek(SeekFrom::Start(number(&entry, 8, 8)))?;
            file.by_ref().take(number(&entry, 32, 8).min(MAX_LOADER_BYTES)).read_to_end(&mut name)?;
            name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
            return Ok(Some(OsString::from_vec(name)).filter(|name| !name.is_empty()));
        }
    }
    Ok(None)
}

/// Reads a little-endian number of `size` bytes; zero past the end.
fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    let field = bytes.get(at..at + size).unwrap_or_default();
    field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(directory: &Path, name: &str, text: &[u8]) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn missing_interpreter_is_named_with_every_character() {
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("plain");
        fs::write(&plain, "").unwrap();
        let nested = script(directory.path(), "nested", b"#!/no/such/thing\n");
        let plain_line = format!("#!{}\n", plain.display());
        let nested_line = format!("#!{}\n", nested.display());
        for (text, expected) in [
            (&b"#!/no/such/shell -x\n"[..], Some("interpreter \"/no/such/shell\" is missing".to_owned())),
            (b"#! /no/such/shell", Some("interpreter \"/no/such/shell\" is missing".to_owned())),
            (
                b"#!/bin/sh\r\nexit 0\r\n",
                Some("interpreter \"/bin/sh\\r\" (the line ends with a carriage return) is missing".to_owned()),
            ),
            (b"#!\n", Some("its first line does not name an interpreter".to_owned())),
            (plain_line.as_bytes(), Some(format!("interpreter {plain:?} is not executable"))),
            (nested_line.as_bytes(), Some("interpreter \"/no/such/thing\" is missing".to_owned())),
            (b"#!/bin/sh\nexit 0\n", None),
            (b"exit 0\n", None),
            (b"", None),
        ] {
            let path = script(directory.path(), "script", text);
            assert_eq!(explain(path.as_os_str(), None), expected, "{}", text.escape_ascii());
            let found = explain(OsStr::new("script"), Some(directory.path().as_os_str()));
            assert_eq!(found, expected, "by PATH: {}", text.escape_ascii());
        }
        assert_eq!(explain(OsStr::new("/no/such/program"), None), None);
        assert_eq!(explain(OsStr::new("no-such-program"), None), None);
    }

    #[test]
    fn only_regular_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for file in [fifo.as_path(), Path::new("/dev/zero"), directory.path()] {
            assert_eq!(explain(file.as_os_str(), None), None, "{}", file.display());
            assert!(open(file).unwrap().is_none(), "{}", file.display());
        }
    }

    #[test]
    fn missing_loader_of_a_linked_program_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut program = vec![0; 64];
        program[..6].copy_from_slice(b"\x7fELF\x02\x01");
        program[32] = 64;
        program[54] = 56;
        program[56] = 1;
        let mut entry = vec![0; 56];
        entry[0] = 3;
        entry[8] = 120;
        let loader = b"/lib/ld-none.so.1\0";
        entry[32] = u8::try_from(loader.len()).unwrap();
        program.extend(entry);
        program.extend(loader);
        let path = script(directory.path(), "linked", &program);
        assert_eq!(explain(path.as_os_str(), None).unwrap(), "loader \"/lib/ld-none.so.1\" is missing");
        for cut in [7, 40, 60, 100] {
            let path = script(directory.path(), "cut", &program[..cut]);
            assert_eq!(explain(path.as_os_str(), None), None, "{cut}");
        }
    }
}
