//! Children and descendants of this process, adopted orphans included, and process groups, read from `/proc`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// Returns the process ids of all children of this process, in no order. Unreadable entries are skipped.
pub(super) fn children() -> Vec<u32> {
    let own = std::process::id();
    parent_ids().into_iter().filter(|(_, parent)| *parent == own).map(|(pid, _)| pid).collect()
}

/// Returns the process ids of all descendants of this process.
pub(super) fn descendants() -> BTreeSet<u32> {
    collect_descendants(std::process::id(), &parent_ids())
}

/// Returns the ids of all process groups with a member that has not exited.
pub(super) fn live_groups() -> BTreeSet<u32> {
    pids().filter_map(|pid| parse_live_group(&fs::read(format!("/proc/{pid}/stat")).ok()?)).collect()
}

/// Parses the process group of a line of `/proc/<pid>/stat`; none if the process has exited.
fn parse_live_group(stat: &[u8]) -> Option<u32> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = str::from_utf8(stat.get(name_end + 1..)?).ok()?.split_ascii_whitespace();
    fields.next().filter(|state| !matches!(*state, "Z" | "X"))?;
    fields.nth(1)?.parse().ok()
}

/// Process as shown in `/proc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Name of the program, truncated by the kernel.
    pub(super) command: String,
    /// State letter: D is uninterruptible sleep.
    pub(super) state: char,
}

/// Returns all descendants of this process that have not exited. Reads no file that a stuck process could block.
pub(super) fn running_descendants() -> Vec<Process> {
    let read = |pid: u32| parse_process(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?);
    descendants().into_iter().filter_map(read).filter(|process| !matches!(process.state, 'Z' | 'X')).collect()
}

/// Parses a process from a line of `/proc/<pid>/stat`.
fn parse_process(pid: u32, stat: &[u8]) -> Option<Process> {
    let (begin, end) = (stat.iter().position(|byte| *byte == b'(')?, stat.iter().rposition(|byte| *byte == b')')?);
    let command = String::from_utf8_lossy(stat.get(begin + 1..end)?).into_owned();
    let state = str::from_utf8(stat.get(end + 1..)?).ok()?.trim_start().chars().next()?;
    Some(Process { pid, command, state })
}

/// Returns the parent of a process; none if the process is gone.
pub(super) fn parent_of(pid: u32) -> Option<u32> {
    parse_parent(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Returns the parent of each process.
fn parent_ids() -> BTreeMap<u32, u32> {
    pids().filter_map(|pid| Some((pid, parent_of(pid)?))).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Collects the descendants of a process. Ids do not indicate descent, because they wrap around.
fn collect_descendants(ancestor: u32, parents: &BTreeMap<u32, u32>) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut next = vec![ancestor];
    while let Some(parent) = next.pop() {
        let children = parents.iter().filter(|(_, its)| **its == parent).map(|(pid, _)| *pid);
        next.extend(children.filter(|child| found.insert(*child)));
    }
    found
}

/// Parses the parent of a line of `/proc/<pid>/stat`. The program's name in parentheses may contain any bytes.
fn parse_parent(stat: &[u8]) -> Option<u32> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_is_parsed_with_any_program_name() {
        for (stat, expected) in [
            (&b"12 (sh) S 7 12 12 0"[..], Some(7)),
            (b"12 (a) R 1 (b) S 7 12", Some(7)),
            (b"12 (\xff\n)) Z 7 12", Some(7)),
            (b"12 (sh) S", None),
            (b"12 sh S 7", None),
            (b"", None),
        ] {
            assert_eq!(parse_parent(stat), expected, "{}", stat.escape_ascii());
        }
    }

    #[test]
    fn group_of_a_process_counts_until_it_ends() {
        for (stat, expected) in [
            (&b"12 (sh) S 7 5 12 0"[..], Some(5)),
            (b"12 (a) R 1 (b) T 7 5", Some(5)),
            (b"12 (sh) Z 7 5 12", None),
            (b"12 (sh) X 7 5 12", None),
            (b"12 (sh) S 7", None),
            (b"", None),
        ] {
            assert_eq!(parse_live_group(stat), expected, "{}", stat.escape_ascii());
        }
        assert!(live_groups().contains(&nix::unistd::getpgrp().as_raw().cast_unsigned()));
    }

    #[test]
    fn name_and_state_are_parsed_with_any_program_name() {
        for (stat, command, state) in
            [(&b"12 (dd) D 7 12 12 0"[..], "dd", 'D'), (b"12 (a) b (c) S 7", "a) b (c", 'S'), (b"12 () R", "", 'R')]
        {
            assert_eq!(parse_process(12, stat), Some(Process { pid: 12, command: command.to_owned(), state }));
        }
        for broken in [&b""[..], b"12 (dd)", b"12 )( D", b"12 dd D"] {
            assert_eq!(parse_process(12, broken), None, "{}", broken.escape_ascii());
        }
    }

    #[test]
    fn descendants_are_found_in_every_generation_with_any_ids() {
        let parents = BTreeMap::from([(1, 0), (7, 1), (9, 7), (3, 9), (8, 1), (4, 8), (5, 5)]);
        assert_eq!(collect_descendants(7, &parents), BTreeSet::from([3, 9]));
        assert_eq!(collect_descendants(1, &parents), BTreeSet::from([3, 4, 7, 8, 9]));
        assert_eq!(collect_descendants(5, &parents), BTreeSet::from([5]));
        assert_eq!(collect_descendants(6, &parents), BTreeSet::new());
    }
}
