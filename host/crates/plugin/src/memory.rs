//! Memory budget that all instances of a pod's plugin share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use ochopod_telemetry::Metrics;

/// One budget for all instances of a pod: lifecycle, model and tools.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    max: usize,
    used: AtomicUsize,
    metrics: Arc<Metrics>,
}

impl MemoryBudget {
    pub(super) fn new(max: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { max, used: AtomicUsize::new(0), metrics })
    }

    /// Returns the maximum of all instances together, in bytes.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Acquires this many bytes, or none.
    ///
    /// # Errors
    /// The number of bytes in use.
    pub(super) fn acquire(&self, bytes: usize) -> Result<(), usize> {
        let sum = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.max);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, sum)?;
        self.report();
        Ok(())
    }

    pub(super) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        self.report();
    }

    fn report(&self) {
        self.metrics.plugin_memory(self.used.load(Ordering::Acquire));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_shared_and_what_is_released_can_be_used_again() {
        let budget = MemoryBudget::new(100, Arc::default());
        assert_eq!(budget.acquire(60), Ok(()));
        assert_eq!(budget.acquire(60), Err(60));
        assert_eq!(budget.acquire(usize::MAX), Err(60));
        assert_eq!(budget.acquire(40), Ok(()));
        budget.release(60);
        assert_eq!(budget.acquire(60), Ok(()));
    }

    #[test]
    fn no_interleaving_exceeds_the_budget() {
        let budget = MemoryBudget::new(1000, Arc::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if budget.acquire(300).is_ok() {
                            assert!(budget.used.load(Ordering::Acquire) <= 1000);
                            budget.release(300);
                        }
                    }
                });
            }
        });
        assert_eq!(budget.used.load(Ordering::Acquire), 0);
    }
}
