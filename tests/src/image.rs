//! Container images, as `make image` writes them, and their roots.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::{Result, artifacts};

/// Name and tag of the images.
const NAME: &str = "ochopod:test";

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
        let archive = directory.join("image.tar");
        Self::write(&archive, &artifacts::ochopod()?, files)?;
        Self::unpack(archive, &directory.join("layout"), directory.join("root"))
    }

    /// Writes an image of a program, these files, and the libraries of all of them.
    ///
    /// # Errors
    /// If the image is not written.
    pub fn write(archive: &Path, program: &Path, files: &[String]) -> Result {
        let sources = files.iter().filter_map(|file| Some(Path::new(file.split_once(':')?.0)));
        let mut libraries: Vec<String> =
            sources.chain([program]).flat_map(libraries).map(|path| format!("{path}:{path}")).collect();
        libraries.sort();
        libraries.dedup();
        let mut script = Self::script();
        script.args([NAME, std::env::consts::ARCH]).args([archive, program]).args(files).args(&libraries);
        run(&mut script).map(drop)
    }

    /// Returns the script that writes images, without arguments.
    #[must_use]
    pub fn script() -> Command {
        Command::new(artifacts::script("image.sh"))
    }

    fn unpack(archive: PathBuf, layout: &Path, root: PathBuf) -> Result<Self> {
        extract(&archive, layout)?;
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
        let manifest: Value = serde_json::from_slice(&fs::read(blob(layout, &index["manifests"][0])?)?)?;
        let config: Value = serde_json::from_slice(&fs::read(blob(layout, &manifest["config"])?)?)?;
        for_docker(layout, &manifest)?;
        for layer in manifest["layers"].as_array().context("no layers")? {
            extract(&blob(layout, layer)?, &root)?;
        }
        fs::remove_dir_all(layout.join("blobs"))?;
        Ok(Self { archive, manifest, config, root })
    }
}

/// Checks the file that `docker load` reads: it names the same image and the same parts.
fn for_docker(layout: &Path, manifest: &Value) -> Result {
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        format!("blobs/{}", digest.replace(':', "/"))
    };
    let layers: Vec<String> = manifest["layers"].as_array().into_iter().flatten().map(blob).collect();
    let expected = json!([{"Config": blob(&manifest["config"]), "RepoTags": [NAME], "Layers": layers}]);
    let found: Value = serde_json::from_slice(&fs::read(layout.join("manifest.json"))?)?;
    ensure!(found == expected, "{found}, expected {expected}");
    Ok(())
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
