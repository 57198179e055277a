//! Resource usage of a process, read from `/proc`.

use std::fs;

/// Clock ticks per second in `/proc`, part of the kernel's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// Resource usage of a process, without its children.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Processor time since its start, in seconds.
    pub cpu: f64,
    /// Resident memory, in bytes.
    pub memory: u64,
    /// Time since its start, in seconds.
    pub uptime: f64,
}

/// Returns the current usage of a process; none if it has exited or is not readable.
#[must_use]
pub fn usage(pid: u32) -> Option<Usage> {
    usage_of(&pid.to_string())
}

/// Returns the usage by the name of the directory in `/proc`.
pub(super) fn usage_of(process: &str) -> Option<Usage> {
    let read = |name: &str| fs::read(format!("/proc/{name}")).ok();
    let (stat, status) = (read(&format!("{process}/stat"))?, read(&format!("{process}/status"))?);
    parse(&stat, &status, &read("uptime")?)
}

fn parse(stat: &[u8], status: &[u8], uptime: &[u8]) -> Option<Usage> {
    let times = Times::parse(stat)?;
    let since_boot: f64 = str::from_utf8(uptime).ok()?.split_ascii_whitespace().next()?.parse().ok()?;
    // A container may see its own uptime, which is less than that of the machine.
    let uptime = (since_boot - times.started).max(0.0);
    Some(Usage { cpu: times.cpu, memory: resident(status)?, uptime })
}

/// Times in `/proc/<pid>/stat`, in seconds.
#[derive(Debug, PartialEq)]
struct Times {
    cpu: f64,
    /// Since boot.
    started: f64,
}

impl Times {
    fn parse(stat: &[u8]) -> Option<Self> {
        // The second field is the program's name in parentheses, which may contain parentheses too.
        let name_end = stat.iter().rposition(|byte| *byte == b')')?;
        let mut fields = str::from_utf8(stat.get(name_end + 1..)?).ok()?.split_ascii_whitespace().skip(11);
        let mut next = || fields.next()?.parse::<f64>().ok();
        let (user, system) = (next()?, next()?);
        let started = fields.nth(6)?.parse::<f64>().ok()?;
        Some(Self { cpu: (user + system) / TICKS_PER_SECOND, started: started / TICKS_PER_SECOND })
    }
}

/// Parses the resident memory of `/proc/<pid>/status`, which is in KiB (`kB`) for any page size.
fn resident(status: &[u8]) -> Option<u64> {
    number(status, b"VmRSS:")?.checked_mul(1024)
}

/// Parses a number of `/proc/<pid>/status`.
pub(super) fn number(status: &[u8], name: &[u8]) -> Option<u64> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    str::from_utf8(line).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER_NAME: &str = " S 1 42 42 0 -1 4194560 901 0 12 0 150 50 0 0 20 0 4 0 30000 104857600 640 184467440";

    #[test]
    fn times_are_parsed_with_any_program_name() {
        let expected = Times { cpu: 2.0, started: 300.0 };
        for name in [&b"redis-server"[..], b"a) b (c", b") S 1 2 3 (", b"", b"\xff\xfe)\n", b"1 2 3"] {
            let stat = [b"42 (", name, b")", AFTER_NAME.as_bytes()].concat();
            assert_eq!(Times::parse(&stat).as_ref(), Some(&expected), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn invalid_stat_line_has_no_times() {
        for stat in ["", "42", "42 (sh)", "42 (sh) S 1 2", "42 (sh) S 1 42 42 0 -1 0 0 0 0 0 x y 0 0 20 0 4 0 3 0"] {
            assert_eq!(Times::parse(stat.as_bytes()), None, "{stat}");
        }
    }

    #[test]
    fn usage_is_in_seconds_and_bytes() {
        let stat = format!("42 (sh){AFTER_NAME}");
        let status = b"Name:\tsh\nVmHWM:\t    9000 kB\nVmRSS:\t    2560 kB\nThreads:\t1\n";
        let found = parse(stat.as_bytes(), status, b"1000.50 3000.00\n");
        assert_eq!(found, Some(Usage { cpu: 2.0, memory: 2560 * 1024, uptime: 700.5 }));
    }

    #[test]
    fn uptime_is_never_negative() {
        let stat = format!("42 (sh){AFTER_NAME}");
        let found = parse(stat.as_bytes(), b"VmRSS:\t1 kB\n", b"10.00 20.00\n");
        assert_eq!(found.map(|usage| usage.uptime.to_bits()), Some(0.0_f64.to_bits()));
    }

    #[test]
    fn zombie_has_no_usage() {
        let stat = format!("42 (sh){AFTER_NAME}");
        assert_eq!(parse(stat.as_bytes(), b"Name:\tsh\nState:\tZ (zombie)\n", b"1000.50 1.0\n"), None);
        assert_eq!(usage(u32::MAX), None);
    }

    #[test]
    fn this_process_has_usage() {
        let found = usage(std::process::id()).unwrap();
        assert!(found.memory > 100 * 1024, "{found:?}");
        assert!((0.0..86_400.0).contains(&found.uptime), "{found:?}");
    }
}
