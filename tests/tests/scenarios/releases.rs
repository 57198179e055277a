//! Releases: what `make release` accepts, and what it writes. The builds are replaced, the rest is real.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, ensure};
use ochopod_tests::{Result, artifacts};

const MANIFEST: &str =
    "[workspace.package]\nversion = \"1.2.3\"\n\n[package]\nname = \"pod\"\nversion.workspace = true\n";

const FUZZ_MANIFEST: &str = "[workspace]\n[package]\nname = \"fuzz\"\n[dependencies]\npod = { path = \"../..\" }\n";

const CHANGELOG: &str = "# Changelog\n\n## Unreleased\n\n## 1.2.3 - 2026-01-02\n\n- First.\n- Second.\n";

const MAKEFILE: &str = "TARGET := target/$(ARCH)-unknown-linux-musl/release\n\
image:\n\
\tmkdir -p $(TARGET)\n\
\techo $(ARCH) | tee $(TARGET)/ochopod $(TARGET)/ochopod-pilot target/ochopod-image-$(ARCH).tar\n\
sbom:\n\
\tmkdir -p target/sbom\n\
\techo {} | tee target/sbom/ochopod-$(ARCH).cdx.json target/sbom/ochopod-pilot-$(ARCH).cdx.json\n\
plugins:\n\
\tmkdir -p target/plugins\n\
\techo wasm >target/plugins/hello.wasm\n";

const WIT: &str = "package ochopod:pod@0.1.0;\n";

/// A checkout in which version 1.2.3 can be released.
struct Checkout(tempfile::TempDir);

impl Checkout {
    fn new() -> Result<Self> {
        let checkout = Self(tempfile::tempdir()?);
        for (name, text) in [
            ("Cargo.toml", MANIFEST),
            ("src/lib.rs", ""),
            ("tests/fuzz/Cargo.toml", FUZZ_MANIFEST),
            ("tests/fuzz/src/lib.rs", ""),
            ("CHANGELOG.md", CHANGELOG),
            ("Makefile", MAKEFILE),
            ("wit/types.wit", WIT),
            ("wit/released/0.1.0/types.wit", WIT),
            (".gitignore", "/target\n"),
        ] {
            checkout.write(name, text)?;
        }
        checkout.run("cargo", &["generate-lockfile"])?;
        checkout.run("cargo", &["generate-lockfile", "--manifest-path", "tests/fuzz/Cargo.toml"])?;
        checkout.run("git", &["init", "-q"])?;
        checkout.run("git", &["config", "user.name", "test"])?;
        checkout.run("git", &["config", "user.email", "test@example.com"])?;
        checkout.commit()?;
        Ok(checkout)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) -> Result {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().context("no directory")?)?;
        Ok(fs::write(path, text)?)
    }

    fn replace(&self, name: &str, text: &str, other: &str) -> Result {
        let found = fs::read_to_string(self.path().join(name))?;
        self.write(name, &found.replace(text, other))
    }

    fn commit(&self) -> Result {
        self.run("git", &["add", "--all"])?;
        self.run("git", &["commit", "-q", "--no-gpg-sign", "-m", "release: 1.2.3"]).map(drop)
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path());
        for variable in ["CARGO_TARGET_DIR", "MAKEFLAGS", "MFLAGS", "ARCHITECTURES", "FILES"] {
            command.env_remove(variable);
        }
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program).args(arguments).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {arguments:?} failed: {error}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs the script. Returns its errors if it fails.
    fn release(&self) -> Result<std::result::Result<(), String>> {
        let output = self.command(artifacts::script("release.sh")).arg("target").output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(if output.status.success() { Ok(()) } else { Err(error) })
    }

    fn artifact(&self, name: &str) -> Result<Vec<u8>> {
        fs::read(self.path().join("target/release-1.2.3").join(name)).with_context(|| name.to_owned())
    }
}

#[test]
fn release_writes_artifacts_with_checksums_and_the_whole_section_of_the_changelog() -> Result {
    let checkout = Checkout::new()?;
    checkout.write("target/plugins/removed.wasm", "of an earlier build")?;
    checkout.release()?.map_err(anyhow::Error::msg)?;

    let changes = String::from_utf8(checkout.artifact("CHANGES.md")?)?;
    ensure!(changes == "## 1.2.3 - 2026-01-02\n\n- First.\n- Second.\n", "{changes}");
    let sums = checkout.run("bash", &["-c", "cd target/release-1.2.3 && sha256sum -c SHA256SUMS"])?;
    let mut expected = vec!["plugins-1.2.3.tar.gz".to_owned(), "wit-1.2.3.tar.gz".to_owned()];
    for machine in ["x86_64", "aarch64"] {
        expected.push(format!("ochopod-image-1.2.3-{machine}.tar.gz"));
        for binary in ["ochopod", "ochopod-pilot"] {
            expected.push(format!("{binary}-1.2.3-linux-{machine}"));
            expected.push(format!("{binary}-1.2.3-linux-{machine}.cdx.json"));
        }
    }
    for name in &expected {
        ensure!(sums.contains(&format!("{name}: OK")), "{name} has no checksum: {sums}");
    }
    ensure!(sums.lines().count() == expected.len(), "{sums}");
    let plugins = checkout.run("tar", &["-tzf", "target/release-1.2.3/plugins-1.2.3.tar.gz"])?;
    ensure!(plugins == "plugins/\nplugins/hello.wasm\n", "{plugins}");
    ensure!(checkout.run("git", &["cat-file", "-t", "v1.2.3"])? == "tag\n", "no annotated tag");

    // The same commit results in the same archives. A section that is not the last ends before the next.
    checkout.run("git", &["tag", "-d", "v1.2.3"])?;
    checkout.release()?.map_err(anyhow::Error::msg)?;
    ensure!(
        checkout.run("bash", &["-c", "cd target/release-1.2.3 && sha256sum -c SHA256SUMS"])? == sums,
        "other files"
    );
    checkout.replace("CHANGELOG.md", "- Second.\n", "- Second.\n\n## 1.2.2 - 2026-01-01\n\n- Older.\n")?;
    checkout.commit()?;
    checkout.run("git", &["tag", "-d", "v1.2.3"])?;
    checkout.release()?.map_err(anyhow::Error::msg)?;
    ensure!(String::from_utf8(checkout.artifact("CHANGES.md")?)?.trim_end() == changes.trim_end(), "another section");
    Ok(())
}

#[test]
fn release_of_an_unprepared_checkout_is_refused_without_a_tag() -> Result {
    type Change = fn(&Checkout) -> Result;
    let changes: [(&str, Change); 8] = [
        ("invalid version \"1.2\"", |checkout| checkout.replace("Cargo.toml", "1.2.3", "1.2")),
        ("has no section \"## 1.2.3 - ", |checkout| checkout.replace("CHANGELOG.md", "1.2.3 - ", "1.2.2 - ")),
        ("the lock file of Cargo.toml is outdated", |checkout| checkout.replace("Cargo.lock", "1.2.3", "1.2.2")),
        ("the lock file of tests/fuzz/Cargo.toml is outdated", |checkout| {
            checkout.replace("tests/fuzz/Cargo.lock", "1.2.3", "1.2.2")
        }),
        ("checking the lock file of tests/fuzz/Cargo.toml failed: error: failed to load manifest", |checkout| {
            checkout.replace("tests/fuzz/Cargo.toml", "../..", "../missing")
        }),
        ("wit/types.wit differs from wit/released/0.1.0", |checkout| {
            checkout.write("wit/types.wit", &format!("{WIT}interface log {{}}\n"))
        }),
        ("wit/types.wit differs from wit/released/0.1.1", |checkout| {
            checkout.replace("wit/types.wit", "0.1.0", "0.1.1")
        }),
        ("the tag v1.2.3 exists", |checkout| checkout.run("git", &["tag", "v1.2.3"]).map(drop)),
    ];
    for (expected, change) in changes {
        let checkout = Checkout::new()?;
        change(&checkout)?;
        if !checkout.run("git", &["status", "--porcelain"])?.is_empty() {
            let error = checkout.release()?.err().context("an uncommitted change was released")?;
            ensure!(error.contains("uncommitted changes") || error.contains(expected), "{error}");
            checkout.commit()?;
        }
        let tags = checkout.run("git", &["tag"])?;
        let error = checkout.release()?.err().with_context(|| format!("released, expected {expected}"))?;
        ensure!(error.contains(expected), "{error}, expected {expected}");
        ensure!(checkout.run("git", &["tag"])? == tags, "{expected}: a tag was created");
        ensure!(!checkout.path().join("target/release-1.2.3").exists(), "{expected}: artifacts were written");
    }
    Ok(())
}
