//! Guarantee 6 in poor surroundings: without root, a writable root, descriptors, processes or anybody who reads.

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
use ochopod_tests::{Pod, PodBuilder, Process, Result, SOON, Site, artifacts, eventually, namespaces};

use crate::{SLEEP, pod};

/// A user that nothing else on the machine is.
const NOBODY: &str = "64123";

/// A pod works: it is configured, its sub-process is stopped and started, and it leaves nothing.
async fn works(mut pod: Pod) -> Result {
    pod.shows("process", "running").await?;
    pod.client().post("/control/off").await?.json(200)?;
    pod.client().post("/control/on").await?.json(200)?;
    pod.client().post("/log").await?.json(200)?;
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not leave with code 0");
    pod.leaves_nothing().await
}

/// A pod of a user without any rights that nothing else on the machine is. Host, plugin and directory are where that
/// user may use them.
fn without_rights(site: &Site) -> Result<PodBuilder> {
    ensure!(geteuid().is_root(), "this test has to be root: it becomes another user");
    let (binary, guest) = (site.scratch().join("ochopod"), site.scratch().join("misbehaving.wasm"));
    fs::copy(artifacts::ochopod()?, &binary)?;
    fs::copy(artifacts::misbehaving()?, &guest)?;
    let pod = site.pod(&guest).binary(&binary).set("cache", "/nowhere/to/be/made").set("set_grace", "5").counted(SLEEP);
    let directory = site.scratch().join("127.0.0.2");
    fs::create_dir(&directory)?;
    for directory in [site.scratch(), &directory] {
        fs::set_permissions(directory, Permissions::from_mode(0o777))?;
    }
    let user = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--bounding-set=-all"];
    Ok(pod.within(user).within(["--inh-caps=-all", "--pdeathsig", "KILL", "--"]))
}

#[tokio::test]
async fn guarantee_6_without_root_and_capabilities() -> Result {
    let site = Site::new().await?;
    works(without_rights(&site)?.start()?).await
}

#[tokio::test]
async fn guarantee_6_on_a_read_only_root_there_is_a_warning_and_no_more() -> Result {
    let site = Site::new().await?;
    let cache = site.scratch().join("cache");
    let pod = pod(&site).within(namespaces::read_only()).command(SLEEP).set("cache", cache.display()).start()?;
    let log = pod.logs("starting pod").await?;
    ensure!(log.contains("no log file: /var/log/ochopod.log"), "there is no warning of the log file");
    ensure!(log.contains("is not used"), "there is no warning of the cache");
    works(pod).await
}

#[tokio::test]
async fn without_proc_it_says_so() -> Result {
    let site = Site::new().await?;
    let mut pod = pod(&site).within(namespaces::without_proc()).start()?;
    let code = pod.exit_code().await?;
    ensure!(code == 70 && pod.console()?.contains("/proc is not mounted"), "it ended with {code}");
    Ok(())
}

#[tokio::test]
async fn guarantee_6_without_standard_input_output_and_error() -> Result {
    let site = Site::new().await?;
    works(pod(&site).within(namespaces::shell("exec \"$@\" <&- >&- 2>&-")).start()?).await
}

#[tokio::test]
async fn guarantee_6_with_few_descriptors() -> Result {
    let site = Site::new().await?;
    works(pod(&site).within(["prlimit", "--nofile=64:64", "--"]).start()?).await
}

/// Sets how many processes the user of this pod may have, as that user.
async fn limit_processes(pod: &Pod, limit: u32) -> Result {
    let mut command = Process::command("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "prlimit"]);
    command.args(["--pid", &pod.pid().to_string(), &format!("--nproc={limit}:")]);
    let status = Process::spawn("prlimit", command)?.wait(SOON).await?;
    ensure!(status.success(), "the limit cannot be set: {status}");
    Ok(())
}

#[tokio::test]
async fn guarantee_6_where_no_process_can_be_made_the_restart_is_tried_again() -> Result {
    let site = Site::new().await?;
    let mut pod = without_rights(&site)?.set("set_checks", "99").start()?;
    let first = pod.started(1).await?;
    limit_processes(&pod, 1).await?;
    nix::sys::signal::kill(unistd::Pid::from_raw(first), Signal::SIGKILL)?;
    let log = pod.logs("the sub-process cannot be restarted").await?;
    ensure!(log.contains("cannot make a process"), "the reason is not told");
    pod.client().info().await?;
    limit_processes(&pod, 1000).await?;
    pod.started(2).await?;
    pod.term()?;
    ensure!(pod.exit_code().await? == 0, "it did not leave with code 0");
    pod.leaves_nothing().await
}

/// A pipe that is full for ever: it is open, and nobody reads.
fn unread(path: &Path) -> Result<File> {
    unistd::mkfifo(path, Mode::S_IRWXU)?;
    OpenOptions::new().read(true).write(true).open(path).context("cannot open the pipe")
}

#[tokio::test]
async fn guarantee_6_nobody_reads_what_host_and_sub_process_write() -> Result {
    for piped in ["false", "true"] {
        let site = Site::new().await?;
        let path = site.scratch().join("unread");
        let _pipe = unread(&path)?;
        let writing = namespaces::shell(&format!("exec \"$@\" >{0} 2>{0}", path.display()));
        let flood = "yes & yes >&2 & exec yes";
        let pod = pod(&site).within(writing).counted(flood).set("set_pipe_subprocess", piped).set("debug", "true");
        let mut pod = pod.start()?;
        pod.started(1).await?;
        for _ in 0..50 {
            let asked = tokio::time::timeout(Duration::from_secs(2), pod.client().info());
            asked.await.with_context(|| format!("no answer, piped: {piped}"))??;
        }
        pod.client().post("/control/off/20").await?.json(200)?;
        pod.client().post("/control/on/20").await?.json(200)?;
        pod.term()?;
        ensure!(pod.exit_code().await? == 0, "it did not leave with code 0, piped: {piped}");
        pod.leaves_nothing().await?;
    }
    Ok(())
}

#[tokio::test]
async fn guarantee_6_up_goes_on_when_nobody_reads_its_standard_output() -> Result {
    let site = Site::new().await?;
    let path = site.scratch().join("unread");
    let _pipe = unread(&path)?;
    let writing = namespaces::shell(&format!("exec \"$@\" >{}", path.display()));
    let guest = artifacts::misbehaving()?;
    let up = PodBuilder::new(&guest, &site.scratch().join("up")).up().reached_at("127.0.0.2", site.port());
    let up =
        up.within(writing).set("port", site.port()).counted("exec yes").set("set_grace", "2").flags(["--pods", "1"]);
    let mut up = up.start()?;
    up.started(1).await?;
    up.say("add")?;
    eventually("the other pod runs", SOON, async || {
        let second = ochopod_tests::Client::new(format!("127.0.0.3:{}", site.port()));
        let info = tokio::time::timeout(Duration::from_secs(2), second.info()).await.context("no answer")??;
        ensure!(info["process"] == "running", "it does not");
        Ok(())
    })
    .await?;
    up.term()?;
    ensure!(up.exit_code().await? == 0, "it did not leave with code 0");
    up.leaves_nothing().await
}

#[tokio::test]
async fn what_cannot_be_started_ends_the_pod_and_not_its_host() -> Result {
    let site = Site::new().await?;
    let plain = site.scratch().join("plain");
    fs::write(&plain, "exit 0\n")?;
    let directory = site.scratch().to_owned();
    for (name, program, reason) in [
        ("missing", Path::new("/no/such/program"), "No such file or directory"),
        ("plain", &plain, "Permission denied"),
        ("directory", &directory, "Permission denied"),
    ] {
        let mut pod = pod(&site).set("cluster", name).set("test_program", program.display()).start()?;
        pod.shows("process", "dead").await?;
        pod.logs(&format!("cannot execute {}: {reason}", program.display())).await.context(name)?;
        pod.term()?;
        ensure!(pod.exit_code().await? == 0, "{name}: it did not leave with code 0");
        pod.leaves_nothing().await?;
    }
    Ok(())
}
