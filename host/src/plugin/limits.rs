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

    /// `(module (table 1 funcref) (func (export "g") (result i32) (table.grow 0 (ref.null func) (i32.const 2000000))))`
    const GROWS_ITS_TABLE: &[u8] = b"\0asm\x01\0\0\0\x01\x05\x01\x60\0\x01\x7f\x03\x02\x01\0\x04\x04\x01\x70\0\x01\
        \x07\x05\x01\x01g\0\0\x0a\x0e\x01\x0c\0\xd0\x70\x41\x80\x89\xfa\0\xfc\x0f\0\x0b";

    #[test]
    fn a_table_that_grows_without_measure_is_refused() {
        let engine = wasmtime::Engine::default();
        let module = wasmtime::Module::new(&engine, GROWS_ITS_TABLE).unwrap();
        let mut store = wasmtime::Store::new(&engine, Limits::default());
        store.limiter(|limits| limits);
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
        let grow = instance.get_typed_func::<(), i32>(&mut store, "g").unwrap();
        assert_eq!(grow.call(&mut store, ()).unwrap(), -1);
        assert!(store.data_mut().take_refused().unwrap().contains("2000001 table elements"));
    }
}
