//! `/info` per second, over connections that are kept. One request at a time on each.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, ensure};
use ochopod_tests::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    Bench,
    figures::{Table, Unit},
    watch,
};

const RUN: Duration = Duration::from_secs(2);
const RUNS: usize = 3;
const REQUEST: &[u8] = b"POST /info HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\n\r\n";

pub(crate) async fn measure(bench: &Bench, table: &mut Table) -> Result {
    let env = bench.env().await?;
    let pod = bench.pod(&env)?.start()?;
    watch::configured(&env.cluster("default"), 1, 0).await?;
    for (connections, what, target, python) in
        [(1, "POST /info, 1 connection", "", "512 /s"), (8, "POST /info, 8 connections", "≥ 50k /s", "813 /s")]
    {
        let mut rates = Vec::new();
        for _ in 0..RUNS {
            let authority = pod.client().authority().to_owned();
            // A thread and a runtime of its own: nothing else of this program is in the way.
            let load = thread::spawn(move || measure_requests(&authority, connections));
            rates.push(load.join().map_err(|_| anyhow!("the generator panicked"))??);
        }
        table.add(what, Unit::PerSecond, rates, target, python);
    }
    Ok(())
}

fn measure_requests(authority: &str, connections: usize) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let begin = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..connections {
            clients.spawn(one_connection(authority.to_owned(), begin + RUN));
        }
        let mut answered = 0_u32;
        while let Some(client) = clients.join_next().await {
            answered += client??;
        }
        Ok(f64::from(answered) / begin.elapsed().as_secs_f64())
    })
}

async fn one_connection(authority: String, until: Instant) -> Result<u32> {
    let mut stream = TcpStream::connect(&authority).await?;
    stream.set_nodelay(true)?;
    let mut answered = 0;
    let mut buffer = vec![0; 16 * 1024];
    while Instant::now() < until {
        stream.write_all(REQUEST).await?;
        let mut filled = 0;
        while !is_whole(&buffer[..filled])? {
            let read = stream.read(&mut buffer[filled..]).await?;
            ensure!(read > 0, "the pod closed the connection");
            filled += read;
        }
        answered += 1;
    }
    Ok(answered)
}

/// Returns whether these bytes are a complete reply with code 200.
fn is_whole(bytes: &[u8]) -> Result<bool> {
    const LENGTH: &[u8] = b"content-length: ";
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
    ensure!(bytes.starts_with(b"HTTP/1.1 200"), "not 200: {}", String::from_utf8_lossy(&bytes[..head]));
    let at = bytes[..head].windows(LENGTH.len()).position(|window| window.eq_ignore_ascii_case(LENGTH));
    let digits = &bytes[at.context("an answer without a length")? + LENGTH.len()..head];
    let length: usize =
        digits.iter().take_while(|byte| byte.is_ascii_digit()).fold(0, |sum, byte| sum * 10 + usize::from(byte - b'0'));
    Ok(bytes.len() >= head + 4 + length)
}
