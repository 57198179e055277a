//! Compiled plugins: how they are made, sealed, trusted and mapped.
//!
//! A compiled plugin is native code. It is what wasmtime made of a component, followed by a seal: a mark of ours, the
//! digest of the component, and the digest of everything before. Nothing is mapped that does not bear the seal, that
//! somebody else owns, or that others may write to. This is the only module with `unsafe` in it.
#![allow(unsafe_code, reason = "mapping native code is unsafe by nature; see `map`")]

use std::{
    fs::{File, Permissions},
    io::{self, Read, Seek, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;

use super::{ArtefactError, LoadError, engine, source::Source};

/// What a compiled plugin is bound to: it runs on this very version of host and wasmtime only.
pub(super) const VERSION: &str = concat!("ochopod-", env!("CARGO_PKG_VERSION"), "-wasmtime-48.0.8");
/// Marks a compiled plugin of ours, and the layout of the seal.
const MARK: [u8; 8] = *b"ochopod\x01";
const SEAL: usize = MARK.len() + 2 * 32;

/// A SHA-256 digest.
pub(super) type Digest = [u8; 32];

/// A compiled plugin that may be mapped.
#[derive(Debug)]
pub(super) struct Artefact {
    file: File,
    /// Digest of the component it was made of.
    pub(super) source: Digest,
}

impl Artefact {
    /// Opens a file, if it is trusted, ours and whole.
    pub(super) fn open(path: &Path) -> Result<Self, ArtefactError> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let user = nix::unistd::geteuid().as_raw();
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        if owner != 0 && owner != user {
            return Err(ArtefactError::Owner { owner, user });
        }
        if mode & 0o022 != 0 {
            return Err(ArtefactError::Mode { mode });
        }
        Self::verify(file)
    }

    /// Keeps a compiled plugin in memory that only this process has.
    pub(super) fn anonymous(sealed: &[u8]) -> Result<Self, ArtefactError> {
        let memory = memfd_create("ochopod-plugin", MFdFlags::MFD_CLOEXEC).map_err(io::Error::from)?;
        let mut file = File::from(memory);
        file.write_all(sealed)?;
        file.rewind()?;
        Self::verify(file)
    }

    fn verify(mut file: File) -> Result<Self, ArtefactError> {
        let length = file.metadata()?.len();
        let content = length.checked_sub(SEAL as u64).ok_or(ArtefactError::Foreign)?;
        let mut hasher = Sha256::new();
        io::copy(&mut (&mut file).take(content), &mut HashWriter(&mut hasher))?;
        let mut mark = [0; MARK.len()];
        let (mut source, mut digest) = ([0; 32], [0; 32]);
        file.read_exact(&mut mark)?;
        file.read_exact(&mut source)?;
        file.read_exact(&mut digest)?;
        hasher.update(mark);
        hasher.update(source);
        if mark != MARK {
            return Err(ArtefactError::Foreign);
        }
        if digest[..] != hasher.finalize()[..] {
            return Err(ArtefactError::Damaged);
        }
        Ok(Self { file, source })
    }

    /// Maps the code. Only what runs is ever read from the file.
    pub(super) fn map(&self, engine: &wasmtime::Engine) -> Result<Component, ArtefactError> {
        // The descriptor's own path: what was verified and what is mapped are the same file, whatever became of its name.
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        // SAFETY: wasmtime requires a file that its own `precompile_component` made and that nobody changes. The seal says
        // that `build` wrote it and that it is as it was written. It is our own memory, or its owner is root or the user who
        // runs this, and nobody else may write to it: whoever could change it could as well replace this program. The
        // module version in it, which wasmtime compares, is that of this very host and wasmtime.
        unsafe { Component::deserialize_file(engine, path) }
            .map_err(|error| ArtefactError::Incompatible(format!("{:#}", error.root_cause())))
    }
}

/// Feeds what is written to a digest.
pub(super) struct HashWriter<'a>(pub(super) &'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compiles a component. Takes seconds for a large one, and tens of megabytes: in a running host, a child process does it.
pub(super) fn build(plugin: &Path) -> Result<Vec<u8>, LoadError> {
    let refused = |reason| LoadError::Compile { path: plugin.to_owned(), reason };
    let Source::Component { .. } = Source::read(plugin)? else {
        return Err(refused("it is compiled already".to_owned()));
    };
    let component = std::fs::read(plugin).map_err(|source| LoadError::Read { path: plugin.to_owned(), source })?;
    let engine = engine::wasm().map_err(|error| refused(format!("{error:#}")))?;
    let mut sealed = engine.precompile_component(&component).map_err(|error| refused(format!("{error:#}")))?;
    sealed.extend(MARK);
    sealed.extend(Sha256::digest(&component));
    let digest = Sha256::digest(&sealed);
    sealed.extend(digest);
    Ok(sealed)
}

/// Compiles a plugin ahead of time to a file that `run` accepts, or to standard output when that is `-`. The file is there
/// whole or not at all; one that hosts have mapped is replaced, not changed.
///
/// # Errors
/// When the plugin is no component, does not compile, or the result cannot be written.
pub fn compile(plugin: &Path, out: &Path) -> Result<(), LoadError> {
    let sealed = build(plugin)?;
    let failed = |source| LoadError::Store { path: out.to_owned(), source };
    if out == Path::new("-") {
        return io::stdout().lock().write_all(&sealed).map_err(failed);
    }
    let directory = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".compile-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(failed)?;
    file.write_all(&sealed).map_err(failed)?;
    file.persist(out).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_plugins_are_bound_to_is_that_of_the_lock_file() {
        let lock = include_str!("../../../Cargo.lock");
        let (_, wasmtime) = VERSION.split_once("-wasmtime-").unwrap();
        assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{wasmtime}\"\n")));
    }

    /// The smallest component there is.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn compiled(directory: &Path) -> std::path::PathBuf {
        let (plugin, out) = (directory.join("p.wasm"), directory.join("p.cwasm"));
        std::fs::write(&plugin, EMPTY).unwrap();
        compile(&plugin, &out).unwrap();
        out
    }

    #[test]
    fn a_compiled_plugin_maps_and_knows_what_it_was_made_of() {
        let directory = tempfile::tempdir().unwrap();
        let artefact = Artefact::open(&compiled(directory.path())).unwrap();
        assert_eq!(artefact.source[..], Sha256::digest(EMPTY)[..]);
        artefact.map(&engine::wasm().unwrap()).unwrap();
        let mut sealed = Vec::new();
        File::open(directory.path().join("p.cwasm")).unwrap().read_to_end(&mut sealed).unwrap();
        Artefact::anonymous(&sealed).unwrap().map(&engine::wasm().unwrap()).unwrap();
    }

    #[test]
    fn a_compiled_plugin_that_is_damaged_truncated_or_of_elsewhere_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = compiled(directory.path());
        let whole = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Artefact::open(&path).unwrap_err()
        };
        for byte in [0, 100, whole.len() / 2, whole.len() - 40, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1;
            assert!(matches!(refused(&damaged), ArtefactError::Damaged), "{byte}");
        }
        for length in [0, 10, whole.len() / 2, whole.len() - 1] {
            assert!(matches!(refused(&whole[..length]), ArtefactError::Foreign), "{length}");
        }
        let foreign = engine::wasm().unwrap().precompile_component(EMPTY).unwrap();
        assert!(matches!(refused(&foreign), ArtefactError::Foreign));
    }

    #[test]
    fn a_compiled_plugin_of_another_wasmtime_is_refused_as_such() {
        let other = wasmtime::Engine::default().precompile_component(EMPTY).unwrap();
        let mut sealed = [&other[..], &MARK, &Sha256::digest(EMPTY)].concat();
        sealed.extend(Sha256::digest(&sealed));
        let error = Artefact::anonymous(&sealed).unwrap().map(&engine::wasm().unwrap()).unwrap_err();
        assert!(matches!(error, ArtefactError::Incompatible(_)), "{error}");
    }

    #[test]
    fn a_compiled_plugin_that_others_may_write_to_or_own_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = compiled(directory.path());
        for mode in [0o666, 0o664, 0o646] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(Artefact::open(&path), Err(ArtefactError::Mode { mode: m }) if m == mode), "{mode:o}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
            assert!(matches!(Artefact::open(&path), Err(ArtefactError::Owner { owner: 12345, .. })));
        }
    }
}
