//! What a callback can be told to do instead of its duty.

use std::{env, io::Read, net::TcpStream, process, thread, time::Duration};

use ochopod_sdk::{Result, bail, info};

/// Behaves as the environment says for this callback (`sanity-check`: `ochopod_test_sanity_check`).
pub(crate) fn behave(callback: &str) -> Result<()> {
    let name = format!("ochopod_test_{}", callback.replace('-', "_"));
    let told = env::var(&name).or_else(|_| env::var(format!("ochopod_test_{callback}")));
    told.map_or(Ok(()), |told| act(&told))
}

/// Does one thing, `KIND` or `KIND:ARGUMENT`. What returns success leaves the callback to its duty.
pub(crate) fn act(told: &str) -> Result<()> {
    let (kind, argument) = told.split_once(':').unwrap_or((told, ""));
    match kind {
        "" => {}
        "trap" => trap(),
        "exit" => process::exit(3),
        "panic" => panic_with(if argument.is_empty() { "panicked as told" } else { argument }),
        "reject" => bail!("{}", if argument.is_empty() { "rejected as told" } else { argument }),
        "huge" => bail!("{}", "x".repeat(64 << 20)),
        "spin" => spin(),
        "sleep" => sleep(argument.parse().unwrap_or(3600.0)),
        "allocate" => allocate(),
        "stack" => info!("reached the bottom of the stack at {}", descend(0)),
        "wait-socket" => return wait_for_a_silent_server(argument),
        "flood-log" => flood(argument.parse().unwrap_or(100_000)),
        _ => bail!("no such behaviour: {told:?}"),
    }
    Ok(())
}

fn trap() -> ! {
    #[cfg(target_family = "wasm")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_family = "wasm"))]
    process::abort();
}

#[allow(clippy::panic, reason = "that is what it was told")]
fn panic_with(text: &str) -> ! {
    panic!("{text}")
}

#[allow(clippy::disallowed_methods, reason = "that is what it was told")]
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

#[allow(unconditional_recursion, reason = "that is what it was told")]
fn descend(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    descend(depth + 1).wrapping_add(frame.iter().sum::<u64>())
}

/// Connects to the address given, or to `ochopod_test_address`, and reads until the server says something.
fn wait_for_a_silent_server(address: &str) -> Result<()> {
    let address = if address.is_empty() { env::var("ochopod_test_address")? } else { address.to_owned() };
    let length = TcpStream::connect(&address)?.read(&mut [0])?;
    info!("{address} said {length} bytes");
    Ok(())
}

fn flood(lines: u64) {
    for line in 0..lines {
        info!("flood {line} {}", "x".repeat(100));
    }
}
