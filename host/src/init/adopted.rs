//! Which processes are children of this one, those it made and orphans that the kernel gave it, and what descends from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// Process ids of all present children of this process, in no order. What cannot be read is left out.
pub(super) fn children() -> Vec<u32> {
    let own = std::process::id();
    parents().into_iter().filter(|(_, parent)| *parent == own).map(|(pid, _)| pid).collect()
}

/// Process ids of all present descendants of this process, in no order.
pub(super) fn descendants() -> BTreeSet<u32> {
    below(std::process::id(), &parents())
}

/// The parent of each process there is.
fn parents() -> BTreeMap<u32, u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| Some((pid, parent(&fs::read(format!("/proc/{pid}/stat")).ok()?)?))).collect()
}

/// What descends from this process. Ids do not tell: they start again from below.
fn below(ancestor: u32, parents: &BTreeMap<u32, u32>) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut next = vec![ancestor];
    while let Some(parent) = next.pop() {
        let children = parents.iter().filter(|(_, its)| **its == parent).map(|(pid, _)| *pid);
        next.extend(children.filter(|child| found.insert(*child)));
    }
    found
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

    #[test]
    fn descendants_are_found_in_every_generation_whatever_their_ids() {
        let parents = BTreeMap::from([(1, 0), (7, 1), (9, 7), (3, 9), (8, 1), (4, 8), (5, 5)]);
        assert_eq!(below(7, &parents), BTreeSet::from([3, 9]));
        assert_eq!(below(1, &parents), BTreeSet::from([3, 4, 7, 8, 9]));
        assert_eq!(below(5, &parents), BTreeSet::from([5]));
        assert_eq!(below(6, &parents), BTreeSet::new());
    }
}
