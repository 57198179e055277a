//! From the start of a process to a configured pod; restarts; what a plugin's compilation adds.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::{
    sys::{
        signal::{self, Signal},
        stat::Mode,
    },
    unistd::{self, Pid},
};
use ochopod_tests::{PodBuilder, Process, Result, TestEnv, artifacts};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
};

use crate::{Bench, figures::Table, watch};

const RUNS: usize = 15;
const FEW: usize = 7;

pub(crate) async fn measure(bench: &Bench, table: &mut Table) -> Result {
    boot(bench, 1, &|env| bench.pod(env)).await?; // compiles
    let one = samples(bench, RUNS, 1, &|env| bench.pod(env)).await?;
    table.times("start → configured, 1 pod", &one, "≤ 50 ms", "3.28 s");
    let three = samples(bench, FEW, 3, &|env| bench.pod(env)).await?;
    table.times("start → configured, 3 pods concurrently", &three, "≤ 80 ms", "3.75 s");

    let cold =
        samples(bench, FEW, 1, &|env| Ok(bench.pod(env)?.set("cache", env.scratch().join("cache").display()))).await?;
    table.times("start → configured, plugin never compiled before", &cold, "", "");
    let compiled = bench.cache.path().join("hello.cwasm");
    compile(&compiled).await?;
    let ahead = samples(bench, FEW, 1, &|env| bench.of_release(env.pod(&compiled))).await?;
    table.times("start → configured, plugin compiled ahead of time", &ahead, "", "");

    let mut restarts = Vec::new();
    for _ in 0..RUNS {
        restarts.push(restart(bench).await?);
    }
    table.times("sub-process killed → the next one runs", &restarts, "≤ 10 ms", "1.50 s");
    Ok(())
}

async fn samples(
    bench: &Bench,
    runs: usize,
    pods: usize,
    complete: &dyn Fn(&TestEnv) -> Result<PodBuilder>,
) -> Result<Vec<Duration>> {
    let mut samples = Vec::new();
    for _ in 0..runs {
        samples.push(boot(bench, pods, complete).await?);
    }
    Ok(samples)
}

async fn boot(bench: &Bench, count: usize, complete: &dyn Fn(&TestEnv) -> Result<PodBuilder>) -> Result<Duration> {
    let env = bench.env().await?;
    let builders = (0..count).map(|_| complete(&env)).collect::<Result<Vec<_>>>()?;
    let begin = Instant::now();
    let pods = builders.into_iter().map(PodBuilder::start).collect::<Result<Vec<_>>>()?;
    let took = watch::configured(&env.cluster("default"), count, 0).await? - begin;
    drop(pods);
    Ok(took)
}

async fn compile(to: &Path) -> Result {
    let mut command = Process::command(artifacts::released()?);
    command.arg("compile").arg(artifacts::plugin("hello")?).arg("-o").arg(to);
    let status = Process::spawn("ochopod compile", command)?.wait(Duration::from_secs(30)).await?;
    ensure!(status.success(), "ochopod compile ended with {status}");
    Ok(())
}

/// Measures a restart, each on a pod of its own: only the first restart is immediate.
async fn restart(bench: &Bench) -> Result<Duration> {
    let env = bench.env().await?;
    let starts = env.scratch().join("starts");
    unistd::mkfifo(&starts, Mode::S_IRWXU)?;
    let mut starts_read = BufReader::new(pipe::OpenOptions::new().read_write(true).open_receiver(&starts)?).lines();
    let command = format!("echo $$ > {}; exec sleep 86400", starts.display());
    let _pod = bench.of_release(env.pod(&artifacts::misbehaving()?))?.command(&command).start()?;
    let mut next = async || -> Result<i32> {
        let line = tokio::time::timeout(Duration::from_secs(30), starts_read.next_line()).await??;
        Ok(line.context("the pipe is closed")?.parse()?)
    };
    let first = next().await?;
    watch::configured(&env.cluster("default"), 1, 0).await?;
    let begin = Instant::now();
    signal::kill(Pid::from_raw(first), Signal::SIGKILL)?;
    next().await?;
    Ok(begin.elapsed())
}
