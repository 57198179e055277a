//! Loading of a plugin file: compiled once, by a child process, and cached as a file that is mapped.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ochopod_files::Directory;
use ochopod_init::{Exit, Init, Privileges, ProcessSpec, StdioMode};
use wasmtime::component::Component;

use super::{
    Engine, LoadError,
    compiled::{self, CompiledPlugin, Sha256Digest, VERSION},
    plugin_file::PluginFile,
};

/// Maximum duration of a compilation, which takes seconds, or minutes on a starved machine.
const COMPILE_TIMEOUT: Duration = Duration::from_mins(10);
/// Maximum size of a compiled plugin.
const MAX_COMPILED_BYTES: usize = 1 << 30;

/// Prefix of the directories of unfinished compilations.
const UNFINISHED_PREFIX: &str = ".compile-";
/// Age from which an unfinished compilation counts as abandoned.
const MAX_COMPILE_AGE: Duration = Duration::from_hours(1);

/// Process that compiles plugins.
#[derive(Debug, Clone)]
pub enum Compiler {
    /// A child process, which takes the memory of the compiler with it.
    Child {
        /// Starts the child.
        init: Init,
        /// This program, run as `ochopod compile`.
        host: PathBuf,
    },
    /// This process, which exits soon.
    InProcess,
}

/// Loads the code of a plugin file. Returns the digest of the component too.
pub(super) async fn component(
    engine: &Arc<Engine>,
    plugin: &Path,
    cache: Option<&Path>,
    compiler: &Compiler,
) -> Result<(Component, Sha256Digest), LoadError> {
    let file = plugin.to_owned();
    let digest = match off_thread(plugin, move || PluginFile::read(&file)).await? {
        PluginFile::CompiledPlugin(compiled_plugin) => {
            return Ok((map(engine, plugin, &compiled_plugin)?, compiled_plugin.source));
        }
        PluginFile::Component { digest } => digest,
    };
    if let Some(cache) = cache {
        match cached(engine, plugin, &digest, cache, compiler).await? {
            Ok(component) => return Ok((component, digest)),
            Err(reason) => {
                tracing::warn!(path = %cache.display(), reason, "cache directory not used");
            }
        }
    }
    let bytes = compiler.compile(plugin, Path::new("-")).await?;
    let compiled_plugin = CompiledPlugin::anonymous(&bytes)
        .map_err(|source| LoadError::CompiledPlugin { path: plugin.into(), source })?;
    if compiled_plugin.source != digest {
        return Err(LoadError::Changed { path: plugin.into() });
    }
    Ok((map(engine, plugin, &compiled_plugin)?, digest))
}

/// Rejects a file that is not a component.
pub(super) async fn expect_component(plugin: &Path) -> Result<(), LoadError> {
    let path = plugin.to_owned();
    match off_thread(plugin, move || PluginFile::read(&path)).await? {
        PluginFile::Component { .. } => Ok(()),
        PluginFile::CompiledPlugin(_) => Err(LoadError::NativeCode { path: plugin.to_owned() }),
    }
}

fn map(engine: &Engine, plugin: &Path, compiled_plugin: &CompiledPlugin) -> Result<Component, LoadError> {
    compiled_plugin.map(engine.wasm()).map_err(|source| LoadError::CompiledPlugin { path: plugin.to_owned(), source })
}

/// Loads the code from the cache, and compiles it into the cache if necessary. Returns the reason if the cache cannot
/// be used.
///
/// Hosts that compile the same plugin concurrently write a file each and rename it. The last one stays; all are alike.
async fn cached(
    engine: &Engine,
    plugin: &Path,
    digest: &Sha256Digest,
    cache: &Path,
    compiler: &Compiler,
) -> Result<Result<Component, String>, LoadError> {
    let (directory, cached_file) = (cache.to_owned(), cache.join(cache_file(digest)));
    let file = cached_file.clone();
    let found =
        off_thread(plugin, move || Ok(prepare_directory(&directory).map(|()| CompiledPlugin::open(&file)))).await?;
    let found = match found {
        Ok(found) => found,
        Err(reason) => return Ok(Err(reason)),
    };
    match found.and_then(|compiled_plugin| Ok((compiled_plugin.map(engine.wasm())?, compiled_plugin.source))) {
        Ok((component, source)) if source == *digest => return Ok(Ok(component)),
        Ok(_) => tracing::warn!(path = %cached_file.display(), "cached file belongs to another plugin, recompiling"),
        Err(super::CompiledPluginError::Read(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %cached_file.display(), %error, "cached file unusable, recompiling"),
    }
    let unfinished = match tempfile::Builder::new().prefix(UNFINISHED_PREFIX).tempdir_in(cache) {
        Ok(directory) => directory,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let out = unfinished.path().join("plugin.cwasm");
    if let Err(error) = compiler.compile(plugin, &out).await {
        // The disk may be full. Compiling to memory shows whether the plugin is at fault.
        return Ok(Err(error.to_string()));
    }
    let compiled_plugin = match CompiledPlugin::open(&out) {
        Ok(compiled_plugin) if compiled_plugin.source == *digest => compiled_plugin,
        Ok(_) => return Err(LoadError::Changed { path: plugin.to_owned() }),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let component = match compiled_plugin.map(engine.wasm()) {
        Ok(component) => component,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if let Err(error) = fs::rename(&out, &cached_file) {
        tracing::warn!(path = %cached_file.display(), %error, "cannot cache compiled plugin");
    }
    if let Err(error) = remove_stale(cache, digest) {
        tracing::warn!(path = %cache.display(), %error, "cannot remove stale files from the cache");
    }
    Ok(Ok(component))
}

/// Reads files on another thread: a disk may be slow, and termination requests are handled meanwhile.
async fn off_thread<T: Send + 'static>(
    plugin: &Path,
    read: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    let failed =
        |error: tokio::task::JoinError| LoadError::Read { path: plugin.to_owned(), source: io::Error::other(error) };
    tokio::task::spawn_blocking(read).await.map_err(failed)?
}

/// Removes what other host versions compiled from the same plugin, and what killed compilers left behind.
fn remove_stale(cache: &Path, digest: &Sha256Digest) -> io::Result<()> {
    let (current, plugin) = (cache_file(digest), hex(digest));
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        if name.starts_with(&plugin) && name != current {
            fs::remove_file(path)?;
        } else if name.starts_with(UNFINISHED_PREFIX) {
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age > MAX_COMPILE_AGE {
                fs::remove_dir_all(path)?;
            }
        }
    }
    Ok(())
}

/// Returns the name of a plugin in the cache.
fn cache_file(digest: &Sha256Digest) -> String {
    hex(digest) + "-" + VERSION + ".cwasm"
}

/// Returns a digest in hexadecimal.
pub(super) fn hex(digest: &Sha256Digest) -> String {
    let mut text = String::new();
    for byte in digest {
        // Writing to a string cannot fail.
        _ = write!(text, "{byte:02x}");
    }
    text
}

/// Creates the cache directory if it is missing, and checks that no other user can put native code into it.
fn prepare_directory(cache: &Path) -> Result<(), String> {
    if let Some(parent) = cache.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Directory::create(parent, 0o777).map_err(|error| format!("cannot create {}: {error}", parent.display()))?;
    }
    let directory = Directory::create(cache, 0o700).map_err(|error| format!("cannot create directory: {error}"))?;
    let (owner, mode) = directory.owner_and_mode().map_err(|error| error.to_string())?;
    let user = nix::unistd::geteuid().as_raw();
    if owner != user {
        return Err(format!("owned by user {owner}, expected {user}"));
    }
    if mode & 0o077 != 0 {
        return Err(format!("mode {mode:04o}, expected 0700"));
    }
    if directory.is_guest_writable() {
        return Err("writable by the plugin (--dir), expected another directory".to_owned());
    }
    // From here on its path names this directory and no other.
    directory.expect_to_stay(cache).map_err(|error| error.to_string())?;
    Ok(())
}

impl Compiler {
    /// Compiles to a file, or returns the result if the file is `-`.
    async fn compile(&self, plugin: &Path, out: &Path) -> Result<Vec<u8>, LoadError> {
        match self {
            Self::Child { init, host } => compile_in_child(init, host, plugin, out).await,
            Self::InProcess => {
                let (plugin, out) = (plugin.to_owned(), out.to_owned());
                let path = plugin.clone();
                let compiled = tokio::task::spawn_blocking(move || {
                    if out == Path::new("-") {
                        compiled::build(&plugin)
                    } else {
                        compiled::compile(&plugin, &out).map(|()| Vec::new())
                    }
                });
                compiled.await.unwrap_or_else(|error| Err(LoadError::Compile { path, reason: error.to_string() }))
            }
        }
    }
}

async fn compile_in_child(init: &Init, host: &Path, plugin: &Path, out: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |reason| LoadError::Compile { path: plugin.to_owned(), reason };
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let out = if out == Path::new("-") { PathBuf::from("-") } else { absolute(out) };
    let launch = ProcessSpec {
        program: host.into(),
        arguments: vec!["compile".into(), absolute(plugin).into(), "-o".into(), out.into()],
        environment: [].into(),
        directory: None,
        input: false,
        output: StdioMode::Separate,
        keep_daemons: false,
        privileges: Privileges::default(),
    };
    let finished =
        init.run(launch, Vec::new(), COMPILE_TIMEOUT, MAX_COMPILED_BYTES).await.map_err(|e| failed(e.to_string()))?;
    match finished.exit {
        Exit::Code(0) => Ok(finished.stdout),
        Exit::Code(_) if !finished.stderr.is_empty() => {
            Err(failed(String::from_utf8_lossy(&finished.stderr).trim().to_owned()))
        }
        Exit::Code(code) => Err(failed(format!("compiler exited with code {code}"))),
        Exit::Signal(signal) => Err(failed(format!("compiler killed by signal {signal}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::Permissions,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    };

    use super::*;

    /// Smallest possible component.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    async fn load(plugin: &Path, cache: Option<&Path>) -> Result<Component, LoadError> {
        component(&Engine::new().unwrap(), plugin, cache, &Compiler::InProcess).await.map(|(component, _)| component)
    }

    fn entries(cache: &Path) -> Vec<PathBuf> {
        fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[tokio::test]
    async fn plugin_is_compiled_into_the_cache_once_and_again_when_the_copy_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let (plugin, cache) = (directory.path().join("p.wasm"), directory.path().join("deep/cache"));
        fs::write(&plugin, EMPTY).unwrap();
        load(&plugin, Some(&cache)).await.unwrap();
        assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
        let [cached_file] = &entries(&cache)[..] else { panic!("{:?}", entries(&cache)) };
        let first = fs::metadata(cached_file).unwrap();
        load(&plugin, Some(&cache)).await.unwrap();
        assert_eq!(fs::metadata(cached_file).unwrap().ino(), first.ino());
        fs::write(cached_file, b"\x7fELF, but not for long").unwrap();
        load(&plugin, Some(&cache)).await.unwrap();
        assert_eq!(fs::metadata(cached_file).unwrap().len(), first.len());
        assert_eq!(entries(&cache).len(), 1);
    }

    #[tokio::test]
    async fn cached_file_of_another_plugin_is_recompiled() {
        let directory = tempfile::tempdir().unwrap();
        let (plugin, cache) = (directory.path().join("p.wasm"), directory.path().join("cache"));
        fs::write(&plugin, EMPTY).unwrap();
        load(&plugin, Some(&cache)).await.unwrap();
        let [cached_file] = &entries(&cache)[..] else { panic!("{:?}", entries(&cache)) };
        // A custom section makes it another component.
        fs::write(&plugin, [EMPTY, b"\0\x02\x01x"].concat()).unwrap();
        let other = directory.path().join("other.cwasm");
        compiled::compile(&plugin, &other).unwrap();
        fs::copy(&other, cached_file).unwrap();
        fs::write(&plugin, EMPTY).unwrap();
        load(&plugin, Some(&cache)).await.unwrap();
        assert_ne!(fs::read(cached_file).unwrap(), fs::read(&other).unwrap());
    }

    #[tokio::test]
    async fn compilation_removes_files_of_other_versions_and_of_killed_compilers() {
        let directory = tempfile::tempdir().unwrap();
        let (plugin, cache) = (directory.path().join("p.wasm"), directory.path().join("cache"));
        fs::write(&plugin, EMPTY).unwrap();
        load(&plugin, Some(&cache)).await.unwrap();
        let [cached_file] = &entries(&cache)[..] else { panic!("{:?}", entries(&cache)) };
        let name = cached_file.file_name().unwrap().to_str().unwrap();
        let foreign = cache.join(name.replacen(|c: char| c.is_ascii_hexdigit(), "z", 1));
        for file in [cache.join(name.replace(VERSION, "ochopod-0.0.1-wasmtime-1.0.0")), foreign.clone()] {
            fs::write(file, "old").unwrap();
        }
        let (old, new) = (cache.join(".compile-old"), cache.join(".compile-new"));
        for directory in [&old, &new] {
            fs::create_dir(directory).unwrap();
        }
        let long_ago = std::time::SystemTime::now() - 2 * MAX_COMPILE_AGE;
        fs::File::open(&old).unwrap().set_modified(long_ago).unwrap();
        fs::remove_file(cached_file).unwrap();
        load(&plugin, Some(&cache)).await.unwrap();
        let mut left = entries(&cache);
        left.sort();
        let mut expected = vec![new, foreign, cached_file.clone()];
        expected.sort();
        assert_eq!(left, expected);
    }

    #[tokio::test]
    async fn cache_that_others_can_write_to_is_not_used_and_the_plugin_runs_from_memory() {
        let directory = tempfile::tempdir().unwrap();
        let (plugin, cache) = (directory.path().join("p.wasm"), directory.path().join("cache"));
        fs::write(&plugin, EMPTY).unwrap();
        fs::create_dir(&cache).unwrap();
        fs::set_permissions(&cache, Permissions::from_mode(0o770)).unwrap();
        load(&plugin, Some(&cache)).await.unwrap();
        assert_eq!(entries(&cache).len(), 0);
        load(&plugin, Some(&plugin)).await.unwrap();
        load(&plugin, None).await.unwrap();
    }

    #[tokio::test]
    async fn concurrent_compilations_of_one_plugin_leave_one_usable_file() {
        let directory = tempfile::tempdir().unwrap();
        let (plugin, cache) = (directory.path().join("p.wasm"), directory.path().join("cache"));
        fs::write(&plugin, EMPTY).unwrap();
        let hosts = (0..4).map(|_| load(&plugin, Some(&cache)));
        for result in futures_util::future::join_all(hosts).await {
            result.unwrap();
        }
        assert_eq!(entries(&cache).len(), 1);
        load(&plugin, Some(&cache)).await.unwrap();
    }

    #[tokio::test]
    async fn component_that_does_not_compile_is_rejected_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let plugin = directory.path().join("p.wasm");
        fs::write(&plugin, [EMPTY, b"\x7f\x01\x00"].concat()).unwrap();
        let error = load(&plugin, None).await.unwrap_err();
        assert!(matches!(&error, LoadError::Compile { reason, .. } if !reason.is_empty()), "{error}");
    }

    #[test]
    fn cache_that_a_guest_may_write_to_or_others_may_replace_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let shared = directory.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, Permissions::from_mode(0o777)).unwrap();
        assert!(prepare_directory(&shared.join("cache")).unwrap_err().contains("they may replace it"));
        std::os::unix::fs::symlink("/", shared.join("link")).unwrap();
        assert!(prepare_directory(&shared.join("link")).unwrap_err().contains("symbolic link"));
        let granted = directory.path().join("granted");
        fs::create_dir(&granted).unwrap();
        prepare_directory(&granted.join("cache")).unwrap();
        ochopod_files::declare_guest_directories([granted.as_path()]);
        assert!(prepare_directory(&granted.join("cache")).unwrap_err().contains("writable by the plugin"));
    }
}
