//! Values counted by size.

use super::super::page::{Float, Page};

/// Most that counts for each bucket: what Prometheus' clients have where nothing else is said.
const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Debug)]
pub(super) struct Histogram {
    /// What each bucket alone holds; what is larger than all of them only counts.
    buckets: [(f64, u64); BOUNDS.len()],
    sum: f64,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: BOUNDS.map(|bound| (bound, 0)), sum: 0.0, count: 0 }
    }
}

impl Histogram {
    pub(super) fn observe(&mut self, value: f64) {
        if let Some((_, count)) = self.buckets.iter_mut().find(|(bound, _)| value <= *bound) {
            *count += 1;
        }
        self.sum += value;
        self.count += 1;
    }

    pub(super) fn write(&self, page: &mut Page, metric: &str) {
        let bucket = format!("{metric}_bucket");
        let mut up_to = 0;
        for (bound, count) in self.buckets {
            up_to += count;
            page.sample(&bucket, &[("le", &Float(bound).to_string())], up_to);
        }
        page.sample(&bucket, &[("le", "+Inf")], self.count);
        page.sample(&format!("{metric}_sum"), &[], Float(self.sum));
        page.sample(&format!("{metric}_count"), &[], self.count);
    }
}
