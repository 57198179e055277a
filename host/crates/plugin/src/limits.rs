//! Limits on the memory and tables of an instance.

use std::sync::Arc;

use wasmtime::{Error, ResourceLimiter, Result};

use super::memory::MemoryBudget;

/// Maximum number of table elements of one instance, all tables together.
const MAX_ELEMENTS: usize = 1 << 20;
/// Memory that counts for one element.
const ELEMENT_BYTES: usize = size_of::<usize>();
/// Maximum number of core modules, tables and memories of one component.
const MAX_PARTS: usize = 256;

/// Counts memory and tables of one instance against the budget of its pod, and remembers the last violation. Dropping it
/// releases what it counted.
#[derive(Debug)]
pub(super) struct InstanceLimits {
    budget: Arc<MemoryBudget>,
    acquired: usize,
    elements: usize,
    violation: Option<String>,
}

impl InstanceLimits {
    pub(super) fn new(budget: Arc<MemoryBudget>) -> Self {
        Self { budget, acquired: 0, elements: 0, violation: None }
    }

    /// Takes the violation since the last call: a trap that follows is attributed to it.
    pub(super) fn take_violation(&mut self) -> Option<String> {
        self.violation.take()
    }

    fn acquire(&mut self, bytes: usize) -> bool {
        match self.budget.acquire(bytes) {
            Ok(()) => {
                self.acquired += bytes;
                true
            }
            Err(used) => {
                let [wanted, used, max] =
                    [self.acquired.saturating_add(bytes), used, self.budget.max()].map(|bytes| bytes.div_ceil(1 << 20));
                self.violation = Some(format!(
                    "memory: requested {wanted} MiB while all instances use {used} MiB, their limit is {max} MiB \
                     (--plugin-memory)"
                ));
                false
            }
        }
    }
}

impl Drop for InstanceLimits {
    fn drop(&mut self) {
        self.budget.release(self.acquired);
    }
}

impl ResourceLimiter for InstanceLimits {
    // A grant that fails later stays counted until the instance is dropped: wasmtime also reports failures that were never
    // granted.
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.acquire(desired.saturating_sub(current)))
    }

    fn memory_grow_failed(&mut self, error: Error) -> Result<()> {
        self.violation.get_or_insert_with(|| format!("memory cannot grow: {error}"));
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let growth = desired.saturating_sub(current);
        let total = self.elements.saturating_add(growth);
        if total > MAX_ELEMENTS {
            self.violation = Some(format!("table elements: requested {total}, limit is {MAX_ELEMENTS}"));
            return Ok(false);
        }
        let granted = self.acquire(growth * ELEMENT_BYTES);
        if granted {
            self.elements = total;
        }
        Ok(granted)
    }

    fn instances(&self) -> usize {
        MAX_PARTS
    }

    fn tables(&self) -> usize {
        MAX_PARTS
    }

    fn memories(&self) -> usize {
        MAX_PARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(budget: &Arc<MemoryBudget>) -> InstanceLimits {
        InstanceLimits::new(Arc::clone(budget))
    }

    #[test]
    fn memory_is_counted_over_all_memories_and_a_rejection_is_reported_once() {
        let budget = MemoryBudget::new(256 << 20, Arc::default());
        let mut limits = limits(&budget);
        assert!(limits.memory_growing(0, 200 << 20, None).unwrap());
        assert!(limits.memory_growing(0, 56 << 20, None).unwrap());
        assert!(!limits.memory_growing(56 << 20, 57 << 20, None).unwrap());
        let violation = limits.take_violation().unwrap();
        assert!(violation.contains("257 MiB") && violation.contains("--plugin-memory"), "{violation}");
        assert_eq!(limits.take_violation(), None);
        assert!(!limits.table_growing(0, usize::MAX, None).unwrap());
        assert!(limits.take_violation().unwrap().contains("table elements"));
    }

    #[test]
    fn instances_share_one_budget_until_they_are_dropped() {
        let budget = MemoryBudget::new(100 << 20, Arc::default());
        let (mut one, mut other) = (limits(&budget), limits(&budget));
        assert!(one.memory_growing(0, 60 << 20, None).unwrap());
        assert!(!other.memory_growing(0, 60 << 20, None).unwrap());
        assert!(other.take_violation().unwrap().contains("use 60 MiB"));
        drop(one);
        assert!(other.memory_growing(0, 60 << 20, None).unwrap());
    }

    #[test]
    fn tables_count_as_memory() {
        let budget = MemoryBudget::new(1 << 20, Arc::default());
        let mut limits = limits(&budget);
        assert!(!limits.table_growing(0, (1 << 17) + 1, None).unwrap());
        assert!(limits.table_growing(0, 1 << 16, None).unwrap());
        assert!(!limits.memory_growing(0, 1 << 20, None).unwrap());
        assert!(limits.memory_growing(0, 1 << 19, None).unwrap());
    }

    #[test]
    fn failures_that_wasmtime_reports_on_its_own_release_nothing() {
        let budget = MemoryBudget::new(1 << 20, Arc::default());
        let mut limits = limits(&budget);
        assert!(limits.memory_growing(0, 1 << 20, None).unwrap());
        limits.memory_grow_failed(Error::msg("overflow")).unwrap();
        limits.table_grow_failed(Error::msg("overflow")).unwrap();
        assert!(!limits.memory_growing(1 << 20, (1 << 20) + 1, None).unwrap());
    }

    #[test]
    fn growth_beyond_a_declared_maximum_costs_nothing() {
        let budget = MemoryBudget::new(1 << 20, Arc::default());
        let mut limits = limits(&budget);
        for _ in 0..100 {
            assert!(!limits.memory_growing(0, 1 << 16, Some(1)).unwrap());
            assert!(!limits.table_growing(0, 1 << 10, Some(1)).unwrap());
        }
        assert!(limits.memory_growing(0, 1 << 20, None).unwrap());
    }

    /// `(module (table 1 funcref) (func (export "g") (result i32) (table.grow 0 (ref.null func) (i32.const 2000000))))`
    const GROWS_ITS_TABLE: &[u8] = b"\0asm\x01\0\0\0\x01\x05\x01\x60\0\x01\x7f\x03\x02\x01\0\x04\x04\x01\x70\0\x01\
        \x07\x05\x01\x01g\0\0\x0a\x0e\x01\x0c\0\xd0\x70\x41\x80\x89\xfa\0\xfc\x0f\0\x0b";

    #[test]
    fn a_table_that_grows_without_measure_is_refused() {
        let engine = wasmtime::Engine::default();
        let module = wasmtime::Module::new(&engine, GROWS_ITS_TABLE).unwrap();
        let budget = MemoryBudget::new(256 << 20, Arc::default());
        let mut store = wasmtime::Store::new(&engine, limits(&budget));
        store.limiter(|limits| limits);
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
        let grow = instance.get_typed_func::<(), i32>(&mut store, "g").unwrap();
        assert_eq!(grow.call(&mut store, ()).unwrap(), -1);
        assert!(store.data_mut().take_violation().unwrap().contains("requested 2000001"));
    }
}
