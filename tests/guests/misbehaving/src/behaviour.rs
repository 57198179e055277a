//! Behaviours of a callback instead of its duty.

use std::{
    env,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process, thread,
    time::Duration,
};

use ochopod_sdk::{Error, Result, bail, exec, info};

use crate::wasi;

/// Behaves as the environment selects for this callback (`sanity-check`: `ochopod_test_sanity_check`).
pub(crate) fn behave(callback: &str) -> Result<()> {
    let name = format!("ochopod_test_{}", callback.replace('-', "_"));
    let behaviour = env::var(&name).or_else(|_| env::var(format!("ochopod_test_{callback}")));
    behaviour.map_or(Ok(()), |behaviour| act(&behaviour))
}

/// Executes one behaviour, `KIND` or `KIND:ARGUMENT`. After a success, the callback continues with its duty.
pub(crate) fn act(behaviour: &str) -> Result<()> {
    let (kind, argument) = behaviour.split_once(':').unwrap_or((behaviour, ""));
    match kind {
        "" => {}
        "trap" => trap(),
        "exit" => process::exit(3),
        "panic" => panic_with(if argument.is_empty() { "panicked as requested" } else { argument }),
        "reject" => bail!("{}", if argument.is_empty() { "rejected as requested" } else { argument }),
        "not-yet" => return Err(Error::not_yet(if argument.is_empty() { "not yet, as requested" } else { argument })),
        "until-file" => {
            if !std::fs::exists(argument)? {
                return Err(Error::not_yet(format!("{argument} does not exist")));
            }
        }
        "huge" => bail!("{}", "x".repeat(64 << 20)),
        "spin" => spin(),
        "sleep" => sleep(argument.parse().unwrap_or(3600.0)),
        "allocate" => allocate(),
        "hold" => retain(argument.parse().unwrap_or(1)),
        "stack" => info!("reached the bottom of the stack at {}", descend(0)),
        "wait-socket" => return wait_for_a_silent_server(argument),
        "wait-request" => return wasi::request(&address(argument)?),
        "wait-file" => return wait_for_a_file(argument),
        "wait-input" => info!("the input ends after {} bytes", std::io::stdin().read(&mut [0])?),
        "flood-log" => flood(argument.parse().unwrap_or(100_000)),
        "flood-line" => info!("{}", "\n".repeat(argument.parse().unwrap_or(15 << 20))),
        "flood-out" => return flood_stream(&mut std::io::stdout()),
        "flood-error" => return flood_stream(&mut std::io::stderr()),
        "leak-sockets" => return leak(argument, || Ok(TcpListener::bind("127.0.0.1:0")?)),
        "fill-body" => return wasi::body(argument.parse().unwrap_or(usize::MAX)).map(drop),
        "leak-bodies" => return leak(argument, || wasi::body(usize::MAX)),
        "leak-pollables" => return leak(argument, wasi::pollable),
        "leak-requests" => {
            let address = address("")?;
            return leak(argument, || wasi::send(&address));
        }
        "exec" => return run(argument),
        _ => bail!("no such behaviour: {behaviour:?}"),
    }
    Ok(())
}

fn trap() -> ! {
    #[cfg(target_family = "wasm")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_family = "wasm"))]
    process::abort();
}

#[allow(clippy::panic, reason = "the requested behaviour")]
fn panic_with(text: &str) -> ! {
    panic!("{text}")
}

#[allow(clippy::disallowed_methods, reason = "the requested behaviour")]
fn sleep(seconds: f64) {
    thread::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default());
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

fn allocate() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

/// Retains this number of MiB for the lifetime of the instance.
fn retain(mebibytes: usize) {
    std::mem::forget(std::hint::black_box(vec![1_u8; mebibytes << 20]));
}

#[allow(unconditional_recursion, reason = "the requested behaviour")]
fn descend(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    descend(depth + 1).wrapping_add(frame.iter().sum::<u64>())
}

/// Returns the given address, or `ochopod_test_address`.
fn address(given: &str) -> Result<String> {
    Ok(if given.is_empty() { env::var("ochopod_test_address")? } else { given.to_owned() })
}

/// Connects and reads until the server sends something.
fn wait_for_a_silent_server(given: &str) -> Result<()> {
    let address = address(given)?;
    let length = TcpStream::connect(&address)?.read(&mut [0])?;
    info!("{address} said {length} bytes");
    Ok(())
}

fn flood(lines: u64) {
    for line in 0..lines {
        info!("flood {line} {}", "x".repeat(100));
    }
}

/// Reads until another process writes: the file is a pipe.
fn wait_for_a_file(path: &str) -> Result<()> {
    info!("{path} has {} bytes", std::fs::read(path)?.len());
    Ok(())
}

/// Writes without end.
fn flood_stream(stream: &mut impl Write) -> Result<()> {
    loop {
        writeln!(stream, "flood {}", "x".repeat(100))?;
    }
}

/// Creates this number of them (indefinitely if no number is given) and releases none.
fn leak<T>(number: &str, mut take: impl FnMut() -> Result<T>) -> Result<()> {
    for _ in 0..number.parse().unwrap_or(u64::MAX) {
        std::mem::forget(take()?);
    }
    Ok(())
}

fn run(command: &str) -> Result<()> {
    let output = exec::run(command.split(' '), b"", Duration::from_mins(10))?;
    info!("{command} ended with {} after {} bytes", output.code, output.stdout.len());
    Ok(())
}
