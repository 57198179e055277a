//! Which processes are children of this one: those it made, and orphans that the kernel gave it.

use std::fs;

/// Process ids of all present children of this process, in no order. What cannot be read is left out.
pub(super) fn children() -> Vec<u32> {
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read(format!("/proc/{pid}/stat")).is_ok_and(|stat| parent(&stat) == Some(own)))
        .collect()
}

/// The parent that a line of `/proc/<pid>/stat` names. The program's name in it, in parentheses, may be anything.
fn parent(stat: &[u8]) -> Option<u32> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_whatever_the_name_of_the_program() {
        for (stat, expected) in [
            (&b"12 (sh) S 7 12 12 0"[..], Some(7)),
            (b"12 (a) R 1 (b) S 7 12", Some(7)),
            (b"12 (\xff\n)) Z 7 12", Some(7)),
            (b"12 (sh) S", None),
            (b"12 sh S 7", None),
            (b"", None),
        ] {
            assert_eq!(parent(stat), expected, "{}", stat.escape_ascii());
        }
    }
}
