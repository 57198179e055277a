//! From a plugin file to mapped code: compiled once, by a child process, and kept in a cache directory.

use std::{
    fmt::Write as _,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use wasmtime::component::Component;

use super::{
    Engine, LoadError,
    artefact::{self, Artefact, Digest, VERSION},
    source::Source,
};
use crate::init::{Exit, Init, Launch, Output, Privileges};

/// A compilation takes seconds; on a starved machine, minutes.
const COMPILATION: Duration = Duration::from_mins(10);
/// Most bytes that the compiler may return.
const COMPILED: usize = 1 << 30;

/// How the directories of compilations that are under way are named.
const UNFINISHED: &str = ".compile-";
/// A compilation that began so long ago is not under way any more.
const ABANDONED: Duration = Duration::from_hours(1);

/// Who compiles.
#[derive(Debug, Clone)]
pub enum Compiler {
    /// A child process: what compilation costs in memory goes with it.
    Child {
        /// Who starts it.
        init: Init,
        /// This very program, whose `compile` it runs.
        host: PathBuf,
    },
    /// This process, which is about to end.
    Here,
}

/// The code of a plugin file.
pub(super) async fn component(
    engine: &Arc<Engine>,
    plugin: &Path,
    cache: Option<&Path>,
    compiler: &Compiler,
) -> Result<Component, LoadError> {
    let digest = match Source::read(plugin)? {
        Source::Artefact(artefact) => return map(engine, plugin, &artefact),
        Source::Component { digest } => digest,
    };
    if let Some(cache) = cache {
        match cached(engine, plugin, &digest, cache, compiler).await? {
            Ok(component) => return Ok(component),
            Err(reason) => {
                tracing::warn!("the cache directory {} is not used: {reason}", cache.display());
            }
        }
    }
    let sealed = compiler.compile(plugin, Path::new("-")).await?;
    let artefact =
        Artefact::anonymous(&sealed).map_err(|source| LoadError::Artefact { path: plugin.into(), source })?;
    if artefact.source != digest {
        return Err(LoadError::Changed { path: plugin.into() });
    }
    map(engine, plugin, &artefact)
}

fn map(engine: &Engine, plugin: &Path, artefact: &Artefact) -> Result<Component, LoadError> {
    artefact.map(engine.wasm()).map_err(|source| LoadError::Artefact { path: plugin.to_owned(), source })
}

/// The code as it is in the cache, compiled into it if need be; or why the cache cannot be used.
///
/// Hosts that compile the same plugin at once each write a file of their own and rename it: the last one stays, and they
/// are alike.
async fn cached(
    engine: &Engine,
    plugin: &Path,
    digest: &Digest,
    cache: &Path,
    compiler: &Compiler,
) -> Result<Result<Component, String>, LoadError> {
    if let Err(reason) = prepare(cache) {
        return Ok(Err(reason));
    }
    let kept = cache.join(kept_as(digest));
    match Artefact::open(&kept).and_then(|artefact| Ok((artefact.map(engine.wasm())?, artefact.source))) {
        Ok((component, source)) if source == *digest => return Ok(Ok(component)),
        Ok(_) => tracing::warn!("{} is compiled anew: it was made of another plugin", kept.display()),
        Err(super::ArtefactError::Read(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!("{} is compiled anew: {error}", kept.display()),
    }
    let fresh = match tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(cache) {
        Ok(directory) => directory,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let out = fresh.path().join("plugin.cwasm");
    if let Err(error) = compiler.compile(plugin, &out).await {
        // The disk may be full as well: whether it is the plugin's fault shows when it is compiled to memory.
        return Ok(Err(error.to_string()));
    }
    let artefact = match Artefact::open(&out) {
        Ok(artefact) if artefact.source == *digest => artefact,
        Ok(_) => return Err(LoadError::Changed { path: plugin.to_owned() }),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let component = match artefact.map(engine.wasm()) {
        Ok(component) => component,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if let Err(error) = fs::rename(&out, &kept) {
        tracing::warn!("cannot keep the compiled plugin as {}: {error}", kept.display());
    }
    if let Err(error) = sweep(cache, digest) {
        tracing::warn!("cannot remove what is left over in {}: {error}", cache.display());
    }
    Ok(Ok(component))
}

/// Removes what other versions of this host made of the same plugin, and what compilers that were killed left behind.
fn sweep(cache: &Path, digest: &Digest) -> io::Result<()> {
    let (present, plugin) = (kept_as(digest), hexadecimal(digest));
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        if name.starts_with(&plugin) && name != present {
            fs::remove_file(path)?;
        } else if name.starts_with(UNFINISHED) {
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age > ABANDONED {
                fs::remove_dir_all(path)?;
            }
        }
    }
    Ok(())
}

/// The name of a plugin in the cache.
fn kept_as(digest: &Digest) -> String {
    hexadecimal(digest) + "-" + VERSION + ".cwasm"
}

fn hexadecimal(digest: &Digest) -> String {
    let mut text = String::new();
    for byte in digest {
        // Writing to a string cannot fail.
        _ = write!(text, "{byte:02x}");
    }
    text
}

/// Makes the cache directory unless it is there, and checks that nobody else can put native code in it.
fn prepare(cache: &Path) -> Result<(), String> {
    if let Some(parent) = cache.parent() {
        fs::create_dir_all(parent).map_err(|error| format!("cannot make {}: {error}", parent.display()))?;
    }
    match DirBuilder::new().mode(0o700).create(cache) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(format!("cannot make it: {error}")),
        _ => {}
    }
    let metadata = fs::metadata(cache).map_err(|error| error.to_string())?;
    let user = nix::unistd::geteuid().as_raw();
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_dir() {
        return Err("it is not a directory".to_owned());
    }
    if metadata.uid() != user {
        return Err(format!("it belongs to user {}, expected {user}", metadata.uid()));
    }
    if mode & 0o077 != 0 {
        return Err(format!("its mode is {mode:04o}, expected 0700"));
    }
    Ok(())
}

impl Compiler {
    /// Compiles to a file, or returns the result when that is `-`.
    async fn compile(&self, plugin: &Path, out: &Path) -> Result<Vec<u8>, LoadError> {
        match self {
            Self::Child { init, host } => compile_in_child(init, host, plugin, out).await,
            Self::Here => {
                let (plugin, out) = (plugin.to_owned(), out.to_owned());
                let path = plugin.clone();
                let compiled = tokio::task::spawn_blocking(move || {
                    if out == Path::new("-") {
                        artefact::build(&plugin)
                    } else {
                        artefact::compile(&plugin, &out).map(|()| Vec::new())
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
    let launch = Launch {
        program: host.into(),
        arguments: vec!["compile".into(), absolute(plugin).into(), "-o".into(), out.into()],
        environment: [].into(),
        directory: None,
        input: false,
        output: Output::Separate,
        daemons: false,
        privileges: Privileges::default(),
    };
    let finished = init.run(launch, Vec::new(), COMPILATION, COMPILED).await.map_err(|e| failed(e.to_string()))?;
    match finished.exit {
        Exit::Code(0) => Ok(finished.stdout),
        Exit::Code(_) if !finished.stderr.is_empty() => {
            Err(failed(String::from_utf8_lossy(&finished.stderr).trim().to_owned()))
        }
        Exit::Code(code) => Err(failed(format!("the compiler ended with code {code}"))),
        Exit::Signal(signal) => Err(failed(format!("the compiler was ended by signal {signal}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    /// The smallest component there is.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    async fn load(plugin: &Path, cache: Option<&Path>) -> Result<Component, LoadError> {
        component(&Engine::new().unwrap(), plugin, cache, &Compiler::Here).await
    }

    fn entries(cache: &Path) -> Vec<PathBuf> {
        fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[tokio::test]
    async fn a_plugin_is_compiled_into_the_cache_once_and_anew_when_the_copy_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let (plugin, cache) = (directory.path().join("p.wasm"), directory.path().join("deep/cache"));
        fs::write(&plugin, EMPTY).unwrap();
        load(&plugin, Some(&cache)).await.unwrap();
        assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
        let [kept] = &entries(&cache)[..] else { panic!("{:?}", entries(&cache)) };
        let first = fs::metadata(kept).unwrap();
        load(&plugin, Some(&cache)).await.unwrap();
        assert_eq!(fs::metadata(kept).unwrap().ino(), first.ino());
        fs::write(kept, b"\x7fELF, but not for long").unwrap();
        load(&plugin, Some(&cache)).await.unwrap();
        assert_eq!(fs::metadata(kept).unwrap().len(), first.len());
        assert_eq!(entries(&cache).len(), 1);
    }

    #[tokio::test]
    async fn what_another_plugin_was_compiled_to_is_not_taken_for_this_one() {
        let directory = tempfile::tempdir().unwrap();
        let (plugin, cache) = (directory.path().join("p.wasm"), directory.path().join("cache"));
        fs::write(&plugin, EMPTY).unwrap();
        load(&plugin, Some(&cache)).await.unwrap();
        let [kept] = &entries(&cache)[..] else { panic!("{:?}", entries(&cache)) };
        // A custom section makes it another component.
        fs::write(&plugin, [EMPTY, b"\0\x02\x01x"].concat()).unwrap();
        let other = directory.path().join("other.cwasm");
        artefact::compile(&plugin, &other).unwrap();
        fs::copy(&other, kept).unwrap();
        fs::write(&plugin, EMPTY).unwrap();
        load(&plugin, Some(&cache)).await.unwrap();
        assert_ne!(fs::read(kept).unwrap(), fs::read(&other).unwrap());
    }

    #[tokio::test]
    async fn a_compilation_removes_what_is_left_over_of_other_versions_and_of_killed_compilers() {
        let directory = tempfile::tempdir().unwrap();
        let (plugin, cache) = (directory.path().join("p.wasm"), directory.path().join("cache"));
        fs::write(&plugin, EMPTY).unwrap();
        load(&plugin, Some(&cache)).await.unwrap();
        let [kept] = &entries(&cache)[..] else { panic!("{:?}", entries(&cache)) };
        let name = kept.file_name().unwrap().to_str().unwrap();
        let foreign = cache.join(name.replacen(|c: char| c.is_ascii_hexdigit(), "z", 1));
        for file in [cache.join(name.replace(VERSION, "ochopod-0.0.1-wasmtime-1.0.0")), foreign.clone()] {
            fs::write(file, "old").unwrap();
        }
        let (old, new) = (cache.join(".compile-old"), cache.join(".compile-new"));
        for directory in [&old, &new] {
            fs::create_dir(directory).unwrap();
        }
        let long_ago = std::time::SystemTime::now() - 2 * ABANDONED;
        fs::File::open(&old).unwrap().set_modified(long_ago).unwrap();
        fs::remove_file(kept).unwrap();
        load(&plugin, Some(&cache)).await.unwrap();
        let mut left = entries(&cache);
        left.sort();
        let mut expected = vec![new, foreign, kept.clone()];
        expected.sort();
        assert_eq!(left, expected);
    }

    #[tokio::test]
    async fn a_cache_that_others_can_write_to_is_left_alone_and_the_plugin_runs_from_memory() {
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
    async fn hosts_that_compile_the_same_plugin_at_once_leave_one_good_copy() {
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
    async fn a_component_that_does_not_compile_is_refused_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let plugin = directory.path().join("p.wasm");
        fs::write(&plugin, [EMPTY, b"\x7f\x01\x00"].concat()).unwrap();
        let error = load(&plugin, None).await.unwrap_err();
        assert!(matches!(&error, LoadError::Compile { reason, .. } if !reason.is_empty()), "{error}");
    }
}
