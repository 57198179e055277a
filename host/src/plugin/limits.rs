//! Bounds on what an instance allocates.

use wasmtime::{Error, ResourceLimiter, Result};

/// Linear memory of one instance, all of its memories together.
const MEMORY: usize = 256 << 20;
/// Table elements of one instance, all of its tables together.
const ELEMENTS: usize = 1 << 20;
/// Core modules, tables and memories that one component may have.
const PARTS: usize = 256;

/// Counts memory and table elements of one instance, and remembers what was refused.
#[derive(Debug, Default)]
pub(super) struct Limits {
    memory: usize,
    elements: usize,
    refused: Option<String>,
}

impl Limits {
    /// What was refused since this was asked last: a trap that follows is blamed on it.
    pub(super) fn take_refused(&mut self) -> Option<String> {
        self.refused.take()
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let total = self.memory.saturating_sub(current).saturating_add(desired);
        if total > MEMORY {
            self.refused = Some(format!("it wanted {} MiB of memory and may have {}", total >> 20, MEMORY >> 20));
            return Ok(false);
        }
        self.memory = total;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: Error) -> Result<()> {
        self.refused.get_or_insert_with(|| format!("its memory cannot grow: {error}"));
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let total = self.elements.saturating_sub(current).saturating_add(desired);
        if total > ELEMENTS {
            self.refused = Some(format!("it wanted {total} table elements and may have {ELEMENTS}"));
            return Ok(false);
        }
        self.elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        PARTS
    }

    fn tables(&self) -> usize {
        PARTS
    }

    fn memories(&self) -> usize {
        PARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_over_all_memories_and_a_refusal_is_told_once() {
        let mut limits = Limits::default();
        assert!(limits.memory_growing(0, 200 << 20, None).unwrap());
        assert!(limits.memory_growing(0, 56 << 20, None).unwrap());
        assert!(!limits.memory_growing(56 << 20, 57 << 20, None).unwrap());
        assert!(limits.take_refused().unwrap().contains("257 MiB"));
        assert_eq!(limits.take_refused(), None);
        assert!(!limits.table_growing(0, usize::MAX, None).unwrap());
        assert!(limits.take_refused().unwrap().contains("table elements"));
    }
}
