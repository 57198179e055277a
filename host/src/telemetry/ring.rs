//! The newest lines in memory.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// The newest lines, without their ends, within a number of bytes.
#[derive(Debug)]
pub(super) struct Ring {
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    size: usize,
}

impl Ring {
    pub(super) fn new(most: usize) -> Self {
        Self { most, kept: Mutex::new(Kept::default()) }
    }

    pub(super) fn push(&self, line: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for line in line.lines() {
            kept.size += line.len();
            kept.lines.push_back(line.to_owned());
        }
        while kept.size > self.most {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.size -= oldest.len();
        }
    }

    /// Oldest first.
    pub(super) fn lines(&self) -> Vec<String> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).lines.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept_within_the_limit() {
        let ring = Ring::new(10);
        for line in ["aaaa\n", "bbbb\ncc\n", "dd\n"] {
            ring.push(line);
        }
        assert_eq!(ring.lines(), ["bbbb", "cc", "dd"]);
        ring.push("longer than the ring");
        assert_eq!(ring.lines(), Vec::<String>::new());
    }
}
