//! Compiled plugins: compilation, verification and mapping.
//!
//! A compiled plugin is native code: the output of wasmtime, followed by a trailer of magic bytes, the digest of the
//! component, and the digest of everything before. A file is mapped only if it has a valid trailer, belongs to root or
//! to the user of this process, and is writable by its owner only. This is the only module with `unsafe` code.
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
use ochopod_files::{self as files, Directory};
use ring::digest::{Context, Digest, SHA256, digest};
use wasmtime::component::Component;

use super::{
    CompiledPluginError, LoadError, engine,
    plugin_file::{MAX_BYTES, PluginFile},
};

/// Version that a compiled plugin is bound to: it runs on exactly this version of host and wasmtime.
pub(super) const VERSION: &str = concat!("ochopod-", env!("CARGO_PKG_VERSION"), "-wasmtime-48.0.8");
/// Identifies a compiled plugin, and the layout of the trailer.
const MAGIC: [u8; 8] = *b"ochopod\x01";
const TRAILER_BYTES: usize = MAGIC.len() + 2 * 32;

/// A SHA-256 digest.
pub(super) type Sha256Digest = [u8; 32];

/// A compiled plugin that may be mapped.
#[derive(Debug)]
pub(super) struct CompiledPlugin {
    file: File,
    /// Digest of the component that was compiled.
    pub(super) source: Sha256Digest,
}

impl CompiledPlugin {
    /// Opens a file, if it is trusted and complete.
    pub(super) fn open(path: &Path) -> Result<Self, CompiledPluginError> {
        // What a guest wrote belongs to the user of the host as well.
        let file = files::open_code(path)?;
        let metadata = file.metadata()?;
        let user = nix::unistd::geteuid().as_raw();
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        if owner != 0 && owner != user {
            return Err(CompiledPluginError::Owner { owner, user });
        }
        if mode & 0o022 != 0 {
            return Err(CompiledPluginError::Mode { mode });
        }
        Self::verify(file)
    }

    /// Puts a compiled plugin into memory that only this process has.
    pub(super) fn anonymous(compiled: &[u8]) -> Result<Self, CompiledPluginError> {
        let memory = memfd_create("ochopod-plugin", MFdFlags::MFD_CLOEXEC).map_err(io::Error::from)?;
        let mut file = File::from(memory);
        file.write_all(compiled)?;
        file.rewind()?;
        Self::verify(file)
    }

    fn verify(mut file: File) -> Result<Self, CompiledPluginError> {
        let length = file.metadata()?.len();
        let content = length.checked_sub(TRAILER_BYTES as u64).ok_or(CompiledPluginError::Foreign)?;
        let mut hasher = HashWriter::new();
        io::copy(&mut (&mut file).take(content), &mut hasher)?;
        let mut magic = [0; MAGIC.len()];
        let (mut source, mut digest) = ([0; 32], [0; 32]);
        file.read_exact(&mut magic)?;
        file.read_exact(&mut source)?;
        file.read_exact(&mut digest)?;
        hasher.write_all(&magic)?;
        hasher.write_all(&source)?;
        if magic != MAGIC {
            return Err(CompiledPluginError::Foreign);
        }
        if digest != hasher.finish() {
            return Err(CompiledPluginError::Damaged);
        }
        Ok(Self { file, source })
    }

    /// Maps the code. Pages are read from the file when they are used.
    pub(super) fn map(&self, engine: &wasmtime::Engine) -> Result<Component, CompiledPluginError> {
        // By the path of the descriptor: the mapped file is the verified one, even if its name was reused.
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        // SAFETY: wasmtime requires an unchanging file that its `precompile_component` wrote. The trailer proves that `build`
        // wrote the file and that it is unchanged. The file is private memory, or it belongs to root or the user of this
        // process and no other user may write to it. A sub-process of that user can change it: docs/security.md says how to
        // prevent that. The module version in it, which wasmtime compares, is that of exactly this host and wasmtime.
        unsafe { Component::deserialize_file(engine, path) }
            .map_err(|error| CompiledPluginError::Incompatible(format!("{:#}", error.root_cause())))
    }
}

fn sha256(bytes: &[u8]) -> Sha256Digest {
    digest_bytes(&digest(&SHA256, bytes))
}

fn digest_bytes(digest: &Digest) -> Sha256Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

/// Hashes the bytes that are written to it.
pub(super) struct HashWriter(Context);

impl HashWriter {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(super) fn finish(self) -> Sha256Digest {
        digest_bytes(&self.0.finish())
    }
}

impl Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compiles a component. A large one takes seconds and tens of megabytes, so a running host does it in a child process.
pub(super) fn build(plugin: &Path) -> Result<Vec<u8>, LoadError> {
    let rejected = |reason| LoadError::Compile { path: plugin.to_owned(), reason };
    let PluginFile::Component { .. } = PluginFile::read(plugin)? else {
        return Err(rejected("already compiled".to_owned()));
    };
    let component =
        files::read(plugin, MAX_BYTES).map_err(|source| LoadError::Read { path: plugin.to_owned(), source })?;
    let engine = engine::wasm().map_err(|error| rejected(format!("{error:#}")))?;
    let mut compiled = engine.precompile_component(&component).map_err(|error| rejected(format!("{error:#}")))?;
    compiled.extend(MAGIC);
    compiled.extend(sha256(&component));
    compiled.extend(sha256(&compiled));
    Ok(compiled)
}

/// Compiles a plugin ahead of time to a file that `run` accepts, or to standard output if the file is `-`. The file is
/// replaced atomically, so hosts that mapped an earlier one are not affected.
///
/// # Errors
/// If the plugin is not a component, does not compile, or the result cannot be written.
pub fn compile(plugin: &Path, out: &Path) -> Result<(), LoadError> {
    let compiled = build(plugin)?;
    let failed = |source| LoadError::Store { path: out.to_owned(), source };
    if out == Path::new("-") {
        return io::stdout().lock().write_all(&compiled).map_err(failed);
    }
    let directory = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = out.file_name().ok_or_else(|| failed(io::ErrorKind::IsADirectory.into()))?;
    let directory = Directory::find_writable(directory).map_err(failed)?;
    let mut file = tempfile::Builder::new()
        .prefix(".compile-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(directory.path())
        .map_err(failed)?;
    file.write_all(&compiled).map_err(failed)?;
    file.persist(directory.path().join(name)).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_wasmtime_version_is_that_of_the_lock_file() {
        let lock = include_str!("../../../../Cargo.lock");
        let (_, wasmtime) = VERSION.split_once("-wasmtime-").unwrap();
        assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{wasmtime}\"\n")));
    }

    /// Smallest possible component.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn compiled(directory: &Path) -> std::path::PathBuf {
        let (plugin, out) = (directory.join("p.wasm"), directory.join("p.cwasm"));
        std::fs::write(&plugin, EMPTY).unwrap();
        compile(&plugin, &out).unwrap();
        out
    }

    #[test]
    fn compiled_plugin_maps_and_knows_its_component() {
        let directory = tempfile::tempdir().unwrap();
        let compiled_plugin = CompiledPlugin::open(&compiled(directory.path())).unwrap();
        assert_eq!(compiled_plugin.source[..], sha256(EMPTY)[..]);
        compiled_plugin.map(&engine::wasm().unwrap()).unwrap();
        let mut compiled = Vec::new();
        File::open(directory.path().join("p.cwasm")).unwrap().read_to_end(&mut compiled).unwrap();
        CompiledPlugin::anonymous(&compiled).unwrap().map(&engine::wasm().unwrap()).unwrap();
    }

    #[test]
    fn damaged_truncated_or_foreign_compiled_plugin_is_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let path = compiled(directory.path());
        let whole = std::fs::read(&path).unwrap();
        let rejected = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            CompiledPlugin::open(&path).unwrap_err()
        };
        for byte in [0, 100, whole.len() / 2, whole.len() - 40, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1;
            assert!(matches!(rejected(&damaged), CompiledPluginError::Damaged), "{byte}");
        }
        for length in [0, 10, whole.len() / 2, whole.len() - 1] {
            assert!(matches!(rejected(&whole[..length]), CompiledPluginError::Foreign), "{length}");
        }
        let foreign = engine::wasm().unwrap().precompile_component(EMPTY).unwrap();
        assert!(matches!(rejected(&foreign), CompiledPluginError::Foreign));
    }

    #[test]
    fn compiled_plugin_of_another_wasmtime_is_rejected_as_such() {
        let other = wasmtime::Engine::default().precompile_component(EMPTY).unwrap();
        let mut compiled = [&other[..], &MAGIC, &sha256(EMPTY)].concat();
        compiled.extend(sha256(&compiled));
        let error = CompiledPlugin::anonymous(&compiled).unwrap().map(&engine::wasm().unwrap()).unwrap_err();
        assert!(matches!(error, CompiledPluginError::Incompatible(_)), "{error}");
    }

    #[test]
    fn compiled_plugin_that_others_may_write_to_or_own_is_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let path = compiled(directory.path());
        for mode in [0o666, 0o664, 0o646] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(
                matches!(CompiledPlugin::open(&path), Err(CompiledPluginError::Mode { mode: m }) if m == mode),
                "{mode:o}"
            );
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
            assert!(matches!(CompiledPlugin::open(&path), Err(CompiledPluginError::Owner { owner: 12345, .. })));
        }
    }
}
