//! Container images, as `make image` writes them, and their roots.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{Result, artifacts};

/// An image that was written and unpacked.
#[derive(Debug)]
pub struct Image {
    /// Its archive.
    pub archive: PathBuf,
    /// Its only manifest.
    pub manifest: Value,
    /// Its configuration: user, entry point and environment of containers.
    pub config: Value,
    /// Its unpacked layers.
    pub root: PathBuf,
}

impl Image {
    /// Writes an image of the debug binary and these files (`SOURCE:/TARGET`), and unpacks it. The libraries of the
    /// binary and of each program among the files are added: unlike the release build, the debug build is not static.
    ///
    /// # Errors
    /// If the image is not written, or a part of it does not have the digest by which it is referenced.
    pub fn build(directory: &Path, files: &[String]) -> Result<Self> {
        let binary = artifacts::ochopod()?;
        let sources = files.iter().filter_map(|file| Some(Path::new(file.split_once(':')?.0)));
        let mut libraries: Vec<String> =
            sources.chain([binary.as_path()]).flat_map(libraries).map(|path| format!("{path}:{path}")).collect();
        libraries.sort();
        libraries.dedup();
        let archive = directory.join("image.tar");
        let machine = std::env::consts::ARCH;
        let mut command = Command::new(artifacts::script("image.sh"));
        command.args(["ochopod:test", machine]).args([&archive, &binary]).args(files).args(&libraries);
        run(&mut command)?;
        Self::unpack(archive, &directory.join("layout"), directory.join("root"))
    }

    fn unpack(archive: PathBuf, layout: &Path, root: PathBuf) -> Result<Self> {
        extract(&archive, layout)?;
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
        let manifest: Value = serde_json::from_slice(&fs::read(blob(layout, &index["manifests"][0])?)?)?;
        let config: Value = serde_json::from_slice(&fs::read(blob(layout, &manifest["config"])?)?)?;
        for layer in manifest["layers"].as_array().context("no layers")? {
            extract(&blob(layout, layer)?, &root)?;
        }
        fs::remove_dir_all(layout.join("blobs"))?;
        Ok(Self { archive, manifest, config, root })
    }
}

/// Returns the file of a descriptor, once its size and digest are those of the descriptor.
fn blob(layout: &Path, descriptor: &Value) -> Result<PathBuf> {
    let digest =
        descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).context("no digest")?;
    let path = layout.join("blobs/sha256").join(digest);
    ensure!(descriptor["size"] == fs::metadata(&path)?.len(), "{descriptor}: another size");
    let sum = run(Command::new("sha256sum").arg(&path))?;
    ensure!(sum.starts_with(digest), "{descriptor}: another digest, {sum}");
    Ok(path)
}

fn extract(archive: &Path, directory: &Path) -> Result {
    fs::create_dir_all(directory)?;
    run(Command::new("tar").arg("-xpf").arg(archive).arg("-C").arg(directory)).map(drop)
}

/// Returns the shared libraries of a program, its loader included; none if it is static or not a program.
fn libraries(program: &Path) -> Vec<String> {
    let listed = run(Command::new("ldd").arg(program)).unwrap_or_default();
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

/// Runs a program and returns its standard output.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {error}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
