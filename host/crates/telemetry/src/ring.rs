//! Ring of the newest lines in memory.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// The newest lines, without their ends, up to a size in bytes. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    max_bytes: usize,
    state: Arc<Mutex<RingState>>,
}

#[derive(Debug, Default)]
struct RingState {
    lines: VecDeque<String>,
    size: usize,
}

impl Ring {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, state: Arc::default() }
    }

    pub(super) fn push(&self, line: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for line in line.lines() {
            state.size += line.len();
            state.lines.push_back(line.to_owned());
        }
        while state.size > self.max_bytes {
            let Some(oldest) = state.lines.pop_front() else { break };
            state.size -= oldest.len();
        }
    }

    /// Returns the lines, oldest first.
    pub(super) fn lines(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lines.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_lines_are_kept_within_the_limit() {
        let ring = Ring::new(10);
        for line in ["aaaa\n", "bbbb\ncc\n", "dd\n"] {
            ring.push(line);
        }
        assert_eq!(ring.lines(), ["bbbb", "cc", "dd"]);
        ring.push("longer than the ring");
        assert_eq!(ring.lines(), Vec::<String>::new());
    }
}
