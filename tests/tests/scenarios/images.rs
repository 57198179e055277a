//! Container images: what `make image` writes runs as PID 1 of a read-only root without a shell, as a user without
//! rights.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::{Context, ensure};
use ochopod_tests::{Image, PodBuilder, Result, TestEnv, artifacts, namespaces};

/// Returns a file of an image.
fn file(source: &Path, target: &str) -> String {
    format!("{}:{target}", source.display())
}

/// Returns a pod in a container of the image, with these mounts.
fn container(env: &TestEnv, image: &Image, plugin: &str, mounts: &[&str]) -> Result<PodBuilder> {
    let text = |name: &str| image.config["config"][name].as_str().context("no text");
    let entry = image.config["config"]["Entrypoint"][0].as_str().context("no entry point")?;
    let pod = env.pod(Path::new(plugin)).binary(Path::new(entry)).unset("cache");
    Ok(pod.within(namespaces::container(&image.root, text("User")?, mounts)))
}

#[tokio::test]
async fn image_runs_as_pid_1_of_a_read_only_root_without_shell_users_and_names() -> Result {
    let env = TestEnv::new().await?;
    let files = [
        file(&artifacts::plugin("hello")?, "/hello.wasm"),
        file(&artifacts::plugin("shell")?, "/shell.wasm"),
        file(Path::new("/bin/sleep"), "/bin/sleep"),
    ];
    let image = Image::build(env.scratch(), &files)?;
    describes_itself(&image)?;
    for absent in ["bin/sh", "etc/passwd", "etc/resolv.conf", "usr"] {
        ensure!(!image.root.join(absent).exists(), "the image has {absent}");
    }

    let mut pod = container(&env, &image, "/hello.wasm", &[])?.start()?;
    let info = pod.wait_info("process", "running").await?;
    let log = pod.log()?;
    ensure!(log.contains("log file disabled reason=/var/log/ochopod.log: Read-only file system"), "not PID 1: {log}");
    ensure!(log.contains("cache directory not used") && log.contains("Read-only file system"), "{log}");
    let status = fs::read_to_string(format!("/proc/{}/status", pod.pid()))?;
    ensure!(status.contains("Uid:\t65532\t65532"), "another user: {status}");
    pod.client().post("/control/off").await?.json(200)?;
    pod.client().post("/control/on").await?.json(200)?;
    ensure!(pod.client().info().await?["pid"] != info["pid"], "the sub-process was not started again");
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
    pod.assert_clean().await?;

    // A plugin that requires a shell, and a volume for the cache.
    let cache = "-t tmpfs -o uid=65532,mode=700 cache var/cache/ochopod";
    let mut pod = container(&env, &image, "/shell.wasm", &[cache])?.start()?;
    pod.wait_info("process", "dead").await?;
    let log = pod.wait_log("cannot execute /bin/sh: No such file or directory").await?;
    ensure!(!log.contains("cache directory not used"), "{log}");
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
    pod.assert_clean().await?;

    // Standard input is a device without end, also where `/dev/stdin` does not name it.
    let up = PodBuilder::of(["up", "/hello.wasm", "--pods", "1"], &env.scratch().join("up"));
    let up = up.binary(Path::new("/ochopod")).within(namespaces::container(&image.root, "65532:65532", &[]));
    let mut up = up.set("port", env.port()).reached_at("127.0.0.2", env.port()).start()?;
    up.wait_info("process", "running").await?;
    up.term()?;
    ensure!(up.exit_code().await? == 0, "it did not exit with code 0");
    up.assert_clean().await
}

/// Checks what a container runtime reads.
fn describes_itself(image: &Image) -> Result {
    let (manifest, config) = (&image.manifest, &image.config);
    let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    ensure!(config["os"] == "linux" && config["architecture"] == architecture, "{config}");
    ensure!(config["config"]["User"] == "65532:65532" && config["config"]["StopSignal"] == "SIGTERM", "{config}");
    // The layer is not compressed: its digest is that of its content.
    ensure!(config["rootfs"]["diff_ids"][0] == manifest["layers"][0]["digest"], "{config}, {manifest}");
    let metadata = |name: &str| fs::metadata(image.root.join(name));
    let (binary, cache) = (metadata("ochopod")?, metadata("var/cache/ochopod")?);
    ensure!(binary.permissions().mode() & 0o7777 == 0o755 && binary.uid() == 0, "{binary:?}");
    ensure!(cache.permissions().mode() & 0o7777 == 0o700 && cache.uid() == 65532, "{cache:?}");
    ensure!(metadata("tmp")?.permissions().mode() & 0o7777 == 0o1777, "users cannot write to /tmp");
    Ok(())
}

#[test]
fn same_files_give_the_same_image_and_fewer_files_another() -> Result {
    let scratch = tempfile::tempdir()?;
    let write = |name: &str, program: &str, files: &[String]| {
        let path = scratch.path().join(name);
        Image::write(&path, Path::new(program), files)?;
        Ok::<_, anyhow::Error>(fs::read(path)?)
    };
    let copy = file(Path::new("/bin/sleep"), "/bin/sleep");
    let first = write("first", "/bin/sleep", std::slice::from_ref(&copy))?;
    ensure!(write("second", "/bin/sleep", &[copy])? == first, "another image");
    ensure!(write("third", "/bin/sleep", &[])? != first, "the same image without a file");
    Ok(())
}

#[test]
fn image_of_a_program_that_lacks_its_loader_is_refused() -> Result {
    let scratch = tempfile::tempdir()?;
    let output = scratch.path().join("image.tar");
    let path = output.display().to_string();
    for (words, expected) in [
        (&["ochopod:1", "x86_64", &path, "/bin/sleep"][..], "/bin/sleep is not static: it needs /lib"),
        (&["ochopod:1", "mips", &path, "/bin/sleep"], "unknown architecture \"mips\""),
        (&["ochopod", "x86_64", &path, "/bin/sleep"], "invalid name \"ochopod\""),
        (&["ochopod:1", "x86_64", &path, "/bin/sleep", "/bin/sleep"], "expected SOURCE:/TARGET"),
        (&["ochopod:1", "x86_64", &path, "/bin/sleep", "/none:/none"], "no such file: /none"),
        (&["ochopod:1", "x86_64", &path], "usage: image.sh"),
    ] {
        let found = Image::script().args(words).output()?;
        let error = String::from_utf8_lossy(&found.stderr).into_owned();
        ensure!(!found.status.success() && error.contains(expected), "{words:?}: {error}");
        ensure!(!output.exists(), "{words:?}: an image was written");
    }
    Ok(())
}
