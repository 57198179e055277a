//! Guarantee 6 in restricted environments: without root, a writable root, descriptors, processes or a reader of the
//! log.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::{
    sys::{signal::Signal, stat::Mode},
    unistd::{self, geteuid},
};
use ochopod_tests::{
    DEFAULT_TIMEOUT, Pod, PodBuilder, Process, Result, TestEnv, artifacts, consistently, eventually, namespaces,
};

use crate::{SLEEP, pod};

/// A user without other processes on the machine.
const UNUSED_UID: &str = "64123";

/// Checks that a pod works: it is configured, its sub-process is stopped and started, and it leaves nothing behind.
async fn works(mut pod: Pod) -> Result {
    pod.wait_info("process", "running").await?;
    pod.client().post("/control/off").await?.json(200)?;
    pod.client().post("/control/on").await?.json(200)?;
    pod.client().post("/log").await?.json(200)?;
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
    pod.assert_clean().await
}

/// Returns a pod of a user without any rights and without other processes. Host, plugin and directory are accessible to
/// that user.
fn without_rights(env: &TestEnv) -> Result<PodBuilder> {
    ensure!(geteuid().is_root(), "this test has to be root: it becomes another user");
    let (binary, guest) = (env.scratch().join("ochopod"), env.scratch().join("misbehaving.wasm"));
    fs::copy(artifacts::ochopod()?, &binary)?;
    fs::copy(artifacts::misbehaving()?, &guest)?;
    let pod =
        env.pod(&guest).binary(&binary).set("cache", "/nowhere/to/be/made").set("set_grace", "5").count_starts(SLEEP);
    let directory = env.scratch().join("127.0.0.2");
    fs::create_dir(&directory)?;
    for directory in [env.scratch(), &directory] {
        fs::set_permissions(directory, Permissions::from_mode(0o777))?;
    }
    let user = ["setpriv", "--reuid", UNUSED_UID, "--regid", UNUSED_UID, "--clear-groups", "--bounding-set=-all"];
    Ok(pod.within(user).within(["--inh-caps=-all", "--pdeathsig", "KILL", "--"]))
}

#[tokio::test]
async fn guarantee_6_without_root_and_capabilities() -> Result {
    let env = TestEnv::new().await?;
    works(without_rights(&env)?.start()?).await
}

#[tokio::test]
async fn guarantee_6_on_a_read_only_root_there_is_a_warning_and_no_more() -> Result {
    let env = TestEnv::new().await?;
    let cache = env.scratch().join("cache");
    let pod = pod(&env).within(namespaces::read_only()).command(SLEEP).set("cache", cache.display()).start()?;
    let log = pod.wait_log("starting pod").await?;
    ensure!(log.contains("log file disabled") && log.contains("/var/log/ochopod.log"), "no warning of the log file");
    ensure!(log.contains("cache directory not used"), "no warning of the cache");
    works(pod).await
}

#[tokio::test]
async fn a_missing_proc_is_reported_by_each_command() -> Result {
    let scratch = tempfile::tempdir()?;
    let guest = artifacts::misbehaving()?.display().to_string();
    for words in
        [&["run", &guest][..], &["up", &guest, "--pods", "1"], &["check", &guest], &["compile", &guest, "-o", "-"]]
    {
        let mut host = host(scratch.path(), words, namespaces::without_proc())?;
        let code = host.exit_code().await?;
        ensure!(code == 70, "{words:?}: it ended with {code}");
        ensure!(host.console()?.contains("/proc is not mounted; mount it"), "{words:?}: {}", host.console()?);
    }
    Ok(())
}

/// Returns a running host with these arguments.
fn host(directory: &Path, words: &[&str], within: Vec<String>) -> Result<Pod> {
    PodBuilder::of(words, directory).within(within).set("local", "true").start()
}

#[tokio::test]
async fn a_missing_null_device_is_reported() -> Result {
    let scratch = tempfile::tempdir()?;
    let guest = artifacts::misbehaving()?.display().to_string();
    for words in [&["run", &guest][..], &["up", &guest, "--pods", "1"]] {
        let mut host = host(scratch.path(), words, namespaces::without_dev())?;
        let code = host.exit_code().await?;
        let console = host.console()?;
        ensure!(code == 70 && console.contains("mount /dev in the container"), "{words:?}: {code}, {console}");
        ensure!(console.contains("/dev/null") && console.contains("No such file"), "{words:?}: {console}");
    }
    Ok(())
}

#[tokio::test]
async fn guarantee_6_without_standard_input_output_and_error() -> Result {
    let env = TestEnv::new().await?;
    works(pod(&env).within(namespaces::shell("exec \"$@\" <&- >&- 2>&-")).start()?).await
}

#[tokio::test]
async fn guarantee_6_with_few_descriptors() -> Result {
    let env = TestEnv::new().await?;
    works(pod(&env).within(["prlimit", "--nofile=64:64", "--"]).start()?).await
}

/// Limits the number of processes of the user of this pod, as that user.
async fn limit_processes(pod: &Pod, limit: u32) -> Result {
    let mut command = Process::command("setpriv");
    command.args(["--reuid", UNUSED_UID, "--regid", UNUSED_UID, "--clear-groups", "prlimit"]);
    command.args(["--pid", &pod.pid().to_string(), &format!("--nproc={limit}:")]);
    let status = Process::spawn("prlimit", command)?.wait(DEFAULT_TIMEOUT).await?;
    ensure!(status.success(), "the limit cannot be set: {status}");
    Ok(())
}

#[tokio::test]
async fn guarantee_6_where_no_process_can_be_made_the_restart_is_tried_again() -> Result {
    let env = TestEnv::new().await?;
    // With the default of one allowed failure, and checks that are due while no process can be created.
    let mut pod = without_rights(&env)?.set("set_check_every", "1").start()?;
    let first = pod.started(1).await?;
    limit_processes(&pod, 1).await?;
    nix::sys::signal::kill(unistd::Pid::from_raw(first), Signal::SIGKILL)?;
    let log = pod.wait_log("sub-process not started for lack of resources, retrying").await?;
    ensure!(log.contains("cannot create process"), "the step is not reported");
    ensure!(log.contains("Resource temporarily unavailable (EAGAIN)"), "the reason is not reported");
    consistently("it is not turned off", Duration::from_secs(3), async || {
        ensure!(pod.count_log("sanity check failed")? == 0, "a check failed");
        pod.client().info().await.map(drop)
    })
    .await?;
    limit_processes(&pod, 1000).await?;
    pod.started(2).await?;
    let page = String::from_utf8_lossy(&pod.client().get("/metrics").await?.body).into_owned();
    ensure!(page.contains("ochopod_process_unexpected_ends_total 1\n"), "{page}");
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not exit with code 0");
    pod.assert_clean().await
}

#[tokio::test]
async fn guarantee_6_where_no_process_can_be_made_an_on_is_answered_503_and_the_pod_lives() -> Result {
    let env = TestEnv::new().await?;
    let pod = without_rights(&env)?.start()?;
    pod.started(1).await?;
    pod.client().post("/control/off").await?.json(200)?;
    limit_processes(&pod, 1).await?;
    let reply = pod.client().post("/control/on/5").await?;
    let error = reply.error(503)?;
    ensure!(error.contains("(EAGAIN)") && error.contains("try again later"), "unexpected output {error:?}");
    ensure!(pod.client().info().await?["process"] == "stopped", "it is not stopped");
    let on = async { pod.client().post("/control/on/20").await?.json(200) };
    let relief = async {
        eventually("the attempts start again", DEFAULT_TIMEOUT, async || {
            ensure!(pod.count_log("lack of resources, retrying")? >= 2, "not yet");
            Ok(())
        })
        .await?;
        limit_processes(&pod, 1000).await
    };
    tokio::try_join!(on, relief)?;
    pod.started(2).await.map(drop)
}

/// Creates a pipe that stays full: it is open, and never read.
fn unread(path: &Path) -> Result<File> {
    unistd::mkfifo(path, Mode::S_IRWXU)?;
    OpenOptions::new().read(true).write(true).open(path).context("cannot open the pipe")
}

#[tokio::test]
async fn guarantee_6_host_and_sub_process_run_without_a_reader_of_their_output() -> Result {
    for piped in ["false", "true"] {
        let env = TestEnv::new().await?;
        let path = env.scratch().join("unread");
        let _pipe = unread(&path)?;
        let writing = namespaces::shell(&format!("exec \"$@\" >{0} 2>{0}", path.display()));
        let flood = "yes & yes >&2 & exec yes";
        let pod = pod(&env).within(writing).count_starts(flood).set("set_pipe_subprocess", piped).set("debug", "true");
        let mut pod = pod.start()?;
        pod.started(1).await?;
        for _ in 0..50 {
            let reply = tokio::time::timeout(DEFAULT_TIMEOUT, pod.client().info());
            reply.await.with_context(|| format!("no answer, piped: {piped}"))??;
        }
        pod.client().post("/control/off/20").await?.json(200)?;
        pod.client().post("/control/on/20").await?.json(200)?;
        pod.term()?;
        ensure!(pod.exit_code().await? == 0, "it did not exit with code 0, piped: {piped}");
        pod.assert_clean().await?;
    }
    Ok(())
}

#[tokio::test]
async fn guarantee_6_up_continues_without_a_reader_of_its_standard_output() -> Result {
    let env = TestEnv::new().await?;
    let path = env.scratch().join("unread");
    let _pipe = unread(&path)?;
    let writing = namespaces::shell(&format!("exec \"$@\" >{}", path.display()));
    let guest = artifacts::misbehaving()?;
    let up = PodBuilder::new(&guest, &env.scratch().join("up")).up().reached_at("127.0.0.2", env.port());
    let up = up
        .within(writing)
        .set("port", env.port())
        .count_starts("exec yes")
        .set("set_grace", "2")
        .flags(["--pods", "1"]);
    let mut up = up.start()?;
    up.started(1).await?;
    up.write_stdin("add")?;
    eventually("the other pod runs", DEFAULT_TIMEOUT, async || {
        let second = ochopod_tests::Client::new(format!("127.0.0.3:{}", env.port()));
        let info = tokio::time::timeout(Duration::from_secs(2), second.info()).await.context("no answer")??;
        ensure!(info["process"] == "running", "the sub-process does not run");
        Ok(())
    })
    .await?;
    up.term()?;
    ensure!(up.exit_code().await? == 0, "it did not exit with code 0");
    up.assert_clean().await
}

#[tokio::test]
async fn a_failed_start_ends_the_pod_and_not_its_host() -> Result {
    let env = TestEnv::new().await?;
    let plain = env.scratch().join("plain");
    fs::write(&plain, "exit 0\n")?;
    let directory = env.scratch().to_owned();
    for (name, program, reason) in [
        ("missing", Path::new("/no/such/program"), "No such file or directory"),
        ("plain", &plain, "Permission denied"),
        ("directory", &directory, "Permission denied"),
    ] {
        let mut pod = pod(&env).set("cluster", name).set("test_program", program.display()).start()?;
        pod.wait_info("process", "dead").await?;
        pod.wait_log(&format!("cannot execute {}: {reason}", program.display())).await.context(name)?;
        pod.term()?;
        ensure!(pod.exit_code().await? == 0, "{name}: it did not exit with code 0");
        pod.assert_clean().await?;
    }
    Ok(())
}
