//! Counts of values by size.

use ochopod_telemetry::{GoFloat, PrometheusText};

/// Upper bounds of the buckets: the defaults of Prometheus' clients.
const BUCKET_BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Debug)]
pub(super) struct Histogram {
    /// Bound and own count of each bucket; larger values are only in `count`.
    buckets: [(f64, u64); BUCKET_BOUNDS.len()],
    sum: f64,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: BUCKET_BOUNDS.map(|bound| (bound, 0)), sum: 0.0, count: 0 }
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

    pub(super) fn write(&self, page: &mut PrometheusText, metric: &str) {
        let bucket = format!("{metric}_bucket");
        let mut total = 0;
        for (bound, count) in self.buckets {
            total += count;
            page.sample(&bucket, &[("le", &GoFloat(bound).to_string())], total);
        }
        page.sample(&bucket, &[("le", "+Inf")], self.count);
        page.sample(&format!("{metric}_sum"), &[], GoFloat(self.sum));
        page.sample(&format!("{metric}_count"), &[], self.count);
    }
}
