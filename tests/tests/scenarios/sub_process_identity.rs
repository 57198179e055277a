//! As whom the sub-process runs, within which limits, and what it cannot see of the host.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context, ensure};
use nix::unistd::{User, geteuid};
use ochopod_tests::{Pod, PodBuilder, Result, SOON, Site, artifacts, eventually};
use serde_json::json;

use crate::pod;

/// What a program tells of itself.
const TELL: &str = "echo \"$(id -u) $(id -g) $(id -G) $HOME $(ulimit -Sn) $(ulimit -Hn) $(ulimit -c)\"";

/// Starts a pod whose sub-process writes text to standard output, and waits for that.
async fn telling(site: &Site, script: &str, complete: impl Fn(PodBuilder) -> PodBuilder) -> Result<(Pod, String)> {
    let script = format!("{script}; echo told; exec sleep 86400");
    let pod = complete(pod(site).command(&script)).start()?;
    let output = eventually("the sub-process tells", SOON, async || {
        let output = pod.output()?;
        ensure!(output.contains("told"), "it said {output}");
        Ok(output)
    })
    .await?;
    Ok((pod, output))
}

fn nobody() -> Result<User> {
    User::from_name("nobody")?.context("this system has no user nobody")
}

#[tokio::test]
async fn programs_run_as_the_user_that_is_asked_for_and_within_limits() -> Result {
    let site = Site::new().await?;
    let limited = |pod: PodBuilder| {
        let pod = pod.flags(["--rlimit", "nofile=100:200", "--run", "/bin/sh"]).set("rlimit_core", "0");
        if geteuid().is_root() { pod.set("user", "nobody") } else { pod }
    };
    let (mut pod, output) = telling(&site, TELL, limited).await?;
    let first = output.lines().next().unwrap_or_default().to_owned();
    let said: Vec<&str> = first.split(' ').collect();
    ensure!(said.ends_with(&["100", "200", "0"]), "it said {said:?}");
    if geteuid().is_root() {
        let user = nobody()?;
        let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
        ensure!(said[..4] == [&*uid, &*gid, &*gid, &*user.dir.to_string_lossy()], "it said {said:?}");
    }
    let script = format!("/bin/sh -c {}", TELL.replace(' ', "${IFS}"));
    let tried =
        pod.client().post_json("/control/signal", &json!({ "try": "exec", "with": script })).await?.json(200)?;
    let same = tried["stdout"].as_str().is_some_and(|text| text.split_whitespace().eq(said));
    ensure!(same, "a program said {tried}, not {first}");
    pod.kill9().await?;
    pod.leaves_nothing().await
}

#[tokio::test]
async fn a_program_that_the_user_may_not_execute_is_refused_by_name() -> Result {
    if !geteuid().is_root() {
        return Ok(());
    }
    let site = Site::new().await?;
    fs::set_permissions(site.scratch(), fs::Permissions::from_mode(0o755))?;
    let program = site.scratch().join("sleep");
    fs::write(&program, "#!/bin/sh\nexec /bin/sleep 86400\n")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700))?;
    let plugin = artifacts::plugin("hello")?;
    let pod = site.pod(&plugin).env("PATH", site.scratch().display());
    let refused = pod.clone().set("user", "nobody").start()?;
    refused.logs("cannot execute sleep: Permission denied").await?;
    drop(refused);
    pod.start()?.shows("process", "running").await?;
    Ok(())
}

#[tokio::test]
async fn bad_users_and_limits_are_all_told_at_once() -> Result {
    let site = Site::new().await?;
    let wrong = [("user", "no such user"), ("group", "no such group"), ("rlimit_files", "1")];
    let wrong = wrong.iter().fold(pod(&site), |pod, (name, value)| pod.set(name, value));
    let mut pod = wrong.flags(["--rlimit", "nofile=2:1"]).start()?;
    ensure!(pod.exit_code().await? == 64, "it did not leave with code 64");
    let console = pod.console()?;
    for told in ["ochopod_user is", "ochopod_group is", "ochopod_rlimit_files is", "--rlimit nofile is \"2:1\""] {
        ensure!(console.contains(told), "{told} is not in {console}");
    }
    Ok(())
}

#[tokio::test]
async fn limits_beyond_what_the_host_has_are_told_when_the_program_starts() -> Result {
    let site = Site::new().await?;
    let pod = pod(&site).powerless().set("rlimit_nofile", "unlimited").start()?;
    pod.logs("cannot set the limits of /bin/sh (nofile=").await?;
    Ok(())
}

#[tokio::test]
async fn the_sub_process_cannot_look_into_the_host_even_as_the_same_user() -> Result {
    let site = Site::new().await?;
    let look = "for file in environ mem maps; do
            if (true < /proc/$PPID/$file) 2>/dev/null; then echo \"host $file\"; fi
            if (true < /proc/$$/$file) 2>/dev/null; then echo \"own $file\"; fi
        done";
    let zk = format!("zk://web:hunter2@{}", site.store().connect_string());
    let (pod, output) = telling(&site, look, |pod| pod.powerless().set("zk", &zk)).await?;
    for own in ["own environ", "own mem", "own maps"] {
        ensure!(output.contains(own), "the sub-process cannot even see its {own}: {output}");
    }
    ensure!(!output.contains("host "), "it sees of the host: {output}");
    let environ = fs::read_to_string(format!("/proc/{}/environ", pod.pid()));
    if geteuid().is_root() {
        ensure!(environ?.contains("hunter2"), "the password is not where it was expected");
    }
    Ok(())
}
